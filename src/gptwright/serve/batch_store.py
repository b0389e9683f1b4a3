"""Batches in the control store: what is to be answered, what was, and where the results lie. A restart goes on from here."""

import datetime
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa
from sqlalchemy.orm import Session

from gptwright.core.control import ControlStore, utc_now
from gptwright.core.serving_tables import Batch, BatchLine
from gptwright.serve.errors import ApiError
from gptwright.serve.file_store import FileStore
from gptwright.serve.response_store import new_id

OPEN = ("validating", "in_progress", "finalizing", "cancelling")
MOST_LINES = 50_000
"""Most requests of one batch; OpenAI's limit too."""


@dataclass(frozen=True)
class Counts:
    """How far a batch is."""

    total: int = 0
    completed: int = 0
    failed: int = 0


class BatchStore:
    """Reads and writes batches. Every method may block; call it in a thread.

    Args:
        control: the control store.
        files: where inputs lie and results go.
    """

    def __init__(self, control: ControlStore, files: FileStore) -> None:
        self._control, self._files = control, files

    # For endpoints

    def create(self, key_id: int | None, fields: dict[str, Any], window_s: float) -> tuple[Batch, Counts]:
        """Take a batch in.

        Raises:
            ApiError: 404, there is no such input file.
        """
        self._files.get(fields["input_file_id"], key_id)
        with self._control.session() as session:
            expires = utc_now() + datetime.timedelta(seconds=window_s)
            row = Batch(id=new_id("batch"), key_id=key_id, status="validating", expires_at=expires, errors=[], **fields)
            session.add(row)
            return row, Counts()

    def get(self, batch_id: str, key_id: int | None) -> tuple[Batch, Counts]:
        """A batch and how far it is.

        Raises:
            ApiError: 404.
        """
        with self._control.session() as session:
            row = self._get(session, batch_id, key_id)
            return row, _counts(session, [row.id]).get(row.id, Counts())

    def page(self, key_id: int | None, after: str | None, limit: int) -> tuple[list[tuple[Batch, Counts]], bool]:
        """Batches of a caller, newest first, and whether there are more.

        Raises:
            ApiError: 404, there is no batch ``after``.
        """
        with self._control.session() as session:
            whose = Batch.key_id.is_(None) if key_id is None else Batch.key_id == key_id
            asked = sa.select(Batch).where(whose).order_by(Batch.created_at.desc(), Batch.id.desc())
            if after is not None:
                last = self._get(session, after, key_id, param="after")
                asked = asked.where(
                    sa.or_(
                        Batch.created_at < last.created_at,
                        sa.and_(Batch.created_at == last.created_at, Batch.id < last.id),
                    )
                )
            rows = list(session.scalars(asked.limit(limit + 1)))
            counts = _counts(session, [row.id for row in rows])
            return [(row, counts.get(row.id, Counts())) for row in rows[:limit]], len(rows) > limit

    def cancel(self, batch_id: str, key_id: int | None) -> tuple[Batch, Counts]:
        """Ask a batch to stop.

        Raises:
            ApiError: 404; 409, it is over.
        """
        with self._control.session() as session:
            row = self._get(session, batch_id, key_id)
            if row.status not in ("validating", "in_progress", "cancelling"):
                raise ApiError(409, f"{batch_id} is {row.status}; it cannot be cancelled any more.", code="batch_over")
            if row.status != "cancelling":
                row.status, row.cancelling_at = "cancelling", utc_now()
            return row, _counts(session, [row.id]).get(row.id, Counts())

    # For the worker

    def open_batches(self) -> list[Batch]:
        """Batches that are not over, oldest first."""
        with self._control.session() as session:
            asked = sa.select(Batch).where(Batch.status.in_(OPEN)).order_by(Batch.created_at, Batch.id)
            return list(session.scalars(asked))

    def status(self, batch_id: str) -> str:
        """The state of a batch now."""
        with self._control.session() as session:
            return session.scalars(sa.select(Batch.status).where(Batch.id == batch_id)).one()

    def move(self, batch_id: str, status: str, **fields: Any) -> None:
        """Bring a batch into a state, with the time; one that is being cancelled does not go back to work."""
        with self._control.session() as session:
            row = session.get_one(Batch, batch_id)
            if row.status == "cancelling" and status in ("in_progress", "finalizing"):
                return
            row.status = status
            setattr(row, f"{status}_at", utc_now())
            for name, value in fields.items():
                setattr(row, name, value)

    def take_in(self, batch: Batch) -> list[dict[str, Any]]:
        """Read the input file into lines.

        Returns:
            What is wrong with it, in OpenAI's shape; empty: all lines are taken in.
        """
        faults: list[dict[str, Any]] = []
        rows: list[dict[str, Any]] = []
        names: set[str] = set()
        try:
            self._files.get(batch.input_file_id, batch.key_id)
        except ApiError:
            return [_fault(None, "input_file_gone", "the input file was deleted")]
        for number, line in enumerate(self._files.lines(batch.input_file_id), start=1):
            if not line.strip():
                continue
            found = _line(line, number, batch.endpoint)
            if found.get("code"):
                faults.append(found)
            elif found["custom_id"] in names:
                faults.append(_fault(number, "duplicate_custom_id", "custom_id is not unique", "custom_id"))
            else:
                names.add(found["custom_id"])
                rows.append({"batch_id": batch.id, "position": len(rows), "answer": {}, **found})
            if len(rows) > MOST_LINES:
                return [_fault(number, "too_many_requests", f"more than {MOST_LINES} requests")]
            if len(faults) >= 100:
                break
        if not rows and not faults:
            faults.append(_fault(None, "empty_file", "the file has no requests"))
        if not faults:
            with self._control.session() as session:
                session.execute(sa.delete(BatchLine).where(BatchLine.batch_id == batch.id))
                for at in range(0, len(rows), 1000):
                    session.execute(sa.insert(BatchLine), rows[at : at + 1000])
        return faults

    def pending(self, batch_id: str, limit: int, beyond: int = -1) -> list[BatchLine]:
        """Lines that have no answer yet, after a position."""
        with self._control.session() as session:
            asked = sa.select(BatchLine).where(
                BatchLine.batch_id == batch_id, BatchLine.status_code.is_(None), BatchLine.position > beyond
            )
            return list(session.scalars(asked.order_by(BatchLine.position).limit(limit)))

    def answered(self, line: BatchLine, status_code: int, request_id: str, answer: dict[str, Any]) -> None:
        """Keep the answer of a line."""
        with self._control.session() as session:
            row = session.get_one(BatchLine, (line.batch_id, line.position))
            row.status_code, row.request_id, row.answer = status_code, request_id, answer

    def finish(self, batch: Batch, status: str) -> None:
        """Write the results of a batch and end it. May be called again after a crash: then the results are written anew."""
        kept = batch.output_kept_s
        left = {
            "cancelled": ("batch_cancelled", "The batch was cancelled."),
            "expired": ("batch_expired", "The batch expired."),
        }
        good = self._files.write(self._results(batch.id, None), f"{batch.id}_output.jsonl", batch.key_id, kept)
        bad = self._files.write(
            self._results(batch.id, left.get(status, ("", ""))), f"{batch.id}_error.jsonl", batch.key_id, kept
        )
        self.move(batch.id, status, output_file_id=good, error_file_id=bad)

    def _results(self, batch_id: str, left: tuple[str, str] | None) -> Iterator[bytes]:
        """Lines of the output file (``left`` is None) or of the error file, where unanswered ones have ``left`` as code and message."""
        beyond = -1
        while True:
            with self._control.session() as session:
                asked = sa.select(BatchLine).where(BatchLine.batch_id == batch_id, BatchLine.position > beyond)
                rows = list(session.scalars(asked.order_by(BatchLine.position).limit(500)))
            for row in rows:
                failed = row.status_code is None or row.status_code >= 400
                if failed == (left is not None):
                    yield _result(row, left)
            if not rows:
                return
            beyond = rows[-1].position

    @staticmethod
    def _get(session: Session, batch_id: str, key_id: int | None, param: str = "batch_id") -> Batch:
        row = session.get(Batch, batch_id)
        if row is None or row.key_id != key_id:
            raise ApiError(404, f"There is no batch {batch_id}.", param=param, code="not_found")
        return row


