"""The words of street addresses as tables of hashes, for the kernel that looks for house numbers."""

from functools import cache

import numpy as np
import numpy.typing as npt

from gptwright.corpus.privacy.places import AFTER, BEFORE, ENDINGS, FRENCH

Words = tuple[
    npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.uint8]
]


@cache
def street_words() -> Words:
    """Open hash tables (256,) of the words after a number, the French ones, bis and ter, and the words before a number; and the endings
    of compounds (words, 16): the length, then the bytes.
    """
    endings = np.zeros((len(ENDINGS), 16), np.uint8)
    for at, word in enumerate(ENDINGS):
        raw = word.encode()
        endings[at, 0] = len(raw)
        endings[at, 1 : 1 + len(raw)] = np.frombuffer(raw, np.uint8)
    before = tuple(word for word in BEFORE if word != "c/")  # no letters only: the kernel knows it
    return _bag(AFTER), _bag(FRENCH), _bag(("bis", "ter", "quater")), _bag(before), endings


def _hash(word: bytes) -> int:
    value = 2166136261
    for byte in word:
        value = ((value ^ byte) * 16777619) & 0xFFFFFFFF  # FNV-1a
    return value


def _bag(words: tuple[str, ...]) -> npt.NDArray[np.int64]:
    """Words as an open hash table of their FNV-1a values; 0 is an empty place."""
    table = np.zeros(256, np.int64)
    for word in words:
        value = _hash(word.encode())
        at = value & 255
        while table[at] not in (0, value):
            at = (at + 1) & 255
        table[at] = value
    return table
