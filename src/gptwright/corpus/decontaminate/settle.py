"""What leaked, decided over the whole corpus: sequences that are common in it do not count, and then shares say what is contaminated.

A licence or a proverb that happens to stand in an evaluation item would else condemn every document that quotes it. A sequence is common
when more than a given share of the documents, and at least a given number of different ones, have it. Only paragraphs that hold an item's
words matter, so only their sequences are counted: those of items in one array, the others in as many passes over the tasks' results as
keep memory bounded.
"""

import itertools
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.corpus.decontaminate.config import DecontaminateConfig
from gptwright.corpus.decontaminate.evals import Evals

PASS_PAIRS = 8_000_000  # pairs of sequence and document held at once, 16 bytes each before sorting
MOST_ITEMS = 20  # named as evidence for one document

LEAKS = pa.schema(
    [
        ("doc_row", pa.int32()),  # row in the docs file of the same number; documents without a match have none
        ("contaminated", pa.bool_()),
        ("overlap", pa.float32()),  # of the paragraph or line with the most
        ("item_share", pa.float32()),  # of the sequences of the item that is most complete in it
        ("items", pa.list_(pa.string())),  # ids, most matches first; of a contaminated document those that condemn it
        ("starts", pa.list_(pa.int64())),  # characters of the matched words, apart and in order
        ("ends", pa.list_(pa.int64())),
    ]
)  # fmt: skip

_Mask = npt.NDArray[np.bool_]


@dataclass
class Settled:
    """The decision; ``part(i)`` gives the rows of a docs file. Made by ``settle``."""

    files: Sequence[Path]
    evals: Evals
    overlap: float
    documents: int
    common: _Mask  # of the evaluation phrases
    common_other: npt.NDArray[np.uint64]  # hashes of other common sequences, sorted

    def part(self, number: int) -> pa.Table:
        """Rows of LEAKS for the docs file of this number."""
        return pa.Table.from_pylist(list(self._rows(pq.read_table(self.files[number]))), LEAKS)

    @cached_property
    def unchecked(self) -> list[str]:
        """Items of which nothing is left to look for, since all their sequences are common here."""
        owners = self.evals.phrases.owners
        phrase = np.repeat(np.arange(len(self.common)), np.diff(self.evals.phrases.owner_at))
        left = np.bincount(owners[~self.common[phrase]], minlength=len(self.evals.items))
        return [self.evals.items[i] for i in np.flatnonzero((left == 0) & (self._sizes > 0)).tolist()]

    @cached_property
    def _sizes(self) -> Any:
        return self.evals.sizes()

    def _rows(self, table: pa.Table) -> Any:
        units = table.to_pylist()
        begin = 0
        while begin < len(units):
            end = begin
            while end < len(units) and units[end]["doc_row"] == units[begin]["doc_row"]:
                end += 1
            if (row := self._document(units[begin:end])) is not None:
                yield {"doc_row": units[begin]["doc_row"], **row}
            begin = end

    def _document(self, units: list[dict[str, Any]]) -> dict[str, Any] | None:
        shares = [self._unit(unit) for unit in units]
        if not any(shares):
            return None
        contaminated = max(shares) >= self.overlap
        bar = self.overlap if contaminated else 0.0
        phrases: set[int] = set()
        spans: list[tuple[int, int]] = []
        for unit, share in zip(units, shares, strict=True):
            if share > 0 and share >= bar:
                for phrase, start, end in zip(unit["hit_phrase"], unit["hit_start"], unit["hit_end"], strict=True):
                    if not self.common[phrase]:
                        phrases.add(phrase)
                        spans.append((start, end))
        table = self.evals.phrases
        counts: Counter[int] = Counter()
        for phrase in phrases:
            counts.update(table.owners[table.owner_at[phrase] : table.owner_at[phrase + 1]].tolist())
        named = sorted(counts, key=lambda item: (-counts[item], item))
        merged = _merge(spans)
        return {
            "contaminated": contaminated,
            "overlap": max(shares),
            "item_share": max(counts[item] / self._sizes[item] for item in named),
            "items": [self.evals.items[item] for item in named[:MOST_ITEMS]],
            "starts": [start for start, _ in merged],
            "ends": [end for _, end in merged],
        }

    def _unit(self, unit: dict[str, Any]) -> float:
        """Share of a unit that is an item's."""
        size = self.evals.phrases.size
        kept = [(at, p) for at, p in zip(unit["hit_at"], unit["hit_phrase"], strict=True) if not self.common[p]]
        long = sum(size[p] == self.evals.words for _, p in kept)
        share = 0.0
        if long:
            grams = np.array(unit["grams"], np.uint64)
            # Common ones count neither above nor below the line.
            odd = np.isin(grams, self.common_other)
            for at, phrase in zip(unit["hit_at"], unit["hit_phrase"], strict=True):
                if size[phrase] == self.evals.words:
                    odd[at] = self.common[phrase]
            share = float(long / max(len(grams) - odd.sum(), 1))
        covered = np.zeros(unit["n_words"], bool)
        for at, phrase in kept:
            if size[phrase] < self.evals.words:
                covered[at : at + size[phrase]] = True
        return max(share, float(covered.mean()))


