"""``/v1/feedback``: judgements of answers, kept where the person agreed, and taken back when they say so."""

import asyncio
from typing import Annotated

import sqlalchemy as sa
from fastapi import FastAPI, Query, Request

from gptwright.core.control import ControlStore, Feedback
from gptwright.serve import answers as shapes
from gptwright.serve.caller import Caller
from gptwright.serve.errors import ApiError
from gptwright.serve.generate import Backend
from gptwright.serve.keys import hash_key
from gptwright.serve.schema_tokens import FeedbackRequest

User = Annotated[str, Query(min_length=1, max_length=512, description="The name that the judgements were given under.")]


def add_feedback(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints."""

    @app.post("/v1/feedback", status_code=201)
    async def feedback(body: FeedbackRequest, request: Request) -> shapes.FeedbackReceipt:
        control, guard = _store(backend), backend.guard
        key_id = Caller.of(request.scope).key_id
        messages = guard.for_keeping(guard.check_prompt([m.plain for m in body.messages])) if body.consent else []
        value = {
            key: guard.text_for_keeping(guard.check_text(item, param="value")) if isinstance(item, str) else item
            for key, item in body.value.items()
        }

        def keep() -> int:
            with control.session() as session:
                row = Feedback(
                    model=body.model,
                    messages=messages,
                    kind=body.kind,
                    value=value,
                    consent=body.consent,
                    key_id=key_id,
                    end_user=_hashed(body.user),
                )
                session.add(row)
                session.flush()
                return row.id

        return shapes.FeedbackReceipt(id=await asyncio.to_thread(keep), messages_kept=len(messages))

    @app.delete("/v1/feedback/{feedback_id}")
    async def take_back(feedback_id: int, request: Request) -> shapes.FeedbackTakenBack:
        deleted = await _delete(backend, request, Feedback.id == min(feedback_id, 2**31 - 1))
        if not deleted:
            raise ApiError(404, f"There is no judgement {feedback_id}.", param="feedback_id")
        return shapes.FeedbackTakenBack(deleted=deleted)

    @app.delete("/v1/feedback")
    async def take_all_back(user: User, request: Request) -> shapes.FeedbackTakenBack:
        """All judgements that were given under a name."""
        return shapes.FeedbackTakenBack(deleted=await _delete(backend, request, Feedback.end_user == _hashed(user)))


async def _delete(backend: Backend, request: Request, which: sa.ColumnElement[bool]) -> int:
    """Delete the caller's own; how many there were."""
    control, key_id = _store(backend), Caller.of(request.scope).key_id
    own = Feedback.key_id.is_(None) if key_id is None else Feedback.key_id == key_id

    def delete() -> int:
        with control.session() as session:
            ids = session.scalars(sa.select(Feedback.id).where(own, which)).all()
            session.execute(sa.delete(Feedback).where(Feedback.id.in_(ids)))
        control.forget_deleted()
        return len(ids)

    return await asyncio.to_thread(delete)


def _store(backend: Backend) -> ControlStore:
    if backend.control is None:
        raise ApiError(501, "This server keeps no feedback: it has no control store.", code="no_control_store")
    return backend.control


def _hashed(user: str | None) -> str | None:
    return hash_key(user)[:32] if user else None
