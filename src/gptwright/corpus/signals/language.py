"""Which language a text is in: py3langid's model over the first 512 bytes and 256 in the middle, over twice as much where those leave doubt,
and two classes of our own.

``und`` (undetermined): too few letters to tell, or the model is unsure. ``zxx`` (no linguistic content): program text, numbers, tables.
The model is a naive Bayes over byte sequences found by one automaton (Lui and Baldwin 2012); its tables are walked by a kernel here,
which gives py3langid's own answers some fifty times faster.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.

import importlib.metadata
import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.arrays import kept_arrays
from gptwright.corpus.signals.chars import ALPHA, LOWER, MARKUP, SPACE, TITLE, UPPER, flags, lower
from gptwright.corpus.signals.jit import kernel, part, version

HEAD_BYTES, MIDDLE_BYTES = 1024, 512  # twice as much names no other language, for twice the time (docs/log.md)
SURE = 0.99  # half as much is enough where it gives this probability
LEAST_LETTERS = 12
LEAST_SCORE = 0.5
LEAST_LETTER_SHARE = 0.45  # of what is not white space: below it stand numbers and tables
MOST_MARKUP = 0.10  # of the same: above it stands program text
UND, ZXX = "und", "zxx"
_LOGS = 4096


class Model(NamedTuple):
    """py3langid's tables as arrays."""

    moves: npt.NDArray[np.uint32]  # (rows * 256,) next state by row and byte
    rows: npt.NDArray[np.int64]  # (states,) where a state's row starts
    feature: npt.NDArray[np.int32]  # (states,) the feature that a state completes, or -1
    weight: npt.NDArray[np.float32]  # (features, classes) log probabilities
    prior: npt.NDArray[np.float32]  # (classes,)
    same_as: npt.NDArray[np.int64]  # (classes,) the class that a second one for the same language is added to
    logs: npt.NDArray[np.float32]  # log(1 + count)


@cache
def model() -> tuple[Model, list[str]]:
    """The model and the names of its classes."""
    names, *tables = kept_arrays(__name__, _unpacked, importlib.metadata.version("py3langid"))
    return Model(*tables), names.tolist()


def _unpacked() -> tuple[npt.NDArray[Any], ...]:
    """Its names and tables; to unpack them takes a third of a second."""
    from py3langid.langid import MODEL_FILE, LanguageIdentifier

    source = LanguageIdentifier.from_model_file(MODEL_FILE, norm_probs=True)
    names = list(source.nb_classes)
    same_as = np.arange(len(names))
    for first, second in source._alias_pairs:
        same_as[second] = first
    tables = Model(
        moves=np.asarray(source.tk_nextmove, np.uint32),
        rows=np.asarray(source.tk_row, np.int64) << 8,
        feature=np.asarray(source.tk_output, np.int32),
        weight=np.ascontiguousarray(source.nb_ptc, np.float32),
        prior=np.asarray(source.nb_pc, np.float32),
        same_as=same_as,
        logs=np.log1p(np.arange(_LOGS, dtype=np.float32)),
    )
    return np.array(names), *tables


