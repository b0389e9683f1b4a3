"""A conversation's branches: whatever is done, nothing is lost and one way through them is shown."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.studio.tree import ROOT, Tree, Turn

STEPS = st.lists(st.tuples(st.sampled_from(["ask", "answer", "edit", "again", "step", "show"]), st.integers(0, 99)))


def grow(steps: list[tuple[str, int]]) -> tuple[Tree, list[Turn]]:
    """Do what a person does on the page: ask, get an answer, change a question, ask for another answer, walk."""
    tree, made = Tree(), list[Turn]()

    def add(parent: str, role: Any) -> None:
        turn = Turn(f"{len(made):04d}", parent, role, f"text {len(made)}")
        made.append(turn)
        tree.add(turn)

    for what, number in steps:
        path = tree.path()
        if what == "ask" and (not path or path[-1].role == "assistant"):
            add(path[-1].id if path else ROOT, "user")
        elif what == "answer" and path and path[-1].role == "user":
            add(path[-1].id, "assistant")
        elif what in ("edit", "again") and path:
            turn = path[number % len(path)]
            add(turn.parent, turn.role)
        elif what == "step" and path:
            tree.step(path[number % len(path)].id, (-1, 1)[number % 2])
        elif what == "show" and made:
            tree.show(made[number % len(made)].id)
    return tree, made


@given(STEPS)
def test_path_when_anything_was_done_then_it_leads_from_the_start_to_an_end_in_turns(
    steps: list[tuple[str, int]],
) -> None:
    tree, made = grow(steps)
    path = tree.path()
    assert [turn.parent for turn in path] == [ROOT, *(turn.id for turn in path)][: len(path)]
    assert [turn.role for turn in path] == (["user", "assistant"] * len(path))[: len(path)]
    assert bool(path) == bool(made)
    if path:
        assert not any(turn.parent == path[-1].id for turn in made)
        assert tree.messages() == [{"role": turn.role, "content": turn.text} for turn in path]


@given(STEPS)
def test_tree_when_anything_was_done_then_every_turn_is_still_there_and_can_be_shown(
    steps: list[tuple[str, int]],
) -> None:
    tree, made = grow(steps)
    assert len(tree) == len(made)
    for turn in made:
        assert tree[turn.id] is turn
        tree.show(turn.id)
        path = tree.path()
        assert turn in path
        assert tree.before(turn.id) == path[: path.index(turn)]


@given(STEPS)
def test_step_when_one_goes_away_and_comes_back_then_the_same_end_is_shown(steps: list[tuple[str, int]]) -> None:
    tree, _ = grow(steps)
    for turn in tree.path():
        siblings = tree.siblings(turn.id)
        before, at = tree.path(), siblings.index(turn.id)
        for by in (1, -1):
            other = tree.step(turn.id, by)
            assert other == siblings[min(max(at + by, 0), len(siblings) - 1)]
            assert tree[other] in tree.path()
            tree.step(other, siblings.index(turn.id) - siblings.index(other))
            assert tree.path() == before


@given(STEPS)
def test_tree_when_kept_and_read_again_then_it_shows_the_same(steps: list[tuple[str, int]]) -> None:
    tree, made = grow(steps)
    again = Tree(reversed(made), tree.chosen)
    assert again.path() == tree.path()
    assert [again.siblings(turn.id) for turn in made] == [tree.siblings(turn.id) for turn in made]


def test_tree_when_what_was_chosen_is_gone_or_wrong_then_the_newest_is_shown() -> None:
    turns = [Turn("1", ROOT, "user", "a"), Turn("2", "1", "assistant", "b"), Turn("3", "1", "assistant", "c")]
    for chosen in ({"1": "9"}, {"1": "1"}, {"": "2"}, {"9": "2"}):
        assert [turn.id for turn in Tree(turns, chosen).path()] == ["1", "3"]
    assert [turn.id for turn in Tree(turns, {"1": "2"}).path()] == ["1", "2"]


@pytest.mark.parametrize(
    ("turn", "what"),
    [
        (Turn("1", "1", "assistant", ""), "already"),
        (Turn("2", "9", "assistant", ""), "no turn '9'"),
        (Turn("2", "1", "user", ""), "in a row"),
        (Turn("2", ROOT, "assistant", ""), "in a row"),
    ],
)
def test_add_when_a_turn_has_no_place_then_it_is_refused(turn: Turn, what: str) -> None:
    tree = Tree([Turn("1", ROOT, "user", "a")])
    with pytest.raises(ValueError, match=what):
        tree.add(turn)
    assert len(tree) == 1
