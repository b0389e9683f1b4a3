"""Who is kept among near duplicates: a star, never a chain.

In order of priority each text is looked at once: it is dropped when it is verified against one that is kept, and is kept otherwise. So
nothing is dropped for its likeness to something that is itself dropped, and the outcome depends on pairs and priorities only. Closures
over unverified candidates have deleted nearly all of Project Gutenberg elsewhere; here each deletion names a kept text and two numbers.
Edges stream past sorted by priority, a partition at a time.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np

from gptwright.corpus.dedup.store import CHUNK_RECORDS, MOST_BITS, PARTITION_RECORDS, Spill, chunks
from gptwright.corpus.dedup.words import LONGS, Array

# Of two texts the one that comes first by (first, second, row) may keep the other from being kept.
EDGE = np.dtype(
    [
        ("first", "<u8"), ("second", "<u8"), ("row", "<i8"),  # of the one that may be dropped
        ("keep_first", "<u8"), ("keep_second", "<u8"), ("keep", "<i8"),
        ("jaccard", "<f4"), ("containment", "<f4"),
    ]
)  # fmt: skip
SAMPLE = 1 << 16
_FLOATS = nb.types.Array(nb.float32, 1, "C", readonly=True)


@nb.njit(
    nb.void(LONGS, LONGS, _FLOATS, _FLOATS, nb.int64[::1], nb.float32[::1], nb.float32[::1]), cache=True, nogil=True
)  # type: ignore[untyped-decorator]  # fmt: skip
def _walk(rows: Any, keeps: Any, jaccards: Any, containments: Any, kept_of: Any, jaccard: Any, containment: Any) -> Any:
    """Drop rows, in order, for the first of their neighbours that is kept."""
    for i in range(len(rows)):
        row, keep = rows[i], keeps[i]
        if kept_of[row] < 0 and kept_of[keep] < 0:
            kept_of[row], jaccard[row], containment[row] = keep, jaccards[i], containments[i]


def walk(edges: Iterator[Array], folder: Path, kept_of: Array, jaccard: Array, containment: Array) -> int:
    """The star over all edges.

    Args:
        edges: pieces of EDGE in any order; ``row`` comes after ``keep`` by priority.
        folder: for partitions, which are removed.
        kept_of: (rows,) int64, -1 where a row may be kept; changed: the row that is kept instead.
        jaccard, containment: (rows,) float32, changed where a row is dropped.

    Returns:
        The number of edges.
    """
    with Spill(folder, EDGE, 1) as spill:
        for piece in edges:
            spill.add(piece, np.zeros(len(piece), np.int64))
    total = spill.records
    if total <= PARTITION_RECORDS:
        _walk_sorted(spill.read(0), kept_of, jaccard, containment)
        spill.drop(0)
        return total
    cuts = _splitters(spill.path(0), total)
    with Spill(folder / "sorted", EDGE, len(cuts) + 1) as parts:
        for chunk in chunks(spill.path(0), EDGE, CHUNK_RECORDS):
            where = np.zeros(len(chunk), np.int64)
            for cut in cuts:
                beyond = chunk["row"] >= cut["row"]
                for name in ("second", "first"):
                    beyond = (chunk[name] > cut[name]) | ((chunk[name] == cut[name]) & beyond)
                where += beyond
            parts.add(chunk, where)
    spill.drop(0)
    for p in range(parts.parts):
        _walk_sorted(parts.read(p), kept_of, jaccard, containment)
        parts.drop(p)
    return total


def _walk_sorted(edges: Array, kept_of: Array, jaccard: Array, containment: Array) -> None:
    names = ("keep", "keep_second", "keep_first", "row", "second", "first")
    edges = edges[np.lexsort([edges[name] for name in names])]
    columns = [np.ascontiguousarray(edges[name]) for name in ("row", "keep", "jaccard", "containment")]
    _walk(*columns, kept_of, jaccard, containment)


def _splitters(path: Path, total: int) -> Array:
    """Edges whose priorities cut all edges into pieces of about equal size: every so manieth of a sample that is taken evenly."""
    step = max(1, total // SAMPLE)
    sample = np.concatenate([chunk[::step] for chunk in chunks(path, EDGE, step * max(1, CHUNK_RECORDS // step))])
    order = np.lexsort((sample["row"], sample["second"], sample["first"]))
    parts = min(total // (PARTITION_RECORDS // 2) + 1, 1 << MOST_BITS)
    return sample[order][np.linspace(0, len(sample), parts + 1).astype(np.int64)[1:-1]]
