"""Small-sample statistics in numpy: intervals for shares, paired tests, and the smallest difference that a test could have seen.

Everything is a pure function of its arguments; randomness comes from a seed.
"""

import math
from collections.abc import Hashable, Sequence
from dataclasses import asdict, dataclass
from statistics import NormalDist
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from gptwright.core.errors import UserError

Floats = NDArray[np.float64]
POWER = 0.8
ALPHA = 0.05
RESAMPLES = 10_000
_BLOCK_CELLS = 4_000_000  # resampled indices held at once: 32 MB
_NORMAL = NormalDist()


@dataclass(frozen=True)
class Share:
    """A proportion with its Wilson interval."""

    value: float
    low: float
    high: float
    successes: int
    n: int

    def __str__(self) -> str:
        return f"{self.value:.1%} [{self.low:.1%}, {self.high:.1%}] of {self.n}"


@dataclass(frozen=True)
class Comparison:
    """What a paired test of A against B found. ``delta`` is A minus B, in ``unit``.

    ``low`` and ``high`` are the 95 % bootstrap interval; ``upper_one_sided`` and ``lower_one_sided`` are the 95 % one-sided bounds (for
    non-inferiority); ``mde`` is the smallest true difference that a test of this size finds with 80 % power.
    """

    metric: str
    unit: str
    a: float
    b: float
    delta: float
    low: float
    high: float
    lower_one_sided: float
    upper_one_sided: float
    p_value: float
    test: str
    n: int
    mde: float
    wins_a: int
    wins_b: int
    seed: int

    @property
    def significant(self) -> bool:
        """Whether the test rejects equality at 5 %."""
        return self.p_value < ALPHA

    def verdict(self, lower_is_better: bool, a: str = "A", b: str = "B") -> str:
        """One sentence for a person: who is better, or that nobody can tell, and what the test could have seen."""
        seen = f"{self.n} pairs could have shown a difference of {self.mde:.4g} {self.unit} or more"
        if not self.significant:
            return f"no difference shown ({self.delta:+.4g} {self.unit}, p = {self.p_value:.2g}); {seen}"
        better = a if (self.delta < 0) == lower_is_better else b
        return f"{better} is better by {abs(self.delta):.4g} {self.unit} (p = {self.p_value:.2g}); {seen}"

    def to_json(self) -> dict[str, Any]:
        """A JSON object for reports and the ledger."""
        return asdict(self)


def wilson(successes: int, n: int, confidence: float = 0.95) -> Share:
    """Wilson's score interval for a proportion; honest at 0 % and 100 % and for small n, where the normal interval is not.

    Source: Wilson 1927, JASA 22.
    """
    if not 0 <= successes <= n:
        raise ValueError(f"{successes} of {n} is not a proportion")
    if n == 0:
        return Share(math.nan, 0.0, 1.0, 0, 0)
    z = _NORMAL.inv_cdf(0.5 + confidence / 2)
    share = successes / n
    centre = (share + z * z / (2 * n)) / (1 + z * z / n)
    half = z / (1 + z * z / n) * math.sqrt(share * (1 - share) / n + z * z / (4 * n * n))
    low = 0.0 if successes == 0 else max(0.0, centre - half)
    high = 1.0 if successes == n else min(1.0, centre + half)
    return Share(share, low, high, successes, n)


def student_cdf(t: float, df: float) -> float:
    """P(T <= t) for Student's t with ``df`` degrees of freedom, by the incomplete beta function."""
    tail = 0.5 * _incomplete_beta(df / 2, 0.5, df / (df + t * t))
    return 1 - tail if t > 0 else tail


def student_quantile(probability: float, df: float) -> float:
    """The t whose ``student_cdf`` is ``probability``, by bisection."""
    if not 0 < probability < 1:
        raise ValueError("a quantile needs a probability between 0 and 1")
    low, high = -1.0, 1.0
    while student_cdf(low, df) > probability:
        low *= 2
    while student_cdf(high, df) < probability:
        high *= 2
    for _ in range(100):
        middle = (low + high) / 2
        low, high = (middle, high) if student_cdf(middle, df) < probability else (low, middle)
    return (low + high) / 2


def mcnemar_exact(only_a: int, only_b: int) -> float:
    """Two-sided exact McNemar p: under no difference, each discordant pair is a fair coin.

    Args:
        only_a: pairs that A alone got right.
        only_b: pairs that B alone got right.
    """
    discordant = only_a + only_b
    if discordant == 0:
        return 1.0
    tail = sum(math.comb(discordant, k) for k in range(min(only_a, only_b) + 1))
    return min(1.0, float(tail / 2 ** (discordant - 1)))


