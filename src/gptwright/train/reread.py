"""A batch read once more, for explanations: the loss of each of its documents, and how large the output of each layer is."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from statistics import fmean
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from gptwright.core.errors import UserError
from gptwright.train.checkpoint import load_checkpoint
from gptwright.train.data import IGNORE, Batch, rows_of
from gptwright.train.logprobs import token_logprobs
from gptwright.train.stepper import Stepper

_LAYER_ROWS = 4  # rows whose layers are measured


@dataclass(frozen=True)
class Reading:
    """What a set of weights makes of a batch.

    Args:
        losses: document -> nats a target.
        targets: document -> how many.
        layers: module -> root mean square of its output over some rows, in the order of computing.
        weights: parameter -> its norm.
    """

    losses: dict[str, float]
    targets: dict[str, int]
    layers: dict[str, float]
    weights: dict[str, float]

    @property
    def mean(self) -> float:
        """Loss of the batch, nats a target."""
        count = sum(self.targets.values())
        return sum(self.losses[uid] * n for uid, n in self.targets.items()) / max(count, 1)


@torch.no_grad()
def reread(stepper: Stepper, batch: Batch) -> Reading:
    """Read a batch with the working weights. Nothing is changed.

    Args:
        stepper: of the run.
        batch: with ``row_docs`` and ``segments``, or one document a row.
    """
    count = len(batch.tokens)
    size = max(1, stepper.micro_tokens // int(batch.tokens.shape[1]))
    sums: dict[str, float] = {}
    targets: dict[str, int] = {}
    layers: dict[str, float] = {}
    for first in range(0, count, size):
        where = slice(first, min(count, first + size))
        rows = rows_of(batch, where, stepper.machine.device, stepper.masked)
        losses = (-token_logprobs(stepper.work, rows)).double().cpu().numpy()
        counted = (rows.targets != IGNORE).cpu().numpy()
        for row in range(where.stop - first):
            owner = np.asarray(_owners(batch, first + row))
            for uid in dict.fromkeys(owner.tolist()):
                mine = counted[row] & (owner == uid)
                if mine.any():
                    sums[uid] = sums.get(uid, 0.0) + float(losses[row][mine].sum())
                    targets[uid] = targets.get(uid, 0) + int(mine.sum())
    with _outputs(stepper, layers):
        few = rows_of(batch, slice(0, min(count, _LAYER_ROWS)), stepper.machine.device, False)
        stepper.work(few.tokens)
    norms = {name: float(p.detach().float().norm()) for name, p in stepper.params.items()}
    return Reading({uid: sums[uid] / n for uid, n in targets.items()}, targets, layers, norms)


def _owners(batch: Batch, row: int) -> list[str]:
    """The document of each position of a row, (T,)."""
    length = int(batch.tokens.shape[1])
    row_docs, segments = getattr(batch, "row_docs", None), getattr(batch, "segments", None)
    if not row_docs:
        docs = list(batch.docs)
        return [docs[row] if len(docs) == len(batch.tokens) else f"row {row}"] * length
    docs = list(row_docs[row])
    if segments is None or len(docs) < 2:
        return [docs[0] if docs else f"row {row}"] * length
    line = np.asarray(segments[row])
    stretch = np.concatenate(([0], np.cumsum(line[1:] != line[:-1])))
    return [docs[min(int(number), len(docs) - 1)] for number in stretch]


@contextlib.contextmanager
def _outputs(stepper: Stepper, sizes: dict[str, float]) -> Iterator[None]:
    """Inside, each module without children that is called notes the size of its output."""
    model = stepper.work
    named = {id(module): name for name, module in model.named_modules()}

    def note(module: nn.Module, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor):
            sizes[named[id(module)]] = float(first.detach().float().pow(2).mean().sqrt())

    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    kernels, model.kernels = model.kernels, None  # the plain path calls every module
    handles = [module.register_forward_hook(note) for module in leaves]
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()
        model.kernels = kernels


@contextlib.contextmanager
def older_weights(stepper: Stepper, path: Path) -> Iterator[bool]:
    """Inside, the working weights are those of a checkpoint; afterwards they are what they were, bit by bit.

    Yields:
        Whether it could be read.
    """
    generator = torch.get_rng_state()  # reading a checkpoint puts its own in place
    try:
        older: Mapping[str, Tensor] = load_checkpoint(path).weights
    except (UserError, OSError):
        yield False
        return
    finally:
        torch.set_rng_state(generator)
    kept = {name: p.detach().clone() for name, p in stepper.params.items()}
    try:
        _put(stepper, older)
        yield True
    finally:
        _put(stepper, kept)


@torch.no_grad()
def _put(stepper: Stepper, weights: Mapping[str, Tensor]) -> None:
    for name, p in stepper.params.items():
        p.data.copy_(weights[name])


def by_kind(growth: Mapping[str, float]) -> dict[str, float]:
    """Growth of each layer beside that of its like in the other blocks (the lower half of them), so that what all do is no news.

    Args:
        growth: name -> times it grew.
    """
    kinds: dict[str, list[float]] = {}
    for name, times in growth.items():
        kinds.setdefault(_kind(name), []).append(times)
    usual = {kind: _low(times) if len(times) > 1 else 1.0 for kind, times in kinds.items()}
    return {name: times / max(usual[_kind(name)], 1e-12) for name, times in growth.items()}


def _kind(name: str) -> str:
    return ".".join("N" if part.isdigit() else part for part in name.split("."))


def _low(values: list[float]) -> float:
    return fmean(sorted(values)[: max(1, len(values) // 2)])
