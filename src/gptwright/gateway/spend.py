"""What hosted models cost, and the limits of a day: counted from the usage rows of the control store, priced by genai-prices.

Before a request is sent, the most that it may cost is set aside; what it did cost is settled when it is over. So a limit is kept also
by many requests at once. Several servers on one database see each other's spending with a delay of ``REREAD_S``.
Prices are those of the list that is installed with the package; nothing is fetched.
"""

import datetime
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from gptwright.core.control import ControlStore, Usage, utc_now
from gptwright.core.errors import require
from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.faults import UpstreamError

REREAD_S = 15.0
_MTOK = 1e6


@dataclass(frozen=True)
class Rates:
    """US dollars of a million tokens."""

    input: float
    output: float

    def usd(self, prompt_tokens: int, completion_tokens: int) -> float:
        """What so many tokens cost."""
        return (prompt_tokens * self.input + completion_tokens * self.output) / _MTOK


def rates(config: ProviderConfig, model: str, prompt_tokens: int = 1000) -> Rates | None:
    """The price of a model at a provider, or None: it is not known.

    Args:
        config: the provider's section; its own prices come first.
        model: the provider's name for the model.
        prompt_tokens: of a request; long ones are dearer at some vendors.

    Raises:
        UserError: genai-prices is not installed.
    """
    own = config.prices
    # An upstream answers with a dated name of the model that was asked for.
    begins = max((name for name in own if name != "*" and model.startswith(name)), key=len, default="*")
    if begins in own:
        return Rates(own[begins].input, own[begins].output)
    package: Any = require("genai_prices", "prices")
    tokens = max(1, prompt_tokens)
    try:
        usage = package.Usage(input_tokens=tokens, output_tokens=1000)
        price = package.calc_price(usage, model.removeprefix("models/"), provider_api_url=config.base_url)
    except LookupError:
        return None
    return Rates(float(price.input_price) / tokens * _MTOK, float(price.output_price) / 1000 * _MTOK)


