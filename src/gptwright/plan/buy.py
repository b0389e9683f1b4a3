"""Build, adapt or buy: from scratch, an open model fine-tuned, hosted models, side by side in money, time, privacy, and what is known of quality.

Quality is the honest gap of such a table: a law forecasts how well a new model predicts the user's own text, nothing forecasts how useful
any of the three is for the user's questions. Each row therefore says what is known, and which command would measure it.
"""

import textwrap
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from gptwright.core.progress import clock, short
from gptwright.model import cost
from gptwright.model.presets import named
from gptwright.plan import serving
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.devices import Device, devices
from gptwright.plan.host import Here
from gptwright.plan.hosted import Demand, HostedRow, Snapshot
from gptwright.plan.probe import Machine
from gptwright.plan.propose import Plan

_SMALL, _LARGE = "smollm2-135m", "qwen3-4b"
_HOURS = 730.0  # of a month
_BYTES_PER_TOKEN = 4.2  # of an open model's vocabulary of 50,000 and more, on English
_WIDTH = 100


@dataclass(frozen=True)
class Arm:
    """A way to get answers.

    Args:
        kind: scratch, adapt or buy.
        name: of it.
        one_off_usd: to make it; None: on a machine whose price is not known.
        monthly_usd: to run it; None likewise.
        ready_s: until it can answer, without anyone's own hours.
        a_day: requests that it carries; None: as many as asked for.
        carries: whether that is enough.
        privacy: what leaves the house.
        quality: what is known of it, and what is not.
        measure: the command that would tell.
    """

    kind: str
    name: str
    one_off_usd: float | None
    monthly_usd: float | None
    ready_s: float
    a_day: float | None
    carries: bool
    privacy: str
    quality: str
    measure: str

    def total_usd(self, months: float) -> float | None:
        """For the whole time."""
        if self.one_off_usd is None and self.monthly_usd is None:
            return None
        return (self.one_off_usd or 0.0) + months * (self.monthly_usd or 0.0)


@dataclass(frozen=True)
class Verdict:
    """What is advised: ``say`` is buy, adapt or build."""

    say: str
    why: str
    unless: str


@dataclass(frozen=True)
class Comparison:
    """All arms, the advice, and what was assumed."""

    demand: Demand
    arms: tuple[Arm, ...]
    verdict: Verdict
    prices: Snapshot
    assumed: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return {
            "demand": asdict(self.demand),
            "arms": [{**asdict(arm), "total_usd": arm.total_usd(self.demand.months)} for arm in self.arms],
            "verdict": asdict(self.verdict),
            "prices": {**asdict(self.prices), "newest": self.prices.newest and self.prices.newest.isoformat()},
            "assumed": list(self.assumed),
        }


def compare(
    plan: Plan,
    machine: Machine,
    corpus_bytes: int,
    demand: Demand,
    hosted: Sequence[HostedRow],
    prices: Snapshot,
    usd_per_hour: float | None = None,
    constants: Constants = CONSTANTS,
) -> Comparison:
    """Set the arms side by side.

    Args:
        plan: from scratch.
        machine: this one, which serves what is made, and adapts the small open model.
        corpus_bytes: of the user's text.
        demand: what is to be answered.
        hosted: prices of hosted models.
        prices: where those are from.
        usd_per_hour: price of this machine; None: it is there already and counts nothing.
        constants: the planner's choices.
    """
    load = serving.Load(demand.requests_per_day, demand.tokens_in, demand.tokens_out)
    tokens = corpus_bytes / _BYTES_PER_TOKEN
    here_month = None if usd_per_hour is None else _HOURS * usd_per_hour
    arms = [
        _scratch(plan, machine, load, here_month),
        _adapt_here(machine, tokens, load, usd_per_hour, here_month, constants),
        _adapt_rented(tokens, load, constants),
        *(_buy(row) for row in hosted),
    ]
    assumed = [
        f"{demand.requests_per_day:g} questions a day of {demand.tokens_in} tokens, answers of {demand.tokens_out}, for {demand.months:g} months;"
        f" {load.peak_factor:g} times as many in the busiest minutes",
        "this machine is there already and costs nothing more; --price says otherwise"
        if usd_per_hour is None
        else f"this machine costs {usd_per_hour:g} USD an hour, day and night",
        "rented cards run day and night; your own hours count nothing",
        f"open models read your text once, at {_BYTES_PER_TOKEN} bytes a token, here for {clock(constants.adapt_s)} at most",
    ]
    return Comparison(demand, tuple(arms), _verdict(arms, plan, demand), prices, tuple(assumed))


