"""Where a run would take place, as the planner sees it: this machine, measured, or rented cards, from the table."""

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.plan import memory, scale
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.plan.devices import Rented
from gptwright.plan.probe import Machine
from gptwright.plan.work import update_work
from gptwright.train.stepper import MICRO_TOKENS_GPU


class Host(Protocol):
    """What the planner asks of a place."""

    @property
    def title(self) -> str:
        """For a person."""

    @property
    def measured(self) -> bool:
        """Whether speeds were measured here, or come from a table."""

    @property
    def dtype(self) -> str:
        """Of the working weights."""

    @property
    def room(self) -> float:
        """Bytes that a run may take: of this machine, or of one card."""

    @property
    def disk(self) -> float:
        """Bytes free for checkpoints; infinite where it is not known."""

    @property
    def usd_per_hour(self) -> float | None:
        """Price, if it is in the table."""

    @property
    def slowdown(self) -> float:
        """How much longer steps take at this moment than when the place is left alone."""

    @property
    def least_batch(self) -> int:
        """Tokens a step below which part of the place would stand idle."""

    def token_seconds(self, config: ModelConfig, batch: int) -> float:
        """Seconds a token of training, its share of the update in it."""

    def token_cpu_seconds(self, config: ModelConfig, batch: int) -> float | None:
        """The same in seconds of one core; None where no core computes."""

    def memory(self, config: ModelConfig, batch: int) -> dict[str, int]:
        """Bytes by part at the peak, of this machine or of one card."""


@dataclass(frozen=True)
class Here:
    """This machine.

    Args:
        machine: from ``probe``.
        checkpoint_async: whether checkpoints are written from a copy.
        constants: the planner's choices.
    """

    machine: Machine
    checkpoint_async: bool = True
    constants: Constants = CONSTANTS
    measured: bool = field(default=True, init=False)
    usd_per_hour: float | None = field(default=None, init=False)
    least_batch: int = field(default=0, init=False)

    @property
    def title(self) -> str:
        return self.machine.device_name

    @property
    def dtype(self) -> str:
        return self.machine.dtype

    @property
    def room(self) -> float:
        return self.constants.memory_share * self.machine.memory_free_bytes

    @property
    def slowdown(self) -> float:
        return self.machine.slowdown

    @property
    def disk(self) -> float:
        return float(self.machine.disk_free_bytes)

    def token_seconds(self, config: ModelConfig, batch: int) -> float:
        gradient = cost.flops_per_token(config, config.seq_len) / self.machine.train_flops(config.d_model)
        return gradient + update_work(config) / self.machine.update_rate(config.d_model) / batch

    def token_cpu_seconds(self, config: ModelConfig, batch: int) -> float | None:
        flops, update = self.machine.cpu_flops(config.d_model), self.machine.cpu_update(config.d_model)
        if not flops or not update:
            return None
        return cost.flops_per_token(config, config.seq_len) / flops + update_work(config) / update / batch

    def memory(self, config: ModelConfig, batch: int) -> dict[str, int]:
        m = self.machine
        setting = memory.Setting(m.device, m.dtype, m.threads, m.kernels, self.checkpoint_async)
        return memory.parts(config, batch, setting, self.constants)


@dataclass(frozen=True)
class Cards:
    """Rented cards: forecasts from the table, never measured.

    Args:
        hire: which and how many.
        constants: the planner's choices.
    """

    hire: Rented
    constants: Constants = CONSTANTS
    measured: bool = field(default=False, init=False)
    slowdown: float = field(default=1.0, init=False)
    disk: float = field(default=math.inf, init=False)

    @property
    def title(self) -> str:
        return self.hire.title

    @property
    def dtype(self) -> str:
        return self.hire.device.dtype

    @property
    def room(self) -> float:
        return self.constants.gpu_memory_share * self.hire.device.memory

    @property
    def usd_per_hour(self) -> float | None:
        return self.hire.usd_per_hour

    @property
    def least_batch(self) -> int:
        return 2048 * self.hire.gpus

    def row(self, config: ModelConfig, batch: int) -> scale.ScaleRow:
        """The way that the table of forecasts would take."""
        # No more in a pass than a card's part of the batch.
        micro = max(config.seq_len, min(MICRO_TOKENS_GPU, batch // self.hire.gpus))
        return scale.best_row("", config, self.hire.device, self.hire.gpus, micro, batch, self.constants)

    def token_seconds(self, config: ModelConfig, batch: int) -> float:
        return 1 / self.row(config, batch).tokens_per_s

    def token_cpu_seconds(self, config: ModelConfig, batch: int) -> float | None:
        return None

    def memory(self, config: ModelConfig, batch: int) -> dict[str, int]:
        return self.row(config, batch).memory


def place(of: Machine | Rented | Any) -> Host:
    """The host of a probe or of rented cards; a host stays as it is."""
    if isinstance(of, Machine):
        return Here(of)
    host: Host = Cards(of) if isinstance(of, Rented) else of
    return host