@part
def _sample(data, s, e, head, middle, known, small, text, points):
    """The windows of a document, in small letters when it has none, and what its characters are.

    Args:
        head, middle: bytes of the windows.

    Returns:
        Bytes, letters, markup, characters that are not white space.
    """
    stop = min(e, s + head)
    while stop < e and data[stop] & 0xC0 == 0x80:
        stop += 1
    begin = stop
    if e - s > head + middle:
        begin = max(stop, (s + e - middle) // 2)
        while begin < e and data[begin] & 0xC0 == 0x80:
            begin += 1
    until = min(e, begin + middle)
    while until < e and data[until] & 0xC0 == 0x80:
        until += 1
    size, total = 0, 0
    letters, markup, visible = 0, 0, 0
    every = np.uint32(0)
    for window in range(2):
        i, end = (s, stop) if window == 0 else (begin, until)
        while i < end:
            c = np.int32(data[i])
            more = 0 if c < 0x80 else 1 if c < 0xE0 else 2 if c < 0xF0 else 3
            if more:
                c &= 0x3F >> more
            text[size] = data[i]
            for k in range(1, more + 1):
                c = c << 6 | np.int32(data[i + k] & 0x3F)
                text[size + k] = data[i + k]
            size += more + 1
            i += more + 1
            points[total] = c
            total += 1
            f = known[c]
            every |= f
            letters += np.int64(f & ALPHA != 0)
            markup += np.int64(f & MARKUP != 0)
            visible += np.int64(f & SPACE == 0)
    if every & UPPER and not every & (LOWER | TITLE):
        size = 0
        for k in range(total):
            c = small[points[k]]
            if c < 0x80:
                text[size] = c
                size += 1
            elif c < 0x800:
                text[size], text[size + 1] = 0xC0 | c >> 6, 0x80 | c & 0x3F
                size += 2
            elif c < 0x10000:
                text[size], text[size + 1], text[size + 2] = 0xE0 | c >> 12, 0x80 | c >> 6 & 0x3F, 0x80 | c & 0x3F
                size += 3
            else:
                text[size], text[size + 1] = 0xF0 | c >> 18, 0x80 | c >> 12 & 0x3F
                text[size + 2], text[size + 3] = 0x80 | c >> 6 & 0x3F, 0x80 | c & 0x3F
                size += 4
    return size, letters, markup, visible


@part
def _score(text, size, tables, times, seen, score):
    """The best class of a text and its probability.

    Args:
        times: (features,) int32 zeros, and zeros again afterwards.
        seen: (size,) scratch; score: (classes,) scratch.
    """
    state, found = 0, 0
    for i in range(size):
        state = np.int64(tables.moves[tables.rows[state] + text[i]])
        f = tables.feature[state]
        if f >= 0:
            if times[f] == 0:
                seen[found] = f
                found += 1
            times[f] += 1
    classes = len(score)
    score[:] = 0
    for k in range(found):
        f = seen[k]
        scale = tables.logs[min(times[f], len(tables.logs) - 1)]
        times[f] = 0
        row = tables.weight[f]
        for c in range(classes):
            score[c] += scale * row[c]
    best = np.float32(-np.inf)
    cool = np.float32(1 / math.sqrt(max(size, 1)))
    for c in range(classes):
        score[c] = (score[c] + tables.prior[c]) * cool if found else np.float32(0)
        best = max(best, score[c])
    total = np.float32(0)
    for c in range(classes):
        score[c] = np.exp(score[c] - best)
        total += score[c]
    first = 0
    for c in range(classes):
        if tables.same_as[c] != c:
            score[tables.same_as[c]] += score[c]
            score[c] = 0
    for c in range(classes):
        if score[c] > score[first]:
            first = c
    return first, score[first] / total


def _compile(made_of: int):
    @kernel
    def _classify(data, offsets, known, small, tables, found, score):
        """The class of every document (-1: und, -2: zxx) and its probability.

        Args:
            found: (d,) int32; score: (d,) float32: filled.
        """
        room = 4 * (HEAD_BYTES + MIDDLE_BYTES + 8)
        text, part_, points = np.empty(room, np.uint8), np.empty(room, np.uint8), np.empty(room, np.int32)
        times, seen = np.zeros(len(tables.weight), np.int32), np.full(room, made_of & 1, np.int32)
        scores = np.empty(len(tables.prior), np.float32)
        for row in range(len(offsets) - 1):
            start, end = offsets[row], offsets[row + 1]
            size, letters, markup, visible = _sample(
                data, start, end, HEAD_BYTES, MIDDLE_BYTES, known, small, text, points
            )
            probability = np.float32(0)
            if size > HEAD_BYTES:  # what the characters are is told by all of it, the language mostly by half
                half = _sample(data, start, end, HEAD_BYTES // 2, MIDDLE_BYTES // 2, known, small, part_, points)[0]
                best, probability = _score(part_, half, tables, times, seen, scores)
            if probability < SURE:
                best, probability = _score(text, size, tables, times, seen, scores)
            found[row], score[row] = best, probability
            if visible >= LEAST_LETTERS and (letters < LEAST_LETTER_SHARE * visible or markup > MOST_MARKUP * visible):
                found[row] = -2
            elif letters < LEAST_LETTERS or probability < LEAST_SCORE:
                found[row] = -1

    return _classify


_classify = _compile(version())


def languages(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> list[pa.Array]:
    """Language and score of texts.

    Args:
        data: UTF-8 in NFC; offsets: (d + 1,) int64.

    Returns:
        (d,) string, (d,) float32: the model's probability of its best language, also where the answer is ``und`` or ``zxx``.
    """
    tables, names = model()
    rows = len(offsets) - 1
    found, score = np.empty(rows, np.int32), np.empty(rows, np.float32)
    _classify(data, offsets, flags(), lower(), tables, found, score)
    codes = np.where(found < 0, len(names) - 1 - found, found)
    words = pa.DictionaryArray.from_arrays(pa.array(codes, pa.int32()), pa.array([*names, UND, ZXX]))
    return [words.cast(pa.string()), pa.array(score)]