def as_text(found: Comparison) -> str:
    """For a terminal."""
    d = found.demand
    lines = [f"Build, adapt or buy, for {d.requests_per_day:g} questions a day over {d.months:g} months:"]
    for arm in found.arms:
        total = arm.total_usd(d.months)
        money = "no extra cost on this machine" if total is None else f"{_money(total)} in all"
        if total is not None and arm.one_off_usd and arm.monthly_usd:
            money += f" ({_money(arm.one_off_usd)} once, {_money(arm.monthly_usd)} a month)"
        lines += _wrapped(f"{arm.name}: {money}; ready in {clock(arm.ready_s)}", f"  {_HEADS[arm.kind]:<8} ")
        if arm.a_day is not None:
            carries = "enough" if arm.carries else "NOT enough"
            lines.append(f"           carries {short(arm.a_day)} questions a day, {carries}")
        if arm.kind != "buy":
            lines += _wrapped(f"{arm.privacy}. {arm.quality}. Measure: {arm.measure}")
    if bought := next((arm for arm in found.arms if arm.kind == "buy"), None):
        lines += _wrapped(f"buying: {bought.privacy}. {bought.quality}. Measure: {bought.measure}")
    lines.append(f"  advice   {found.verdict.say}")
    lines += _wrapped(f"{found.verdict.why}. {found.verdict.unless}")
    lines += _wrapped(f"Assumed: {'; '.join(found.assumed)}. Prices of hosted models: {found.prices}")
    return "\n".join(lines)


_HEADS = {"scratch": "build", "adapt": "adapt", "buy": "buy"}


def _scratch(plan: Plan, machine: Machine, load: serving.Load, here_month: float | None) -> Arm:
    (row,) = serving.sizing(plan.model, [machine], load)
    return Arm(
        kind="scratch",
        name=f"{short(plan.params)} parameters from scratch on {plan.host}",
        one_off_usd=plan.usd,
        monthly_usd=here_month,
        ready_s=plan.seconds,
        a_day=row.requests_per_day,
        carries=row.answers_load,
        privacy="Nothing leaves the house",
        quality=f"Predicts your kind of text at {plan.forecast_note.partition(' (')[0]}; knows nothing but your text and reasons about nothing",
        measure="gptwright evaluate",
    )


def _adapt_here(
    machine: Machine,
    tokens: float,
    load: serving.Load,
    usd_per_hour: float | None,
    here_month: float | None,
    c: Constants,
) -> Arm:
    shape = named(_SMALL, seq_len=512)
    # Frozen matrices need no gradients of their own: two of the three products of each.
    once = c.setup_s + c.lora_share * tokens * Here(machine).token_seconds(shape, 8192)
    seconds = min(once, c.adapt_s)  # the template stops then
    read = "all of your text" if once <= seconds else f"{100 * seconds / once:.0f} % of your text"
    (row,) = serving.sizing(named(_SMALL), [machine], load)
    return Arm(
        kind="adapt",
        name=f"{_SMALL}, LoRA on {read}, on this machine",
        one_off_usd=None if usd_per_hour is None else usd_per_hour * seconds / 3600,
        monthly_usd=here_month,
        ready_s=seconds,
        a_day=row.requests_per_day,
        carries=row.answers_load,
        privacy="Nothing leaves the house",
        quality="Writes fluent English from the start (it was trained on trillions of tokens) and takes on your manner; how many of your facts is not"
        " known beforehand",
        measure="gptwright new NAME --template adapt, then gptwright run: it compares before and after",
    )


