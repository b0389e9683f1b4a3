"""Repeated spans: passages of ``span_words`` words and more that stand, byte for byte, in several places.

Anchors (see kernels) that several places share are found out of core. Once it is known which documents are kept, each place is compared
with the first one by priority, and what is equal to it around the anchor is a span. Only places in kept documents are compared, and each
with an earlier one, so every passage that is taken out still stands, whole or in pieces, in a kept document before it.
"""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import text_batches
from gptwright.corpus.dedup.kernels import extend
from gptwright.corpus.dedup.layout import Layout
from gptwright.corpus.dedup.store import MOST_BITS, Spill, bits_for, chunks, place, read_at, save, sync
from gptwright.corpus.dedup.words import Array, Scratch, buffers

ANCHOR = np.dtype([("hash", "<u8"), ("row", "<i8"), ("start", "<i8")])
# A place and the earlier one that it is compared with.
COMPARED = np.dtype([("row", "<i8"), ("start", "<i8"), ("other", "<i8"), ("other_start", "<i8")])
RANGE = np.dtype([("row", "<i8"), ("start", "<i8"), ("end", "<i8")])
TEXT_CACHE = 16 << 20  # bytes of texts that are compared with, kept at hand


def find_anchors(layout: Layout, folder: Path, between: Callable[[], None]) -> list[Path]:
    """Anchors that stand in several places.

    Returns:
        Files of ANCHOR, ascending by hash, row, start.
    """
    folder.mkdir(parents=True, exist_ok=True)
    total = sum(batch.num_rows for part in layout.parts for batch in part.batches("anchors"))
    bits = bits_for(total)
    with Spill(folder / "anchors.tmp", ANCHOR, 1 << bits) as spill:
        for number, part in enumerate(layout.parts):
            between()
            for batch in part.batches("anchors"):
                records = np.empty(batch.num_rows, ANCHOR)
                records["hash"], records["start"] = np.asarray(batch["hash"]), np.asarray(batch["start"])
                records["row"] = np.asarray(batch["doc_row"]) + layout.bounds[number]
                # Anchors are least hashes, so their top bits are mostly 0: ``place`` hashes them again.
                spill.add(records, place(records["hash"], bits))
    out = []
    for p in range(1 << bits):
        between()
        records = spill.read(p)
        several = repeated(records["hash"])
        records = records[several]
        out.append(folder / f"anchors-{p:04d}.bin")
        save(out[-1], records[np.lexsort((records["start"], records["row"], records["hash"]))])
        spill.drop(p)
    return out


def repeated(values: Array) -> Array:
    """(n,) bool: which values occur more than once."""
    order = np.argsort(values)
    same = values[order][1:] == values[order][:-1]
    out = np.zeros(len(values), bool)
    out[order[1:][same]] = True
    out[order[:-1][same]] = True
    return out


