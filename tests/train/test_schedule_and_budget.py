"""Rates over the steps, time turned into steps without a trace, and the early end that is written before it acts."""

import json
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.core.ledger import Ledger
from gptwright.model.transformer import Transformer
from gptwright.train import budget, machine
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.loop import StepInfo, train
from gptwright.train.metrics import read_metrics
from gptwright.train.schedule import Decay, Schedule
from gptwright.train.stepper import Stepper


@given(
    st.integers(1, 500), st.floats(0, 0.5), st.floats(0, 0.5), st.floats(0, 1), st.sampled_from(["linear", "cosine"])
)
def test_schedule_for_any_shares_then_rises_stays_and_falls(
    steps: int, warmup: float, decay: float, floor: float, form: Decay
) -> None:
    schedule = Schedule.of(steps, warmup, decay, floor, form)
    shares = [schedule.share(step) for step in range(steps)]
    assert all(0 < share <= 1 for share in shares)
    top = shares.index(max(shares))
    assert shares[: top + 1] == sorted(shares[: top + 1])
    falling = shares[max(top, schedule.decay_start) :]
    assert falling == sorted(falling, reverse=True)


def test_schedule_when_plain_then_has_known_values() -> None:
    schedule = Schedule.of(100, 0.1, 0.4, 0.0)
    assert (schedule.warmup, schedule.decay_start) == (10, 60)
    assert schedule.share(0) == pytest.approx(1 / 11)
    assert schedule.share(10) == schedule.share(59) == 1
    assert schedule.share(60) == pytest.approx(40 / 41)
    assert schedule.share(99) == pytest.approx(1 / 41)
    assert schedule.ends_early(30, 50).share(49) == pytest.approx(1 / 21)


def test_schedule_when_cosine_over_all_steps_then_is_gpt3s() -> None:
    schedule = Schedule.of(999, 0.0, 1.0, 0.1, "cosine")
    assert schedule.share(499) == pytest.approx(0.55, abs=2e-3)  # half way, in the middle between 1 and a tenth
    assert schedule.share(0) == pytest.approx(1.0, abs=1e-5)
    assert schedule.share(998) == pytest.approx(0.1, abs=1e-5)


def test_probe_when_run_then_leaves_no_trace_in_the_state() -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    config = TrainConfig(max_time=60)
    stepper = Stepper(model, config, machine.choose(config))
    stepper.apply(0, 1.0, stepper.gradients(TinyPlan().batch(0)).grad_norm)
    weights, state = stepper.tensors()
    before = {n: t.clone() for n, t in (weights | state).items()}
    work = [p.detach().clone() for p in stepper.params.values()]
    generator = torch.get_rng_state()
    resolved = budget.resolve(stepper, TinyPlan(), config, None, 1, time.monotonic())
    assert resolved.step_s > 0
    weights, state = stepper.tensors()
    assert all(torch.equal(before[n], t) for n, t in (weights | state).items())
    assert all(torch.equal(a, b) for a, b in zip(work, stepper.params.values(), strict=True))
    assert torch.equal(generator, torch.get_rng_state())


def test_time_budget_when_given_then_ends_near_it_and_the_steps_are_kept_on_resume(tmp_path: Path) -> None:
    config = TrainConfig(max_time=3.0, max_steps=10**6, eval_every=10**6)
    begin = time.monotonic()

    def stop(info: StepInfo) -> None:
        if info.step == 20:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path, callbacks=[stop])
    resolved = json.loads((tmp_path / "config.json").read_text())["schedule"]
    result = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path)
    assert result.steps == resolved["steps"]
    assert result.steps > 20
    assert time.monotonic() - begin < 30


def test_time_budget_when_heldout_is_slow_then_is_measured_less_often_and_takes_a_small_share(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(budget, "_probe", lambda *_: (0.5, 4.0))
    model = Transformer(tiny_config())
    config = TrainConfig(max_time=60)
    stepper = Stepper(model, config, machine.choose(config))
    resolved = budget.resolve(stepper, TinyPlan(), config, None, 0, time.monotonic())
    assert resolved.evals == 1
    assert 100 <= resolved.schedule.steps <= 110
    often = config.model_copy(update={"eval_every": 8})  # half a second more a step
    assert 48 <= budget.resolve(stepper, TinyPlan(), often, None, 0, time.monotonic()).schedule.steps <= 56


def test_time_budget_when_too_short_for_one_step_then_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="too short"):
        train(tiny_config(), TinyPlan(), TrainConfig(max_time=1e-4), run_dir=tmp_path)


