"""Decisions: what is kept, why the rest is not, and what is held out. Reads ids and signals only, never text.

Part by part, twice: first every rule is evaluated and sizes are counted; then, when the held-out share is chosen and copies are
resolved over all documents, each part's decisions are written. Between the two stand about ten bytes a document, eight of them to say
which document is kept for a copy.
"""

import itertools
import shutil
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.files import write_json
from gptwright.corpus import tables
from gptwright.corpus.copies import (
    METHODS,
    Array,
    Bools,
    Contamination,
    Copies,
    Duplicates,
    ExactCopies,
    let_go,
    mapped,
)
from gptwright.corpus.evidence import Checks, decision_table, look_at
from gptwright.corpus.heldout import BUCKETS, HELDOUT_BYTES, UNITS, Sizes, bucket, buckets, choose_share
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.recipes.evaluate import columns, no_signal

__all__ = ["BUCKETS", "HELDOUT_BYTES", "Decided", "Part", "Tally", "bucket", "decide", "publish"]

ALARM = 0.5  # a rule that drops more than this of a source is told aloud
STATE = "recipe.json"
_STEP = 1 << 20  # documents at a time, where nothing else cuts them
_IDS = ("doc_uid", "content_id", "norm_id")


@dataclass(frozen=True)
class Part:
    """A docs file with its signals."""

    docs: Path
    signals: Path
    source: str


@dataclass
class Tally:
    """What became of a source. Bytes are of the text with its edits made."""

    read: int = 0
    bytes_read: int = 0
    kept: int = 0
    bytes: int = 0
    train: dict[str, int] = field(default_factory=lambda: {"documents": 0, "bytes": 0})
    heldout: dict[str, int] = field(default_factory=lambda: {"documents": 0, "bytes": 0})
    dropped: Counter[str] = field(default_factory=Counter)  # first failed rule -> documents
    dropped_bytes: Counter[str] = field(default_factory=Counter)
    failed: Counter[str] = field(default_factory=Counter)  # any failed rule -> documents
    failed_bytes: Counter[str] = field(default_factory=Counter)
    pii: Counter[str] = field(default_factory=Counter)  # kind -> found in kept documents

    def alarms(self, source: str) -> list[str]:
        """Rules that drop more than half of this source."""
        found = []
        for rule, documents in sorted(self.failed.items()):
            shares = documents / max(self.read, 1), self.failed_bytes[rule] / max(self.bytes_read, 1)
            if max(shares) > ALARM:
                of = source if shares[0] >= shares[1] else f"the text of {source}"
                found.append(
                    (max(shares), rule, f"drops {max(shares):.0%} of {of} ({documents} of {self.read} documents)")
                )
        found.sort(key=lambda one: (-one[0], one[1]))
        if len(found) > 3:  # a text of another kind than the recipe is for fails many rules at once
            named = ", ".join(f"{rule} {share:.0%}" for share, rule, _ in found[:3])
            return [
                f"{len(found)} rules each drop more than half of {source} ({named}, ...): is the recipe made for such texts?"
            ]
        return [f"{rule} {told}" for _, rule, told in found]


@dataclass
class Decided:
    """All decisions: counted by source here, row by row in ``folder``, which ``publish`` gives its names."""

    folder: Path
    share: float
    unit: str
    recipe: Recipe
    sources: dict[str, Tally] = field(default_factory=dict)
    digest: str = ""
    notes: list[str] = field(default_factory=list)
    alarms: list[str] = field(default_factory=list)

    @property
    def kept(self) -> int:
        """Documents in all."""
        return sum(tally.kept for tally in self.sources.values())

    def dropped(self) -> Counter[str]:
        """First failed rule -> documents, over all sources."""
        return sum((tally.dropped for tally in self.sources.values()), Counter[str]())


@dataclass
class _State:
    """Two bytes a document, over all parts; places stand on disk."""

    alive: Bools
    heldout: Bools
    places: dict[str, npt.NDArray[np.int16]] = field(default_factory=dict)  # unit -> (rows,), memory maps
    sizes: Sizes = field(default_factory=Sizes)


