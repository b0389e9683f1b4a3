"""Boilerplate lines and paragraphs: those that stand in very many texts, or in a large share of a source.

First their hashes are counted, out of core, each text once however often it was copied. Then the few texts that hold boilerplate are
read again for the places. Which place keeps its line is chosen later, among documents that are kept.
"""

from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np

from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import text_batches
from gptwright.corpus.dedup.kernels import find_units
from gptwright.corpus.dedup.layout import PLACE, Layout
from gptwright.corpus.dedup.store import Spill, among, bits_for, chunks, mapped, save
from gptwright.corpus.dedup.words import Array, Scratch, buffers

# Where boilerplate stands: number of the line among all boilerplate, row, bytes of its text.
STANDS = np.dtype([("line", "<i8"), ("row", "<i8"), ("start", "<i8"), ("end", "<i8")])


def find_lines(layout: Layout, config: DedupConfig, folder: Path, between: Callable[[], None]) -> list[Path]:
    """Where boilerplate stands.

    Args:
        layout: the corpus.
        config: what boilerplate is.
        folder: for files.
        between: called between two pieces of work; may raise to stop.

    Returns:
        A file of STANDS a part, by row and start. Beside them ``lines.hash`` (uint64, ascending) and ``lines.texts`` (int64, how many
        texts hold each).
    """
    folder.mkdir(parents=True, exist_ok=True)
    sources = sorted({part.source for part in layout.parts})
    source_of = np.array([sources.index(part.source) for part in layout.parts], np.int64)
    first_row = layout.mask(np.ones(len(layout.texts), bool))
    texts = np.bincount(
        source_of,
        [int(first_row[layout.bounds[p] : layout.bounds[p + 1]].sum()) for p in range(len(layout.parts))],
        len(sources),
    )
    needed = np.maximum(config.line_share_least, np.ceil(config.line_share * texts)).astype(np.int64)
    total = sum(batch.num_rows for part in layout.parts for batch in part.batches("lines"))
    bits = bits_for(total)
    with Spill(folder / "lines.tmp", PLACE, 1 << bits) as spill:
        for number, part in enumerate(layout.parts):
            between()
            for batch in part.batches("lines"):
                rows = np.asarray(batch["doc_row"]) + layout.bounds[number]
                here = first_row[rows]
                records = np.empty(int(here.sum()), PLACE)
                records["key"], records["row"] = np.asarray(batch["hash"])[here], rows[here]
                spill.add(records, top_bits(records["key"], bits))
    hashes, counts = [np.zeros(0, np.uint64)], [np.zeros(0, np.int64)]
    for p in range(1 << bits):
        between()
        found = _boilerplate(spill.read(p), layout, source_of, needed, config)
        hashes.append(found[0])
        counts.append(found[1])
        spill.drop(p)
    save(folder / "lines.hash", np.concatenate(hashes))
    save(folder / "lines.texts", np.concatenate(counts))
    table = mapped(folder / "lines.hash", "<u8")
    out = []
    for number in range(len(layout.parts)):
        between()
        out.append(folder / f"lines-{number:05d}.bin")
        stands = [np.zeros(0, STANDS), *_stands(layout, number, table, config)]
        save(out[-1], np.concatenate(stands))
    return out


def top_bits(keys: Array, bits: int) -> Array:
    """Partition by the top bits themselves, so that partitions in order are ascending."""
    return (keys >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(keys), np.int64)


def _boilerplate(
    records: Array, layout: Layout, source_of: Array, needed: Array, config: DedupConfig
) -> tuple[Array, Array]:
    """Hashes (ascending) that stand in enough texts, and in how many."""
    if not len(records):
        return np.zeros(0, np.uint64), np.zeros(0, np.int64)
    source = source_of[layout.part_of(records["row"])]
    order = np.lexsort((records["row"], source, records["key"]))
    key, row, source = records["key"][order], records["row"][order], source[order]
    new_key = np.append(True, key[1:] != key[:-1])
    new_source = new_key | np.append(True, source[1:] != source[:-1])
    new_row = new_source | np.append(True, row[1:] != row[:-1])  # rows of two sources differ
    starts = np.flatnonzero(new_key)
    texts = np.add.reduceat(new_row.astype(np.int64), starts)
    of_source = np.flatnonzero(new_source)
    enough = np.add.reduceat(new_row.astype(np.int64), of_source) >= needed[source[of_source]]
    much = np.zeros(len(key), bool)
    much[of_source] = enough
    take = (texts >= config.line_documents) | np.logical_or.reduceat(much, starts)
    return key[starts][take], texts[take]


