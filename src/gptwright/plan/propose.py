"""What to build with this machine, this much text and this budget: a size, a schedule, and what they cost.

The choice is one search over a dial of sizes: the largest model that the budget and the text can still feed. Speeds and memory come from a
host (host.py), the loss from the law (law.py), rates from the trainer's dial, and a project's finished runs correct all three.
"""

import functools
import math
import re
from dataclasses import asdict, dataclass
from typing import Any

from gptwright.core.config import parse_duration
from gptwright.core.errors import UserError
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.presets import modern
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.devices import Rented
from gptwright.plan.host import Host, place
from gptwright.plan.law import Forecast, Law, forecast, passes_worth
from gptwright.plan.learnt import Learnt
from gptwright.plan.probe import Machine
from gptwright.train.config import TrainConfig
from gptwright.train.dial import RATES, settings_for


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
class Plan:
    """What to build and what it takes.

    Args:
        model: the shape.
        params: of it.
        batch_tokens: of a step.
        seq_len: context. Tokens.
        steps: of the optimizer.
        tokens: seen in all.
        epochs: passes over the text.
        rates: peak rates and decay, by the names that ``[pretrain]`` has for them.
        tokens_per_s: of training.
        seconds: from the start to the end, on a machine that is left alone.
        seconds_now: the same with what else runs on it at this moment.
        cpu_seconds: of all cores together; None where no core computes.
        flop: of training.
        usd: for the whole run; None without a price.
        memory: bytes at the peak by part; of one card where cards are rented.
        dtype: of the working weights.
        host: where.
        measured: whether the speed was measured there.
        warnings: for a person.
        forecast: expected bits per byte, with an interval.
        learnt_from: finished runs of the project that corrected the forecasts.
    """

    model: ModelConfig
    params: int
    batch_tokens: int
    seq_len: int
    steps: int
    tokens: int
    epochs: float
    rates: dict[str, float]
    tokens_per_s: float
    seconds: float
    seconds_now: float
    cpu_seconds: float | None
    flop: float
    usd: float | None
    memory: dict[str, int]
    dtype: str
    host: str
    measured: bool
    warnings: tuple[str, ...]
    forecast: Forecast
    learnt_from: int

    @property
    def minutes(self) -> float:
        return self.seconds / 60

    @property
    def memory_total(self) -> int:
        """Bytes at the peak."""
        return sum(self.memory.values())

    @property
    def forecast_note(self) -> str:
        """The expected score for a person."""
        f = self.forecast
        note = (
            f"about {f.value:.2f} bits per byte held out ({f.low:.2f} to {f.high:.2f} in nine of ten cases; {f.basis}"
        )
        return note + (f"; {f.beyond:.0f} times beyond the sizes it was fitted on)" if f.beyond >= 1.5 else ")")

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            **asdict(self),
            "model": self.model.model_dump(),
            "minutes": self.minutes,
            "memory_total": self.memory_total,
            "forecast_note": self.forecast_note,
        }


def propose(
    machine: Machine | Rented | Host,
    corpus_bytes: int,
    budget: Budget,
    *,
    bytes_per_token: float | None = None,
    vocab_size: int | None = None,
    seq_len: int = 512,
    shape: ModelConfig | None = None,
    train: TrainConfig | None = None,
    preset: str = "modern",
    usd_per_hour: float | None = None,
    learnt: Learnt | None = None,
    law: Law | None = None,
    constants: Constants = CONSTANTS,
) -> Plan:
    """Choose a model and its schedule.

    Args:
        machine: from ``probe``, rented cards, or a host.
        corpus_bytes: training text. Bytes.
        budget: time, FLOP or money.
        bytes_per_token: of the project's tokenizer, if there is one.
        vocab_size: of that tokenizer (padded).
        seq_len: context. Tokens.
        shape: a model chosen already; then only its schedule and costs are worked out.
        train: settings of training; what was set by hand in them stays.
        preset: whose settings of training are taken where none were set by hand.
        usd_per_hour: price of the machine; None: that of the table, if it is in it.
        learnt: from finished runs.
        law: of the loss; None: the one that comes with the package.
        constants: the planner's choices.

    Raises:
        UserError: there is no text, or a budget in money comes without a price.
    """
    c, host, own = constants, place(machine), learnt or Learnt()
    if corpus_bytes <= 0:
        raise UserError("there is no training text yet", fix="Add some: gptwright data add PATH")
    price = usd_per_hour if usd_per_hour is not None else host.usd_per_hour
    if price is not None and not (math.isfinite(price) and price >= 0):
        raise UserError(f"a price of {price} an hour is none", fix="Give it in US dollars: --price 2.50")
    if budget.usd is not None:
        if not price:
            raise UserError("a budget in money needs the price of the machine", fix="Give it: --price USD_PER_HOUR")
        budget = Budget(seconds=budget.usd / price * 3600)
    settings = train or TrainConfig.model_validate({"max_steps": 1})
    if shape is not None:
        vocabs = [shape.vocab_size]
    elif vocab_size is not None:
        vocabs = [vocab_size]
    else:
        largest = next(size for limit, size in c.vocab if corpus_bytes < limit)
        vocabs = [size for _, size in reversed(c.vocab) if size <= largest]
    search = _Search(host, budget, settings, preset, own, law or Law.load(), c)
    for vocab in vocabs:  # largest first
        text = corpus_bytes / (bytes_per_token or _bytes_per_token(vocab, c))
        best = search.option(shape, text) if shape else search.largest_fed(vocab, seq_len, text)
        if cost.embedding_params(best.config) <= c.embedding_share * best.params:
            break
    return _plan(best, search, corpus_bytes, text, price)


