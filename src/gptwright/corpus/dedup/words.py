"""Text to simplified words over Arrow buffers: case folded, number runs as one 0, punctuation to space, diacritics dropped.

Simplification is a function of the case-folded text with white space collapsed, so texts of one ``norm_id`` have the same words.
Scripts written without spaces (Han, kana, Thai, Lao, Khmer, Burmese) give one word a letter. Vowel signs of Indic scripts are no
diacritics and stay. The steps are those of datatrove's simplify_text (utils/text.py).
"""

import unicodedata
from functools import cache
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.arrays import kept_arrays

Array = npt.NDArray[Any]

SEPARATOR, LETTER, ALONE, DIGIT, DROPPED, SEVERAL = range(6)
TABLE = 0x20000  # beyond it stand rare Han letters and symbols, and nothing that has a case
ASTRAL_HAN = 0x323B0
POINTS = (
    ".,،٫⎖⎗⎘"  # between two runs of digits one of them belongs to the number, once; split_words has them as numbers
)
PRIME = np.uint64(0x100000001B3)
SEED = np.uint64(0xCBF29CE484222325)
_MIX_1, _MIX_2 = np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB)
_S30, _S27, _S31 = np.uint64(30), np.uint64(27), np.uint64(31)
_UNSPACED = (
    (0x3005, 0x3007), (0x3040, 0x30FF), (0x31F0, 0x31FF), (0x3400, 0x4DBF), (0x4E00, 0x9FFF), (0xF900, 0xFAFF),
    (0x0E00, 0x0EFF), (0x1000, 0x109F), (0x1780, 0x17FF),
)  # fmt: skip

BYTES = nb.types.Array(nb.uint8, 1, "C", readonly=True)
INTS = nb.types.Array(nb.int32, 1, "C", readonly=True)
LONGS = nb.types.Array(nb.int64, 1, "C", readonly=True)
HASHES = nb.types.Array(nb.uint64, 1, "C", readonly=True)


def simplify_char(char: str) -> tuple[int, str]:
    """Kind of a character and what stands for it in words: case folded, taken apart, without its diacritics."""
    if ord(char) >= TABLE:
        return (ALONE, char) if ord(char) < ASTRAL_HAN else (SEPARATOR, "")
    out = []
    for part in unicodedata.normalize("NFD", char.casefold()):
        category = unicodedata.category(part)
        if category == "Mn" and unicodedata.combining(part) >= 10:  # accents; viramas, nuktas and vowel signs are below
            continue
        if category[0] in "LM" or category == "Nd":
            out.append(part)
    if not out:
        return (DROPPED if unicodedata.category(char) in ("Mn", "Me", "Cf") else SEPARATOR), ""
    text = unicodedata.normalize("NFC", "".join(out))
    if unicodedata.category(char) == "Nd":
        return DIGIT, text
    code = ord(char)
    if any(first <= code <= last for first, last in _UNSPACED):
        return ALONE, text
    return LETTER, text


@cache
def tables() -> tuple[Array, Array, Array]:
    """Kind (uint8) and replacement (int32) of each code point below TABLE, and sequences (int32).

    Where the kind is SEVERAL, the replacement is the place in sequences of a count and so many code points.
    """
    kinds, single, more = kept_arrays(__name__, _tables)
    return kinds, single, more


def _tables() -> tuple[Array, Array, Array]:
    kinds = np.zeros(TABLE, np.uint8)
    single = np.arange(TABLE, dtype=np.int32)
    more: list[int] = []
    kinds[0x3400:0x4DC0] = kinds[0x4E00:0xA000] = ALONE  # letters without case or accents, no need to look at each
    kinds[0xAC00:0xD7A4] = LETTER
    for code in (*range(0x3400), *range(0xA000, 0xAC00), *range(0xF900, TABLE)):
        kind, text = simplify_char(chr(code))
        kinds[code] = kind
        if len(text) == 1:
            single[code] = ord(text)
        elif text:
            kinds[code] = SEVERAL
            single[code] = len(more)
            more += [len(text), *map(ord, text)]
    return kinds, single, np.array(more, np.int32)


