"""Exact copies: groups found out of core, and which member of a group is kept."""

import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.copies import ExactCopies, StoredCopies


def ids(values: list[int]) -> np.ndarray:
    return (
        np.array([value.to_bytes(16, "big") for value in values], "S16").view("V16") if values else np.zeros(0, "V16")
    )


def spread(values: np.ndarray) -> np.ndarray:
    """Ids over the whole range, equal where the numbers are."""
    return ids(
        [int.from_bytes(int(v * 2654435761 + 12345).to_bytes(8, "big") * 2, "little") % (1 << 128) for v in values]
    )


@settings(max_examples=200)
@given(st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans()), min_size=1, max_size=14))
def test_copies_when_texts_repeat_then_each_points_to_the_preferred_row_of_the_same_text(
    rows: list[tuple[int, bool, bool]],
) -> None:
    alive = np.array([row[1] for row in rows])
    heldout = np.array([row[2] for row in rows])
    with tempfile.TemporaryDirectory() as folder:
        groups = ExactCopies.find(ids([row[0] for row in rows]), Path(folder))
        kept_of = groups.resolve(alive, heldout).kept_of
    for row, (text, lives, _) in enumerate(rows):
        same = [i for i, other in enumerate(rows) if other[0] == text and other[1]]
        if not lives:
            assert kept_of[row] == -1
            continue
        preferred = min(same, key=lambda i: (not rows[i][2], i))
        assert kept_of[row] == (-1 if preferred == row else preferred)


@pytest.mark.parametrize("partition_rows", [64, 700, 10_000])
def test_groups_when_partitions_are_small_then_they_are_the_same(tmp_path: Path, partition_rows: int) -> None:
    values = np.random.default_rng(5).integers(0, 3000, 5000)
    whole = ExactCopies.find(spread(values), tmp_path / "whole", 1 << 20)
    pieces = ExactCopies.find(spread(values), tmp_path / "pieces", partition_rows)
    assert np.array_equal(whole.rows, pieces.rows)
    assert np.array_equal(whole.starts, pieces.starts)
    assert not list((tmp_path / "pieces").glob("*.tmp"))
    members = {int(v): np.flatnonzero(values == v) for v in np.unique(values) if (values == v).sum() > 1}
    found = [whole.rows[a:b] for a, b in zip(whole.starts[:-1], whole.starts[1:], strict=True)]
    assert sorted(map(tuple, found)) == sorted(map(tuple, members.values()))


def test_copies_when_nothing_is_there_then_nothing_is_found(tmp_path: Path) -> None:
    groups = ExactCopies.find(ids([]), tmp_path)
    assert len(groups.resolve(np.zeros(0, bool), np.zeros(0, bool)).kept_of) == 0


def test_stored_copies_when_near_ones_are_known_then_they_go_while_their_original_lives(tmp_path: Path) -> None:
    # Rows 0, 1 and 4 are one text, 2 and 3 another that is nearly the same; 5 is alone.
    exact = ExactCopies.find(ids([7, 7, 8, 8, 7, 9]), tmp_path)
    preferred = np.array([False, True, False, False, False, True])
    stored = StoredCopies(exact, np.array([[2, 1], [3, 1]]), preferred)
    alive, none = np.ones(6, bool), np.zeros(6, bool)
    assert stored.resolve(alive, none).kept_of.tolist() == [1, -1, 1, 1, 1, -1]
    assert stored.resolve(np.array([1, 0, 1, 1, 1, 1], bool), none).kept_of.tolist() == [-1, -1, -1, 2, 0, -1]
    heldout = np.array([0, 0, 0, 0, 1, 0], bool)
    assert stored.resolve(alive, heldout).kept_of.tolist() == [4, 4, 4, 4, -1, -1]


@settings(max_examples=200)
@given(
    st.lists(st.tuples(st.integers(1, 4), st.booleans(), st.booleans(), st.booleans()), min_size=1, max_size=10),
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=8),
)
def test_stored_copies_when_chosen_anew_then_every_copy_points_to_a_living_row_that_is_kept(
    rows: list[tuple[int, bool, bool, bool]], pairs: list[tuple[int, int]]
) -> None:
    near = np.array([(a, b) for a, b in dict(pairs).items() if a != b and max(a, b) < len(rows)], np.int64).reshape(
        -1, 2
    )
    _, alive, heldout, preferred = (np.array(column) for column in zip(*rows, strict=True))
    with tempfile.TemporaryDirectory() as folder:
        exact = ExactCopies.find(ids([row[0] for row in rows]), Path(folder))
        kept_of = StoredCopies(exact, near, preferred).resolve(alive, heldout).kept_of
    for row, keep in enumerate(kept_of.tolist()):
        assert keep == -1 or (alive[row] and alive[keep] and kept_of[keep] == -1 and keep != row)
