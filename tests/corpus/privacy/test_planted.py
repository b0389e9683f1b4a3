"""What the rules find of a planted set. The bounds hold the lower ends of what was measured; they are no promise about other text."""

import pytest

from gptwright.corpus.privacy.measure import NOT_FREE, Measured, measure, rows, wilson
from gptwright.corpus.privacy.planted import PLANTED, planted_set


@pytest.fixture(scope="module")
def measured() -> Measured:
    return measure(planted_set(1000, seed=0))


def test_planted_set_when_made_twice_then_it_is_the_same_and_each_plant_stands_where_it_says() -> None:
    first = planted_set(50, seed=3)
    assert first == planted_set(50, seed=3)
    assert first != planted_set(50, seed=4)
    for document in first:
        for plant in document.plants:
            assert 0 <= plant.start < plant.end <= len(document.text)
            assert "{}" not in document.text[plant.start : plant.end]


@pytest.mark.parametrize(
    ("sort", "bound"),
    [("email", 0.97), ("phone", 0.9), ("ipv4", 0.97), ("ipv6", 0.97), ("iban", 0.97), ("card", 0.97), ("national id", 0.93),
     ("token", 0.97), ("jwt", 0.97), ("private key", 0.97), ("password", 0.93), ("address", 0.8)],
)  # fmt: skip
def test_recall_when_measured_on_the_planted_set_then_it_holds(measured: Measured, sort: str, bound: float) -> None:
    assert measured.planted[sort] > 100
    assert measured.found[sort] / measured.planted[sort] >= bound


@pytest.mark.parametrize(
    ("kind", "bound"),
    [("EMAIL", 0.97), ("PHONE", 0.93), ("IP", 0.97), ("IBAN", 0.97), ("CARD", 0.96), ("NATIONAL_ID", 0.96), ("SECRET", 0.97),
     ("ADDRESS", 0.9)],
)  # fmt: skip
def test_precision_when_measured_on_the_planted_set_then_it_holds(measured: Measured, kind: str, bound: float) -> None:
    assert measured.right[kind] / measured.claimed[kind] >= bound


def test_hard_negatives_when_measured_then_hardly_any_is_touched(measured: Measured) -> None:
    assert measured.negatives > 1000
    assert measured.negatives_touched / measured.negatives <= 0.02


def test_table_when_printed_then_every_planted_sort_has_its_interval(measured: Measured) -> None:
    table = list(rows(measured))
    assert [line[:14].strip() for line in table] == list(PLANTED)
    assert all(" to " in line for line in table)
    assert "never means" in NOT_FREE


def test_wilson_when_compared_to_published_values_then_it_agrees() -> None:
    low, high = wilson(81, 263)  # Newcombe 1998, Statistics in Medicine 17, table I, method 3
    assert (round(low, 4), round(high, 4)) == (0.2553, 0.3662)
    assert wilson(0, 0) == (0.0, 1.0)
