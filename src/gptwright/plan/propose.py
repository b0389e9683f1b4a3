"""What to build with this machine, this much text and this budget: a size, a schedule, and what they cost.

The choice is one search over a dial of sizes: the largest model that the budget and the text can still feed.
"""

import functools
import json
import math
import re
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptwright.core.config import parse_duration
from gptwright.core.errors import UserError
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.presets import modern
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.probe import Machine
from gptwright.plan.work import update_work
from gptwright.train.config import TrainConfig

_RUNS = Path(__file__).with_name("runs.json")
_SIMILAR = 3.0  # a measured run within this factor in parameters and tokens is like the plan
_ENOUGH = 3


@dataclass(frozen=True)
class Budget:
    """One limit. ``usd`` needs the price of the machine, in US dollars an hour."""

    seconds: float | None = None
    flop: float | None = None
    usd: float | None = None

    @staticmethod
    def parse(text: str) -> "Budget":
        """Read "30m", "20usd" or "1e15" (FLOP).

        Raises:
            UserError: it is none of them, or not above zero.
        """
        clean = text.strip().lower()
        try:
            if clean.endswith("usd"):
                budget = Budget(usd=float(clean.removesuffix("usd")))
            elif re.fullmatch(r"[0-9.]+e\+?[0-9]+(flop)?", clean):
                budget = Budget(flop=float(clean.removesuffix("flop")))
            else:
                budget = Budget(seconds=parse_duration(clean))
        except ValueError as error:
            raise UserError(
                f"budget {text!r} is not understood", fix="Write a time (30m), money (20usd) or FLOP (1e15)"
            ) from error
        if not all(value is None or (math.isfinite(value) and value > 0) for value in asdict(budget).values()):
            raise UserError(
                f"budget {text!r} is not above zero", fix="Write a time (30m), money (20usd) or FLOP (1e15)"
            )
        return budget


@dataclass(frozen=True)
class Forecast:
    """Held-out bits per byte of measured runs like this one: their mean, lowest and highest."""

    value: float
    low: float
    high: float
    n: int
    corpora: tuple[str, ...]


@dataclass(frozen=True)
class Plan:
    """What to build and what it takes. ``memory`` is in bytes by part."""

    model: ModelConfig
    params: int
    batch_tokens: int
    seq_len: int
    steps: int
    tokens: int
    epochs: float
    lr_matrix: float
    lr_embedding: float
    tokens_per_s: float
    seconds: float
    flop: float
    usd: float | None
    memory: dict[str, int]
    dtype: str
    warnings: tuple[str, ...]
    forecast: Forecast | None

    @property
    def minutes(self) -> float:
        return self.seconds / 60

    @property
    def forecast_note(self) -> str:
        """The expected score for a person, or that there is none."""
        if self.forecast is None:
            return "no forecast of bits per byte yet: too few measured runs of this size"
        f = self.forecast
        return f"bits per byte about {f.value:.2f} ({f.low:.2f} to {f.high:.2f} in {f.n} measured runs of this size on {', '.join(f.corpora)})"

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            **asdict(self),
            "model": self.model.model_dump(),
            "minutes": self.minutes,
            "forecast_note": self.forecast_note,
        }


def propose(
    machine: Machine,
    corpus_bytes: int,
    budget: Budget,
    *,
    bytes_per_token: float | None = None,
    vocab_size: int | None = None,
    seq_len: int = 512,
    shape: ModelConfig | None = None,
    batch_tokens: int | None = None,
    usd_per_hour: float | None = None,
    constants: Constants = CONSTANTS,
) -> Plan:
    """Choose a model and its schedule.

    Args:
        machine: from ``probe``.
        corpus_bytes: training text. Bytes.
        budget: time, FLOP or money.
        bytes_per_token: of the project's tokenizer, if there is one.
        vocab_size: of that tokenizer (padded).
        seq_len: context. Tokens.
        shape: a model chosen already; then only its schedule and costs are worked out.
        batch_tokens: a batch chosen already.
        usd_per_hour: price of the machine; needed for a budget in money.
        constants: the planner's choices.

    Raises:
        UserError: there is no text, or a budget in money comes without a price.
    """
    c = constants
    if corpus_bytes <= 0:
        raise UserError("there is no training text yet", fix="Add some: gptwright data add PATH")
    if budget.usd is not None:
        if not usd_per_hour or usd_per_hour <= 0:
            raise UserError("a budget in money needs the price of the machine", fix="Give it: --price USD_PER_HOUR")
        budget = Budget(seconds=budget.usd / usd_per_hour * 3600)
    if shape is not None:
        vocabs = [shape.vocab_size]
    elif vocab_size is not None:
        vocabs = [vocab_size]
    else:
        largest = next(size for limit, size in c.vocab if corpus_bytes < limit)
        vocabs = [size for _, size in reversed(c.vocab) if size <= largest]
    room = c.memory_share * machine.memory_free_bytes
    for vocab in vocabs:  # largest first
        text = corpus_bytes / (bytes_per_token or _bytes_per_token(vocab, c))

        def option(config: ModelConfig, text: float = text) -> _Option:
            return _Option.of(config, machine, budget, text, batch_tokens, c)

        best = option(shape) if shape else _largest_fed(vocab, seq_len, option, room, c)
        if cost.embedding_params(best.config) <= c.embedding_share * best.params:
            break
    return _plan(best, machine, budget, corpus_bytes, text, usd_per_hour, best.memory_total <= room, c)


