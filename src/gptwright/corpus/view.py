"""Views of a built corpus: the documents with their edits made, one of them by selector, samples, licences, and why.

Read-only. Everything here raises a UserError when the corpus was not built to its end.
"""

import fnmatch
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.core.ledger import Ledger
from gptwright.corpus.build import MANIFEST
from gptwright.corpus.edits import Edit, apply_edits, apply_to_messages
from gptwright.corpus.tables import PII_KINDS, part_path

Split = Literal["train", "heldout"]


@dataclass(frozen=True)
class Document:
    """A document as training sees it. ``messages`` is None for plain text; ids are hex."""

    uid: str
    source: str
    locator: str
    text: str
    messages: list[dict[str, str]] | None
    license: str | None
    norm_id: str


@dataclass(frozen=True)
class Found:
    """A document with all that is known of it: its row in docs (ids as hex), its signals, its decision and its edits."""

    document: Document
    row: dict[str, Any]
    signals: dict[str, Any]
    decision: dict[str, Any]
    edits: list[Edit]


def manifest(corpus_dir: Path) -> dict[str, Any]:
    """What the last finished build said: format, hash, parts, meta.

    Raises:
        UserError: there is none.
    """
    path = corpus_dir / MANIFEST
    if not path.exists():
        raise UserError(
            "the corpus is not built, or its building was stopped",
            where=str(corpus_dir),
            fix="Run: gptwright data build",
        )
    found: dict[str, Any] = read_json(path)
    return found


def documents(corpus_dir: Path, split: Split | None = None) -> Iterator[Document]:
    """The kept documents with their edits made, in the corpus's order.

    Args:
        corpus_dir: work/corpus.
        split: "train", "heldout", or None for both.
    """
    for number in range(manifest(corpus_dir)["parts"]):
        decisions = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict", "split"])
        chosen = pc.equal(decisions["verdict"], "keep")
        if split is not None:
            chosen = pc.and_(chosen, pc.fill_null(pc.equal(decisions["split"], split), False))
        if pc.any(chosen).as_py():
            edits = _edits(corpus_dir, number)
            for row, values in _rows(corpus_dir, number, chosen.to_pylist(), _COLUMNS):
                yield _document(values, edits.get(row, []))


_COLUMNS = ["doc_uid", "norm_id", "source", "locator", "text", "messages", "license_id"]


