"""Stored chat completions. Whoever made one with a key finds it with that key only; texts are kept masked."""

import datetime
from collections.abc import Mapping, Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from gptwright.core.control import ControlStore, utc_now
from gptwright.core.serving_tables import StoredChat
from gptwright.guard.guard import Guard
from gptwright.serve.errors import ApiError

_SCANNED = 500

Row = dict[str, Any]


class ChatStore:
    """Reads and writes for one caller. Every method may block; call it in a thread.

    Args:
        control: the control store.
        guard: masks what is kept.
        key_id: whose rows; None where no key is asked for.
        kept_s: how long they are kept. Seconds.
    """

    def __init__(self, control: ControlStore, guard: Guard, key_id: int | None, kept_s: float) -> None:
        self._control, self._guard, self._key_id, self._kept_s = control, guard, key_id, kept_s

    def keep(self, body: Row, messages: Sequence[Row], info: dict[str, str]) -> None:
        """Keep a chat completion.

        Args:
            body: as it was sent, and what was asked for beside it.
            messages: what it answered.
            info: the caller's own metadata.
        """
        with self._control.session() as session:
            session.add(
                StoredChat(
                    id=body["id"],
                    key_id=self._key_id,
                    expires_at=utc_now() + datetime.timedelta(seconds=self._kept_s),
                    model=body["model"],
                    info=info,
                    body={**body, "choices": [self._choice(choice) for choice in body["choices"]]},
                    messages=[self._message(message) for message in messages],
                )
            )

    def get(self, chat_id: str) -> Row:
        """A stored chat completion, with its metadata.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            return _shape(self._row(session, chat_id))

    def messages(self, chat_id: str) -> list[Row]:
        """The messages that it answered, oldest first, each with an id.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            row = self._row(session, chat_id)
            return [{"id": f"{row.id}-{index}", **message} for index, message in enumerate(row.messages)]

    def update(self, chat_id: str, info: dict[str, str]) -> Row:
        """Replace its metadata.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            row = self._row(session, chat_id)
            row.info = info
            return _shape(row)

    def delete(self, chat_id: str) -> None:
        """Delete it.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            session.delete(self._row(session, chat_id))

    def page(
        self, models: Sequence[str], info: Mapping[str, str], after: str | None, limit: int, ascending: bool
    ) -> tuple[list[Row], bool]:
        """Some of them, by the time they were made.

        Args:
            models: only of these; none: of all.
            info: only those whose metadata have these values.
            after: the id that the page begins after.
            limit: most of them.
            ascending: the oldest first.

        Returns:
            The completions, and whether there are more.

        Raises:
            ApiError: 404, nothing has the id.
        """
        place = StoredChat.position
        query = sa.select(place, StoredChat.info).where(
            StoredChat.key_id.is_(None) if self._key_id is None else StoredChat.key_id == self._key_id,
            StoredChat.expires_at > utc_now(),
        )
        if models:
            query = query.where(StoredChat.model.in_(models))
        with self._control.session() as session:
            if after is not None:
                start = self._row(session, after, param="after").position
                query = query.where(place > start if ascending else place < start)
            query = query.order_by(place if ascending else place.desc())
            found: list[int] = []
            # Keys of metadata may hold anything, which the two databases write differently in their paths: compared here.
            for position, kept in session.execute(query.execution_options(yield_per=_SCANNED)):
                if all(kept.get(name) == value for name, value in info.items()):
                    found.append(position)
                    if len(found) > limit:
                        break
            rows = session.scalars(sa.select(StoredChat).where(place.in_(found[:limit])))
            by_place = {row.position: _shape(row) for row in rows}
        return [by_place[position] for position in found[:limit]], len(found) > limit

    def _row(self, session: Session, chat_id: str, param: str = "completion_id") -> StoredChat:
        row = session.scalar(
            sa.select(StoredChat).where(StoredChat.id == chat_id, StoredChat.expires_at > utc_now()),
        )
        if row is None or row.key_id != self._key_id:
            raise ApiError(404, f"There is no stored chat completion {chat_id}.", param=param, code="not_found")
        return row

    def _choice(self, choice: Row) -> Row:
        message = self._message(choice["message"])
        if message == choice["message"] or choice["logprobs"] is None:
            return {**choice, "message": message}
        # Log probabilities name every token, and so what was masked.
        return {**choice, "message": message, "logprobs": {**choice["logprobs"], "content": None}}

    def _message(self, message: Row) -> Row:
        keep = self._guard.text_for_keeping
        found = dict(message)
        if isinstance(found.get("content"), str):
            found["content"] = keep(found["content"])
        if found.get("content_parts"):
            found["content_parts"] = [{**part, "text": keep(part["text"])} for part in found["content_parts"]]
        if found.get("tool_calls"):
            found["tool_calls"] = [
                {**call, "function": {**call["function"], "arguments": keep(call["function"]["arguments"])}}
                for call in found["tool_calls"]
            ]
        return found


def _shape(row: StoredChat) -> Row:
    return {**row.body, "metadata": row.info}
