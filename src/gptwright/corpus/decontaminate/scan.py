"""The documents of one docs file against the evaluation index: a pure task whose result is what matched, before it is known what is common.

A first kernel, over the Arrow buffers of a batch, says which documents hold any item's words; only those are looked at closely. A unit
is a paragraph, or a line of one with several: a question on a line of its own stays visible in a long list or conversation.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import numba as nb
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.hashing import b2_json
from gptwright.corpus import tables
from gptwright.corpus.decontaminate import evals, phrases
from gptwright.corpus.decontaminate import words as w

BATCH_ROWS = 1024

CANDIDATES = pa.schema(
    [
        ("doc_row", pa.int32()),  # row in the docs file
        ("doc_key", pa.uint64()),  # of the text without case and layout: copies have the same
        ("n_words", pa.int32()),  # of the unit
        ("hit_at", pa.list_(pa.int32())),  # word in the unit where a phrase begins
        ("hit_phrase", pa.list_(pa.int32())),
        ("hit_start", pa.list_(pa.int64())),  # characters of the text
        ("hit_end", pa.list_(pa.int64())),
        ("grams", pa.list_(pa.uint64())),  # hash of every full sequence of the unit, in order
    ]
)


@dataclass(frozen=True)
class Job:
    """A task: one docs file, one index.

    Args:
        folder: where the result goes.
        docs: path of the docs file, which is named by its content.
        index: path of the index (``evals.index_path``).
    """

    folder: str
    docs: str
    index: str

    @property
    def name(self) -> str:
        return "leaks-" + b2_json([evals.code(), Path(self.docs).name, Path(self.index).name]).removeprefix("b2:")[:32]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.name}.parquet"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.path.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        return (self.docs, self.index)

    def moved(self, folder: str, places: Mapping[str, str]) -> Self:
        """The same job elsewhere."""
        return type(self)(folder, places[self.docs], places[self.index])


def run(job: Job) -> str:
    """Do a task unless it is done. Returns its name."""
    if not job.path.exists():
        index = Path(job.index)
        known = evals.load(str(index.parent), index.stem.removeprefix("evals-"))
        found: list[pa.RecordBatch] = []
        row = 0
        with pq.ParquetFile(job.docs) as file:
            for batch in file.iter_batches(batch_size=BATCH_ROWS, columns=["text", "norm_id"]):
                keys = np.frombuffer(b"".join(i[:8] for i in batch["norm_id"].to_pylist()), "<u8")
                found.append(candidates(batch["text"], keys, known, row))
                row += batch.num_rows
        table = pa.Table.from_batches(found, CANDIDATES).replace_schema_metadata({"documents": str(row)})
        tables.write_table(job.path, table)
    return job.name


def candidates(text: pa.LargeStringArray, keys: w.U64, known: evals.Evals, first_row: int = 0) -> pa.RecordBatch:
    """The units of documents that hold words of evaluation items.

    Args:
        text: documents.
        keys: what is the same for copies, (documents,) uint64.
        known: the index.
        first_row: number of the first document.

    Returns:
        Rows of CANDIDATES.
    """
    data, offsets = w.buffers(text)
    room = w.scratch(int(np.diff(offsets).max(initial=0)))
    touched = np.zeros(len(text), np.uint8)
    table, sizes = known.phrases, known.phrases.sizes
    ours = (table.norm, table.first, table.last, table.keys, table.slots, table.bits)
    if len(table):
        _touched(data, offsets, *w.tables(), *room, sizes, *ours, touched)
    rows: list[dict[str, Any]] = []
    for number in np.flatnonzero(touched).tolist():
        rows += [
            {"doc_row": first_row + number, "doc_key": int(keys[number]), **unit}
            for unit in _units(data, int(offsets[number]), int(offsets[number + 1]), room, known, ours)
        ]
    return pa.RecordBatch.from_pylist(rows, CANDIDATES)


def _units(data: w.U8, low: int, high: int, room: Any, known: evals.Evals, ours: Any) -> Iterator[dict[str, Any]]:
    """Units of one document that hold an item's words."""
    norm, at, starts, ends, breaks, prefix = room
    n = w.split_words(data, low, high, *w.tables(), False, *room)
    sizes = known.phrases.sizes
    place, phrase = np.empty(n * len(sizes), np.int64), np.empty(n * len(sizes), np.int64)
    hits = _look(n, norm, at, breaks, prefix, sizes, *ours, False, place, phrase)
    place, phrase = place[:hits], phrase[:hits]
    stop = place + known.phrases.size[phrase]  # the word after each hit
    paragraphs = np.append(np.flatnonzero(breaks[:n] == w.PARAGRAPH), n)
    lines = np.append(np.flatnonzero(breaks[:n] > 0), n)
    for begin, end in zip(paragraphs[:-1].tolist(), paragraphs[1:].tolist(), strict=True):
        inside = lines[(lines >= begin) & (lines <= end)]
        bounds = [(begin, end)]
        if len(inside) > 2:
            bounds += list(zip(inside[:-1].tolist(), inside[1:].tolist(), strict=True))
        for first, last in bounds:
            mine = slice(np.searchsorted(place, first), np.searchsorted(place, last))
            chosen = np.flatnonzero(stop[mine] <= last) + mine.start
            if len(chosen):
                grams = np.empty(max(0, last - first - known.words + 1), np.uint64)
                _grams(prefix, first, known.words, grams)
                yield {
                    "n_words": last - first,
                    "hit_at": place[chosen] - first,
                    "hit_phrase": phrase[chosen],
                    "hit_start": starts[place[chosen]],
                    "hit_end": ends[stop[chosen] - 1],
                    "grams": grams,
                }


