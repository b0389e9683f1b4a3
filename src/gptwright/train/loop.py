"""The one training loop. In: a model, a plan of batches, a config. Out: trained weights in the model, and a run folder.

It pretrains, fine-tunes, learns preferences and continues alike: what differs is the objective, the plan's targets, which parameters
require a gradient, and where the weights come from. It can be killed at any instant; run again with the same arguments it ends with
the same bits (docs/exactness.md).

Under torchrun the same loop runs in several processes. All take the same steps; the main one alone writes, keeps the ledger, calls
callbacks, and decides what depends on a clock, a file or a person.
"""

import math
import time
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.files import read_json, remove_leftovers
from gptwright.core.interrupt import StopFlag, stop_on_signals
from gptwright.core.ledger import Ledger
from gptwright.core.progress import Bar, progress, say, silenced
from gptwright.model.config import ModelConfig
from gptwright.model.cost import flops_per_token
from gptwright.model.transformer import Transformer
from gptwright.train import budget, guard, machine
from gptwright.train.callbacks import AnyCallback, Callbacks, EarlyStop, RunView, StepInfo
from gptwright.train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Batch, Heldout, Plan
from gptwright.train.distributed import PeerLost, World, launched
from gptwright.train.metrics import Metrics, progress_line, read_metrics
from gptwright.train.objectives import Objective
from gptwright.train.parallel import begun, choose_machine, decided, make_stepper
from gptwright.train.plot import text_plot
from gptwright.train.result import TrainResult, draw, write_stopped
from gptwright.train.run import Resolved, RunFolder
from gptwright.train.stepper import StepResult
from gptwright.train.watch import Watch
from gptwright.train.writer import CheckpointWriter

__all__ = ["StepInfo", "TrainResult", "train"]
_CHECKPOINT_EVERY_S = 60.0
_SKIPPED_IN_A_ROW = 5  # then it is not the batch


