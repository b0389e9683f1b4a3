"""A linear classifier over hashed features: trained by stochastic gradients, scored over Arrow buffers. Deterministic, in one thread.

The model is that of fastText's classifier without the hidden layer: the mean of the features' weights and a bias, through a sigmoid.
Sources: Joulin et al. 2016 (bag of tricks); Weinberger et al. 2009 (hashing); Duchi et al. 2011 (step sizes per feature).
"""

from collections.abc import Sequence
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from gptwright.corpus.decontaminate import words as w
from gptwright.corpus.quality import features

F32 = npt.NDArray[np.float32]
F64 = npt.NDArray[np.float64]
_EPSILON = 1e-8


def bag(texts: Sequence[str], *, chars: int, buckets: int) -> tuple[npt.NDArray[np.uint32], w.I64]:
    """Features of texts in a row: buckets (features,) uint32 and where each text's begin (texts + 1,) int64."""
    data, offsets = w.buffers(w.as_text(list(texts)))
    scratch = features.room(int(np.diff(offsets).max(initial=0)))
    kinds, lower = w.tables()
    rows: list[npt.NDArray[np.uint32]] = []
    for low, high in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True):
        n = features.extract(data, low, high, kinds, lower, chars, np.uint64(buckets - 1), scratch)
        rows.append(scratch[:n].astype(np.uint32))
    starts = np.concatenate([[0], np.cumsum([len(row) for row in rows])]).astype(np.int64)
    return np.concatenate(rows) if rows else np.zeros(0, np.uint32), starts


def fit(
    bags: npt.NDArray[np.uint32], starts: w.I64, rows: npt.NDArray[np.int64], labels: npt.NDArray[np.bool_], *,
    buckets: int, epochs: int, rate: float, decay: float, seed: int = 0,
) -> tuple[F32, float]:  # fmt: skip
    """Train on some of the texts.

    Args:
        bags, starts: ``bag``'s.
        rows: texts to train on.
        labels: of all texts.
        buckets: number of weights.
        epochs: times each text is seen.
        rate: step size.
        decay: L2 penalty on the weights, per step.
        seed: of the order.

    Returns:
        The weights (buckets,) float32 and the bias. Both classes weigh the same, whatever their numbers.
    """
    generator = np.random.default_rng(seed)
    order = np.concatenate([generator.permutation(rows) for _ in range(epochs)]).astype(np.int64)
    share = labels[rows].mean()
    weights = np.zeros(buckets, np.float64)
    bias = _fit(
        bags, starts, order, labels.astype(np.float64), weights, np.zeros(buckets, np.float64),
        rate, decay, 0.5 / share, 0.5 / (1 - share),
    )  # fmt: skip
    return weights.astype(np.float32), float(bias)


def margins(data: w.U8, offsets: w.I64, weights: F32, bias: float, chars: int) -> F64:
    """Log-odds of texts, (texts,) float64. A text without any feature has the bias."""
    out = np.empty(len(offsets) - 1, np.float64)
    scratch = features.room(int(np.diff(offsets).max(initial=0)))
    _score(data, offsets, *w.tables(), chars, weights, bias, scratch, out)
    return out


@nb.njit(
    nb.float64(
        nb.uint32[::1], nb.int64[::1], nb.int64[::1], nb.float64[::1], nb.float64[::1], nb.float64[::1],
        nb.float64, nb.float64, nb.float64, nb.float64,
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _fit(
    bags: Any,
    starts: Any,
    order: Any,
    labels: Any,
    weights: Any,
    squares: Any,
    rate: Any,
    decay: Any,
    up: Any,
    down: Any,
) -> Any:
    bias, bias_squares = 0.0, 0.0
    for row in order:
        low, high = starts[row], starts[row + 1]
        count = max(high - low, 1)
        margin = 0.0
        for i in range(low, high):
            margin += weights[bags[i]]
        margin = margin / count + bias
        error = 1.0 / (1.0 + np.exp(-margin)) - labels[row]
        error *= up if labels[row] > 0.5 else down
        bias_squares += error * error
        bias -= 0.1 * rate * error / np.sqrt(bias_squares + _EPSILON)
        step = error / count
        for i in range(low, high):
            bucket = bags[i]
            gradient = step + decay * weights[bucket] / count
            squares[bucket] += gradient * gradient
            weights[bucket] -= rate * gradient / np.sqrt(squares[bucket] + _EPSILON)
    return bias


@nb.njit(
    nb.void(
        nb.uint8[::1], nb.int64[::1], nb.uint8[::1], nb.int32[::1], nb.int64,
        nb.float32[::1], nb.float64, nb.uint64[::1], nb.float64[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _score(
    data: Any, offsets: Any, kinds: Any, lower: Any, chars: Any, weights: Any, bias: Any, scratch: Any, out: Any
) -> None:
    mask = nb.uint64(len(weights) - 1)
    for row in range(len(offsets) - 1):
        n = features.extract(data, offsets[row], offsets[row + 1], kinds, lower, chars, mask, scratch)
        total = 0.0
        for i in range(n):
            total += nb.float64(weights[scratch[i]])
        out[row] = total / max(n, 1) + bias
