"""Histograms: no value is lost, quantiles are near, and what fails never shares a bin with what passes."""

import operator

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.report.histogram import BINS, Counts, Spread

OPS = {"<": operator.lt, "<=": operator.le, ">": operator.gt, ">=": operator.ge}
shares = st.lists(st.integers(0, 100).map(lambda n: n / 100), min_size=1, max_size=60)
counts = st.lists(st.one_of(st.integers(0, 50), st.integers(0, 2_000_000)).map(float), min_size=1, max_size=60)


@settings(max_examples=300)
@given(st.one_of(shares, counts), st.data(), st.sampled_from(sorted(OPS)), st.sampled_from([np.float32, np.float64]))
def test_bins_when_values_lie_on_both_sides_then_the_threshold_parts_them(
    values: list[float], data: st.DataObject, op: str, kind: type
) -> None:
    threshold = data.draw(st.one_of(st.sampled_from(values), st.just(0.3), st.just(50.0)))
    array = np.array(values, kind)
    spread = Spread()
    spread.add(array)
    axis = spread.axis([threshold])
    counted = Counts(axis, op)
    counted.add(array)
    assert counted.bins.sum() == len(values)
    fails = [OPS[op](axis.value((at + 0.5) / BINS), threshold) for at in range(BINS)]
    failing = int(counted.bins[np.array(fails)].sum())
    expected = int(OPS[op](array, kind(threshold)).sum())
    edge = axis.place(threshold) * BINS
    if 0.5 < edge < BINS - 0.5:  # at the very ends outliers stick to the outermost bin
        assert failing == expected


@given(st.lists(st.floats(-1e6, 1e6, width=32), min_size=1, max_size=200), st.floats(0, 1))
def test_quantile_when_asked_for_then_it_is_near_the_true_one(values: list[float], share: float) -> None:
    array = np.array(values, np.float32)
    spread = Spread()
    for piece in np.array_split(array, 3):
        spread.add(piece)
    ordered = np.sort(array)
    true = float(ordered[min(max(int(np.ceil(share * len(ordered))) - 1, 0), len(ordered) - 1)])
    assert spread.quantile(share) == pytest.approx(true, rel=1 / 64, abs=1e-30)
    assert spread.n == len(values)


def test_axis_when_values_are_spread_over_magnitudes_then_it_is_logarithmic_and_shares_never_are() -> None:
    lengths, parts = Spread(), Spread()
    lengths.add(np.geomspace(10, 100_000, 1000))
    parts.add(np.linspace(0, 0.9, 1000))
    assert lengths.axis([50]).log
    axis = parts.axis([0.3])
    assert (axis.low, axis.high) == pytest.approx((0.0, 1.0), abs=1e-9)
    assert not axis.log
