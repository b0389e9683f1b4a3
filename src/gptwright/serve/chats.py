"""Chat completions, and ``/v1/chat/completions/{id}``: those that were asked to be stored, to be listed, read, labelled and deleted."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse

from gptwright.serve import answers as shapes
from gptwright.serve.answer import Answer
from gptwright.serve.caller import Caller
from gptwright.serve.chat_store import ChatStore
from gptwright.serve.conversations import After, Limit, Order
from gptwright.serve.errors import ApiError
from gptwright.serve.generate import Backend
from gptwright.serve.respond import Responder
from gptwright.serve.response_shapes import ConversationUpdate, Deleted
from gptwright.serve.response_store import page
from gptwright.serve.schema import ChatMessage, ChatRequest

_PAIR = re.compile(r"metadata\[(.{1,64})\]", re.DOTALL)
_MOST_PAIRS = 16
_FILTER = {
    "parameters": [
        {
            "name": "metadata",
            "in": "query",
            "required": False,
            "description": "Only those with these metadata: metadata[key]=value.",
            "style": "deepObject",
            "explode": True,
            "schema": {"type": "object", "additionalProperties": {"type": "string"}, "maxProperties": _MOST_PAIRS},
        }
    ]
}


def add_chats(app: FastAPI, backend: Backend, streams: dict[int | str, dict[str, Any]]) -> None:
    """Add the endpoints.

    Args:
        app: the application.
        backend: what endpoints share.
        streams: what the schema says of an answer that may come in pieces.
    """

    def store_of(request: Request) -> ChatStore:
        if backend.control is None:
            raise ApiError(501, "This server keeps nothing: it has no control store.", code="no_control_store")
        key_id = Caller.of(request.scope).key_id
        return ChatStore(backend.control, backend.guard, key_id, backend.config.responses_kept)

    @app.post("/v1/chat/completions", response_model=shapes.ChatCompletion, responses=streams)
    async def chat(body: ChatRequest, request: Request) -> Response:
        if body.store and backend.control is None:
            raise ApiError(400, "store: this server keeps nothing.", param="store", code="unsupported_parameter")
        answer = await backend.chat(body, request, whole=not body.stream)
        keep = _keeper(store_of(request), body, answer) if body.store else None
        responder = Responder(backend, answer, "chat", bool(body.logprobs), n=body.n or 1, keep=keep)
        return await (responder.streamed(usage=body.wants_usage) if body.stream else responder.whole())

    @app.get("/v1/chat/completions", response_model=shapes.ChatList, openapi_extra=_FILTER)
    async def listed(
        request: Request,
        model: Annotated[str | None, Query(max_length=300)] = None,
        after: After = None,
        limit: Limit = 20,
        order: Order = "asc",
    ) -> Response:
        info = _pairs(request)
        models: list[str] = []
        if model is not None:  # answers name the full id; an alias stands for the one it means now
            known = {row.id: row.root or row.id for row in await asyncio.to_thread(backend.models.list)}
            models = [model, known.get(model, model)]
        found, more = await asyncio.to_thread(store_of(request).page, models, info, after, limit, order == "asc")
        return _listed(found, more)

    @app.get("/v1/chat/completions/{completion_id}", response_model=shapes.StoredCompletion)
    async def get(completion_id: str, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(store_of(request).get, completion_id))

    @app.post("/v1/chat/completions/{completion_id}", response_model=shapes.StoredCompletion)
    async def update(completion_id: str, body: ConversationUpdate, request: Request) -> Response:
        return JSONResponse(await asyncio.to_thread(store_of(request).update, completion_id, body.metadata or {}))

    @app.delete("/v1/chat/completions/{completion_id}")
    async def delete(completion_id: str, request: Request) -> Deleted:
        await asyncio.to_thread(store_of(request).delete, completion_id)
        return Deleted(id=completion_id, object="chat.completion.deleted")

    @app.get("/v1/chat/completions/{completion_id}/messages", response_model=shapes.MessageList)
    async def messages(
        completion_id: str, request: Request, after: After = None, limit: Limit = 20, order: Order = "asc"
    ) -> Response:
        found, more = page(await asyncio.to_thread(store_of(request).messages, completion_id), after, limit, order)
        return _listed(found, more)


def _listed(rows: list[dict[str, Any]], more: bool) -> Response:
    # As they were kept: a tool call that is not there must not come as null, which OpenAI's clients do not know there.
    ids = [row["id"] for row in rows] or [""]
    return JSONResponse({"object": "list", "data": rows, "first_id": ids[0], "last_id": ids[-1], "has_more": more})


def _keeper(store: ChatStore, body: ChatRequest, answer: Answer) -> Callable[[dict[str, Any]], Awaitable[None]]:
    """What keeps an answer once it is whole."""
    sent = body.model_dump(mode="json", by_alias=True, exclude_none=True)
    beside = {name: sent.get(name) for name in shapes.ASKED}
    messages = [_message(message) for message in body.messages]

    async def keep(whole: dict[str, Any]) -> None:
        row = {**whole, **beside, "request_id": answer.caller.request_id}
        await asyncio.to_thread(store.keep, row, messages, body.metadata or {})

    return keep


def _message(message: ChatMessage) -> dict[str, Any]:
    """A message as it is kept: its text, and the parts it came in, if it did."""
    parts = message.content if isinstance(message.content, list) else None
    text = None if message.content is None else message.plain["content"]
    row = {**message.model_dump(exclude_none=True), "content": text, "refusal": None}
    return {**row, "content_parts": None if parts is None else [part.model_dump() for part in parts]}


def _pairs(request: Request) -> dict[str, str]:
    """The metadata that a list asks for: ``metadata[key]=value``, any number of times.

    Raises:
        ApiError: 400, it is written otherwise.
    """
    found: dict[str, str] = {}
    for name, value in request.query_params.multi_items():
        if (pair := _PAIR.fullmatch(name)) is not None:
            found[pair[1]] = value
        elif name.partition("[")[0] == "metadata":
            raise ApiError(400, "metadata: write metadata[key]=value.", param="metadata", code="invalid_value")
    if len(found) > _MOST_PAIRS:
        raise ApiError(400, f"metadata: at most {_MOST_PAIRS} pairs.", param="metadata", code="invalid_value")
    return found
