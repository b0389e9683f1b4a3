"""One run of characters without white space cut into words, in two ways: as spaCy's English tokenizer does, and by Unicode's UAX 29.

All functions are kernels over code points: ``cp`` (n,) int32, ``fl`` (n,) uint32 properties of each, positions as int64.
"""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.
# ruff: noqa: SIM109

import numpy as np

from gptwright.corpus.signals.chars import (
    AFFIX,
    ALNUM,
    CONNECTOR,
    CURRENCY,
    EXTEND,
    HOST,
    HYPHEN,
    ICON,
    KATAKANA,
    LETTER,
    MID_BOTH,
    MID_LETTER,
    MID_NUMBER,
    NUMERIC,
    PLAIN_LOWER,
    PLAIN_UPPER,
    PREFIX,
    PUNCT,
    QUOTE,
    SUFFIX,
)
from gptwright.corpus.signals.exceptions import LONGEST, MULTIPLIER, SPECIAL, UNIT
from gptwright.corpus.signals.jit import ZERO, inlined, part

_MULTIPLIER = np.uint64(MULTIPLIER)
_ALPHA = np.uint32(PLAIN_LOWER | PLAIN_UPPER)
_FACE = 7  # characters of the longest face that is looked for inside a run


@inlined
def span_hash(cp, s, e):
    """A hash of code points; ``exceptions.word_hash`` is the same in Python."""
    value = np.uint64(e - s)
    for i in range(s, e):
        value = (value ^ np.uint64(cp[i])) * _MULTIPLIER
        value ^= value >> np.uint64(29)
    return value


@part
def exception_of(cp, s, e, keys, values):
    """What the table of exceptions says of a word; 0 for nothing."""
    if e - s > LONGEST or e <= s:
        return ZERO
    last = np.uint64(cp[e - 1])
    pairs = np.uint64(
        values[
            np.uint64(4096)
            + ((np.uint64(cp[s]) & np.uint64(127)) << np.uint64(1))
            + (last >> np.uint64(6) & np.uint64(1))
        ]
    )
    if pairs >> (last & np.uint64(63)) & np.uint64(1) == 0:
        return ZERO
    key = span_hash(cp, s, e)
    at = np.int64(key & np.uint64(4095))
    while keys[at] != 0:
        if keys[at] == key:
            return values[at]
        at = (at + 1) & 4095
    return ZERO


@inlined
def _digit(c):
    return 48 <= c <= 57


@part
def _prefix(cp, fl, s, e):
    """How many characters come off the front."""
    if s >= e:
        return 0
    c = np.int64(cp[s])
    if c == 46:  # two dots and more
        end = s
        while end < e and cp[end] == 46:
            end += 1
        return end - s if end - s > 1 else 0
    if c == 43:
        return 0 if s + 1 < e and _digit(np.int64(cp[s + 1])) else 1
    if fl[s] & PREFIX:
        return 1
    if c == 85 and s + 2 < e and cp[s + 1] == 83 and cp[s + 2] == 36:  # US$
        return 3
    if (c == 67 or c == 65) and s + 1 < e and cp[s + 1] == 36:  # C$, A$
        return 2
    return 0


@part
def _suffix(cp, fl, s, e, keys, values):
    """How many characters come off the end."""
    if s >= e:
        return 0
    c = np.int64(cp[e - 1])
    before = e - 2 >= s
    p = np.int64(cp[e - 2]) if before else ZERO
    if c == 46:
        start = e
        while start > s and cp[start - 1] == 46:
            start -= 1
        if e - start > 1:
            return e - start
        if not before:
            return 0
        known = fl[e - 2]
        if (
            _digit(p)
            or known & PLAIN_LOWER
            or p in (37, 0xB2, 45, 43)
            or (known & SUFFIX and known & (PUNCT | QUOTE))
            or p == 62
            or p == 60
        ):
            return 1
        if e - 3 >= s and known & PLAIN_UPPER and fl[e - 3] & PLAIN_UPPER:
            return 1
        return 0
    if (c == 115 or c == 83) and before and (p == 39 or p == 0x2019):
        return 2
    for k in range(max(s + 1, e - 4), e):  # a unit after a digit, the longest first
        if _digit(np.int64(cp[k - 1])) and exception_of(cp, k, e, keys, values) & UNIT:
            return e - k
    if before and _digit(p) and (c == 43 or fl[e - 1] & CURRENCY):
        return 1
    if c == 0x2026 and before and p == 0x2026:
        return 2
    if fl[e - 1] & SUFFIX or c == 0x2026:
        return 1
    return 0


