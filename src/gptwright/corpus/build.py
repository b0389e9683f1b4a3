"""Build the corpus: gather, list, extract, look, compare, decide, cut, publish. Each step asks first whether its result is there already."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.executors import Executor, Local, usable_cores
from gptwright.core.files import TEMPORARY, read_json, remove_leftovers, write_json
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.ledger import Ledger
from gptwright.core.progress import progress, say
from gptwright.corpus import extract, look, tables, tasks
from gptwright.corpus.blocks import Blocks
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.copies import Bools
from gptwright.corpus.cut import Cutter
from gptwright.corpus.decide import Decided, Part, decide, publish
from gptwright.corpus.decontaminate.settle import Settled
from gptwright.corpus.dedup.find import find
from gptwright.corpus.dedup.found import Found
from gptwright.corpus.dedup.layout import PartFiles
from gptwright.corpus.forget import near_copies, purge_tasks
from gptwright.corpus.licences.review import Decision
from gptwright.corpus.licences.review import apply as apply_reviews
from gptwright.corpus.licences.sidecars import with_sidecars
from gptwright.corpus.licences.table import by_source, licence_table
from gptwright.corpus.preference import preference
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.result import CorpusResult, corpus_result, nothing, source_row, tell
from gptwright.corpus.scored import Scorer
from gptwright.corpus.sources.base import Listing
from gptwright.corpus.sources.kinds import gather_sources, list_source
from gptwright.corpus.sources.raw import RawStore
from gptwright.corpus.tables import MANIFEST

__all__ = ["CorpusResult", "build_corpus"]

POOL_BYTES = 64 << 20  # less work than this is done faster without starting processes


@dataclass
class _Build:
    """What the steps of one build share."""

    config: CorpusConfig
    root: Path
    out: Path
    executor: Executor
    blocks: Blocks | None
    key: bytes | None
    listings: list[Listing] = field(default_factory=list)
    records: list[dict[str, Any]] = field(default_factory=list)
    docs: list[tuple[str, str]] = field(default_factory=list)  # (docs file, source), in the corpus's order
    reviews: dict[str, list[list[Any]]] = field(default_factory=dict)  # of single documents, by source
    wanted: set[str] = field(default_factory=set)  # names of tasks whose results stay

    @property
    def tasks(self) -> Path:
        return self.out / "tasks"

    def run(self, label: str, task: Callable[[Any], Any], jobs: Sequence[Any]) -> None:
        self.wanted |= {job.name for job in jobs}
        tasks.run(label, task, jobs, self.executor)


def build_corpus(
    config: CorpusConfig,
    *,
    root: Path,
    out: Path,
    ledger: Ledger,
    workers: int | None = None,
    executor: Executor | None = None,
    blocks: Blocks | None = None,
    key: bytes | None = None,
    suites: Sequence[str] = (),
    reviews: Sequence[Decision] = (),
) -> CorpusResult:
    """Bring the corpus up to date with its sources.

    Args:
        config: the sources and the recipe.
        root: the project folder.
        out: the corpus folder (work/corpus); only this function writes there.
        ledger: gets the sources, the outcome of each file, and at the first build the held-out share.
        workers: processes; None takes all cores for much work and one for little.
        executor: where tasks run; None: processes of this machine.
        blocks: texts that were erased and must not come back.
        key: of the project, for pseudonyms.
        suites: files with the project's own evaluation questions, to keep out of training as well.
        reviews: a person's decisions about licences.

    Returns:
        The hash of the kept documents (independent of time and machine), and numbers by source in ``meta``.

    Raises:
        UserError: a source is missing or empty, or nothing readable is left.
        Interrupted: stopped; the next build goes on.
    """
    if not config.sources:
        raise UserError("there is no text to learn from", where="corpus.sources", fix="Run: gptwright data add FOLDER")
    (out / "tasks").mkdir(parents=True, exist_ok=True)
    remove_leftovers(out)
    for name in gather_sources(config, root, out / "raw", again=False):
        say(f"corpus: {name} is gathered")
    build = _Build(config, root, out, executor or Local(), blocks, key)
    build.listings = [list_source(name, source, root, out / "raw") for name, source in config.sources.items()]
    for listing in build.listings:
        with_sidecars(listing)
        build.reviews[listing.name] = apply_reviews(listing, reviews)
    failed = _read(build, workers if executor is None else 0)
    rows = tasks.file_rows(build.listings, build.records, failed)
    if not build.docs:
        fix = "Add files with text: txt, md, html, pdf, docx, epub, jsonl, csv, parquet and others"
        raise UserError(nothing(rows), where="corpus.sources", fix=fix)
    ledger.set_sources([source_row(listing, config.sources[listing.name]) for listing in build.listings])
    for listing in build.listings:
        ledger.set_files(listing.name, [row for row in rows if row.source == listing.name])

    looks, parts = _look(build)
    found = _compare(build, parts)
    leaks, notes = _decontaminated(build, found, suites)
    decided, cutter = _decide(build, parts, looks, found, leaks, ledger)
    abouts = {name: RawStore(out / "raw" / name).about() for name in config.sources}
    result = corpus_result(config, build.listings, rows, decided, notes, abouts)
    _publish(build, cutter, decided, result)
    tasks.forget_old_tasks(build.tasks, build.wanted)
    tell(result)
    return result


def _read(build: _Build, workers: int | None) -> list[Any]:
    """Read all sources into docs files; erased texts, and nearly erased ones, stay out."""
    while True:
        jobs, failed, stats = tasks.extract_jobs(build.listings, build.config, build.out, build.blocks, build.reviews)
        write_json(build.out / "stat.json", stats)
        todo = sum(file.size_bytes for job in jobs if not job.record.exists() for file in job.files)
        if workers != 0:
            build.executor = Local(workers or (usable_cores() if todo > POOL_BYTES else 1))
        build.run("reading", extract.run, jobs)
        build.records = [read_json(job.record) for job in jobs]
        build.docs = [(output["name"], record["source"]) for record in build.records for output in record["outputs"]]
        features = [
            tasks.Features(str(build.tasks), str(build.tasks / name), build.config.dedup) for name, _ in build.docs
        ]
        build.run("comparing", tasks.make_features, features)
        widened = near_copies(build.blocks, [job.path for job in features]) if build.blocks is not None else None
        if widened is None:
            return failed
        # A near copy of an erased text came in: from now on it is known by itself, and what was just written goes.
        build.blocks = widened.blocks
        purge_tasks(build.out, widened.fresh)


def _look(build: _Build) -> tuple[list[look.Job], list[Part]]:
    """Signals and edits of every docs file, with the scores of classifiers where there are any."""
    jobs = [tasks.look_job(build.tasks, name, source, build.config, build.key) for name, source in build.docs]
    build.run("looking", look.run, jobs)
    scorer = Scorer.of(build.config.quality, build.root)
    signals = [job.signals for job in jobs]
    if scorer is not None:
        signals = scorer.add(jobs, build.tasks, build.run)
    parts = [Part(build.tasks / name, path, source) for (name, source), path in zip(build.docs, signals, strict=True)]
    return jobs, parts


def _compare(build: _Build, parts: Sequence[Part]) -> Found:
    """Groups of equal texts and evidence of similar ones."""
    files = [
        PartFiles(part.docs, tasks.Features(str(build.tasks), str(part.docs), build.config.dedup).path, part.source)
        for part in parts
    ]
    with progress("duplicates", unit="steps") as bar, stop_on_signals() as stop:

        def between() -> None:
            bar.advance()
            if stop:
                raise Interrupted(f"stopped by {stop.reason} while looking for duplicates; run again to continue")

        work = build.out / f"{TEMPORARY}duplicates"
        found = find(files, build.config.dedup, build.out / "index" / "near", work, between)
    found.priority = preference(parts, list(build.config.sources), next(iter(build.config.quality.models), None), work)
    return found


def _decontaminated(build: _Build, found: Found, suites: Sequence[str]) -> tuple[Settled | None, list[str]]:
    """Documents that hold evaluation items, and what is to be said about items that could not be looked for."""
    config = build.config.decontaminate
    patterns = [*config.sets, *(suites if config.suites else ())]
    if not patterns:
        return None, []
    from gptwright.corpus.decontaminate import evals, items, scan, settle

    known = evals.make(
        items.read_sets(items.find_sets(patterns, build.root), config.fields),
        build.tasks,
        words=config.words,
        shortest=config.shortest,
    )
    build.wanted.add(f"evals-{known.name}")
    index = str(evals.index_path(build.tasks, known.name))
    jobs = [scan.Job(str(build.tasks), str(build.tasks / name), index) for name, _ in build.docs]
    build.run("evaluation items", scan.run, jobs)
    rows = found.layout.rows
    alive = found.resolve(np.ones(rows, bool), np.zeros(rows, bool)).kept_of < 0
    settled = settle.settle([job.path for job in jobs], known, config, alive)
    notes = []
    if known.ignored:
        notes.append(f"{len(known.ignored)} evaluation items are too short to be looked for")
    if unchecked := settled.unchecked:
        notes.append(f"{len(unchecked)} evaluation items consist of common words alone and were not looked for")
    return settled, notes


def _decide(
    build: _Build, parts: list[Part], looks: list[look.Job], found: Found, leaks: Settled | None, ledger: Ledger
) -> tuple[Decided, Cutter]:
    """Decide, then cut boilerplate, repeated spans and the recipe's lines out of what is kept."""
    config = build.config
    share = ledger.get_setting("heldout_share")
    fixed = (float(share), str(ledger.get_setting("heldout_unit", "document"))) if share is not None else None
    recipe = Recipe.load(config.recipe, build.root)
    cutter = Cutter(parts, [job.edits for job in looks], found, recipe, build.tasks)

    def cut(kept: Bools, heldout: Bools) -> Sequence[Path]:
        return cutter.cut(kept, heldout)

    respect = {name for name, source in config.sources.items() if source.consent.policy == "respect"}
    decided = decide(
        parts,
        recipe,
        config.heldout_share,
        fixed,
        work=build.out / f"{TEMPORARY}decide",
        duplicates=found,
        contamination=leaks,
        respect=respect,
        cut=cut,
    )
    if not decided.kept:
        reasons = ", ".join(f"{count} by {rule}" for rule, count in sorted(decided.dropped().items()))
        raise UserError(
            f"every document was dropped: {reasons}", where="corpus", fix='Add more text, or set recipe = "none"'
        )
    if fixed is None:
        ledger.set_setting("heldout_unit", decided.unit)
        ledger.set_setting("heldout_share", decided.share)
    build.wanted |= cutter.names
    return decided, cutter


def _publish(build: _Build, cutter: Cutter, decided: Decided, result: CorpusResult) -> None:
    """Give tasks' results their names. Without the manifest, which goes first and comes last, nobody reads them."""
    out = build.out
    (out / MANIFEST).unlink(missing_ok=True)
    for table in ("docs", "signals", "edits"):
        for extra in sorted((out / table).glob("part-*.parquet"))[len(build.docs) :]:
            extra.unlink()
    for number, (name, _) in enumerate(build.docs):
        tables.link(build.tasks / name, tables.part_path(out, "docs", number))
        tables.link(cutter.signals[number], tables.part_path(out, "signals", number))
        tables.link(cutter.edits[number], tables.part_path(out, "edits", number))
    publish(decided, out)
    for name, rows in by_source(licence_table(out, len(build.docs))).items():
        result.meta["sources"][name]["licences"] = rows
    shutil.rmtree(out / f"{TEMPORARY}duplicates", ignore_errors=True)
    write_json(out / MANIFEST, {"format": 1, "hash": result.hash, "parts": len(build.docs), "meta": result.meta})
