"""Forecasts of training on graphics cards: memory of each, tokens a second, money, on 1, 8 or 64 of them. Nothing here was measured by us.

A step is the products at a share of the peak, the update, and what of the talk between the cards cannot hide behind the products. The
share and what hides were fitted to three published runs; the interval around them is as wide as those runs are apart.
"""

from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Literal

from gptwright.core.progress import short
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.kernels import CHUNK_ROWS
from gptwright.model.presets import named
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.devices import Device, devices
from gptwright.plan.work import update_work
from gptwright.train.stepper import MICRO_TOKENS_GPU

Strategy = Literal["one", "ddp", "fsdp"]
LABEL = "forecast, not measured"
_BATCH_TOKENS = 524_288  # of an update: GPT-3's smaller sizes, nanochat's reference
_CLOSE = 0.9  # the simpler way is taken when it is nearly as fast
_DEFAULT_MODELS = ("gpt2", "gpt3-1.3b", "qwen3-4b", "llama3.1-8b")


@dataclass(frozen=True)
class ScaleRow:
    """A model on so many cards.

    Args:
        model: its name.
        params: exact.
        device: of the table.
        gpus: cards.
        strategy: one card; ddp: each holds all; fsdp: weights, gradients and moments divided.
        checkpointed: activations are computed again in the backward pass.
        memory: bytes of one card by part.
        fits: in the card, with a tenth to spare.
        tokens_per_s: of all cards together.
        low: of the interval.
        high: of the interval.
        mfu: share of the peak, of all cards.
        usd_per_hour: of all cards; None without a price.
        usd_per_billion_tokens: at ``tokens_per_s``.
    """

    model: str
    params: int
    device: str
    gpus: int
    strategy: Strategy
    checkpointed: bool
    memory: dict[str, int]
    fits: bool
    tokens_per_s: float
    low: float
    high: float
    mfu: float
    usd_per_hour: float | None
    usd_per_billion_tokens: float | None
    label: str = LABEL

    @property
    def memory_total(self) -> int:
        """Bytes of one card."""
        return sum(self.memory.values())

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {**asdict(self), "memory_total": self.memory_total}


def forecast_table(
    models: Iterable[str | ModelConfig] = _DEFAULT_MODELS,
    device: str | Device = "h100",
    gpus: Sequence[int] = (1, 8, 64),
    *,
    seq_len: int = 2048,
    micro_tokens: int = MICRO_TOKENS_GPU,
    batch_tokens: int = _BATCH_TOKENS,
    constants: Constants = CONSTANTS,
) -> list[ScaleRow]:
    """Memory and throughput of models on 1, 8 and 64 cards: DDP where a whole copy fits, FSDP where it does not, and activation
    checkpointing where that alone makes it fit.

    Args:
        models: names of presets, or shapes.
        device: name in the table of devices, or one.
        gpus: numbers of cards.
        seq_len: context; a model that has a shorter one keeps it. Tokens.
        micro_tokens: of one pass on one card; raised to a whole sequence. Tokens.
        batch_tokens: of one update, of all cards; raised to a pass on each. Tokens.
        constants: the planner's choices.

    Returns:
        A row a model and number of cards.

    Raises:
        UserError: no such model or device.
    """
    card = device if isinstance(device, Device) else _card(device)
    rows = []
    for model in models:
        shape = _shape(model, seq_len) if isinstance(model, str) else model
        name = model if isinstance(model, str) else f"{short(cost.params(shape))} {shape.family}"
        rows += [best_row(name, shape, card, count, micro_tokens, batch_tokens, constants) for count in gpus]
    return rows