def load_runs(path: Path = _RUNS) -> list[dict[str, Any]]:
    """Measured runs that come with the package: params, tokens, bits_per_byte, corpus, date."""
    loaded: list[dict[str, Any]] = json.loads(path.read_text(encoding="utf-8"))
    return loaded


def forecast(params: int, tokens: int, runs: Sequence[dict[str, Any]]) -> Forecast | None:
    """Scores of measured runs of about this size; None when there are fewer than three."""
    near = [
        run
        for run in runs
        if abs(math.log(run["params"] / params)) <= math.log(_SIMILAR)
        and abs(math.log(run["tokens"] / tokens)) <= math.log(_SIMILAR)
    ]
    if len(near) < _ENOUGH:
        return None
    scores = [float(run["bits_per_byte"]) for run in near]
    return Forecast(
        sum(scores) / len(scores),
        min(scores),
        max(scores),
        len(near),
        tuple(sorted({str(run["corpus"]) for run in near})),
    )


@dataclass(frozen=True)
class _Option:
    """One shape under the budget."""

    config: ModelConfig
    params: int
    batch: int
    affordable: float  # tokens that the budget pays for
    tokens: float  # of these, what the text can feed
    token_s: float
    memory: dict[str, int]

    @property
    def memory_total(self) -> int:
        return sum(self.memory.values())

    @property
    def ratio(self) -> float:
        return self.tokens / self.params

    @staticmethod
    def of(
        config: ModelConfig, machine: Machine, budget: Budget, text: float, batch: int | None, c: Constants
    ) -> "_Option":
        fed = c.max_epochs * text
        chosen = batch or _batch(min(fed, c.tokens_reference), config.seq_len, c)
        # The batch depends on the tokens and the tokens, through the update's cost, on the batch: the second round has settled.
        for _ in range(2):
            token_s = _token_seconds(config, machine, chosen)
            if budget.seconds is not None:
                affordable = max(0.0, budget.seconds * (1 - c.reserve) - c.setup_s) / token_s
            else:
                affordable = (budget.flop or 0.0) / cost.flops_per_token(config, config.seq_len)
            chosen = batch or _batch(min(fed, affordable), config.seq_len, c)
        return _Option(
            config,
            cost.params(config),
            chosen,
            affordable,
            min(fed, affordable),
            token_s,
            _memory(config, machine, chosen, c),
        )


def _largest_fed(
    vocab: int, seq_len: int, option: Callable[[ModelConfig], _Option], room: float, c: Constants
) -> _Option:
    """The largest model with enough tokens for each parameter that the memory holds: both fall as models grow, so halving finds it."""
    low, high = 0, c.sizes - 1
    best = option(_shape(0, vocab, seq_len, c.size_step))
    while low < high:
        middle = (low + high + 1) // 2
        tried = option(_shape(middle, vocab, seq_len, c.size_step))
        if tried.ratio >= c.wanted_ratio(tried.tokens) and tried.memory_total <= room:
            low, best = middle, tried
        else:
            high = middle - 1
    return best


@functools.lru_cache(maxsize=512)
def _shape(notch: int, vocab: int, seq_len: int, step: float) -> ModelConfig:
    """The dial: each notch is a model larger by the step, with the depth and width that suit its size."""
    smallest = cost.params(modern(depth=1, vocab_size=vocab, seq_len=seq_len))
    return modern(params=round(smallest * step**notch), vocab_size=vocab, seq_len=seq_len)


def _plan(
    option: _Option,
    machine: Machine,
    budget: Budget,
    corpus_bytes: int,
    text: float,
    usd_per_hour: float | None,
    fits: bool,
    c: Constants,
) -> Plan:
    config = option.config
    steps = max(1, int(option.tokens / option.batch))
    tokens = steps * option.batch
    seconds = tokens * option.token_s / (1 - c.reserve) + c.setup_s
    defaults = TrainConfig.model_validate({"max_steps": 1})
    return Plan(
        model=config,
        params=option.params,
        batch_tokens=option.batch,
        seq_len=config.seq_len,
        steps=steps,
        tokens=tokens,
        epochs=tokens / text,
        # The trainer's own rates: they are tuned there, and Muon's carry over between widths.
        lr_matrix=defaults.lr_matrix,
        lr_embedding=defaults.lr_embedding,
        tokens_per_s=1 / option.token_s,
        seconds=seconds,
        flop=float(tokens) * cost.flops_per_token(config, config.seq_len),
        usd=seconds / 3600 * usd_per_hour if usd_per_hour else None,
        memory=option.memory,
        dtype=machine.dtype,
        warnings=tuple(_warnings(option, machine, budget, corpus_bytes, text, steps, seconds, fits, c)),
        forecast=forecast(option.params, tokens, load_runs()),
    )


