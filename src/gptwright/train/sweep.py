"""What a sweep means: which values to try, which is best, and which cannot be told from it. Arithmetic only; runs are made elsewhere.

Every value is run with the same seeds, so values are compared in pairs: what a seed adds to all of them falls out. What is left when the
means of values and of seeds are taken away is the noise of one run, and Student's t makes the margin of it.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

Value = float | int | str

# Student's t, 95 % on one side, by degrees of freedom (1 to 10, then 15, 20, 30, many). A value is asked whether it is worse than the best.
_T = (6.314, 2.920, 2.353, 2.132, 2.015, 1.943, 1.895, 1.860, 1.833, 1.812)
_T_BEYOND = ((15, 1.753), (20, 1.725), (30, 1.697))
_T_MANY = 1.645


@dataclass(frozen=True)
class Trial:
    """One proxy run: a value, a seed, and its held-out bits per byte (None: the loss was not a number)."""

    value: Value
    seed: int
    loss: float | None


@dataclass(frozen=True)
class Verdict:
    """What a sweep found.

    Args:
        means: mean loss of each value that was run with every seed, in the order of the values; infinite where a run diverged.
        noise: standard deviation of one run beside what values and seeds explain; None: too few runs to know.
        margin: a mean so much above the best one is worse beyond noise (95 %); 0 when the noise is not known.
        best: the value with the lowest mean, or between it and its neighbours the lowest point of a parabola.
        tried: the value with the lowest mean.
        low: lower end of the interval whose loss is within the margin; the lowest value tried when the curve does not rise before it.
        high: its upper end.
        open_low: the interval may go on below.
        open_high: the interval may go on above.
    """

    means: dict[Value, float]
    noise: float | None
    margin: float
    best: Value
    tried: Value
    low: Value | None
    high: Value | None
    open_low: bool = False
    open_high: bool = False

    def within(self, value: Value) -> bool:
        """Whether a value cannot be told from the best: one that was tried by its mean, another by the interval."""
        if value in self.means:
            return self.means[value] <= self.means[self.tried] + self.margin
        if self.low is None or self.high is None or isinstance(value, str):
            return False
        return float(self.low) <= float(value) <= float(self.high)


def ladder(centre: float, factors: Sequence[float] = (0.25, 0.5, 1, 2, 4)) -> list[float]:
    """Values around one, each a factor of it, rounded to three figures so that they can be typed."""
    return [float(f"{centre * factor:.3g}") for factor in factors]


def verdict(trials: Iterable[Trial]) -> Verdict:
    """Judge the trials of one key.

    Args:
        trials: of at least one value; a value counts when it was run with every seed that any value was run with.

    Raises:
        ValueError: no value was run with every seed, or all of them diverged.
    """
    table: dict[Value, dict[int, float]] = {}
    for trial in trials:
        table.setdefault(trial.value, {})[trial.seed] = math.inf if trial.loss is None else trial.loss
    seeds = sorted({seed for row in table.values() for seed in row})
    whole = {value: row for value, row in table.items() if len(row) == len(seeds)}
    means = {value: sum(row.values()) / len(seeds) for value, row in sorted(whole.items(), key=_order)}
    finite = {value: mean for value, mean in means.items() if math.isfinite(mean)}
    if not finite:
        raise ValueError("every value diverged" if means else "no value was run with every seed")
    noise, freedom = _noise({value: whole[value] for value in finite}, seeds)
    margin = _t(freedom) * noise * math.sqrt(2 / len(seeds)) if noise is not None else 0.0
    tried = min(finite, key=lambda value: finite[value])
    if any(isinstance(value, str) for value in means):
        return Verdict(means, noise, margin, tried, tried, None, None)
    points = [(float(value), mean) for value, mean in means.items()]
    best = _lowest(points)
    (low, open_low), (high, open_high) = (_end(points, margin, side) for side in (-1, 1))
    return Verdict(means, noise, margin, best, tried, low, high, open_low, open_high)


def beyond(means: Mapping[Value, float]) -> float | None:
    """The value to try next when the lowest mean is at an end of the values: the same step further out; None when it is inside."""
    points = [(float(value), mean) for value, mean in means.items() if not isinstance(value, str)]
    if len(points) < 2 or min(value for value, _ in points) <= 0:
        return None
    lowest = min(range(len(points)), key=lambda i: points[i][1])
    if lowest == 0 and math.isfinite(points[0][1]):
        return float(f"{points[0][0] ** 2 / points[1][0]:.3g}")
    if lowest == len(points) - 1:
        return float(f"{points[-1][0] ** 2 / points[-2][0]:.3g}")
    return None


def _order(item: tuple[Value, dict[int, float]]) -> tuple[int, float, str]:
    value = item[0]
    return (1, 0.0, value) if isinstance(value, str) else (0, float(value), "")


def _noise(table: Mapping[Value, Mapping[int, float]], seeds: Sequence[int]) -> tuple[float | None, int]:
    """Standard deviation and degrees of freedom of what is left beside means of values and of seeds.

    Only the three values with the lowest means are asked: far from the best, runs differ by more than noise near it.
    """
    near = sorted(table.values(), key=lambda row: sum(row.values()))[:3]
    freedom = (len(near) - 1) * (len(seeds) - 1)
    if freedom < 1:
        return None, 0
    rows = [sum(row.values()) / len(seeds) for row in near]
    columns = {seed: sum(row[seed] for row in near) / len(near) for seed in seeds}
    middle = sum(rows) / len(rows)
    squares = sum(
        (row[seed] - mean - columns[seed] + middle) ** 2 for row, mean in zip(near, rows, strict=True) for seed in seeds
    )
    return math.sqrt(squares / freedom), freedom


def _t(freedom: int) -> float:
    if freedom <= len(_T):
        return _T[max(freedom, 1) - 1]
    return next((t for limit, t in _T_BEYOND if freedom <= limit), _T_MANY)


def _scale(points: Sequence[tuple[float, float]]) -> bool:
    """Whether values are compared by their logarithms: rates and batches are; shares that start at 0 are not."""
    return all(value > 0 for value, _ in points)


def _lowest(points: Sequence[tuple[float, float]]) -> float:
    """The lowest point of the parabola through the lowest mean and its neighbours; the value itself at an end."""
    at = min(range(len(points)), key=lambda i: points[i][1])
    if at in (0, len(points) - 1) or not all(math.isfinite(y) for _, y in points[at - 1 : at + 2]):
        return points[at][0]
    logs = _scale(points)
    (x0, y0), (x1, y1), (x2, y2) = ((math.log(x) if logs else x, y) for x, y in points[at - 1 : at + 2])
    left, right = (y0 - y1) / (x1 - x0), (y2 - y1) / (x2 - x1)
    if left + right <= 0:
        return points[at][0]
    # Slopes at the two halves' middles; where the line between them crosses zero.
    a, b = (x0 + x1) / 2, (x1 + x2) / 2
    x = a + (b - a) * left / (left + right)
    return float(f"{math.exp(x) if logs else x:.3g}")


def _end(points: Sequence[tuple[float, float]], margin: float, side: int) -> tuple[float, bool]:
    """Where the loss, drawn as straight lines between the means, rises above the margin; and whether it does so at all."""
    at = min(range(len(points)), key=lambda i: points[i][1])
    limit, logs = points[at][1] + margin, _scale(points)
    while 0 <= at + side < len(points):
        (x0, y0), (x1, y1) = points[at], points[at + side]
        if y1 > limit:
            part = (limit - y0) / (y1 - y0) if math.isfinite(y1) else 0.0
            x = x0 * (x1 / x0) ** part if logs else x0 + (x1 - x0) * part
            return float(f"{x:.3g}"), False
        at += side
    return points[at][0], True
