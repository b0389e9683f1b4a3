"""The worker of batches: their requests go through the same app as everybody's, when nobody waits, and survive a restart."""

import asyncio
import contextlib
import datetime
import json
import logging
import time
import uuid
from collections.abc import AsyncIterator
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from starlette.types import Message, Scope

from gptwright.core.control import ControlStore, utc_now
from gptwright.core.serving_tables import Batch, BatchLine, StoredChat, StoredResponse
from gptwright.serve.batch_store import BatchStore
from gptwright.serve.caller import BATCH, Caller
from gptwright.serve.file_store import FileStore
from gptwright.serve.generate import Backend
from gptwright.serve.keys import OpenedKey, key_by_id

log = logging.getLogger("gptwright.serve")

_IDLE_S = 2.0
_PATIENCE_S = 2.0
"""A batch's request waits while people do; after this one begins all the same, so that a busy server gets its batches done too."""
_CLEAN_S = 600.0
_LATER = frozenset({"server_busy", "stopping", "database_away"})
"""Errors that say nothing of the request: it is asked again later, or by the next server."""


@contextlib.asynccontextmanager
async def workers(app: FastAPI, backend: Backend) -> AsyncIterator[None]:
    """Work while the server runs.

    Args:
        app: what answers the requests.
        backend: what endpoints share.
    """
    if backend.control is None:
        yield
        return
    worker = Worker(app, backend, backend.control)
    app.state.batches = worker
    task = asyncio.create_task(worker.run())
    try:
        yield
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


class Worker:
    """Answers the requests of batches, the oldest batch first.

    Args:
        app: what answers the requests.
        backend: what endpoints share.
        control: the control store.
    """

    def __init__(self, app: FastAPI, backend: Backend, control: ControlStore) -> None:
        self._app, self._backend, self._control = app, backend, control
        self._files = FileStore(control, backend.config.files_kept)
        self._store = BatchStore(control, self._files)
        self._wake = asyncio.Event()
        self._cleaned = -_CLEAN_S
        self._begun = 0.0

    def wake(self) -> None:
        """There may be something to do."""
        self._wake.set()

    async def run(self) -> None:
        """Work until cancelled."""
        while True:
            worked = False
            try:
                if time.monotonic() - self._cleaned >= _CLEAN_S:
                    self._cleaned = time.monotonic()
                    await asyncio.to_thread(self._clean)
                for batch in await asyncio.to_thread(self._store.open_batches):
                    worked |= await self._round(batch)
            except Exception:  # a database that is away comes back; the worker must still be there then
                log.exception("a batch could not be worked on; trying again")
            if not worked:
                self._wake.clear()
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), _IDLE_S)

    async def _round(self, batch: Batch) -> bool:
        """A step of a batch. Returns whether there was something to do."""
        store = self._store
        if batch.status == "cancelling":
            await asyncio.to_thread(store.finish, batch, "cancelled")
        elif _utc(batch.expires_at) <= utc_now():
            await asyncio.to_thread(store.finish, batch, "expired")
        elif batch.status == "validating":
            faults = await asyncio.to_thread(store.take_in, batch)
            await asyncio.to_thread(store.move, batch.id, "failed" if faults else "in_progress", errors=faults)
        elif batch.status == "finalizing":
            await asyncio.to_thread(store.finish, batch, "completed")
        else:
            return await self._answer(batch)
        return True

    async def _answer(self, batch: Batch) -> bool:
        """Answer some of a batch's lines."""
        caller = await self._caller(batch)
        if caller is None:  # a revoked key's work ends with it
            await asyncio.to_thread(self._store.cancel, batch.id, batch.key_id)
            return True
        limits = caller.account.limits
        if limits.tokens_per_day is not None and caller.account.spent >= limits.tokens_per_day:
            return False
        lines = await asyncio.to_thread(self._store.pending, batch.id, self._backend.config.batch_concurrent)
        if not lines:
            await asyncio.to_thread(self._store.move, batch.id, "finalizing")
            return True
        done = await asyncio.gather(*(self._line(batch, line, caller) for line in lines))
        return any(done)

    async def _line(self, batch: Batch, line: BatchLine, caller: Caller) -> bool:
        await self._turn()
        if self._backend.draining or await asyncio.to_thread(self._store.status, batch.id) != "in_progress":
            return False
        request_id = "req_" + uuid.uuid4().hex
        inner = Caller(caller.key, caller.account, background=True, request_id=request_id)
        status, answer = await call(self._app, batch.endpoint, line.body, inner)
        code = answer.get("error", {}).get("code") if status >= 400 and isinstance(answer.get("error"), dict) else None
        if code in _LATER:
            return False
        await asyncio.to_thread(self._store.answered, line, status, request_id, answer)
        self._backend.metrics.batch_lines.labels("failed" if status >= 400 else "completed").inc()
        return True

    async def _turn(self) -> None:
        """Wait while somebody waits for an answer, but not for ever."""
        while self._backend.slots.live and time.monotonic() - self._begun < _PATIENCE_S:
            await asyncio.sleep(0.02)
        self._begun = time.monotonic()

    async def _caller(self, batch: Batch) -> Caller | None:
        key: OpenedKey | None = None
        if batch.key_id is not None:
            key = await asyncio.to_thread(key_by_id, self._control, batch.key_id)
            if key is None:
                return None
        return Caller(key, await self._backend.accounts.of(key), background=True)

    def _clean(self) -> None:
        """Delete what is kept no longer."""
        self._files.clean()
        with self._control.session() as session:
            for table in (StoredResponse, StoredChat):
                session.execute(sa.delete(table).where(table.expires_at <= utc_now()))


async def call(app: FastAPI, path: str, body: dict[str, Any], caller: Caller) -> tuple[int, dict[str, Any]]:
    """Ask our own app, without a network and without the edge.

    Args:
        app: the application.
        path: the endpoint.
        body: the request.
        caller: who asks.

    Returns:
        Status and answer.
    """
    sent = json.dumps(body).encode()
    scope: Scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "POST",
        "scheme": "http",
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json"), (b"content-length", str(len(sent)).encode())],
        "client": None,
        "server": None,
        "state": {},
        BATCH: caller,
    }
    status, parts = 500, []
    inbox = [{"type": "http.request", "body": sent, "more_body": False}]

    async def receive() -> Message:
        if inbox:
            return inbox.pop()
        return await asyncio.Future()  # nobody leaves

    async def send(message: Message) -> None:
        nonlocal status
        if message["type"] == "http.response.start":
            status = message["status"]
        else:
            parts.append(message.get("body", b""))

    try:
        await app(scope, receive, send)
        answer = json.loads(b"".join(parts) or b"{}")
    except Exception:
        log.exception("a batch's request to %s failed", path)
        answer = {"error": {"message": "The server failed; its log says why.", "type": "server_error"}}
        answer["error"] |= {"param": None, "code": "internal_error"}
        status = 500
    return status, answer


def _utc(moment: datetime.datetime) -> datetime.datetime:
    return moment if moment.tzinfo is not None else moment.replace(tzinfo=datetime.UTC)
