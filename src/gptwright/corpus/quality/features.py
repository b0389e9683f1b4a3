"""What a text classifier sees of a text: hashed words, pairs of words, and runs of characters. One kernel for training and for scoring.

Words are lower case; a run of digits is one sign, every punctuation mark is one, and so are the end of a line and a blank line: a text
that is glued over its line ends would teach words that nobody wrote. Each letter of a script without spaces is a word.
"""

from typing import Any

import numba as nb
import numpy as np

from gptwright.corpus.decontaminate import words as w

_PRIME = np.uint64(0x100000001B3)
_SEED = np.uint64(0xCBF29CE484222325)
_PAIR = np.uint64(0x9E3779B97F4A7C15)
_CHARS = np.uint64(0xD6E8FEB86659FD93)


def room(longest: int) -> w.U64:
    """Scratch for the features of a text of so many bytes."""
    return np.empty(3 * longest + 8, np.uint64)


@nb.njit(
    nb.int64(
        nb.uint8[::1], nb.int64, nb.int64, nb.uint8[::1], nb.int32[::1], nb.int64, nb.uint64, nb.uint64[::1]
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def extract(data: Any, low: Any, high: Any, kinds: Any, lower: Any, chars: Any, mask: Any, out: Any) -> Any:
    """Features of one text.

    Args:
        data: UTF-8, (bytes,).
        low, high: where the text stands in it.
        kinds, lower: ``words.tables()``.
        chars: bytes in a run of characters; 0 for none.
        mask: number of buckets minus 1; a power of two.
        out: at least 3 * bytes + 8; gets the buckets, with repetitions.

    Returns:
        The number of features.
    """
    n, p = 0, low
    before = np.uint64(0)
    h = _SEED
    inside = False
    newlines = 0
    while p <= high:
        kind, small = w.SPACE, nb.int64(0)
        if p < high:
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
            small = cp
            kind = w.ALONE
            if cp < w.TABLE:
                kind = nb.int64(kinds[cp])
                small = nb.int64(lower[cp])
        else:
            p += 1
        if kind == w.DIGIT:
            small = 48
            if inside and h == (_SEED ^ nb.uint64(48)) * _PRIME:
                continue  # a longer number looks like a shorter one
        joins = kind in (w.LETTER, w.DIGIT)
        if inside and not joins:
            word = w.mix(h)
            out[n] = word & mask
            out[n + 1] = w.mix(word ^ (before * _PAIR)) & mask
            n += 2
            before = word
            inside = False
        if joins:
            if not inside:
                h = _SEED
                inside = True
            h = (h ^ nb.uint64(small)) * _PRIME
        elif kind == w.NEWLINE:
            newlines += 1
            if newlines > 2:
                continue
        if kind not in (w.SPACE, w.NEWLINE):
            newlines = 0
        if kind in (w.OTHER, w.ALONE, w.NEWLINE):
            word = w.mix((_SEED ^ nb.uint64(small)) * _PRIME + nb.uint64(newlines))
            out[n] = word & mask
            out[n + 1] = w.mix(word ^ (before * _PAIR)) & mask
            n += 2
            before = word
    if chars > 0:
        run = np.uint64(0)
        keep = (nb.uint64(1) << nb.uint64(8 * chars)) - nb.uint64(1) if chars < 8 else nb.uint64(0xFFFFFFFFFFFFFFFF)
        for i in range(low, high):
            run = ((run << nb.uint64(8)) | nb.uint64(data[i])) & keep
            if i - low + 1 >= chars:
                out[n] = w.mix(run * _CHARS) & mask
                n += 1
    return n
