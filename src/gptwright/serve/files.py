"""``/v1/files`` and ``/v1/batches``: requests handed in as a file, answered in the background, fetched as a file."""

import asyncio
from collections.abc import AsyncIterator
from typing import Annotated, Any, Literal

from fastapi import FastAPI, File, Form, Query, Request, UploadFile
from fastapi.responses import StreamingResponse
from pydantic import BaseModel, Field

from gptwright.core.serving_tables import Batch, StoredFile
from gptwright.serve.batch_store import BatchStore, Counts
from gptwright.serve.body import Body, Metadata
from gptwright.serve.caller import Caller
from gptwright.serve.conversations import After, unix
from gptwright.serve.errors import ApiError
from gptwright.serve.file_store import FileStore
from gptwright.serve.generate import Backend
from gptwright.serve.response_shapes import Deleted

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/responses", "/v1/embeddings", "/v1/messages"]
Seconds = Annotated[int, Field(ge=3600, le=2_592_000)]
_TIMES = ("in_progress", "finalizing", "completed", "failed", "expired", "cancelling", "cancelled")
_FORM = {"file", "purpose", "expires_after[anchor]", "expires_after[seconds]"}


class FileObject(BaseModel):
    """A file."""

    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    expires_at: int | None = None
    filename: str
    purpose: str
    status: Literal["processed"] = "processed"


