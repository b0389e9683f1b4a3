"""Histograms of signals over any number of documents: one pass to find the range, one to count. Memory does not grow with the corpus."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

BINS = 50
_COARSE = 1 << 16  # of a float32, by its top 16 bits: relative steps of 1/128
LOG_FROM = 100.0  # a signal that goes beyond this and is spread over magnitudes is drawn on a logarithmic axis


@dataclass(frozen=True)
class Axis:
    """Where values lie: equal steps between low and high, of the values or of log10(1 + value)."""

    low: float
    high: float
    log: bool

    def place(self, value: Any) -> Any:
        """Values as shares of the axis, 0 to 1; beyond its ends they stick to them."""
        low, high = self._scaled(self.low), self._scaled(self.high)
        return np.clip((self._scaled(value) - low) / (high - low), 0.0, 1.0)

    def with_edge(self, value: float) -> "Axis":
        """The axis moved by less than a bin, so that a value lies between two bins: what passes and what fails never share one."""
        low, high = float(self._scaled(self.low)), float(self._scaled(self.high))
        step = (high - low) / BINS
        at = float(self._scaled(value))
        moved = at - (low + round((at - low) / step) * step)
        low, high = low + moved, high + moved
        return Axis(10**low - 1, 10**high - 1, True) if self.log else Axis(low, high, False)

    def value(self, place: float) -> float:
        """The value at a share of the axis."""
        low, high = float(self._scaled(self.low)), float(self._scaled(self.high))
        at = low + place * (high - low)
        return float(10**at - 1) if self.log else at

    def _scaled(self, value: Any) -> Any:
        return np.log10(1 + np.maximum(value, -0.9)) if self.log else np.asarray(value, np.float64)


class Spread:
    """First pass: smallest, largest and quantiles, from coarse bins in the order of the values."""

    def __init__(self) -> None:
        self.counts = np.zeros(_COARSE, np.int64)
        self.low, self.high = np.inf, -np.inf

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count values; none of them is NaN."""
        if not len(values):
            return
        bits = (values.astype(np.float32) + np.float32(0)).view(np.uint32)
        ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31)) >> 16
        self.counts += np.bincount(ordered, minlength=_COARSE)
        self.low, self.high = min(self.low, float(values.min())), max(self.high, float(values.max()))

    @property
    def n(self) -> int:
        """How many values were counted."""
        return int(self.counts.sum())

    def quantile(self, share: float) -> float:
        """The value below which this share lies, to 1 part in 128."""
        place = int(np.searchsorted(np.cumsum(self.counts), max(share * self.n, 1)))
        key = np.uint32(min(place, _COARSE - 1) << 16)
        bits = np.uint32(key & np.uint32(0x7FFFFFFF)) if key >> 31 else np.uint32(~key & np.uint32(0xFFFF0000))
        value = float(np.array([bits], np.uint32).view(np.float32)[0])
        return min(max(value, self.low), self.high)

    def axis(self, thresholds: list[float]) -> Axis:
        """An axis that holds nearly all values, and the thresholds."""
        marks = [t for t in thresholds if np.isfinite(t)]
        low, high = min([self.quantile(0.002), *marks]), max([self.quantile(0.998), *marks])
        if low >= 0 and high <= 1:
            low, high = 0.0, 1.0 if high > 0.5 else high
        log = low >= 0 and high > LOG_FROM and high > 20 * max(self.quantile(0.5), 1e-9)
        log = log or (low >= 0 and high > LOG_FROM and high > 20 * max(low, 1.0))
        if high <= low:
            low, high = low - 0.5, high + 0.5
        unit = low == 0 and high == 1
        # A little air beyond the outermost mark, so that it does not lie on the frame.
        pad = 0.0 if log or unit else (high - low) * 0.03
        axis = Axis(
            low if low == 0 else max(low - pad, 0.0 if low >= 0 else low - pad), high * 1.2 if log else high + pad, log
        )
        return axis.with_edge(marks[0]) if marks else axis


class Counts:
    """Second pass: how many documents lie in each bin of an axis."""

    def __init__(self, axis: Axis, op: str) -> None:
        self.axis = axis
        self.below = op in (">", "<=")  # a value that is the threshold belongs to the bin below it
        self.bins = np.zeros(BINS, np.int64)

    def add(self, values: npt.NDArray[Any]) -> None:
        """Count values; none of them is NaN. What lies beyond the ends is in the outermost bins."""
        at = self.axis.place(values.astype(np.float64)) * BINS
        # A hundred-thousandth of a bin: what float32 and the logarithm take from a value that is the threshold.
        place = np.ceil(at - 1e-5) - 1 if self.below else np.floor(at + 1e-5)
        self.bins += np.bincount(np.clip(place, 0, BINS - 1).astype(np.int64), minlength=BINS)
