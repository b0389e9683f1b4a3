"""What is recorded of a step besides its loss, at a cost of well under a percent, and what is noticed when a step is unlike the others.

Rates, speed and gradient norm stand in every line of metrics.jsonl. Each layer's gradient, weights and update are measured at the first
steps (1, 2, 4, 8) and then at intervals: an update's size needs a copy of the weights from before it.
"""

import math
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.progress import say
from gptwright.train.config import TrainConfig
from gptwright.train.data import Batch
from gptwright.train.diagnose import diagnose, layer_norms
from gptwright.train.metrics import read_metrics
from gptwright.train.run import RunFolder
from gptwright.train.spikes import Detector, Spike
from gptwright.train.stepper import Stepper, StepResult

_FEWEST_STEPS = 25  # between measurements of layers
_A_RUN = 200  # of them
_FIRST = (0, 1, 3, 7)
_MOST_EXPLAINED = 20  # a run; further spikes are only said
_KEPT = 64  # lines of the past that an explanation may read


class Diverged(UserError):
    """A run whose loss went astray, and which was told to stop then."""


class Watch:
    """Watches one run.

    Args:
        config: settings.
        folder: of the run.
    """

    def __init__(self, config: TrainConfig, folder: RunFolder) -> None:
        self.config, self.folder = config, folder
        self.detector = Detector(
            losses=config.objective != "grpo", nats=config.objective in ("pretrain", "sft", "distill")
        )
        self.history: Sequence[Mapping[str, Any]] = []
        self.every = 1
        self._layers: dict[str, float] = {}
        self._before: dict[str, Tensor] | None = None

    def begin(self, steps: int, step: int) -> None:
        """Before the first step of this process.

        Args:
            steps: planned.
            step: done.
        """
        self.every = self.config.watch_every or max(_FEWEST_STEPS, -(-steps // _A_RUN))
        rows = [row for row in read_metrics(self.folder.path / "metrics.jsonl") if row["step"] <= step]
        self.history = list(filter(lambda row: "update_ratio" in row, rows))[-_KEPT:]

    @torch.no_grad()
    def before(self, stepper: Stepper, batch: Batch, result: StepResult, step: int) -> None:
        """Between the gradients of a step and its update.

        Args:
            stepper: holding the gradients.
            batch: of the step.
            result: finite.
            step: 0-based.

        Raises:
            Diverged: the run went astray, and is to stop then.
        """
        spike = self.detector.add(step, result.loss, result.grad_norm)
        if spike is not None:
            self._explain(stepper, batch, step, spike)
        self._layers, self._before = {}, None
        if step % self.every == 0 or step in _FIRST:
            names = list(stepper.masters)
            gradients = dict(zip(names, stepper.norms(stepper.optimizer.grads), strict=True))
            self._layers = {f"grad_norm/{layer}": norm for layer, norm in layer_norms(gradients).items()}
            self._before = {name: held.clone() for name, held in stepper.optimizer.masters.items()}

    @torch.no_grad()
    def after(self, stepper: Stepper) -> None:
        """After the update of a step."""
        if self._before is None:
            return
        names, masters = list(stepper.masters), stepper.optimizer.masters
        sizes = layer_norms(dict(zip(names, stepper.norms(masters), strict=True)))
        torch._foreach_sub_(list(self._before.values()), list(masters.values()))
        moved = layer_norms(dict(zip(names, stepper.norms(self._before), strict=True)))
        self._before = None
        self._layers |= {f"weight_norm/{layer}": size for layer, size in sizes.items()}
        self._layers |= {f"update_ratio/{layer}": moved[layer] / max(size, 1e-12) for layer, size in sizes.items()}
        whole = math.hypot(*moved.values()) / max(math.hypot(*sizes.values()), 1e-12)
        self._layers["update_ratio"] = whole

    def row(
        self, stepper: Stepper, share: float, seconds: float, tokens: int, flops: float, peak: float
    ) -> dict[str, Any]:
        """What stands in the step's line besides its loss.

        Args:
            stepper: of the run.
            share: of the peak rates.
            seconds: that the step took.
            tokens: of its batch.
            flops: of a token.
            peak: of products on this machine, FLOP/s; 0 when it is not known.
        """
        config, rate = self.config, tokens / max(seconds, 1e-9)
        used = {"lr_other": bool(stepper.optimizer.adam), "lr_matrix": bool(stepper.optimizer.groups)}
        used["lr_embedding"] = any(name.startswith(("embedding", "head", "positions")) for name in stepper.masters)
        row = {name: getattr(config, name) * share for name, there in used.items() if there}
        row["tokens_per_s"] = round(rate, 1)
        if peak:
            row["peak_share"] = round(rate * flops / peak, 4)
        if self._layers:
            row |= {name: float(f"{value:.5g}") for name, value in self._layers.items()} | memory(
                stepper.machine.device
            )
            self.history = [*self.history[-_KEPT:], row]
            self._layers = {}
        return row

    def _explain(self, stepper: Stepper, batch: Batch, step: int, spike: Spike) -> None:
        stops = spike.kind == "diverged" and self.config.on_divergence == "stop"
        if (
            stepper.even or not stepper.world.is_main
        ):  # a part of the weights cannot read a batch again; of replicas one does it for all
            if stops:
                raise stopped(None, str(spike), str(self.folder.path))
            say(str(spike))
            return
        told = self.folder.decisions("spike")
        known = next((event for event in told if event["step"] == step), None)
        if known is None and len(told) < _MOST_EXPLAINED:
            found = diagnose(stepper, batch, spike, self.folder.checkpoints, self.history)
            known = found.facts()
            self.folder.decide("spike", known)
            if not stops:  # or the error says it
                say(str(found))
        elif known is None:
            say(f"{spike}; {_MOST_EXPLAINED} such steps were explained already")
        if stops:
            raise stopped(known, str(spike), str(self.folder.path))

    def state(self) -> dict[str, Any]:
        """For the checkpoint."""
        return self.detector.state()

    def load(self, state: Mapping[str, Any]) -> None:
        """Put a state back."""
        self.detector.load(state)


def stopped(known: Mapping[str, Any] | None, what: str, where: str) -> Diverged:
    """What a person is told when a run that went astray stops."""
    text = f"{known['what']}. {known['text']}" if known is not None else what
    fix = known["fix"] if known is not None else "See: gptwright runs show"
    return Diverged(text, where=where, fix=f'{fix}. To go on all the same, set on_divergence = "tell"')


def memory(device: str) -> dict[str, float]:
    """Bytes that this process holds now (``rss_bytes``; its peak where the system tells no more), and a GPU's peak (``cuda_peak_bytes``)."""
    found: dict[str, float] = {}
    if sys.platform.startswith("linux"):
        with open("/proc/self/statm", encoding="ascii") as file:
            found["rss_bytes"] = int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    elif sys.platform != "win32":
        import resource

        size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
        found["rss_bytes"] = size if sys.platform == "darwin" else size * 1024
    if device == "cuda":
        found["cuda_peak_bytes"] = torch.cuda.max_memory_allocated()
    return found


def explanations(path: Path) -> list[dict[str, Any]]:
    """What a run told of itself, oldest first."""
    return RunFolder(path, None).decisions("spike")
