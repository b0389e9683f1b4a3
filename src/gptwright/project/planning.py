"""From settings and a probe of this machine to the shape that will be trained, and to what `plan` prints."""

import math
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.progress import clock, say, short
from gptwright.model.config import ModelConfig
from gptwright.model.presets import GPT3_SEQ_LEN, GPT3_SIZES, modern, named
from gptwright.plan import devices, scale
from gptwright.plan.host import Cards
from gptwright.plan.probe import Machine, probe
from gptwright.plan.propose import Budget, Plan, propose
from gptwright.project import foresight
from gptwright.train.dial import settings_for

if TYPE_CHECKING:
    from gptwright.plan.hosted import Demand
    from gptwright.project.project import Project
    from gptwright.project.settings import ModelSettings, Settings
    from gptwright.train.config import TrainConfig

_PROBE_S = 5.0  # before a run, which has its own short measurement
_PLAN_S = 10.0
_WIDTH = 100
_EXAMPLE_BYTES = 13_000_000  # outside a project, `plan` speaks of a corpus like the starter's


def fixed_shape(settings: "ModelSettings", vocab_size: int) -> ModelConfig | None:
    """The shape that the settings ask for, or None when the planner is to choose."""
    seq_len = int(settings.seq_len)
    tied = settings.tie_embeddings is not False
    if settings.preset not in ("modern", "gpt2"):
        if settings.preset.lower() in GPT3_SIZES and "seq_len" not in settings.model_fields_set:
            seq_len = GPT3_SEQ_LEN  # a column of the paper's table, as the rate and the batch are
        return _as_asked(settings, named(settings.preset, vocab_size, seq_len))
    if settings.depth is not None:
        shape = modern(depth=settings.depth, vocab_size=vocab_size, seq_len=seq_len)
    elif settings.params is not None:
        shape = modern(params=int(settings.params), vocab_size=vocab_size, seq_len=seq_len, tie_embeddings=tied)
    else:
        return None
    return _as_asked(settings, shape)


def _as_asked(settings: "ModelSettings", shape: ModelConfig) -> ModelConfig:
    """The same depth and width as a GPT-2, when that is the preset; and with the head that was asked for."""
    changes: dict[str, Any] = {}
    if settings.preset == "gpt2":
        changes = {"family": "gpt2", "n_kv_heads": shape.n_heads, "d_ff": 4 * shape.d_model, "norm_eps": 1e-5}
    if settings.tie_embeddings is not None:
        changes["tie_embeddings"] = settings.tie_embeddings
    return shape.model_copy(update=changes)


