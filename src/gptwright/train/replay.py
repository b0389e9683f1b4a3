"""A span of a run's steps taken again, from what the run wrote down: the same bits, or what they would have been over other data."""

import math
from dataclasses import dataclass, field
from pathlib import Path

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.core.progress import progress
from gptwright.model.config import ModelConfig
from gptwright.model.transformer import Transformer
from gptwright.train import guard, machine
from gptwright.train.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Plan
from gptwright.train.metrics import read_metrics
from gptwright.train.objectives import Objective
from gptwright.train.run import RunFolder, warn_if_moved
from gptwright.train.stepper import Stepper


@dataclass(frozen=True)
class Replay:
    """What taking steps again gave.

    Args:
        first: the first step taken again (0-based).
        stop: the step after the last.
        losses: of each step; that of a step that was passed over is the one before it.
        differing: steps (0-based) whose loss is not the one in metrics.jsonl, in bits.
        same_weights: whether weights and optimizer state equal those of the run's checkpoint at ``stop``; None: it has none there.
        checkpoint: the state at ``stop``.
        docs: ids of all documents that the steps saw.
    """

    first: int
    stop: int
    losses: list[float]
    differing: list[int]
    same_weights: bool | None
    checkpoint: Checkpoint
    docs: set[str] = field(default_factory=set)

    @property
    def exact(self) -> bool:
        """Whether nothing differs from what the run wrote down."""
        return not self.differing and self.same_weights is not False


def replay(
    model: Transformer | None,
    plan: Plan,
    run_dir: Path,
    *,
    start: Path | None = None,
    stop: int | None = None,
    objective: Objective | None = None,
    out: Path | None = None,
) -> Replay:
    """Take steps of a run again. The run's folder is only read.

    Args:
        model: the start weights that the run was given, its adapters applied; trained in place. None: a run from random weights.
        plan: of the run. One over a data set from which documents were erased has the same key and is taken.
        run_dir: of the run.
        start: one of its checkpoints, or the ``stable`` or ``best`` one; None: from its very start.
        stop: steps done at the end; None: all.
        objective: as the run's.
        out: folder for a checkpoint of the end; None: it is not written.

    Returns:
        The losses, what differs, and the state at the end.

    Raises:
        UserError: the folder holds no run, its data are others, or ``stop`` is not after ``start``.
    """
    objective = objective or Objective()
    if not (run_dir / "config.json").is_file():
        raise UserError("no run in this folder", where=str(run_dir), fix="Name a folder with config.json")
    kept = read_json(run_dir / "config.json")
    config = TrainConfig.model_validate(kept["train"])
    key = " ".join(filter(None, (str(getattr(plan, "key", "")), objective.key)))
    folder = RunFolder(run_dir, None)
    if model is None:
        model = Transformer(ModelConfig.model_validate(kept["model"]))
        model.init_weights(config.seed)
    resolved = folder.read_config(config, model.config, key)
    assert resolved is not None
    then = resolved.machine
    settings = {"device": then.device, "dtype": then.dtype, "threads": then.threads}
    now = machine.choose(config.model_copy(update={**settings, "compile": "auto" if then.compiled else "off"}))
    warn_if_moved(then, now)
    schedule = folder.as_decided(resolved.schedule)
    passed_over = {event["step"] for event in folder.decisions("step_skipped")}
    stepper = Stepper(model, config, now, rows=len(plan.batch(0).tokens), objective=objective)
    try:
        objective.begin(stepper, plan, run_dir)
        begun = _begin(stepper, start, kept.get("start"))
        last = schedule.steps if stop is None else stop
        if not begun.step < last <= schedule.steps:
            raise UserError(
                f"cannot take steps {begun.step} to {last} of {schedule.steps} again",
                fix="Name a later stop, or an earlier start",
            )
        written = {row["step"]: row["loss"] for row in read_metrics(run_dir / "metrics.jsonl")}
        losses: list[float] = []
        differing: list[int] = []
        docs: set[str] = set()
        updates, tokens, loss = begun.updates, begun.tokens, begun.loss
        with progress("replay", last - begun.step, "steps") as bar:
            for step in range(begun.step, last):
                batch = objective.gather(stepper, plan.batch(step), step)
                result = stepper.gradients(batch)
                docs.update(batch.docs)
                fault = guard.fault_of(result)
                if fault is not None and step not in passed_over:
                    found, layer = guard.explain(stepper, batch)
                    raise guard.refusal(fault, step, found, layer, str(run_dir))
                if step not in passed_over and (result.targets or not objective.may_be_empty):
                    stepper.apply(updates, schedule.share(step), result.grad_norm)
                    updates, loss = updates + 1, result.loss
                tokens += result.tokens
                losses.append(loss)
                if step + 1 in written and written[step + 1] != loss:
                    differing.append(step)
                bar.advance(1)
        weights, state = ({n: t.detach().cpu().clone() for n, t in group.items()} for group in stepper.tensors())
    finally:
        stepper.finished()
    end = Checkpoint(
        last, updates, 0.0, tokens, loss if math.isfinite(loss) else 0.0, weights, state, {"heldout_bpb": None}
    )
    if out is not None:
        save_checkpoint(out, end)
    return Replay(begun.step, last, losses, differing, _same(end, folder.checkpoints, run_dir), end, docs)


def _begin(stepper: Stepper, start: Path | None, continued: str | None) -> Checkpoint:
    """Put the state of ``start`` in place; without one, what the run itself started from."""
    if start is None and continued is None:
        weights, state = stepper.tensors()
        return Checkpoint(0, 0, 0.0, 0, float("nan"), weights, state, {})
    found = load_checkpoint(Path(start or str(continued)))
    stepper.load(found.weights, found.optimizer)
    if start is not None:
        return found
    return Checkpoint(0, found.updates, 0.0, 0, float("nan"), found.weights, found.optimizer, {})


def _same(end: Checkpoint, checkpoints: Path, run_dir: Path) -> bool | None:
    for path in (checkpoints / f"step-{end.step:08d}", run_dir / "stable", run_dir / "best"):
        if (path / "state.json").is_file() and read_json(path / "state.json").get("step") == end.step:
            kept = load_checkpoint(path)
            return _equal(kept.weights, end.weights) and _equal(kept.optimizer, end.optimizer)
    return None


def _equal(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)