def _rows(
    corpus_dir: Path, number: int, chosen: list[bool], columns: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    row = 0
    with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
        for batch in file.iter_batches(batch_size=1024, columns=columns):
            wanted = chosen[row : row + batch.num_rows]
            if any(wanted):
                rows = [row + i for i, take in enumerate(wanted) if take]
                yield from zip(rows, batch.filter(pa.array(wanted)).to_pylist(), strict=True)
            row += batch.num_rows


def _edits(corpus_dir: Path, number: int) -> dict[int, list[Edit]]:
    edits: dict[int, list[Edit]] = {}
    columns = pq.read_table(part_path(corpus_dir, "edits", number)).to_pydict()
    for row, start, end, kind, replacement in zip(*columns.values(), strict=True):
        edits.setdefault(row, []).append(Edit(start, end, kind, replacement))
    return edits


def _document(row: dict[str, Any], edits: list[Edit]) -> Document:
    messages = json.loads(row["messages"]) if row["messages"] is not None else None
    text = row["text"]
    if edits:
        text = apply_edits(text, edits)
        messages = apply_to_messages(messages, edits) if messages is not None else None
    return Document(
        row["doc_uid"].hex(), row["source"], row["locator"], text, messages, row["license_id"], row["norm_id"].hex()
    )


def find_documents(corpus_dir: Path, selector: str, limit: int = 10) -> list[Found]:
    """Documents that a selector names, dropped ones too.

    Args:
        selector: ``id:HEX`` (also its beginning), ``path:GLOB`` (of the locator, or source/locator), ``source:NAME``,
            ``license:SPDX``; without a prefix an id or a path.
        limit: stop after so many.
    """
    kind, mark, value = selector.partition(":")
    if not mark or kind not in ("id", "path", "source", "license"):
        hexadecimal = len(selector) >= 6 and all(c in "0123456789abcdef" for c in selector)
        kind, value = ("id" if hexadecimal else "path"), selector
    found: list[Found] = []
    for number in range(manifest(corpus_dir)["parts"]):
        columns = ["doc_uid", "source", "locator", "license_id"]
        places = pq.read_table(part_path(corpus_dir, "docs", number), columns=columns).to_pydict()
        rows = list(zip(*(places[name] for name in columns), strict=True))
        chosen = [_matches(kind, value, *row) for row in rows]
        if not any(chosen):
            continue
        signals = pq.read_table(part_path(corpus_dir, "signals", number))
        decisions = pq.read_table(part_path(corpus_dir, "decisions", number))
        edits = _edits(corpus_dir, number)
        for row, values in _rows(corpus_dir, number, chosen):
            own = edits.get(row, [])
            numbers, decision = signals.slice(row, 1).to_pylist()[0], decisions.slice(row, 1).to_pylist()[0]
            found.append(Found(_document(values, own), _hex(values), _hex(numbers), _hex(decision), own))
            if len(found) >= limit:
                return found
    return found


def find_document(corpus_dir: Path, selector: str) -> Found:
    """The one document that a selector names; of several the first.

    Raises:
        UserError: there is none.
    """
    if found := find_documents(corpus_dir, selector, 1):
        return found[0]
    raise UserError(
        f"no document {selector!r} in the corpus",
        where=str(corpus_dir),
        fix="Name an id, a path or a pattern such as path:notes/*",
    )


def _matches(kind: str, value: str, uid: bytes, source: str, locator: str, license_id: str | None) -> bool:
    if kind == "id":
        return uid.hex().startswith(value.lower())
    if kind == "source":
        return source == value
    if kind == "license":
        return license_id == value
    file = locator.partition("#")[0]
    return any(
        fnmatch.fnmatchcase(place, value) for place in (locator, file, f"{source}/{locator}", f"{source}/{file}")
    )


def _hex(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}


def sample(corpus_dir: Path, n: int = 10, *, rule: str | None = None, seed: int = 0) -> list[Found]:
    """Documents to look at, the same for the same seed.

    Args:
        n: how many.
        rule: of those that this rule dropped; None for kept ones.
        seed: another seed, other documents.
    """
    places: list[tuple[bytes, int, int]] = []
    for number in range(manifest(corpus_dir)["parts"]):
        decisions = pq.read_table(
            part_path(corpus_dir, "decisions", number), columns=["doc_uid", "verdict", "failed"]
        ).to_pylist()
        for row, one in enumerate(decisions):
            if (one["verdict"] == "keep") if rule is None else any(f["rule"] == rule for f in one["failed"]):
                places.append(
                    (
                        blake2b(one["doc_uid"] + seed.to_bytes(8, "big", signed=True), digest_size=8).digest(),
                        number,
                        row,
                    )
                )
    uids = []
    for _, number, row in sorted(places)[:n]:
        uids.append(
            pq.read_table(part_path(corpus_dir, "docs", number), columns=["doc_uid"])["doc_uid"][row].as_py().hex()
        )
    return [find_document(corpus_dir, f"id:{uid}") for uid in uids]


def licenses(corpus_dir: Path) -> list[dict[str, Any]]:
    """Licences of the kept text by size: license, license_source, attribution, sources, documents, bytes, share."""
    meta = manifest(corpus_dir)["meta"]
    rows: dict[tuple[Any, Any, Any], dict[str, Any]] = {}
    for name, source in meta["sources"].items():
        key = (source["license"], source["license_source"], source["attribution"])
        row = rows.setdefault(
            key,
            {
                "license": key[0],
                "license_source": key[1],
                "attribution": key[2],
                "sources": [],
                "documents": 0,
                "bytes": 0,
            },
        )
        row["sources"].append(name)
        row["documents"] += source["kept"]
        row["bytes"] += source["bytes"]
    for row in rows.values():
        row["share"] = row["bytes"] / max(meta["bytes"], 1)
    return sorted(rows.values(), key=lambda row: -row["bytes"])


def why(corpus_dir: Path, ledger: Ledger, selector: str) -> list[str]:
    """Why a document, or a file that gave none, is in the corpus or not: lines for a person.

    Raises:
        UserError: nothing has this name.
    """
    found = find_documents(corpus_dir, selector, 5)
    if found:
        return [line for one in found for line in _why_document(corpus_dir, one)]
    value = selector.removeprefix("path:")
    lines = []
    for file in ledger.files():
        if any(fnmatch.fnmatchcase(place, value) for place in (file.locator, f"{file.source}/{file.locator}")):
            lines.append(f"{file.source}/{file.locator}: {file.outcome}" + (f", {file.reason}" if file.reason else ""))
    if not lines:
        find_document(corpus_dir, selector)
    return lines


def _why_document(corpus_dir: Path, found: Found) -> list[str]:
    row, decision, numbers = found.row, found.decision, found.signals
    kept = decision["verdict"] == "keep"
    turns = f", {numbers['n_turns']} turns" if numbers["n_turns"] is not None else ""
    lines = [
        f"{row['source']}/{row['locator']}  (id {row['doc_uid']})",
        f"  verdict: {'kept, ' + _SPLITS[decision['split']] if kept else 'dropped'}",
    ]
    for failed in decision["failed"]:
        if failed["rule"] == "copy.exact":
            other = find_document(corpus_dir, f"id:{decision['kept_uid']}").document
            lines.append(
                f"  copy.exact: the same text as {other.source}/{other.locator} (id {other.uid}), which is kept"
            )
        else:
            lines.append(
                f"  {failed['rule']}: measured {failed['value']:.4g}, dropped when {failed['op']} {failed['threshold']:.4g}"
            )
    lines += [
        f"  text: {numbers['n_chars']} characters{turns}, {numbers['letter_share']:.0%} letters, compresses to {numbers['compress_ratio']:.0%}",
        f"  read from: {row['mime']}, {row['charset'] or 'binary'}, by {row['extractor']}, file {row['raw_hash'][:19]}",
        f"  licence: {row['license_id'] or 'none known'} ({row['license_source']}, confidence {row['license_conf']:.1f})"
        + (f", {row['attribution']}" if row["attribution"] else ""),
    ]
    personal = {kind: numbers[f"pii_{kind.lower()}"] for kind in PII_KINDS}
    if any(personal.values()):
        counted = ", ".join(f"{count} {kind}" for kind, count in personal.items() if count)
        lines.append(f"  personal data found: {counted} (policy: {row['pii_policy']})")
    if edits := Counter(edit.kind for edit in found.edits):
        lines.append("  edits: " + ", ".join(f"{count} {kind}" for kind, count in sorted(edits.items())))
    return lines


_SPLITS = {"train": "for training", "heldout": "held out (never trained on, used to measure)"}
