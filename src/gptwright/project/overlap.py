"""Which training documents an answer repeats, word for word, and under which licence they stand.

No index: the kept texts are read once for each question, at some hundred megabytes a second, and not longer than a limit. So it is
never out of date and takes no room; how much was read is part of the answer. Words are compared without case and punctuation.
"""

import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.corpus.reading import at_rows, manifest
from gptwright.corpus.tables import part_path

Words = tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64], npt.NDArray[np.int64]]
LEAST_WORDS = 8
"""Shorter runs of words are common phrases that say nothing about where they come from."""

_MOST_DOCUMENTS = 100  # looked at closely; those with most in common first
_MOST_NAMED = 5  # documents for one passage
_BATCH = 4096
_BASE = np.uint64(0x9E3779B97F4A7C15)


@dataclass(frozen=True)
class Origin:
    """A document that holds a passage."""

    id: str
    title: str
    source: str
    locator: str
    url: str | None
    licence: str | None


@dataclass(frozen=True)
class Passage:
    """A run of words of the answer that stands in documents, as long as it can be.

    Attributes:
        start: character in the answer.
        end: behind the last.
        words: how many.
        origins: documents that hold it, at most five.
        more: how many further ones were seen.
    """

    start: int
    end: int
    words: int
    origins: list[Origin]
    more: int = 0


@dataclass
class Overlap:
    """What an answer has in common with the corpus.

    Attributes:
        passages: the longest first.
        documents: kept training documents that were read.
        of: that there are.
        seconds: it took.
    """

    passages: list[Passage] = field(default_factory=list)
    documents: int = 0
    of: int = 0
    seconds: float = 0.0

    @property
    def complete(self) -> bool:
        """Whether the whole corpus was read."""
        return self.documents >= self.of


def overlap(corpus_dir: Path, text: str, *, least: int = LEAST_WORDS, limit_s: float = 10.0) -> Overlap:
    """Find the passages of a text that stand in documents that were kept for training.

    Args:
        corpus_dir: work/corpus.
        text: an answer.
        least: shortest passage. Words; of Chinese and Japanese, characters.
        limit_s: no further part of the corpus is begun after this. Seconds.

    Raises:
        UserError: there is no corpus here.
    """
    began = time.monotonic()
    parts = int(manifest(corpus_dir)["parts"])
    raw = text.encode()
    asked = words_of(raw)
    found = Overlap()
    chosen = [_kept(corpus_dir, number) for number in range(parts)]
    found.of = int(sum(mask.sum() for mask in chosen))
    if len(asked[0]) < least:
        found.documents = found.of
        return found
    table = _table(_grams(asked[0], least))
    counts: list[tuple[int, int]] = []  # (grams in common, row over all parts)
    first = 0
    for number, mask in enumerate(chosen):
        for row, texts in _batches(corpus_dir, number):
            if time.monotonic() - began > limit_s:
                break
            here = mask[row : row + len(texts)]
            hits = np.zeros(len(texts), np.int64)
            _scan(*_buffers(texts), here, table, least, hits)
            counts += [(int(hits[at]), first + row + int(at)) for at in np.flatnonzero(hits)]
            found.documents += int(here.sum())
        first += len(mask)
    counts.sort(key=lambda one: (-one[0], one[1]))
    rows = [row for _, row in counts[:_MOST_DOCUMENTS]]
    places: dict[tuple[int, int], list[Origin]] = {}
    for _, one in at_rows(corpus_dir, rows):
        document, row_of = one.document, one.row
        origin = Origin(
            document.uid, str(row_of["title"] or ""), document.source, document.locator, row_of["url"], document.license
        )
        for place in common(asked[0], words_of(document.text.encode())[0], least):
            places.setdefault(place, []).append(origin)
    seen: set[bytes] = set()
    for (at, length), origins in sorted(places.items(), key=lambda one: (-one[0][1], one[0][0])):
        said = asked[0][at : at + length].tobytes()
        if said in seen:  # an answer that repeats itself
            continue
        seen.add(said)
        start, end = int(asked[1][at]), int(asked[2][at + length - 1])
        begin = len(raw[:start].decode())
        found.passages.append(
            Passage(
                begin, begin + len(raw[start:end].decode()), length, origins[:_MOST_NAMED], len(origins[_MOST_NAMED:])
            )
        )
    found.seconds = time.monotonic() - began
    return found