def comparisons(
    files: list[Path], kept: Array, keys: Callable[[Array], tuple[Array, Array]], folder: Path, layout: Layout
) -> Spill:
    """Which places are compared with which, by groups of parts of the place."""
    groups = span_groups(layout)
    spill = Spill(folder, COMPARED, groups)
    for path in files:
        found = np.fromfile(path, ANCHOR)
        found = found[kept[found["row"]]]
        if not len(found):
            continue
        a, b = keys(found["row"])
        found = found[np.lexsort((found["start"], found["row"], b, a, found["hash"]))]
        new = np.append(True, found["hash"][1:] != found["hash"][:-1])
        first = np.flatnonzero(new)[np.cumsum(new) - 1]
        out = np.empty(len(found), COMPARED)
        out["row"], out["start"] = found["row"], found["start"]
        out["other"], out["other_start"] = found["row"][first], found["start"][first]
        out = out[~new]
        spill.add(out, layout.part_of(out["row"]) * groups // max(len(layout.parts), 1))
    spill.close()
    return spill


def span_groups(layout: Layout) -> int:
    """Files that comparisons are spread over: not more than may be open together."""
    return max(1, min(len(layout.parts), 1 << MOST_BITS - 1))


class Texts:
    """Texts of some rows in one file, to be read at any place."""

    def __init__(self, layout: Layout, rows: Array, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.at = np.memmap(folder / "texts.at", "<i8", "w+", shape=(max(layout.rows, 1), 2))
        path = folder / "texts.bytes"
        written = 0
        with open(path, "wb") as file:
            for number, part in enumerate(layout.parts):
                first = int(layout.bounds[number])
                here = rows[first : int(layout.bounds[number + 1])]
                for row, batch in text_batches(part.docs, ["text"], here) if here.any() else ():
                    data, offsets = buffers(batch["text"])
                    for i in np.flatnonzero(here[row : row + batch.num_rows]).tolist():
                        piece = data[int(offsets[i]) : int(offsets[i + 1])]
                        file.write(piece.tobytes())
                        self.at[first + row + i] = written, len(piece)
                        written += len(piece)
            sync(file)
        self.descriptor = os.open(path, os.O_RDONLY)
        self.cache: dict[int, Array] = {}
        self.cached = 0

    def get(self, row: int) -> Array:
        """The UTF-8 of a row's text."""
        if row not in self.cache:
            if self.cached > TEXT_CACHE:
                self.cache, self.cached = {}, 0
            self.cache[row] = read_at(self.descriptor, np.dtype(np.uint8), self.at[row, :1], self.at[row, 1:])
            self.cached += len(self.cache[row])
        return self.cache[row]

    def close(self) -> None:
        """Give the file back."""
        os.close(self.descriptor)


def span_ranges(spill: Spill, number: int, texts: Texts, layout: Layout, config: DedupConfig) -> Iterator[Array]:
    """What is repeated in the documents of a part: RANGE of bytes, ascending; ranges of a document may overlap."""
    found = spill.read(number * spill.parts // max(len(layout.parts), 1))
    found = found[(found["row"] >= layout.bounds[number]) & (found["row"] < layout.bounds[number + 1])]
    found = found[np.lexsort((found["start"], found["row"]))]
    bounds = np.append(np.flatnonzero(np.append(True, found["row"][1:] != found["row"][:-1])), len(found))
    for first, last in zip(bounds[:-1].tolist(), bounds[1:].tolist(), strict=True) if len(found) else ():
        row = int(found["row"][first])
        ranges = _ranges_of(texts.get(row), row, found[first:last], texts, config)
        if ranges:
            out = np.empty(len(ranges), RANGE)
            out["row"], out["start"], out["end"] = row, [r[0] for r in ranges], [r[1] for r in ranges]
            yield out[np.lexsort((out["end"], out["start"]))]


def _ranges_of(text: Array, row: int, found: Array, texts: Texts, config: DedupConfig) -> list[tuple[int, int]]:
    scratch = Scratch(len(text))
    n, _, _ = scratch.split(text, 0, len(text))
    starts, ends = scratch.starts[:n], scratch.ends[:n]
    ranges: list[tuple[int, int]] = []
    done: dict[tuple[int, int], int] = {}  # (other row, distance) -> byte up to which equal bytes were looked at
    for start, other, other_start in zip(
        found["start"].tolist(), found["other"].tolist(), found["other_start"].tolist(), strict=True
    ):
        # Anchors in one passage lead to the same stretch of equal bytes: it is measured once.
        if start < done.get((other, start - other_start), 0):
            continue
        before, after = extend(text, start, texts.get(other), other_start)
        low, high = start - before, start + after
        done[other, start - other_start] = high
        while high < len(text) and high > low and text[high] & 0xC0 == 0x80:
            high -= 1  # not into a character
        first, last = int(np.searchsorted(starts, low)), int(np.searchsorted(ends, high, "right"))
        if last - first >= config.span_words:
            ranges.append((int(starts[first]), min(high, int(starts[last])) if last < n else high))
    return ranges


def mark_rows(spill: Spill, rows: int) -> Array:
    """(rows,) bool: rows that take part in a comparison."""
    out = np.zeros(rows, bool)
    for number in range(spill.parts):
        for chunk in chunks(spill.path(number), COMPARED):
            out[chunk["row"]] = True
            out[chunk["other"]] = True
    return out
