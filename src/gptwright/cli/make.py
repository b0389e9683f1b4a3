"""Verbs that make and look: new, run, status, config, doctor, plan."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptwright.cli.verb import Answer, Call, Table, group, shorten, verb
from gptwright.core.errors import UserError
from gptwright.core.progress import clock

if TYPE_CHECKING:
    from gptwright.core.stages import Verdict


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    verb(app, "new", ["gptwright new my-gpt", "gptwright new my-gpt --template empty"])(new)
    verb(app, "run", ["gptwright run", "gptwright run pretrain --dry-run"])(run)
    verb(app, "status", ["gptwright status", "gptwright status --json"])(status)
    config = group("The configuration: show it resolved, check it, explain a key.")
    verb(config, "show", ["gptwright config show", "gptwright config show --set pretrain.max_time=1m"])(config_show)
    verb(config, "check", ["gptwright config check", "gptwright config check --project my-gpt"])(config_check)
    verb(
        config,
        "explain",
        ["gptwright config explain pretrain.max_time", "gptwright config explain corpus.sources.NAME.pii"],
    )(config_explain)
    verb(config, "schema", ["gptwright config schema > schema.json", "gptwright config schema --json"])(config_schema)
    app.add_typer(config, name="config")
    verb(app, "doctor", ["gptwright doctor", "gptwright doctor --json"])(doctor)
    verb(app, "plan", ["gptwright plan --budget 30m", "gptwright plan --budget 20usd --device h100"])(plan)


def new(
    call: Call,
    name: Annotated[Path, typer.Argument(help="Folder to make.")],
    template: Annotated[str, typer.Option(help="starter, empty or adapt.")] = "starter",
) -> Answer:
    """Make a project folder with a commented gptwright.toml."""
    from gptwright.project.template import create

    folder = create(name, template)
    text = f"Made {folder}/gptwright.toml. Next:\n  cd {folder}\n  gptwright run"
    return Answer({"project": str(folder), "template": template}, text)


def run(
    call: Call,
    stages: Annotated[
        list[str] | None, typer.Argument(metavar="[STAGE]...", help="Stages to bring up to date; all if none is named.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would run, and why.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Run the named stages although they are fresh.")] = False,
) -> Answer:
    """Bring the project up to date: only stale stages, in order."""
    report = call.project().run(stages or [], dry_run=dry_run, force=force)
    if dry_run:
        lines = [f"{item['stage']}: {'; '.join(item['why'])}" for item in report.would_run]
        return Answer({"would_run": report.would_run}, "\n".join(lines) or "Everything is fresh.")
    data = {"ran": report.ran, "fresh": report.fresh, "summary": report.summary}
    return Answer(data, report.summary or ("Everything is fresh." if not report.ran else ""))


def status(call: Call) -> Answer:
    """Show each stage: fresh, stale (and why), running, interrupted, failed or missing."""
    verdicts = call.project().status()
    table = Table(["stage", "state", "artifact", "made (UTC)", "took"])
    rows: list[dict[str, Any]] = []
    for v in verdicts:
        a = v.artifact
        took = clock(a.meta.get("seconds", 0)) if a else None
        made_at = a.created_at[:16].replace("T", " ") if a else None
        table.add(v.stage, v.state, a.name if a else None, made_at, took)
        made = (
            {
                "artifact": a.name,
                "path": a.path,
                "hash": a.hash,
                "created_at": a.created_at,
                "seconds": a.meta.get("seconds"),
            }
            if a
            else {}
        )
        rows.append({"stage": v.stage, "state": v.state, "reasons": list(v.reasons), **made})
    head, *lines = str(table).splitlines()
    return Answer({"stages": rows}, "\n".join([head, *map(_with_reasons, lines, verdicts)]))


def _with_reasons(line: str, verdict: "Verdict") -> str:
    """A stage's line, and below it why it is not fresh: beside it, a terminal would break the table."""
    if not verdict.reasons:
        return line
    return f"{line}\n" + textwrap.fill("; ".join(verdict.reasons), 100, initial_indent="  ", subsequent_indent="  ")