def best_row(
    name: str,
    config: ModelConfig,
    device: Device,
    gpus: int,
    micro_tokens: int = MICRO_TOKENS_GPU,
    batch_tokens: int = _BATCH_TOKENS,
    constants: Constants = CONSTANTS,
) -> ScaleRow:
    """The simplest way that fits and is about as fast as the fastest, or the smallest when none fits."""
    ways: tuple[Strategy, ...] = ("one",) if gpus == 1 else ("ddp", "fsdp")
    tried = [
        row(name, config, device, gpus, way, micro_tokens, batch_tokens, again, constants)
        for again in (False, True)
        for way in ways
    ]
    fitting = [one for one in tried if one.fits]
    if fitting:
        fastest = max(one.tokens_per_s for one in fitting)
        return next(one for one in fitting if one.tokens_per_s >= _CLOSE * fastest)
    return min(tried, key=lambda one: one.memory_total)


def row(
    name: str,
    config: ModelConfig,
    device: Device,
    gpus: int,
    strategy: Strategy,
    micro_tokens: int = MICRO_TOKENS_GPU,
    batch_tokens: int = _BATCH_TOKENS,
    checkpointed: bool = False,
    constants: Constants = CONSTANTS,
) -> ScaleRow:
    """One way of training: see ``forecast_table`` for the arguments."""
    c = constants
    tokens = max(config.seq_len, micro_tokens // config.seq_len * config.seq_len)
    memory = card_memory(config, device, gpus, strategy, tokens, checkpointed, c)
    passes = max(1, batch_tokens // (gpus * tokens))
    rate = gpus * passes * tokens / step_seconds(config, device, gpus, strategy, tokens, passes, checkpointed, c)
    price = device.price
    hourly = None if price is None else price.usd * gpus
    return ScaleRow(
        model=name,
        params=cost.params(config),
        device=device.name,
        gpus=gpus,
        strategy=strategy,
        checkpointed=checkpointed,
        memory=memory,
        fits=sum(memory.values()) <= c.gpu_memory_share * device.memory,
        tokens_per_s=rate,
        low=rate * c.gpu_low,
        high=rate * c.gpu_high,
        mfu=rate * cost.flops_per_token(config, config.seq_len) / (device.flops * gpus),
        usd_per_hour=hourly,
        usd_per_billion_tokens=None if hourly is None else hourly / 3600 / rate * 1e9,
    )


def card_memory(
    config: ModelConfig,
    device: Device,
    gpus: int,
    strategy: Strategy,
    tokens: int,
    checkpointed: bool = False,
    constants: Constants = CONSTANTS,
) -> dict[str, int]:
    """Bytes of one card by part, as the trainer holds them: fp32 masters, a working copy in the card's dtype, gradients in fp32.

    Under FSDP everything but the block being computed is divided; that block, and the embedding, are there whole for a moment.
    """
    n, matrices = cost.params(config), cost.matrix_params(config)
    size = 2 if device.dtype == "bfloat16" else 4
    parts = gpus if strategy == "fsdp" else 1
    state = 4 * (matrices + 2 * (n - matrices))
    block = matrices // config.n_layers
    if strategy == "fsdp":
        # Two blocks are gathered at a time, the next while this one computes; a block's gradient is whole until it is summed.
        working = size * (2 * block + cost.embedding_params(config))
        gradients = 4 * n // parts + size * (block + cost.embedding_params(config))
    else:
        working = 0 if size == 4 else size * n
        gradients = (4 + size) * n
    return {
        "weights": 4 * n // parts + working,
        "gradients": gradients,
        "optimizer": state // parts,
        "activations": activations(config, tokens, size, checkpointed),
        "logits": logits(config, tokens, size),
        "runtime": int(constants.gpu_runtime_bytes),
    }


def activations(config: ModelConfig, tokens: int, size: int, checkpointed: bool = False) -> int:
    """Bytes kept for the backward pass on a card, where attention keeps no probabilities (FlashAttention, arXiv 2205.14135)."""
    c = config
    attention = 2 * c.d_model + c.d_head * (5 * c.n_heads + 2 * c.n_kv_heads)
    feed_forward = 2 * c.d_model + c.d_ff * (2 if c.family == "gpt2" else 3)
    layer = attention + feed_forward
    held = c.n_layers * c.d_model + layer if checkpointed else c.n_layers * layer
    return int(tokens * size * (held + 2 * c.d_model))


def logits(config: ModelConfig, tokens: int, size: int) -> int:
    """Bytes of the logits of one chunk, and the softmax and gradient made of them; never those of the whole batch."""
    rows = min(tokens, CHUNK_ROWS)
    return rows * config.vocab_size * (2 * size + 8) + 4 * config.vocab_size * config.d_model


def step_seconds(
    config: ModelConfig,
    device: Device,
    gpus: int,
    strategy: Strategy,
    tokens: int,
    passes: int = 1,
    checkpointed: bool = False,
    constants: Constants = CONSTANTS,
) -> float:
    """Seconds of an update after so many passes of ``tokens`` on every card."""
    c = constants
    n = cost.params(config)
    again = 4 / 3 if checkpointed else 1.0
    share = c.gpu_share * config.d_model / (config.d_model + c.gpu_half_width)
    products = again * tokens * cost.flops_per_token(config, config.seq_len) / (share * device.flops)
    launches = config.n_layers * c.gpu_launch_s * (1 + again)
    compute = passes * max(products, launches)
    # Muon's products are divided over the cards; masters, moments and gradients are read and written once.
    update = 30 * update_work(config) / gpus / (share * device.flops)
    update += 28 * n / (gpus if strategy == "fsdp" else 1) / device.bandwidth
    return compute + update + _exposed(n, device, gpus, strategy, passes, compute, c)


def _exposed(n: int, device: Device, gpus: int, strategy: Strategy, passes: int, compute: float, c: Constants) -> float:
    """Seconds of talk that do not hide behind the products."""
    if gpus == 1:
        return 0.0
    whole = (
        2 * 4 * n if strategy == "ddp" else (2 + 2 + 4) * n
    )  # a sum of gradients; two gathers and a sum kept in parts
    talk = (gpus - 1) / gpus * whole / (c.gpu_link_share * device.link_for(gpus))
    return max(c.gpu_never_hides * talk, talk - c.gpu_hides * compute)


def as_table(rows: Sequence[ScaleRow]) -> str:
    """The rows as a Markdown table, labelled."""
    head = "| model | cards | way | memory a card | tokens/s | share of peak | USD a billion tokens |"
    lines = [head, "|---|---|---|---|---|---|---|"]
    for one in rows:
        way = {"one": "one card", "ddp": "DDP", "fsdp": "FSDP"}[one.strategy] + (
            ", activations again" if one.checkpointed else ""
        )
        memory = f"{one.memory_total / 1e9:.1f} GB" + ("" if one.fits else ", **does not fit**")
        money = "-" if one.usd_per_billion_tokens is None else f"{one.usd_per_billion_tokens:,.2f}"
        rate = f"{short(one.tokens_per_s)} ({short(one.low)} to {short(one.high)})" if one.fits else "-"
        share = f"{100 * one.mfu:.0f} %" if one.fits else "-"
        lines.append(
            f"| {one.model} ({short(one.params)}) | {one.gpus} x {one.device} | {way} | {memory} | {rate} | {share} |"
            f" {money if one.fits else '-'} |"
        )
    return "\n".join(lines)


def as_lines(rows: Sequence[ScaleRow]) -> str:
    """The rows for a terminal."""
    lines = []
    for one in rows:
        rate = (
            f"{short(one.tokens_per_s)} tokens/s ({short(one.low)} to {short(one.high)})"
            if one.fits
            else "does not fit"
        )
        money = "" if one.usd_per_hour is None else f", {one.usd_per_hour:,.2f} USD an hour"
        lines.append(f"  {one.gpus:>3} x {one.device:<10} {one.memory_total / 1e9:6.1f} GB a card  {rate}{money}")
    return "\n".join(lines)


def _shape(name: str, seq_len: int) -> ModelConfig:
    own = named(name)
    return own if own.seq_len <= seq_len else named(name, seq_len=seq_len)


def _card(name: str) -> Device:
    from gptwright.plan.devices import rented

    return rented(name).device if name not in devices() else devices()[name]
