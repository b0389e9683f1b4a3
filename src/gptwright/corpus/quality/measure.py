"""How well scores tell two classes apart, with an interval, and whether a score is the share that it says."""

import math

import numpy as np
import numpy.typing as npt

F64 = npt.NDArray[np.float64]
_Z95 = 1.959963984540054


def auc(scores: F64, labels: npt.NDArray[np.bool_]) -> tuple[float, float, float]:
    """Area under the ROC curve with its 95 % interval.

    Args:
        scores: (n,).
        labels: (n,), true for the class that should score high; both classes occur.

    Returns:
        Area, low, high. Ties count half.

    Source: DeLong, DeLong and Clarke-Pearson 1988; computed from ranks as Sun and Xu 2014 do. The interval is taken on the logit, so
    that it stays inside 0 to 1; an area of exactly 0 or 1 gets the bound of the rule of three instead.
    """
    high, low = scores[labels], scores[~labels]
    m, n = len(high), len(low)
    if m == 0 or n == 0:
        raise ValueError("both classes are needed")
    all_ranks, high_ranks, low_ranks = _ranks(np.concatenate([high, low])), _ranks(high), _ranks(low)
    v10 = (all_ranks[:m] - high_ranks) / n  # share of the low ones below each high one
    v01 = 1 - (all_ranks[m:] - low_ranks) / m
    area = float(v10.mean())
    if area in (0.0, 1.0):
        slack = min(1.0, 3 / min(m, n))
        return (area, 1 - slack, 1.0) if area == 1.0 else (area, 0.0, slack)
    variance = (v10.var(ddof=1) / m if m > 1 else 0.25) + (v01.var(ddof=1) / n if n > 1 else 0.25)
    reach = _Z95 * math.sqrt(variance) / (area * (1 - area))
    middle = math.log(area / (1 - area))
    return area, _sigmoid(middle - reach), _sigmoid(middle + reach)


def _sigmoid(x: float) -> float:
    return 0.5 * (1 + math.tanh(x / 2))


def _ranks(values: F64) -> F64:
    """Ranks from 1; ties share their middle."""
    order = np.argsort(values, kind="stable")
    _, first, counts = np.unique(values[order], return_index=True, return_counts=True)
    ranks = np.empty(len(values))
    ranks[order] = np.repeat(first + (counts + 1) / 2, counts)
    return ranks


def platt(margins: F64, labels: npt.NDArray[np.bool_]) -> tuple[float, float]:
    """Slope and shift that make log-odds of margins, ``sigmoid(slope * margin + shift)``.

    Source: Platt 1999, with his softened targets, by the damped Newton steps of Lin, Lin and Weng 2007.
    """
    up, down = int(labels.sum()), int((~labels).sum())
    target = np.where(labels, (up + 1) / (up + 2), 1 / (down + 2))
    slope, shift = 0.0, math.log((up + 1) / (down + 1))

    def loss(a: float, b: float) -> float:
        z = a * margins + b
        return float((np.logaddexp(0, z) - target * z).sum())

    best = loss(slope, shift)
    for _ in range(100):
        p = 1 / (1 + np.exp(-(slope * margins + shift)))
        weight = p * (1 - p)
        g = np.array([((p - target) * margins).sum(), (p - target).sum()])
        if abs(g).max() < 1e-6:
            break
        hessian = np.array(
            [
                [(weight * margins**2).sum() + 1e-9, (weight * margins).sum()],
                [(weight * margins).sum(), weight.sum() + 1e-9],
            ]
        )
        move = np.linalg.solve(hessian, g)
        scale = 1.0
        while scale > 1e-10 and loss(slope - scale * move[0], shift - scale * move[1]) >= best:
            scale /= 2
        if scale <= 1e-10:
            break
        slope, shift = float(slope - scale * move[0]), float(shift - scale * move[1])
        best = loss(slope, shift)
    return slope, shift


def calibration_error(probabilities: F64, labels: npt.NDArray[np.bool_], bins: int = 10) -> float:
    """Mean distance between what is said and what is so, over bins of equally many texts, weighed by their size.

    Source: Naeini et al. 2015 (expected calibration error), with quantile bins, which small samples bear better.
    """
    order = np.argsort(probabilities, kind="stable")
    parts = [part for part in np.array_split(order, min(bins, max(1, len(order) // 10))) if len(part)]
    return float(sum(len(p) * abs(probabilities[p].mean() - labels[p].mean()) for p in parts) / len(order))