@nb.njit(nb.uint64(nb.uint64), cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def mix(x: Any) -> Any:
    """The last step of SplitMix64 (Steele, Lea and Flood 2014): spreads every bit over all."""
    x = (x ^ (x >> _S30)) * _MIX_1
    x = (x ^ (x >> _S27)) * _MIX_2
    return x ^ (x >> _S31)


@nb.njit(nb.boolean(BYTES, nb.int64, BYTES), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _is_digit(data: Any, p: Any, kinds: Any) -> Any:
    """Whether the character at a byte is a digit. Digits beyond the table (mathematical ones) do not go on after a point."""
    byte = data[p]
    if byte < 128:
        return 48 <= byte <= 57
    if byte < 224:
        return kinds[(nb.int64(byte & 31) << 6) | nb.int64(data[p + 1] & 63)] == DIGIT
    if byte < 240:
        code = (nb.int64(byte & 15) << 12) | (nb.int64(data[p + 1] & 63) << 6) | nb.int64(data[p + 2] & 63)
        return kinds[code] == DIGIT
    return False


@nb.njit(
    nb.types.UniTuple(nb.int64, 3)(
        BYTES, nb.int64, nb.int64, BYTES, INTS, INTS,
        nb.uint64[::1], nb.uint64[::1], nb.int64[::1], nb.int64[::1], nb.int32[::1], nb.int64[::1], nb.int64[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def split_words(
    data: Any, low: Any, high: Any, kinds: Any, single: Any, more: Any,
    coarse: Any, fine: Any, starts: Any, ends: Any, norm: Any, line_ends: Any, line_words: Any,
) -> Any:  # fmt: skip
    """Words and lines of one text.

    Args:
        data: UTF-8, (bytes,).
        low, high: where the text stands in it.
        kinds, single, more: ``tables()``.
        coarse: out, (words,): hash of each word, number runs as 0.
        fine: out, (words,): the same with the digits as they are.
        starts, ends: out, (words,): bytes of data.
        norm: out, (2 * bytes + 2,): the words' code points, digits as they are, a space after each.
        line_ends: out, (bytes + 1,): byte after each line (its "\\n" included).
        line_words: out, (bytes + 1,): words up to there.

    Returns:
        Numbers of words, of code points in norm, and of lines.
    """
    n, out, lines, p = 0, 0, 0, low
    inside, in_number, had_point = False, False, False
    h0, h1 = SEED, SEED
    while p < high:
        begin = p
        byte = data[p]
        if byte < 128:
            code = nb.int64(byte)
            p += 1
        elif byte < 224:
            code = (nb.int64(byte & 31) << 6) | nb.int64(data[p + 1] & 63)
            p += 2
        elif byte < 240:
            code = (nb.int64(byte & 15) << 12) | (nb.int64(data[p + 1] & 63) << 6) | nb.int64(data[p + 2] & 63)
            p += 3
        else:
            code = (
                (nb.int64(byte & 7) << 18)
                | (nb.int64(data[p + 1] & 63) << 12)
                | (nb.int64(data[p + 2] & 63) << 6)
                | nb.int64(data[p + 3] & 63)
            )
            p += 4
        if code < TABLE:
            kind = nb.int64(kinds[code])
            value = nb.int64(single[code])
        else:
            kind = ALONE if code < ASTRAL_HAN else SEPARATOR
            value = code
        if kind == DROPPED:
            continue
        if kind == SEPARATOR and in_number and not had_point and p < high:
            # A point between digits belongs to the number; the digit after it is looked up only when there is a point.
            point = code in (46, 44, 0x60C, 0x66B, 0x2396, 0x2397, 0x2398)
            if point and _is_digit(data, p, kinds):
                had_point = True
                h1 = (h1 ^ nb.uint64(code)) * PRIME
                norm[out] = code
                out += 1
                continue
        if inside and kind in (SEPARATOR, ALONE):
            coarse[n], fine[n], ends[n] = mix(h0), mix(h1), begin
            n += 1
            norm[out] = 32
            out += 1
            inside = in_number = False
        if kind != SEPARATOR:
            if not inside:
                inside, in_number, had_point = True, False, False
                starts[n] = begin
                h0 = h1 = SEED
            if kind == DIGIT:
                if not in_number:
                    h0 = (h0 ^ nb.uint64(48)) * PRIME
                    in_number, had_point = True, False
                h1 = (h1 ^ nb.uint64(value)) * PRIME
                norm[out] = value
                out += 1
            else:
                in_number = False
                first, last = nb.int64(0), nb.int64(1)
                if kind == SEVERAL:
                    first, last = value + 1, value + 1 + nb.int64(more[value])
                for i in range(first, last):
                    if kind == SEVERAL:
                        value = nb.int64(more[i])
                    h0 = (h0 ^ nb.uint64(value)) * PRIME
                    h1 = (h1 ^ nb.uint64(value)) * PRIME
                    norm[out] = value
                    out += 1
            if kind == ALONE:
                coarse[n], fine[n], ends[n] = mix(h0), mix(h1), p
                n += 1
                norm[out] = 32
                out += 1
                inside = in_number = False
        if code == 10:
            line_ends[lines], line_words[lines] = p, n
            lines += 1
    if inside:
        coarse[n], fine[n], ends[n] = mix(h0), mix(h1), high
        n += 1
        norm[out] = 32
        out += 1
    if lines == 0 or line_ends[lines - 1] < high:
        line_ends[lines], line_words[lines] = high, n
        lines += 1
    return n, out, lines


def buffers(text: pa.LargeStringArray) -> tuple[Array, Array]:
    """The bytes (uint8) and offsets (n + 1, int64) of a text column; nulls are empty."""
    if text.null_count:
        text = text.fill_null("")
    raw = text.buffers()
    if raw[1] is None or not len(text):
        return np.zeros(1, np.uint8), np.zeros(len(text) + 1, np.int64)
    offsets = np.frombuffer(raw[1], np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(raw[2], np.uint8) if raw[2] is not None and raw[2].size else np.zeros(1, np.uint8)
    return data, np.ascontiguousarray(offsets)


class Scratch:
    """Room for the words of texts of up to so many bytes, and the words of the last text that was split."""

    def __init__(self, longest: int) -> None:
        words, size = longest // 2 + 2, longest + 2
        self.coarse, self.fine = np.empty(words, np.uint64), np.empty(words, np.uint64)
        self.starts, self.ends = np.empty(words, np.int64), np.empty(words, np.int64)
        self.norm = np.empty(2 * size, np.int32)
        self.line_ends, self.line_words = np.empty(size, np.int64), np.empty(size, np.int64)

    @property
    def arrays(self) -> tuple[Array, ...]:
        """In the order that ``split_words`` takes them."""
        return (self.coarse, self.fine, self.starts, self.ends, self.norm, self.line_ends, self.line_words)

    def split(self, data: Array, low: int, high: int) -> tuple[int, int, int]:
        """Numbers of words, code points and lines of a text; they stand in the arrays."""
        found: tuple[int, int, int] = split_words(data, low, high, *tables(), *self.arrays)
        return found
