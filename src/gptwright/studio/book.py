"""Conversations of the chat page, in the control store of the machine that serves it: found again, searched, really deleted.

Blocking; a page calls it in a thread. Each API key sees its own; where no key is asked for, there is one shelf for all.
"""

import datetime
import secrets
import time
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gptwright.core.control import ControlStore, Conversation, Message, utc_now
from gptwright.studio.tree import ROOT, Tree, Turn

LISTED = 200
"""How many conversations the list shows at most; older ones are found by searching."""

_TITLE = 80


@dataclass(frozen=True)
class Entry:
    """A line of the list. ``updated`` is aware, UTC."""

    id: str
    title: str
    updated: datetime.datetime


@dataclass(frozen=True)
class Kept:
    """A conversation as it was kept. ``settings`` are plain values."""

    entry: Entry
    tree: Tree
    settings: dict[str, Any]


def new_id() -> str:
    """An id that nobody can guess and that sorts after all that were made before."""
    return f"{time.time_ns():016x}{secrets.token_hex(8)}"


def title_of(text: str) -> str:
    """A conversation's name after its first question."""
    line = " ".join(text.split())
    return line if len(line) <= _TITLE else line[: _TITLE - 1].rstrip() + "…"


class Book:
    """One person's conversations.

    Args:
        control: where they are kept; None keeps nothing: the list is empty and a reload forgets.
        key_id: the API key that they belong to; None where the server asks for none.
    """

    def __init__(self, control: ControlStore | None, key_id: int | None = None) -> None:
        self.control, self.key_id = control, key_id

    @property
    def keeps(self) -> bool:
        """Whether anything is kept."""
        return self.control is not None

    def entries(self, search: str = "") -> list[Entry]:
        """The list, what was used last in front.

        Args:
            search: words of which each must stand in the title or in a turn, on any branch, in any case.
        """
        if self.control is None:
            return []
        query = sa.select(Conversation).where(self._own())
        for word in search.split():
            said = sa.select(Message.conversation_id).where(_holds(Message.content, word))
            query = query.where(_holds(Conversation.title, word) | Conversation.id.in_(said))
        with self.control.session() as session:
            rows = session.scalars(query.order_by(Conversation.updated_at.desc(), Conversation.id.desc()).limit(LISTED))
            return [_entry(row) for row in rows]

    def load(self, conversation_id: str) -> Kept | None:
        """A conversation; None when there is none of that id for this person."""
        if self.control is None:
            return None
        with self.control.session() as session:
            row = session.scalar(sa.select(Conversation).where(self._own(), Conversation.id == conversation_id))
            if row is None:
                return None
            turns = session.scalars(sa.select(Message).where(Message.conversation_id == conversation_id))
            found = [Turn(m.id, m.parent_id or ROOT, _role(m.role), m.content, m.model, dict(m.info)) for m in turns]
            return Kept(_entry(row), Tree(found, row.info.get("chosen")), dict(row.info.get("settings", {})))

    def begin(self, title: str, settings: dict[str, Any]) -> str:
        """Make a conversation.

        Returns:
            Its id.
        """
        made = new_id()
        if self.control is not None:
            with self.control.session() as session:
                session.add(
                    Conversation(id=made, key_id=self.key_id, title=title_of(title), info={"settings": settings})
                )
        return made

    def keep(self, conversation_id: str, tree: Tree, settings: dict[str, Any], *changed: Turn) -> bool:
        """Write turns, new or changed, and what is shown.

        Returns:
            Whether the conversation is still there; another tab may have deleted it, and it does not come back.
        """
        if self.control is None:
            return True
        with self.control.session() as session:
            row = session.scalar(
                sa.select(Conversation).where(self._own(), Conversation.id == conversation_id).with_for_update()
            )
            if row is None:
                return False
            for turn in changed:
                found = session.get(Message, turn.id)
                if found is None:
                    found = Message(id=turn.id, conversation_id=conversation_id, role=turn.role)
                    session.add(found)
                found.parent_id, found.content, found.model = turn.parent or None, turn.text, turn.model
                found.info = dict(turn.info)
            row.info = {"settings": settings, "chosen": tree.chosen}
            if changed:
                row.updated_at = utc_now()
        return True

    def rename(self, conversation_id: str, title: str) -> None:
        """Give a conversation another name; an empty one changes nothing."""
        if self.control is None or not title.strip():
            return
        with self.control.session() as session:
            session.execute(
                sa.update(Conversation)
                .where(self._own(), Conversation.id == conversation_id)
                .values(title=title_of(title))
            )

    def delete(self, conversation_id: str) -> None:
        """Delete a conversation and every turn of it, on all branches; its bytes are overwritten."""
        self._delete(Conversation.id == conversation_id)

    def delete_all(self) -> None:
        """Delete all of this person's."""
        self._delete(sa.true())

    def _delete(self, which: sa.ColumnElement[bool]) -> None:
        if self.control is None:
            return
        with self.control.session() as session:
            ids = sa.select(Conversation.id).where(self._own(), which)
            session.execute(sa.delete(Message).where(Message.conversation_id.in_(ids)))
            session.execute(sa.delete(Conversation).where(self._own(), which))
        self.control.forget_deleted()

    def _own(self) -> sa.ColumnElement[bool]:
        return Conversation.key_id.is_(None) if self.key_id is None else Conversation.key_id == self.key_id


def _holds(column: Any, word: str) -> sa.ColumnElement[bool]:
    """SQLite folds the case of ASCII letters only, so of a word its usual spellings are looked for."""
    spellings = {word, word.lower(), word.upper(), word.capitalize()}
    return sa.or_(*(column.icontains(spelling, autoescape=True) for spelling in sorted(spellings)))


def _entry(row: Conversation) -> Entry:
    # SQLite forgets the zone, and all our times are UTC.
    updated = row.updated_at if row.updated_at.tzinfo is not None else row.updated_at.replace(tzinfo=datetime.UTC)
    return Entry(row.id, row.title, updated)


def _role(name: str) -> Any:
    return "assistant" if name == "assistant" else "user"