def _warnings(
    option: _Option,
    machine: Machine,
    budget: Budget,
    corpus_bytes: int,
    text: float,
    steps: int,
    seconds: float,
    fits: bool,
    c: Constants,
) -> list[str]:
    said = []
    size = f"{corpus_bytes / 1e6:.1f} MB" if corpus_bytes < 1e9 else f"{corpus_bytes / 1e9:.1f} GB"
    passes = option.affordable / text
    if passes > c.hopeless_epochs:
        said.append(
            f"your {size} would be read {passes:,.0f} times in this budget, which teaches nothing new after {c.max_epochs:.0f}:"
            " fine-tune an open model instead, or add text"
        )
    elif passes > 2 * c.max_epochs:
        said.append(
            f"the budget would read your {size} {passes:.0f} times; the plan stops at {c.max_epochs:.0f}. More text would make better use of it"
        )
    if steps < c.too_few_steps:
        scarce = "the budget" if option.affordable <= c.max_epochs * text else "the text"
        said.append(f"only {steps} steps: {scarce} is too small to learn much from")
    if option.ratio < c.least_tokens_per_param and steps >= c.too_few_steps:
        said.append(
            f"only {option.ratio:.1f} tokens for each parameter: the model is larger than the budget or the text can feed"
        )
    if not fits:
        need, have = option.memory_total / 1e9, machine.memory_free_bytes / 1e9
        said.append(
            f"needs {need:.1f} GB of memory, {have:.1f} GB are free: close other programs, or take a smaller model"
        )
    disk = c.checkpoints * 12 * option.params
    if disk > machine.disk_free_bytes:
        said.append(f"checkpoints need {disk / 1e9:.1f} GB of disk, {machine.disk_free_bytes / 1e9:.1f} GB are free")
    if budget.seconds is not None and budget.seconds < 2 * c.setup_s:
        said.append(f"about {c.setup_s:.0f} s of the time go into starting up")
    return said


def _token_seconds(config: ModelConfig, machine: Machine, batch: int) -> float:
    """Seconds a token: forward and backward, and its share of the update."""
    gradient = cost.flops_per_token(config, config.seq_len) / machine.train_flops(config.d_model)
    return gradient + update_work(config) / machine.update_rate(config.d_model) / batch


def _batch(tokens: float, seq_len: int, c: Constants) -> int:
    """Tokens a step: a power of two times the context, larger for longer runs."""
    ideal = c.batch_reference * (max(tokens, 1.0) / c.tokens_reference) ** c.batch_exponent
    rows = max(1, 2 ** round(math.log2(ideal / seq_len))) if ideal > seq_len else 1
    while rows > 1 and tokens / (rows * seq_len) < c.least_steps and rows * seq_len > c.least_batch:
        rows //= 2
    return rows * seq_len


def _memory(config: ModelConfig, machine: Machine, batch: int, c: Constants) -> dict[str, int]:
    """Bytes by part, of the micro-batch that the trainer takes."""
    from gptwright.train.stepper import MICRO_TOKENS_CPU, MICRO_TOKENS_GPU

    micro = max(config.seq_len, min(batch, MICRO_TOKENS_CPU if machine.device == "cpu" else MICRO_TOKENS_GPU))
    mixed = machine.dtype == "bfloat16"
    n = cost.params(config)
    # On a CPU each core works on rows of its own, with activations and gradients of its own.
    workers = max(1, min(machine.cores, batch // config.seq_len)) if machine.device == "cpu" else 1
    activations = workers * cost.activation_bytes(config, micro, 2 if mixed else 4)
    whole = cost.train_memory_bytes(config, micro, mixed=mixed, workers=workers)
    weights = 4 * n + (2 * n if mixed else 0)
    return {
        "weights": weights,
        "gradients and optimizer": whole - weights - activations,
        "activations": activations,
        "runtime": c.runtime_bytes,
    }


def _bytes_per_token(vocab: int, c: Constants) -> float:
    if vocab <= c.bytes_per_token[0][0]:
        return c.bytes_per_token[0][1]
    for (low, a), (high, b) in zip(c.bytes_per_token, c.bytes_per_token[1:], strict=False):
        if vocab <= high:
            return a + (b - a) * math.log(vocab / low) / math.log(high / low)
    return c.bytes_per_token[-1][1]
