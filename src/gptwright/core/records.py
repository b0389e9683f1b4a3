"""The rows of the ledger: artifacts, sources, files, runs, events, evaluations."""

from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Artifact:
    """Something made: a dataset, tokenizer, shard set, checkpoint, model, report. ``path`` is relative to the project, POSIX."""

    id: int
    kind: str
    stage: str
    name: str
    path: str
    hash: str
    key: str
    meta: dict[str, Any]
    created_at: str
    run_id: str | None


@dataclass(frozen=True)
class SourceRow:
    """A source of text and the terms it came under."""

    name: str
    kind: str
    uri: str
    license: str | None
    license_source: str
    attribution: str | None
    contains_personal_data: str
    pii: str


@dataclass(frozen=True)
class FileRow:
    """What became of one file of a source: ok, empty, unreadable or skipped, and why."""

    source: str
    locator: str
    outcome: str
    reason: str | None
    size_bytes: int
    mtime_ns: int
    raw_hash: str
    documents: int


@dataclass(frozen=True)
class Run:
    """One execution of a stage. The clock never orders runs; ``seq`` does."""

    id: str
    seq: int
    stage: str
    state: str
    config: dict[str, Any]
    meta: dict[str, Any]
    started_at: str
    finished_at: str | None


@dataclass(frozen=True)
class Event:
    """A decision taken inside a run, written before it acts."""

    id: int
    run_id: str
    kind: str
    data: dict[str, Any]
    at: str


@dataclass(frozen=True)
class Evaluation:
    """One number about one model, with its interval and the data it was measured on."""

    id: int
    model_id: str
    model_hash: str
    suite: str
    metric: str
    value: float
    low: float | None
    high: float | None
    n: int
    unit: str
    dataset_hash: str
    detail: dict[str, Any]
    created_at: str
