"""Ids of many texts at once, from Arrow's buffers: the same as ``core.hashing``'s, without an object for each word.

Folding case and white space is the costly part; above ``FEW_BYTES`` it is done by a compiled loop over bytes.
"""

from functools import cache
from hashlib import blake2b
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from gptwright.core.arrays import kept_arrays
from gptwright.core.hashing import norm_id

FEW_BYTES = 2 << 20  # below it, loading the compiled loop takes longer than it saves


def content_ids(texts: pa.LargeStringArray) -> list[bytes]:
    """``content_id`` of texts that are in normal form, as bytes."""
    data, offsets = buffers(texts)
    return _digests(data, offsets)


def norm_ids(texts: pa.LargeStringArray) -> list[bytes]:
    """``norm_id`` of texts, as bytes."""
    data, offsets = buffers(texts)
    if offsets[-1] - offsets[0] < FEW_BYTES:
        return [bytes.fromhex(norm_id(text)) for text in texts.to_pylist()]
    from gptwright.corpus.fold import fold

    starts, extra = _folding()
    return _digests(*fold(data, offsets, starts, extra))


def buffers(texts: pa.LargeStringArray) -> tuple[NDArray[np.uint8], NDArray[np.int64]]:
    """UTF-8 bytes of an array without nulls, and the n + 1 offsets of its texts in them."""
    _, offsets, data = texts.buffers()
    bounds = np.frombuffer(offsets, np.int64)[texts.offset : texts.offset + len(texts) + 1]
    return np.frombuffer(data, np.uint8) if data is not None and len(data) else np.zeros(1, np.uint8), bounds


def _digests(data: NDArray[np.uint8], offsets: NDArray[np.int64]) -> list[bytes]:
    view = memoryview(data)  # type: ignore[arg-type]
    bounds = offsets.tolist()
    return [blake2b(view[start:end], digest_size=16).digest() for start, end in pairwise(bounds)]


@cache
def _folding() -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    """Case folding and white space as a table, made of Python's own: for each character below the last that folds, where its
    folded bytes begin in the second array (a length, then the bytes), 0 for a character that stays, -1 for white space."""
    starts, extra = kept_arrays(__name__, _made)
    return starts, extra


def _made() -> tuple[NDArray[np.int32], NDArray[np.uint8]]:
    last = 0x1E944
    starts = np.zeros(last, np.int32)
    extra = bytearray(b"\0")
    for code in range(last):
        if 0xD800 <= code < 0xE000:
            continue
        char = chr(code)
        if char.isspace():
            starts[code] = -1
        elif (folded := char.casefold()) != char:
            raw = folded.encode()
            starts[code] = len(extra)
            extra += bytes([len(raw)]) + raw
    return starts, np.frombuffer(bytes(extra), np.uint8)


def place_id(source: bytes, place: str) -> Any:
    """``doc_uid`` of an ASCII place, as bytes; ``source`` is the source's name with a zero byte."""
    return blake2b(source + place.encode(), digest_size=16).digest()
