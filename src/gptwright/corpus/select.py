"""The documents that an erasure is about: those a selector names, and every copy of them, dropped ones too.

A copy that was dropped in favour of a named document would otherwise take its place at the next build. Copies are those that were verified
when the corpus was built: equal texts, and near ones that were compared with the same kept text.
"""

from collections.abc import Collection, Iterator, Sequence
from pathlib import Path

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.corpus.blocks import Keys
from gptwright.corpus.dedup.features import features
from gptwright.corpus.find import iter_documents
from gptwright.corpus.forget import Victim
from gptwright.corpus.reading import manifest
from gptwright.corpus.tables import part_path

_DOCS = ["doc_uid", "norm_id", "source", "locator", "license_id"]
_DECISIONS = ["verdict", "split", "rule", "kept_uid"]


def select(corpus_dir: Path, selector: str, *, copies: bool = True) -> list[Victim]:
    """The documents that a selector names, with all their copies.

    Args:
        corpus_dir: work/corpus.
        selector: see ``find.find_documents``.
        copies: also their copies.

    Raises:
        UserError: it names none.
    """
    hits: set[bytes] = set()
    groups: set[bytes] = set()
    norms: set[bytes] = set()
    for _, found in iter_documents(corpus_dir, selector):
        hits.add(bytes.fromhex(found.document.uid))
        norms.add(bytes.fromhex(found.document.norm_id))
        kept = found.decision["kept_uid"]
        groups.add(bytes.fromhex(kept or found.document.uid))
    if not hits:
        raise UserError(
            f"no document {selector!r} in the corpus",
            where=str(corpus_dir),
            fix="See what there is with: gptwright data why path:GLOB",
        )
    chosen: list[Victim] = []
    for docs, decisions in _parts(corpus_dir):
        mask = _among(docs["doc_uid"], hits)
        if copies:
            mask = pc.or_(mask, _among(docs["doc_uid"], groups))
            mask = pc.or_(mask, _among(decisions["kept_uid"], groups))
            mask = pc.or_(mask, _among(docs["norm_id"], norms))
        rows = zip(docs.filter(mask).to_pylist(), decisions.filter(mask).to_pylist(), strict=True)
        chosen += [_victim(doc, decision, doc["doc_uid"] in hits) for doc, decision in rows]
    return chosen


def shared_places(corpus_dir: Path, victims: Sequence[Victim]) -> set[tuple[str, str]]:
    """(source, file) of victims whose file also gave documents that are none."""
    uids = {bytes.fromhex(victim.uid) for victim in victims}
    places = {(victim.source, victim.locator.partition("#")[0]) for victim in victims}
    sources = pa.array(sorted({source for source, _ in places}), pa.string())
    found: set[tuple[str, str]] = set()
    for docs, _ in _parts(corpus_dir):
        others = docs.filter(pc.and_(pc.is_in(docs["source"], sources), pc.invert(_among(docs["doc_uid"], uids))))
        files = (locator.partition("#")[0] for locator in others["locator"].to_pylist())
        found |= places.intersection(zip(others["source"].to_pylist(), files, strict=True))
    return found


def band_keys(corpus_dir: Path, victims: Sequence[Victim]) -> dict[str, Keys]:
    """MinHash band keys of victims by uid, (bands,) uint64; texts too short to have any are left out."""
    wanted = {bytes.fromhex(victim.uid) for victim in victims}
    found: dict[str, Keys] = {}
    for number in range(manifest(corpus_dir)["parts"]):
        with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
            for batch in file.iter_batches(batch_size=1024, columns=["doc_uid", "text"]):
                chosen = batch.filter(_among(batch["doc_uid"], wanted))
                if chosen.num_rows:
                    made = features(chosen["text"])
                    uids = chosen["doc_uid"].to_pylist()
                    found |= {uids[i].hex(): made.keys[i] for i in range(len(uids)) if made.shingles[i]}
    return found


def _parts(corpus_dir: Path) -> Iterator[tuple[pa.Table, pa.Table]]:
    for number in range(manifest(corpus_dir)["parts"]):
        docs = pq.read_table(part_path(corpus_dir, "docs", number), columns=_DOCS)
        yield docs, pq.read_table(part_path(corpus_dir, "decisions", number), columns=_DECISIONS)


def _among(column: pa.ChunkedArray, values: Collection[bytes]) -> pa.ChunkedArray:
    return pc.is_in(column, pa.array(sorted(values), pa.binary(16)))


def _victim(doc: dict[str, object], decision: dict[str, object], named: bool) -> Victim:
    if decision["verdict"] == "keep":
        verdict = "kept for training" if decision["split"] == "train" else "held out"
    else:
        verdict = f"dropped by {decision['rule']}"
    uid, norm = doc["doc_uid"], doc["norm_id"]
    assert isinstance(uid, bytes)
    assert isinstance(norm, bytes)
    licence = doc["license_id"]
    because = "" if named else ", a copy"
    return Victim(
        uid.hex(),
        norm.hex(),
        str(doc["source"]),
        str(doc["locator"]),
        verdict,
        because,
        str(licence) if licence is not None else None,
    )
