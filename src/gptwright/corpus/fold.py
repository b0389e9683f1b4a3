"""The compiled loop that folds case and white space of many texts, byte by byte, as ``" ".join(text.casefold().split())`` does."""

import numpy as np
from numba import njit, types
from numpy.typing import NDArray

_U8, _I64, _I32 = (
    types.Array(types.uint8, 1, "C", readonly=True),
    types.Array(types.int64, 1, "C", readonly=True),
    types.Array(types.int32, 1, "C", readonly=True),
)


def fold(
    data: NDArray[np.uint8], offsets: NDArray[np.int64], starts: NDArray[np.int32], extra: NDArray[np.uint8]
) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """Fold texts.

    Args:
        data: UTF-8 bytes of all texts.
        offsets: (n + 1,) their bounds.
        starts, extra: the table of ``rowids``.

    Returns:
        Folded UTF-8 bytes and their (n + 1,) bounds.
    """
    size = int(offsets[-1] - offsets[0])
    # No character folds to more than three times its bytes; memory that is not touched costs nothing.
    out = np.empty(3 * size + 1, np.uint8)
    bounds = np.empty(len(offsets), np.int64)
    _fold(data, np.ascontiguousarray(offsets), starts, extra, out, bounds)
    return out, bounds


@njit(
    types.void(_U8, _I64, _I32, _U8, types.Array(types.uint8, 1, "C"), types.Array(types.int64, 1, "C")),
    cache=True,
    nogil=True,
)
def _fold(data, offsets, starts, extra, out, bounds):  # type: ignore[no-untyped-def]
    at = 0
    bounds[0] = 0
    low = np.full(128, 255, np.uint8)  # what an ASCII byte folds to; 255 for white space
    for code in range(128):
        if starts[code] >= 0:
            low[code] = extra[starts[code] + 1] if starts[code] > 0 else code
    for row in range(len(offsets) - 1):
        i, end = offsets[row], offsets[row + 1]
        first, waiting = at, False
        while i < end:
            byte = data[i]
            if byte < 0x80:
                folded = low[byte]
                i += 1
                if folded == 255:
                    waiting = at > first
                    continue
                if waiting:
                    out[at] = 32
                    at += 1
                    waiting = False
                out[at] = folded
                at += 1
                continue
            if byte < 0xE0:
                code, width = (np.int64(byte & 0x1F) << 6) | (data[i + 1] & 0x3F), 2
            elif byte < 0xF0:
                code, width = (
                    (np.int64(byte & 0x0F) << 12) | (np.int64(data[i + 1] & 0x3F) << 6) | (data[i + 2] & 0x3F),
                    3,
                )
            else:
                code, width = (
                    (
                        (np.int64(byte & 0x07) << 18)
                        | (np.int64(data[i + 1] & 0x3F) << 12)
                        | (np.int64(data[i + 2] & 0x3F) << 6)
                        | (data[i + 3] & 0x3F)
                    ),
                    4,
                )
            start = starts[code] if code < len(starts) else 0
            if start == -1:
                waiting = at > first
                i += width
                continue
            if waiting:
                out[at] = 32
                at += 1
                waiting = False
            if start == 0:
                for k in range(width):
                    out[at + k] = data[i + k]
                at += width
            else:
                for k in range(extra[start]):
                    out[at + k] = extra[start + 1 + k]
                at += extra[start]
            i += width
        bounds[row + 1] = at
