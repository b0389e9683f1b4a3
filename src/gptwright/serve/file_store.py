"""Uploaded files and the results of batches, in the control store. Whoever made one with a key finds it with that key only."""

import datetime
import re
from collections.abc import Iterable, Iterator
from typing import IO

import sqlalchemy as sa
from sqlalchemy.orm import Session

from gptwright.core.control import ControlStore, utc_now
from gptwright.core.serving_tables import StoredChunk, StoredFile
from gptwright.serve.errors import ApiError
from gptwright.serve.response_store import new_id

_CHUNK = 1 << 20


class FileStore:
    """Reads and writes files. Every method may block; call it in a thread.

    Args:
        control: the control store.
        kept_s: how long a file is kept unless told otherwise. Seconds.
    """

    def __init__(self, control: ControlStore, kept_s: float) -> None:
        self._control, self._kept_s = control, kept_s

    def save(
        self, source: IO[bytes], filename: str, purpose: str, key_id: int | None, kept_s: float | None
    ) -> StoredFile:
        """Keep a file.

        Args:
            source: its bytes; read to the end.
            filename: what the client calls it; only shown, never a path.
            purpose: what it is for.
            key_id: whose it is.
            kept_s: how long; None: as long as any. Seconds.
        """
        return self._save(iter(lambda: source.read(_CHUNK), b""), filename, purpose, key_id, kept_s)

    def write(self, lines: Iterable[bytes], filename: str, key_id: int | None, kept_s: float | None) -> str | None:
        """Keep the result of a batch; None if there are no lines, else the file's id."""
        buffer, chunks = bytearray(), []
        for line in lines:
            buffer += line
            if len(buffer) >= _CHUNK:
                chunks.append(bytes(buffer))
                buffer.clear()
        chunks += [bytes(buffer)] if buffer else []
        return self._save(iter(chunks), filename, "batch_output", key_id, kept_s).id if chunks else None

    def _save(
        self, chunks: Iterator[bytes], filename: str, purpose: str, key_id: int | None, kept_s: float | None
    ) -> StoredFile:
        expires = utc_now() + datetime.timedelta(seconds=self._kept_s if kept_s is None else kept_s)
        name = re.sub(r"[\x00-\x1f\x7f]", "", filename).strip()[:255] or "file"
        with self._control.session() as session:
            row = StoredFile(
                id=new_id("file").replace("_", "-"),
                key_id=key_id,
                expires_at=expires,
                filename=name,
                purpose=purpose,
                size_bytes=0,
            )
            session.add(row)
            session.flush()
            for position, chunk in enumerate(chunks):
                # Past the session's own memory: a hundred megabytes would stay in it until the end.
                session.execute(sa.insert(StoredChunk).values(file_id=row.id, position=position, data=chunk))
                row.size_bytes += len(chunk)
            return row

    def stored_bytes(self, key_id: int | None) -> int:
        """Size of all files of a caller. Bytes."""
        whose = StoredFile.key_id.is_(None) if key_id is None else StoredFile.key_id == key_id
        with self._control.session() as session:
            return int(
                session.scalar(sa.select(sa.func.coalesce(sa.func.sum(StoredFile.size_bytes), 0)).where(whose)) or 0
            )

    def get(self, file_id: str, key_id: int | None) -> StoredFile:
        """A file, without its bytes.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            return self._get(session, file_id, key_id)

    def all(self, key_id: int | None) -> list[StoredFile]:
        """All files of a caller, newest first."""
        with self._control.session() as session:
            whose = StoredFile.key_id.is_(None) if key_id is None else StoredFile.key_id == key_id
            rows = session.scalars(
                sa.select(StoredFile)
                .where(whose, StoredFile.expires_at > utc_now())
                .order_by(StoredFile.created_at.desc(), StoredFile.id)
            )
            return list(rows)

    def delete(self, file_id: str, key_id: int | None) -> None:
        """Delete a file.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            session.delete(self._get(session, file_id, key_id))

    def chunk(self, file_id: str, position: int) -> bytes | None:
        """A part of a file's bytes; None: there are no more."""
        with self._control.session() as session:
            row = session.get(StoredChunk, (file_id, position))
            return row.data if row is not None else None

    def lines(self, file_id: str) -> Iterator[bytes]:
        """A file line by line, without their ends."""
        rest, position = b"", 0
        while (data := self.chunk(file_id, position)) is not None:
            *whole, rest = (rest + data).split(b"\n")
            yield from whole
            position += 1
        if rest:
            yield rest

    def clean(self) -> int:
        """Delete what is over; how many."""
        with self._control.session() as session:
            rows = session.scalars(sa.select(StoredFile).where(StoredFile.expires_at <= utc_now())).all()
            for row in rows:
                session.delete(row)
            return len(rows)

    @staticmethod
    def _get(session: Session, file_id: str, key_id: int | None) -> StoredFile:
        row = session.get(StoredFile, file_id)
        expires = row.expires_at if row is not None else None
        if expires is not None and expires.tzinfo is None:  # SQLite forgets the zone; all our times are UTC
            expires = expires.replace(tzinfo=datetime.UTC)
        if row is None or row.key_id != key_id or (expires is not None and expires <= utc_now()):
            raise ApiError(404, f"There is no file {file_id}.", param="file_id", code="not_found")
        return row
