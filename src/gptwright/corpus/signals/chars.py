"""What every character is, as tables over code points: one bit a property, one small number a class.

The properties are those of the running Python's unicodedata; sets of punctuation follow Unicode's Sentence_Terminal property and the
lists that datatrove 0.10 and spaCy 3.8 use, so that rules named after them see the characters that they see.
"""

import string
import unicodedata
from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt

from gptwright.core.arrays import kept_arrays

ALPHA, ALNUM, DECIMAL, DIGIT, SPACE, UPPER, LOWER, PUNCT = (1 << i for i in range(8))
SYMBOL = 1 << 8  # datatrove's punctuation: words of nothing else are no words
TERMINAL = 1 << 9  # ends a line, for datatrove
SENTENCE = 1 << 10  # ends a sentence, for spaCy's sentencizer
BREAK = 1 << 11  # str.splitlines breaks here
PREFIX = 1 << 12  # spaCy takes it off the front of a word
SUFFIX = 1 << 13  # and off its end
ICON = 1 << 14  # and out of its middle
QUOTE = 1 << 15
PLAIN_LOWER = 1 << 16  # a letter that is not a capital
PLAIN_UPPER = 1 << 17  # a letter that is not small
CURRENCY = 1 << 18
HYPHEN = 1 << 19
HOST = 1 << 20  # may stand in a host name
TITLE = 1 << 21
AFFIX = PREFIX | SUFFIX | ICON | QUOTE | HYPHEN | CURRENCY | PUNCT | SYMBOL  # a word with none of them is one token
MARKUP = 1 << 22  # brackets, operators and the like: program text and tables are full of them
BASIC = 1 << 23  # NeMo Curator's alphanumeric characters
BLANK = 1 << 24  # NeMo Curator's white space
BRACKET = 1 << 25
BULLET = 1 << 26  # NeMo Curator's bullets

_LAST = 0x32400  # beyond it Unicode 15 assigns tags, variation selectors and private use, which have none of these properties
_SENTENCE = (
    "21 2e 3f 589 61f 6d4 700-702 7f9 964-965 104a-104b 1362 1367-1368 166e 1735-1736 1803 1809 1944-1945 1aa8-1aab 1b5a-1b5b "
    "1b5e-1b5f 1c3b-1c3c 1c7e-1c7f 203c-203d 2047-2049 2e2e 2e3c 3002 a4ff a60e-a60f a6f3 a6f7 a876-a877 a8ce-a8cf a92f a9c8-a9c9 "
    "aa5d-aa5f aaf0-aaf1 abeb fe52 fe56-fe57 ff01 ff0e ff1f ff61 10a56-10a57 11047-11048 110be-110c1 11141-11143 111c5-111c6 111cd "
    "111de-111df 11238-11239 1123b-1123c 112a9 1144b-1144c 115c2-115c3 115c9-115d7 11641-11642 1173c-1173e 11a42-11a43 11a9b-11a9c "
    "11c41-11c42 16a6e-16a6f 16af5 16b37-16b38 16b44 1bc9f 1da88"
)
_TERMINAL = (  # beside those above
    "61d-61e 837 839 83d-83e 17d4-17d6 17d9-17da 1b7d-1b7e 2e53-2e54 10f55-10f59 10f86-10f89 11944 11946 11ef7-11ef8 11f43-11f44 16e98"
)
_SYMBOLS = "!\"#$%&'()*+,-./:;<=>?@[\\]^_`{|}~«´»–—’“”„…∶━►、。〈〉《》「」【】！％（），．１：；？～"
_PUNCT = "…,:;!?¿؟¡()[]{}<>_#*&。？！，、；：～·।،۔؛٪"
_QUOTES = "'\"”“`‘´’‚,„»«「」『』（）〔〕【】《》〈〉⟦⟧"
_CURRENCY = "$£€¥฿₽﷼₴₠₡₢₣₤₥₦₧₨₩₪₫₭₮₯₰₱₲₳₵₶₷₸₹₺₻₼₾₿"
_MARKUP = "{}[]()<>=;_/\\|&$@#*+~^`"

# Classes of Unicode's word boundaries (UAX 29), as far as they join: everything else stands alone.
OTHER, EXTEND, KATAKANA, LETTER, MID_LETTER, MID_NUMBER, MID_BOTH, NUMERIC, CONNECTOR = range(9)


def _points(ranges: str) -> npt.NDArray[np.int64]:
    pairs = [(int(one.partition("-")[0], 16), int(one.rpartition("-")[2], 16)) for one in ranges.split()]
    return np.concatenate([np.arange(first, last + 1) for first, last in pairs])


@cache
def _tables() -> tuple[npt.NDArray[Any], ...]:
    return kept_arrays(__name__, lambda: (_flags(), _lower(_flags()), _word_classes(_flags())))


def flags() -> npt.NDArray[np.uint32]:
    """Properties by code point, (0x110000,)."""
    return _tables()[0]


def lower() -> npt.NDArray[np.int32]:
    """Small letter by code point, (0x110000,); itself where ``str.lower`` gives none or more than one."""
    return _tables()[1]


def word_classes() -> npt.NDArray[np.uint8]:
    """Class for word boundaries by code point, (0x110000,)."""
    return _tables()[2]


