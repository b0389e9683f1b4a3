"""Verbs about licences: what the corpus holds, whether a use fits, and a person's decisions."""

from dataclasses import asdict
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, Table, group, shorten, verb
from gptwright.core.errors import UserError


def register(data: typer.Typer) -> None:
    """Add ``data licenses`` and ``data licenses review``."""
    licences = group("Licences, what they ask, and a person's decisions.")
    verb(
        licences,
        "list",
        ["gptwright data licenses list --commercial", "gptwright data licenses list --allow MIT,Apache-2.0,CC0-1.0"],
    )(listing)
    verb(
        licences,
        "review",
        ["gptwright data licenses review", "gptwright data licenses review notes --scope 'path:*' --license CC-BY-4.0"],
    )(review)

    @licences.callback(invoke_without_command=True, no_args_is_help=False)
    def _default(
        context: typer.Context,
        project: Annotated[str | None, typer.Option("--project", metavar="DIR", help="Project folder.")] = None,
        json: Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")] = False,
        quiet: Annotated[bool, typer.Option("--quiet", help="No progress or messages.")] = False,
        allow: Annotated[str | None, typer.Option(help="SPDX ids that may be used; others are refused.")] = None,
        commercial: Annotated[bool, typer.Option("--commercial", help="Refuse what forbids commercial use.")] = False,
    ) -> None:
        if context.invoked_subcommand is None:
            from pathlib import Path

            from gptwright.cli.verb import run_verb
            from gptwright.core.progress import set_quiet

            set_quiet(quiet)
            call = Call(Path(project) if project else None, json, quiet, ())
            raise typer.Exit(run_verb(call, lambda: listing(call, allow, commercial)))

    data.add_typer(licences, name="licenses")


def listing(
    call: Call,
    allow: Annotated[
        str | None, typer.Option(help="SPDX ids that may be used, with commas; others are refused.")
    ] = None,
    commercial: Annotated[bool, typer.Option("--commercial", help="Refuse what forbids commercial use.")] = False,
) -> Answer:
    """Show licences and what they ask, by share of the text and, when it was tokenized, by tokens."""
    from gptwright.corpus.licences.policy import parse_allow
    from gptwright.corpus.licences.table import licence_table
    from gptwright.govern.policy import check_licences, terms
    from gptwright.project.tuned_on import licence_rows

    project = call.project()
    if not project.has_ledger:
        raise UserError("the corpus is not built", fix="Run: gptwright data build")
    rows = licence_table(project.work / "corpus")
    with project.ledger() as ledger:
        made = ledger.latest_of_stage("tokens")
        rows += licence_rows(ledger)
    total = sum(row.bytes for row in rows)
    size = (
        made.meta["bytes"] / max(made.meta["tokens"], 1) if made is not None else None
    )  # bytes of a token, over the whole
    table = Table(["licence", "share", "MB" if size is None else "tokens", "documents", "source", "known from", "asks"])
    data = []
    for row in rows:
        asks = sorted(set.intersection(*(set(option) for option in terms(row.license).alternatives)))
        table.add(
            shorten(row.license or "not known", 24),
            f"{row.bytes / max(total, 1):.1%}",
            round(row.bytes / 1e6, 2) if size is None else f"{round(row.bytes / size):,}",
            row.documents,
            shorten(row.source, 16),
            shorten(", ".join(row.known_from), 16),
            shorten(", ".join(asks), 20),
        )
        tokens = {} if size is None else {"tokens": round(row.bytes / size)}
        data.append({**asdict(row), "share": row.bytes / max(total, 1), **tokens, "obligations": asks})
    if allow is not None or commercial:
        check_licences(rows, allow=parse_allow(allow) if allow is not None else None, commercial=commercial)
    return Answer({"licenses": data}, str(table))


def review(
    call: Call,
    source: Annotated[
        str | None, typer.Argument(help="Source to decide about; without it, what is doubtful is listed.")
    ] = None,
    scope: Annotated[str, typer.Option(help="'*', host:NAME, path:GLOB or found:LICENCE.")] = "*",
    license: Annotated[str | None, typer.Option(help="SPDX expression that you know to hold.")] = None,
    attribution: Annotated[str | None, typer.Option(help="Whom to name.")] = None,
    note: Annotated[str | None, typer.Option(help="Why.")] = None,
) -> Answer:
    """List texts of doubtful licence by amount, or decide about one of them; the next build applies it."""
    from gptwright.project.curating import review_licence

    project = call.project()
    if source is not None:
        if license is None:
            raise UserError(
                "say which licence holds", where="--license", fix="Give an SPDX expression, such as CC-BY-4.0"
            )
        made = review_licence(project, source, scope, license, attribution, note)
        return Answer(made, f"Kept: {source} {scope} is {license}. Next: gptwright data build")
    from gptwright.corpus.licences.review import candidates

    if not project.has_ledger:
        raise UserError("the corpus is not built", fix="Run: gptwright data build")
    found = candidates(project.work / "corpus")
    table = Table(["source", "scope", "told", "from", "documents", "MB", "for example"])
    for one in found:
        cells = (one.source, one.scope, one.license or "nothing", one.license_source)
        table.add(
            *(shorten(c, 20) for c in cells), one.documents, round(one.bytes / 1e6, 2), shorten(one.examples[0], 20)
        )
    return Answer({"candidates": [asdict(one) for one in found]}, str(table) if found else "No licence is in doubt.")
