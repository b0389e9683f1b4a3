"""Runs of digits and what stands between them: which numbers of a person may be in one, by the number and the grouping of its digits.

Every condition is one that the pattern of its kind needs: what is turned away here, no pattern would have found.
"""

from numba import njit

from gptwright.corpus.privacy.bytewise import CLASSES, DIGIT, LETTER, RUN, UPPER, packed
from gptwright.corpus.privacy.find import NUMBER

# Beside the class NUMBER: what the run has enough digits, capitals and full stops for, in groups that such a number has.
MAY_BE_IBAN, MAY_BE_CARD, MAY_BE_V4, MAY_BE_PHONE, MAY_BE_ID = (1 << n for n in range(8, 13))
# How the words begin that announce a phone number, with the letters that a pattern without regard to case takes for i and s.
_PHONE_BEGINNINGS = (
    "phone", "tel", "té", "tÉ", "call", "text", "cell", "mob", "mó", "mÓ", "what", "fax", "num", "nú", "nÚ", "reach", "sm", "ſm", "hotl", "dial",
    "dıal", "ring", "rıng", "handy", "anruf", "rufen", "errei", "erreı", "durchw", "rufnum", "appel", "joi", "joı", "ll", "chi", "chı", "bel",
    "lig", "lıg",
)  # fmt: skip
_PHONE_WORDS = packed(_PHONE_BEGINNINGS)
_FIRST_LETTERS = sum(1 << ord(letter) - 97 for letter in {word[0] for word in _PHONE_BEGINNINGS} if letter.isascii())


@njit(nogil=True)
def number_run(data, at, begin, end):  # type: ignore[no-untyped-def]
    """The run of digits, capitals and separators around a digit, and what numbers of a person may be in it, as bits; 0 for none."""
    start, stop = at, at
    digits = dots = capitals = 0
    chain = longest = gap = 0  # digits with at most three separators between two of them, as phone numbers are written
    close = closest = apart = 0  # digits with at most one character between two of them, as identity numbers are
    group = before = 0  # lengths of the groups of digits in this chain: the last, and the three before it as decimals
    opened = 0  # digits in this chain since one that a country's or a long-distance code begins with
    phone = False
    while start > begin:
        byte = data[start - 1]
        if CLASSES[byte] & RUN:
            capitals += (CLASSES[byte] & UPPER) != 0
            start -= 1
        elif byte == 0xA0 and start - 2 >= begin and data[start - 2] == 0xC2:  # no-break space
            start -= 2
        elif (
            0x90 <= byte <= 0x93 and start - 3 >= begin and data[start - 2] == 0x80 and data[start - 3] == 0xE2
        ):  # dashes
            start -= 3
        else:
            break
    own_line = start == begin or data[start - 1] == 10 or at - start >= 32
    while stop < end:
        byte = data[stop]
        if CLASSES[byte] & DIGIT:
            digits += 1
            if apart or not group:
                if gap <= 3:
                    before = (before * 100 + min(group, 99)) % 1000000
                else:
                    before = chain = opened = 0
                group = 0
                opened += opened == 0 and _opens_phone(data, stop, begin)
            group += 1
            chain += 1
            opened += opened > 0
            close = close + 1 if apart <= 1 else 1
            longest, closest, gap, apart = max(longest, chain), max(closest, close), 0, 0
            stop += 1
            if stop == end or not CLASSES[data[stop]] & DIGIT:
                phone |= (opened > 7 or _is_american(before, group, own_line and digits == group)) and _may_end_phone(
                    data, stop, end
                )
            continue
        wide = 1
        if not CLASSES[byte] & RUN:
            if byte == 0xC2 and stop + 1 < end and data[stop + 1] == 0xA0:
                wide = 2
            elif byte == 0xE2 and stop + 2 < end and data[stop + 1] == 0x80 and 0x90 <= data[stop + 2] <= 0x93:
                wide = 3
            else:
                break
        upper = (CLASSES[byte] & UPPER) != 0
        capitals += upper
        dots += byte == 46
        gap = 4 if upper or byte == 43 else gap + 1
        apart += 1
        stop += wide
    what = 0
    if digits >= 7 or (digits >= 6 and capitals >= 3) or (digits >= 4 and (dots >= 3 or capitals >= 6)):
        # What the shapes ask for at the least: most runs have none of it, and the others need not be looked at for each.
        what |= MAY_BE_IBAN * (capitals >= 2 and digits >= 4)
        what |= MAY_BE_CARD * (closest >= 13)
        what |= MAY_BE_V4 * (dots >= 3)
        what |= MAY_BE_ID * (
            closest >= 9 or (closest == 8 and dots >= 2) or (closest >= 7 and capitals >= 1) or capitals >= 3
        )
        if longest >= 7:
            what |= MAY_BE_PHONE * (phone or _has_phone_word(data, max(begin, start - 80), stop, begin))
    return start, stop, what | NUMBER if what else 0


@njit(nogil=True)
def _opens_phone(data, at, begin):  # type: ignore[no-untyped-def]
    """Whether a phone number that needs no other sign begins at this digit: with a plus, or with a zero."""
    if at == begin:
        return data[at] == 48
    first = at - 1 if data[at - 1] != 40 or at - 1 == begin else at - 2  # an opening bracket aside
    if data[first] == 43 and (first == begin or not _joins(data[first - 1])):
        return True
    return data[at] == 48 and not _joins(data[at - 1])


@njit(nogil=True)
def _joins(byte):  # type: ignore[no-untyped-def]
    """Whether a phone number cannot begin right after this byte."""
    return (CLASSES[byte] & LETTER and byte < 128) or 48 <= byte <= 57 or byte in (44, 46, 47, 35, 64, 45, 95)


@njit(nogil=True)
def _may_end_phone(data, at, end):  # type: ignore[no-untyped-def]
    """Whether a phone number may end before this place."""
    if at == end:
        return True
    byte = data[at]
    if (CLASSES[byte] & LETTER and byte < 128) or byte == 95 or byte == 37:
        return False
    return not (byte in (46, 44, 58) and at + 1 < end and 48 <= data[at + 1] <= 57)


@njit(nogil=True)
def _is_american(before, group, alone):  # type: ignore[no-untyped-def]
    """Whether groups of digits end as numbers of the North American plan are written: 3-3-4, with a 1 before or not, or joined. Ten digits
    in one need a word, which is looked for elsewhere, or a line of their own."""
    if group == 10 or group == 11:
        return alone or (group == 10 and before % 100 == 1)
    last = before % 100
    if group == 7:
        return last == 3 or last == 4
    return group == 4 and (last == 6 or last == 7 or (last == 3 and before // 100 % 100 in (3, 4)))


@njit(nogil=True)
def _has_phone_word(data, start, stop, begin):  # type: ignore[no-untyped-def]
    """Whether a word of `contact._PHONE_WORDS` may begin here."""
    for at in range(start, stop):
        byte = data[at]
        if at > begin and ((CLASSES[data[at - 1]] & LETTER and data[at - 1] < 128) or 48 <= data[at - 1] <= 57):
            continue
        lower = byte | 32 if CLASSES[byte] & UPPER else byte
        if lower != 0xC5 and not (97 <= lower <= 122 and _FIRST_LETTERS >> (lower - 97) & 1):
            continue
        for word in _PHONE_WORDS:
            length, rest, same = word & 255, word >> 8, True
            if at + length > stop:
                continue
            for i in range(length):
                other = data[at + i]
                if (other | 32 if CLASSES[other] & UPPER else other) != rest & 255:
                    same = False
                    break
                rest >>= 8
            if same:
                return True
    return False