def _flags() -> npt.NDArray[np.uint32]:
    table = np.zeros(0x110000, np.uint32)
    chars = list(map(chr, range(_LAST)))
    category = list(map(unicodedata.category, chars))

    def put(bit: int, holds: Iterable[bool]) -> None:
        table[:_LAST][np.fromiter(holds, bool, _LAST)] |= np.uint32(bit)

    tests: tuple[tuple[int, Callable[[str], bool]], ...] = (
        (ALPHA, str.isalpha), (ALNUM, str.isalnum), (DECIMAL, str.isdecimal), (DIGIT, str.isdigit), (SPACE, str.isspace),
        (UPPER, str.isupper), (LOWER, str.islower),
    )  # fmt: skip
    for bit, test in tests:
        put(bit, map(test, chars))
    put(PUNCT, (c[0] == "P" for c in category))
    put(TITLE, (c == "Lt" for c in category))
    put(PREFIX | SUFFIX | ICON, (c == "So" for c in category))
    alpha, upper, lower = (table & bit != 0 for bit in (ALPHA, UPPER, LOWER))
    table[alpha & ~upper] |= np.uint32(PLAIN_LOWER)
    table[alpha & ~lower] |= np.uint32(PLAIN_UPPER)
    sets: tuple[tuple[int, str], ...] = (
        (SYMBOL, _SYMBOLS), (PREFIX | SUFFIX, _PUNCT), (PREFIX | SUFFIX | QUOTE, _QUOTES), (PREFIX | CURRENCY, _CURRENCY),
        (PREFIX, "§%=—–+"), (SUFFIX, "—–"), (ICON, "…"), (HYPHEN, "-–—~"), (MARKUP, _MARKUP),
        (BASIC, string.ascii_letters + string.digits + "\n?!,."), (BLANK, "\t\n\r\b "), (BRACKET, "{}⟨⟩[]()"), (BULLET, "•‣⁃⁌⁍∙○●◘◦⦾⦿"),
        (BREAK, "\n\r\x0b\x0c\x1c\x1d\x1e\x85\u2028\u2029"),
    )  # fmt: skip
    for bit, members in sets:
        table[[ord(c) for c in members]] |= np.uint32(bit)
    for first, last in ((0, 9), (11, 13), (13, 32), (127, 160)):
        table[first:last] |= np.uint32(SYMBOL)
    table[_points(_SENTENCE)] |= np.uint32(SENTENCE | TERMINAL | SYMBOL)
    table[_points(_TERMINAL)] |= np.uint32(TERMINAL | SYMBOL)
    for first, last in ((0x30, 0x3A), (0x41, 0x5B), (0x61, 0x7B), (0xA1, 0x10000)):
        table[first:last] |= np.uint32(HOST)
    return table


def _lower(known: npt.NDArray[np.uint32]) -> npt.NDArray[np.int32]:
    table = np.arange(0x110000, dtype=np.int32)
    for point in np.flatnonzero(known & (UPPER | TITLE)):
        small = chr(point).lower()
        if len(small) == 1:
            table[point] = ord(small)
    return table


def _word_classes(known: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint8]:
    table = np.zeros(0x110000, np.uint8)
    category = [unicodedata.category(chr(c)) for c in range(_LAST)]
    table[known & ALPHA != 0] = LETTER
    table[:_LAST][[c in ("Mn", "Mc", "Me", "Cf") for c in category]] = EXTEND
    table[0xE0001:0xE01F0] = EXTEND
    table[known & DECIMAL != 0] = NUMERIC
    table[:_LAST][[c == "Pc" for c in category]] = CONNECTOR
    table[0x202F] = CONNECTOR
    for first, last in (  # scripts that are written without spaces: a letter is a word of its own
        (0x0E00, 0x0E80), (0x0E80, 0x0F00), (0x1000, 0x10A0), (0x1780, 0x1800), (0x19E0, 0x1A00), (0x1950, 0x19E0), (0x1A20, 0x1AB0),
        (0xAA60, 0xAAE0), (0xA9E0, 0xAA00), (0x2E80, 0x3005), (0x3006, 0x3031), (0x3036, 0x309B), (0x3400, 0xA000), (0xF900, 0xFB00),
        (0x20000, _LAST), (0x1B001, 0x1B120), (0x16FE0, 0x18D09),
    ):  # fmt: skip
        part = table[first:last]
        part[part == LETTER] = OTHER
    for first, last in (
        (0x3031, 0x3036),
        (0x309B, 0x309D),
        (0x30A0, 0x30FB),
        (0x30FC, 0x3100),
        (0x31F0, 0x3200),
        (0xFF66, 0xFF9E),
    ):
        table[first:last] = KATAKANA
    for members, kind in (
        (":·\u0387\u055f\u05f4\u2027\ufe13\ufe55\uff1a", MID_LETTER),
        (".\u2018\u2019\u2024\ufe52\uff07\uff0e'", MID_BOTH),
    ):
        table[[ord(c) for c in members]] = kind
    table[[ord(c) for c in ",;\u037e\u0589\u060c\u060d\u066c\u07f8\u2044\ufe10\ufe14\ufe50\ufe54\uff0c\uff1b"]] = (
        MID_NUMBER
    )
    return table
