"""What a sweep concludes: the best value between those tried, what is within noise of it, and where to look next."""

import math
import random
import xml.etree.ElementTree as ET

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.train.sweep import Trial, beyond, ladder, verdict
from gptwright.train.sweepplot import svg_curve, text_curve

FIVE = (0.0025, 0.005, 0.01, 0.02, 0.04)


def bowl(
    best: float, values: tuple[float, ...] = FIVE, noise: float = 0.0, seeds: int = 2, depth: float = 0.01
) -> list[Trial]:
    """Losses that rise with the square of the octaves from the best, moved by what the seed adds and by noise."""
    draw = random.Random(7)
    shift = [draw.gauss(0, 0.05) for _ in range(seeds)]
    return [
        Trial(v, s, 2 + depth * math.log2(v / best) ** 2 + shift[s] + draw.gauss(0, noise))
        for v in values
        for s in range(seeds)
    ]


@given(st.floats(0.004, 0.025))
def test_verdict_when_the_curve_is_a_parabola_then_finds_its_lowest_point(best: float) -> None:
    assert verdict(bowl(best)).best == pytest.approx(best, rel=0.01)


def test_verdict_when_seeds_differ_more_than_values_then_pairs_still_tell_them_apart() -> None:
    found = verdict(bowl(0.01, noise=0.001))
    assert found.noise is not None
    assert found.noise < 0.004
    assert found.tried == 0.01
    assert not found.within(0.0025)
    assert found.low is not None
    assert found.high is not None
    assert 0.005 < float(found.low) < 0.01 < float(found.high) < 0.02


def test_verdict_when_noise_hides_the_curve_then_the_true_best_is_rarely_ruled_out() -> None:
    kept = 0
    for seed in range(200):
        draw = random.Random(seed)
        trials = [Trial(v, s, 2 + draw.gauss(0, 0.2)) for v in FIVE for s in range(3)]
        kept += verdict(trials).within(0.01)
    assert kept >= 160  # of 200: all five values are alike, so the lowest is low by chance


def test_verdict_when_a_noise_of_known_size_is_added_then_the_estimate_is_near_it() -> None:
    estimates = []
    for seed in range(200):
        draw = random.Random(seed)
        trials = [Trial(v, s, draw.gauss(0, 0.01)) for v in (1.0, 2.0, 4.0) for s in range(3)]
        noise = verdict(trials).noise
        assert noise is not None
        estimates.append(noise**2)
    assert math.sqrt(sum(estimates) / len(estimates)) == pytest.approx(0.01, rel=0.1)


def test_verdict_when_a_value_diverges_then_it_bounds_the_interval_and_is_never_best() -> None:
    trials = [t for t in bowl(0.02) if t.value < 0.04] + [Trial(0.04, 0, None), Trial(0.04, 1, 2.0)]
    found = verdict(trials)
    assert found.tried == 0.02
    assert found.best == 0.02
    assert found.high is not None
    assert float(found.high) < 0.04
    assert math.isinf(found.means[0.04])
    assert "diverged" in text_curve(found, trials)


def test_verdict_when_one_seed_then_noise_is_not_known_and_not_made_up() -> None:
    found = verdict(bowl(0.01, seeds=1))
    assert found.noise is None
    assert found.margin == 0
    assert found.low == found.high == 0.01


def test_verdict_when_a_value_lacks_a_seed_then_it_does_not_count() -> None:
    trials = [*bowl(0.01), Trial(0.08, 0, 0.1)]
    assert 0.08 not in verdict(trials).means


def test_verdict_when_values_are_words_then_the_lowest_mean_wins_without_an_interval() -> None:
    trials = [Trial(v, s, loss + s) for v, loss in (("muon", 1.9), ("adamw", 2.0)) for s in (0, 1)]
    found = verdict(trials)
    assert (found.best, found.low, found.high) == ("muon", None, None)
    assert not found.within("adamw")
    assert found.within("muon")
    assert "muon" in text_curve(found, trials)
    ET.fromstring(svg_curve(found, trials, "optimizer", "title"))


def test_verdict_when_shares_begin_at_nothing_then_the_scale_is_even() -> None:
    trials = [Trial(v, s, 2 + (v - 0.08) ** 2) for v in (0.0, 0.05, 0.1, 0.2) for s in (0, 1)]
    assert verdict(trials).best == pytest.approx(0.08, abs=0.01)


def test_verdict_when_all_diverged_then_says_so() -> None:
    with pytest.raises(ValueError, match="diverged"):
        verdict([Trial(0.1, 0, None)])
    with pytest.raises(ValueError, match="no value"):
        verdict([])


@pytest.mark.parametrize(
    ("means", "expected"),
    [
        ({0.01: 2.0, 0.02: 1.9, 0.04: 1.8}, 0.08),
        ({0.01: 1.7, 0.02: 1.9, 0.04: 2.0}, 0.005),
        ({0.01: 1.9, 0.02: 1.8, 0.04: 1.9}, None),
        ({0.01: 1.9, 0.02: 1.8, 0.04: math.inf}, None),
        ({0.0: 1.7, 0.1: 1.9}, None),
        ({"muon": 1.0, "adamw": 2.0}, None),
    ],
)
def test_beyond_when_the_lowest_is_at_an_end_then_is_one_step_out(means: dict, expected: float | None) -> None:
    assert beyond(means) == expected


def test_ladder_when_made_has_values_that_can_be_typed() -> None:
    assert ladder(0.01234) == [0.00309, 0.00617, 0.0123, 0.0247, 0.0494]


def test_pictures_when_drawn_then_show_every_value_and_the_svg_is_whole() -> None:
    trials = bowl(0.01, noise=0.001)
    found = verdict(trials)
    text = text_curve(found, trials)
    assert max(map(len, text.splitlines())) <= 100
    lines = text.splitlines()
    assert [line.split()[-0 if line.startswith(" ") else 1] for line in lines[:-1]] == [
        "0.0025",
        "0.005",
        "0.01",
        "0.02",
        "0.04",
    ]
    assert lines[2].startswith("*")
    root = ET.fromstring(svg_curve(found, trials, "lr_matrix", "a <title> & more"))
    dots = [e for e in root.iter() if e.tag.endswith("circle")]
    assert len(dots) == len(trials)
    assert all(0 <= float(e.get("cx", "-1")) <= 720 and 0 <= float(e.get("cy", "-1")) <= 360 for e in dots)