def decide(
    parts: Sequence[Part],
    recipe: Recipe | str,
    asked_share: float,
    fixed: tuple[float, str] | None,
    *,
    work: Path,
    duplicates: Duplicates | None = None,
    contamination: Contamination | None = None,
    respect: Collection[str] = (),
    cut: Callable[[Bools, Bools], Sequence[Path]] | None = None,
) -> Decided:
    """Decide over all documents, out of core.

    Args:
        parts: in their final order, which is also the order of preference among exact copies.
        recipe: the rules, or the name of a preset.
        asked_share: configured share of held-out documents.
        fixed: share and unit ("document" or "part") of the first build; None makes this the first.
        work: an empty folder, or one to be emptied, on the disk that the corpus is on.
        duplicates: groups and pairs; None finds exact copies.
        contamination: documents that hold evaluation items.
        respect: sources in which a publisher's opt-out drops a document.
        cut: given who is kept and who is held out, cuts texts further; returns each part's signals as they then are.

    Returns:
        Counts, and files in ``work``: decisions/part-*.parquet, index/occurrences.parquet, index/groups.*, recipe.json.
    """
    recipe = Recipe.load(recipe) if isinstance(recipe, str) else recipe
    shutil.rmtree(work, ignore_errors=True)
    (work / "ids").mkdir(parents=True)
    counts = [pq.read_metadata(p.docs).num_rows for p in parts]
    bounds = [0, *np.cumsum(counts).tolist()]
    state = _first_pass(parts, bounds, recipe, work, contamination, respect)
    share, unit, notes = choose_share(state.sizes, asked_share, fixed)
    for first in range(0, len(state.heldout), _STEP):
        state.heldout[first : first + _STEP] = state.places[unit][first : first + _STEP] < round(share * BUCKETS)
    ids = {name: mapped(work / "ids" / name, "V16") for name in _IDS}
    exact = duplicates or ExactCopies.find(ids["norm_id"], work / "index")
    copies = exact.resolve(state.alive, state.heldout)
    _store_copies(duplicates, copies, ids["norm_id"], work / "index")
    for first in range(0, len(state.alive), _STEP):
        some = copies.kept_of[first : first + _STEP]
        assert (copies.kept_of[some[some >= 0]] < 0).all(), "a copy points to a copy"

    decided = Decided(work, share, unit, recipe, {part.source: Tally() for part in parts}, notes=notes)
    if cut is not None:
        signals = cut(state.alive & (copies.kept_of < 0), state.heldout)
        parts = [replace(part, signals=path) for part, path in zip(parts, signals, strict=True)]
    _second_pass(parts, bounds, decided, state, copies, ids, contamination, respect)
    decided.digest = _digest(work, state, copies)
    for source, tally in decided.sources.items():
        decided.alarms += tally.alarms(source)
    decided.notes += decided.alarms
    shutil.rmtree(work / "ids")
    write_json(
        work / STATE,
        {
            "recipe": recipe.as_data(),
            "share": share,
            "unit": unit,
            "parts": [
                {"source": p.source, "respect": p.source in respect, "rows": n}
                for p, n in zip(parts, counts, strict=True)
            ],
            "sources": {name: vars(tally) for name, tally in decided.sources.items()},
            "alarms": decided.alarms,
        },
    )
    return decided


def publish(decided: Decided, out: Path) -> None:
    """Give the decisions their names in the corpus folder; the caller has taken the manifest away and writes it afterwards."""
    for table in ("decisions", "index"):
        (out / table).mkdir(parents=True, exist_ok=True)
        new = sorted((decided.folder / table).iterdir())
        for path in new:
            path.replace(out / table / path.name)
        if table == "decisions":
            for extra in set((out / table).glob("part-*.parquet")) - {out / table / path.name for path in new}:
                extra.unlink()
    (decided.folder / STATE).replace(out / STATE)
    shutil.rmtree(decided.folder, ignore_errors=True)


def read_part(docs: Path, signals: Path, recipe: Recipe) -> tuple[pa.Table, pa.Table]:
    """The columns of a part that deciding needs: ids and licence, and the signals of the recipe as far as they are there."""
    there = pq.read_schema(signals).names
    for rule in recipe.document_rules:
        if rule.signal not in there:
            raise no_signal(rule, there)
    wanted = {"n_bytes_edited", "edit_id", *columns(recipe), *(name for name in there if name.startswith("pii_"))}
    ids = pq.read_table(docs, columns=[*_IDS, "split_id", "license_id", "optout"])
    return ids, pq.read_table(signals, columns=[name for name in there if name in wanted])