def _adapt_rented(tokens: float, load: serving.Load, c: Constants) -> Arm:
    shape = named(_LARGE, seq_len=2048)
    train = devices()["h100"]
    share = c.gpu_share * shape.d_model / (shape.d_model + c.gpu_half_width)
    seconds = 60 + c.lora_share * tokens * cost.flops_per_token(shape, shape.seq_len) / (share * train.flops)
    host, row = _cheapest(load)
    price, hourly = train.price, host.price
    assert price is not None, "the table has a price of it"
    assert hourly is not None, "cards without a price are not offered"
    return Arm(
        kind="adapt",
        name=f"{_LARGE}, LoRA on a rented {train.name}, served from a rented {host.name} (forecast)",
        one_off_usd=price.usd * seconds / 3600,
        monthly_usd=_HOURS * hourly.usd,
        ready_s=seconds,
        a_day=row.requests_per_day,
        carries=row.answers_load,
        privacy="Your text lies on a rented machine while it is used there; nobody else reads the questions",
        quality="Follows instructions and reasons within its size; takes on your manner and some of your facts, how many is not known beforehand",
        measure="gptwright import, gptwright finetune, gptwright evaluate",
    )


def _cheapest(load: serving.Load) -> tuple[Device, serving.ServingRow]:
    """The cheapest priced card that carries the load, or the one that carries most."""
    priced = [device for device in devices().values() if device.price is not None and device.dtype == "bfloat16"]
    rows = list(zip(priced, serving.sizing(_LARGE, [device.name for device in priced], load), strict=True))
    enough = [pair for pair in rows if pair[1].answers_load]
    if enough:
        return min(enough, key=lambda pair: pair[1].usd_per_month or 0.0)
    return max(rows, key=lambda pair: pair[1].requests_per_day)


def _buy(row: HostedRow) -> Arm:
    return Arm(
        kind="buy",
        name=f"{row.provider}:{row.model} ({row.grade})",
        one_off_usd=0.0,
        monthly_usd=row.usd_per_month,
        ready_s=600.0,
        a_day=None,
        carries=True,
        privacy="Every question, and whatever of your text is sent with it, goes to the provider; models are withdrawn when it decides so",
        quality="Far ahead of anything that one machine can train, in general; on your questions not known until tried",
        measure="gptwright evaluate PROVIDER:MODEL on your own questions",
    )


def _verdict(arms: Sequence[Arm], plan: Plan, demand: Demand) -> Verdict:
    bought = [arm for arm in arms if arm.kind == "buy"]
    adapted = next(arm for arm in arms if arm.kind == "adapt")
    private = "If the questions or the text may not leave the house, adapt an open model; build from scratch to learn, for full say over every text"
    private += " in it, or where a small model that only continues your kind of text is all you need"
    hopeless = any("fine-tune an open model" in warning for warning in plan.warnings)
    if not bought:
        return Verdict("adapt", "no price of a hosted model is known here", private)
    cheapest = min(bought, key=lambda arm: arm.monthly_usd or 0.0)
    strong = min(
        (arm for arm in bought if "(strong)" in arm.name), key=lambda arm: arm.monthly_usd or 0.0, default=cheapest
    )
    own = adapted.total_usd(demand.months) if adapted.carries else None
    price = cheapest.total_usd(demand.months) or 0.0
    much = (strong.total_usd(demand.months) or 0.0) > _MUCH_USD * demand.months
    text = (
        "your text is too little for a model from scratch"
        if hopeless
        else "a model from scratch of this size answers no general questions"
    )
    if adapted.carries and (own is None or own < price) and much:
        why = f"at this demand a strong hosted model costs {_money(strong.monthly_usd or 0)} a month, and an open model on this machine carries it"
        return Verdict("adapt", why, "If its answers are too weak on your own questions, buy. " + private)
    why = f"{cheapest.name} answers all of it for {_money(cheapest.monthly_usd or 0)} a month, a strong model for"
    why += f" {_money(strong.monthly_usd or 0)}; {text}"
    return Verdict("buy", why, private)


_MUCH_USD = 100.0  # a month: from here on it is worth someone's while to try without


def _money(usd: float) -> str:
    return f"{usd:,.0f} USD" if usd >= 100 else f"{usd:,.2f} USD"


def _wrapped(text: str, head: str = " " * 11) -> list[str]:
    return textwrap.wrap(text, _WIDTH, initial_indent=head, subsequent_indent=" " * 11)
