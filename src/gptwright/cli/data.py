"""Verbs about data: add, build, report, sample, why, what-if, export."""

from pathlib import Path
from typing import Annotated

import typer

from gptwright.cli import erase, label, licenses
from gptwright.cli.verb import Answer, Call, Table, group, shorten, verb
from gptwright.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    data = group("The texts: add sources, build the corpus, look at it, ask why.")
    verb(
        data,
        "add",
        [
            "gptwright data add ../letters --license LicenseRef-own",
            "gptwright data add crawl:https://docs.example.org/",
        ],
    )(add)
    verb(data, "build", ["gptwright data build", "gptwright data build --gather --executor ray"])(build)
    verb(data, "report", ["gptwright data report --open", "gptwright data report --json"])(report)
    verb(data, "sample", ["gptwright data sample", "gptwright data sample --dropped copy.exact"])(sample)
    verb(data, "why", ["gptwright data why notes/a.txt", "gptwright data why id:3fa9 --json"])(why)
    verb(
        data,
        "what-if",
        ["gptwright data what-if --set text.too_short=40", "gptwright data what-if --set text.repetition=off"],
    )(what_if)
    licenses.register(data)
    erase.register(data)
    label.register(data)
    verb(
        data,
        "export",
        ["gptwright data export ../for-others", "gptwright data export ../rows --format datatrove-jsonl --split train"],
    )(export)
    app.add_typer(data, name="data")


def add(
    call: Call,
    source: Annotated[
        str,
        typer.Argument(
            help="Folder or file, package:DIST[/glob], https://PAGE, sitemap:URL, feed:URL, crawl:URL, warc:PATH,"
            " git:URL_OR_DIR, wiki:DUMP, sql:URL#QUERY or hf:DATASET."
        ),
    ],
    name: Annotated[str | None, typer.Option(help="Its name in the configuration [from the source].")] = None,
    license: Annotated[str | None, typer.Option(help="SPDX expression; LicenseRef-own for your own texts.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name.")] = None,
    contains_personal_data: Annotated[str, typer.Option(help="yes, no or unknown.")] = "unknown",
) -> Answer:
    """Add a source of text to gptwright.toml."""
    from gptwright.project.sources import add_source

    added = add_source(call.project(), source, name, license, attribution, contains_personal_data)
    return Answer(added, f"Added [corpus.sources.{added['name']}]. Next: gptwright data build")


def build(
    call: Call,
    force: Annotated[bool, typer.Option("--force", help="Build although fresh.")] = False,
    gather: Annotated[bool, typer.Option("--gather", help="Ask pages, repositories and databases again.")] = False,
    executor: Annotated[str, typer.Option(help="local, or ray (RAY_ADDRESS, or started here).")] = "local",
) -> Answer:
    """Gather, clean, deduplicate, mask and split the texts."""
    if executor not in ("local", "ray"):
        raise UserError(f"no executor is called {executor!r}", where="--executor", fix="Choose local or ray")
    project = call.project()
    project.executor = executor
    if gather:
        from gptwright.project.curating import gather as ask_again

        ask_again(project)
    project.run(["corpus"], force=force)
    with project.ledger() as ledger:
        made = ledger.latest_of_stage("corpus")
        files = ledger.files()
    assert made is not None
    meta, digest = made.meta, made.hash
    if "erased_from" in meta:  # the row keeps what models were trained on
        from gptwright.corpus.view import manifest

        now = manifest(project.work / "corpus")
        meta, digest = {**meta, **now["meta"]}, now["hash"]
    table = Table(["source", "files", "read", "kept", "MB", "train", "held out", "licence"])
    for name, row in meta["sources"].items():
        table.add(
            shorten(name, 24),
            sum(row["files"].values()),
            row["read"],
            row["kept"],
            round(row["bytes"] / 1e6, 2),
            row["train"]["documents"],
            row["heldout"]["documents"],
            shorten(_licences(row), 24),
        )
    lines = [str(table)]
    for name, row in meta["sources"].items():
        lines += [f"{name}: {n:,} dropped by {rule}" for rule, n in row["dropped"].items()]
        lines += [f"{name}: {n:,} {kind} found ({row['pii_policy']})" for kind, n in row["pii"].items()]
    # What could not be read first: among thousands of empty files it would not be seen.
    bad = sorted((file for file in files if file.outcome != "ok"), key=lambda file: file.outcome, reverse=True)
    lines += [
        f"{file.source}/{file.locator}: {file.outcome}{f', {file.reason}' if file.reason else ''}" for file in bad[:20]
    ]
    if len(bad) > 20:
        lines.append(f"and {len(bad) - 20} more files without text")
    data = {"hash": digest, **{k: v for k, v in meta.items() if k != "made_from"}}
    data["files"] = [vars(file) for file in bad]
    return Answer(data, "\n".join(shorten(line, 100) for text in lines for line in text.splitlines()))