@part
def _host(cp, fl, s, e):
    """Whether a host name with a small-letter top domain starts at s, and what follows it may follow it."""
    q = s
    last = s - 1  # the last dot
    while q < e and (fl[q] & HOST or cp[q] == 95 or cp[q] == 45 or cp[q] == 46):
        if cp[q] == 46:
            size = q - last - 1
            if size < 1 or size > 64 or not fl[last + 1] & HOST or not fl[q - 1] & HOST:
                return False
            last = q
        q += 1
    if last < s or not 2 <= q - last - 1 <= 63:
        return False
    for i in range(last + 1, q):
        if not fl[i] & PLAIN_LOWER:
            return False
    if q < e and cp[q] == 58:  # a port
        digits = q + 1
        while digits < e and _digit(np.int64(cp[digits])):
            digits += 1
        if not 2 <= digits - q - 1 <= 5:
            return False
        q = digits
    return q == e or cp[q] in (47, 63, 35)


@part
def is_url(cp, fl, s, e):
    """Whether the characters look like an address as a whole: scheme and login may be missing."""
    dots = False
    for i in range(s, e):
        if cp[i] == 46:
            dots = True
            break
    if not dots:
        return False
    if _host(cp, fl, s, e):
        return True
    scheme = True
    for i in range(s + 1, e):
        if scheme and not (fl[i - 1] & ALNUM or cp[i - 1] in (95, 43, 45, 46)):
            scheme = i - s >= 3 and cp[i - 1] == 58 and cp[i] == 47
            scheme = scheme or (i - s >= 4 and cp[i - 2] == 58 and cp[i - 1] == 47 and cp[i] == 47)
        if cp[i] == 64 and _host(cp, fl, i + 1, e):
            return True
        if scheme and cp[i] == 47 and cp[i - 1] == 47 and cp[i - 2] == 58 and i - s >= 4 and _host(cp, fl, i + 1, e):
            return True
    return False


@part
def _infix(cp, fl, s, e, i):
    """How many characters at i, inside the word, stand as a token of their own."""
    c = cp[i]
    if c == 46:
        end = i
        while end < e and cp[end] == 46:
            end += 1
        if end - i > 1:
            return end - i
        if i > s and i + 1 < e and fl[i - 1] & (PLAIN_LOWER | QUOTE) and fl[i + 1] & (PLAIN_UPPER | QUOTE):
            return 1
        return 0
    if fl[i] & ICON:
        return 1
    if i == s or i + 1 >= e:
        return 0
    left, right = np.int64(cp[i - 1]), np.int64(cp[i + 1])
    if c in (43, 45, 42, 94) and _digit(left) and (_digit(right) or right == 45):
        return 1
    follows = fl[i - 1] & _ALPHA or _digit(left)
    if c == 44:
        return 1 if fl[i - 1] & _ALPHA and fl[i + 1] & _ALPHA else 0
    if fl[i] & HYPHEN:
        if not follows:
            return 0
        end = i + 1
        if fl[end] & _ALPHA:
            return 1
        if c == 45 or c == 0x2014:
            most = 3 if c == 45 else 2
            while end < e and end - i < most and cp[end] == c:
                end += 1
                if end < e and fl[end] & _ALPHA:
                    return end - i
        return 0
    if c in (58, 60, 62, 61, 47):
        return 1 if follows and fl[i + 1] & _ALPHA else 0
    return 0


@inlined
def _put(starts, n, s, mark):
    """A word at s; where an exception cuts it, its parts."""
    starts[n] = s
    n += 1
    cuts = mark & (SPECIAL - 1) if mark & SPECIAL else 0
    at = 0
    while cuts:
        if cuts & 1:
            starts[n] = s + at
            n += 1
        cuts >>= 1
        at += 1
    return n


