"""Where personal data may stand: one pass over the bytes of a part, which leaves to Python only the few regions worth a closer look.

A region is bounded where no pattern of its class can cross, and none is left out that `find.find_all` would find something in:
searching the regions gives exactly what searching the whole text gives (tests hold that).
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import pyarrow as pa
from numba import njit

from gptwright.corpus.privacy.bytewise import CLASSES, DIGIT, ENDS_URL, EVENT, HEX, LETTER, MAIL, UPPER, packed
from gptwright.corpus.privacy.find import ASSIGNED, AT, COLONS, HOUSE, PEM, TOKEN, URL
from gptwright.corpus.privacy.numbers import number_run
from gptwright.corpus.privacy.street_words import street_words
from gptwright.corpus.signals.jit import version

# Beginnings of keys that are one long word, and of those whose first word ends at a hyphen or full stop.
_LONG = packed((
    "AKIA", "ASIA", "ABIA", "ACCA", "ghp_", "gho_", "ghu_", "ghs_", "ghr_", "github_", "sk_live", "sk_test", "rk_live", "rk_test",
    "whsec_", "AIza", "npm_", "hf_", "eyJ", "dop_v1_", "doo_v1_", "dor_v1_", "shpat_", "shpca_", "shppa_", "shpss_", "dapi",
))  # fmt: skip
_SHORT = packed(("gl", "xox", "xapp-", "sk-", "GOCSPX-", "ya29.", "pypi-", "SG.", "AGE-", "eyJ"))
_NAMES = packed((
    "passw", "passph", "passp", "passwd", "pwd", "kennw", "contr", "mot de", "wacht", "senha", "secret", "token", "api", "access",
    "privat", "auth", "client", "creden", "bearer",
))  # fmt: skip


@dataclass(frozen=True)
class Regions:
    """Candidates in the order of their rows: characters ``start`` to ``end`` of a row's text, and the class: one bit of `find`, for
    numbers with bits of what they may be."""

    row: npt.NDArray[np.int64]
    start: npt.NDArray[np.int64]
    end: npt.NDArray[np.int64]
    bit: npt.NDArray[np.int64]


def find_regions(text: pa.LargeStringArray) -> Regions:
    """Find the regions of texts that may hold personal data.

    Args:
        text: any texts; nulls hold nothing.

    Returns:
        The candidates, in order of rows.
    """
    if not len(text):
        empty = np.zeros(0, np.int64)
        return Regions(empty, empty, empty, empty)
    _, offset_buffer, data_buffer = text.buffers()
    offsets = np.frombuffer(offset_buffer, np.int64)[text.offset : text.offset + len(text) + 1]
    data = np.frombuffer(data_buffer, np.uint8) if data_buffer is not None else np.zeros(0, np.uint8)
    words = (
        street_words()
    )  # handed in: a compiled kernel keeps what it saw as a global, even when another file changes it
    capacity, row, found = 1 << 14, 0, []
    while row < len(text):
        out = np.empty((capacity, 4), np.int64)
        n, next_row = _kernel(data, offsets, row, out, words)
        found.append(out[:n].copy())
        if next_row == row:  # one text alone overflows the table
            capacity *= 4
        row = next_row
    table = np.concatenate(found)
    return Regions(*(np.ascontiguousarray(table[:, at]) for at in range(4)))


@njit(nogil=True)
def _scan(data, offsets, first, out, words):  # type: ignore[no-untyped-def]
    """Fill ``out`` (row, start, end, bit) from row ``first``. Returns rows filled and the row to go on from: whole texts only."""
    n = 0
    for row in range(first, offsets.size - 1):
        begin, end = offsets[row], offsets[row + 1]
        mark = n
        seen_byte, seen_char = begin, 0  # a place whose character number is known
        run_end = mail_end = hex_end = begin
        word = begin  # where the word of letters, digits and "_" that reaches to i began
        i = begin
        while i <= end:
            byte = data[i] if i < end else 0
            bits = CLASSES[byte]
            if not bits & EVENT:
                i += 1
                continue
            start, stop, bit = i, i + 1, 0
            if bits & DIGIT:
                if i >= run_end:
                    start, run_end, bit = number_run(data, i, begin, end)
                    if bit:
                        stop = run_end
                if n < out.shape[0] and bit:
                    n, seen_byte, seen_char = _put(data, out, n, row, start, stop, bit, seen_byte, seen_char)
                if i == begin or not CLASSES[data[i - 1]] & DIGIT:
                    j = i
                    while j < end and CLASSES[data[j]] & DIGIT:
                        j += 1
                    if j - i <= 5 and n < out.shape[0] and _is_house(data, i, j, begin, end, words):
                        n, seen_byte, seen_char = _put(data, out, n, row, i, i + 1, HOUSE, seen_byte, seen_char)
                    i = j  # the digits of one group are looked at once
                    if n >= out.shape[0]:
                        return mark, row
                    continue
            elif byte != 95:  # "_" goes on with the word
                length = i - word
                short = (byte == 45 or byte == 46) and length >= 2  # ends at - or .
                if (length >= 16 and _begins(data, word, end, _LONG)) or (short and _begins(data, word, end, _SHORT)):
                    start, stop, bit = word, word + 1, TOKEN
                if bit and n < out.shape[0]:
                    n, seen_byte, seen_char = _put(data, out, n, row, start, stop, bit, seen_byte, seen_char)
                bit = 0
                word = i + 1
                if byte == 64 and i >= mail_end:  # @
                    start, mail_end = _stretch(data, i, begin, end, MAIL)
                    stop, bit = mail_end, AT
                elif byte == 45:  # -
                    if (
                        i + 11 <= end
                        and data[i + 5] == 66
                        and data[i + 10] == 32
                        and data[i + 4] == 45
                        and data[i + 1] == 45
                    ):
                        start, stop, bit = i, i + 1, PEM
                elif byte == 58:  # :
                    if i >= hex_end:
                        start, hex_end = _stretch(data, i, begin, end, HEX)
                        if _is_v6(data, start, hex_end):
                            stop = hex_end
                            if n < out.shape[0]:
                                n, seen_byte, seen_char = _put(
                                    data, out, n, row, start, stop, COLONS, seen_byte, seen_char
                                )
                    if i + 2 < end and data[i + 1] == 47 and data[i + 2] == 47:
                        if _has_login(data, i + 3, end):
                            start, stop, bit = i, i + 1, URL
                    elif _is_named(data, i, begin):
                        start, stop, bit = i, i + 1, ASSIGNED
                elif byte == 61 and _is_named(data, i, begin):  # =
                    start, stop, bit = i, i + 1, ASSIGNED
                if bit and n < out.shape[0]:
                    n, seen_byte, seen_char = _put(data, out, n, row, start, stop, bit, seen_byte, seen_char)
            if n >= out.shape[0]:
                return mark, row
            i += 1
    return n, offsets.size - 1


def _compile(version: int) -> Callable[..., tuple[int, int]]:
    """The kernel that is kept on disk. It is known by ``version``, since numba would look at this file alone and not at those of its parts."""

    @njit(cache=True, nogil=True)
    def scan(data, offsets, first, out, words):  # type: ignore[no-untyped-def]
        return _scan(data, offsets, first, out, words) if version >= 0 else (0, first)

    return scan  # type: ignore[no-any-return]


_kernel = _compile(version(__file__))


@njit(nogil=True)
def _put(data, out, n, row, start, stop, bit, seen_byte, seen_char):  # type: ignore[no-untyped-def]
    """Write a region in characters. Returns the next free row, and ``start`` as bytes and characters."""
    char = seen_char
    for at in range(seen_byte, start):
        char += (data[at] & 0xC0) != 0x80
    for at in range(start, seen_byte):
        char -= (data[at] & 0xC0) != 0x80
    length = 0
    for at in range(start, stop):
        length += (data[at] & 0xC0) != 0x80
    out[n, 0], out[n, 1], out[n, 2], out[n, 3] = row, char, char + length, bit
    return n + 1, start, char


@njit(nogil=True)
def _stretch(data, at, begin, end, bit):  # type: ignore[no-untyped-def]
    """The longest stretch of bytes of a class around a place."""
    start, stop = at, at + 1
    while start > begin and CLASSES[data[start - 1]] & bit:
        start -= 1
    while stop < end and CLASSES[data[stop]] & bit:
        stop += 1
    return start, stop


@njit(nogil=True)
def _is_v6(data, start, stop):  # type: ignore[no-untyped-def]
    colons = pairs = digits = 0
    for at in range(start, stop):
        if data[at] == 58:
            colons += 1
            pairs += at + 1 < stop and data[at + 1] == 58
        digits += (CLASSES[data[at]] & DIGIT) != 0
    return digits > 0 and (pairs > 0 or colons >= 6)


@njit(nogil=True)
def _has_login(data, at, end):  # type: ignore[no-untyped-def]
    """Whether an @ stands before the end of a URL's authority (64 + 128 characters of up to four bytes)."""
    for i in range(at, min(end, at + 800)):
        if data[i] == 64:
            return True
        if CLASSES[data[i]] & ENDS_URL:
            return False
    return False


