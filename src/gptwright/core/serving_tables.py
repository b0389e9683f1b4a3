"""Tables of the control store that only the server uses: uploaded files, batches, stored responses and their
conversations, stored chat completions.

Times are UTC; ``key_id`` is the API key that owns a row, None where the server asks for no key. ``info`` is the caller's own metadata.
"""

import datetime
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from gptwright.core.control import Base, utc_now


class StoredFile(Base):
    """An uploaded or written file; its bytes are in ``StoredChunk``, so that a backup of the store is whole."""

    __tablename__ = "stored_file"
    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime.datetime | None] = mapped_column(index=True)
    filename: Mapped[str]
    purpose: Mapped[str]
    size_bytes: Mapped[int] = mapped_column(sa.BigInteger)


class StoredChunk(Base):
    """A part of a file's bytes."""

    __tablename__ = "stored_chunk"
    file_id: Mapped[str] = mapped_column(sa.ForeignKey("stored_file.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    data: Mapped[bytes]


class Batch(Base):
    """Requests to be answered in the background, and how far they are."""

    __tablename__ = "batch"
    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    endpoint: Mapped[str]
    input_file_id: Mapped[str]
    output_file_id: Mapped[str | None]
    error_file_id: Mapped[str | None]
    status: Mapped[str] = mapped_column(index=True)
    completion_window: Mapped[str]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime.datetime]
    in_progress_at: Mapped[datetime.datetime | None]
    finalizing_at: Mapped[datetime.datetime | None]
    completed_at: Mapped[datetime.datetime | None]
    failed_at: Mapped[datetime.datetime | None]
    expired_at: Mapped[datetime.datetime | None]
    cancelling_at: Mapped[datetime.datetime | None]
    cancelled_at: Mapped[datetime.datetime | None]
    output_kept_s: Mapped[int | None]  # how long the result files are kept; None: as long as any file of a batch
    info: Mapped[dict[str, Any]]
    errors: Mapped[list[Any]]


class BatchLine(Base):
    """One request of a batch, and its answer once there is one."""

    __tablename__ = "batch_line"
    batch_id: Mapped[str] = mapped_column(sa.ForeignKey("batch.id", ondelete="CASCADE"), primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    custom_id: Mapped[str]
    body: Mapped[dict[str, Any]]
    status_code: Mapped[int | None]
    request_id: Mapped[str | None]
    answer: Mapped[dict[str, Any]] = mapped_column(default=dict)


class ResponseThread(Base):
    """A conversation that responses belong to."""

    __tablename__ = "response_thread"
    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    info: Mapped[dict[str, Any]]


class ThreadItem(Base):
    """An item (a message, a tool call or its result) of a conversation; ``position`` orders them."""

    __tablename__ = "thread_item"
    position: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(index=True)
    thread_id: Mapped[str] = mapped_column(sa.ForeignKey("response_thread.id", ondelete="CASCADE"), index=True)
    item: Mapped[dict[str, Any]]


class StoredResponse(Base):
    """A response that may be asked for again, with the input that it answered."""

    __tablename__ = "stored_response"
    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime.datetime | None] = mapped_column(index=True)
    previous_id: Mapped[str | None]
    body: Mapped[dict[str, Any]]
    items: Mapped[list[Any]]


class StoredChat(Base):
    """A chat completion that may be asked for again, with the messages that it answered; ``position`` orders them."""

    __tablename__ = "stored_chat"
    position: Mapped[int] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(unique=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime.datetime] = mapped_column(index=True)
    model: Mapped[str]
    info: Mapped[dict[str, Any]]
    body: Mapped[dict[str, Any]]
    messages: Mapped[list[Any]]