def test_early_end_when_machine_slows_down_then_decides_once_and_ends_in_time() -> None:
    schedule = Schedule.of(1000, 0.0, 0.4, 0.0)
    slow = budget.Speed(step_s=2.0, tokens_per_s=1.0, steps=50)
    assert budget.early_end(schedule, 100, 1800.0, slow) is None  # tight, but a full decay still fits later
    assert budget.early_end(schedule, 100, 790.0, slow) == 100 + 395
    assert budget.early_end(schedule, 700, 10.0, slow) is None  # the decay has begun anyway
    fast = budget.Speed(step_s=0.5, tokens_per_s=1.0, steps=50)
    assert budget.early_end(schedule, 100, 790.0, fast) is None
    assert budget.early_end(schedule, 100, 790.0, budget.Speed(step_s=2.0, tokens_per_s=1.0, steps=3)) is None


def test_early_end_when_the_loop_asks_then_reserve_and_last_measurement_are_off_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[float] = []
    monkeypatch.setattr(budget, "_probe", lambda *_: (0.5, 40.0))
    monkeypatch.setattr(budget, "early_end", lambda schedule, step, left, speed: asked.append(left))
    plan = TinyPlan()
    heldout = Heldout([plan.batch(10**6)], np.ones(64, dtype=np.uint16))
    config = TrainConfig(max_time=1000, max_steps=3, eval_every=2)
    train(tiny_config(), plan, config, run_dir=tmp_path, heldout=heldout)
    assert 900 < asked[0] < 1000 - 30 - 40  # as probed
    assert 950 < asked[1] < 1000 - 30  # as measured since: next to nothing


def test_early_end_when_decided_then_is_in_the_folder_and_ledger_before_it_acts_and_holds_on_resume(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[tuple[int, int]] = []
    monkeypatch.setattr(budget, "early_end", lambda schedule, step, left, speed: 22 if step == 12 else None)

    def watch(info: StepInfo) -> None:
        seen.append((info.step, info.steps))
        if info.step == 13 and len(seen) == 13:
            raise KeyboardInterrupt

    config = TrainConfig(max_time=1000, max_steps=40, checkpoint_every=5)
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        with pytest.raises(KeyboardInterrupt):
            train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "run", ledger=ledger, callbacks=[watch])
        assert ledger.events("run", "decay_started")[0].data == {"step": 12, "steps": 22, "planned": 40}
        monkeypatch.setattr(budget, "early_end", lambda *_: pytest.fail("a resumed run must not decide again"))
        result = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "run", ledger=ledger)
    assert result.steps == 22
    shares = [row["lr_share"] for row in read_metrics(tmp_path / "run" / "metrics.jsonl")]
    assert shares[11] == 1
    assert shares[12] == pytest.approx(10 / 11)
    assert shares[21] == pytest.approx(1 / 11)


def test_config_when_no_end_is_given_then_is_refused() -> None:
    with pytest.raises(ValueError, match="max_steps or max_time"):
        TrainConfig()
    assert TrainConfig(max_time="10m").max_time == 600


def test_resolve_when_one_step_cannot_fit_the_time_then_is_refused_before_the_probe_runs_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    config = TrainConfig(max_time=300)
    stepper = Stepper(model, config, machine.choose(config))
    monkeypatch.setattr(machine, "matmul_peak", lambda *_: 1000.0)
    monkeypatch.setattr(budget, "_probe", lambda *_: pytest.fail("the probe would have run it"))
    with pytest.raises(UserError, match=r"a time budget of 300 s is too short: one step takes \d+ s at the fastest"):
        budget.resolve(stepper, TinyPlan(), config, None, 0, time.monotonic())
