"""Warm-up, stable, decay: the learning rate as a share of its peak.

Source: MiniCPM (arXiv 2404.06395), section 4; linear decay to zero as in arXiv 2502.15938; cosine: SGDR (arXiv 1608.03983).
"""

import math
from dataclasses import dataclass, replace
from typing import Literal

Decay = Literal["linear", "cosine"]


@dataclass(frozen=True)
class Schedule:
    """A run's steps, resolved once. ``decay_start`` moves forward only by a recorded early end."""

    steps: int
    warmup: int
    decay_start: int
    final_share: float
    decay: Decay = "linear"

    @staticmethod
    def of(
        steps: int, warmup_share: float, decay_share: float, final_share: float, decay: Decay = "linear"
    ) -> "Schedule":
        """Shares of the whole turned into steps."""
        return Schedule(steps, math.ceil(steps * warmup_share), steps - int(steps * decay_share), final_share, decay)

    def share(self, step: int) -> float:
        """Rate at a step (0-based) as a share of the peak, in (0, 1]."""
        rise = min(1.0, (step + 1) / (self.warmup + 1))
        if step < self.decay_start:
            return rise
        left = (self.steps - step) / (self.steps - self.decay_start + 1)
        if self.decay == "cosine":
            left = (1 - math.cos(math.pi * left)) / 2
        return min(rise, self.final_share + (1 - self.final_share) * left)

    def ends_early(self, decay_start: int, steps: int) -> "Schedule":
        """The same schedule with its decay brought forward."""
        return replace(self, steps=steps, decay_start=decay_start)
