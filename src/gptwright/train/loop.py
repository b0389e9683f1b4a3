"""The one training loop. In: a model, a plan of batches, a config. Out: trained weights in the model, and a run folder.

It pretrains, fine-tunes, learns preferences and continues alike: what differs is the objective, the plan's targets, which parameters
require a gradient, and where the weights come from. It can be killed at any instant; run again with the same arguments it ends with
the same bits (docs/exactness.md).
"""

import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.files import read_json, remove_leftovers
from gptwright.core.interrupt import StopFlag, stop_on_signals
from gptwright.core.ledger import Ledger
from gptwright.core.progress import Bar, clock, progress, say, short
from gptwright.model.config import ModelConfig
from gptwright.model.cost import flops_per_token
from gptwright.model.transformer import Transformer
from gptwright.train import budget, guard, machine
from gptwright.train.callbacks import AnyCallback, Callbacks, EarlyStop, RunView, StepInfo
from gptwright.train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Batch, Heldout, Plan
from gptwright.train.metrics import Metrics, read_metrics
from gptwright.train.objectives import Objective
from gptwright.train.plot import text_plot
from gptwright.train.result import TrainResult, draw, write_stopped
from gptwright.train.run import Resolved, RunFolder, warn_if_moved
from gptwright.train.stepper import Stepper, StepResult
from gptwright.train.watch import Watch
from gptwright.train.writer import CheckpointWriter

__all__ = ["StepInfo", "TrainResult", "train"]
_CHECKPOINT_EVERY_S = 60.0
_SKIPPED_IN_A_ROW = 5  # then it is not the batch


def train(
    model: ModelConfig | Transformer,
    plan: Plan,
    config: TrainConfig,
    *,
    run_dir: Path,
    ledger: Ledger | None = None,
    heldout: Heldout | None = None,
    callbacks: Sequence[AnyCallback] = (),
    start: Path | None = None,
    label: str = "train",
    objective: Objective | None = None,
) -> TrainResult:
    """Train, or go on with a run that was stopped or killed.

    Args:
        model: a shape (weights are made from ``config.seed``) or a model to train in place; only parameters that require a
            gradient are optimised and checkpointed.
        plan: the batch of every step; may have an attribute ``key`` that names its data.
        config: settings; time budgets and every "auto" are resolved once and kept in ``run_dir/config.json``.
        run_dir: folder of this run: config.json, metrics.jsonl, checkpoints/, loss.svg, result.json.
        ledger: told of the run's start, decisions and end; the run's id is the folder's name.
        heldout: measured now and then, and at the end.
        callbacks: called after every step, outside the arithmetic; see ``callbacks.Callback``.
        start: a checkpoint directory to continue from (weights and optimizer state), such as ``run_dir/stable`` of an
            earlier run. Ignored when ``run_dir`` has a checkpoint of its own.
        label: stands before the progress bar.
        objective: what a step minimises; None: next-token prediction over the plan's targets.

    Returns:
        The result; a run that was already finished gives it again.

    Raises:
        UserError: bad settings, a full disk, a damaged only checkpoint, or a loss or weights that are not numbers (with
            document ids).
        Interrupted: Ctrl-C or SIGTERM; a checkpoint was saved and the same call goes on.
    """
    with stop_on_signals() as stop:
        folder = RunFolder(run_dir, ledger)
        run = _Run(model, plan, config, folder, heldout, callbacks, start, label, stop, objective or Objective())
        try:
            return run.go()
        except BaseException as error:
            state = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            run.callbacks.end(state, write_stopped(run.folder.path, state, run.step, str(error)))
            run.folder.finish(state, {"error": str(error)})
            raise
        finally:
            run.writer.close()


