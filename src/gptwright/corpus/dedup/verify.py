"""Pairs of texts, compared by all their shingles: the evidence that a deletion rests on.

Shingle sets of candidates are written to one file in a scan over the docs files and read back for some pairs at a time, so memory is
bounded however many candidates there are. Evidence is three numbers (common shingles and the sizes of both sets), true of two texts
whatever thresholds and neighbours are; texts that do not resemble each other have theirs too, so that no pair is compared twice.
"""

import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import Shingler, text_batches
from gptwright.corpus.dedup.kernels import count_common
from gptwright.corpus.dedup.layout import Layout
from gptwright.corpus.dedup.store import among, mapped, raw_bytes, read_at, sync, text_keys
from gptwright.corpus.dedup.words import Array, buffers

EVIDENCE = np.dtype(
    [("a", "<u8"), ("b", "<u8"), ("common", "<i4"), ("size_a", "<i4"), ("size_b", "<i4"), ("short", "<i4")]
)
SHORT_COMMON = -1  # of texts that are not compared by the same shingles
SET_BUDGET = 4 << 20  # shingles in memory at a time


class TextSets:
    """Shingle sets of some texts, on disk.

    Args:
        folder: where ``write`` left them.
        texts: keys of all texts, ascending.
    """

    def __init__(self, folder: Path, texts: Array) -> None:
        self.path, self.texts = folder / "sets.u64", texts
        self.at, self.size = mapped(folder / "sets.at", "<i8"), mapped(folder / "sets.size", "<i4")

    @staticmethod
    def write(layout: Layout, needed: Array, folder: Path, config: DedupConfig, between: Callable[[], None]) -> None:
        """Make the sets of texts.

        Args:
            layout: the corpus.
            needed: (texts,) bool.
            folder: for the files.
            config: what shingles are.
            between: called now and then; may raise to stop.
        """
        folder.mkdir(parents=True, exist_ok=True)
        wanted = layout.mask(needed)
        count = max(len(layout.texts), 1)
        at = np.memmap(folder / "sets.at", "<i8", "w+", shape=(count,))
        size = np.memmap(folder / "sets.size", "<i4", "w+", shape=(count,))
        written = 0
        with open(folder / "sets.u64", "wb") as file:
            for number, part in enumerate(layout.parts):
                first = int(layout.bounds[number])
                here = wanted[first : int(layout.bounds[number + 1])]
                if not here.any():
                    continue
                for row, batch in text_batches(part.docs, ["text"], here):
                    rows = np.flatnonzero(here[row : row + batch.num_rows])
                    if not len(rows):
                        continue
                    between()
                    data, offsets = buffers(batch["text"])
                    maker = Shingler(config, int(np.diff(offsets)[rows].max()))
                    keys = text_keys(layout.norm_ids[first + row + rows])
                    places, _ = among(keys, layout.texts)
                    for place, i in zip(places.tolist(), rows.tolist(), strict=True):
                        found, short = maker.set(data, int(offsets[i]), int(offsets[i + 1]))
                        file.write(raw_bytes(found))
                        at[place], size[place] = written, -1 - len(found) if short else len(found)
                        written += len(found)
            sync(file)
        at.flush()
        size.flush()

    def verify(self, pairs: Array) -> Array:
        """Evidence of pairs.

        Args:
            pairs: (n,) PAIR, best ascending.

        Returns:
            (n,) EVIDENCE.
        """
        out = np.empty(len(pairs), EVIDENCE)
        out["a"], out["b"] = pairs["a"], pairs["b"]
        left, right = among(pairs["a"], self.texts)[0], among(pairs["b"], self.texts)[0]
        a, b = np.asarray(self.size[left]), np.asarray(self.size[right])
        out["short"] = a < 0
        mixed = (a < 0) != (b < 0)  # only when keys of bands collide
        out["size_a"], out["size_b"] = np.where(a < 0, -1 - a, a), np.where(b < 0, -1 - b, b)
        volume = np.cumsum(
            out["size_b"].astype(np.int64) + np.where(np.append(True, left[1:] != left[:-1]), out["size_a"], 0)
        )
        descriptor = os.open(self.path, os.O_RDONLY)
        try:
            first = 0
            while first < len(pairs):
                done = int(volume[first - 1]) if first else 0
                last = max(first + 1, int(np.searchsorted(volume, done + SET_BUDGET, "right")))
                used, which = np.unique(np.concatenate([left[first:last], right[first:last]]), return_inverse=True)
                counts = np.asarray(self.size[used]).astype(np.int64)
                counts = np.where(counts < 0, -1 - counts, counts)
                sets = read_at(descriptor, np.dtype("<u8"), np.asarray(self.at[used]), counts)
                bounds = np.concatenate([[0], np.cumsum(counts)]).astype(np.int64)
                common = np.empty(last - first, np.int32)
                which = which.astype(np.int64)
                count_common(sets, bounds, which[: last - first].copy(), which[last - first :].copy(), common)
                out["common"][first:last] = common
                first = last
        finally:
            os.close(descriptor)
        out["common"][mixed] = SHORT_COMMON
        return out


def jaccard(evidence: Array) -> Array:
    """Jaccard index of pairs, float64."""
    union = evidence["size_a"].astype(np.int64) + evidence["size_b"] - evidence["common"]
    return np.where(union > 0, evidence["common"] / np.maximum(union, 1), 0.0)


def alike(evidence: Array, config: DedupConfig) -> Array:
    """Pairs of which each may stand for the other."""
    return jaccard(evidence) >= np.where(evidence["short"] > 0, config.short_jaccard, config.jaccard)


def held_by(common: Array, size: Array, other: Array, short: Array, config: DedupConfig) -> Array:
    """Whether a text of ``size`` shingles is held by another that is no smaller, so that nothing is lost with it."""
    held: Array = (short == 0) & (size <= other) & (size > 0) & (common >= config.containment * size)
    return held


def texts_of(layout: Layout, rows: Array) -> list[str]:
    """Texts of some rows (ascending), for pages and tests; few of them."""
    out: list[str] = []
    for number, part in enumerate(layout.parts):
        first, last = int(layout.bounds[number]), int(layout.bounds[number + 1])
        here = np.zeros(last - first, bool)
        here[rows[(rows >= first) & (rows < last)] - first] = True
        for row, batch in text_batches(part.docs, ["text"], here) if here.any() else ():
            out += batch["text"].filter(pa.array(here[row : row + batch.num_rows])).to_pylist()
    return out