def config_show(call: Call) -> Answer:
    """Show every setting with its value and where it comes from."""
    project = call.project()
    values = dict(_flat(project.config_values()))
    table = Table(["key", "value", "from"])
    for key, value in values.items():
        table.add(key, shorten(_shown(value), 34), project.origins.get(key, "default"))
    data = {key: {"value": value, "origin": project.origins.get(key, "default")} for key, value in values.items()}
    return Answer(data, str(table))


def config_check(call: Call) -> Answer:
    """Check the configuration; all faults are listed at once."""
    project = call.project()
    return Answer(
        {"ok": True, "keys": len(project.origins)},
        f"{project.root / 'gptwright.toml'}: no faults ({len(project.origins)} keys set)",
    )


def config_explain(
    call: Call, key: Annotated[str, typer.Argument(help="Dotted key, such as pretrain.max_time.")]
) -> Answer:
    """Say what a key means, its type and its default."""
    from gptwright.core.config import explain
    from gptwright.project.settings import Settings

    doc, kind, default = explain(Settings, key)
    return Answer(
        {"key": key, "doc": doc, "type": kind, "default": default},
        f"{key} ({kind})\n  {doc}\n  default: {_shown(default)}",
    )


def config_schema(call: Call) -> Answer:
    """Print the JSON schema that editors use for completion."""
    import json

    from gptwright.core.config import json_schema
    from gptwright.project.settings import Settings

    schema = json_schema(Settings)
    return Answer(schema, json.dumps(schema, indent=2))


def doctor(call: Call) -> Answer:
    """Check this machine: Python, torch, CPU, memory, disk, extras; each with a verdict and a fix."""
    from gptwright.project.doctor import examine

    findings = examine()
    table = Table(["", "what", "found", "fix"])
    for f in findings:
        table.add({"ok": "ok", "note": "--", "bad": "!!"}[f.verdict], f.what, f.found, f.fix)
    return Answer(
        {"findings": [vars(f) for f in findings]}, str(table), 1 if any(f.verdict == "bad" for f in findings) else 0
    )


def plan(
    call: Call,
    budget: Annotated[str, typer.Option(help="Time (30m), money (20usd, with a price) or FLOP (1e15).")] = "5m",
    price: Annotated[
        float | None, typer.Option(help="Price of this machine or of a rented one. US dollars an hour.")
    ] = None,
    device: Annotated[
        str | None,
        typer.Option(metavar="NAME", help="Plan for rented cards instead of this machine: h100, 8xh100, rtx4090 ..."),
    ] = None,
    compare_hosted: Annotated[
        bool, typer.Option("--compare-hosted", help="Set building, fine-tuning an open model and buying side by side.")
    ] = False,
    requests_per_day: Annotated[
        float, typer.Option(help="With --compare-hosted: questions that are answered a day.")
    ] = 200.0,
    tokens_in: Annotated[int, typer.Option(help="With --compare-hosted: tokens of a question.")] = 500,
    tokens_out: Annotated[int, typer.Option(help="With --compare-hosted: tokens of an answer.")] = 200,
    months: Annotated[float, typer.Option(help="With --compare-hosted: how long it is to be used.")] = 12.0,
) -> Answer:
    """Measure this machine for ten seconds and propose what to build on it, or on rented cards; or to buy."""
    from gptwright.plan.hosted import Demand
    from gptwright.project.planning import Question, plan_for

    try:
        project = call.project()
    except UserError:
        if call.directory is not None or call.overrides:
            raise
        project = None
    demand = Demand.of(requests_per_day, tokens_in, tokens_out, months) if compare_hosted else None
    data, text = plan_for(project, Question(budget, price, device), demand)
    return Answer(data, text)


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in data.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) and value else [(prefix + name, value)]
    return rows


def _shown(value: Any) -> str:
    import json

    return "-" if value is None else json.dumps(value, ensure_ascii=False, default=str)