def _first_pass(
    parts: Sequence[Part],
    bounds: list[int],
    recipe: Recipe,
    work: Path,
    contamination: Contamination | None,
    respect: Collection[str],
) -> _State:
    rows = bounds[-1]
    least = contamination.overlap if contamination else 0.0
    state = _State(np.zeros(rows, bool), np.zeros(rows, bool))
    with (
        open(work / "ids" / "place-document", "wb") as whole,
        open(work / "ids" / "place-part", "wb") as cut,
        open(work / "ids" / "doc_uid", "wb") as uids,
        open(work / "ids" / "content_id", "wb") as contents,
        open(work / "ids" / "norm_id", "wb") as norms,
    ):
        for number, (part, (first, last)) in enumerate(zip(parts, _pairs(bounds), strict=True)):
            docs, signals = read_part(part.docs, part.signals, recipe)
            for name, file in zip(_IDS, (uids, contents, norms), strict=True):
                file.write(ids_of(docs, name).tobytes())
            leaks = _leaks(work, number, contamination)
            alive = look_at(docs, signals, recipe, part.source in respect, leaks, least).alive
            state.alive[first:last] = alive
            here = {unit: buckets(ids_of(docs, name)) for unit, name in UNITS.items()}
            whole.write(here["document"].tobytes())
            cut.write(here["part"].tobytes())
            state.sizes.add(here, signals["n_bytes_edited"].to_numpy(), alive)
    state.places = {unit: mapped(work / "ids" / f"place-{unit}", np.int16) for unit in UNITS}
    return state


def _second_pass(
    parts: Sequence[Part],
    bounds: list[int],
    decided: Decided,
    state: _State,
    copies: Copies,
    ids: dict[str, Array],
    contamination: Contamination | None,
    respect: Collection[str],
) -> None:
    """Write each part's decisions and occurrences, and count."""
    least = contamination.overlap if contamination else 0.0
    occurring = np.zeros(bounds[-1], bool)  # texts that stand in more than one place
    for first in range(0, bounds[-1], _STEP):
        here = slice(first, first + _STEP)
        exact = copies.kept_of[here] >= 0
        if copies.method is not None:
            exact &= copies.method[here] != METHODS.index("near")
        occurring[here] |= exact
        occurring[copies.kept_of[here][exact]] = True
    index = decided.folder / "index"
    index.mkdir(exist_ok=True)
    with (
        pq.ParquetWriter(index / "occurrences.parquet", tables.OCCURRENCES, compression="zstd") as occurrences,
        open(decided.folder / "ids" / "kept", "wb") as kept_ids,
        open(decided.folder / "ids" / "kept_content", "wb") as kept_contents,
        open(decided.folder / "ids" / "kept_edit", "wb") as kept_edits,
    ):
        for number, (part, (first, last)) in enumerate(zip(parts, _pairs(bounds), strict=True)):
            docs, signals = read_part(part.docs, part.signals, decided.recipe)
            leaks = _leaks(decided.folder, number, contamination)
            checks = look_at(docs, signals, decided.recipe, part.source in respect, leaks, least)
            checks.add_copies(copies, first, ids)
            heldout, place = state.heldout[first:last], state.places[decided.unit][first:last]
            table = decision_table(docs, checks, heldout, place)
            tables.write_table(tables.part_path(decided.folder, "decisions", number), table)
            keep = checks.alive
            uids, contents = ids_of(docs, "doc_uid")[keep], ids_of(docs, "content_id")[keep]
            kept_ids.write(uids.tobytes())
            kept_contents.write(contents.tobytes())
            kept_edits.write(ids_of(signals, "edit_id")[keep].tobytes())
            _count(decided.sources[part.source], checks, heldout, signals, table)
            _occurrences(occurrences, part, occurring[first:last], table)
            for of in (*ids.values(), *state.places.values()):
                let_go(of)


def _leaks(work: Path, number: int, contamination: Contamination | None) -> pa.Table | None:
    """The contaminated documents of a part; worked out once, kept for the second pass."""
    if contamination is None:
        return None
    path = work / "ids" / f"leaks-{number:05d}.parquet"
    if not path.exists():
        found = contamination.part(number)
        pq.write_table(found.filter(found["contaminated"]).select(["doc_row", "overlap", "items"]), path)
    return pq.read_table(path)


