"""Notices when a loss or a gradient leaves what is usual in its run: medians and their deviations, which one outlier cannot move."""

import itertools
import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

WINDOW = 64  # steps that say what is usual
_FEWEST = 16
_RECENT = 16  # of them say where the curve is
_FAR = 6.0  # deviations
_TIMES = 3.0  # a gradient must also be this many times the usual one: small ones scatter much
_PAUSE = 16  # steps after a spike in which no other is told of: its aftermath is no news
_LOST = 16  # steps whose median loss says that a run has gone astray
_LOST_SHARE, _LOST_NATS = 0.5, 1.0


@dataclass(frozen=True)
class Spike:
    """What was noticed.

    Args:
        step: 0-based.
        kind: loss, gradient, or diverged (the loss of many steps).
        value: the loss in nats, or the gradient's norm.
        usual: the median of the steps before; for diverged, the lowest such median so far, or the loss at the start.
        far: deviations between them.
    """

    step: int
    kind: Literal["loss", "gradient", "diverged"]
    value: float
    usual: float
    far: float

    def __str__(self) -> str:
        if self.kind == "diverged":
            return f"the run diverges: its loss is about {self.value:.3g} at step {self.step}, it was {self.usual:.3g}"
        what = "the loss" if self.kind == "loss" else "the gradient's norm"
        return f"{what} jumped to {self.value:.3g} at step {self.step}, usual is {self.usual:.3g}"


class Detector:
    """Sees every step of a run in order. Its state is small and goes into the checkpoint.

    Args:
        losses: whether the objective's loss says how well a step went; that of reinforcement does not.
        nats: whether it is a mean over tokens, so that a run whose loss rises by a nat has gone astray.
    """

    def __init__(self, losses: bool, nats: bool) -> None:
        self.watched, self.nats = losses, nats
        self.losses: deque[float] = deque(maxlen=WINDOW)
        self.norms: deque[float] = deque(maxlen=WINDOW)
        self.lowest = math.inf
        self.quiet_until = 0
        self.lost = False

    def add(self, step: int, loss: float, grad_norm: float) -> Spike | None:
        """Judge a step by those before it.

        Args:
            step: 0-based.
            loss: finite.
            grad_norm: finite, before clipping.
        """
        self.lowest = min(self.lowest, loss) if not self.losses and self.watched else self.lowest
        found = self._astray(step)
        if found is None and step >= self.quiet_until:
            if self.watched:
                found = self._far(step, "loss", loss, self.losses, least=0.02)
            if found is None and grad_norm > 0:
                logs = deque((math.log(norm) for norm in self.norms), WINDOW)
                seen = self._far(step, "gradient", math.log(grad_norm), logs, least=0.1)
                if seen is not None and seen.value > seen.usual + math.log(_TIMES):
                    found = Spike(step, "gradient", grad_norm, math.exp(seen.usual), seen.far)
        if found is not None:
            self.quiet_until = step + _PAUSE
        self.losses.append(loss)
        if grad_norm > 0:
            self.norms.append(grad_norm)
        return found

    def _far(
        self, step: int, kind: Literal["loss", "gradient"], value: float, window: deque[float], least: float
    ) -> Spike | None:
        if len(window) < _FEWEST:
            return None
        recent = list(window)
        usual = median(recent[-_RECENT:])
        # From one step to the next, so that a curve that falls steeply does not hide a jump. 1.4826 turns the median deviation of a
        # normal distribution into its standard deviation; a difference of two has that of one times the root of 2.
        noise = 1.4826 / math.sqrt(2) * median(abs(b - a) for a, b in itertools.pairwise(recent))
        scatter = noise + least * max(abs(usual), 0.5)
        far = (value - usual) / scatter
        return Spike(step, kind, value, usual, far) if far > _FAR else None

    def _astray(self, step: int) -> Spike | None:
        if not (self.watched and self.nats) or len(self.losses) < _LOST or self.lost:
            return None
        now = median(list(self.losses)[-_LOST:])
        self.lowest = min(self.lowest, now)
        if now <= self.lowest + max(_LOST_SHARE * self.lowest, _LOST_NATS):
            return None
        self.lost = True
        return Spike(step, "diverged", now, self.lowest, 0.0)

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return {
            "losses": list(self.losses),
            "norms": list(self.norms),
            "lowest": self.lowest if math.isfinite(self.lowest) else None,
            "quiet_until": self.quiet_until,
            "lost": self.lost,
        }

    def load(self, state: Mapping[str, Any]) -> None:
        """Put a state back."""
        self.losses, self.norms = deque(state["losses"], WINDOW), deque(state["norms"], WINDOW)
        self.lowest = math.inf if state["lowest"] is None else state["lowest"]
        self.quiet_until, self.lost = state["quiet_until"], state["lost"]
