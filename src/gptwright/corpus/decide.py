"""Decisions: what is kept, why the rest is not, and what is held out. Reads ids and signals only, never text."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.corpus import tables

BUCKETS = 10_000
HELDOUT_BYTES = 64 << 10
HELDOUT_MOST = 0.2  # of a small corpus, however little that is
HELDOUT_TOO_MUCH = 0.4  # when one document would take more than this, documents are cut, or nothing is held out
_UNITS = {"document": "split_id", "part": "norm_id"}  # what stays together, and the id that says so

Array = npt.NDArray[Any]
_PII = tuple(f"pii_{kind.lower()}" for kind in tables.PII_KINDS)


@dataclass(frozen=True)
class Rule:
    """A document fails when ``signal op threshold`` holds, among those the rule looks at."""

    id: str
    signal: str
    op: str
    threshold: float
    chats: bool = True  # looks at conversations
    plain: bool = True  # looks at plain text
    least_chars: int = 0  # looks at texts from this length on


RULES = {
    "none": (),
    "small": (
        Rule("chat.few_turns", "n_turns", "<", 2, plain=False),
        Rule("text.too_short", "n_chars", "<", 20, chats=False),
        Rule("text.few_letters", "letter_share", "<", 0.3, least_chars=20),
        Rule("text.repetition", "compress_ratio", "<", 0.08, least_chars=500),
    ),
}


@dataclass(frozen=True)
class Part:
    """A docs file with its signals and the source's policy."""

    docs: Path
    signals: Path
    source: str
    policy: str


@dataclass
class Decided:
    """All decisions, by row over all parts."""

    keep: Array
    heldout: Array
    n_bytes: Array
    source: Array
    digest: str
    share: float
    unit: str
    tables: list[pa.Table] = field(default_factory=list)
    occurrences: pa.Table | None = None
    dropped: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, first rule)
    pii: Counter[tuple[str, str]] = field(default_factory=Counter)  # (source, kind)
    notes: list[str] = field(default_factory=list)


def bucket(norm_id: bytes) -> int:
    """The document's place among 10,000, by what it says: never changes when other documents come or go."""
    return int.from_bytes(blake2b(norm_id, digest_size=8).digest(), "big") % BUCKETS


def decide(parts: Sequence[Part], recipe: str, asked_share: float, fixed: tuple[float, str] | None) -> Decided:
    """Decide over all documents.

    Args:
        parts: in their final order, which is also the order of preference among copies.
        recipe: name of a set of rules.
        asked_share: configured share of held-out documents.
        fixed: share and unit ("document" or "part") of the first build; None makes this the first.
    """
    columns = ["doc_uid", "content_id", "norm_id", "split_id", "locator", "license_id", "source"]
    docs = pa.concat_tables([pq.read_table(p.docs, columns=columns) for p in parts]).combine_chunks()
    signals = pa.concat_tables([pq.read_table(p.signals, schema=tables.SIGNALS) for p in parts]).combine_chunks()
    rows = docs.num_rows
    ids = {name: _ids(docs, name) for name in ("doc_uid", "content_id", "norm_id", "split_id")}
    source = np.concatenate([np.full(pq.read_metadata(p.docs).num_rows, p.source, dtype=object) for p in parts])
    policy = np.concatenate([np.full(pq.read_metadata(p.docs).num_rows, p.policy, dtype=object) for p in parts])
    chat = signals["n_turns"].is_valid().to_numpy(zero_copy_only=False).astype(bool)
    n_bytes = signals["n_bytes_edited"].to_numpy()

    failures = _failures(signals, chat, policy, RULES[recipe])
    alive = np.ones(rows, bool)
    for _, failed, _ in failures:
        alive &= ~failed
    share, unit, notes = _share(ids, n_bytes, alive, asked_share, fixed)
    heldout = _buckets(ids[_UNITS[unit]]) < round(share * BUCKETS)
    kept_of = _copies(ids, alive, heldout)
    copies = kept_of >= 0
    keep = alive & ~copies

    decided = Decided(keep, heldout & keep, n_bytes, source, "", share, unit, notes=notes)
    rule, value, op, threshold, all_failed = _evidence(rows, failures, copies)
    for name, first in zip(source[~keep], rule[~keep], strict=True):
        decided.dropped[(name, first)] += 1
    for kind, column in zip(tables.PII_KINDS, _PII, strict=True):
        found = signals[column].to_numpy()
        for name in dict.fromkeys(source):
            decided.pii[(name, kind)] = int(found[(source == name) & keep].sum())
    kept_uid = [ids["doc_uid"][k].tobytes() if k >= 0 else None for k in kept_of]
    split = [("heldout" if held else "train") if kept else None for kept, held in zip(keep, heldout, strict=True)]
    table = pa.table(
        [
            docs["doc_uid"],
            pa.array(np.where(keep, "keep", "drop"), pa.string()),
            pa.array(split, pa.string()),
            pa.array(rule, pa.string()),
            pa.array(value, pa.float32()),
            pa.array(op, pa.string()),
            pa.array(threshold, pa.float32()),
            pa.array(kept_uid, tables.ID),
            pa.array(all_failed, tables.DECISIONS.field("failed").type),
        ],
        schema=tables.DECISIONS,
    )
    at = 0
    for part in parts:
        count = pq.read_metadata(part.docs).num_rows
        decided.tables.append(table.slice(at, count))
        at += count
    decided.occurrences = _occurrences(docs, kept_of, keep, kept_uid)
    decided.digest = _digest(ids, _ids(signals, "edit_id"), keep, heldout)
    return decided


