"""Tasks that turn files into documents. A task takes a group of neighbouring files; its name is the hash of their names and bytes,
the source's terms and this code. What a former task read of an unchanged file is copied from its result, not read again.
"""

import json
import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY, read_json, sync_directory, write_json
from gptwright.core.hashing import b2_file, b2_json, content_id, doc_uid, norm_id
from gptwright.core.ledger import FileRow
from gptwright.core.stages import code_version
from gptwright.corpus import readers, tables
from gptwright.corpus.sources.base import Facts, Listing, SourceFile
from gptwright.corpus.text import NotText

GROUP_BYTES = 32 << 20
GROUP_FILES = 512
OUTPUT_BYTES = 96 << 20  # of text; a task of more writes several files
CODE = (
    "gptwright.core.hashing",
    *(f"gptwright.corpus.{m}" for m in ("extract", "readers", "shapes", "tables", "text")),
)


class Input(NamedTuple):
    """A file of a task. Its place, bytes, reader and facts name what is read from it; path, size and time only find it."""

    locator: str
    path: str
    raw_hash: str
    size_bytes: int
    mtime_ns: int
    kind: str | None = None
    facts: str = "{}"  # JSON of Facts

    @property
    def identity(self) -> list[Any]:
        """What decides the rows that it gives."""
        return [self.locator, self.raw_hash, self.kind, self.facts]


@dataclass(frozen=True)
class Job:
    """A task: files of one source with their hashes. Pure: the same job gives the same rows anywhere, at any time."""

    folder: str  # tasks/
    source: str
    terms: dict[str, Any]  # columns that every document of the source shares
    files: tuple[Input, ...]
    reuse: tuple[
        tuple[str, str, int, int], ...
    ] = ()  # (locator, parquet file, first row, rows) of files that are known

    @property
    def name(self) -> str:
        return "extract-" + _digest([code(), self.source, self.terms, [file.identity for file in self.files]])

    @property
    def record(self) -> Path:
        """The file that says that the task is done and what it found."""
        return Path(self.folder) / f"{self.name}.json"


@dataclass
class _Writer:
    """Rows of one task, written in files of bounded size under temporary names until the task is done."""

    folder: Path
    rows: list[dict[str, Any]] = field(default_factory=list)
    tables: list[pa.Table] = field(default_factory=list)
    size: int = 0
    total: int = 0
    done: list[tuple[Path, int]] = field(default_factory=list)

    def add(self, row: dict[str, Any]) -> None:
        self.rows.append(row)
        self._count(1, len(row["text"]) + len(row["messages"] or ""))
        if len(self.rows) >= 4096:
            self._pack()

    def add_table(self, table: pa.Table) -> None:
        self._pack()
        self.tables.append(table)
        self._count(table.num_rows, table.nbytes)

    def _count(self, rows: int, size: int) -> None:
        self.total += rows
        self.size += size
        if self.size > OUTPUT_BYTES:
            self.flush()

    def _pack(self) -> None:
        if self.rows:
            self.tables.append(pa.Table.from_pylist(self.rows, schema=tables.DOCS))
            self.rows = []

    def flush(self) -> None:
        self._pack()
        if self.tables:
            table = pa.concat_tables(self.tables)
            path = self.folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}.parquet"
            tables.write_table(path, table)
            self.done.append((path, table.num_rows))
            self.tables, self.size = [], 0


@cache
def code() -> str:
    """Version of what decides a task's result: code, and the libraries that read HTML and YAML."""
    import importlib.metadata

    return b2_json(
        [code_version(CODE), importlib.metadata.version("resiliparse"), importlib.metadata.version("pyyaml")]
    )


def _digest(value: Any) -> str:
    return b2_json(value).removeprefix("b2:")[:32]


def file_key(source: str, terms: dict[str, Any], file: Input) -> str:
    """Names what is read from one file, so that it is read once."""
    return _digest([code(), source, terms, file.identity])


def input_of(file: SourceFile, raw_hash: str) -> Input:
    """A listed file as a task's."""
    facts = json.dumps(file.facts.to_json(), sort_keys=True)
    return Input(file.locator, str(file.path), raw_hash, file.size_bytes, file.mtime_ns, file.kind, facts)


def groups(files: Sequence[tuple[SourceFile, str]]) -> Iterator[list[tuple[SourceFile, str]]]:
    """Cut a source's ordered files into groups. Most cuts depend on a file's name alone, so that a new file changes its own
    group and leaves the others, and their results, as they are."""
    group: list[tuple[SourceFile, str]] = []
    size = 0
    for file, raw_hash in files:
        if group and (size + file.size_bytes > GROUP_BYTES or len(group) >= 2 * GROUP_FILES):
            yield group
            group, size = [], 0
        group.append((file, raw_hash))
        size += file.size_bytes
        if int(norm_id(file.locator)[:8], 16) % GROUP_FILES == 0:
            yield group
            group, size = [], 0
    if group:
        yield group