def mde_paired(sd: float, n: int, power: float = POWER) -> float:
    """Smallest true mean difference that a paired two-sided t test at 5 % finds with the given power.

    Args:
        sd: standard deviation of the paired differences.
        n: pairs.
    """
    if n < 2:
        return math.inf
    return (student_quantile(1 - ALPHA / 2, n - 1) + student_quantile(power, n - 1)) * sd / math.sqrt(n)


def mde_correct(n: int, discordant: float, power: float = POWER) -> float:
    """Smallest true difference in share correct that n paired questions show with the given power (normal approximation).

    Args:
        n: questions that both models answered.
        discordant: share of questions on which just one of them is right.
    """
    if n == 0:
        return math.inf
    z = _NORMAL.inv_cdf(1 - ALPHA / 2) + _NORMAL.inv_cdf(power)
    return math.sqrt(z * z * discordant / (n + z * z))


def compare_ratio(
    total_a: ArrayLike,
    total_b: ArrayLike,
    size: ArrayLike,
    *,
    clusters: Sequence[Hashable] | None = None,
    metric: str = "bits_per_byte",
    unit: str = "bits/byte",
    seed: int = 0,
    resamples: int = RESAMPLES,
) -> Comparison:
    """Paired comparison of sum(total) / sum(size): a t test on the ratio's residuals and a BCa bootstrap over items.

    For bits per byte the items are documents, totals their bits and sizes their bytes; so the estimated difference is exactly the
    difference of the two headline numbers. With equal sizes it is the ordinary paired t test.

    Args:
        total_a, total_b: per item, (n,), same items in the same order.
        size: per item, (n,), positive.
        clusters: items with equal labels are resampled together, since they are not independent (parts of one file, say).
        seed: of the bootstrap.

    Raises:
        UserError: fewer than two independent items, or the lengths differ.

    Source: Efron 1987 (BCa); Cochran 1977 §6 (ratio estimators); Miller 2024, arXiv 2411.00640 (pairing, clusters).
    """
    a, b, sizes = (np.asarray(x, dtype=np.float64) for x in (total_a, total_b, size))
    if not (a.shape == b.shape == sizes.shape and a.ndim == 1):
        raise UserError(
            "the two results do not cover the same items", fix="Evaluate both models on the same held-out set"
        )
    wins_a, wins_b = int(np.sum(a < b)), int(np.sum(b < a))
    if clusters is not None:
        labels = {label: i for i, label in enumerate(dict.fromkeys(clusters))}
        index = np.fromiter((labels[label] for label in clusters), dtype=np.int64, count=len(clusters))
        a, b, sizes = (np.bincount(index, weights=x, minlength=len(labels)).astype(np.float64) for x in (a, b, sizes))
    n = len(a)
    if n < 2:
        raise UserError(f"a paired comparison needs at least two items, got {n}", fix="Use a larger held-out set")
    d = a - b
    delta = float(d.sum() / sizes.sum())
    residuals = (d - delta * sizes) / sizes.mean()
    sd = float(residuals.std(ddof=1))
    if sd <= 1e-12 * max(1.0, abs(delta)):
        # All items agree on the difference: it is either exactly none or beyond doubt.
        low = high = lower = upper = delta
        p_value = 1.0 if abs(delta) <= 1e-12 else 0.0
    else:
        p_value = 2 * student_cdf(-abs(delta) / (sd / math.sqrt(n)), n - 1)
        low, high, lower, upper = _bca(d, sizes, delta, seed, resamples, [ALPHA / 2, 1 - ALPHA / 2, ALPHA, 1 - ALPHA])
    total = float(sizes.sum())
    return Comparison(
        metric, unit, float(a.sum()) / total, float(b.sum()) / total, delta, low, high, lower, upper, p_value,
        "paired t, BCa bootstrap", n, mde_paired(sd, n), wins_a, wins_b, seed,
    )  # fmt: skip


