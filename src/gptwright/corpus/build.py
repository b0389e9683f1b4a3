"""Build the corpus: list, hash, extract, look, decide, link. Each step asks first whether its result is there already."""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.executors import map_tasks, usable_cores
from gptwright.core.files import TEMPORARY, read_json, remove_leftovers, write_json
from gptwright.core.hashing import b2_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.ledger import FileRow, Ledger, SourceRow
from gptwright.core.progress import progress, say
from gptwright.corpus import extract, look, tables
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.decide import Decided, Part, Tally, decide, publish
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.sources.base import Listing
from gptwright.corpus.sources.kinds import list_source

__all__ = ["CorpusResult", "build_corpus"]

MANIFEST = "corpus.json"
POOL_BYTES = 64 << 20  # less work than this is done faster without starting processes
J = TypeVar("J")


@dataclass(frozen=True)
class CorpusResult:
    """A corpus that was built: its hash, its size, and what is to be said about it."""

    hash: str
    documents: int
    bytes: int
    meta: dict[str, Any] = field(default_factory=dict)


def build_corpus(
    config: CorpusConfig, *, root: Path, out: Path, ledger: Ledger, workers: int | None = None
) -> CorpusResult:
    """Bring the corpus up to date with its sources.

    Args:
        config: the sources and the recipe.
        root: the project folder.
        out: the corpus folder (work/corpus); only this function writes there.
        ledger: gets the sources, the outcome of each file, and at the first build the held-out share.
        workers: processes; None takes all cores for much work and one for little.

    Returns:
        The hash of the kept documents (independent of time and machine), and numbers by source in ``meta``.

    Raises:
        UserError: a source is missing or empty, or nothing readable is left.
    """
    if not config.sources:
        raise UserError("there is no text to learn from", where="corpus.sources", fix="Run: gptwright data add FOLDER")
    tasks = out / "tasks"
    tasks.mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    listings = [list_source(name, source, root) for name, source in config.sources.items()]
    jobs, failed, stats = _extract_jobs(listings, config, tasks, out)
    write_json(out / "stat.json", stats)
    todo = sum(file.size_bytes for job in jobs if not job.record.exists() for file in job.files)
    pool = workers if workers is not None else usable_cores() if todo > POOL_BYTES else 1
    made = _run("reading", extract.run, jobs, pool)
    records = [read_json(path) for path in made]

    looks = [
        look.Job(
            str(tasks), output["name"], config.sources[record["source"]].pii, config.sources[record["source"]].tidy
        )
        for record in records
        for output in record["outputs"]
    ]
    _run("looking", look.run, looks, pool)
    rows = _file_rows(listings, records, failed)
    if not looks:
        raise UserError(
            _nothing(rows), where="corpus.sources", fix="Add files with text: txt, md, html, jsonl, csv or parquet"
        )
    owner = {output["name"]: record["source"] for record in records for output in record["outputs"]}
    parts = [Part(tasks / job.docs, job.signals, owner[job.docs], job.policy) for job in looks]

    ledger.set_sources([_source_row(listing, config.sources[listing.name]) for listing in listings])
    for listing in listings:
        ledger.set_files(listing.name, [row for row in rows if row.source == listing.name])
    share = ledger.get_setting("heldout_share")
    fixed = (float(share), str(ledger.get_setting("heldout_unit", "document"))) if share is not None else None
    recipe = Recipe.load(config.recipe, root)
    decided = decide(parts, recipe, config.heldout_share, fixed, work=out / f"{TEMPORARY}decide")
    if not decided.kept:
        reasons = ", ".join(f"{count} by {rule}" for rule, count in sorted(decided.dropped().items()))
        raise UserError(
            f"every document was dropped: {reasons}", where="corpus", fix='Add more text, or set recipe = "none"'
        )
    if fixed is None:
        ledger.set_setting("heldout_unit", decided.unit)
        ledger.set_setting("heldout_share", decided.share)
    result = _result(config, listings, rows, decided)
    _publish(out, looks, decided, result)
    _forget_old_tasks(tasks, jobs, looks)
    _tell(result)
    return result


def _tell(result: CorpusResult) -> None:
    """What a person should know of each source: its size, its licence, and files that gave nothing."""
    for name, source in result.meta["sources"].items():
        licence = f"{source['license'] or 'licence unknown'} ({source['license_evidence']})"
        dropped = f", {sum(source['dropped'].values())} dropped" if source["dropped"] else ""
        say(f"corpus: {name}: {source['kept']} documents, {source['bytes'] / 1e6:.2f} MB{dropped}; {licence}")
        if others := {outcome: n for outcome, n in source["files"].items() if outcome != "ok"}:
            say(f"corpus: {name}: files without text: " + ", ".join(f"{n} {o}" for o, n in sorted(others.items())))
        if source["pii"]:
            found = ", ".join(f"{n} {kind}" for kind, n in source["pii"].items())
            say(f"corpus: {name}: personal data found by rules: {found}; policy: {source['pii_policy']}")
    for note in result.meta["notes"]:
        say(f"corpus: {note}")


def _run(label: str, task: Callable[[J], str], jobs: list[J], workers: int) -> list[str]:
    made: list[str] = []
    with progress(label, total=len(jobs), unit="tasks") as bar, stop_on_signals() as stop:
        for result in map_tasks(task, jobs, workers):
            made.append(result)
            bar.advance()
            if stop and len(made) < len(jobs):
                raise Interrupted(
                    f"stopped by {stop.reason} after {len(made)} of {len(jobs)} tasks; run again to continue"
                )
    return made