def run(job: Job) -> str:
    """Do a task unless it is done. Returns the path of its record."""
    if job.record.exists():
        return str(job.record)
    writer = _Writer(Path(job.folder))
    known = {locator: (path, first, count) for locator, path, first, count in job.reuse}
    opened: dict[str, pa.Table] = {}
    files: list[dict[str, Any]] = []
    for file in job.files:
        locator, before = file.locator, writer.total
        if locator in known:
            old, first, count = known[locator]
            outcome, reason = "ok", _former_reason(old, locator)
            if old not in opened:
                opened = {old: pq.read_table(old, schema=tables.DOCS)}
            writer.add_table(opened[old].slice(first, count))
        else:
            outcome, reason = _extract(job, file, writer)
            _check_unchanged(Path(file.path), file.size_bytes, file.mtime_ns)
        files.append(
            {
                "key": file_key(job.source, job.terms, file),
                "locator": locator,
                "raw_hash": file.raw_hash,
                "outcome": outcome,
                "reason": reason,
                "first": before,
                "documents": writer.total - before,
            }
        )
    writer.flush()
    outputs = []
    for number, (temporary, rows) in enumerate(writer.done):
        name = f"{job.name}-{number:04d}.parquet"
        temporary.replace(Path(job.folder) / name)
        outputs.append({"name": name, "rows": rows})
    sync_directory(Path(job.folder))
    write_json(job.record, {"source": job.source, "outputs": outputs, "files": files})
    return str(job.record)


def _check_unchanged(path: Path, size_bytes: int, mtime_ns: int) -> None:
    """What was read must be what was hashed, or a wrong text would go by this hash for ever."""
    try:
        now = path.stat()
    except OSError:
        now = None
    if now is None or (now.st_size, now.st_mtime_ns) != (size_bytes, mtime_ns):
        raise UserError("the file changed while it was read", where=str(path), fix="Run the same command again")


def _former_reason(parquet: str, locator: str) -> str | None:
    record = read_json(Path(parquet).with_name(Path(parquet).name.rpartition("-")[0] + ".json"))
    return next((file["reason"] for file in record["files"] if file["locator"] == locator), None)


def _extract(job: Job, file: Input, writer: _Writer) -> tuple[str, str | None]:
    """Read one file into rows. Returns its outcome and reason."""
    path = Path(file.path)
    facts = Facts.from_json(json.loads(file.facts))
    reading = None
    before = writer.total
    try:
        if path.stat().st_size == 0:
            return "empty", None
        reading = readers.read_file(path)
        head = ""
        for record in reading.records:
            text = "\n".join(m["content"] for m in record.messages) if record.messages is not None else record.text
            if not text:
                reading.n_blank += 1
                continue
            if record.part == 1:
                head = norm_id(text)
            writer.add(_row(job, file, facts, reading, record, text, head))
    except readers.Skip as error:
        return "skipped", str(error)
    except NotText as error:
        return _partly(writer.total - before, str(error))
    except OSError as error:
        return _partly(writer.total - before, error.strerror or str(error))
    except UnicodeDecodeError as error:
        return _partly(writer.total - before, f"not {error.encoding} at byte {error.start}")
    reason = readers.summary(reading)
    if writer.total == before:
        return ("unreadable", reason) if reading.n_faults else ("empty", reason or "no text in it")
    return "ok", reason


def _partly(rows: int, reason: str) -> tuple[str, str]:
    return ("ok", f"read in part ({rows} documents), then: {reason}") if rows else ("unreadable", reason)


def _row(
    job: Job, file: Input, facts: Facts, reading: readers.Reading, record: readers.Record, text: str, head: str
) -> dict[str, Any]:
    marks = [record.suffix] if record.suffix else []
    if record.part > 1:
        marks.append(f"part={record.part}")
    place = file.locator + ("#" + "&".join(marks) if marks else "")
    own = norm_id(text)
    # Of two licences the more trusted; the person's own word is the most.
    known = Facts(**{k: v for k, v in job.terms.items() if k != "pii_policy"}) | facts
    return {
        "doc_uid": bytes.fromhex(doc_uid(job.source, place)),
        "content_id": bytes.fromhex(content_id(text)),
        "norm_id": bytes.fromhex(own),
        "split_id": bytes.fromhex(head or own),
        "raw_hash": file.raw_hash,
        "rev": 1,
        "part": record.part,
        "text": text,
        "messages": json.dumps(record.messages, ensure_ascii=False) if record.messages is not None else None,
        "title": record.title or known.title,
        "url": record.url or known.url,
        "source": job.source,
        "locator": place,
        "mime": reading.mime,
        "charset": reading.charset,
        "extractor": f"{readers.EXTRACTOR}.{reading.kind}",
        "lang_declared": record.lang,
        "fetched_at": known.fetched_at,
        "published_at": known.published_at,
        "license_id": known.license_id,
        "license_source": known.license_source,
        "license_conf": known.license_conf,
        "attribution": known.attribution,
        "optout": known.optout,
        "consent": json.dumps([dict(signal) for signal in known.consent]) if known.consent else None,
        "pii_policy": job.terms["pii_policy"],
    }


def hash_files(
    listing: Listing, known: dict[str, tuple[int, int, str]]
) -> tuple[list[tuple[SourceFile, str]], list[FileRow]]:
    """Hash a source's files, except those whose size and time are as they were.

    Args:
        known: locator -> (size, mtime_ns, raw_hash) of the last time.

    Returns:
        Files with their hashes, and rows of those that cannot be opened.
    """
    hashed: list[tuple[SourceFile, str]] = []
    failed: list[FileRow] = []
    for file in listing.files:
        if file.raw_hash is not None:
            hashed.append((file, file.raw_hash))
            continue
        former = known.get(file.locator)
        if former and former[:2] == (file.size_bytes, file.mtime_ns):
            hashed.append((file, former[2]))
            continue
        try:
            hashed.append((file, b2_file(file.path)))
        except OSError as error:
            reason = error.strerror or str(error)
            failed.append(
                FileRow(listing.name, file.locator, "unreadable", reason, file.size_bytes, file.mtime_ns, "", 0)
            )
    return hashed, failed
