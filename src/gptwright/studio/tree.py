"""A conversation as a tree: every question that was changed and every answer that was asked for again is a branch that stays.

What is shown is one way from the beginning to an end. Pure: no page, no store, no clock.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

Role = Literal["user", "assistant"]
ROOT = ""
"""What stands before the first turn."""


@dataclass
class Turn:
    """A question or an answer.

    Attributes:
        id: within the conversation; later ones sort after earlier ones.
        parent: what it follows; ``ROOT`` for the first.
        role: who speaks.
        text: as it was written, Markdown.
        model: the full id of the model that answered; None for a question.
        info: whatever else is known of it, plain values: how it ended, the probabilities of its tokens.
    """

    id: str
    parent: str
    role: Role
    text: str
    model: str | None = None
    info: dict[str, Any] = field(default_factory=dict)


class Tree:
    """The turns of a conversation, and the way through them that is shown.

    Args:
        turns: in any order.
        chosen: after which turn which one is shown; where nothing is said, the newest.
    """

    def __init__(self, turns: Iterable[Turn] = (), chosen: Mapping[str, str] | None = None) -> None:
        self._turns = {turn.id: turn for turn in sorted(turns, key=lambda turn: turn.id)}
        self._children: dict[str, list[str]] = {}
        for turn in self._turns.values():
            self._children.setdefault(turn.parent, []).append(turn.id)
        given = chosen or {}
        self._chosen = {p: c for p, c in given.items() if c in self._turns and self._turns[c].parent == p}

    def __len__(self) -> int:
        return len(self._turns)

    def __contains__(self, turn_id: object) -> bool:
        return turn_id in self._turns

    def __getitem__(self, turn_id: str) -> Turn:
        return self._turns[turn_id]

    @property
    def chosen(self) -> dict[str, str]:
        """Which turn is shown after which, where somebody chose; for keeping."""
        return dict(self._chosen)

    def path(self) -> list[Turn]:
        """The turns that are shown, from the first to the last."""
        found: list[Turn] = []
        at = ROOT
        while children := self._children.get(at):
            at = self._chosen.get(at, children[-1])
            found.append(self._turns[at])
        return found

    def before(self, turn_id: str) -> list[Turn]:
        """The turns that lead to one, from the first, without itself."""
        found: list[Turn] = []
        at = self._turns[turn_id].parent
        while at != ROOT:
            found.append(self._turns[at])
            at = self._turns[at].parent
        return found[::-1]

    def siblings(self, turn_id: str) -> list[str]:
        """The ids of a turn and of those that stand in its place on other branches, oldest first."""
        return list(self._children[self._turns[turn_id].parent])

    def add(self, turn: Turn) -> None:
        """Put a turn in and show it.

        Raises:
            ValueError: its id is taken, what it follows is not there, or it follows a turn of the same speaker.
        """
        if turn.id in self._turns or turn.id == ROOT:
            raise ValueError(f"there is a turn {turn.id!r} already")
        if turn.parent != ROOT and turn.parent not in self._turns:
            raise ValueError(f"there is no turn {turn.parent!r} to follow")
        if (self._turns[turn.parent].role if turn.parent != ROOT else "assistant") == turn.role:
            raise ValueError(f"two turns of the {turn.role} in a row")
        self._turns[turn.id] = turn
        self._children.setdefault(turn.parent, []).append(turn.id)
        self.show(turn.id)

    def show(self, turn_id: str) -> None:
        """Show the branch that a turn is on; below it, what was shown there last."""
        at = turn_id
        while at != ROOT:
            parent = self._turns[at].parent
            self._chosen[parent] = at
            at = parent

    def step(self, turn_id: str, by: int) -> str:
        """Show a neighbour in a turn's place; at either end nothing changes.

        Returns:
            The id of what is shown now.
        """
        siblings = self.siblings(turn_id)
        at = siblings.index(turn_id) + by
        chosen = siblings[min(max(at, 0), len(siblings) - 1)]
        self.show(chosen)
        return chosen

    def messages(self, until: str | None = None) -> list[dict[str, str]]:
        """Roles and texts of what is shown, or of what leads to a turn and the turn itself."""
        turns = self.path() if until is None else [*self.before(until), self._turns[until]]
        return [{"role": turn.role, "content": turn.text} for turn in turns]