@dataclass(frozen=True)
class _Option:
    config: ModelConfig
    params: int
    settings: TrainConfig
    batch: int
    affordable: float  # tokens that the budget pays for
    tokens: float  # of these, what the text can feed
    token_s: float
    memory: dict[str, int]
    passes: float  # over the text that are worth making

    @property
    def memory_total(self) -> int:
        return sum(self.memory.values())

    @property
    def ratio(self) -> float:
        return self.tokens / self.params


@dataclass(frozen=True)
class _Search:
    host: Host
    budget: Budget
    settings: TrainConfig
    preset: str
    own: Learnt
    law: Law
    c: Constants

    def option(self, config: ModelConfig, text: float) -> _Option:
        """A size with its schedule and costs, in this budget and with so many tokens of text."""
        c, n = self.c, cost.params(config)
        # No more passes than the law finds worth making, and never more than some: a larger model has a small text by heart sooner.
        passes = min(c.max_epochs, 1 + c.worth_passes * passes_worth(n, text, self.law.kappa))
        fed = passes * text
        settings = self.settings_for(config, min(fed, c.tokens_reference), text)
        # The batch depends on the tokens and the tokens, through the update's cost, on the batch: the second round has settled.
        for _ in range(2):
            batch = int(settings.batch_tokens)
            token_s = self.host.token_seconds(config, batch) / self.own.speed
            if self.budget.seconds is not None:
                left = self.budget.seconds * (1 - c.reserve) - c.setup_s - self.evals_s(token_s)
                affordable = max(0.0, left) / token_s
            else:
                affordable = (self.budget.flop or 0.0) / cost.flops_per_token(config, config.seq_len)
            settings = self.settings_for(config, min(fed, affordable), text)
        batch = int(settings.batch_tokens)
        memory = self.host.memory(config, batch)
        memory["runtime"] = max(0, memory["runtime"] + int(self.own.memory))
        tokens = min(fed, affordable)
        return _Option(config, n, settings, batch, affordable, tokens, token_s, memory, passes)

    def evals_s(self, token_s: float) -> float:
        """Seconds of the held-out measurements during a run: a forward pass is a third of a step."""
        return self.c.evals * self.c.heldout_tokens * token_s / 3

    def largest_fed(self, vocab: int, seq_len: int, text: float) -> _Option:
        """The largest model with enough tokens for each parameter that the memory holds: both fall as models grow, so halving finds it."""
        low, high = 0, self.c.sizes - 1
        best = self.option(_shape(0, vocab, seq_len, self.c.size_step), text)
        while low < high:
            middle = (low + high + 1) // 2
            tried = self.option(_shape(middle, vocab, seq_len, self.c.size_step), text)
            if tried.ratio >= self.c.wanted_ratio(tried.tokens) and tried.memory_total <= self.host.room:
                low, best = middle, tried
            else:
                high = middle - 1
        return best

    def settings_for(self, config: ModelConfig, tokens: float, text: float) -> TrainConfig:
        """Batch, rates and decay for so many tokens of a text: the dial's, in whole rows; the batch at least what keeps every card at work."""
        given, tokens = self.settings, max(1.0, tokens)
        batch = int(settings_for(config, given, self.preset, tokens=tokens).batch_tokens)
        if "batch_tokens" not in given.model_fields_set:
            batch = max(batch, self.host.least_batch)
        chosen = {name: getattr(given, name) for name in given.model_fields_set}
        chosen["batch_tokens"] = max(1, batch // config.seq_len) * config.seq_len
        return settings_for(config, TrainConfig.model_validate(chosen), self.preset, tokens=tokens, unique=text)


@functools.lru_cache(maxsize=512)
def _shape(notch: int, vocab: int, seq_len: int, step: float) -> ModelConfig:
    """The dial: each notch is a model larger by the step, with the depth and width that suit its size."""
    smallest = cost.params(modern(depth=1, vocab_size=vocab, seq_len=seq_len))
    return modern(params=round(smallest * step**notch), vocab_size=vocab, seq_len=seq_len)


def _plan(option: _Option, search: _Search, corpus_bytes: int, text: float, price: float | None) -> Plan:
    config, c, host = option.config, search.c, search.host
    steps = max(1, int(option.tokens / option.batch))
    tokens = steps * option.batch
    work_s = tokens * option.token_s + search.evals_s(option.token_s)
    seconds = work_s / (1 - c.reserve) + c.setup_s
    slowdown = host.slowdown
    cpu = host.token_cpu_seconds(config, option.batch)
    rates = {name: float(getattr(option.settings, name)) for name in RATES}
    return Plan(
        model=config,
        params=option.params,
        batch_tokens=option.batch,
        seq_len=config.seq_len,
        steps=steps,
        tokens=tokens,
        epochs=tokens / text,
        rates={**rates, "weight_decay": search.settings_for(config, tokens, text).weight_decay},
        tokens_per_s=1 / option.token_s,
        seconds=seconds,
        seconds_now=slowdown * seconds,
        cpu_seconds=None if cpu is None else c.setup_cpu_s + (tokens + c.evals * c.heldout_tokens / 3) * cpu,
        flop=float(tokens) * cost.flops_per_token(config, config.seq_len),
        usd=seconds / 3600 * price if price else None,
        memory=option.memory,
        dtype=host.dtype,
        host=host.title,
        measured=host.measured,
        warnings=tuple(_warnings(option, search, corpus_bytes, text, steps, slowdown)),
        forecast=forecast(search.law, option.params, tokens, text, search.own.loss(search.law)),
        learnt_from=search.own.runs,
    )


def _warnings(
    option: _Option, search: _Search, corpus_bytes: int, text: float, steps: int, slowdown: float
) -> list[str]:
    c, host, budget = search.c, search.host, search.budget
    said = []
    size = f"{corpus_bytes / 1e6:.1f} MB" if corpus_bytes < 1e9 else f"{corpus_bytes / 1e9:.1f} GB"
    passes = option.affordable / text
    if passes > c.hopeless_epochs:
        said.append(
            f"your {size} would be read {passes:,.0f} times in this budget, which teaches nothing new after {option.passes:.0f}:"
            " fine-tune an open model instead, or add text"
        )
    elif passes > 2 * option.passes:
        said.append(
            f"the budget would read your {size} {passes:.0f} times; the plan stops at {option.passes:.0f}. More text would make better use of it"
        )
    if steps < c.too_few_steps:
        scarce = "the budget" if option.affordable <= option.passes * text else "the text"
        said.append(f"only {steps} steps: {scarce} is too small to learn much from")
    if option.ratio < c.least_tokens_per_param and steps >= c.too_few_steps:
        said.append(
            f"only {option.ratio:.1f} tokens for each parameter: the model is larger than the budget or the text can feed"
        )
    if option.memory_total > host.room:
        need, have = option.memory_total / 1e9, host.room / 1e9
        mend = "close other programs, or take a smaller model" if host.measured else "take larger or more cards"
        said.append(f"needs {need:.1f} GB of memory, {have:.1f} GB may be used: {mend}")
    disk = c.checkpoints * 12 * option.params
    if disk > host.disk:
        said.append(f"checkpoints need {disk / 1e9:.1f} GB of disk, {host.disk / 1e9:.1f} GB are free")
    if budget.seconds is not None and budget.seconds < 2 * c.setup_s:
        said.append(f"about {c.setup_s:.0f} s of the time go into starting up")
    if slowdown > c.busy:
        said.append(
            f"other programs use this machine: as it is now, steps take {slowdown:.1f} times as long as when it is left alone"
        )
    return said


def _bytes_per_token(vocab: int, c: Constants) -> float:
    if vocab <= c.bytes_per_token[0][0]:
        return c.bytes_per_token[0][1]
    for (low, a), (high, b) in zip(c.bytes_per_token, c.bytes_per_token[1:], strict=False):
        if vocab <= high:
            return a + (b - a) * math.log(vocab / low) / math.log(high / low)
    return c.bytes_per_token[-1][1]