def _stands(layout: Layout, number: int, table: Array, config: DedupConfig) -> Iterator[Array]:
    part, first = layout.parts[number], int(layout.bounds[number])
    wanted = np.zeros(int(layout.bounds[number + 1]) - first, bool)
    for batch in part.batches("lines") if len(table) else ():
        wanted[np.asarray(batch["doc_row"])[among(np.asarray(batch["hash"]), table)[1]]] = True
    if not wanted.any():
        return
    for row, batch in text_batches(part.docs, ["text"], wanted):
        data, offsets = buffers(batch["text"])
        rows = np.flatnonzero(wanted[row : row + batch.num_rows])
        if not len(rows):
            continue
        scratch = Scratch(int(np.diff(offsets)[rows].max()))
        room = 2 * len(scratch.line_ends) + 2
        units, owners, spans = np.empty(room, np.uint64), np.empty(room, np.int32), np.empty(2 * room, np.int32)
        for i in rows.tolist():
            low = int(offsets[i])
            _, _, lines = scratch.split(data, low, int(offsets[i + 1]))
            n = find_units(scratch.fine, scratch.line_words, lines, config.line_words, i, units, owners, spans, 0)
            at, known = among(units[:n], table)
            last = spans[room : room + n][known].astype(np.int64)
            begin = last - spans[:n][known]  # the line before the first
            out = np.empty(len(last), STANDS)
            out["line"], out["row"] = at[known], first + row + i
            out["start"] = np.where(begin >= 0, scratch.line_ends[np.maximum(begin, 0)] - low, 0)
            out["end"] = scratch.line_ends[last] - low
            yield out[np.lexsort((out["end"], out["start"]))]


def choose_lines(files: list[Path], lines: int, kept: Array, keys: Callable[[Array], tuple[Array, Array]]) -> Array:
    """The place that keeps each line: the first by priority, then by row and place in the text.

    Args:
        files: of STANDS.
        lines: how many lines there are.
        kept: (rows,) bool.
        keys: priority of rows as two numbers.

    Returns:
        (lines, 2) int64: row and start; -1 where no kept document holds it.
    """
    best = np.full((lines, 2), -1, np.int64)
    one, two = np.full(lines, np.iinfo(np.uint64).max), np.full(lines, np.iinfo(np.uint64).max)
    for path in files:
        for chunk in chunks(path, STANDS):
            chunk = chunk[kept[chunk["row"]]]
            if not len(chunk):
                continue
            a, b = keys(chunk["row"])
            order = np.lexsort((chunk["start"], chunk["row"], b, a, chunk["line"]))
            chunk, a, b = chunk[order], a[order], b[order]
            new = np.append(True, chunk["line"][1:] != chunk["line"][:-1])
            chunk, a, b = chunk[new], a[new], b[new]
            line = chunk["line"]
            # Files come in the order of rows, so that between equal priorities the one that is there stays.
            better = (best[line, 0] < 0) | (a < one[line]) | ((a == one[line]) & (b < two[line]))
            line, chunk = line[better], chunk[better]
            one[line], two[line] = a[better], b[better]
            best[line, 0], best[line, 1] = chunk["row"], chunk["start"]
    return best


def line_ranges(path: Path, best: Array, kept: Array) -> Array:
    """What is taken out of one part: (n,) STANDS, by row and start; ranges may overlap."""
    found = np.fromfile(path, STANDS)
    found = found[kept[found["row"]]]
    keep = (best[found["line"], 0] == found["row"]) & (best[found["line"], 1] == found["start"])
    out: Array = found[~keep]
    return out
