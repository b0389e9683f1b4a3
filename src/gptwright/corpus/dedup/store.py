"""Numbers on disk: records thrown into partitions by their hash and read back one partition at a time, plain arrays, atomic files."""

import os
from collections.abc import Iterator
from pathlib import Path
from types import TracebackType
from typing import IO, Any

import numpy as np

from gptwright.core.files import atomic_write
from gptwright.corpus.copies import mapped
from gptwright.corpus.dedup.words import Array

__all__ = ["PARTITION_RECORDS", "Spill", "among", "bits_for", "chunks", "mapped", "place", "save"]

PARTITION_RECORDS = 1 << 19  # held and sorted at a time
CHUNK_RECORDS = 1 << 18  # read at a time where nothing is sorted
MOST_BITS = 9  # partitions are files that are open together, and systems allow a thousand
_SPREAD = np.uint64(0x9E3779B97F4A7C15)


def bits_for(records: int) -> int:
    """Logarithm of the number of partitions that so many records want."""
    return min(MOST_BITS, max(0, int(np.ceil(np.log2(max(records, 1) / PARTITION_RECORDS)))))


def place(keys: Array, bits: int) -> Array:
    """Partition of each key, by the top bits of its hash."""
    if bits == 0:
        return np.zeros(len(keys), np.int64)
    return ((keys * _SPREAD) >> np.uint64(64 - bits)).astype(np.int64)


class Spill:
    """Records in partitions. Left by an error, the files are without meaning; the maker's marker says that they are whole.

    Args:
        folder: for the files, made new.
        kind: of the records.
        parts: how many partitions.
    """

    def __init__(self, folder: Path, kind: np.dtype, parts: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder, self.kind, self.parts = folder, kind, parts
        self.records = 0
        self._files = [open(self.path(p), "wb") for p in range(parts)]

    def path(self, part: int) -> Path:
        """A partition's file."""
        return self.folder / f"spill-{part:04d}.bin"

    def add(self, records: Array, places: Array) -> None:
        """Append records, each to its partition."""
        self.records += len(records)
        if self.parts == 1:
            self._files[0].write(np.ascontiguousarray(records).tobytes())
            return
        order = np.argsort(places, kind="stable")
        records = records[order]
        bounds = np.searchsorted(places[order], np.arange(self.parts + 1))
        for part in np.flatnonzero(np.diff(bounds)):
            self._files[part].write(records[bounds[part] : bounds[part + 1]].tobytes())

    def close(self) -> None:
        """Give all to the file system."""
        for file in self._files:
            if not file.closed:
                sync(file)
                file.close()

    def read(self, part: int) -> Array:
        """All records of a partition."""
        return np.fromfile(self.path(part), self.kind)

    def drop(self, part: int) -> None:
        """Delete a partition."""
        self.path(part).unlink(missing_ok=True)

    def __enter__(self) -> "Spill":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


def sync(file: IO[bytes]) -> None:
    """Make what was written last, before a marker says that it is there."""
    file.flush()
    os.fsync(file.fileno())


def text_keys(norm_ids: Array) -> Array:
    """The first eight bytes of ids as a number each, uint64.

    Args:
        norm_ids: (n,) V16, or (n, 16) uint8.
    """
    raw = np.ascontiguousarray(norm_ids).view(np.uint8).reshape(-1, 16)
    return np.ascontiguousarray(raw[:, :8]).view(">u8").reshape(-1).astype(np.uint64)


def chunks(path: Path, kind: np.dtype, records: int = CHUNK_RECORDS) -> Iterator[Array]:
    """A file of records, some at a time."""
    with open(path, "rb") as file:
        while len(chunk := np.fromfile(file, kind, records)):
            yield chunk


def save(path: Path, array: Array) -> None:
    """Write an array's bytes atomically."""
    with atomic_write(path) as file:
        file.write(raw_bytes(array))


def raw_bytes(array: Array) -> memoryview:
    """The bytes of an array, without a copy where it is contiguous."""
    whole: Any = np.ascontiguousarray(array)
    return memoryview(whole).cast("B") if whole.size else memoryview(b"")


def among(values: Array, table: Array) -> tuple[Array, Array]:
    """Where values stand in an ascending table, and whether they do.

    Args:
        values: (n,) uint64.
        table: (m,) uint64, usually a memory map.
    """
    if not len(table):
        return np.zeros(len(values), np.int64), np.zeros(len(values), bool)
    at = np.minimum(np.searchsorted(table, values), len(table) - 1)
    return at, np.asarray(table[at] == values)


def read_at(descriptor: int, kind: np.dtype, first: Array, counts: Array) -> Array:
    """Several stretches of a file of numbers, one after another in one array.

    Args:
        descriptor: of the open file.
        kind: of the numbers.
        first, counts: (stretches,): where each begins, and how many numbers it has.
    """
    out = np.empty(int(counts.sum()), kind)
    raw = raw_bytes(out)
    size, position = kind.itemsize, 0
    for begin, count in zip((first * size).tolist(), (counts * size).tolist(), strict=True):
        got = os.preadv(descriptor, [raw[position : position + count]], begin) if count else 0
        assert got == count, "a file of numbers is shorter than it should be"
        position += count
    return out