class Spend:
    """What was spent today, of each provider and in all.

    Args:
        known: the ``[providers]`` sections.
        control: where usage is kept; without it the count begins with this process.
        usd_per_day: most for all providers together.
        writes: whether ``settle`` writes a usage row itself; the server writes its own.
    """

    def __init__(
        self,
        known: Mapping[str, ProviderConfig],
        control: ControlStore | None = None,
        usd_per_day: float | None = None,
        writes: bool = False,
    ) -> None:
        self._known, self._control, self._all, self._writes = dict(known), control, usd_per_day, writes
        self._spent: dict[str, float] = {}
        self._held: dict[str, float] = {}
        self._day: datetime.date | None = None
        self._read_at = -REREAD_S
        self._lock = threading.Lock()

    def limited(self, provider: str) -> bool:
        """Whether anything has to be counted for it."""
        return self._all is not None or self._known[provider].usd_per_day is not None

    def begin(self, provider: str, model: str, prompt_tokens: int, most: int) -> "Charge":
        """Set aside what a request may cost at most. Reads the store now and then, so not for an event loop.

        Args:
            provider: its name.
            model: its own name for the model.
            prompt_tokens: of the request, estimated.
            most: longest answer. Tokens.

        Raises:
            UpstreamError: 429, it could exceed the day's limit; 402, its price is not known.
        """
        config = self._known[provider]
        if not self.limited(provider):
            return Charge(self, provider, Rates(0, 0), 0.0)
        found = rates(config, model, prompt_tokens)
        if found is None and config.is_local and config.usd_per_day is None:
            found = Rates(0, 0)  # this machine's own servers cost nothing by the token
        if found is None:
            raise UpstreamError(
                f"spending is limited, and the price of {model} is not known",
                provider=provider,
                status=402,
                code="price_unknown",
                fix=f'Add [providers.{provider}.prices."{model}"] with input and output',
            )
        amount = found.usd(prompt_tokens, most)
        with self._lock:
            self._reread()
            self._check(provider, config.usd_per_day, self._of(provider), amount)
            self._check("*", self._all, sum(map(self._of, self._known)), amount, provider)
            self._held[provider] = self._held.get(provider, 0.0) + amount
        return Charge(self, provider, found, amount)

    def spent(self, provider: str) -> float:
        """What was spent there today. US dollars."""
        with self._lock:
            self._reread()
            return self._spent.get(provider, 0.0)

    def _of(self, provider: str) -> float:
        return self._spent.get(provider, 0.0) + self._held.get(provider, 0.0)

    def _check(self, whose: str, limit: float | None, used: float, amount: float, provider: str | None = None) -> None:
        if limit is None or used + amount <= limit * (1 + 1e-9):
            return
        left = max(0.0, limit - used)
        of = f"[providers.{whose}] usd_per_day" if provider is None else "[gateway] usd_per_day"
        raise UpstreamError(
            f"{of}: {left:.4f} of {limit:g} US dollars a day are left, and this request could cost {amount:.4f}",
            provider=provider or whose,
            status=429,
            code="spending_limit_reached",
            fix="Ask for fewer tokens, or wait for midnight, UTC",
            retry_after_s=_until_midnight(),
        )

    def _reread(self) -> None:
        """A new day begins at nothing; what the store knows, also from other servers, counts when it is more."""
        today = utc_now().date()
        if today != self._day:
            self._day, self._spent, self._read_at = today, {}, time.monotonic() - REREAD_S
        if self._control is None or time.monotonic() - self._read_at < REREAD_S:
            return
        self._read_at = time.monotonic()
        for provider, usd in _stored(self._control, self._known, today).items():
            self._spent[provider] = max(usd, self._spent.get(provider, 0.0))

    def settle(self, charge: "Charge", model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """A request is over."""
        with self._lock:
            held = self._held.get(charge.provider, 0.0) - charge.amount
            self._held[charge.provider] = max(0.0, held)
            usd = charge.rates.usd(prompt_tokens, completion_tokens)
            self._spent[charge.provider] = self._spent.get(charge.provider, 0.0) + usd
        if self._writes and self._control is not None and prompt_tokens + completion_tokens:
            with self._control.session() as session:
                session.add(
                    Usage(
                        key_id=None,
                        model=f"{charge.provider}:{model}",
                        prompt_tokens=prompt_tokens,
                        completion_tokens=completion_tokens,
                        end_user=None,
                    )
                )


@dataclass
class Charge:
    """Money that is set aside for one request."""

    spend: Spend
    provider: str
    rates: Rates
    amount: float
    settled: bool = False

    def settle(self, model: str, prompt_tokens: int, completion_tokens: int) -> None:
        """What it came to; a second time does nothing."""
        if not self.settled:
            self.settled = True
            self.spend.settle(self, model, prompt_tokens, completion_tokens)


def _stored(control: ControlStore, known: Mapping[str, ProviderConfig], day: datetime.date) -> dict[str, float]:
    """What the usage rows of a day cost, by provider. Long prompts are priced as the longest of their model's: never too little."""
    midnight = datetime.datetime.combine(day, datetime.time(), datetime.UTC)
    sums = (sa.func.sum(Usage.prompt_tokens), sa.func.sum(Usage.completion_tokens), sa.func.max(Usage.prompt_tokens))
    query = sa.select(Usage.model, *sums).where(Usage.at >= midnight, Usage.model.contains(":")).group_by(Usage.model)
    spent: dict[str, float] = {}
    with control.session() as session:
        rows = session.execute(query).all()
    for full, prompt, completion, longest in rows:
        provider, _, model = full.partition(":")
        config = known.get(provider)
        found = rates(config, model, longest) if config is not None else None
        if found is not None:
            spent[provider] = spent.get(provider, 0.0) + found.usd(int(prompt), int(completion))
    return spent


def _until_midnight() -> float:
    now = utc_now()
    tomorrow = datetime.datetime.combine(now.date() + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
    return (tomorrow - now).total_seconds()
