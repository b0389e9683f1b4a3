"""What each key may use: token buckets for requests and tokens a minute, answers at once, and a budget for the day.

A bucket holds a minute's worth and refills evenly. Tokens are reserved when an answer begins (its prompt and the most it may become)
and settled when it is over, so that many long answers at once cannot all slip in before the first is counted.

Everything here runs on the event loop, so nothing needs a lock.
"""

import datetime
import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from gptwright.serve.errors import ApiError


@dataclass(frozen=True)
class Limits:
    """Limits of one key; None is no limit.

    Attributes:
        requests_per_minute: requests to the API.
        tokens_per_minute: tokens of prompts and answers.
        max_concurrent: answers at once.
        tokens_per_day: tokens from midnight to midnight, UTC.
    """

    requests_per_minute: int | None = None
    tokens_per_minute: int | None = None
    max_concurrent: int | None = None
    tokens_per_day: int | None = None

    def or_else(self, other: "Limits") -> "Limits":
        """These limits, and the other's where there is none."""
        names = ("requests_per_minute", "tokens_per_minute", "max_concurrent", "tokens_per_day")
        return Limits(*(getattr(self, n) if getattr(self, n) is not None else getattr(other, n) for n in names))


class Bucket:
    """A minute's worth of something, refilled evenly.

    Args:
        capacity: how much fits.
        clock: seconds, never going back.
    """

    def __init__(self, capacity: int, clock: Callable[[], float] = time.monotonic) -> None:
        self.capacity, self._clock = capacity, clock
        self._level, self._at = float(capacity), clock()

    def _refill(self) -> None:
        now = self._clock()
        self._level = min(self.capacity, self._level + (now - self._at) * self.capacity / 60)
        self._at = now

    def take(self, amount: float) -> float:
        """Take out, or say how long to wait for it. Seconds; 0: it was taken."""
        self._refill()
        amount = min(amount, self.capacity)  # what never fits is let through when nothing else was used
        if self._level + 1e-9 >= amount:
            self._level -= amount
            return 0.0
        return (amount - self._level) * 60 / self.capacity

    def give_back(self, amount: float) -> None:
        """Correct an estimate; a negative amount is taken out, below zero if need be."""
        self._refill()
        self._level = min(self.capacity, self._level + amount)

    @property
    def remaining(self) -> int:
        """What may be taken now."""
        self._refill()
        return max(0, math.floor(self._level + 1e-9))

    @property
    def reset_s(self) -> float:
        """Until it is full. Seconds."""
        self._refill()
        return (self.capacity - self._level) * 60 / self.capacity


@dataclass
class Account:
    """What one key has used.

    Attributes:
        running: answers that are generated now.
        spent: tokens of ``day``.
    """

    limits: Limits
    requests: Bucket | None = field(init=False)
    tokens: Bucket | None = field(init=False)
    running: int = 0
    spent: int = 0
    day: datetime.date | None = None

    def __post_init__(self) -> None:
        self.set_limits(self.limits)

    def set_limits(self, limits: Limits) -> None:
        """Limits of a key may be changed while the server runs."""
        self.limits = limits
        self.requests = Bucket(limits.requests_per_minute) if limits.requests_per_minute else None
        self.tokens = Bucket(limits.tokens_per_minute) if limits.tokens_per_minute else None

    def take_request(self) -> None:
        """Count a request.

        Raises:
            ApiError: 429, too many.
        """
        if self.requests is not None and (wait := self.requests.take(1)):
            raise _refused(
                f"{self.limits.requests_per_minute} requests a minute are allowed", "rate_limit_exceeded", wait
            )

    def begin(self, estimate: int) -> "Reservation":
        """Begin an answer.

        Args:
            estimate: tokens of the prompt and the most that may be generated.

        Raises:
            ApiError: 429, too many answers at once, too many tokens, or the day's budget is spent.
        """
        limits = self.limits
        if limits.max_concurrent is not None and self.running >= limits.max_concurrent:
            raise _refused(
                f"{limits.max_concurrent} answers at once are allowed for this key", "concurrency_limit_exceeded", 1
            )
        if limits.tokens_per_day is not None and self.spent >= limits.tokens_per_day:
            raise ApiError(
                429,
                f"The budget of {limits.tokens_per_day} tokens a day is spent; it begins anew at midnight, UTC.",
                code="insufficient_quota",
                headers={"Retry-After": str(_until_midnight())},
            )
        if self.tokens is not None and (wait := self.tokens.take(estimate)):
            raise _refused(f"{limits.tokens_per_minute} tokens a minute are allowed", "rate_limit_exceeded", wait)
        self.running += 1
        return Reservation(self, estimate)

    def headers(self) -> dict[str, str]:
        """OpenAI's six headers, those for which there is a limit."""
        found = {}
        for name, bucket in (("requests", self.requests), ("tokens", self.tokens)):
            if bucket is not None:
                found[f"x-ratelimit-limit-{name}"] = str(bucket.capacity)
                found[f"x-ratelimit-remaining-{name}"] = str(bucket.remaining)
                found[f"x-ratelimit-reset-{name}"] = duration(bucket.reset_s)
        return found


@dataclass
class Reservation:
    """An answer that counts against an account until it is settled."""

    account: Account
    estimate: int
    settled: bool = False

    def settle(self, used: int) -> None:
        """The answer is over; a second time does nothing.

        Args:
            used: tokens of its prompt and of what was generated.
        """
        if self.settled:
            return
        self.settled = True
        self.account.running -= 1
        self.account.spent += used
        if self.account.tokens is not None:
            self.account.tokens.give_back(min(self.estimate, self.account.tokens.capacity) - used)


def duration(seconds: float) -> str:
    """Seconds as OpenAI writes them in its headers: ``120ms``, ``6.5s``, ``2m3s``."""
    if seconds < 1:
        return f"{math.ceil(seconds * 1000)}ms"
    if seconds < 60:
        return f"{seconds:.3g}s"
    minutes, rest = divmod(math.ceil(seconds), 60)
    return f"{minutes}m{rest}s"


def _refused(what: str, code: str, wait_s: float) -> ApiError:
    return ApiError(
        429,
        f"{what}. Try again in {duration(wait_s)}.",
        code=code,
        headers={"Retry-After": str(max(1, math.ceil(wait_s)))},
    )


def _until_midnight() -> int:
    now = datetime.datetime.now(datetime.UTC)
    tomorrow = datetime.datetime.combine(now.date() + datetime.timedelta(days=1), datetime.time(), datetime.UTC)
    return max(1, math.ceil((tomorrow - now).total_seconds()))
