"""Which conversations share a row: best-fit decreasing, the same for the same seed."""

import numpy as np
import numpy.typing as npt

from gptwright.tokens.permute import Permutation


def pack(sizes: npt.NDArray[np.int64], capacity: int, seed: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    """Best-fit decreasing: each item goes to the fullest row that still holds it. Equal sizes come in a seeded order.

    Args:
        sizes: (n,) int64, each at most the capacity.
        capacity: of a row.
        seed: order among equals.

    Returns:
        Item numbers row by row, (n,) int64, and (rows + 1,) int64 where rows begin.

    Source: Ding et al., "Fewer Truncations Improve Language Modeling", ICML 2024 (best-fit packing in O(n log L)).
    """
    shuffled = Permutation(len(sizes), "pack", seed)(np.arange(len(sizes)))
    order = shuffled[np.argsort(-sizes[shuffled], kind="stable")]
    rows: list[list[int]] = []
    waiting: list[list[int]] = [[] for _ in range(capacity + 1)]  # rows by room left
    rooms = 0  # bit r is set while some row has room r
    for item, size in zip(order.tolist(), sizes[order].tolist(), strict=True):
        fitting = rooms >> size
        if fitting:
            room = size + (fitting & -fitting).bit_length() - 1
            row = waiting[room].pop()
            if not waiting[room]:
                rooms &= ~(1 << room)
        else:
            room, row = capacity, len(rows)
            rows.append([])
        rows[row].append(item)
        waiting[room - size].append(row)
        rooms |= 1 << (room - size)
    edges = np.concatenate(([0], np.cumsum([len(row) for row in rows]))).astype(np.int64)
    return np.array([item for row in rows for item in row], dtype=np.int64), edges
