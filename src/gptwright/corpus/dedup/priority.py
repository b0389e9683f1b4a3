"""Which of several copies is kept: the openness of its licence, then its source, quality, length, date, and last its uid."""

from dataclasses import dataclass
from typing import Any

import numpy as np

from gptwright.corpus.dedup.words import Array

_BITS = (("openness", 6), ("source", 10), ("quality", 13), ("length", 18), ("date", 16))  # 63 in all


@dataclass(frozen=True)
class Priority:
    """Of each row; arrays may be memory maps.

    Attributes:
        score: (rows,) uint64 under 2^63; the lower is kept. See ``scores``.
        tie: (rows,) uint64, decides between equal scores: the beginning of the doc_uid, which no order of arrival changes.
    """

    score: Array
    tie: Array


def scores(
    *, openness: Array | None = None, source: Array | None = None, quality: Array | None = None,
    length: Array | None = None, date: Array | None = None,
) -> Array:  # fmt: skip
    """Pack what decides between copies into one number, most important first.

    Args:
        openness: (n,) rank of the licence, 0 the most open; up to 63.
        source: (n,) rank of the source, 0 the one preferred; up to 1023.
        quality: (n,) 0 to 1, higher is better.
        length: (n,) characters or bytes; longer is better, told apart to one in four thousand.
        date: (n,) days since 1970; older is better. Unknown: -1, the worst.

    Returns:
        (n,) uint64; lower is better. What is None is equal for all.
    """
    given = {"openness": openness, "source": source, "quality": quality, "length": length, "date": date}
    n = max((len(column) for column in given.values() if column is not None), default=0)
    out = np.zeros(n, np.uint64)
    for name, bits in _BITS:
        most = (1 << bits) - 1
        column: Any = given[name]
        if column is None:
            value = np.zeros(n)
        elif name == "quality":
            value = (1 - np.clip(np.nan_to_num(column.astype(np.float64)), 0, 1)) * most
        elif name == "length":
            # Exponent and 12 bits of a float64: a logarithm that is the same on every machine.
            bits_of = (np.maximum(column, 0) + 1).astype(np.float64).view(np.uint64) >> np.uint64(40)
            value = most - (bits_of.astype(np.int64) - (1023 << 12))
        elif name == "date":
            value = np.where(column < 0, most, column)
        else:
            value = column
        out = (out << np.uint64(bits)) | np.clip(value, 0, most).astype(np.uint64)
    return out
