"""The tasks of a build: which there are, running them anywhere, and removing the results that nothing needs any more."""

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Protocol, TypeVar

from gptwright.core.errors import Interrupted
from gptwright.core.executors import Executor
from gptwright.core.files import read_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.ledger import FileRow
from gptwright.core.progress import progress
from gptwright.core.staging import Movable
from gptwright.corpus import extract, look
from gptwright.corpus.blocks import Blocks
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import settings_key, write_features
from gptwright.corpus.result import pii_words
from gptwright.corpus.sources.base import Listing


class Task(Movable, Protocol):
    """A job that knows its result."""

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        ...


J = TypeVar("J", bound=Task)


@dataclass(frozen=True)
class Features:
    """A task: what deduplication needs to know of one docs file.

    Args:
        folder: where the result goes.
        docs: path of the docs file, which is named by its content.
        config: settings of deduplication.
        editable: lines and spans may be taken out of its plain texts.
    """

    folder: str
    docs: str
    config: DedupConfig

    @property
    def name(self) -> str:
        return "features-" + extract.digest([settings_key(self.config), Path(self.docs).name])

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.name}.arrow"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.path.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        return [self.docs]

    def moved(self, folder: str, places: Mapping[str, str]) -> "Features":
        """The same job elsewhere."""
        return replace(self, folder=folder, docs=places[self.docs])


def make_features(job: Features) -> str:
    """Do a task unless it is done. Returns its name."""
    write_features(Path(job.docs), job.path, job.config)
    return job.name


def run(label: str, task: Callable[[J], Any], jobs: Sequence[J], executor: Executor) -> None:
    """Run the tasks that are not done yet, with a progress bar; Ctrl-C stops between two of them.

    Raises:
        Interrupted: stopped; what was done is kept, and the next build goes on.
    """
    todo = [job for job in jobs if not job.done]
    done = len(jobs) - len(todo)
    with progress(label, total=len(jobs), unit="tasks") as bar, stop_on_signals() as stop:
        bar.advance(done)
        for _ in executor.map(task, todo):
            done += 1
            bar.advance()
            if stop:
                break
        if stop:  # also after the last task: there is more to do than this
            raise Interrupted(f"stopped by {stop.reason} after {done} of {len(jobs)} tasks; run again to continue")


def extract_jobs(
    listings: Sequence[Listing],
    config: CorpusConfig,
    out: Path,
    blocks: Blocks | None,
    reviews: Mapping[str, list[list[Any]]],
) -> tuple[list[extract.Job], list[FileRow], dict[str, Any]]:
    """The tasks that read all sources in order, files that cannot be opened, and sizes, times and hashes to remember."""
    tasks = out / "tasks"
    old_stats = read_json(out / "stat.json") if (out / "stat.json").exists() else {}
    known_files = _known_files(tasks)
    jobs: list[extract.Job] = []
    failed: list[FileRow] = []
    stats: dict[str, Any] = {}
    for listing in listings:
        known = {name: (row[0], row[1], row[2]) for name, row in old_stats.get(listing.name, {}).items()}
        hashed, bad = extract.hash_files(listing, known)
        failed += bad
        stats[listing.name] = {file.locator: [file.size_bytes, file.mtime_ns, raw] for file, raw in hashed}
        terms = {
            "license_id": listing.licence.id,
            "license_source": listing.licence.source,
            "license_conf": listing.licence.confidence,
            "attribution": listing.licence.attribution,
            "pii_policy": pii_words(config.sources[listing.name]),
            **({"reviews": reviews[listing.name]} if reviews.get(listing.name) else {}),
        }
        for group in extract.groups(hashed):
            files = tuple(extract.input_of(file, raw) for file, raw in group)
            keys = {file.locator: extract.file_key(listing.name, terms, file) for file in files}
            reuse = tuple((name, *known_files[key]) for name, key in keys.items() if key in known_files)
            jobs.append(extract.Job(str(tasks), listing.name, terms, files, reuse, blocks))
    return jobs, failed, stats


def _known_files(tasks: Path) -> dict[str, tuple[str, int, int]]:
    """What former tasks read of single files: key -> (parquet file, first row, rows)."""
    known: dict[str, tuple[str, int, int]] = {}
    for path in sorted(tasks.glob("extract-*.json")):
        record = read_json(path)
        # Where texts were left out, rows do not stand where they were counted.
        if len(record["outputs"]) == 1 and not record.get("erased"):
            output = str(tasks / record["outputs"][0]["name"])
            known |= {f["key"]: (output, f["first"], f["documents"]) for f in record["files"] if f["outcome"] == "ok"}
    return known


def look_job(tasks: Path, docs: str, source: str, config: CorpusConfig, key: bytes | None) -> look.Job:
    """The task that looks into a docs file under its source's settings."""
    settings = config.sources[source]
    policy = json.dumps(settings.pii, sort_keys=True)
    return look.Job(
        str(tasks),
        str(tasks / docs),
        policy,
        settings.tidy,
        key if "pseudonymize" in policy else None,
        settings.pii_names,
    )


def file_rows(
    listings: Sequence[Listing], records: Iterable[dict[str, Any]], failed: Sequence[FileRow]
) -> list[FileRow]:
    """The outcome of every file, and of everything in files that has one of its own."""
    files = {(listing.name, file.locator): file for listing in listings for file in listing.files}
    rows = [row for listing in listings for row in listing.set_aside] + list(failed)
    for record in records:
        source = record["source"]
        for done in record["files"]:
            file = files[(source, done["locator"])]
            raw = done["raw_hash"]
            about = (file.size_bytes, file.mtime_ns, raw, done["documents"])
            rows.append(FileRow(source, file.locator, done["outcome"], done["reason"], *about))
            for locator, outcome, reason, size, documents in done.get("inner", []):
                rows.append(FileRow(source, locator, outcome, reason, size, file.mtime_ns, raw, documents))
    return rows


def forget_old_tasks(tasks: Path, wanted: set[str]) -> None:
    """Results that nothing points to any more go: text of a file that was deleted must not stay behind."""
    for path in tasks.iterdir():
        if path.is_file() and "-".join(path.stem.split("-")[:2]) not in wanted:
            path.unlink()
