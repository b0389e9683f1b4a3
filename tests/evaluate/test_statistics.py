"""Statistics against brute force and published values."""

import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.evaluate.statistics import (
    compare_correct,
    compare_ratio,
    holm,
    mcnemar_exact,
    mde_correct,
    mde_paired,
    ratio_interval,
    student_cdf,
    student_quantile,
    wilson,
)


def test_wilson_at_a_published_example_then_agrees():
    # Newcombe 1998, table I: 81/263 gives 0.2553 to 0.3662; 0/20 gives 0 to 0.1611.
    share = wilson(81, 263)
    assert (round(share.low, 4), round(share.high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 20).low == 0.0
    assert round(wilson(0, 20).high, 4) == 0.1611


@given(n=st.integers(1, 300), data=st.data())
def test_wilson_for_any_count_then_holds_the_share_and_mirrors(n, data):
    k = data.draw(st.integers(0, n))
    share, mirror = wilson(k, n), wilson(n - k, n)
    assert 0 <= share.low <= share.value <= share.high <= 1
    assert math.isclose(share.low, 1 - mirror.high, abs_tol=1e-12)


@pytest.mark.parametrize(
    ("t", "df", "p"),
    [(2.262157, 9, 0.975), (12.706205, 1, 0.975), (1.644854, 1e7, 0.95), (0.0, 5, 0.5), (0.8834, 9, 0.8)],
)
def test_student_cdf_at_tabulated_points_then_agrees(t, df, p):
    assert student_cdf(t, df) == pytest.approx(p, abs=2e-5)
    assert student_cdf(-t, df) == pytest.approx(1 - p, abs=2e-5)


@pytest.mark.parametrize("df", [1, 2.5, 7, 400])
def test_student_cdf_against_numerical_integration_then_agrees(df):
    def density(x):
        return (
            np.exp(math.lgamma((df + 1) / 2) - math.lgamma(df / 2))
            / math.sqrt(df * math.pi)
            * (1 + x**2 / df) ** (-(df + 1) / 2)
        )

    for t in (0.3, 1.7, 4.0):
        x = np.linspace(0, t, 20_001)
        integral = float(np.trapezoid(density(x), x))
        assert student_cdf(t, df) == pytest.approx(0.5 + integral, abs=1e-8)
        assert student_quantile(0.5 + integral, df) == pytest.approx(t, abs=1e-5)


@given(a=st.integers(0, 9), b=st.integers(0, 9))
def test_mcnemar_for_small_counts_then_equals_enumeration(a, b):
    n = a + b
    outcomes = [sum(bits) for bits in itertools.product((0, 1), repeat=n)]
    extreme = sum(abs(k - n / 2) >= abs(a - n / 2) for k in outcomes)
    assert mcnemar_exact(a, b) == pytest.approx(extreme / len(outcomes), abs=1e-12)


def test_compare_ratio_with_equal_sizes_then_is_the_paired_t_test():
    rng = np.random.default_rng(1)
    a, d = rng.normal(5, 1, 40), rng.normal(0.2, 0.5, 40)
    result = compare_ratio(a + d, a, np.ones(40))
    t = d.mean() / (d.std(ddof=1) / math.sqrt(40))
    assert result.delta == pytest.approx(d.mean())
    assert result.p_value == pytest.approx(2 * student_cdf(-abs(t), 39))
    assert result.low < result.delta < result.high
    # Near-normal differences: the bootstrap interval and the t interval agree within a tenth of the width.
    half = student_quantile(0.975, 39) * d.std(ddof=1) / math.sqrt(40)
    assert result.high - result.low == pytest.approx(2 * half, rel=0.1)
    assert compare_ratio(a + d, a, np.ones(40)) == result


def test_compare_ratio_p_value_against_sign_flips_then_agrees():
    rng = np.random.default_rng(2)
    sizes = rng.integers(50, 500, 60).astype(float)
    a = 2.0 * sizes + rng.normal(0, 20, 60)
    b = a - 0.03 * sizes + rng.normal(0, 12, 60)
    result = compare_ratio(a, b, sizes)
    d = a - b
    flips = rng.choice([-1.0, 1.0], size=(40_000, 60))
    share = np.mean(np.abs(flips @ d) >= abs(d.sum()))
    assert result.p_value == pytest.approx(share, abs=0.012)


@pytest.mark.slow
def test_bootstrap_interval_over_many_skewed_samples_then_covers_near_95_percent():
    rng = np.random.default_rng(3)
    hits, power_hits, trials = 0, 0, 400
    for trial in range(trials):
        sizes = rng.lognormal(5, 0.8, 80)
        d = 0.05 * sizes + rng.normal(0, 0.3, 80) * sizes
        result = compare_ratio(2 * sizes + d, 2 * sizes, sizes, seed=trial, resamples=1000)
        hits += result.low <= 0.05 <= result.high
        power_hits += result.significant
    assert 0.90 <= hits / trials <= 0.985


def test_mde_paired_at_its_own_effect_then_the_test_finds_it_four_times_in_five():
    rng = np.random.default_rng(4)
    n, sd = 30, 1.3
    effect = mde_paired(sd, n)
    samples = rng.normal(effect, sd, size=(4000, n))
    t = samples.mean(axis=1) / (samples.std(axis=1, ddof=1) / math.sqrt(n))
    assert np.mean(np.abs(t) > student_quantile(0.975, n - 1)) == pytest.approx(0.8, abs=0.03)


def test_mde_correct_for_research_table_then_agrees():
    # 35 % correct, correlation 0.7 between models: 7.3 points at 200 questions, 3.3 at 1,000 (research, measured by simulation).
    discordant = 2 * 0.35 * 0.65 * (1 - 0.7)
    assert mde_correct(200, discordant) == pytest.approx(0.073, abs=0.002)
    assert mde_correct(1000, discordant) == pytest.approx(0.033, abs=0.001)


def test_compare_ratio_with_clusters_then_widens_when_items_repeat():
    rng = np.random.default_rng(5)
    d = np.repeat(rng.normal(0.1, 1, 20), 10)
    sizes = np.ones(200)
    alone = compare_ratio(d + 3, np.full(200, 3.0), sizes)
    grouped = compare_ratio(d + 3, np.full(200, 3.0), sizes, clusters=[i // 10 for i in range(200)])
    assert grouped.delta == pytest.approx(alone.delta)
    assert grouped.high - grouped.low > 2.5 * (alone.high - alone.low)
    assert grouped.n == 20


def test_compare_ratio_of_a_model_with_itself_then_shows_no_difference():
    result = compare_ratio([1.0, 2.0, 3.0], [1.0, 2.0, 3.0], [1, 1, 1])
    assert (result.delta, result.p_value, result.low, result.high) == (0, 1, 0, 0)
    assert not result.significant


def test_compare_correct_with_one_sided_wins_then_is_significant_and_signed():
    a = [True] * 30 + [False] * 70
    b = [False] * 20 + [True] * 10 + [False] * 70
    result = compare_correct(a, b)
    assert result.delta == pytest.approx(0.2)
    assert result.p_value == pytest.approx(2 / 2**20)
    assert 0.1 < result.low < 0.2 < result.high < 0.3
    assert "A is better" in result.verdict(lower_is_better=False)


def test_compare_ratio_with_different_items_then_user_error():
    with pytest.raises(UserError, match="same items"):
        compare_ratio([1.0, 2.0], [1.0], [1, 1])
    with pytest.raises(UserError, match="at least two"):
        compare_ratio([1.0], [1.0], [1])


def test_ratio_interval_with_one_document_then_no_interval():
    value, low, high = ratio_interval([8.0], [4])
    assert value == 2
    assert math.isnan(low)
    assert math.isnan(high)


@settings(max_examples=50)
@given(st.lists(st.floats(0, 1), min_size=1, max_size=8))
def test_holm_for_any_p_values_then_is_monotone_and_at_least_raw(values):
    adjusted = holm(values)
    order = sorted(range(len(values)), key=lambda i: values[i])
    assert all(q >= p for p, q in zip(values, adjusted, strict=True))
    assert all(adjusted[i] <= adjusted[j] for i, j in itertools.pairwise(order))