def compare_correct(
    a: ArrayLike, b: ArrayLike, *, metric: str = "accuracy", seed: int = 0, resamples: int = RESAMPLES
) -> Comparison:
    """Paired comparison of right/wrong answers: exact McNemar, bootstrap interval, and what n questions could have shown.

    Raises:
        UserError: no questions, or the lengths differ.
    """
    right_a, right_b = np.asarray(a, dtype=bool), np.asarray(b, dtype=bool)
    if right_a.shape != right_b.shape or right_a.ndim != 1 or len(right_a) == 0:
        raise UserError(
            "the two results do not cover the same questions", fix="Ask both models the same file of questions"
        )
    n = len(right_a)
    only_a, only_b = int(np.sum(right_a & ~right_b)), int(np.sum(right_b & ~right_a))
    delta = (only_a - only_b) / n
    # A resample's difference depends only on how many of its draws are discordant, so one multinomial draw stands for n picks.
    rng = np.random.default_rng(seed)
    draws = rng.multinomial(n, [only_a / n, only_b / n, 1 - (only_a + only_b) / n], size=resamples)
    low, high, lower, upper = np.quantile((draws[:, 0] - draws[:, 1]) / n, [ALPHA / 2, 1 - ALPHA / 2, ALPHA, 1 - ALPHA])
    # With no discordant pair seen, "rule of three": up to 3/n could still be.
    discordant = max(only_a + only_b, 3 if only_a + only_b == 0 else 1) / n
    return Comparison(
        metric, "share", float(right_a.mean()), float(right_b.mean()), delta, float(low), float(high), float(lower), float(upper),
        mcnemar_exact(only_a, only_b), "exact McNemar", n, mde_correct(n, discordant), only_a, only_b, seed,
    )  # fmt: skip


def ratio_interval(total: ArrayLike, size: ArrayLike) -> tuple[float, float, float]:
    """sum(total) / sum(size) with its 95 % t interval over items (linearised ratio estimator). One item gives no interval: nan.

    Returns:
        value, low, high.
    """
    totals, sizes = np.asarray(total, dtype=np.float64), np.asarray(size, dtype=np.float64)
    value, n = float(totals.sum() / sizes.sum()), len(totals)
    if n < 2:
        return value, math.nan, math.nan
    half = (
        student_quantile(1 - ALPHA / 2, n - 1)
        * float(((totals - value * sizes) / sizes.mean()).std(ddof=1))
        / math.sqrt(n)
    )
    return value, value - half, value + half


def holm(p_values: Sequence[float]) -> list[float]:
    """Holm's step-down adjustment, for a table of many tests; in the order given."""
    adjusted, running = [0.0] * len(p_values), 0.0
    for rank, index in enumerate(sorted(range(len(p_values)), key=lambda i: p_values[i])):
        running = max(running, min(1.0, (len(p_values) - rank) * p_values[index]))
        adjusted[index] = running
    return adjusted


def _bca(d: Floats, sizes: Floats, estimate: float, seed: int, resamples: int, levels: Sequence[float]) -> list[float]:
    """Bias-corrected, accelerated bootstrap quantiles of sum(d) / sum(sizes)."""
    rng, n = np.random.default_rng(seed), len(d)
    values = np.empty(resamples)
    step = max(1, _BLOCK_CELLS // n)
    for start in range(0, resamples, step):
        picks = rng.integers(0, n, size=(min(step, resamples - start), n))
        values[start : start + len(picks)] = d[picks].sum(axis=1) / sizes[picks].sum(axis=1)
    below = (np.sum(values < estimate) + 0.5 * np.sum(values == estimate)) / resamples
    bias = _NORMAL.inv_cdf(min(max(float(below), 1 / (resamples + 1)), resamples / (resamples + 1)))
    jackknife = (d.sum() - d) / (sizes.sum() - sizes)
    centred = jackknife.mean() - jackknife
    spread = float(np.sum(centred**2)) ** 1.5
    acceleration = float(np.sum(centred**3)) / (6 * spread) if spread > 0 else 0.0
    corrected = []
    for level in levels:
        z = bias + _NORMAL.inv_cdf(level)
        corrected.append(_NORMAL.cdf(bias + z / (1 - acceleration * z)))
    return [float(q) for q in np.quantile(values, corrected)]


def _incomplete_beta(a: float, b: float, x: float) -> float:
    """Regularised incomplete beta I_x(a, b) by Lentz's continued fraction. Source: Abramowitz and Stegun 26.5.8."""
    if x <= 0 or x >= 1:
        return float(x >= 1)
    if x > (a + 1) / (a + b + 2):
        return 1 - _incomplete_beta(b, a, 1 - x)
    front = math.exp(math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * math.log(x) + b * math.log1p(-x)) / a
    tiny = 1e-300
    c, d, result = 1.0, 0.0, 1.0
    for i in range(400):
        m = i // 2
        if i == 0:
            numerator = 1.0
        elif i % 2 == 0:
            numerator = m * (b - m) * x / ((a + 2 * m - 1) * (a + 2 * m))
        else:
            numerator = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1))
        d = 1 / ((1 + numerator * d) or tiny)
        c = (1 + numerator / c) or tiny
        result *= c * d
        if abs(1 - c * d) < 1e-15:
            break
    return front * (result - 1)
