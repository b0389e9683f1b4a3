"""When a step's numbers are not numbers: which documents, which layer. Asked after the fact, so a good step pays nothing."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from gptwright.core.errors import UserError
from gptwright.train.config import TrainConfig
from gptwright.train.data import Batch, Rows, rows_of
from gptwright.train.stepper import Stepper, StepResult

_SHOWN_DOCS = 20


class NotANumber(UserError):
    """A loss, a gradient or weights that are not numbers."""


def fault_of(result: StepResult) -> str | None:
    """What of a step is not a number, None when all is well."""
    if not torch.isfinite(torch.tensor(result.loss)):
        return "the loss is not a number"
    if not torch.isfinite(torch.tensor(result.grad_norm)):
        return "the gradient is not a number"
    return None


def explain(stepper: Stepper, batch: Batch) -> tuple[list[str], str]:
    """Find where a batch goes wrong: its rows are run one by one, with the same weights.

    Args:
        stepper: as it was at the step; its gradients are overwritten.
        batch: of the step.

    Returns:
        The documents of the rows that go wrong (all of the batch when no row does so alone), and the first layer whose output or
        gradient is not a number ("" when it was not seen).
    """
    docs: list[str] = []
    layer = ""
    row_docs: Sequence[Sequence[str]] = getattr(batch, "row_docs", None) or []
    unit = stepper.objective.unit
    for first in range(0, len(batch.tokens), unit):
        rows = rows_of(batch, slice(first, first + unit), stepper.machine.device, stepper.masked)
        found = _first_bad_layer(stepper, rows)
        if found:
            layer = layer or found
            docs += [uid for row in row_docs[first : first + unit] for uid in row]
    return list(dict.fromkeys(docs or batch.docs)), layer


def _first_bad_layer(stepper: Stepper, rows: Rows) -> str:
    """The first module in the order of computing whose output is not finite; else the last parameter whose gradient is not."""
    model, seen, handles = stepper.work, [], []
    named = {id(module): name for name, module in model.named_modules() if name}

    def watch(module: nn.Module, _inputs: Any, output: Any) -> None:
        first = output[0] if isinstance(output, tuple) else output
        if isinstance(first, Tensor) and not torch.isfinite(first).all():
            seen.append(named[id(module)])

    kernels, model.kernels = model.kernels, None  # the plain path calls every module, so that each can be watched
    leaves = [module for module in model.modules() if not any(True for _ in module.children())]
    try:
        handles = [module.register_forward_hook(watch) for module in leaves]
        loss = stepper.objective.loss(model, rows, 1.0, None)
        if not seen and torch.isfinite(loss):
            loss.backward()  # type: ignore[no-untyped-call]
            bad = [
                name
                for name, p in stepper.params.items()
                if p.grad is not None and not torch.isfinite(held(p.grad)).all()
            ]
            return f"the gradient of {bad[-1].removesuffix('.weight')}" if bad else ""
        return seen[0] if seen else "the loss itself"
    finally:
        for handle in handles:
            handle.remove()
        for p in stepper.params.values():
            p.grad = None
        model.kernels = kernels


def refusal(
    what: str, step: int, docs: Sequence[str], layer: str, where: str, config: TrainConfig | None = None
) -> NotANumber:
    """What a person is told.

    Args:
        what: is not a number.
        step: 0-based.
        docs: that it happens with.
        layer: in which it happens first, or "".
        where: the run's folder.
        config: settings; rates far above the defaults are named.
    """
    names = list(dict.fromkeys(docs))
    more = f" and {len(names) - _SHOWN_DOCS} more" if len(names) > _SHOWN_DOCS else ""
    first = f"; first in {layer}" if layer else ""
    high = [] if config is None else high_rates(config)
    rates = f"; {', '.join(high)}" if high else ""
    return NotANumber(
        f"{what} at step {step}; documents of the batch: {', '.join(names[:_SHOWN_DOCS])}{more}{first}{rates}",
        where=where,
        fix="Begin a new run with rates near the defaults"
        if high
        else 'Look at these documents, or lower lr_matrix and lr_embedding, or set on_nan = "skip"; the last good checkpoint is kept',
    )


def high_rates(config: TrainConfig) -> list[str]:
    """Rates of at least three times the defaults, in words."""
    found = []
    for name in ("lr_matrix", "lr_embedding", "lr_other"):
        times = getattr(config, name) / TrainConfig.model_fields[name].default
        if times >= 3 and not (name == "lr_matrix" and config.optimizer != "muon"):
            found.append(f"{name} is {getattr(config, name):g}, {times:.3g} times the default")
    return found


def bad_tensors(named: dict[str, Tensor]) -> list[str]:
    """Names of the tensors that hold anything but numbers."""
    return [name for name, tensor in named.items() if not torch.isfinite(held(tensor).sum())]


def held(tensor: Tensor) -> Tensor:
    """What this process holds of a tensor that is divided over several; another one as it is."""
    rows = getattr(tensor, "to_local", None)
    return tensor if rows is None else rows()