@njit(nogil=True)
def _begins(data, at, end, beginnings):  # type: ignore[no-untyped-def]
    for word in beginnings:
        length = word & 255
        if at + length <= end:
            rest, same = word >> 8, True
            for i in range(length):
                if data[at + i] != rest & 255:
                    same = False
                    break
                rest >>= 8
            if same:
                return True
    return False


@njit(nogil=True)
def _is_named(data, mark, begin):  # type: ignore[no-untyped-def]
    """Whether a name such as password stands shortly before ``=`` or ``:``, in any case of its letters."""
    for at in range(mark - 1, max(begin, mark - 46) - 1, -1):
        byte = data[at]
        if byte == 10:
            return False
        lower = byte | 32 if CLASSES[byte] & UPPER else byte
        for word in _NAMES:
            if (word >> 8) & 255 != lower:
                continue
            length, rest, same = word & 255, word >> 16, True
            if at + length > mark:
                continue
            for i in range(1, length):
                other = data[at + i]
                if (other | 32 if CLASSES[other] & UPPER else other) != rest & 255:
                    same = False
                    break
                rest >>= 8
            if same:
                return True
    return False


@njit(nogil=True)
def _letter_at(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a Latin letter begins here: ASCII, or one of the two bytes of U+00C0 to U+02FF."""
    return (CLASSES[data[at]] & LETTER and data[at] < 128) or (0xC3 <= data[at] <= 0xCB and at + 1 < end)


@njit(nogil=True)
def _letter_before(data, at, begin):  # type: ignore[no-untyped-def]
    """Whether a Latin letter ends here."""
    if data[at] < 128:
        return (CLASSES[data[at]] & LETTER) != 0
    return data[at] < 0xC0 and at - 1 >= begin and 0xC3 <= data[at - 1] <= 0xCB


@njit(nogil=True)
def _word_hash(data, start, stop):  # type: ignore[no-untyped-def]
    value = np.int64(2166136261)
    for at in range(start, stop):
        byte = data[at]
        value = ((value ^ (byte | 32 if CLASSES[byte] & UPPER else byte)) * 16777619) & 0xFFFFFFFF
    return value


@njit(nogil=True)
def _in_bag(value, table):  # type: ignore[no-untyped-def]
    at = value & 255
    while table[at] != 0:
        if table[at] == value:
            return True
        at = (at + 1) & 255
    return False


@njit(nogil=True)
def _is_house(data, start, stop, begin, end, tables):  # type: ignore[no-untyped-def]
    """Whether a number may be a house's: a street's word follows capitalised words after it, or ends or begins what is before it."""
    after, french, bis, before, endings = tables
    at, last, words = stop, min(end, stop + 128), 0
    loose = True  # a word that goes on after ' . or - need not be capitalised
    while at < last:
        byte = data[at]
        if CLASSES[byte] & DIGIT or _letter_at(data, at, end):
            head = at
            while at < last and (CLASSES[data[at]] & DIGIT or _letter_at(data, at, end)):
                at += 1 + (data[at] >= 128)
            value = _word_hash(data, head, at)
            if words == 0 and (at - head == 1 or _in_bag(value, bis)):
                loose = True
                continue  # 12 b, 12 bis
            if head == stop:
                break  # 21st
            if words == 0 and _in_bag(value, french):
                return True
            if words > 0 and _in_bag(value, after):
                return True
            if not loose and CLASSES[byte] & LETTER and byte < 128 and not CLASSES[byte] & UPPER:
                break
            if words == 0 and byte < 128 and not CLASSES[byte] & (UPPER | DIGIT):
                break
            loose = False
            words += 1
        elif byte == 32 or byte == 44 or byte == 39 or byte == 45 or byte == 46:  # space , ' - .
            loose = byte != 32
            at += 1
        elif byte == 0xE2 and at + 2 < end and data[at + 1] == 0x80 and data[at + 2] == 0x99:  # ’
            loose = True
            at += 3
        else:
            break
    if start == begin:
        return False
    byte = data[start - 1]
    if not (byte == 32 or byte == 0xBA or byte == 111 or byte == 46 or byte == 47):  # space º o . /
        return False
    at = start - 2 if start - 2 >= begin and data[start - 2] == 46 else start - 1
    if byte == 32:
        for n in range(endings.shape[0]):
            length = np.int64(endings[n, 0])
            if at - length >= begin:
                same = True
                for i in range(length):
                    other = data[at - length + i]
                    if (other | 32 if CLASSES[other] & UPPER else other) != endings[n, 1 + i]:
                        same = False
                        break
                if same:
                    return True
    at, first = start - 1, max(begin, start - 150)
    while at >= first and data[at] != 10:
        if _letter_before(data, at, begin):
            tail = at + 1
            while at >= first and _letter_before(data, at, begin):
                at -= 1 + (data[at] >= 128)
            if _in_bag(_word_hash(data, at + 1, tail), before):
                return True
        else:
            if data[at] == 47 and at > first and (data[at - 1] | 32) == 99:  # c/
                return True
            at -= 1
    return False
