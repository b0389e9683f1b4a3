"""Which documents stand for which: what ``decide`` asks of deduplication and decontamination, and exact copies, found out of core.

Groups of equal texts do not depend on what a recipe keeps, so they are found once and stored; which member of a group is kept does,
and is worked out anew from the stored groups whenever a recipe changes.
"""

import mmap
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import pyarrow as pa

Array = npt.NDArray[Any]
Bools = npt.NDArray[np.bool_]
METHODS = ("", "same text", "same words", "near")  # codes of Copies.method; "near" is verified on the text
PARTITION_ROWS = 1 << 19  # about 100 bytes each while a partition is sorted
MEMBERS = 1 << 19  # of groups, looked at together
MOST_PARTITIONS = 512  # files that are open together
_RECORD = np.dtype([("id", "V16"), ("row", "<i8")])


@dataclass
class Copies:
    """For each document the row that is kept in its stead. Arrays may be memory maps; none is changed by readers.

    Attributes:
        kept_of: (rows,) int64; -1 where the document is no copy. What it points to is kept: alive and no copy itself.
        method: (rows,) uint8, an index into METHODS; None: told apart by the ids of the texts.
        jaccard: (rows,) float32 similarity of near copies; None when there are none.
        containment: (rows,) float32 share of the copy's shingles that the kept one has.
        threshold: similarity from which near copies are accepted.
        short: (rows,) bool: near copies that are too short for it; None: none is.
        short_threshold: similarity from which these are.
        held_threshold: containment from which near copies are accepted whatever their similarity.
    """

    kept_of: Array
    method: Array | None = None
    jaccard: Array | None = None
    containment: Array | None = None
    threshold: float = 0.8
    short: Bools | None = None
    short_threshold: float = 0.9
    held_threshold: float = 0.95


class Duplicates(Protocol):
    """Stored groups and pairs of equal or nearly equal texts."""

    def resolve(self, alive: Bools, heldout: Bools) -> Copies:
        """Choose who is kept.

        Args:
            alive: (rows,) documents that no rule dropped; others neither are copies nor have any.
            heldout: (rows,) documents that are measured on: they are kept before all others, so that none is trained on as well.
        """


class Contamination(Protocol):
    """Documents that hold items of an evaluation (``decontaminate.settle`` makes it)."""

    overlap: float  # share of a paragraph from which it counts

    def part(self, number: int) -> pa.Table:
        """Documents of a docs file that hold an item's words: ``doc_row``, ``contaminated``, ``overlap``, ``items`` (ids), by row."""


@dataclass
class ExactCopies:
    """Groups of rows with one text (up to case and layout), on disk: members by group, rows ascending, and where groups start."""

    rows: Array  # (members,) int64
    starts: Array  # (groups + 1,) int64

    @classmethod
    def find(cls, ids: Array, work: Path, partition_rows: int = PARTITION_ROWS) -> "ExactCopies":
        """Group equal ids; memory is bounded by ``partition_rows`` whatever their number.

        Args:
            ids: (rows,) V16, usually a memory map.
            work: a folder for the result and for partitions, which are removed.

        Returns:
            The groups in order of their ids, so that the result does not depend on how many partitions there were.
        """
        work.mkdir(parents=True, exist_ok=True)
        parts = 1 << max(0, int(np.ceil(np.log2(max(len(ids), 1) / partition_rows))))
        start = 0
        with open(work / "groups.rows", "wb") as out, open(work / "groups.starts", "wb") as places:
            places.write(np.zeros(1, "<i8").tobytes())
            for records in _partitions(ids, work, min(parts, MOST_PARTITIONS), partition_rows):
                members, starts = _groups(records)
                out.write(members.tobytes())
                places.write((starts + start).astype("<i8").tobytes())
                start += len(members)
        return cls.open(work)

    @classmethod
    def open(cls, folder: Path) -> "ExactCopies":
        """Groups that ``find`` stored."""
        return cls(mapped(folder / "groups.rows", "<i8"), mapped(folder / "groups.starts", "<i8"))

    def save(self, folder: Path) -> None:
        """Store the groups where ``open`` finds them."""
        for name, values in (("groups.rows", self.rows), ("groups.starts", self.starts)):
            with open(folder / name, "wb") as file:
                for first in range(0, len(values), MEMBERS):
                    file.write(np.asarray(values[first : first + MEMBERS]).astype("<i8").tobytes())

    def resolve(self, alive: Bools, heldout: Bools, preferred: Bools | None = None) -> Copies:
        """The kept one of each group: held out before trained on, then preferred ones, then the first. See Duplicates."""
        kept_of = np.full(len(alive), -1, np.int64)
        first = 0
        while first < len(self.starts) - 1:
            end = self.starts[first] + MEMBERS
            last = max(first + 1, int(np.searchsorted(self.starts, end, "right")) - 1)
            starts = np.asarray(self.starts[first : last + 1])
            first = last
            rows = np.asarray(self.rows[starts[0] : starts[-1]])
            group = np.repeat(np.arange(len(starts) - 1), np.diff(starts))
            here = alive[rows]
            rows, group = rows[here], group[here]
            best = np.full(len(starts) - 1, np.iinfo(np.int64).max)
            rank = np.where(heldout[rows], 0, 2)
            if preferred is not None:
                rank += ~preferred[rows]
            np.minimum.at(best, group, rows + rank * len(alive))
            keeper = best[group] % len(alive) if len(alive) else best[group]
            copy = keeper != rows
            kept_of[rows[copy]] = keeper[copy]
            let_go(self.rows)
            let_go(self.starts)
        return Copies(kept_of)


