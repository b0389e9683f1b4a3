"""Tasks that turn files into documents. A task takes a group of neighbouring files; its name is the hash of their names and bytes,
the source's terms and this code. What a former task read of an unchanged file is copied from its result, not read again.
"""

import json
import pkgutil
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import read_json, sync_directory, write_json
from gptwright.core.hashing import b2_file, b2_json, norm_id
from gptwright.core.ledger import FileRow
from gptwright.core.stages import code_version
from gptwright.corpus import readers, tables
from gptwright.corpus.blocks import Blocks
from gptwright.corpus.docwriter import DocWriter
from gptwright.corpus.filetask import FileTask, Input
from gptwright.corpus.sources.base import Listing, SourceFile

GROUP_BYTES = 32 << 20
GROUP_FILES = 512
CODE = (
    "gptwright.core.hashing",
    *(
        f"gptwright.corpus.{m}"
        for m in (
            "docwriter",
            "extract",
            "filetask",
            "fold",
            "readers",
            "rowids",
            "shapes",
            "tables",
            "text",
            "wikidump",
            "wikitext",
        )
    ),
    *(f"gptwright.corpus.{m}" for m in ("licences.names", "sources.base", "sources.consent", "sources.page")),
    *sorted(f"gptwright.corpus.readers.{module.name}" for module in pkgutil.iter_modules(readers.__path__)),
)
LIBRARIES = ("charset-normalizer", "ftfy", "pypdfium2", "pyyaml", "resiliparse")


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
    blocks: Blocks | None = (
        None  # texts that were erased; no part of the name, for what holds one was deleted when it was erased
    )

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.record.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        return [file.path for file in self.files]

    def moved(self, folder: str, places: Mapping[str, str]) -> "Job":
        """The same job elsewhere; there, what is known of files is not at hand."""
        return replace(self, folder=folder, files=tuple(file.at(places[file.path]) for file in self.files), reuse=())

    @property
    def name(self) -> str:
        return "extract-" + digest([code(), self.source, self.terms, [file.identity for file in self.files]])

    @property
    def record(self) -> Path:
        """The file that says that the task is done and what it found."""
        return Path(self.folder) / f"{self.name}.json"


@cache
def code() -> str:
    """Version of what decides a task's result: code, and the libraries that read and repair."""
    import importlib.metadata

    return b2_json([code_version(CODE), *(importlib.metadata.version(library) for library in LIBRARIES)])


def digest(value: Any) -> str:
    """A short name for JSON values."""
    return b2_json(value).removeprefix("b2:")[:32]


def file_key(source: str, terms: dict[str, Any], file: Input) -> str:
    """Names what is read from one file, so that it is read once."""
    return digest([code(), source, terms, file.identity])


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
    writer = DocWriter(Path(job.folder), job.source, job.terms["pii_policy"], job.blocks)
    known = {locator: (path, first, count) for locator, path, first, count in job.reuse}
    opened: dict[str, pa.Table] = {}
    files: list[dict[str, Any]] = []
    for file in job.files:
        locator, before = file.locator, writer.total
        if locator in known:
            old, first, count = known[locator]
            former = _former(old, locator)
            outcome, reason, inner = "ok", former.get("reason"), former.get("inner", [])
            if old not in opened:
                opened = {old: pq.read_table(old, schema=tables.DOCS)}
            writer.add_table(opened[old].slice(first, count))
        else:
            outcome, reason, inner = FileTask(job.terms, file, writer).run()
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
            | ({"inner": inner} if inner else {})
        )
    writer.flush()
    _say_erased(files, writer)
    outputs = []
    for number, (temporary, rows) in enumerate(writer.done):
        # Without an erased text the file is another one, and so is all that is made from it.
        name = f"{job.name}-{writer.mark}{number:04d}.parquet"
        temporary.replace(Path(job.folder) / name)
        outputs.append({"name": name, "rows": rows})
    sync_directory(Path(job.folder))
    erased = {"erased": writer.erased.total()} if writer.erased else {}
    write_json(job.record, {"source": job.source, "outputs": outputs, "files": files, **erased})
    return str(job.record)


def _say_erased(files: list[dict[str, Any]], writer: DocWriter) -> None:
    """Say of each file how many of its documents were left out because they were erased."""
    for place, count in writer.erased.items():
        file = next(
            f for f in files if place == f["locator"] or place.startswith((f["locator"] + "#", f["locator"] + "!/"))
        )
        file["documents"] -= count
        said = f"{count} documents left out: erased on demand"
        file["reason"] = f"{file['reason']}; {said}" if file["reason"] else said
        if not file["documents"]:
            file["outcome"] = "skipped"


def _check_unchanged(path: Path, size_bytes: int, mtime_ns: int) -> None:
    """What was read must be what was hashed, or a wrong text would go by this hash for ever."""
    try:
        now = path.stat()
    except OSError:
        now = None
    if now is None or (now.st_size, now.st_mtime_ns) != (size_bytes, mtime_ns):
        raise UserError("the file changed while it was read", where=str(path), fix="Run the same command again")


def _former(parquet: str, locator: str) -> dict[str, Any]:
    """What a former task's record says of a file."""
    record = read_json(Path(parquet).with_name(Path(parquet).name.rpartition("-")[0] + ".json"))
    return next((file for file in record["files"] if file["locator"] == locator), {})


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
