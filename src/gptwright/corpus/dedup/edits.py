"""Boilerplate and repeated spans as edits: what is taken out of each kept document, in characters. Texts themselves are never changed."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow as pa

from gptwright.corpus import tables
from gptwright.corpus.copies import Bools
from gptwright.corpus.dedup.features import text_batches
from gptwright.corpus.dedup.found import Found, order_keys
from gptwright.corpus.dedup.lines import STANDS, choose_lines, line_ranges
from gptwright.corpus.dedup.priority import Priority
from gptwright.corpus.dedup.spans import RANGE, Texts, comparisons, mark_rows, span_ranges
from gptwright.corpus.dedup.store import mapped
from gptwright.corpus.dedup.words import Array, buffers

KINDS = ("LINE", "SPAN")
CUT = np.dtype([("row", "<i8"), ("start", "<i8"), ("end", "<i8"), ("kind", "<i8")])


def write_edits(
    found: Found,
    kept: Bools,
    out: Path,
    priority: Priority | None = None,
    heldout: Bools | None = None,
    between: Callable[[], None] = lambda: None,
) -> list[Path]:
    """Take boilerplate and repeated spans out of all kept documents but the first by priority that has them.

    Args:
        found: what ``find`` returned.
        kept: (rows,) bool: documents that stay; the others are neither edited nor do they keep anything.
        out: folder for the files.
        priority: which document is first; None: the first row.
        heldout: (rows,) bool: documents that are measured on come first of all, so what they hold is taken out of the others.
        between: called between two pieces of work; may raise to stop.

    Returns:
        A parquet file of ``tables.EDITS`` a part (kinds LINE and SPAN, replacement ""), ordered and apart, in the order of parts.
    """
    out.mkdir(parents=True, exist_ok=True)
    layout = found.layout
    work = out / ".tmp-edits"
    shutil.rmtree(work, ignore_errors=True)

    def keys(rows: Array) -> tuple[Array, Array]:
        return order_keys(rows, heldout, priority)

    try:
        best = np.zeros((0, 2), np.int64)
        if found.lines:
            count = len(mapped(found.lines[0].with_name("lines.hash"), "<u8"))
            best = choose_lines(found.lines, count, kept, keys)
        spill = comparisons(found.anchors, kept, keys, work / "compared", layout)
        texts = Texts(layout, mark_rows(spill, layout.rows), work / "texts")
        written = []
        try:
            for number in range(len(layout.parts)):
                between()
                lines = line_ranges(found.lines[number], best, kept) if found.lines else np.zeros(0, STANDS)
                spans = np.concatenate(
                    [np.zeros(0, RANGE), *span_ranges(spill, number, texts, layout, found.config)]
                )  # ranges of what is repeated, not the text
                written.append(out / f"part-{number:05d}.parquet")
                table = _table(found, number, _apart(lines, spans))
                tables.write_table(written[-1], table)
        finally:
            texts.close()
        return written
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _apart(lines: Array, spans: Array) -> Array:
    """Ranges as one ascending list without overlaps; what belongs to a line and to a span counts as a line."""
    both = np.empty(len(lines) + len(spans), CUT)
    for name in ("row", "start", "end"):
        both[name] = np.concatenate([lines[name], spans[name]])
    both["kind"] = np.arange(len(both)) >= len(lines)
    both = both[np.lexsort((both["end"], both["start"], both["row"]))]
    out: list[tuple[int, int, int, int]] = []
    for kind in range(len(KINDS)):
        row, high = -1, 0
        merged: list[tuple[int, int, int, int]] = []
        for r, start, end, _ in both[both["kind"] == kind].tolist():
            if r == row and start <= high:
                high = max(high, end)
                merged[-1] = (r, merged[-1][1], high, kind)
            else:
                merged.append((r, start, end, kind))
                row, high = r, end
        out = _minus(merged, out) + out if kind else merged
    return np.array(sorted(out), CUT)


def _minus(
    ranges: list[tuple[int, int, int, int]], holes: list[tuple[int, int, int, int]]
) -> list[tuple[int, int, int, int]]:
    """What is left of ranges without others; both ascending and apart."""
    out = []
    at = 0
    for row, start, end, kind in ranges:
        while at < len(holes) and (holes[at][0], holes[at][2]) <= (row, start):
            at += 1
        i = at
        while i < len(holes) and holes[i][0] == row and holes[i][1] < end:
            if holes[i][1] > start:
                out.append((row, start, holes[i][1], kind))
            start = holes[i][2]
            i += 1
        if start < end:
            out.append((row, start, end, kind))
    return out


def _table(found: Found, number: int, cuts: Array) -> pa.Table:
    """Cuts of one part as edits, bytes turned into characters."""
    first = int(found.layout.bounds[number])
    rows = cuts["row"] - first
    wanted = np.zeros(int(found.layout.bounds[number + 1]) - first, bool)
    wanted[rows] = True
    starts, ends = np.empty(len(cuts), np.int64), np.empty(len(cuts), np.int64)
    docs = found.layout.parts[number].docs
    for row, batch in text_batches(docs, ["text"], wanted) if len(cuts) else ():
        data, offsets = buffers(batch["text"])
        for i in np.flatnonzero(wanted[row : row + batch.num_rows]).tolist():
            text = data[int(offsets[i]) : int(offsets[i + 1])]
            chars = np.zeros(len(text) + 1, np.int64)
            np.cumsum((text & 0xC0) != 0x80, out=chars[1:])
            here = slice(*np.searchsorted(rows, [row + i, row + i + 1]))
            starts[here], ends[here] = chars[cuts["start"][here]], chars[cuts["end"][here]]
    return pa.table(
        [
            pa.array(rows.astype(np.int32)),
            pa.array(starts),
            pa.array(ends),
            pa.array(KINDS).take(pa.array(cuts["kind"])).cast(pa.string()),
            pa.array([""] * len(cuts), pa.string()),
        ],
        schema=tables.EDITS,
    )