@dataclass
class StoredCopies:
    """What a build stored of copies, to choose anew who is kept without texts: all groups of equal texts, and the near copies that were
    dropped. Near copies of documents that were dropped then are not known, so a choice from these is exact for equal texts only."""

    exact: ExactCopies
    near: Array  # (pairs, 2) int64: a near copy and the row kept in its stead
    preferred: Bools  # rows that were kept: they stay so while they are alive

    @classmethod
    def open(cls, folder: Path, preferred: Bools) -> "StoredCopies":
        """Read what ``decide`` left in the index."""
        return cls(ExactCopies.open(folder), mapped(folder / "near.rows", "<i8").reshape(-1, 2), preferred)

    def resolve(self, alive: Bools, heldout: Bools) -> Copies:
        """See Duplicates."""
        copies = self.exact.resolve(alive, heldout, self.preferred)
        kept_of = copies.kept_of
        row, keep = np.asarray(self.near[:, 0]), np.asarray(self.near[:, 1])
        there = alive[row] & alive[keep]
        row, keep = row[there], keep[there]
        stands = np.where(kept_of[keep] >= 0, kept_of[keep], keep)
        # Only rows that stand for themselves go; their exact copies follow them below.
        own = (kept_of[row] < 0) & (stands != row)
        # A near copy is never kept in another's stead: what is dropped here stands for no one.
        own &= ~np.isin(stands, row[own])
        kept_of[row[own]] = stands[own]
        for first in range(0, len(kept_of), MEMBERS):
            piece = kept_of[first : first + MEMBERS]
            copy = np.flatnonzero(piece >= 0)
            onward = kept_of[piece[copy]]
            piece[copy] = np.where(onward >= 0, onward, piece[copy])
        return copies


def mapped(path: Path, kind: npt.DTypeLike) -> Array:
    """A file of numbers as a read-only memory map; an empty file, which cannot be mapped, as an empty array."""
    return np.memmap(path, kind, "r") if path.stat().st_size else np.zeros(0, kind)


def let_go(array: Array) -> None:
    """Give back the pages of a memory map that were read so far; they are read again when they are needed."""
    base = getattr(array, "_mmap", None)
    if base is not None and hasattr(base, "madvise") and hasattr(mmap, "MADV_DONTNEED"):
        base.madvise(mmap.MADV_DONTNEED)


def _partitions(ids: Array, work: Path, parts: int, step: int) -> Iterator[Array]:
    """Records (id, row) by the first 12 bits of their ids, in as many pieces as asked for, in order."""
    if parts == 1:
        records = np.empty(len(ids), _RECORD)
        records["id"], records["row"] = ids, np.arange(len(ids))
        yield records
        return
    files = [open(work / f"part-{p:04d}.tmp", "wb") for p in range(parts)]
    try:
        for first in range(0, len(ids), step):
            chunk = np.asarray(ids[first : first + step])
            head = chunk.view(np.uint8).reshape(-1, 16)
            place = ((head[:, 0].astype(np.int64) << 4) | (head[:, 1] >> 4)) * parts >> 12
            records = np.empty(len(chunk), _RECORD)
            records["id"], records["row"] = chunk, np.arange(first, first + len(chunk))
            order = np.argsort(place, kind="stable")
            bounds = np.searchsorted(place[order], np.arange(parts + 1))
            for p, file in enumerate(files):
                file.write(records[order[bounds[p] : bounds[p + 1]]].tobytes())
            let_go(ids)
    finally:
        for file in files:
            file.close()
    for p in range(parts):
        path = work / f"part-{p:04d}.tmp"
        yield np.fromfile(path, _RECORD)
        path.unlink()


def _groups(records: Array) -> tuple[Array, Array]:
    """Members of groups of two and more, and where each group ends."""
    halves = np.ascontiguousarray(records["id"]).view(">u8").reshape(-1, 2)
    order = np.lexsort((records["row"], halves[:, 1], halves[:, 0]))
    halves, rows = halves[order], records["row"][order]
    new = np.ones(len(rows), bool)
    new[1:] = (halves[1:] != halves[:-1]).any(axis=1)
    size = np.diff(np.append(np.flatnonzero(new), len(rows)))
    several = np.repeat(size > 1, size)
    return rows[several], np.cumsum(size[size > 1])