@nb.njit(nb.void(nb.uint64[::1], nb.int64, nb.int64, nb.uint64[::1]), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _grams(prefix: Any, first: Any, words: Any, out: Any) -> None:
    power = nb.uint64(1)
    for _ in range(words):
        power *= w.BASE
    for i in range(len(out)):
        out[i] = phrases.sequence_hash(prefix, first + i, first + i + words, power)


@nb.njit(
    nb.int64(
        nb.int64, nb.int32[::1], nb.int64[::1], nb.uint8[::1], nb.uint64[::1], nb.int64[::1],
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.uint64[::1], nb.int32[::1], nb.uint64[::1],
        nb.boolean, nb.int64[::1], nb.int64[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _look(
    n: Any, text: Any, at: Any, breaks: Any, prefix: Any, sizes: Any,
    norm: Any, first: Any, last: Any, keys: Any, slots: Any, bits: Any, only_one: Any, place: Any, phrase: Any,
) -> Any:  # fmt: skip
    """Phrases in a text that was split into n words: where each begins and which it is. None reaches over a paragraph's end."""
    powers = np.empty(len(sizes), np.uint64)
    for s in range(len(sizes)):
        powers[s] = nb.uint64(1)
        for _ in range(sizes[s]):
            powers[s] *= w.BASE
    mask = nb.uint64(len(bits) * 64 - 1)
    found, limit = 0, 0
    for i in range(n):
        if i >= limit:
            limit = i + 1
            while limit < n and breaks[limit] != w.PARAGRAPH:
                limit += 1
        for s in range(len(sizes)):
            end = i + sizes[s]
            if end > limit:
                break
            key = phrases.sequence_hash(prefix, i, end, powers[s])
            bit = (key >> nb.uint64(32)) & mask
            if (bits[bit >> nb.uint64(6)] >> (bit & nb.uint64(63))) & nb.uint64(1):
                which = phrases.find(key, text, at[i], at[end] - 1, norm, first, last, keys, slots)
                if which >= 0:
                    if only_one:
                        return 1
                    place[found] = i
                    phrase[found] = which
                    found += 1
    return found


@nb.njit(
    nb.void(
        nb.uint8[::1], nb.int64[::1], nb.uint8[::1], nb.int32[::1],
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int64[::1], nb.uint8[::1], nb.uint64[::1], nb.int64[::1],
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.uint64[::1], nb.int32[::1], nb.uint64[::1], nb.uint8[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _touched(
    data: Any, offsets: Any, kinds: Any, lower: Any,
    text: Any, at: Any, starts: Any, ends: Any, breaks: Any, prefix: Any, sizes: Any,
    norm: Any, first: Any, last: Any, keys: Any, slots: Any, bits: Any, touched: Any,
) -> None:  # fmt: skip
    """Mark documents that hold any phrase."""
    nowhere = np.empty(0, np.int64)
    for row in range(len(offsets) - 1):
        n = w.split_words(
            data, offsets[row], offsets[row + 1], kinds, lower, False, text, at, starts, ends, breaks, prefix
        )
        touched[row] = _look(
            n, text, at, breaks, prefix, sizes, norm, first, last, keys, slots, bits, True, nowhere, nowhere
        )
