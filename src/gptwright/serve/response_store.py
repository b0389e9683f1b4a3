"""Stored responses and conversations. Whoever made one with a key finds it with that key only; texts are kept masked."""

import datetime
import uuid
from collections.abc import Sequence
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from gptwright.core.control import ControlStore, utc_now
from gptwright.core.serving_tables import ResponseThread, StoredResponse, ThreadItem
from gptwright.guard.guard import Guard
from gptwright.serve.errors import ApiError
from gptwright.serve.response_shapes import InputItem, MessageItem

_LONGEST = 1000
"""Longest chain of responses that is followed. A longer one would hold more turns than any context."""

Items = list[dict[str, Any]]


def new_id(kind: str) -> str:
    """A fresh id, such as ``resp_...``."""
    return f"{kind}_{uuid.uuid4().hex}"


def stored_items(items: list[InputItem]) -> Items:
    """Input items as they are kept and listed: with ids, and messages in parts."""
    found: Items = []
    for item in items:
        row = item.model_dump(exclude_none=True)
        row["id"] = new_id({"message": "msg", "function_call": "fc"}.get(row["type"], "fco"))
        row["status"] = "completed"
        if isinstance(item, MessageItem):
            kind = "output_text" if item.role == "assistant" else "input_text"
            parts = [item.content] if isinstance(item.content, str) else [part.text for part in item.content]
            more: dict[str, Any] = {"annotations": [], "logprobs": []} if kind == "output_text" else {}
            row["content"] = [{"type": kind, "text": text, **more} for text in parts]
        found.append(row)
    return found