def _counts(session: Session, ids: Sequence[str]) -> dict[str, Counts]:
    good = sa.func.coalesce(sa.func.sum(sa.case((BatchLine.status_code < 400, 1), else_=0)), 0)
    bad = sa.func.coalesce(sa.func.sum(sa.case((BatchLine.status_code >= 400, 1), else_=0)), 0)
    asked = sa.select(BatchLine.batch_id, sa.func.count(), good, bad).where(BatchLine.batch_id.in_(ids))
    return {
        name: Counts(int(n), int(a), int(b)) for name, n, a, b in session.execute(asked.group_by(BatchLine.batch_id))
    }


def _line(line: bytes, number: int, endpoint: str) -> dict[str, Any]:
    """A line's custom_id and body, or what is wrong with it."""
    try:
        value = json.loads(line)
    except (ValueError, RecursionError):
        return _fault(number, "invalid_json_line", "the line is not valid JSON")
    if not isinstance(value, dict):
        return _fault(number, "invalid_request", "the line is no object")
    if unknown := set(value) - {"custom_id", "method", "url", "body"}:
        return _fault(number, "unknown_parameter", "unknown field; nothing is ignored in silence", sorted(unknown)[0])
    name = value.get("custom_id")
    if not isinstance(name, str) or not 0 < len(name) <= 512:
        return _fault(
            number, "missing_required_parameter", "needs custom_id, a text of at most 512 characters", "custom_id"
        )
    if value.get("method") != "POST":
        return _fault(number, "invalid_method", "method must be POST", "method")
    if value.get("url") != endpoint:
        return _fault(number, "mismatched_url", f"url must be the batch's endpoint, {endpoint}", "url")
    body = value.get("body")
    if not isinstance(body, dict):
        return _fault(number, "invalid_request", "body must be an object", "body")
    if body.get("stream"):
        return _fault(number, "unsupported_parameter", "a batch has no streams", "body.stream")
    return {"custom_id": name, "body": body}


def _fault(line: int | None, code: str, message: str, param: str | None = None) -> dict[str, Any]:
    return {"code": code, "line": line, "message": message, "param": param}


def _result(row: BatchLine, left: tuple[str, str] | None) -> bytes:
    response = error = None
    if row.status_code is None:
        code, message = left or ("", "")
        error = {"code": code, "message": message}
    else:
        response = {"status_code": row.status_code, "request_id": row.request_id, "body": row.answer}
    value = {
        "id": f"batch_req_{row.batch_id.removeprefix('batch_')}_{row.position}",
        "custom_id": row.custom_id,
        "response": response,
        "error": error,
    }
    return json.dumps(value, ensure_ascii=False).encode() + b"\n"