@part
def spacy_words(cp, fl, s, e, keys, values, starts):
    """Cut a run as spaCy does: exceptions, then affixes from both ends, then infixes; faces of punctuation stay whole.

    Args:
        s, e: the run.
        keys, values: ``exceptions.table()``.
        starts: filled with where words start, in order; room for one a character and one more.

    Returns:
        How many words; ``starts`` at that place is e.
    """
    union = np.uint32(0)
    for i in range(s, e):
        union |= fl[i]
    mark = exception_of(cp, s, e, keys, values)
    n = ZERO
    if mark & SPECIAL or not union & AFFIX:
        n = _put(starts, ZERO, s, mark)
        if not mark & SPECIAL:
            cut = _suffix(cp, fl, s, e, keys, values)  # a unit after digits is the only thing left to take off
            if 0 < cut < e - s:
                starts[1] = e - cut
                n = 2
        starts[n] = e
        return n
    # Words before the core are written from the front, those after it from the back of the same row, then moved together.
    a, b = s, e
    back = e - s + 1
    size = -1
    while a < b and b - a != size:
        mark = exception_of(cp, a, b, keys, values)
        if mark & SPECIAL:
            break
        size = b - a
        front = _prefix(cp, fl, a, b)
        if front and front < size and exception_of(cp, a + front, b, keys, values) & SPECIAL:
            starts[n] = a
            n += 1
            a += front
            mark = exception_of(cp, a, b, keys, values)
            break
        end = _suffix(cp, fl, a + front, b, keys, values)
        if end and end < size and exception_of(cp, a, b - end, keys, values) & SPECIAL:
            b -= end
            back -= 1
            starts[back] = b
            mark = exception_of(cp, a, b, keys, values)
            break
        if front:
            starts[n] = a
            n += 1
            a += front
        if end:
            b -= end
            back -= 1
            starts[back] = b
    if a < b:
        if mark & SPECIAL:
            n = _put(starts, n, a, mark)
        elif is_url(cp, fl, a, b):
            starts[n] = a
            n += 1
        else:
            word, i = a, a
            while i < b:
                size = _infix(cp, fl, a, b, i)
                if size == 0 or i == a:
                    i += max(size, 1)
                    continue
                if i > word:
                    n = _put(starts, n, word, ZERO)
                starts[n] = i
                n += 1
                i += size
                word = i
            if word < b:
                n = _put(starts, n, word, ZERO)
    while back < e - s + 1:
        starts[n] = starts[back]
        n += 1
        back += 1
    starts[n] = e
    return _faces(cp, fl, keys, values, starts, n)


@part
def _faces(cp, fl, keys, values, starts, n):
    """Put neighbours together again that make an exception kept whole, the longest first from the left."""
    kept, i = 0, 0
    end = starts[n]
    while i < n:
        step = 1
        for j in range(min(n, i + _FACE), i + 1, -1):
            if starts[j] - starts[i] <= _FACE:
                mark = exception_of(cp, starts[i], starts[j], keys, values)
                if mark & SPECIAL and not mark & (SPECIAL - 1):
                    step = j - i
                    break
        starts[kept] = starts[i]
        kept += 1
        i += step
    starts[kept] = end
    return kept


@inlined
def unicode_word(cp, wb, s, e):
    """Where the word that starts at s ends, by the rules WB3c-WB13 of UAX 29 (a letter of a script without spaces is a word).

    Args:
        wb: classes of ``chars.word_classes()``, (n,) uint8.
        e: end of the run, which holds no white space.
    """
    last = wb[s]
    i = s + 1
    while i < e:
        kind = wb[i]
        if kind == EXTEND:
            i += 1
            continue
        word, number = last == LETTER, last == NUMERIC
        if (word or number) and (kind == LETTER or kind == NUMERIC):
            last = kind
            i += 1
            continue
        if kind == CONNECTOR and (word or number or last == KATAKANA or last == CONNECTOR):
            last = kind
            i += 1
            continue
        if last == CONNECTOR and (kind == LETTER or kind == NUMERIC or kind == KATAKANA):
            last = kind
            i += 1
            continue
        if last == KATAKANA and kind == KATAKANA:
            i += 1
            continue
        if (word and (kind == MID_LETTER or kind == MID_BOTH)) or (number and (kind == MID_NUMBER or kind == MID_BOTH)):
            j = i + 1
            while j < e and wb[j] == EXTEND:
                j += 1
            if j < e and wb[j] == last:
                i = j + 1
                continue
        return i
    return e
