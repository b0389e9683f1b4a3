"""Text to words over Arrow buffers: lower case, letters only, with the hash of each word and where lines and paragraphs begin.

A word is what stands between white space, without its digits and punctuation ("(Paris," is "paris"). Scripts that are written without
spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one word a letter. Combining marks belong to letters: without them Hindi would be
consonants only. Sequences of words are hashed by a polynomial over the words' hashes, so that any sequence costs two lookups.
"""

import unicodedata
from functools import cache
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

U8 = npt.NDArray[np.uint8]
I32 = npt.NDArray[np.int32]
I64 = npt.NDArray[np.int64]
U64 = npt.NDArray[np.uint64]

OTHER, LETTER, SPACE, NEWLINE, ALONE, DIGIT = range(6)
LINE, PARAGRAPH = 1, 2  # what begins with a word
TABLE = 0x20000  # beyond it stand rare Han letters, and nothing that has a case
BASE = np.uint64(0x9E3779B97F4A7C15)
_PRIME = np.uint64(0x100000001B3)
_SEED = np.uint64(0xCBF29CE484222325)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_UNSPACED = (
    (0x3005, 0x3007),
    (0x3040, 0x30FF),
    (0x31F0, 0x31FF),
    (0x3400, 0x4DBF),
    (0x4E00, 0x9FFF),
    (0xF900, 0xFAFF),
    (0x0E00, 0x0EFF),
    (0x1000, 0x109F),
    (0x1780, 0x17FF),
)


@cache
def tables() -> tuple[U8, I32]:
    """Kind (uint8) and lower case (int32) of each code point below TABLE."""
    kinds = np.zeros(TABLE, np.uint8)
    lower = np.arange(TABLE, dtype=np.int32)
    for cp in range(TABLE):
        char = chr(cp)
        category = unicodedata.category(char)
        if category[0] in "LM":
            kinds[cp] = LETTER
            lower[cp] = ord(char.lower()[0])
        elif category[0] == "N":
            kinds[cp] = DIGIT
        elif char.isspace():
            kinds[cp] = SPACE
    kinds[10] = NEWLINE
    lower[0x3C2] = 0x3C3  # the final sigma is a sigma
    for first, last in _UNSPACED:
        block = kinds[first : last + 1]
        block[block == LETTER] = ALONE
    return kinds, lower


@nb.njit(nb.uint64(nb.uint64), cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def mix(x: Any) -> Any:
    """The last step of SplitMix64 (Steele, Lea and Flood 2014): spreads every bit over all."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@nb.njit(
    nb.int64(
        nb.uint8[::1], nb.int64, nb.int64, nb.uint8[::1], nb.int32[::1], nb.boolean,
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int64[::1], nb.uint8[::1], nb.uint64[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def split_words(
    data: Any, low: Any, high: Any, kinds: Any, lower: Any, narrow: Any,
    norm: Any, at: Any, starts: Any, ends: Any, breaks: Any, prefix: Any,
) -> Any:  # fmt: skip
    """Words of one text.

    Args:
        data: UTF-8, (bytes,).
        low, high: where the text stands in it.
        kinds, lower: ``tables()``.
        narrow: words end at every sign that is no letter and no digit, and digits belong to words.
        norm: out, at least 2 * bytes + 1: the words' code points, a space after each.
        at: out, (words + 1,): where words begin in norm; the last is its end.
        starts, ends: out, (words,): characters of the text.
        breaks: out, (words,): 0, LINE or PARAGRAPH (a blank line stands before).
        prefix: out, (words + 1,): polynomial hash of all words before.

    Returns:
        The number of words.
    """
    n, out, char, p = 0, 0, 0, low
    inside = False
    newlines, begins = 0, PARAGRAPH
    h = _SEED
    prefix[0] = np.uint64(0)
    at[0] = 0
    while p < high:
        byte = data[p]
        if byte < 128:
            cp = nb.int64(byte)
            p += 1
        elif byte < 224:
            cp = (nb.int64(byte & 31) << 6) | nb.int64(data[p + 1] & 63)
            p += 2
        elif byte < 240:
            cp = (nb.int64(byte & 15) << 12) | (nb.int64(data[p + 1] & 63) << 6) | nb.int64(data[p + 2] & 63)
            p += 3
        else:
            cp = (
                (nb.int64(byte & 7) << 18)
                | (nb.int64(data[p + 1] & 63) << 12)
                | (nb.int64(data[p + 2] & 63) << 6)
                | nb.int64(data[p + 3] & 63)
            )
            p += 4
        if cp < TABLE:
            kind = nb.int64(kinds[cp])
            small = nb.int64(lower[cp])
        else:
            kind = ALONE if cp < 0x323B0 else OTHER
            small = cp
        letter = kind in (LETTER, ALONE) or (narrow and kind == DIGIT)
        if inside and (kind in (SPACE, NEWLINE, ALONE) or (narrow and not letter)):
            norm[out] = 32
            out += 1
            prefix[n + 1] = prefix[n] * BASE + mix(h)
            n += 1
            at[n] = out
            inside = False
        if letter:
            if not inside:
                inside = True
                starts[n] = char
                breaks[n] = begins
                begins = 0
                h = _SEED
            norm[out] = small
            out += 1
            h = (h ^ nb.uint64(small)) * _PRIME
            ends[n] = char + 1
            if kind == ALONE:
                norm[out] = 32
                out += 1
                prefix[n + 1] = prefix[n] * BASE + mix(h)
                n += 1
                at[n] = out
                inside = False
        if kind == NEWLINE:
            newlines += 1
            begins = PARAGRAPH if newlines > 1 or begins == PARAGRAPH else LINE
        elif kind != SPACE:
            newlines = 0
        char += 1
    if inside:
        norm[out] = 32
        out += 1
        prefix[n + 1] = prefix[n] * BASE + mix(h)
        n += 1
        at[n] = out
    return n


def buffers(text: pa.LargeStringArray) -> tuple[U8, I64]:
    """The bytes (uint8) and offsets (n + 1, int64) of a text column; nulls are empty."""
    if text.null_count:
        text = text.fill_null("")
    raw = text.buffers()
    offsets = (
        np.frombuffer(raw[1], np.int64)[text.offset : text.offset + len(text) + 1] if raw[1] else np.zeros(1, np.int64)
    )
    data = np.frombuffer(raw[2], np.uint8) if raw[2] is not None and raw[2].size else np.zeros(1, np.uint8)
    return data, np.ascontiguousarray(offsets)


def scratch(longest: int) -> tuple[I32, I64, I64, I64, U8, U64]:
    """Room for the words of a text of so many bytes: norm, at, starts, ends, breaks, prefix."""
    size = longest + 2
    return (
        np.empty(2 * size, np.int32), np.empty(size, np.int64), np.empty(size, np.int64), np.empty(size, np.int64),
        np.empty(size, np.uint8), np.empty(size, np.uint64),
    )  # fmt: skip


def as_text(values: list[str]) -> pa.LargeStringArray:
    """A text column."""
    return pa.array(values, pa.large_string())
