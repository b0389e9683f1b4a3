"""A shuffle that needs no memory: the i-th element of a seeded permutation of n, and back, in constant time.

A balanced Feistel network over the next power of four, walked until the value lies below n (cycle walking). Unlike
numpy's ``permutation`` it is fixed by this file alone, so a plan stays the same under every library version.
Source: Black and Rogaway, "Ciphers with Arbitrary Finite Domains", CT-RSA 2002.
"""

import functools
import hashlib
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

_ROUNDS = 6
U64 = npt.NDArray[np.uint64]


@functools.lru_cache(maxsize=1024)
def _keys(name: str) -> tuple[int, ...]:
    raw = hashlib.blake2b(name.encode(), digest_size=8 * _ROUNDS).digest()
    return tuple(int.from_bytes(raw[8 * i : 8 * i + 8], "little") for i in range(_ROUNDS))


def draw(n: int, *name: object) -> int:
    """A number below n that is fixed by its name, for example ("phase", seed, epoch)."""
    raw = hashlib.blake2b(":".join(map(str, name)).encode(), digest_size=16).digest()
    return int.from_bytes(raw, "little") % n


class Permutation:
    """A permutation of range(n) that is fixed by its name.

    Args:
        n: how many elements.
        name: for example ("windows", seed, epoch).
    """

    def __init__(self, n: int, *name: object) -> None:
        assert n > 0
        self.n = n
        self._bits = max(1, -(-max(n - 1, 1).bit_length() // 2))
        self._mask = np.uint64((1 << self._bits) - 1)
        self._round_keys = [np.uint64(key) for key in _keys(":".join(map(str, name)))]

    def __call__(self, index: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Elements at these places."""
        return self._walk(index, self._forward)

    def place(self, element: npt.ArrayLike) -> npt.NDArray[np.int64]:
        """Places of these elements: the inverse."""
        return self._walk(element, self._backward)

    def _walk(self, start: npt.ArrayLike, step: Callable[[U64], U64]) -> npt.NDArray[np.int64]:
        x = np.atleast_1d(np.asarray(start)).astype(np.uint64)
        x = step(x)
        while (outside := x >= self.n).any():
            x[outside] = step(x[outside])
        return x.astype(np.int64)

    def _forward(self, x: U64) -> U64:
        shift = np.uint64(self._bits)
        left, right = x >> shift, x & self._mask
        for key in self._round_keys:
            left, right = right, left ^ (_mix(right, key) & self._mask)
        return (left << shift) | right

    def _backward(self, x: U64) -> U64:
        shift = np.uint64(self._bits)
        left, right = x >> shift, x & self._mask
        for key in reversed(self._round_keys):
            left, right = right ^ (_mix(left, key) & self._mask), left
        return (left << shift) | right


def _mix(x: U64, key: np.uint64) -> U64:
    """splitmix64's finaliser (Steele, Lea, Flood 2014); wraps around by design."""
    with np.errstate(over="ignore"):
        x = (x + key) * np.uint64(0x9E3779B97F4A7C15)
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))