def _ids(table: pa.Table, name: str) -> Array:
    """A column of 16-byte ids as a NumPy array of opaque values that sort and compare by their bytes."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], tables.ID)
    data = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.zeros(0, np.uint8)
    return data[column.offset * 16 : (column.offset + len(column)) * 16].view("V16")


def _buckets(ids: Array) -> Array:
    return np.array([bucket(i.tobytes()) for i in ids], np.int64)


def _failures(signals: pa.Table, chat: Array, policy: Array, rules: Sequence[Rule]) -> list[tuple[Rule, Array, Array]]:
    """Every rule over every document: (rule, who fails, measured values)."""
    found = []
    chars = signals["n_chars"].to_numpy()
    for rule in rules:
        value = signals[rule.signal].to_numpy(zero_copy_only=False).astype(np.float64)
        looked = (chars >= rule.least_chars) & ((chat & rule.chats) | (~chat & rule.plain))
        found.append((rule, looked & (value < rule.threshold), value))
    personal = np.sum([signals[column].to_numpy() for column in _PII], axis=0).astype(np.float64)
    found.append((Rule("privacy.drop", "pii", ">", 0), (policy == "drop") & (personal > 0), personal))
    return found


def _copies(ids: dict[str, Array], alive: Array, heldout: Array) -> Array:
    """For each row the row that is kept in its stead, -1 where it is no copy. Held-out copies are preferred, then earlier ones:
    text that is measured on must not also be trained on."""
    rows = len(alive)
    kept_of = np.full(rows, -1, np.int64)
    preferred = np.lexsort((np.arange(rows), ~heldout))
    left = preferred[alive[preferred]]
    for name in ("content_id", "norm_id"):
        _, first, group = np.unique(ids[name][left], return_index=True, return_inverse=True)
        keeper = left[first][group]
        copy = keeper != left
        kept_of[left[copy]] = keeper[copy]
        left = left[~copy]
    # A copy of the first round may point to one that the second round dropped.
    chained = kept_of >= 0
    onward = kept_of[kept_of[chained]]
    kept_of[chained] = np.where(onward >= 0, onward, kept_of[chained])
    return kept_of


def _share(
    ids: dict[str, Array], n_bytes: Array, alive: Array, asked: float, fixed: tuple[float, str] | None
) -> tuple[float, str, list[str]]:
    """The held-out share: what the first build fixed, or now the smallest that is asked for and holds 64 KB (20 % at most)."""
    total = float(n_bytes[alive].sum())
    if fixed is not None:
        share, unit = fixed
        held = _buckets(ids[_UNITS[unit]]) < round(share * BUCKETS)
        return share, unit, _share_notes(share, asked, float(n_bytes[alive & held].sum()), unit)
    if asked == 0:
        return 0.0, "document", _share_notes(0.0, 0.0, 0.0, "document")
    target = min(max(asked * total, HELDOUT_BYTES), HELDOUT_MOST * total)
    for unit, name in _UNITS.items():
        unique, group = np.unique(ids[name][alive], return_inverse=True)
        size = np.bincount(group, weights=n_bytes[alive], minlength=len(unique))
        places = _buckets(unique)
        order = np.argsort(places, kind="stable")
        held = np.cumsum(size[order])
        reached = int(np.searchsorted(held, target)) if len(held) else 0
        needed = 0.0
        if reached < len(order):
            needed = (int(places[order[reached]]) + 1) / BUCKETS
        share = max(asked, needed)
        got = float(size[places < round(share * BUCKETS)].sum())
        if got <= HELDOUT_TOO_MUCH * total:
            return share, unit, _share_notes(share, asked, got, unit)
    return asked, "document", _share_notes(asked, asked, 0.0, "document")


def _share_notes(share: float, asked: float, got: float, unit: str) -> list[str]:
    if got == 0:
        reason = "as configured" if share == 0 else "there are too few documents"
        return [f"nothing is held out ({reason}): the model cannot be measured on unseen text"]
    notes = []
    if share > asked:
        notes.append(
            f"the held-out share is {share:.2%} instead of {asked:.2%}, so that {got / 1024:.0f} KB are there to measure on"
        )
    elif share < asked:
        notes.append(f"the held-out share stays {share:.2%}, as the first build fixed it (now asked for: {asked:.2%})")
    if got < HELDOUT_BYTES:
        notes.append(f"only {got / 1024:.1f} KB are held out: measured numbers will be rough")
    if unit == "part":
        notes.append("there are few documents, so the held-out part is cut from inside them")
    return notes


def _evidence(
    rows: int, failures: Sequence[tuple[Rule, Array, Array]], copies: Array
) -> tuple[Array, Array, Array, Array, list[list[dict[str, Any]]]]:
    """The first failed rule of each row, and all of them."""
    rule, op = np.full(rows, None, object), np.full(rows, None, object)
    value, threshold = np.full(rows, None, object), np.full(rows, None, object)
    all_failed: list[list[dict[str, Any]]] = [[] for _ in range(rows)]
    copy = (Rule("copy.exact", "occurrence", ">", 1), copies, np.full(rows, 2.0))
    for found, failed, measured in (*failures, copy):
        for row in np.flatnonzero(failed):
            if rule[row] is None:
                rule[row], op[row], value[row], threshold[row] = (
                    found.id,
                    found.op,
                    float(measured[row]),
                    found.threshold,
                )
            one = {"rule": found.id, "value": float(measured[row]), "op": found.op, "threshold": found.threshold}
            all_failed[row].append(one)
    return rule, value, op, threshold, all_failed


def _occurrences(docs: pa.Table, kept_of: Array, keep: Array, kept_uid: list[bytes | None]) -> pa.Table:
    """Every row of a text that stands in more than one place, the kept one with them."""
    member = kept_of >= 0
    member[np.unique(kept_of[member])] = True
    rows = np.flatnonzero(member)
    uids = docs["doc_uid"].to_pylist()
    table = docs.select(["content_id", "norm_id", "doc_uid", "source", "locator", "license_id"]).take(pa.array(rows))
    kept = pa.array([uids[row] if keep[row] else kept_uid[row] for row in rows], tables.ID)
    return table.append_column("kept_uid", kept).select(tables.OCCURRENCES.names).cast(tables.OCCURRENCES)


def _digest(ids: dict[str, Array], edit_id: Array, keep: Array, heldout: Array) -> str:
    """Names the kept documents, their final texts, order and split; independent of time, machine and how they came to be."""
    digest = blake2b(digest_size=32)
    for values in (ids["doc_uid"], ids["content_id"], edit_id):
        digest.update(np.ascontiguousarray(values[keep]).tobytes())
    digest.update(np.packbits(heldout[keep]).tobytes())
    return "b2:" + digest.hexdigest()
