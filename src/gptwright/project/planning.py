"""From settings and a probe of this machine to the shape that will be trained, and to what `plan` prints."""

import textwrap
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.progress import clock, say, short
from gptwright.model.config import ModelConfig
from gptwright.model.presets import GPT3_SEQ_LEN, GPT3_SIZES, modern, named
from gptwright.plan.probe import probe
from gptwright.plan.propose import Budget, Plan, propose

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.project.settings import ModelSettings, Settings
    from gptwright.train.config import TrainConfig

_PROBE_S = 5.0
_WIDTH = 100
_EXAMPLE_BYTES = 13_000_000  # outside a project, `plan` speaks of a corpus like the starter's


def fixed_shape(settings: "ModelSettings", vocab_size: int) -> ModelConfig | None:
    """The shape that the settings ask for, or None when the planner is to choose."""
    seq_len = int(settings.seq_len)
    if settings.preset not in ("modern", "gpt2"):
        if settings.preset.lower() in GPT3_SIZES and "seq_len" not in settings.model_fields_set:
            seq_len = GPT3_SEQ_LEN  # a column of the paper's table, as the rate and the batch are
        return named(settings.preset, vocab_size, seq_len)
    if settings.depth is not None:
        return _family(settings, modern(depth=settings.depth, vocab_size=vocab_size, seq_len=seq_len))
    if settings.params is not None:
        return _family(settings, modern(params=int(settings.params), vocab_size=vocab_size, seq_len=seq_len))
    return None


def _family(settings: "ModelSettings", shape: ModelConfig) -> ModelConfig:
    """The same depth and width as a GPT-2, when that is the preset."""
    if settings.preset == "modern":
        return shape
    return shape.model_copy(
        update={
            "family": "gpt2",
            "n_kv_heads": shape.n_heads,
            "d_ff": 4 * shape.d_model,
            "norm_eps": 1e-5,
            "tie_embeddings": True,
        }
    )


def choose_shape(
    settings: "Settings", vocab_size: int, tokens: dict[str, Any], config: "TrainConfig"
) -> "tuple[ModelConfig, TrainConfig]":
    """Shape and batch of a pretraining run.

    Args:
        settings: the project's.
        vocab_size: rows of the embedding.
        tokens: of the token shards: tokens, bytes.
        config: of the run; a time budget is what the planner plans for.
    """
    shape = fixed_shape(settings.model, vocab_size)
    if shape is not None:
        return shape, config
    if config.max_time is None:
        # Steps without time say how many tokens, hence how large a model they can feed.
        wanted = max(100_000, int(config.max_steps or 1) * int(config.batch_tokens) // 5)
        shape = modern(
            params=max(wanted, 2 * vocab_size * 64), vocab_size=vocab_size, seq_len=int(settings.model.seq_len)
        )
        return _family(settings.model, shape), config
    say(f"pretrain: probing this machine for {_PROBE_S:.0f} s")
    plan = propose(
        probe(_PROBE_S),
        int(tokens["bytes"]),
        Budget(seconds=config.max_time),
        bytes_per_token=tokens["bytes"] / tokens["tokens"],
        vocab_size=vocab_size,
        seq_len=int(settings.model.seq_len),
        batch_tokens=int(config.batch_tokens) if "batch_tokens" in config.model_fields_set else None,
    )
    for warning in plan.warnings:
        say(f"pretrain: {warning}")
    return _family(settings.model, plan.model), config.model_copy(update={"batch_tokens": plan.batch_tokens})


def plan_for(project: "Project | None", budget: str, price: float | None) -> tuple[dict[str, Any], str]:
    """What `gptwright plan` says: for the project's corpus, or for one like the starter's."""
    size, per_token, shape, vocab, seq_len = _EXAMPLE_BYTES, None, None, None, 512
    origin = "an example corpus"
    if project is not None:
        seq_len = int(project.settings.model.seq_len)
        vocab = int(project.settings.tokenizer.vocab_size)
        size, per_token, origin = _corpus_size(project)
        shape = fixed_shape(project.settings.model, -(-vocab // 64) * 64)
    parsed = Budget.parse(budget)
    machine = probe(_PROBE_S)
    plan = propose(
        machine,
        size,
        parsed,
        bytes_per_token=per_token,
        vocab_size=vocab,
        seq_len=seq_len,
        shape=shape,
        usd_per_hour=price,
    )
    return {"machine": machine.to_json(), "corpus_bytes": size, "budget": budget, **plan.to_json()}, _text(
        plan, origin, size, budget, machine
    )


def _corpus_size(project: "Project") -> tuple[int, float | None, str]:
    if project.has_ledger:
        with project.ledger() as ledger:
            made, tokens = ledger.latest_of_stage("corpus"), ledger.latest_of_stage("tokens")
        if made is not None:
            per_token = tokens.meta["bytes"] / tokens.meta["tokens"] if tokens else None
            return int(made.meta["train"]["bytes"]), per_token, "this project's corpus"
    total = 0
    for name, source in project.settings.corpus.sources.items():
        if source.uri.startswith("package:"):
            raise UserError(f"the size of source {name} is not known yet", fix="Run: gptwright data build")
        place = project.root / source.uri
        files = (
            [p for p in place.rglob("*") if p.is_file()] if place.is_dir() else [Path(place)] if place.is_file() else []
        )
        total += sum(file.stat().st_size for file in files)
    return total, None, "this project's source files, not yet cleaned"


def _text(plan: Plan, origin: str, size: int, budget: str, machine: Any) -> str:
    shape = plan.model
    memory = sum(plan.memory.values())
    lines = [
        f"For {budget} on {machine.device_name} and {short(size)}B of text ({origin}):",
        f"  model      {short(plan.params)} parameters: {shape.n_layers} layers, {shape.d_model} wide, {shape.vocab_size:,} tokens known,"
        f" context {plan.seq_len}",
        f"  training   {plan.steps:,} steps of {plan.batch_tokens:,} tokens = {short(plan.tokens)} tokens, {plan.epochs:.1f} passes over the text",
        f"  rates      {plan.lr_matrix:g} for matrices (Muon), {plan.lr_embedding:g} for the embedding (AdamW)",
        f"  speed      {short(plan.tokens_per_s)} tokens/s in {plan.dtype}, from a measured training step",
        f"  time       {clock(plan.seconds)} ({short(plan.flop)}FLOP)"
        + (f", {plan.usd:.2f} USD" if plan.usd is not None else ""),
        f"  memory     {memory / 1e9:.2f} GB: "
        + ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in plan.memory.items()),
        f"  quality    {plan.forecast_note}",
    ]
    lines += [f"  note       {warning}" for warning in plan.warnings]
    return "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent=" " * 13) for line in lines)
