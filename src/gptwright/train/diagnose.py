"""Why a loss jumped: the documents of the batch by their losses, the layers by how far they moved, and what a person may do.

Asked after the fact, so a good step pays nothing. The batch is read again by the weights of a checkpoint from before: text that is odd
to both sets of weights is odd text; text that only the present ones find odd says that the weights went wrong.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

from gptwright.train.config import TrainConfig
from gptwright.train.data import Batch
from gptwright.train.guard import high_rates
from gptwright.train.reread import Reading, by_kind, older_weights, reread
from gptwright.train.spikes import Spike
from gptwright.train.stepper import Stepper

Cause = Literal["documents", "layer", "rate", "unknown"]
_SHOWN = 5
_CHECKPOINTS = 3  # that are tried, the newest first
_GREW = 3.0  # times, beside its like in other blocks
_FAST = 0.1  # share of its own size by which a layer moves in one step; healthy ones stay at some hundredths


@dataclass(frozen=True)
class Explanation:
    """What was found, before the step was taken.

    Args:
        step: 0-based.
        noticed: loss, gradient or diverged; see ``Spike``.
        what: was noticed, in words.
        cause: of it.
        documents: uid and loss (nats a target), the hardest first; for the cause "documents" those that stand out alone.
        before: their losses by older weights; empty when there were none.
        layer: that grew first in the order of computing, "" when none stands out.
        grew: how many times.
        text: the cause, in words.
        fix: what to do.
        compared_with: the checkpoint whose weights the batch was read with again.
    """

    step: int
    noticed: str
    what: str
    cause: Cause
    documents: list[tuple[str, float]]
    before: dict[str, float]
    layer: str
    grew: float
    text: str
    fix: str
    compared_with: str = field(default="")

    def facts(self) -> dict[str, Any]:
        """As JSON knows it."""
        return asdict(self) | {"documents": [list(pair) for pair in self.documents]}

    def __str__(self) -> str:
        return f"{self.what}.\n  {self.text}.\n  {self.fix}."


def diagnose(
    stepper: Stepper, batch: Batch, spike: Spike, checkpoints: Path, history: Sequence[Mapping[str, Any]]
) -> Explanation:
    """Explain what was noticed at a step. Weights, gradients and moments are left as they are.

    Args:
        stepper: holding the gradients of the step.
        batch: of the step.
        spike: what was noticed.
        checkpoints: of the run.
        history: lines of metrics.jsonl, those with ``weight_norm/LAYER`` and ``update_ratio/LAYER`` are read.
    """
    now = reread(stepper, batch)
    then, name = _from_before(stepper, batch, now, checkpoints)
    layer, grew = _grown(now, then, history)
    odd = _odd(now, then)
    hardest = sorted(odd or now.losses, key=lambda uid: -now.losses[uid])[: 50 if odd else _SHOWN]
    documents = [(uid, round(now.losses[uid], 4)) for uid in hardest]
    before = {} if then is None else {uid: round(then.losses[uid], 4) for uid in hardest}
    cause, text, fix = _judge(stepper.config, spike, now, then, documents, bool(odd), layer, grew, history, name)
    return Explanation(
        spike.step, spike.kind, str(spike), cause, documents, before, layer, round(grew, 2), text, fix, name
    )


def _judge(
    config: TrainConfig,
    spike: Spike,
    now: Reading,
    then: Reading | None,
    documents: list[tuple[str, float]],
    odd: bool,
    layer: str,
    grew: float,
    history: Sequence[Mapping[str, Any]],
    name: str,
) -> tuple[Cause, str, str]:
    shown = ", ".join(f"{uid} ({loss:.2f})" for uid, loss in documents[:_SHOWN])
    if odd:
        others = [loss for uid, loss in now.losses.items() if uid not in dict(documents)]
        more = f" and {len(documents) - _SHOWN} more" if len(documents) > _SHOWN else ""
        beside = f"; the others of the batch are at {median(others):.2f}" if others else ""
        older = f"; {name} finds them hard too ({then.losses[documents[0][0]]:.2f})" if then is not None else ""
        return (
            "documents",
            f"Documents stand out, nats a token: {shown}{more}{beside}{older}",
            f"Look at them (gptwright data why id:{documents[0][0]}), and drop such text by a rule; "
            "a lower clip_norm softens what is left",
        )
    if layer:
        return (
            "layer",
            f"The weights went wrong, not the text: {layer} grew first, {grew:.3g} times"
            f"{f' since {name}' if name else ''}, while its like in other blocks did not",
            f"Go back to a checkpoint from before, and lower {_rate_of(config, layer)}",
        )
    ratio, fastest = max(_ratios(history), default=(0.0, ""))
    if spike.kind == "diverged" or (ratio > _FAST and (then is None or now.mean > 1.2 * then.mean)):
        high = high_rates(config)
        told = ", ".join(high)
        names = " and ".join(one.split()[0] for one in high)
        better = f"{names} near the default" if high else "a third of lr_matrix and lr_embedding"
        moves = f"{fastest} moves by {100 * ratio:.0f} % of its size in a step" if fastest else "all layers move"
        return (
            "rate",
            f"No document and no single layer stands out: the rate is too high; {moves}{f'; {told}' if told else ''}",
            f"Begin a new run with {better}, or with a longer warm-up (warmup_share)",
        )
    return (
        "unknown",
        f"No document and no layer stands out; the hardest of the batch, nats a token: {shown}",
        "One such step does little, since gradients are clipped; if they come often, lower the rates or raise batch_tokens",
    )


def _from_before(stepper: Stepper, batch: Batch, now: Reading, checkpoints: Path) -> tuple[Reading | None, str]:
    """The batch read by the newest checkpoint to which it is easier; by the oldest that was tried, if it is to none."""
    found, name = None, ""
    for path in sorted(checkpoints.glob("step-*"), reverse=True)[:_CHECKPOINTS]:
        with older_weights(stepper, path) as whole:
            if whole:
                found, name = reread(stepper, batch), path.name
        if found is not None and found.mean < 0.8 * now.mean:
            break
    return found, name


def _odd(now: Reading, then: Reading | None) -> list[str]:
    """Documents far above the others of their batch; and, when there are older weights, to these too."""
    if len(now.losses) < 2 or not all(map(math.isfinite, now.losses.values())):
        return []
    far = _far(now.losses)
    if then is not None and all(map(math.isfinite, then.losses.values())):
        usual = median(then.losses.values())
        far = [uid for uid in far if then.losses[uid] > usual + 0.5 * (now.losses[uid] - median(now.losses.values()))]
    # Short ones are often far, and carry little of a jump of the whole batch.
    usual = median(now.losses.values())
    excess = {uid: (now.losses[uid] - usual) * now.targets[uid] for uid in far}
    far = [uid for uid, own in excess.items() if own >= 0.1 * sum(excess.values())]
    return far if sum(excess[uid] for uid in far) >= 0.05 * usual * sum(now.targets.values()) else []


def _far(losses: Mapping[str, float]) -> list[str]:
    usual = median(losses.values())
    scatter = 1.4826 * median(abs(loss - usual) for loss in losses.values())
    found = [uid for uid, loss in losses.items() if loss > usual + max(1.0, 0.3 * usual, 4 * scatter)]
    return found if len(found) * 2 <= len(losses) else []


def _grown(now: Reading, then: Reading | None, history: Sequence[Mapping[str, Any]]) -> tuple[str, float]:
    """The first layer in the order of computing that grew out of line with its like; by its output, then by its weights."""
    if then is not None:
        for after, before in ((now.layers, then.layers), (now.weights, then.weights)):
            growth = {name: size / max(before[name], 1e-6) for name, size in after.items() if name in before}
            for name, times in by_kind(growth).items():
                if not times < _GREW and not growth[name] < _GREW:
                    return name.removesuffix(".weight"), times
        return "", 0.0
    records = [row for row in history if any(key.startswith("weight_norm/") for key in row)]
    if not records:
        return "", 0.0
    was = {key.partition("/")[2]: value for key, value in records[-1].items() if key.startswith("weight_norm/")}
    sizes = layer_norms(now.weights)
    growth = {name: size / max(was[name], 1e-6) for name, size in sizes.items() if name in was}
    grown = [(name, times) for name, times in by_kind(growth).items() if not times < _GREW and growth[name] >= _GREW]
    return grown[0] if grown else ("", 0.0)


def _ratios(history: Sequence[Mapping[str, Any]]) -> list[tuple[float, str]]:
    for row in reversed(history):
        found = [(float(v), key.partition("/")[2]) for key, v in row.items() if key.startswith("update_ratio/")]
        if found:
            return found
    return []


def _rate_of(config: TrainConfig, layer: str) -> str:
    if layer.startswith(("embedding", "head", "positions")):
        return "lr_embedding"
    matrix = layer.startswith("blocks.") and "norm" not in layer and "lora" not in layer
    return "lr_matrix" if matrix and config.optimizer == "muon" else "lr_other"


def layer_of(name: str) -> str:
    """The part of the model that a parameter belongs to: a block, or what stands outside of them."""
    parts = name.split(".")
    return ".".join(parts[:2]) if parts[0] == "blocks" else parts[0]


def layer_norms(norms: Mapping[str, float]) -> dict[str, float]:
    """Norms of parameters as norms of the layers they belong to."""
    squares: dict[str, float] = {}
    for name, norm in norms.items():
        squares[layer_of(name)] = squares.get(layer_of(name), 0.0) + norm * norm
    return {layer: math.sqrt(square) for layer, square in squares.items()}
