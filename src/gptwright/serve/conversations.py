"""``/v1/conversations``: conversations that responses go on with, kept on this machine."""

import asyncio
import datetime
from collections.abc import Callable
from typing import Annotated, Any, Literal

from fastapi import FastAPI, Query, Request

from gptwright.core.serving_tables import ResponseThread
from gptwright.serve.errors import ApiError
from gptwright.serve.response_shapes import (
    Conversation,
    ConversationRequest,
    ConversationUpdate,
    Deleted,
    ItemList,
    ItemsRequest,
)
from gptwright.serve.response_store import ResponseStore, page, stored_items

After = Annotated[str | None, Query(max_length=128)]
Limit = Annotated[int, Query(ge=1, le=100)]
Order = Literal["asc", "desc"]


def add_conversations(app: FastAPI, store_of: Callable[[Request], ResponseStore]) -> None:
    """Add the endpoints.

    Args:
        app: the application.
        store_of: the store as the caller of a request may see it.
    """

    @app.post("/v1/conversations")
    async def create(request: Request, body: ConversationRequest | None = None) -> Conversation:
        body = body or ConversationRequest()
        items = stored_items(body.items or [])
        return _shape(await asyncio.to_thread(store_of(request).new_thread, items, body.metadata or {}))

    @app.get("/v1/conversations/{conversation_id}")
    async def get(conversation_id: str, request: Request) -> Conversation:
        return _shape(await asyncio.to_thread(store_of(request).thread, conversation_id))

    @app.post("/v1/conversations/{conversation_id}")
    async def update(conversation_id: str, body: ConversationUpdate, request: Request) -> Conversation:
        return _shape(await asyncio.to_thread(store_of(request).update_thread, conversation_id, body.metadata or {}))

    @app.delete("/v1/conversations/{conversation_id}")
    async def delete(conversation_id: str, request: Request) -> Deleted:
        await asyncio.to_thread(store_of(request).delete_thread, conversation_id)
        return Deleted(id=conversation_id, object="conversation.deleted")

    @app.get("/v1/conversations/{conversation_id}/items")
    async def items(
        conversation_id: str, request: Request, after: After = None, limit: Limit = 20, order: Order = "desc"
    ) -> ItemList:
        rows = await asyncio.to_thread(store_of(request).thread_items, conversation_id)
        return _list(*page(rows, after, limit, order))

    @app.post("/v1/conversations/{conversation_id}/items")
    async def add(conversation_id: str, body: ItemsRequest, request: Request) -> ItemList:
        rows = await asyncio.to_thread(store_of(request).append, conversation_id, stored_items(body.items))
        return _list(rows, False)

    @app.get("/v1/conversations/{conversation_id}/items/{item_id}")
    async def item(conversation_id: str, item_id: str, request: Request) -> dict[str, Any]:
        rows = await asyncio.to_thread(store_of(request).thread_items, conversation_id)
        for row in rows:
            if row["id"] == item_id:
                return row
        raise ApiError(404, f"There is no item {item_id} in {conversation_id}.", param="item_id")

    @app.delete("/v1/conversations/{conversation_id}/items/{item_id}")
    async def delete_item(conversation_id: str, item_id: str, request: Request) -> Conversation:
        return _shape(await asyncio.to_thread(store_of(request).delete_item, conversation_id, item_id))


def unix(moment: datetime.datetime) -> int:
    """Seconds since 1970; SQLite forgets the zone, and all our times are UTC."""
    return int((moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)).timestamp())


def _shape(row: ResponseThread) -> Conversation:
    return Conversation(id=row.id, created_at=unix(row.created_at), metadata=row.info)


def _list(rows: list[dict[str, Any]], more: bool) -> ItemList:
    ids = [row["id"] for row in rows]
    return ItemList(data=rows, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=more)