@machine.kept_memory()
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
    world: World | None = None,
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
        world: the processes that train together, each of which calls this alike; None: those of torchrun, if it started this one.

    Returns:
        The result; a run that was already finished gives it again.

    Raises:
        UserError: bad settings, a full disk, a damaged only checkpoint, or a loss or weights that are not numbers (with
            document ids).
        Interrupted: Ctrl-C or SIGTERM, here or in another process of the run; a checkpoint was saved and the same call goes on.
        PeerLost: another process of the run is gone; the same call goes on from the last checkpoint.
    """
    world = launched() if world is None else world
    with stop_on_signals() as stop, nullcontext() if world.is_main else silenced():
        folder = RunFolder(run_dir, ledger, writes=world.is_main)
        run = _Run(model, plan, config, folder, heldout, callbacks, start, label, stop, objective or Objective(), world)
        try:
            return run.go()
        except BaseException as raised:
            error = PeerLost(raised) if world.lost(raised) else raised
            state = "interrupted" if isinstance(error, Interrupted | KeyboardInterrupt) else "failed"
            if world.is_main:
                run.callbacks.end(state, write_stopped(run.folder.path, state, run.step, str(error)))
            run.folder.finish(state, {"error": str(error)})
            if error is not raised:
                raise error from raised
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
        world: World,
    ) -> None:
        self.began = time.monotonic()
        self.world = world
        self.plan, self.config, self.folder, self.heldout = plan, config, folder, heldout
        self.start, self.label, self.stop, self.objective = start, label, stop, objective
        self.early = None if config.patience is None else EarlyStop(config.patience)
        self.callbacks = Callbacks([*callbacks, *filter(None, [self.early])] if world.is_main else [])
        self.watch = Watch(config, folder)
        self.writer = CheckpointWriter(config.checkpoint_async, config.keep_last, world)
        self.model = model
        self.shape = model if isinstance(model, ModelConfig) else model.config
        self.bpb_by_source: dict[str, float] = {}
        self.bpb: float | None = None
        self.best: float | None = None
        self.skipped = 0
        self.step = self.updates = self.tokens = 0
        self.loss = float("nan")
        self.docs: Sequence[str] = ()
        self.seconds_before = 0.0

    def go(self) -> TrainResult:
        config, folder, world = self.config, self.folder, self.world
        plan_key = " ".join(filter(None, (str(getattr(self.plan, "key", "")), self.objective.key)))
        if world.is_main:
            folder.path.mkdir(parents=True, exist_ok=True)
            remove_leftovers(folder.path)
        world.connect(config.device, config.peer_timeout)
        resolved = begun(folder, config, self.shape, plan_key, world)
        chosen = choose_machine(config, resolved, self.shape, world)
        rows = len(self.plan.batch(0).tokens)
        self.stepper = make_stepper(self.model, config, chosen, rows, self.objective, world)
        folder.begin(config.objective, config.model_dump())
        self.objective.begin(self.stepper, self.plan, folder.path)
        like = self.stepper.tensors()
        checkpoint = latest_checkpoint(folder.checkpoints, world, like) if resolved is not None else None
        if checkpoint is not None:
            self._restore(checkpoint)
        elif self.start is not None:
            first = load_checkpoint(self.start, world, like)
            self.stepper.load(first.weights, first.optimizer)
            self.updates = first.updates
        if resolved is None:
            resolved = budget.resolve(self.stepper, self.plan, config, self.heldout, self.updates, self.began)
            # The main process's schedule, if it was made from a clock.
            self.resolved = Resolved.of(world.share(partial(asdict, resolved)))
            folder.write_config(config, self.shape, plan_key, self.resolved, self.start)
            self.fresh = True
        else:
            self.resolved, self.fresh = resolved, False
        self.schedule, self.eval_s = decided(folder, self.resolved.schedule, world), self.resolved.eval_s
        self.trained = self.step < self.schedule.steps
        if self.trained:
            self._steps()
        return self._finish()

    def _steps(self) -> None:
        eval_every = self.config.eval_every or max(1, -(-self.schedule.steps // self.resolved.evals))
        self.last_saved = time.monotonic()
        self.speed = budget.Speed()
        self.watch.begin(self.schedule.steps, self.step)
        with (
            Metrics(self.folder.path / "metrics.jsonl", self.step, self.folder.writes) as metrics,
            progress(self.label, self.schedule.steps, "steps") as bar,
        ):
            bar.advance(self.step)
            if self.stepper.even and self.callbacks.without_model():
                say("no samples are drawn: no process holds the whole weights")
            if self.world.is_main:
                self.callbacks.begin(self._view())
            (stop,) = self.world.most(bool(self.stop))
            while self.step < self.schedule.steps:
                if stop:
                    self._save()
                    self.writer.wait()
                    raise Interrupted(
                        f"stopped after step {self.step} of {self.schedule.steps}; run the same command to go on"
                    )
                if self.step == self.schedule.decay_start and self.step > 0:
                    self._save("stable")
                ended = self._one(metrics, bar, eval_every)
                wanted = (bool(self.stop), self._is_due(), self._ends_early(), ended)
                # What one process wants, all do: a signal may have reached any, the clock is the main one's.
                stop, save, ending, stays_short = self.world.most(*wanted)
                if ending or stays_short:
                    self.schedule = decided(self.folder, self.resolved.schedule, self.world)
                    self.fresh, bar.total = self.fresh and not ending, self.schedule.steps
                if save and self.step < self.schedule.steps:
                    self._save()
        self._save()
        self.writer.wait()

    def _one(self, metrics: Metrics, bar: Bar, eval_every: int) -> bool:
        """One step. Returns whether a callback ends the run with it."""
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
            return True
        return False

    def _view(self) -> RunView:
        settings = read_json(self.folder.path / "config.json")
        return RunView(
            self.folder.id, self.folder.path, self.label, settings, self.schedule.steps, self.step, self.stepper.work
        )

    def _line(self) -> str:
        flops, peak = self._flops_per_token(), self.resolved.matmul_peak
        left_s = (self.schedule.steps - self.step) * self.speed.step_s
        return progress_line(self.loss, self.bpb, self.speed.tokens_per_s, flops, peak, left_s)

    def _flops_per_token(self) -> float:
        frozen = "blocks.0.attention.out.weight" not in self.stepper.masters
        return flops_per_token(self.shape, self.stepper.last_seq_len, frozen=frozen)

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
        return guard.refusal(what, self.step, docs, layer, str(self.folder.path), self.config)

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
        bad = guard.bad_tensors(weights)
        if any(self.world.most(bool(bad))):
            raise self._refused("the weights are not numbers", self.docs, *bad[:1])
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

    def _is_due(self) -> bool:
        """Whether it is time for a checkpoint."""
        if self.config.checkpoint_every:
            return self.step % self.config.checkpoint_every == 0
        return self.world.is_main and time.monotonic() - self.last_saved > _CHECKPOINT_EVERY_S

    def _ends_early(self) -> bool:
        """Whether the decay begins now. Only the first process of a run may decide this: a resumed one must do what was decided, to end
        with the same bits.
        """
        if not self.fresh or self.config.max_time is None or not self.world.is_main:
            return False
        left = budget.left_for_steps(self.config.max_time, self._seconds(), self.eval_s)
        steps = budget.early_end(self.schedule, self.step, left, self.speed)
        if steps is None:
            return False
        self.folder.decide("decay_started", {"step": self.step, "steps": steps, "planned": self.schedule.steps})
        say(f"the machine is slower than at the start: the decay begins at step {self.step}, to end at {steps}")
        return True

    def _finish(self) -> TrainResult:
        path, rows = self.folder.path, read_metrics(self.folder.path / "metrics.jsonl")
        if self.folder.writes:
            losses = draw(path, self.folder.id, rows)
            if self.trained:
                say(text_plot(losses))
        step_s = sum(row["seconds"] for row in rows) / max(len(rows), 1)
        tokens_per_s = self.tokens / max(self.step, 1) / max(step_s, 1e-9)
        flops_per_s = tokens_per_s * self._flops_per_token()
        best = path / "best" if self.world.share((path / "best").is_dir) else None
        if self.early is not None and best is not None:
            self.stepper.load(load_checkpoint(best, self.world, self.stepper.tensors()).weights, None)
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
        if self.folder.writes:
            facts = result.write()
            self.callbacks.end("done", facts)
            self.folder.finish("done", facts)
        return result
