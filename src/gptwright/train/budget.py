"""Time into steps: a short probe of real steps at the start, which leaves no trace in the state, and the early end."""

import time
from dataclasses import dataclass

from gptwright.core.errors import UserError
from gptwright.model.cost import flops_per_token
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout, Plan
from gptwright.train.run import Resolved
from gptwright.train.schedule import Schedule
from gptwright.train.stepper import Stepper

_PROBE_STEPS = 3
_RESERVE_SHARE = 0.03  # checkpoints, logging, a machine that slows down a little
_EVALS = 10
_EVAL_SHARE = 0.08  # held-out measurements take no more of a time budget than this


@dataclass
class Speed:
    """Rate of the steps of this process; an exponential mean, so that a slow first step fades."""

    step_s: float = 0.0
    tokens_per_s: float = 0.0
    steps: int = 0

    def add(self, seconds: float, tokens: int) -> None:
        self.steps += 1
        keep = min(0.97, 1 - 1 / self.steps)
        self.step_s = keep * self.step_s + (1 - keep) * seconds
        self.tokens_per_s = tokens / max(self.step_s, 1e-9)


def resolve(
    stepper: Stepper, plan: Plan, config: TrainConfig, heldout: Heldout | None, updates: int, began: float
) -> Resolved:
    """Turn "auto" and time into numbers, once.

    Args:
        stepper: holding the state that the run starts from; unchanged afterwards.
        plan: its first batches are what the probe runs.
        config: the settings.
        heldout: one batch of it is timed too.
        updates: steps that the optimizer state has already seen.
        began: ``time.monotonic()`` of the run's start; what passed since is part of the budget.

    Returns:
        The machine, the schedule, the measured matmul peak and seconds per step (0 without a time budget).
    """
    seq_len = int(plan.batch(0).tokens.shape[1])
    tokens = max(seq_len, stepper.micro_tokens)
    peak = machine.matmul_peak(stepper.model.config, tokens, stepper.machine.torch_dtype, stepper.machine.device)
    steps, step_s, evals, eval_s = config.max_steps, 0.0, _EVALS, 0.0
    if config.max_time is not None:
        # A batch as large as GPT-3's would keep the probe itself busy for an hour. The probe and one step are five steps; half of that, since
        # a busy machine shows a lower peak.
        least_s = len(plan.batch(0).tokens) * seq_len * flops_per_token(stepper.model.config, seq_len) / peak
        if stepper.world.size == 1 and (_PROBE_STEPS + 2) / 2 * least_s > config.max_time:
            raise _too_short(
                config.max_time,
                f"one step takes {least_s:.0f} s at the fastest, and {_PROBE_STEPS + 1} are timed first",
            )
        step_s, eval_s = _probe(stepper, plan, heldout, updates)
        spent = time.monotonic() - began
        # Decided by the main process's clock, for all.
        step_s, eval_s, spent, peak = stepper.world.share(lambda: [step_s, eval_s, spent, peak])
        evals = min(_EVALS, max(1, int(_EVAL_SHARE * config.max_time / max(eval_s, 1e-9))))
        left = left_for_steps(config.max_time, spent)
        if config.eval_every is None:
            left -= evals * eval_s
        else:  # one at the end, the others as part of a step
            left -= eval_s
            step_s += eval_s / config.eval_every
        fitting = int(left / step_s)
        if fitting < 1:
            raise _too_short(
                config.max_time, f"one step takes {step_s:.1f} s, and {spent:.0f} s passed before the first"
            )
        steps = fitting if steps is None else min(steps, fitting)
    assert steps is not None, "TrainConfig requires max_steps or max_time"
    schedule = Schedule.of(steps, config.warmup_share, config.decay_share, config.final_lr_share, config.decay)
    return Resolved(stepper.machine, schedule, peak, step_s, evals, eval_s)


def _too_short(max_time_s: float, why: str) -> UserError:
    return UserError(
        f"a time budget of {max_time_s:.0f} s is too short: {why}",
        where="max_time",
        fix="Give more time, or a smaller model or batch",
    )


def _probe(stepper: Stepper, plan: Plan, heldout: Heldout | None, updates: int) -> tuple[float, float]:
    """Seconds of a step and of one held-out measurement. Whole steps are run, then every tensor is put back."""
    weights, state = stepper.tensors()
    saved = {n: t.clone() for n, t in weights.items()}, {n: t.clone() for n, t in state.items()}
    timed = []
    for step in range(_PROBE_STEPS + 1):  # the first one compiles and warms up
        begin = time.perf_counter()
        result = stepper.gradients(stepper.objective.gather(stepper, plan.batch(step), -1))
        stepper.apply(updates + step, 0.0, result.grad_norm)
        machine.synchronize(stepper.machine.device)
        timed.append(time.perf_counter() - begin)
    eval_s = 0.0
    if heldout is not None and heldout.batches:
        begin = time.perf_counter()
        stepper.evaluate(heldout.batches[0])
        rows = [len(batch.tokens) for batch in heldout.batches]  # a source's last batch may have fewer
        eval_s = (time.perf_counter() - begin) * sum(rows) / rows[0]
    stepper.load(*saved)
    return sorted(timed[1:])[_PROBE_STEPS // 2], eval_s


def left_for_steps(max_time_s: float, spent_s: float, eval_s: float = 0.0) -> float:
    """What of a time budget is left for steps: the reserve and a last held-out measurement of ``eval_s`` come off. Seconds."""
    return max_time_s * (1 - _RESERVE_SHARE) - spent_s - eval_s


def early_end(schedule: Schedule, step: int, left_s: float, speed: Speed) -> int | None:
    """The total number of steps when the decay must begin now for the run to end in time; None while the plan holds.

    Args:
        schedule: as it stands.
        step: steps done.
        left_s: seconds of the budget left for steps.
        speed: of the steps so far.
    """
    if speed.steps < 10 or step >= schedule.decay_start:
        return None
    fitting = int(left_s / speed.step_s)
    planned_decay = schedule.steps - schedule.decay_start
    if fitting >= (schedule.steps - step) * 0.95 or fitting > max(1, planned_decay):
        return None
    return step + max(1, min(fitting, planned_decay))
