"""What hosted models would cost for a demand, from the price list that the package genai-prices carries. No network is used."""

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, date, datetime
from typing import Any

from gptwright.core.errors import UserError, require

# A cheap one, a middle one and a strong one of several providers, as they were sold in autumn 2026. Any other: price_of(provider, model).
SHOWN = (
    ("openai", "gpt-5-nano", "small"),
    ("google", "gemini-2.5-flash-lite", "small"),
    ("groq", "openai/gpt-oss-20b", "small"),
    ("openai", "gpt-5-mini", "middle"),
    ("anthropic", "claude-haiku-4-5", "middle"),
    ("mistral", "mistral-large-latest", "middle"),
    ("anthropic", "claude-sonnet-4-6", "strong"),
    ("openai", "gpt-5.2", "strong"),
)
_DAYS = 365.25 / 12  # of a month


@dataclass(frozen=True)
class Demand:
    """What is to be answered, and for how long.

    Args:
        requests_per_day: on average.
        tokens_in: of a question with its instructions and documents.
        tokens_out: of an answer.
        months: that it is to be used.
    """

    requests_per_day: float = 200.0
    tokens_in: int = 500
    tokens_out: int = 200
    months: float = 12.0

    @classmethod
    def of(cls, requests_per_day: float, tokens_in: int, tokens_out: int, months: float) -> "Demand":
        """Checked.

        Raises:
            UserError: a number is not above zero.
        """
        made = cls(requests_per_day, tokens_in, tokens_out, months)
        for name, value in asdict(made).items():
            if not (math.isfinite(value) and value > 0):
                flag = "--" + name.replace("_", "-")
                raise UserError(f"{flag} {value} is not above zero", fix=f"Give a number above zero: {flag} 100")
        return made

    @property
    def requests_per_month(self) -> float:
        return self.requests_per_day * _DAYS


@dataclass(frozen=True)
class HostedRow:
    """A hosted model for a demand. Prices in US dollars, of a million tokens and of a month."""

    provider: str
    model: str
    grade: str
    usd_in: float
    usd_out: float
    usd_per_month: float
    context: int | None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)


@dataclass(frozen=True)
class Snapshot:
    """Where the prices are from.

    Args:
        version: of the package genai-prices.
        newest: the latest day in it from which a price counts; the list is at least as new.
        models: how many it knows.
    """

    version: str
    newest: date | None
    models: int

    def __str__(self) -> str:
        day = f", not older than {self.newest}" if self.newest else ""
        return f"genai-prices {self.version}{day}"


def hosted_rows(
    demand: Demand, shown: Sequence[tuple[str, str, str]] = SHOWN, at: datetime | None = None
) -> list[HostedRow]:
    """Costs of hosted models, cheapest first; those that the list does not know are left out.

    Args:
        demand: see ``Demand``.
        shown: provider, model and grade of each.
        at: whose prices count; None: now.

    Raises:
        UserError: genai-prices is not installed.
    """
    found = (_row(provider, model, grade, demand, at) for provider, model, grade in shown)
    return sorted((row for row in found if row is not None), key=lambda row: row.usd_per_month)


def price_of(provider: str, model: str, demand: Demand, at: datetime | None = None) -> HostedRow:
    """Cost of one hosted model.

    Raises:
        UserError: the list does not know it; genai-prices is not installed.
    """
    row = _row(provider, model, "named", demand, at)
    if row is None:
        raise UserError(f"no price of {provider}:{model} in {snapshot()}", fix="See: genai-prices list")
    return row


def snapshot() -> Snapshot:
    """What list of prices this is."""
    package = require("genai_prices", "prices")
    providers = _providers()
    days = [
        start
        for provider in providers
        for model in provider.models
        for price in (model.prices if isinstance(model.prices, list) else ())
        if isinstance(start := getattr(price.constraint, "start_date", None), date)
    ]
    today = datetime.now(UTC).date()
    newest = max((day for day in days if day <= today), default=None)
    return Snapshot(str(package.__version__), newest, sum(len(provider.models) for provider in providers))


def _providers() -> list[Any]:
    require("genai_prices", "prices")
    # get_snapshot hands out what the package carries; only its UpdatePrices, which is never started here, would fetch.
    module = require("genai_prices.data_snapshot", "prices")
    return list(module.get_snapshot().providers)


def _row(provider: str, model: str, grade: str, demand: Demand, at: datetime | None) -> HostedRow | None:
    house = next((one for one in _providers() if one.id == provider), None)
    found = house.find_model(model) if house is not None else None
    if found is None:
        return None
    price = found.get_prices(at or datetime.now(UTC))
    usd_in, usd_out = _flat(price.input_mtok, demand.tokens_in), _flat(price.output_mtok, demand.tokens_in)
    if usd_in is None or usd_out is None:
        return None
    each = (demand.tokens_in * usd_in + demand.tokens_out * usd_out) / 1e6
    return HostedRow(provider, model, grade, usd_in, usd_out, each * demand.requests_per_month, found.context_window)


def _flat(price: Any, tokens_in: int) -> float | None:
    """A price of a million tokens; of tiers the one that a question of this length falls into."""
    if price is None:
        return None
    if not hasattr(price, "tiers"):
        return float(price)
    reached = [tier.price for tier in price.tiers if tokens_in > tier.start]
    return float(reached[-1] if reached else price.base)
