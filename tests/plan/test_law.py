"""The law: planted constants come back, repetition is worth what it should be, intervals hold what they promise, projects move it."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.plan.fit import main
from gptwright.plan.law import (
    Correction,
    Law,
    Run,
    correct,
    effective_tokens,
    fit,
    forecast,
    load_runs,
    passes_worth,
    residuals,
)

PLANTED = Law(
    e=0.7, a=0.25, alpha=0.4, b=0.6, beta=0.35, kappa=0.5, spread=0.01, other_text=0.15, n=15, smallest=(3e5, 5e5), largest=(6e6, 8e6),
    corpus="planted", fitted="2026-11-24",
)  # fmt: skip


def runs_of(law: Law, noise: float = 0.0, seed: int = 0) -> list[Run]:
    """A grid of sizes and tokens, and some that read their text many times."""
    random = np.random.default_rng(seed)
    grid = [(n, d, 4e6) for n in (3e5, 7e5, 1.5e6, 3e6, 6e6) for d in (5e5, 2e6, 8e6)]
    grid += [(n, 4e6, u) for n in (3e5, 1.5e6) for u in (1e5, 2.5e5, 5e5)]
    return [Run(n, d, u, law(n, d, u) * math.exp(noise * random.standard_normal())) for n, d, u in grid]


@settings(max_examples=8, deadline=None)
@given(e=st.floats(0.4, 1.0), alpha=st.floats(0.25, 0.6), beta=st.floats(0.25, 0.6), kappa=st.floats(0.3, 0.9))
def test_fit_when_constants_are_planted_then_forecasts_far_from_the_runs_agree(e, alpha, beta, kappa):
    law = replace(PLANTED, e=e, alpha=alpha, beta=beta, kappa=kappa)
    found = fit(runs_of(law), leave_one_out=False)
    # Single constants trade against each other; what they say of runs must not: inside, and beyond in each direction.
    for n, d, u in [(1e6, 1e6, 4e6), (2e6, 4e6, 2e5), (1.2e7, 8e6, 8e6), (1e6, 2e7, 2e7)]:
        assert found(n, d, u) == pytest.approx(law(n, d, u), rel=0.01)


def test_fit_when_runs_are_noisy_then_the_spread_left_out_is_about_the_noise():
    law = fit(runs_of(PLANTED, noise=0.01))
    assert 0.007 < law.spread < 0.025
    assert law.n == 21
    assert law.beyond(1e6, 1e6) == 1
    assert law.beyond(1.2e7, 1e6) == pytest.approx(2)
    assert law.beyond(1e6, 1e5) == pytest.approx(5)


def test_fit_when_one_run_went_astray_then_the_others_hardly_feel_it():
    runs = runs_of(PLANTED, noise=0.003)
    astray = [*runs[:-1], replace(runs[-1], bits_per_byte=1.5 * runs[-1].bits_per_byte)]
    found = fit(astray, leave_one_out=False)
    assert max(abs(off) for off in residuals(found, runs[:-1])) < 0.03


def test_fit_when_runs_are_too_few_or_broken_then_refused():
    with pytest.raises(ValueError, match="seven"):
        fit(runs_of(PLANTED)[:6])
    with pytest.raises(ValueError, match="above zero"):
        fit([*runs_of(PLANTED), Run(1e6, 1e6, 1e6, float("nan"))])


@given(unique=st.floats(1e4, 1e9), passes=st.floats(0.01, 1e4), r=st.floats(1, 50))
def test_effective_tokens_when_text_is_read_again_then_worth_less_each_time_and_never_more_than_the_limit(
    unique, passes, r
):
    worth = effective_tokens(passes * unique, unique, r)
    assert worth <= passes * unique * (1 + 1e-12)
    assert worth <= unique * (1 + r) * (1 + 1e-12)
    assert effective_tokens(1.1 * passes * unique, unique, r) >= worth
    if passes <= 1:
        assert worth == passes * unique


def test_passes_worth_when_the_text_feeds_the_model_then_as_published_and_less_for_larger_models():
    assert passes_worth(1e6, 2e7, 0.6) == passes_worth(1e6, 1e9, 0.6) == 15.4
    assert 1 < passes_worth(1e6, 1e6, 0.6) < 3
    # The larger of two models gains less from reading the same small text again.
    assert passes_worth(2e6, 1e6, 0.6) < passes_worth(1e6, 1e6, 0.6)


def test_effective_tokens_at_four_passes_then_nearly_as_good_as_new_as_published():
    # arXiv 2305.16264: up to four passes there is next to no loss, at forty hardly a gain is left.
    assert effective_tokens(4, 1, 15.4) > 3.6
    assert effective_tokens(80, 1, 15.4) - effective_tokens(40, 1, 15.4) < 2


def test_forecast_when_runs_scatter_as_the_law_says_then_nine_of_ten_lie_in_the_interval():
    random, inside = np.random.default_rng(1), 0
    own = Correction(1.0, PLANTED.spread, 4)
    for _ in range(400):
        said = forecast(PLANTED, 1e6, 2e6, 4e6, own)
        fact = PLANTED(1e6, 2e6, 4e6) * math.exp(PLANTED.spread * random.standard_normal())
        inside += said.low <= fact <= said.high
    assert 0.85 < inside / 400 < 0.97


def test_forecast_when_the_text_is_unknown_or_the_size_beyond_then_the_interval_widens():
    new = forecast(PLANTED, 1e6, 2e6, 4e6)
    known = forecast(PLANTED, 1e6, 2e6, 4e6, correct(PLANTED, [1.1, 1.1]))
    beyond = forecast(PLANTED, 1e8, 2e9, 4e9, correct(PLANTED, [1.1, 1.1]))
    widths = [math.log(f.high / f.low) for f in (new, known, beyond)]
    assert widths[1] < widths[0] / 4
    assert widths[2] > 2 * widths[1]
    assert (new.beyond, known.beyond) == (1, 1)
    assert beyond.beyond == pytest.approx(2e9 / 8e6)
    assert "this project" in known.basis
    assert "this project" not in new.basis


def test_correct_when_a_project_has_runs_then_their_level_is_taken_and_one_astray_is_not():
    assert correct(PLANTED, ()).factor == 1
    one = correct(PLANTED, [1.2])
    assert 1.19 < one.factor < 1.2
    several = correct(PLANTED, [1.2, 1.21, 1.19, 3.0])
    assert several.factor == pytest.approx(1.205, abs=0.01)
    assert correct(PLANTED, [1.2, 1.2]).spread < one.spread < PLANTED.other_text


def test_law_when_written_as_json_then_it_comes_back(tmp_path):
    path = tmp_path / "law.json"
    path.write_text(json.dumps(PLANTED.to_json()), encoding="utf-8")
    assert Law.load(path) == PLANTED


def test_law_that_is_shipped_then_it_is_the_fit_of_the_runs_that_are_shipped():
    rows, shipped = load_runs(), Law.load()
    runs = [Run.of(row) for row in rows]
    found = fit(runs, leave_one_out=False)
    assert shipped.n == len(rows)
    for run in runs:
        size = (run.params, run.tokens, run.unique)
        assert shipped(*size) == pytest.approx(found(*size), rel=2e-3)
    assert max(abs(off) for off in residuals(shipped, runs)) < 0.05
    assert all(row["date"] >= "2026" and row["machine"] for row in rows)


def test_fit_as_a_command_then_writes_the_constants_and_refuses_mixed_texts(tmp_path, capsys):
    rows = [
        {**vars(run), "unique_tokens": run.unique, "corpus": "planted", "name": str(i)}
        for i, run in enumerate(runs_of(PLANTED))
    ]
    (tmp_path / "runs.json").write_text(json.dumps(rows[:9]), encoding="utf-8")
    assert main([str(tmp_path / "runs.json"), "--out", str(tmp_path / "law.json")]) == 0
    assert "spread of a run left out" in capsys.readouterr().out
    assert Law.load(tmp_path / "law.json")(1e6, 1e6, 4e6) == pytest.approx(PLANTED(1e6, 1e6, 4e6), rel=0.03)
    (tmp_path / "mixed.json").write_text(json.dumps([*rows[:8], {**rows[8], "corpus": "other"}]), encoding="utf-8")
    with pytest.raises(SystemExit):
        main([str(tmp_path / "mixed.json")])
