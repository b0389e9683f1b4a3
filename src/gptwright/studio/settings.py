"""How answers are made: the system prompt and the sampling controls of a conversation. Values that a stranger kept are clamped."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any

MOST_SYSTEM = 20_000
"""Longest system prompt. Characters."""


@dataclass(frozen=True)
class Control:
    """A slider.

    Attributes:
        field: of ``Settings``.
        name: as a person reads it.
        low: least value.
        high: greatest value.
        step: between two values.
        help: one line.
        whole: whether values are whole numbers.
        hosted: whether models of providers take it.
    """

    field: str
    name: str
    low: float
    high: float
    step: float
    help: str
    whole: bool = False
    hosted: bool = False

    def clamp(self, value: Any) -> float:
        """A value within the limits.

        Raises:
            ValueError, TypeError: it is no number.
        """
        number = float(value)
        if number != number:
            raise ValueError("not a number")
        number = min(max(number, self.low), self.high)
        return int(number) if self.whole else number


CONTROLS = (
    Control("temperature", "Temperature", 0, 2, 0.05, "Low is predictable, high is surprising.", hosted=True),
    Control("max_tokens", "Longest answer", 16, 4096, 16, "In tokens; a word is one or two.", whole=True, hosted=True),
    Control("top_p", "Top-p", 0.05, 1, 0.05, "Only the likeliest tokens up to this sum. 1 is all.", hosted=True),
    Control("top_k", "Top-k", 0, 200, 1, "Only so many of the likeliest. 0 is all.", whole=True),
    Control("min_p", "Min-p", 0, 0.5, 0.01, "Only tokens above this share of the likeliest."),
    Control("repetition_penalty", "Repetition penalty", 1, 2, 0.01, "Against saying the same again. 1 is off."),
)
_BY_FIELD = {control.field: control for control in CONTROLS}


@dataclass(frozen=True)
class Settings:
    """Of one conversation. ``seed`` None: another answer each time."""

    system: str = ""
    temperature: float = 0.7
    max_tokens: int = 512
    top_p: float = 1.0
    top_k: int = 0
    min_p: float = 0.0
    repetition_penalty: float = 1.0
    seed: int | None = None

    @classmethod
    def of(cls, data: Mapping[str, Any] | None) -> "Settings":
        """From plain values; what is missing or unusable keeps its default."""
        found = cls()
        for field, value in (data or {}).items():
            found = found.with_value(field, value)
        return found

    def with_value(self, field: str, value: Any) -> "Settings":
        """With another value; one that cannot be used changes nothing."""
        try:
            if field == "system":
                return replace(self, system=str(value or "")[:MOST_SYSTEM])
            if field == "seed":
                return replace(self, seed=None if value in (None, "") else min(max(int(value), -(2**63)), 2**63 - 1))
            if field in _BY_FIELD:
                values: dict[str, Any] = {field: _BY_FIELD[field].clamp(value)}
                return replace(self, **values)
        except (ValueError, TypeError, OverflowError):
            pass
        return self

    @property
    def data(self) -> dict[str, Any]:
        """As plain values."""
        return asdict(self)

    def body(self, hosted: bool) -> dict[str, Any]:
        """The fields of a request. What is off is left out, and what a provider's model does not take.

        Args:
            hosted: whether a provider's model answers.
        """
        neutral = {"top_p": 1.0, "top_k": 0, "min_p": 0.0, "repetition_penalty": 1.0}
        body: dict[str, Any] = {}
        for control in CONTROLS:
            value = getattr(self, control.field)
            if (control.hosted or not hosted) and neutral.get(control.field) != value:
                body[control.field] = value
        return body if self.seed is None else {**body, "seed": self.seed}

    def unused(self, hosted: bool) -> list[str]:
        """Names of controls that are set but cannot be told to this model."""
        if not hosted:
            return []
        told = self.body(True)
        return [c.name for c in CONTROLS if c.field in self.body(False) and c.field not in told]
