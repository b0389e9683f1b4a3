"""What a model must beat to have learnt anything: uniform bytes, a byte bigram model, and lzma. All in bits per byte of held-out text."""

import lzma
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from gptwright.core.errors import UserError

TRAIN_LIMIT = 64_000_000  # bytes of training text that the bigram table reads
LZMA_CONTEXT = (
    4_000_000  # bytes of training text before the held-out text; lzma at its strongest takes about a second a megabyte
)
LZMA_HELDOUT = 4_000_000
_START = 256  # context of a document's first byte


@dataclass(frozen=True)
class Baseline:
    """A score without a neural network. ``note`` says how it was got."""

    name: str
    bits_per_byte: float
    note: str


def baselines(train_texts: Iterable[str], heldout_texts: Iterable[str]) -> list[Baseline]:
    """Three baselines on the same held-out text.

    Args:
        train_texts: training documents; the first 64 MB are read.
        heldout_texts: held-out documents.

    Raises:
        UserError: the held-out set is empty.
    """
    heldout = [data for text in heldout_texts if (data := text.encode())]
    if not heldout:
        raise UserError("the held-out set has no text", fix="Raise [corpus] heldout_share, or add documents")
    train, size = [], 0
    for text in train_texts:
        data = text.encode()
        train.append(data)
        size += len(data)
        if size >= TRAIN_LIMIT:
            break
    bits, lengths = bigram_bits(train, heldout)
    return [
        Baseline("uniform bytes", 8.0, "every byte equally likely"),
        Baseline(
            "byte bigram",
            float(bits.sum() / lengths.sum()),
            f"add-one smoothing, counted on {size:,} bytes of training text",
        ),
        lzma_baseline(train, heldout),
    ]


def bigram_bits(train: Sequence[bytes], heldout: Sequence[bytes]) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """Bits and bytes of each held-out document under a byte bigram model with add-one smoothing."""
    counts = np.ones((257, 256))
    for document in train:
        before, after = _pairs(document)
        counts += np.bincount(before * 256 + after, minlength=257 * 256).reshape(257, 256)
    table = -np.log2(counts / counts.sum(axis=1, keepdims=True))
    bits = np.array([table[_pairs(document)].sum() for document in heldout])
    return bits, np.array([len(document) for document in heldout], dtype=np.int64)


def lzma_baseline(train: Sequence[bytes], heldout: Sequence[bytes]) -> Baseline:
    """How many more bytes lzma needs for the held-out text after a sample of the training text."""
    context = b"\n".join(_thin(train, LZMA_CONTEXT))
    text = b"\n".join(_thin(heldout, LZMA_HELDOUT))
    extra = _compressed(context + b"\n" + text) - _compressed(context + b"\n") if context else _compressed(text)
    given = f"after {len(context):,} bytes of training text" if context else "alone"
    return Baseline(
        "lzma", 8 * extra / len(text), f"{len(text):,} bytes of held-out text compressed {given} (xz, preset 9e)"
    )


def _pairs(document: bytes) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    after = np.frombuffer(document, dtype=np.uint8).astype(np.int64)
    return np.concatenate(([_START], after[:-1])) if len(after) else after, after


def _thin(documents: Sequence[bytes], limit: int) -> list[bytes]:
    """Whole documents, evenly spread, of about ``limit`` bytes: the first ones alone would all come from one source."""
    total = sum(map(len, documents))
    step = max(1, -(-total // limit))
    kept, size = [], 0
    for document in documents[::step]:
        if size >= limit:
            break
        kept.append(document[: limit - size])
        size += len(kept[-1])
    return kept


def _compressed(data: bytes) -> int:
    filters = [{"id": lzma.FILTER_LZMA2, "preset": 9 | lzma.PRESET_EXTREME}]
    return len(lzma.compress(data, format=lzma.FORMAT_RAW, filters=filters))