class ResponseStore:
    """Reads and writes for one caller. Every method may block; call it in a thread.

    Args:
        control: the control store.
        guard: masks what is kept.
        key_id: whose rows; None where no key is asked for.
        kept_s: how long responses are kept. Seconds.
    """

    def __init__(self, control: ControlStore, guard: Guard, key_id: int | None, kept_s: float) -> None:
        self._control, self._guard, self._key_id, self._kept_s = control, guard, key_id, kept_s

    # Responses

    def keep(self, body: dict[str, Any], items: Items, thread_id: str | None) -> None:
        """Keep a response and add its turn to its conversation, both or neither.

        Raises:
            ApiError: 404, the conversation was deleted meanwhile.
        """
        masked = {**body, "output": self.masked(body["output"])}
        items = self.masked(items)
        if body["instructions"]:
            masked["instructions"] = self._guard.text_for_keeping(body["instructions"])
        expires = utc_now() + datetime.timedelta(seconds=self._kept_s)
        with self._control.session() as session:
            if body["store"]:
                session.merge(  # one in the background was kept when it began
                    StoredResponse(
                        id=body["id"],
                        key_id=self._key_id,
                        expires_at=expires,
                        previous_id=body["previous_response_id"],
                        body=masked,
                        items=items,
                    )
                )
            if thread_id is not None:
                self._thread(session, thread_id)
                self._append(session, thread_id, [*items, *masked["output"]])

    def response(self, response_id: str) -> StoredResponse:
        """A stored response.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            return self._response(session, response_id)

    def chain(self, response_id: str) -> Items:
        """All items up to and with a response, oldest first.

        Raises:
            ApiError: 404, it or one before it is gone.
        """
        turns: list[Items] = []
        with self._control.session() as session:
            at: str | None = response_id
            while at is not None and len(turns) < _LONGEST:
                row = self._response(session, at, param="previous_response_id", code="previous_response_not_found")
                turns.append([*row.items, *row.body["output"]])
                at = row.previous_id
        return [item for turn in reversed(turns) for item in turn]

    def delete_response(self, response_id: str) -> None:
        """Delete a response.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            session.delete(self._response(session, response_id))

    def _response(
        self, session: Session, response_id: str, param: str = "response_id", code: str = "not_found"
    ) -> StoredResponse:
        row = session.get(StoredResponse, response_id)
        if row is None or row.key_id != self._key_id or _over(row.expires_at):
            raise ApiError(404, f"There is no stored response {response_id}.", param=param, code=code)
        return row

    # Conversations

    def new_thread(self, items: Items, info: dict[str, str]) -> ResponseThread:
        """Begin a conversation."""
        with self._control.session() as session:
            row = ResponseThread(id=new_id("conv"), key_id=self._key_id, info=info)
            session.add(row)
            session.flush()
            self._append(session, row.id, self.masked(items))
            return row

    def thread(self, thread_id: str) -> ResponseThread:
        """A conversation.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            return self._thread(session, thread_id)

    def update_thread(self, thread_id: str, info: dict[str, str]) -> ResponseThread:
        """Replace a conversation's metadata.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            row = self._thread(session, thread_id)
            row.info = info
            return row

    def delete_thread(self, thread_id: str) -> None:
        """Delete a conversation with its items.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            session.delete(self._thread(session, thread_id))

    def thread_items(self, thread_id: str) -> Items:
        """All items of a conversation, oldest first.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            self._thread(session, thread_id, param="conversation")
            rows = session.scalars(_of(thread_id).order_by(ThreadItem.position))
            return [row.item for row in rows]

    def append(self, thread_id: str, items: Items) -> Items:
        """Add items to a conversation.

        Raises:
            ApiError: 404.
        """
        masked = self.masked(items)
        with self._control.session() as session:
            self._thread(session, thread_id)
            self._append(session, thread_id, masked)
        return masked

    def delete_item(self, thread_id: str, item_id: str) -> ResponseThread:
        """Delete an item of a conversation.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            thread = self._thread(session, thread_id)
            row = session.scalar(_of(thread_id).where(ThreadItem.id == item_id))
            if row is None:
                raise ApiError(404, f"There is no item {item_id} in {thread_id}.", param="item_id")
            session.delete(row)
            return thread

    def _thread(self, session: Session, thread_id: str, param: str = "conversation_id") -> ResponseThread:
        row = session.get(ResponseThread, thread_id)
        if row is None or row.key_id != self._key_id:
            raise ApiError(404, f"There is no conversation {thread_id}.", param=param, code="not_found")
        return row

    @staticmethod
    def _append(session: Session, thread_id: str, items: Items) -> None:
        for item in items:  # flushed one by one: positions are given in this order
            session.add(ThreadItem(id=item["id"], thread_id=thread_id, item=item))
            session.flush()

    def masked(self, items: Items) -> Items:
        """Items as they may be kept."""
        return [self._masked(item) for item in items]

    def _masked(self, item: dict[str, Any]) -> dict[str, Any]:
        keep = self._guard.text_for_keeping
        found = dict(item)
        for name in ("content", "output"):
            if isinstance(found.get(name), str):
                found[name] = keep(found[name])
            elif isinstance(found.get(name), list):
                found[name] = [_part(part, keep(part["text"])) for part in found[name]]
        if "arguments" in found:
            found["arguments"] = keep(found["arguments"])
        return found


def _part(part: dict[str, Any], kept: str) -> dict[str, Any]:
    # Log probabilities name every token, and so what was masked.
    return part if part["text"] == kept else {**part, "text": kept, **({"logprobs": []} if "logprobs" in part else {})}


def _of(thread_id: str) -> Any:
    return sa.select(ThreadItem).where(ThreadItem.thread_id == thread_id)


def _over(expires: datetime.datetime | None) -> bool:
    if expires is not None and expires.tzinfo is None:  # SQLite forgets the zone; all our times are UTC
        expires = expires.replace(tzinfo=datetime.UTC)
    return expires is not None and expires <= utc_now()


def page(items: Sequence[dict[str, Any]], after: str | None, limit: int, order: str) -> tuple[Items, bool]:
    """A page of items.

    Args:
        items: all, oldest first.
        after: the id that the page begins after.
        limit: most items.
        order: ``asc`` or ``desc``.

    Returns:
        The items, and whether there are more.

    Raises:
        ApiError: 404, nothing has the id.
    """
    rows = list(items) if order == "asc" else list(reversed(items))
    if after is not None:
        at = next((index for index, item in enumerate(rows) if item["id"] == after), None)
        if at is None:
            raise ApiError(404, f"There is no item {after}.", param="after")
        rows = rows[at + 1 :]
    return rows[:limit], len(rows) > limit
