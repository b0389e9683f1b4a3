"""Verbs about data: add, build, sample, why, licenses."""

from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, Table, group, verb
from gptwright.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    data = group("The texts: add sources, build the corpus, ask why.")
    verb(
        data,
        "add",
        ["gptwright data add ../letters --license LicenseRef-own", "gptwright data add package:chitchat-dataset"],
    )(add)
    verb(data, "build", ["gptwright data build", "gptwright data build --force"])(build)
    verb(data, "sample", ["gptwright data sample", "gptwright data sample --dropped copy.exact"])(sample)
    verb(data, "why", ["gptwright data why notes/a.txt", "gptwright data why id:3fa9 --json"])(why)
    verb(data, "licenses", ["gptwright data licenses", "gptwright data licenses --json"])(licenses)
    app.add_typer(data, name="data")


def add(
    call: Call,
    source: Annotated[str, typer.Argument(help="Folder, file, or package:DIST[/glob].")],
    name: Annotated[str | None, typer.Option(help="Its name in the configuration [from the source].")] = None,
    license: Annotated[str | None, typer.Option(help="SPDX expression; LicenseRef-own for your own texts.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name.")] = None,
    contains_personal_data: Annotated[str, typer.Option(help="yes, no or unknown.")] = "unknown",
) -> Answer:
    """Add a source of text to gptwright.toml."""
    from gptwright.project.sources import add_source

    added = add_source(call.project(), source, name, license, attribution, contains_personal_data)
    return Answer(added, f"Added [corpus.sources.{added['name']}]. Next: gptwright data build")


def build(call: Call, force: Annotated[bool, typer.Option("--force", help="Build although fresh.")] = False) -> Answer:
    """Gather, clean, deduplicate, mask and split the texts."""
    project = call.project()
    project.run(["corpus"], force=force)
    with project.ledger() as ledger:
        made = ledger.latest_of_stage("corpus")
        files = ledger.files()
    assert made is not None
    table = Table(["source", "files", "read", "kept", "MB", "train", "held out", "licence"])
    for name, row in made.meta["sources"].items():
        count = sum(row["files"].values())
        table.add(
            name,
            count,
            row["read"],
            row["kept"],
            round(row["bytes"] / 1e6, 2),
            row["train"]["documents"],
            row["heldout"]["documents"],
            row["license"] or "not known",
        )
    lines = [str(table)]
    for name, row in made.meta["sources"].items():
        lines += [f"{name}: {n:,} dropped by {rule}" for rule, n in row["dropped"].items()]
        lines += [f"{name}: {n:,} {kind} found ({row['pii_policy']})" for kind, n in row["pii"].items()]
    bad = [file for file in files if file.outcome != "ok"]
    lines += [
        f"{file.source}/{file.locator}: {file.outcome}{f', {file.reason}' if file.reason else ''}" for file in bad[:20]
    ]
    if len(bad) > 20:
        lines.append(f"and {len(bad) - 20} more files without text")
    data = {"hash": made.hash, **{k: v for k, v in made.meta.items() if k != "made_from"}}
    data["files"] = [vars(file) for file in bad]
    return Answer(data, "\n".join(lines))


def sample(
    call: Call,
    dropped: Annotated[str | None, typer.Option(help="Only documents that this rule dropped.")] = None,
    n: Annotated[int, typer.Option("-n", help="How many.")] = 5,
    seed: Annotated[int, typer.Option(help="Another seed, other documents.")] = 0,
) -> Answer:
    """Look at documents, kept or dropped."""
    from gptwright.corpus.view import sample as draw

    found = draw(call.project().work / "corpus", n, rule=dropped, seed=seed)
    rows = [
        {"id": f.document.uid, "source": f.document.source, "locator": f.document.locator, "text": f.document.text}
        for f in found
    ]
    text = "\n\n".join(f"--- {r['source']}/{r['locator']} (id {r['id'][:12]})\n{r['text'][:800]}" for r in rows)
    return Answer({"documents": rows}, text or "None.")


def why(
    call: Call,
    document: Annotated[str, typer.Argument(metavar="DOC", help="id:HEX, path:GLOB, or either without its prefix.")],
) -> Answer:
    """Show the evidence for one document: kept or dropped, by which rule, with which value."""
    from gptwright.corpus.view import why as explain

    project = call.project()
    with project.ledger() as ledger:
        lines = explain(project.work / "corpus", ledger, document)
    return Answer({"document": document, "evidence": lines}, "\n".join(lines))


def licenses(call: Call) -> Answer:
    """Show licences and what they ask, by share of the text."""
    from gptwright.corpus.view import licenses as rows_of
    from gptwright.govern.policy import terms

    project = call.project()
    if not project.has_ledger:
        raise UserError("the corpus is not built", fix="Run: gptwright data build")
    table = Table(["licence", "share", "MB", "documents", "sources", "known from", "asks"])
    rows = rows_of(project.work / "corpus")
    for row in rows:
        asks = sorted(set.intersection(*(set(option) for option in terms(row["license"]).alternatives)))
        row["obligations"] = asks
        table.add(
            row["license"] or "not known",
            f"{row['share']:.1%}",
            round(row["bytes"] / 1e6, 2),
            row["documents"],
            ", ".join(row["sources"]),
            row["license_source"],
            ", ".join(asks),
        )
    return Answer({"licenses": rows}, str(table))