def choose_shape(
    settings: "Settings", vocab_size: int, tokens: dict[str, Any], config: "TrainConfig", work: Path | None = None
) -> "tuple[ModelConfig, TrainConfig]":
    """Shape of a pretraining run, and its batch and decay where the planner chooses.

    Args:
        settings: the project's.
        vocab_size: rows of the embedding.
        tokens: of the token shards: tokens, bytes.
        config: of the run; a time budget is what the planner plans for.
        work: of the project, where the probe is kept for the run's forecast; None: nowhere.
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
        return _as_asked(settings.model, shape), config
    say(f"pretrain: probing this machine for {_PROBE_S:.0f} s")
    machine = probe(_PROBE_S, decode=False)
    if work is not None:
        foresight.remember(work, machine)
    plan = propose(
        machine,
        int(tokens["bytes"]),
        Budget(seconds=config.max_time),
        bytes_per_token=tokens["bytes"] / tokens["tokens"],
        vocab_size=vocab_size,
        seq_len=int(settings.model.seq_len),
        train=config,
        preset=settings.model.preset,
    )
    for warning in plan.warnings:
        say(f"pretrain: {warning}")
    config = config.model_copy(update={"batch_tokens": plan.batch_tokens})
    # The plan stops where reading again teaches nothing; the run takes its time all the same, and its decay is for what it will read.
    ahead = plan.tokens_per_s * float(config.max_time or 0)
    found = settings_for(plan.model, config, settings.model.preset, ahead, float(tokens["tokens"]))
    return _as_asked(settings.model, plan.model), config.model_copy(update={"weight_decay": found.weight_decay})


@dataclass(frozen=True)
class Question:
    """What `gptwright plan` is asked.

    Args:
        budget: time, money or FLOP.
        price: of an hour. US dollars.
        device: cards of the table instead of this machine.
        text_bytes: of an example corpus, outside a project. Bytes.
    """

    budget: str = "5m"
    price: float | None = None
    device: str | None = None
    text_bytes: int = _EXAMPLE_BYTES


@dataclass(frozen=True)
class Text:
    """The corpus that is planned for."""

    size: int
    per_token: float | None
    origin: str
    vocab: int | None
    seq_len: int
    shape: ModelConfig | None


def plan_for(project: "Project | None", asked: Question, compare: "Demand | None" = None) -> tuple[dict[str, Any], str]:
    """What `gptwright plan` says: for the project's corpus, or for one like the starter's.

    Args:
        project: None: there is none here.
        asked: see ``Question``.
        compare: what is to be served; then buying is set beside building.
    """
    parsed = Budget.parse(asked.budget)
    hire = devices.rented(asked.device) if asked.device else None
    text = _text_of(project, asked.text_bytes)
    own = foresight.learnt(project) if project is not None else None
    if hire is None:
        _refuse_early(parsed, asked.price, text)
    machine = None if hire is not None and compare is None else probe(_PLAN_S)
    if machine is not None and project is not None:
        foresight.remember(project.work, machine)
    place: Any = hire or machine
    plan = propose(
        place,
        text.size,
        parsed,
        bytes_per_token=text.per_token,
        vocab_size=text.vocab,
        seq_len=text.seq_len,
        shape=text.shape,
        train=_train_config(project),
        preset=project.settings.model.preset if project is not None else "modern",
        usd_per_hour=asked.price,
        # What this machine's runs taught about speed and memory says nothing of others.
        learnt=own if hire is None or own is None else replace(own, speed=1.0, memory=0.0),
    )
    data: dict[str, Any] = {
        "machine": machine.to_json() if machine else None,
        "device": _device_json(hire) if hire else None,
        "corpus_bytes": text.size,
        "corpus": text.origin,
        "budget": asked.budget,
        **plan.to_json(),
    }
    said = [_said(plan, text, asked, machine)]
    if hire is not None:
        rows = [Cards(devices.Rented(hire.device, count)).row(plan.model, plan.batch_tokens) for count in (1, 8, 64)]
        data["scale"] = [row.to_json() for row in rows]
        said += ["", f"The same model on more cards ({scale.LABEL}):", scale.as_lines(rows)]
    history = _history(project)
    data["history"] = history
    if history:
        said += ["", "Forecast and fact of the last runs:"]
        said += [f"  {row['run']}  {'; '.join(foresight.lines(row))}" for row in history]
    if compare is not None:
        from gptwright.plan import buy
        from gptwright.plan.hosted import hosted_rows, snapshot

        assert machine is not None, "probed above"
        found = buy.compare(plan, machine, text.size, compare, hosted_rows(compare), snapshot(), asked.price)
        data["compare"] = found.to_json()
        said += ["", buy.as_text(found)]
    return data, "\n".join(said)


def _refuse_early(budget: Budget, price: float | None, text: Text) -> None:
    """What ``propose`` would refuse too, before seconds are spent on measuring."""
    if text.size <= 0:
        raise UserError("there is no training text yet", fix="Add some: gptwright data add PATH")
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"a price of {price} an hour is none", fix="Give it in US dollars: --price 2.50")
    if budget.usd is not None and not price:
        raise UserError(
            "a budget in money needs the price of the machine",
            fix="Give it: --price USD_PER_HOUR, or plan for rented cards: --device h100",
        )


def _train_config(project: "Project | None") -> "TrainConfig | None":
    if project is None:
        return None
    from gptwright.project.training import train_config

    return train_config(project.settings.pretrain)


def _history(project: "Project | None", most: int = 5) -> list[dict[str, Any]]:
    """Comparisons of the last pretraining runs, oldest first."""
    if project is None or not project.has_ledger:
        return []
    with project.ledger() as ledger:
        rows = [
            {"run": run.id, **event.data}
            for run in ledger.runs("pretrain")
            for event in ledger.events(run.id, foresight.CHECKED)
        ]
    return [row for row in rows if foresight.lines(row)][-most:]


def _device_json(hire: devices.Rented) -> dict[str, Any]:
    price = hire.device.price
    return {
        "name": hire.device.name,
        "title": hire.title,
        "gpus": hire.gpus,
        "table_dated": devices.dated().isoformat(),
        "source": hire.device.source,
        "price": None
        if price is None
        else {
            "usd_per_card_hour": price.usd,
            "provider": price.provider,
            "dated": price.dated.isoformat(),
            "source": price.source,
        },
    }


def _text_of(project: "Project | None", example: int) -> Text:
    if project is None:
        return Text(example, None, "an example corpus", None, 512, None)
    settings = project.settings
    size, per_token, origin = _corpus_size(project)
    vocab = -(-int(settings.tokenizer.vocab_size) // 64) * 64
    return Text(size, per_token, origin, vocab, int(settings.model.seq_len), fixed_shape(settings.model, vocab))


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


def _said(plan: Plan, text: Text, asked: Question, machine: Machine | None) -> str:
    shape = plan.model
    where = plan.host
    speed = "from measured training steps" if plan.measured else scale.LABEL
    cost = "" if plan.usd is None else f", {_usd(plan.usd)}"
    now = f"; {clock(plan.seconds_now)} as busy as the machine is now" if plan.seconds_now > 1.2 * plan.seconds else ""
    rates = plan.rates
    lines = [
        f"For {asked.budget} on {where} and {short(text.size)}B of text ({text.origin}):",
        f"  model      {short(plan.params)} parameters: {shape.n_layers} layers, {shape.d_model} wide, {shape.vocab_size:,} tokens known,"
        f" context {plan.seq_len}",
        f"  training   {plan.steps:,} steps of {plan.batch_tokens:,} tokens = {short(plan.tokens)} tokens, {plan.epochs:.1f} passes over the text",
        f"  rates      {rates['lr_matrix']:g} for matrices (Muon), {rates['lr_embedding']:g} for the embedding and {rates['lr_other']:g} for the"
        f" rest (AdamW); weight decay {rates['weight_decay']:g}",
        f"  speed      {short(plan.tokens_per_s)} tokens/s in {plan.dtype}, {speed}",
        f"  time       {clock(plan.seconds)} ({short(plan.flop)}FLOP){cost}{now}",
        f"  memory     {plan.memory_total / 1e9:.2f} GB"
        + ("" if plan.measured else " a card")
        + ": "
        + ", ".join(f"{name} {value / 1e6:.0f} MB" for name, value in plan.memory.items()),
        f"  quality    {plan.forecast_note}",
    ]
    if plan.learnt_from:
        runs = f"{plan.learnt_from} finished run" + ("s" if plan.learnt_from > 1 else "")
        lines.append(f"  learnt     corrected by {runs} of this project")
    if machine is not None and plan.measured:
        peak = f"{short(machine.matmul_fp32)}FLOP/s in fp32"
        if machine.matmul_bf16:
            peak += f", {short(machine.matmul_bf16)}FLOP/s in bf16"
        answers = (
            ""
            if machine.decode is None
            else f"; answers {short(machine.decode.one)} tokens/s alone, {short(machine.decode.eight)} of eight"
        )
        lines.append(f"  machine    products {peak}; memory {short(machine.bandwidth)}B/s{answers}")
    if asked.device and asked.price is None and plan.usd is not None:
        price = devices.rented(asked.device).device.price
        assert price is not None
        lines.append(
            f"  price      {price.usd:g} USD an hour and card, {price.provider}, {price.dated} ({price.source})"
        )
    lines += [f"  note       {warning}" for warning in plan.warnings]
    return "\n".join(textwrap.fill(line, _WIDTH, subsequent_indent=" " * 13) for line in lines)


def _usd(value: float) -> str:
    return f"{value:,.2f} USD" if value >= 0.01 else "under 0.01 USD"
