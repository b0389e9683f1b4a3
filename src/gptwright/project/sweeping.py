"""What ``pretrain --sweep KEY`` may try: which keys, which values, what a value means for a proxy and for the project's model."""

import difflib
import math
from dataclasses import dataclass
from typing import Any, get_args

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.train.config import TrainConfig
from gptwright.train.dial import DIALLED, RATES
from gptwright.train.sweep import Value, ladder

SEEDS = (0, 1)
STEPS = 128  # of a proxy, when neither steps nor time are given
_FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)
# What can be swept beside the dial's five, and where to look. The rest decides nothing, or is not for pretraining.
_VALUES: dict[str, tuple[Value, ...]] = {
    "optimizer": ("muon", "adamw"),
    "decay": ("linear", "cosine"),
    "momentum": (0.8, 0.9, 0.95, 0.975),
    "beta1": (0.8, 0.9, 0.95),
    "beta2": (0.9, 0.95, 0.98, 0.99),
    "clip_norm": _FACTORS,
    "warmup_share": (0.0, 0.02, 0.05, 0.1, 0.2),
    "decay_share": (0.2, 0.4, 0.6, 0.8),
    "final_lr_share": (0.0, 0.05, 0.1, 0.2),
    "document_mask": ("off", "on"),
}
KEYS = ("lr", *DIALLED, *_VALUES)


@dataclass(frozen=True)
class Sweep:
    """A sweep, resolved: what is tried, on what.

    Args:
        key: ``lr`` (all three rates by one factor) or a key of ``[pretrain]``, without its section.
        values: to try first, on the proxy's scale; for ``lr`` factors.
        shape: of the proxy.
        target: of the model that the result is for.
        config: the proxies' settings but for the key and the seed.
        aim: the model's own settings.
        steps: of a proxy with the usual batch.
        seeds: every value is run with each.
    """

    key: str
    values: tuple[Value, ...]
    shape: ModelConfig
    target: ModelConfig
    config: TrainConfig
    aim: TrainConfig
    steps: int
    seeds: tuple[int, ...] = SEEDS

    def settings(self, value: Value, seed: int) -> TrainConfig:
        """Settings of one proxy. When the batch is swept, the tokens stay and the steps change."""
        steps, changes = self.steps, changes_of(self.key, value, self.config)
        if self.key == "batch_tokens":
            steps = max(1, round(self.steps * self.config.batch_tokens / float(value)))
        given = {name: item for name, item in self.config.model_dump().items() if name not in _ENDS}
        return build_config(
            TrainConfig,
            {**given, **changes, "max_steps": steps, "max_time": None, "eval_every": steps, "seed": seed},
            where=f"--sweep {self.key}",
        )

    def transferred(self, value: Value) -> dict[str, Value]:
        """What to write into ``[pretrain]`` of the model when this value is best for the proxy: a dialled key keeps its factor to the dial."""
        if self.key == "lr":
            return {name: _figures(getattr(self.aim, name) * float(value)) for name in RATES}
        if self.key in RATES or self.key == "weight_decay":
            usual = float(getattr(self.config, self.key))
            return {self.key: _figures(float(value) / usual * getattr(self.aim, self.key)) if usual else value}
        if self.key == "batch_tokens":
            rows = max(1, round(float(value) / self.config.batch_tokens * self.aim.batch_tokens / self.target.seq_len))
            return {self.key: rows * self.target.seq_len}
        return {self.key: value}

    @property
    def present(self) -> Value:
        """The value that proxies have without a sweep."""
        return 1.0 if self.key == "lr" else getattr(self.config, self.key)


_SOME_DECAY = 0.4
_ENDS = ("max_steps", "max_time", "eval_every", "checkpoint_every", "seed")


def changes_of(key: str, value: Value, config: TrainConfig) -> dict[str, Any]:
    """The settings that a value stands for."""
    if key == "lr":
        return {name: getattr(config, name) * float(value) for name in RATES}
    return {key: int(value) if key == "batch_tokens" and not isinstance(value, str) else value}


def known_key(text: str) -> str:
    """The key without its section.

    Raises:
        UserError: it cannot be swept; says which can.
    """
    key = text.strip().removeprefix("pretrain.")
    if key in KEYS:
        return key
    near = difflib.get_close_matches(key, KEYS, 1, 0.6)
    exists = key in TrainConfig.model_fields
    raise UserError(
        f"{text}: {'decides nothing about the loss of pretraining, or is no number to try' if exists else 'no such key to sweep'}",
        where="--sweep",
        fix=f"Did you mean {near[0]}?" if near else f"Give one of {', '.join(KEYS)}",
    )


def values_of(key: str, text: str | None, config: TrainConfig, seq_len: int) -> tuple[Value, ...]:
    """The values to try: those given, or the usual ones around the proxy's present value.

    Raises:
        UserError: fewer than two values, or not such as the key takes.
    """
    if text is None:
        if key == "lr":
            return _FACTORS
        if key == "batch_tokens":
            rows = config.batch_tokens / seq_len
            return tuple(sorted({max(1, round(rows * factor)) * seq_len for factor in _FACTORS}))
        if key == "weight_decay":  # none is what the dial gives to text that is read once
            return (0.0, *ladder(config.weight_decay or _SOME_DECAY, _FACTORS))
        if key in DIALLED or key == "clip_norm":
            return tuple(ladder(float(getattr(config, key)), _FACTORS))
        return _VALUES[key]
    kind = TrainConfig.model_fields[key].annotation if key != "lr" else float
    words = [word.strip() for word in text.split(",") if word.strip()]
    found: list[Value] = []
    for word in words:
        try:
            found.append(word if get_args(kind) and str in map(type, get_args(kind)) else float(word))
        except ValueError as error:
            raise UserError(
                f"{word} is not a number", where="--values", fix="Write --values 0.005,0.01,0.02"
            ) from error
    if not all(isinstance(v, str) or math.isfinite(v) for v in found) or (
        key == "lr" and any(float(v) <= 0 for v in found)
    ):
        raise UserError(f"{text}: not all of them are numbers above 0", where="--values", fix="Write --values 0.5,1,2")
    if len(set(found)) < 2:
        raise UserError("a sweep needs two different values at least", where="--values", fix="Write --values A,B,C")
    return tuple(dict.fromkeys(found if any(isinstance(v, str) for v in found) else sorted(found, key=float)))


def _figures(value: float) -> float:
    return float(f"{value:.3g}")