def _licences(source: dict[str, object]) -> str:
    rows = source.get("licences")
    found = [row["license"] or "not known" for row in rows] if isinstance(rows, list) else []
    return ", ".join(dict.fromkeys(found)) or str(source["license"] or "not known")


def report(call: Call, open: Annotated[bool, typer.Option("--open", help="Show it in the browser.")] = False) -> Answer:
    """Write the corpus report: one HTML page with funnel, thresholds, samples, licences and warnings."""
    from gptwright.project.curating import write_report

    project = call.project()
    if not project.has_ledger:
        raise UserError("the corpus is not built", fix="Run: gptwright data build")
    path = write_report(project, show=open)
    return Answer({"report": str(path)}, f"Written: {path.relative_to(project.root)}")


def sample(
    call: Call,
    dropped: Annotated[str | None, typer.Option(help="Only documents that this rule dropped.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other documents.")] = 0,
) -> Answer:
    """Look at documents, kept or dropped."""
    from gptwright.corpus.view import sample as draw
    from gptwright.corpus.why import rule_named

    corpus = call.project().work / "corpus"
    found = draw(corpus, n, rule=rule_named(corpus, dropped, "--dropped") if dropped else None, seed=seed)
    rows = [
        {"id": f.document.uid, "source": f.document.source, "locator": f.document.locator, "text": f.document.text}
        for f in found
    ]
    text = "\n\n".join(f"--- {r['source']}/{r['locator']} (id {r['id'][:12]})\n{r['text'][:800]}" for r in rows)
    return Answer({"documents": rows}, text or "None.")


def why(
    call: Call,
    document: Annotated[
        str,
        typer.Argument(
            metavar="DOC", help="id:HEX or path:GLOB (or either without its prefix), url:GLOB, text:FILE ..."
        ),
    ],
) -> Answer:
    """Show the evidence for one document: kept or dropped, by which rule, with which value."""
    from gptwright.corpus.view import why as explain

    project = call.project()
    with project.ledger() as ledger:
        lines = explain(project.work / "corpus", ledger, document)
    return Answer({"document": document, "evidence": lines}, "\n".join(lines))


def what_if(call: Call) -> Answer:
    """Decide anew with other thresholds (--set RULE=VALUE), in seconds; nothing is changed."""
    from gptwright.project.curating import rule_changes
    from gptwright.project.curating import what_if as decide_anew
    from gptwright.project.project import Project

    changes = rule_changes(call.overrides)
    project = Project.open(call.directory)  # here --set names rules, not settings
    change = decide_anew(project, changes)
    data = {
        "documents": change.documents,
        "sources": {name: _plain(source) for name, source in change.sources.items()},
        "rules": [_plain(rule) for rule in change.rules],
        "boundary": [_plain(one) for one in change.boundary],
    }
    return Answer(data, "\n".join(shorten(line, 100) for line in change.lines()))


def _plain(value: object) -> object:
    from dataclasses import asdict

    return asdict(value)  # type: ignore[call-overload]


def export(
    call: Call,
    out: Annotated[Path, typer.Argument(help="Folder to write.")],
    format: Annotated[str, typer.Option(help="hf-parquet, datatrove-jsonl or datatrove-parquet.")] = "hf-parquet",
    split: Annotated[str | None, typer.Option(help="train or heldout [both].")] = None,
) -> Answer:
    """Write the kept documents as Hugging Face or datatrove read them, with licences."""
    from gptwright.project.curating import export as write

    done = write(call.project(), out, format, split)
    return Answer(done, f"Written: {out}, {done['documents']:,} documents in {len(done['files'])} files")