def common(asked: npt.NDArray[np.uint64], held: npt.NDArray[np.uint64], least: int) -> list[tuple[int, int]]:
    """Runs of words that two texts share, each as long as it can be, none inside another.

    Args:
        asked: hashes of words, (n,).
        held: hashes of words, (m,).
        least: shortest run.

    Returns:
        (place in ``asked``, length), in order.
    """
    at: dict[int, list[int]] = {}
    for place, gram in enumerate(_grams(asked, least).tolist()):
        at.setdefault(gram, []).append(place)
    runs: set[tuple[int, int]] = set()
    grams = _grams(held, least)
    for place in np.flatnonzero(np.isin(grams, np.fromiter(at, np.uint64, len(at)))).tolist():
        for mine in at[int(grams[place])]:
            if mine and place and asked[mine - 1] == held[place - 1]:
                continue  # a run that began before
            length = least
            while (
                mine + length < len(asked)
                and place + length < len(held)
                and asked[mine + length] == held[place + length]
            ):
                length += 1
            runs.add((mine, length))
    out: list[tuple[int, int]] = []
    for start, length in sorted(runs, key=lambda run: (run[0], -run[1])):
        if not out or start + length > out[-1][0] + out[-1][1]:
            out.append((start, length))
    return out


def words_of(raw: bytes) -> Words:
    """The words of a UTF-8 text: their hashes, and where each begins and ends. Bytes."""
    data = np.frombuffer(raw, np.uint8)
    hashes, starts, ends = np.empty(len(data), np.uint64), np.empty(len(data), np.int64), np.empty(len(data), np.int64)
    n = int(_words(data, 0, len(data), hashes, starts, ends))
    return hashes[:n], starts[:n], ends[:n]


def _grams(words: npt.NDArray[np.uint64], n: int) -> npt.NDArray[np.uint64]:
    if len(words) < n:
        return np.zeros(0, np.uint64)
    with np.errstate(over="ignore"):
        total = np.zeros(len(words) - n + 1, np.uint64)
        for k in range(n):
            total = total * _BASE + words[k : len(words) - n + 1 + k]
    return total