def settle(files: Sequence[Path], evals: Evals, config: DecontaminateConfig, alive: _Mask | None = None) -> Settled:
    """Decide from the tasks' results.

    Args:
        files: results of ``scan.run`` in the corpus's order.
        evals: the index they were made with.
        config: what is common and what is contaminated.
        alive: documents that are no copies, (documents of the corpus,); None tells exact copies apart here. Near copies count as
            one text only when this is given.

    Returns:
        The decision; it reads the files again when asked for a part.
    """
    documents, counted = _distinct(files, alive)
    least = max(config.common_least, int(config.common_share * documents) + 1)
    common = np.zeros(len(evals.phrases), bool)
    settled = Settled(files, evals, config.overlap, documents, common, np.zeros(0, np.uint64))
    counts = np.zeros(len(evals.phrases), np.int64)
    for number, path in enumerate(files):
        rows, phrases = _pairs(pq.read_table(path, columns=["doc_row", "hit_phrase"]), "hit_phrase")
        chosen = counted[number][rows]
        pairs = np.unique(np.stack([phrases[chosen].astype(np.int64), rows[chosen]]), axis=1)
        counts += np.bincount(pairs[0], minlength=len(counts))
    common[:] = counts >= least
    settled.common_other = _common_others(settled, counted, least)
    return settled


def _distinct(files: Sequence[Path], alive: _Mask | None) -> tuple[int, list[_Mask]]:
    """Number of documents, and of each file which documents count (the first of several copies)."""
    sizes = [int(pq.read_schema(path).metadata[b"documents"]) for path in files]
    starts = np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)
    if alive is not None:
        return int(alive.sum()), [alive[a:b] for a, b in itertools.pairwise(starts)]
    keys, rows = [], []
    for path, start in zip(files, starts[:-1], strict=True):
        table = pq.read_table(path, columns=["doc_row", "doc_key"])
        keys.append(table["doc_key"].to_numpy())
        rows.append(table["doc_row"].to_numpy().astype(np.int64) + start)
    first = np.zeros(int(starts[-1]), bool)
    if keys:
        _, once = np.unique(np.concatenate(keys), return_index=True)
        first[np.concatenate(rows)[once]] = True
    return int(starts[-1]), [first[a:b] for a, b in itertools.pairwise(starts)]


def _pairs(table: pa.Table, column: str) -> tuple[npt.NDArray[np.int64], Any]:
    """A list column's values and the document each belongs to."""
    lists = table[column].combine_chunks()
    lengths = np.diff(lists.offsets.to_numpy())
    return np.repeat(table["doc_row"].to_numpy().astype(np.int64), lengths), lists.flatten().to_numpy()


def _common_others(settled: Settled, counted: list[_Mask], least: int) -> npt.NDArray[np.uint64]:
    """Common sequences that are no item's, in units where leaving them out can matter."""
    size, words = settled.evals.phrases.size, settled.evals.words
    total = 0
    wanted: list[_Mask] = []
    for path in settled.files:
        units = pq.read_table(path, columns=["n_words", "hit_phrase"]).to_pylist()
        long = [any(size[p] == words and not settled.common[p] for p in unit["hit_phrase"]) for unit in units]
        wanted.append(np.array(long, bool))
        total += sum(max(0, u["n_words"] - words + 1) for u, take in zip(units, long, strict=True) if take)
    passes = -(-total // PASS_PAIRS)
    common: list[npt.NDArray[np.uint64]] = []
    for turn in range(passes):
        hashes, whose = [], []
        for number, path in enumerate(settled.files):
            table = pq.read_table(path, columns=["doc_row", "grams"]).filter(pa.array(wanted[number]))
            rows, grams = _pairs(table, "grams")
            chosen = counted[number][rows] & (grams % np.uint64(passes) == np.uint64(turn))
            hashes.append(grams[chosen])
            whose.append(rows[chosen] + (number << 32))
        gram, document = np.concatenate(hashes), np.concatenate(whose)
        order = np.lexsort((document, gram))
        gram, document = gram[order], document[order]
        new = (
            np.append(True, (gram[1:] != gram[:-1]) | (document[1:] != document[:-1]))
            if len(gram)
            else np.zeros(0, bool)
        )
        values, counts = np.unique(gram[new], return_counts=True)
        common.append(values[counts >= least])
    return np.sort(np.concatenate(common)) if common else np.zeros(0, np.uint64)


def _merge(spans: list[tuple[int, int]]) -> list[tuple[int, int]]:
    """Spans that touch or overlap become one."""
    merged: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if merged and start <= merged[-1][1]:
            merged[-1] = (merged[-1][0], max(end, merged[-1][1]))
        else:
            merged.append((start, end))
    return merged
