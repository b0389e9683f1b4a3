"""Which targets a model is never taught, so that it cannot learn a text by heart: one in k, always the same ones of a text.

Whether a token is left out is a hash of the tokens before it in its document, at most 13: so copies of a passage leave out the same
places wherever they stand, in any row and any epoch, and what was left out once is not learnt from a copy.
Source: Hans et al., "Be like a Goldfish, Don't Memorize!", NeurIPS 2024 (arXiv 2406.10209), section 3 (static hash, h = 13, k = 4).
"""

import numpy as np
import numpy.typing as npt

CONTEXT = 13
_PRIME = np.uint64(0x100000001B3)


def goldfish(ids: npt.NDArray[np.int64], begins: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.bool_]:
    """Which tokens are left out as targets.

    Args:
        ids: (n,) a stretch of text. Give up to 13 tokens more in front, or a stretch that begins inside a document is hashed otherwise.
        begins: (n,) true where a document begins.
        k: about one in k is left out.

    Returns:
        (n,) bool. A document's first token has nothing before it and is never left out.
    """
    n = len(ids)
    state = np.zeros(n, dtype=np.uint64)
    values = ids.astype(np.uint64) + np.uint64(1)
    number = np.arange(n)
    # Position of the document's first token, 0 where it began before the stretch.
    first = np.maximum.accumulate(np.where(begins, number, 0))
    with np.errstate(over="ignore"):
        for back in range(min(CONTEXT, n - 1), 0, -1):  # the farthest first, so that nearer ones are mixed in later
            inside = np.zeros(n, dtype=bool)
            inside[back:] = number[back:] - back >= first[back:]
            shifted = np.zeros(n, dtype=np.uint64)
            shifted[back:] = values[:-back]
            state = np.where(inside, _mix(state * _PRIME + shifted), state)
        dropped = (_mix(state) % np.uint64(k)) == 0
    left_out: npt.NDArray[np.bool_] = dropped & (number > first)
    return left_out


def _mix(x: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """splitmix64's finaliser (Steele, Lea, Flood 2014)."""
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return x ^ (x >> np.uint64(31))