def _extract_jobs(
    listings: list[Listing], config: CorpusConfig, tasks: Path, out: Path
) -> tuple[list[extract.Job], list[FileRow], dict[str, Any]]:
    """The tasks of all sources in order, files that cannot be opened, and sizes, times and hashes to remember."""
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
            "pii_policy": config.sources[listing.name].pii,
        }
        for group in extract.groups(hashed):
            files = tuple(extract.input_of(file, raw) for file, raw in group)
            keys = {file.locator: extract.file_key(listing.name, terms, file) for file in files}
            reuse = tuple((name, *known_files[key]) for name, key in keys.items() if key in known_files)
            jobs.append(extract.Job(str(tasks), listing.name, terms, files, reuse))
    return jobs, failed, stats


def _known_files(tasks: Path) -> dict[str, tuple[str, int, int]]:
    """What former tasks read of single files: key -> (parquet file, first row, rows)."""
    known: dict[str, tuple[str, int, int]] = {}
    for path in sorted(tasks.glob("extract-*.json")):
        record = read_json(path)
        if len(record["outputs"]) == 1:
            output = str(tasks / record["outputs"][0]["name"])
            known |= {f["key"]: (output, f["first"], f["documents"]) for f in record["files"] if f["outcome"] == "ok"}
    return known


def _file_rows(listings: list[Listing], records: Iterable[dict[str, Any]], failed: list[FileRow]) -> list[FileRow]:
    files = {(listing.name, file.locator): file for listing in listings for file in listing.files}
    rows = [row for listing in listings for row in listing.set_aside] + failed
    for record in records:
        for done in record["files"]:
            file = files[(record["source"], done["locator"])]
            rows.append(
                FileRow(
                    record["source"],
                    file.locator,
                    done["outcome"],
                    done["reason"],
                    file.size_bytes,
                    file.mtime_ns,
                    done["raw_hash"],
                    done["documents"],
                )
            )
            # What is in an archive ends in outcomes of its own.
            rows += [
                FileRow(record["source"], place, outcome, reason, size, file.mtime_ns, done["raw_hash"], documents)
                for place, outcome, reason, size, documents in done.get("inner", [])
            ]
    return rows


def _nothing(rows: list[FileRow]) -> str:
    outcomes = Counter(row.outcome for row in rows)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    first = next((f"; {row.source}/{row.locator}: {row.reason}" for row in rows if row.reason), "")
    return f"no text was found in {len(rows)} files ({counted}{first})"


def _source_row(listing: Listing, source: SourceConfig) -> SourceRow:
    licence = listing.licence
    return SourceRow(
        listing.name,
        listing.kind,
        source.uri,
        licence.id,
        licence.source,
        licence.attribution,
        source.contains_personal_data,
        source.pii,
    )


def _result(config: CorpusConfig, listings: list[Listing], rows: list[FileRow], decided: Decided) -> CorpusResult:
    sources: dict[str, Any] = {}
    for listing in listings:
        tally = decided.sources.get(listing.name, Tally())
        sources[listing.name] = {
            "kind": listing.kind,
            "uri": config.sources[listing.name].uri,
            "license": listing.licence.id,
            "license_source": listing.licence.source,
            "license_evidence": listing.licence.evidence,
            "attribution": listing.licence.attribution,
            "weight": config.sources[listing.name].weight,
            "files": dict(Counter(row.outcome for row in rows if row.source == listing.name)),
            "read": tally.read,
            "kept": tally.kept,
            "dropped": dict(sorted(tally.dropped.items())),
            "bytes": tally.bytes,
            "pii": {kind: n for kind, n in tally.pii.items() if n},
            "pii_policy": config.sources[listing.name].pii,
            "contains_personal_data": config.sources[listing.name].contains_personal_data,
            "train": tally.train,
            "heldout": tally.heldout,
        }

    def total(side: str) -> dict[str, int]:
        return {key: sum(getattr(t, side)[key] for t in decided.sources.values()) for key in ("documents", "bytes")}

    whole = {"documents": decided.kept, "bytes": sum(tally.bytes for tally in decided.sources.values())}
    terms = {name: [row["license"], row["attribution"]] for name, row in sources.items()}
    meta = {
        **whole,
        "train": total("train"),
        "heldout": total("heldout"),
        "heldout_share": decided.share,
        "heldout_unit": decided.unit,
        "recipe": config.recipe,
        "sources": sources,
        "notes": decided.notes,
    }
    return CorpusResult(b2_json([decided.digest, terms]), whole["documents"], whole["bytes"], meta)


def _publish(out: Path, looks: list[look.Job], decided: Decided, result: CorpusResult) -> None:
    """Give tasks' results their names. Without the manifest, which goes first and comes last, nobody reads them."""
    (out / MANIFEST).unlink(missing_ok=True)
    for table in ("docs", "signals", "edits"):
        for extra in sorted((out / table).glob("part-*.parquet"))[len(looks) :]:
            extra.unlink()
    for number, job in enumerate(looks):
        tables.link(Path(job.folder) / job.docs, tables.part_path(out, "docs", number))
        tables.link(job.signals, tables.part_path(out, "signals", number))
        tables.link(job.edits, tables.part_path(out, "edits", number))
    publish(decided, out)
    write_json(
        out / MANIFEST,
        {"format": 1, "hash": result.hash, "parts": len(looks), "meta": result.meta},
    )


def _forget_old_tasks(tasks: Path, jobs: list[extract.Job], looks: list[look.Job]) -> None:
    """Results that nothing points to any more go: text of a file that was deleted must not stay behind."""
    wanted = {job.name for job in jobs} | {job.name for job in looks}
    for path in tasks.iterdir():
        if "-".join(path.stem.split("-")[:2]) not in wanted:
            path.unlink()
