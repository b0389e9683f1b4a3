"""Callbacks: their state in checkpoints, early stop, samples; all alike after a kill."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.model.transformer import Transformer
from gptwright.train.callbacks import Callback, EarlyStop, RunView, Samples, StepInfo, read_samples
from gptwright.train.checkpoint import load_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics
from gptwright.train.replay import replay
from gptwright.train.run import RunFolder


class Stop(Exception):
    pass


def stops_at(step: int) -> Any:
    def stop(info: StepInfo) -> None:
        if info.step == step:
            raise Stop

    return stop


class Mean(Callback):
    """Keeps a mean of the losses, and what it is called with."""

    key = "mean"

    def __init__(self) -> None:
        self.total, self.count = 0.0, 0
        self.calls: list[Any] = []

    def begin(self, run: RunView) -> None:
        self.calls.append(("begin", run.step, self.count))

    def step(self, info: StepInfo) -> None:
        self.total, self.count = self.total + info.loss, self.count + 1

    def line(self, row: Any) -> None:
        self.calls.append(("line", row["step"]))

    def end(self, state: str, facts: Any) -> None:
        self.calls.append(("end", state, facts["steps"]))

    def state(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load(self, state: Any) -> None:
        self.total, self.count = state["total"], state["count"]


def go(folder: Path, *callbacks: Any, heldout: Heldout | None = None, **changes: Any) -> Any:
    config = TrainConfig(**{"max_steps": 12, "checkpoint_every": 3, "dtype": "float32", "compile": "off", **changes})
    return train(tiny_config(), TinyPlan(), config, run_dir=folder, heldout=heldout, callbacks=callbacks)


def test_callback_when_a_run_is_cut_then_its_state_comes_back_from_the_checkpoint(tmp_path: Path) -> None:
    whole, first, second = Mean(), Mean(), Mean()
    go(tmp_path / "whole", whole)
    with pytest.raises(Stop):
        go(tmp_path / "parts", first, stops_at(8))
    go(tmp_path / "parts", second)
    assert (second.total, second.count) == (whole.total, whole.count) == (pytest.approx(whole.total), 12)
    assert first.calls[-1] == ("end", "failed", 8)
    assert second.calls[0] == ("begin", 6, 6)
    assert second.calls[1:] == [("line", step) for step in range(7, 13)] + [("end", "done", 12)]
    assert load_checkpoint(tmp_path / "parts" / "checkpoints" / "step-00000012").extra["callbacks"] == {
        "mean": whole.state()
    }


def test_callback_when_it_was_not_there_before_then_begins_anew(tmp_path: Path) -> None:
    with pytest.raises(Stop):
        go(tmp_path, stops_at(5))
    late = Mean()
    go(tmp_path, late)
    assert late.count == 12 - 3


def test_callback_when_its_state_is_not_json_then_says_whose(tmp_path: Path) -> None:
    class Odd(Mean):
        def state(self) -> dict[str, Any]:
            return {"path": tmp_path}

    with pytest.raises(UserError, match="the state of the callback mean cannot be kept"):
        go(tmp_path / "run", Odd())
    with pytest.raises(ValueError, match="two callbacks with one key"):
        go(tmp_path / "two", Mean(), Mean())


SCORES = [5.0, 4.0, 3.0, 3.5, 3.2, 3.1, 9.0, 9.0]


@pytest.fixture
def scored(monkeypatch: pytest.MonkeyPatch) -> Heldout:
    """Held-out numbers by step: the third of every 2 steps is the best."""
    monkeypatch.setattr("gptwright.train.loop._Run._measure", lambda self: SCORES[self.step // 2 - 1])
    return Heldout([TinyPlan().batch(99)], np.ones(64, dtype=np.uint16))


def test_early_stop_when_patience_ends_then_the_run_does_and_the_best_weights_are_the_result(
    scored: Heldout, tmp_path: Path
) -> None:
    result = go(tmp_path, heldout=scored, max_steps=16, eval_every=2, patience=2)
    assert (result.steps, [row["step"] for row in read_metrics(tmp_path / "metrics.jsonl")]) == (10, list(range(1, 11)))
    event = RunFolder(tmp_path, None).decisions("ended_early")
    assert [(e["step"], e["planned"]) for e in event] == [(10, 16)]
    assert "best were 3.000 bits per byte after step 6" in event[0]["why"]
    best = load_checkpoint(tmp_path / "best")
    assert best.step == 6
    for name, p in result.model.named_parameters():
        assert torch.equal(p.data, best.weights[name])
    assert replay(None, TinyPlan(), tmp_path).exact
    again = go(tmp_path, heldout=scored, max_steps=16, eval_every=2, patience=2)
    assert all(torch.equal(a, b) for a, b in zip(result.model.parameters(), again.model.parameters(), strict=True))


@pytest.mark.parametrize("cut", [5, 7, 9])
def test_early_stop_when_cut_anywhere_then_ends_alike(cut: int, scored: Heldout, tmp_path: Path) -> None:
    settings: dict[str, Any] = {"heldout": scored, "max_steps": 16, "eval_every": 2, "patience": 2}
    whole = go(tmp_path / "whole", **settings)
    with pytest.raises(Stop):
        go(tmp_path / "parts", stops_at(cut), **settings)
    parts = go(tmp_path / "parts", **settings)
    assert parts.steps == whole.steps
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_early_stop_when_things_get_better_then_waits() -> None:
    stop = EarlyStop(2)
    said = [
        stop.step(StepInfo(step, 99, 1.0, bpb, 0, 0.0, 1.0, step % 2 == 0))
        for step, bpb in enumerate([None, None, 3.0, 3.0, 3.1, 3.1, 2.9, 2.9, 3.0, 3.0, 2.95, 2.95])
    ]
    assert [step for step, reason in enumerate(said) if reason] == [10]


def test_samples_when_a_run_is_cut_then_each_stands_there_once_and_nothing_else_changes(tmp_path: Path) -> None:
    def sample(model: Transformer, prompt: str) -> str:
        assert not model.training
        return f"{prompt} {float(model.embedding.weight.detach().sum()):.6f}"

    said: list[str] = []

    def samples() -> Samples:
        return Samples(sample, ["a", "b"], 4, said.append)

    whole = go(tmp_path / "whole", samples())
    plain = go(tmp_path / "plain")
    with pytest.raises(Stop):
        go(tmp_path / "parts", samples(), stops_at(8))
    with open(tmp_path / "parts" / "samples.jsonl", "a") as file:
        file.write('{"step": 8, "pro')  # torn by a kill
    parts = go(tmp_path / "parts", samples())
    assert [(row["step"], row["prompt"]) for row in read_samples(tmp_path / "parts")] == [
        (step, prompt) for step in (4, 8, 12) for prompt in ("a", "b")
    ]
    assert read_samples(tmp_path / "parts") == read_samples(tmp_path / "whole")
    assert said[0].startswith("step 4: a | a ")
    for a, b, c in zip(*(run.model.parameters() for run in (whole, plain, parts)), strict=True):
        assert torch.equal(a, b)
        assert torch.equal(a, c)
    assert json.loads((tmp_path / "whole" / "samples.jsonl").read_text().splitlines()[0])["text"]