def _table(grams: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """An open-addressed set, at most an eighth full; 0 is an empty place."""
    size = 1 << max(6, (len(grams) * 8 - 1).bit_length())
    table = np.zeros(size, np.uint64)
    for gram in np.unique(grams).tolist():
        at = (gram ^ (gram >> 32)) & (size - 1)
        while table[at]:
            at = (at + 1) & (size - 1)
        table[at] = gram
    return table


def _kept(corpus_dir: Path, number: int) -> npt.NDArray[np.bool_]:
    """Which documents of a part are trained on."""
    decisions = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict", "split"])
    kept = pc.and_(pc.equal(decisions["verdict"], "keep"), pc.fill_null(pc.equal(decisions["split"], "train"), False))
    return np.asarray(kept.to_numpy(), bool)


def _batches(corpus_dir: Path, number: int) -> Iterator[tuple[int, pa.Array]]:
    row = 0
    with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
        for batch in file.iter_batches(batch_size=_BATCH, columns=["text"]):
            yield row, batch["text"]
            row += batch.num_rows


def _buffers(texts: pa.Array) -> Sequence[Any]:
    """Bytes and borders of a column of large strings."""
    _, offsets, data = texts.buffers()
    borders = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None else np.zeros(0, np.uint8), borders


@nb.njit(cache=True, nogil=True)
def _step(data, at, end):  # type: ignore[no-untyped-def]
    """The character at a place: its bytes folded into one number, its length, and its kind: 0 between words, 1 in one, 2 a word by itself."""
    b = data[at]
    if b < 0x80:
        if 65 <= b <= 90:
            return np.uint64(b + 32), 1, 1
        return np.uint64(b), 1, 1 if 97 <= b <= 122 or 48 <= b <= 57 else 0
    size = 2 if b < 0xE0 else 3 if b < 0xF0 else 4
    if at + size > end:
        return np.uint64(b), 1, 0
    c = data[at + 1]
    if size == 2:
        if b == 0xC2:
            return np.uint64(0), 2, 0  # signs of Latin-1
        if b == 0xC3 and 0x80 <= c <= 0x9E and c != 0x97:
            c += 0x20
        elif b == 0xD0 and c < 0xB0:  # Cyrillic capitals
            if c < 0x90:
                b, c = 0xD1, c + 0x10
            elif c < 0xA0:
                c += 0x20
            else:
                b, c = 0xD1, c - 0x20
        elif b == 0xCE and 0x91 <= c <= 0xA9:  # Greek capitals
            if c < 0xA0:
                c += 0x20
            else:
                b, c = 0xCF, c - 0x20
        return np.uint64(b) << 8 | np.uint64(c), 2, 1
    code = np.uint64(b) << 16 | np.uint64(c) << 8 | np.uint64(data[at + 2])
    if size == 4:
        kind = 0 if b == 0xF0 and c == 0x9F else 2 if b == 0xF0 and c >= 0xA0 else 1  # emoji; rare Han
        return code << 8 | np.uint64(data[at + 3]), 4, kind
    if (b == 0xE2 and c < 0xB0) or (b == 0xE3 and c == 0x80):
        return code, 3, 0  # punctuation and symbols
    if (b == 0xE3 and c >= 0x81) or 0xE4 <= b <= 0xE9:
        return code, 3, 2  # kana and Han: no spaces between words
    return code, 3, 1


@nb.njit(cache=True, nogil=True)
def _words(data, start, end, hashes, starts, ends):  # type: ignore[no-untyped-def]
    n, at = 0, start
    inside = False
    value = np.uint64(0)
    while at < end:
        code, size, kind = _step(data, at, end)
        if inside and kind != 1:
            hashes[n], ends[n] = value, at
            n += 1
            inside = False
        if kind == 1:
            if not inside:
                inside, starts[n], value = True, at, np.uint64(0xCBF29CE484222325)
            value = (value ^ code) * np.uint64(0x100000001B3)
        elif kind == 2:
            starts[n], ends[n] = at, at + size
            hashes[n] = (np.uint64(0xCBF29CE484222325) ^ code) * np.uint64(0x100000001B3)
            n += 1
        at += size
    if inside:
        hashes[n], ends[n] = value, end
        n += 1
    return n


@nb.njit(cache=True, nogil=True)
def _scan(data, borders, wanted, table, least, hits):  # type: ignore[no-untyped-def]
    """Count in each wanted text the runs of words that the table holds."""
    size = np.uint64(len(table) - 1)
    base = np.uint64(0x9E3779B97F4A7C15)
    drop = np.uint64(1)
    for _ in range(least):
        drop *= base
    ring = np.zeros(least, np.uint64)
    for row in range(len(borders) - 1):
        if not wanted[row]:
            continue
        at, end = borders[row], borders[row + 1]
        ring[:] = 0
        n, total, value = 0, np.uint64(0), np.uint64(0)
        inside = False
        while at <= end:
            if at < end:
                code, length, kind = _step(data, at, end)
            else:
                code, length, kind = np.uint64(0), 1, 0  # the end of the text ends a word
            closed = inside and kind != 1
            for turn in range(2):  # a Han character may end a word and be one
                if turn == 0:
                    if not closed:
                        continue
                    word = value
                    inside = False
                else:
                    if kind != 2:
                        continue
                    word = (np.uint64(0xCBF29CE484222325) ^ code) * np.uint64(0x100000001B3)
                slot = n % least
                total = total * base + word - ring[slot] * drop
                ring[slot] = word
                n += 1
                if n >= least:
                    place = (total ^ (total >> np.uint64(32))) & size
                    while table[place] != 0:
                        if table[place] == total:
                            hits[row] += 1
                            break
                        place = (place + np.uint64(1)) & size
            if kind == 1:
                if not inside:
                    inside, value = True, np.uint64(0xCBF29CE484222325)
                value = (value ^ code) * np.uint64(0x100000001B3)
            at += length