def _store_copies(duplicates: Duplicates | None, copies: Copies, norm_ids: Array, index: Path) -> None:
    """What ``what_if`` chooses from: all groups of equal texts, and pairs of near copies and who is kept."""
    index.mkdir(exist_ok=True)
    if duplicates is not None:
        groups = getattr(duplicates, "exact", None)
        if isinstance(groups, ExactCopies):
            groups.save(index)
        else:
            ExactCopies.find(norm_ids, index)
    with open(index / "near.rows", "wb") as file:
        for first in range(0, len(copies.kept_of) if copies.method is not None else 0, _STEP):
            here = slice(first, first + _STEP)
            near = np.flatnonzero(np.asarray(copies.method)[here] == METHODS.index("near"))
            file.write(np.stack([first + near, copies.kept_of[here][near]], axis=1).astype("<i8").tobytes())


def _pairs(bounds: list[int]) -> Iterator[tuple[int, int]]:
    return itertools.pairwise(bounds)


def _count(tally: Tally, checks: Checks, heldout: Bools, signals: pa.Table, table: pa.Table) -> None:
    n_bytes = signals["n_bytes_edited"].to_numpy()
    keep = checks.alive
    tally.read += len(keep)
    tally.bytes_read += int(n_bytes.sum())
    tally.kept += int(keep.sum())
    tally.bytes += int(n_bytes[keep].sum())
    for side, chosen in (("train", keep & ~heldout), ("heldout", keep & heldout)):
        of = getattr(tally, side)
        of["documents"] += int(chosen.sum())
        of["bytes"] += int(n_bytes[chosen].sum())
    seen = np.zeros(len(keep), bool)
    for check in checks.checks:
        documents = int(check.failed.sum())
        if documents:
            tally.failed[check.rule] += documents
            tally.failed_bytes[check.rule] += int(n_bytes[check.failed].sum())
            if (first := check.failed & ~seen).any():
                tally.dropped[check.rule] += int(first.sum())
                tally.dropped_bytes[check.rule] += int(n_bytes[first].sum())
            seen |= check.failed
    for name in signals.column_names:
        if name.startswith("pii_") and name != "pii_drop":
            tally.pii[name.removeprefix("pii_").upper()] += int(np.nansum(signals[name].to_numpy()[keep]))


def _occurrences(writer: pq.ParquetWriter, part: Part, member: Bools, decisions: pa.Table) -> None:
    """Every row of a text that stands in more than one place, the kept one with them."""
    if not member.any():
        return
    rows = pa.array(np.flatnonzero(member))
    columns = ["content_id", "norm_id", "doc_uid", "source", "locator", "license_id"]
    docs = pq.read_table(part.docs, columns=columns).take(rows)
    chosen = decisions.take(rows)
    kept = pa.compute.if_else(pa.compute.equal(chosen["verdict"], "keep"), chosen["doc_uid"], chosen["kept_uid"])
    writer.write_table(docs.append_column("kept_uid", kept).select(tables.OCCURRENCES.names).cast(tables.OCCURRENCES))


def ids_of(table: pa.Table, name: str) -> Array:
    """A column of 16-byte ids as a NumPy array of opaque values that sort and compare by their bytes."""
    column = table[name].combine_chunks()
    if isinstance(column, pa.ChunkedArray):
        column = column.chunk(0) if column.num_chunks else pa.array([], tables.ID)
    data = np.frombuffer(column.buffers()[1], np.uint8) if len(column) else np.zeros(0, np.uint8)
    return data[column.offset * 16 : (column.offset + len(column)) * 16].view("V16")


def _digest(work: Path, state: _State, copies: Copies) -> str:
    """Names the kept documents, their final texts, order and split; independent of time, machine and how they came to be."""
    digest = blake2b(digest_size=32)
    for name in ("kept", "kept_content", "kept_edit"):
        with open(work / "ids" / name, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    bits = bytearray()
    left = np.zeros(0, bool)  # bits go out by the byte, as if they were packed at once
    for first in range(0, len(state.alive), _STEP):
        here = slice(first, first + _STEP)
        left = np.concatenate([left, state.heldout[here][state.alive[here] & (copies.kept_of[here] < 0)]])
        whole = len(left) // 8 * 8
        bits += np.packbits(left[:whole]).tobytes()
        left = left[whole:]
    digest.update(bytes(bits) + np.packbits(left).tobytes())
    return "b2:" + digest.hexdigest()