class FileList(BaseModel):
    """Files, a page of them."""

    object: Literal["list"] = "list"
    data: list[FileObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


class ExpiresAfter(Body):
    """How long a file is kept."""

    anchor: Literal["created_at"]
    seconds: Seconds


class BatchRequest(Body):
    """``POST /v1/batches``."""

    input_file_id: Annotated[str, Field(min_length=1, max_length=128)]
    endpoint: Endpoint
    completion_window: Annotated[str, Field(pattern=r"^([1-9]\d{0,2})h$")] = Field(
        description="What is not answered by then is given up, such as 24h."
    )
    metadata: Metadata | None = None
    output_expires_after: ExpiresAfter | None = None


class BatchCounts(BaseModel):
    """How far a batch is."""

    total: int
    completed: int
    failed: int


class BatchErrors(BaseModel):
    """What is wrong with a batch's file."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]


class BatchObject(BaseModel):
    """A batch."""

    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_id: str
    completion_window: str
    status: Literal[
        "validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"
    ]
    output_file_id: str | None = None
    error_file_id: str | None = None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: BatchCounts
    metadata: dict[str, str] | None = None


class BatchList(BaseModel):
    """Batches, a page of them."""

    object: Literal["list"] = "list"
    data: list[BatchObject]
    first_id: str | None = None
    last_id: str | None = None
    has_more: bool


def add_files(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints. What is not known is left out of answers, for OpenAI's clients know no null there."""
    stores = None
    if backend.control is not None:
        files_store = FileStore(backend.control, backend.config.files_kept)
        stores = (files_store, BatchStore(backend.control, files_store))

    def files() -> FileStore:
        return _both()[0]

    def batches() -> BatchStore:
        return _both()[1]

    def _both() -> tuple[FileStore, BatchStore]:
        if stores is None:
            raise ApiError(501, "This server keeps nothing: it has no control store.", code="no_control_store")
        return stores

    def owner(request: Request) -> int | None:
        return Caller.of(request.scope).key_id

    @app.post("/v1/files", response_model_exclude_none=True)
    async def upload(
        request: Request,
        file: Annotated[UploadFile, File()],
        purpose: Annotated[Literal["batch"], Form(description="Files are for batches only.")],
        anchor: Annotated[Literal["created_at"] | None, Form(alias="expires_after[anchor]")] = None,
        seconds: Annotated[Seconds | None, Form(alias="expires_after[seconds]")] = None,
    ) -> FileObject:
        if unknown := set(await request.form()) - _FORM:
            name = sorted(unknown)[0]
            raise ApiError(
                400, f"{name}: unknown field; nothing is ignored in silence.", param=name, code="unknown_parameter"
            )
        if (anchor is None) != (seconds is None):
            raise ApiError(400, "expires_after: needs anchor and seconds.", param="expires_after", code="invalid_value")
        stored = await asyncio.to_thread(files().stored_bytes, owner(request))
        if stored + (file.size or 0) > backend.config.max_stored:
            most = backend.config.max_stored
            raise ApiError(
                413, f"All files together may have {most} bytes. Delete some.", param="file", code="storage_full"
            )
        row = await asyncio.to_thread(
            files().save, file.file, file.filename or "file", purpose, owner(request), seconds
        )
        return _file(row)

    @app.get("/v1/files", response_model_exclude_none=True)
    async def list_files(
        request: Request,
        purpose: Annotated[str | None, Query(max_length=64)] = None,
        after: After = None,
        limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
        order: Literal["asc", "desc"] = "desc",
    ) -> FileList:
        rows = await asyncio.to_thread(files().all, owner(request))
        found = [_file(row) for row in rows if purpose in (None, row.purpose)]
        found = found[::-1] if order == "asc" else found
        if after is not None:
            ids = [row.id for row in found]
            if after not in ids:
                raise ApiError(404, f"There is no file {after}.", param="after", code="not_found")
            found = found[ids.index(after) + 1 :]
        shown = found[:limit]
        return FileList(data=shown, has_more=len(found) > limit, **_ends([row.id for row in shown]))

    @app.get("/v1/files/{file_id}", response_model_exclude_none=True)
    async def get_file(file_id: str, request: Request) -> FileObject:
        return _file(await asyncio.to_thread(files().get, file_id, owner(request)))

    @app.delete("/v1/files/{file_id}")
    async def delete_file(file_id: str, request: Request) -> Deleted:
        await asyncio.to_thread(files().delete, file_id, owner(request))
        return Deleted(id=file_id, object="file")

    @app.get("/v1/files/{file_id}/content", response_class=StreamingResponse)
    async def content(file_id: str, request: Request) -> StreamingResponse:
        store = files()
        row = await asyncio.to_thread(store.get, file_id, owner(request))

        async def chunks() -> AsyncIterator[bytes]:
            position = 0
            while (data := await asyncio.to_thread(store.chunk, row.id, position)) is not None:
                yield data
                position += 1

        length = {"content-length": str(row.size_bytes)}
        return StreamingResponse(chunks(), media_type="application/octet-stream", headers=length)

    @app.post("/v1/batches", response_model_exclude_none=True)
    async def create_batch(body: BatchRequest, request: Request) -> BatchObject:
        caller = Caller.of(request.scope)
        if caller.key is not None and not caller.key.may(body.endpoint):
            raise ApiError(403, f"This API key is not for {body.endpoint}.", param="endpoint", code="scope_missing")
        fields = body.model_dump(include={"input_file_id", "endpoint", "completion_window"})
        fields["info"] = body.metadata or {}
        fields["output_kept_s"] = body.output_expires_after.seconds if body.output_expires_after else None
        window_s = 3600.0 * int(body.completion_window.removesuffix("h"))
        batch = _batch(*await asyncio.to_thread(batches().create, owner(request), fields, window_s))
        if (worker := getattr(app.state, "batches", None)) is not None:
            worker.wake()
        return batch

    @app.get("/v1/batches", response_model_exclude_none=True)
    async def list_batches(
        request: Request, after: After = None, limit: Annotated[int, Query(ge=1, le=100)] = 20
    ) -> BatchList:
        rows, more = await asyncio.to_thread(batches().page, owner(request), after, limit)
        found = [_batch(*row) for row in rows]
        return BatchList(data=found, has_more=more, **_ends([row.id for row in found]))

    @app.get("/v1/batches/{batch_id}", response_model_exclude_none=True)
    async def get_batch(batch_id: str, request: Request) -> BatchObject:
        return _batch(*await asyncio.to_thread(batches().get, batch_id, owner(request)))

    @app.post("/v1/batches/{batch_id}/cancel", response_model_exclude_none=True)
    async def cancel_batch(batch_id: str, request: Request) -> BatchObject:
        batch = _batch(*await asyncio.to_thread(batches().cancel, batch_id, owner(request)))
        if (worker := getattr(app.state, "batches", None)) is not None:
            worker.wake()
        return batch


def _ends(ids: list[str]) -> dict[str, Any]:
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}


def _file(row: StoredFile) -> FileObject:
    return FileObject(
        id=row.id,
        bytes=row.size_bytes,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at) if row.expires_at is not None else None,
        filename=row.filename,
        purpose=row.purpose,
    )


def _batch(row: Batch, counts: Counts) -> BatchObject:
    times = {f"{name}_at": getattr(row, f"{name}_at") for name in _TIMES}
    return BatchObject(
        id=row.id,
        endpoint=row.endpoint,
        errors=BatchErrors(data=row.errors) if row.errors else None,
        input_file_id=row.input_file_id,
        completion_window=row.completion_window,
        status=row.status,
        output_file_id=row.output_file_id,
        error_file_id=row.error_file_id,
        created_at=unix(row.created_at),
        expires_at=unix(row.expires_at),
        request_counts=BatchCounts(**vars(counts)),
        metadata=row.info or None,
        **{name: unix(at) if at is not None else None for name, at in times.items()},
    )