class _Run:
    def __init__(
        self,
        model: ModelConfig | Transformer,
        plan: Plan,
        config: TrainConfig,
        folder: RunFolder,
        heldout: Heldout | None,
        callbacks: Sequence[AnyCallback],
        start: Path | None,
        label: str,
        stop: StopFlag,
        objective: Objective,
    ) -> None:
        self.began = time.monotonic()
        self.plan, self.config, self.folder, self.heldout = plan, config, folder, heldout
        self.start, self.label, self.stop, self.objective = start, label, stop, objective
        self.early = None if config.patience is None else EarlyStop(config.patience)
        self.callbacks = Callbacks([*callbacks, *filter(None, [self.early])])
        self.watch = Watch(config, folder)
        self.writer = CheckpointWriter(config.checkpoint_async, config.keep_last)
        if isinstance(model, ModelConfig):
            shape = model
            model = Transformer(shape)
            model.init_weights(config.seed)
        self.model = model
        self.bpb_by_source: dict[str, float] = {}
        self.bpb: float | None = None
        self.best: float | None = None
        self.skipped = 0
        self.step = self.updates = self.tokens = 0
        self.loss = float("nan")
        self.docs: Sequence[str] = ()
        self.seconds_before = 0.0

    def go(self) -> TrainResult:
        config, folder = self.config, self.folder
        plan_key = " ".join(filter(None, (str(getattr(self.plan, "key", "")), self.objective.key)))
        folder.path.mkdir(parents=True, exist_ok=True)
        remove_leftovers(folder.path)
        machine.keep_memory()
        resolved = folder.read_config(config, self.model.config, plan_key)
        chosen = machine.choose(config) if resolved is None else self._same_machine(resolved)
        rows = len(self.plan.batch(0).tokens)
        self.stepper = Stepper(self.model, config, chosen, rows=rows, objective=self.objective)
        folder.begin(config.objective, config.model_dump())
        self.objective.begin(self.stepper, self.plan, folder.path)
        checkpoint = latest_checkpoint(folder.checkpoints) if resolved is not None else None
        if checkpoint is not None:
            self._restore(checkpoint)
        elif self.start is not None:
            first = load_checkpoint(self.start)
            self.stepper.load(first.weights, first.optimizer)
            self.updates = first.updates
        if resolved is None:
            resolved = budget.resolve(self.stepper, self.plan, config, self.heldout, self.updates, self.began)
            folder.write_config(config, self.model.config, plan_key, resolved, self.start)
            self.fresh = True
        else:
            self.fresh = False
        self.resolved, self.schedule, self.eval_s = resolved, resolved.schedule, resolved.eval_s
        self.schedule = folder.as_decided(self.schedule)
        self.trained = self.step < self.schedule.steps
        if self.trained:
            self._steps()
        return self._finish()

    def _same_machine(self, resolved: Resolved) -> machine.Machine:
        """The machine as resolved at the start, as far as this one can give it."""
        then = resolved.machine
        settings = {
            "device": then.device,
            "dtype": then.dtype,
            "threads": then.threads,
            "compile": "auto" if then.compiled else "off",
        }
        now = machine.choose(self.config.model_copy(update=settings))
        warn_if_moved(then, now)
        return now

    def _steps(self) -> None:
        eval_every = self.config.eval_every or max(1, -(-self.schedule.steps // self.resolved.evals))
        self.last_saved = time.monotonic()
        self.speed = budget.Speed()
        self.watch.begin(self.schedule.steps, self.step)
        with (
            Metrics(self.folder.path / "metrics.jsonl", self.step) as metrics,
            progress(self.label, self.schedule.steps, "steps") as bar,
        ):
            bar.advance(self.step)
            self.callbacks.begin(self._view())
            while self.step < self.schedule.steps:
                if self.stop:
                    self._save()
                    self.writer.wait()
                    raise Interrupted(
                        f"stopped after step {self.step} of {self.schedule.steps}; run the same command to go on"
                    )
                if self.step == self.schedule.decay_start and self.step > 0:
                    self._save("stable")
                self._one(metrics, bar, eval_every)
                self._maybe_save()
                self._maybe_end_early(bar)
        self._save()
        self.writer.wait()

    def _one(self, metrics: Metrics, bar: Bar, eval_every: int) -> None:
        begin = time.perf_counter()
        batch = self.objective.gather(self.stepper, self.plan.batch(self.step), self.step)
        result = self.stepper.gradients(batch)
        share = self.schedule.share(self.step)
        self.docs = batch.docs
        learnt = self._guard(result, batch)
        if learnt:
            self.watch.before(self.stepper, batch, result, self.step)
            self.stepper.apply(self.updates, share, result.grad_norm)
            self.watch.after(self.stepper)
            self.loss, self.updates = result.loss, self.updates + 1
        machine.synchronize(self.stepper.machine.device)
        seconds = time.perf_counter() - begin
        self.step, self.tokens = self.step + 1, self.tokens + result.tokens
        self.speed.add(seconds, result.tokens)
        last = self.step == self.schedule.steps
        measured = None
        if self.heldout is not None and (self.step % eval_every == 0 or last):
            measured = self.bpb = self._measure()
            if not math.isfinite(measured):
                raise self._refused("the held-out loss is not a number", self.docs)
        if (learnt and self.step % self.config.log_every == 0) or last or measured is not None:
            row: dict[str, Any] = {
                "step": self.step,
                "loss": self.loss,
                "grad_norm": result.grad_norm,
                "lr_share": share,
            }
            row |= {"tokens": self.tokens, "targets": result.targets, "seconds": round(seconds, 4), **result.stats}
            flops, peak = self._flops_per_token(), self.resolved.matmul_peak
            row |= self.watch.row(self.stepper, share, seconds, result.tokens, flops, peak)
            if not learnt:
                row = {name: value for name, value in row.items() if math.isfinite(value)}
            row |= {} if measured is None else {"heldout_bpb": measured, **self.bpb_by_source}
            metrics.add(row)
            self.callbacks.line(row)
        bar.note(self._line())
        bar.advance(1)
        if (
            measured is not None
            and (self.config.keep_best or self.early)
            and (self.best is None or measured < self.best)
        ):
            self.best = measured
            self._save("best")
        info = StepInfo(
            self.step, self.schedule.steps, self.loss, self.bpb, self.tokens, self.speed.tokens_per_s, share,
            measured is not None,
        )  # fmt: skip
        reason = self.callbacks.step(info)
        if reason is not None and self.step < self.schedule.steps:
            self.folder.decide("ended_early", {"step": self.step, "why": reason, "planned": self.schedule.steps})
            say(f"the run ends after step {self.step}: {reason}")
            self.schedule = self.folder.as_decided(self.schedule)
            bar.total = self.schedule.steps

    def _view(self) -> RunView:
        settings = read_json(self.folder.path / "config.json")
        return RunView(
            self.folder.id, self.folder.path, self.label, settings, self.schedule.steps, self.step, self.stepper.work
        )

    def _line(self) -> str:
        flops = self.speed.tokens_per_s * self._flops_per_token()
        parts = [f"loss {self.loss:.3f}"]
        if self.bpb is not None:
            parts.append(f"held-out {self.bpb:.3f} bits/byte")
        parts.append(f"{short(self.speed.tokens_per_s)} tokens/s  {short(flops)}FLOP/s")
        if self.resolved.matmul_peak:
            parts.append(f"{100 * flops / self.resolved.matmul_peak:.0f}% of matmul peak")
        parts.append(f"{clock((self.schedule.steps - self.step) * self.speed.step_s)} left")
        return "  ".join(parts)

    def _flops_per_token(self) -> float:
        return flops_per_token(self.model.config, self.stepper.last_seq_len)

    def _guard(self, result: StepResult, batch: Batch) -> bool:
        """Whether a step is to be taken: not when its numbers are none and it may be skipped, nor when there is nothing to learn."""
        if result.targets == 0 and self.objective.may_be_empty:
            return False
        if result.targets == 0:
            raise UserError(
                f"the batch of step {self.step} has no targets",
                where="plan",
                fix="Check that the chats have assistant turns",
            )
        fault = guard.fault_of(result)
        if fault is None:
            self.skipped = 0
            return True
        docs, layer = guard.explain(self.stepper, batch)
        self.skipped += 1
        if self.config.on_nan == "stop" or self.skipped >= _SKIPPED_IN_A_ROW:
            raise self._refused(fault, docs, layer)
        if self.step not in {event["step"] for event in self.folder.decisions("step_skipped")}:
            self.folder.decide("step_skipped", {"step": self.step, "why": fault, "docs": docs, "layer": layer})
        say(
            f"step {self.step} skipped: {fault}; documents: {', '.join(docs[:5])}{'; first in ' + layer if layer else ''}"
        )
        return False

    def _refused(self, what: str, docs: Sequence[str], layer: str = "") -> UserError:
        return guard.refusal(what, self.step, docs, layer, str(self.folder.path))

    def _measure(self) -> float:
        assert self.heldout is not None
        begin = time.monotonic()
        nats = [self.stepper.evaluate(batch)[0] for batch in self.heldout.batches]
        self.eval_s = time.monotonic() - begin
        whole, by_source = self.heldout.bits_per_byte(nats)
        self.bpb_by_source = {f"heldout_bpb/{source}": bpb for source, bpb in by_source.items()}
        return whole

    def _seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.began

    def _save(self, name: str | None = None) -> None:
        weights, state = self.stepper.tensors()
        if bad := guard.bad_tensors(weights):
            raise self._refused("the weights are not numbers", self.docs, bad[0])
        loss = self.loss if math.isfinite(self.loss) else 0.0
        extra: dict[str, Any] = {"heldout_bpb": self.bpb, "best_bpb": self.best, "skipped": self.skipped}
        extra |= {"watch": self.watch.state(), "callbacks": self.callbacks.state()}
        checkpoint = Checkpoint(self.step, self.updates, self._seconds(), self.tokens, loss, weights, state, extra)
        self.writer.save(self.folder.path if name else self.folder.checkpoints, checkpoint, name)
        self.last_saved = time.monotonic()

    def _restore(self, checkpoint: Checkpoint) -> None:
        self.stepper.load(checkpoint.weights, checkpoint.optimizer)
        self.step, self.updates, self.tokens = checkpoint.step, checkpoint.updates, checkpoint.tokens
        self.loss, self.bpb, self.seconds_before = checkpoint.loss, checkpoint.extra["heldout_bpb"], checkpoint.seconds
        self.best, self.skipped = checkpoint.extra.get("best_bpb"), checkpoint.extra.get("skipped", 0)
        if "watch" in checkpoint.extra:
            self.watch.load(checkpoint.extra["watch"])
        self.callbacks.load(checkpoint.extra.get("callbacks", {}))

    def _maybe_save(self) -> None:
        every = self.config.checkpoint_every
        due = self.step % every == 0 if every else time.monotonic() - self.last_saved > _CHECKPOINT_EVERY_S
        if due and self.step < self.schedule.steps:
            self._save()

    def _maybe_end_early(self, bar: Bar) -> None:
        """Only the first process of a run may decide this: a resumed one must do what was decided, to end with the same bits."""
        if not self.fresh or self.config.max_time is None:
            return
        left = budget.left_for_steps(self.config.max_time, self._seconds(), self.eval_s)
        steps = budget.early_end(self.schedule, self.step, left, self.speed)
        if steps is not None:
            self.folder.decide("decay_started", {"step": self.step, "steps": steps, "planned": self.schedule.steps})
            say(f"the machine is slower than at the start: the decay begins at step {self.step}, to end at {steps}")
            self.schedule = self.schedule.ends_early(self.step, steps)
            self.fresh, bar.total = False, steps

    def _finish(self) -> TrainResult:
        path, rows = self.folder.path, read_metrics(self.folder.path / "metrics.jsonl")
        losses = draw(path, self.folder.id, rows)
        if self.trained:
            say(text_plot(losses))
        step_s = sum(row["seconds"] for row in rows) / max(len(rows), 1)
        tokens_per_s = self.tokens / max(self.step, 1) / max(step_s, 1e-9)
        flops_per_s = tokens_per_s * self._flops_per_token()
        best = path / "best" if (path / "best").is_dir() else None
        if self.early is not None and best is not None:
            self.stepper.load(load_checkpoint(best).weights, None)
        result = TrainResult(
            model=self.stepper.finished(),
            steps=self.step,
            final_loss=self.loss,
            heldout_bpb=self.bpb,
            tokens=self.tokens,
            seconds=round(self._seconds(), 2),
            tokens_per_s=round(tokens_per_s, 1),
            flops_per_s=flops_per_s,
            peak_share=flops_per_s / self.resolved.matmul_peak,
            run_dir=path,
            checkpoint=self.folder.checkpoints / f"step-{self.step:08d}",
            stable_checkpoint=path / "stable" if (path / "stable").is_dir() else None,
            best_checkpoint=best,
        )
        facts = result.write()
        self.callbacks.end("done", facts)
        self.folder.finish("done", facts)
        return result
