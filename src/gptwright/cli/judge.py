"""Verbs that judge and release: evaluate, compare, release, detect, refresh, compliance."""

import sys
from pathlib import Path
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, Table, group, verb


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    verb(app, "evaluate", ["gptwright evaluate", "gptwright evaluate production --suite questions.jsonl"])(evaluate)
    verb(app, "compare", ["gptwright compare production NEW_MODEL", "gptwright compare A B --json"])(compare)
    release = group("Releases: candidates, the gate, promotion, rollback.")
    verb(release, "list", ["gptwright release list", "gptwright release list --json"])(release_list)
    verb(release, "show", ["gptwright release show production", "gptwright release show MODEL --json"])(release_show)
    verb(release, "gate", ["gptwright release gate MODEL", "gptwright release gate MODEL --json"])(release_gate)
    verb(
        release,
        "promote",
        ["gptwright release promote", "gptwright release promote MODEL --override 'hot fix, agreed with Ann'"],
    )(release_promote)
    verb(release, "rollback", ["gptwright release rollback", "gptwright release rollback --reason 'worse answers'"])(
        release_rollback
    )
    app.add_typer(release, name="release")
    verb(
        app,
        "detect",
        ["gptwright detect 'Once upon a time there was'", "gptwright detect 'It was a dark night' --model MODEL"],
    )(detect)
    verb(app, "refresh", ["gptwright refresh", "gptwright refresh --if-changed --quiet"])(refresh)
    verb(app, "compliance", ["gptwright compliance", "gptwright compliance --out papers"])(compliance)


def evaluate(
    call: Call,
    model: Annotated[str | None, typer.Argument(help="Model [production, else the newest].")] = None,
    suite: Annotated[
        list[str] | None, typer.Option(help="heldout, samples, chat, or a file of your own questions.")
    ] = None,
) -> Answer:
    """Measure a model: held-out text beside baselines, samples, your own questions."""
    from gptwright.project.evaluating import evaluate as measure

    # A path on the command line begins at the current folder; one in the configuration at the project's.
    suites = [str(Path(name).resolve()) if Path(name).is_file() else name for name in suite or []]
    data, text = measure(call.project(), model, suites)
    return Answer(data, text)


def compare(
    call: Call,
    a: Annotated[str, typer.Argument(help="Model A.")],
    b: Annotated[str, typer.Argument(help="Model B.")],
) -> Answer:
    """Compare two models in pairs, with the smallest difference that could have been seen."""
    from gptwright.project.evaluating import compare as pair

    data, text = pair(call.project(), a, b)
    return Answer(data, text)


def release_list(call: Call) -> Answer:
    """List candidates and where the aliases point."""
    registry = call.project().registry
    aliases = registry.aliases()
    table = Table(["model", "gate", "aliases", "made"])
    rows = []
    for r in registry.releases():
        names = [alias for alias, target in aliases.items() if target == r.model_id]
        table.add(
            r.model_id,
            "passed" if r.verdict["passed"] else "failed",
            ", ".join(names),
            f"{r.created_at:%Y-%m-%d %H:%M}",
        )
        rows.append(
            {
                "model": r.model_id,
                "passed": r.verdict["passed"],
                "aliases": names,
                "created_at": r.created_at,
                "path": r.path,
            }
        )
    return Answer(
        {"releases": rows, "history": registry.history()},
        str(table) if rows else "No candidates yet. Run: gptwright run",
    )


def release_show(call: Call, model: Annotated[str, typer.Argument(help="Model id or alias.")]) -> Answer:
    """Show a release and why the gate let it through or not."""
    registry = call.project().registry
    r = registry.current(model) or registry.release(model)
    lines = [f"{r.model_id}  {r.path}", f"made {r.created_at:%Y-%m-%d %H:%M}"]
    lines += [f"  {'ok' if c['passed'] else 'no'}  {c['name']}: {c['found']}" for c in r.verdict["checks"]]
    return Answer({"model": r.model_id, "path": r.path, "hash": r.model_hash, "verdict": r.verdict}, "\n".join(lines))


def release_gate(call: Call, model: Annotated[str, typer.Argument(help="Model id.")]) -> Answer:
    """Ask the gate anew. Exit code 3 when it says no."""
    from gptwright.project.releasing import gate

    data, text = gate(call.project(), model)
    return Answer(data, text, 0 if data["passed"] else 3)


def release_promote(
    call: Call,
    model: Annotated[str | None, typer.Argument(help="Model id [the newest candidate].")] = None,
    override: Annotated[
        str | None, typer.Option(help="Promote in spite of the gate, for this reason; it is kept.")
    ] = None,
) -> Answer:
    """Make a candidate the production model."""
    from gptwright.project.releasing import promote

    move = promote(call.project(), model, override)
    return Answer(vars(move), f"{move.alias} is {move.model_id} now (before: {move.former or 'nothing'})")


def release_rollback(call: Call, reason: Annotated[str, typer.Option(help="Why; it is kept.")] = "") -> Answer:
    """Point production back to the model before."""
    move = call.project().registry.rollback(reason)
    return Answer(vars(move), f"{move.alias} is {move.model_id} again (before: {move.former})")


def refresh(
    call: Call,
    if_changed: Annotated[bool, typer.Option("--if-changed", help="Do nothing when the data is the same.")] = False,
) -> Answer:
    """Bring the model up to date with its sources: continue training, compare with production, register a candidate."""
    from gptwright.project.refreshing import refresh as bring_up_to_date

    data, text = bring_up_to_date(call.project(), if_changed)
    return Answer(data, text)


def detect(
    call: Call,
    text: Annotated[str, typer.Argument(help="The text in question; - reads it from a pipe.")],
    model: Annotated[str | None, typer.Option(help="Whose tokens [production, else the newest].")] = None,
    false_alarms: Annotated[float, typer.Option(help="Share of other texts that may be called marked.")] = 0.001,
) -> Answer:
    """Was it ours: look for the watermark that served answers carry."""
    from gptwright.project.detecting import detect as look

    data, said = look(call.project(), sys.stdin.read() if text == "-" else text, model, false_alarms)
    return Answer(data, said)


def compliance(
    call: Call,
    model: Annotated[str | None, typer.Argument(help="Model [production, else the newest].")] = None,
    out: Annotated[str | None, typer.Option(help="Folder for the documents [work/reports/compliance].")] = None,
) -> Answer:
    """Write the model card, dataset card, attribution and applicability from what really happened."""
    from gptwright.project.releasing import compliance as write

    paths = write(call.project(), out, model)
    return Answer({"files": paths}, "\n".join(paths))
