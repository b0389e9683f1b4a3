"""Resume and replay of every objective: the same bits, from any checkpoint, over any span."""

import json
from pathlib import Path

import cases
import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.train.loop import StepInfo, train
from gptwright.train.metrics import read_metrics
from gptwright.train.replay import replay


class Stop(Exception):
    pass


def run(name: str, folder: Path, stops: tuple[int, ...] = (), **changes: object) -> dict[str, torch.Tensor]:
    """A run, stopped and begun anew at these steps. Returns its final weights."""

    def callback(info: StepInfo) -> None:
        if info.step in left:
            left.remove(info.step)
            raise Stop

    left = list(stops)
    for _ in range(len(stops) + 1):
        case = cases.build(name, max_steps=12, checkpoint_every=3, keep_last=9, dtype="float32", **changes)
        try:
            train(case.model, case.plan, case.config, run_dir=folder, objective=case.objective, callbacks=[callback])
        except Stop:
            continue
    return {name: p.detach() for name, p in case.model.named_parameters()}


@pytest.mark.parametrize("name", cases.NAMES)
def test_run_when_stopped_and_begun_anew_then_ends_with_the_same_bits_and_replays(name: str, tmp_path: Path) -> None:
    whole, parts = run(name, tmp_path / "whole"), run(name, tmp_path / "parts", (2, 7, 10))
    for key in whole:
        assert torch.equal(whole[key], parts[key]), key
    rows = [
        [(row["step"], row["loss"]) for row in read_metrics(tmp_path / f / "metrics.jsonl")] for f in ("whole", "parts")
    ]
    assert rows[0] == rows[1]
    for start, stop in ((None, 3), (3, 12), (6, 9)):
        case = cases.build(name)
        again = replay(
            case.model,
            case.plan,
            tmp_path / "parts",
            start=None if start is None else tmp_path / "parts" / "checkpoints" / f"step-{start:08d}",
            stop=stop,
            objective=case.objective,
        )
        assert again.exact, again.differing
        assert again.same_weights is True
        assert (again.first, again.stop, len(again.losses)) == (start or 0, stop, stop - (start or 0))


def test_replay_when_a_run_continued_another_then_begins_where_it_began(tmp_path: Path) -> None:
    first = cases.build("pretrain", max_steps=20, dtype="float32")
    stable = train(first.model, first.plan, first.config, run_dir=tmp_path / "a").stable_checkpoint
    case = cases.build("pretrain", max_steps=4, dtype="float32", warmup_share=0.5)
    train(case.model, case.plan, case.config, run_dir=tmp_path / "b", start=stable)
    assert replay(None, case.plan, tmp_path / "b").same_weights is True


def test_replay_when_a_document_was_taken_out_then_is_the_run_without_it(tmp_path: Path) -> None:
    """The base of exact erasure: masked targets from a checkpoint before them give what training without them gives."""

    def masked(case: cases.Case) -> cases.Case:
        batch = case.plan.batch(7)
        batch.targets[1] = -100
        case.plan.special[7] = batch
        return case

    run("pretrain", tmp_path / "seen")
    control = masked(cases.build("pretrain", max_steps=12, checkpoint_every=3, keep_last=9, dtype="float32"))
    train(control.model, control.plan, control.config, run_dir=tmp_path / "never")
    case = masked(cases.build("pretrain"))
    clean = tmp_path / "seen" / "checkpoints" / "step-00000006"
    again = replay(case.model, case.plan, tmp_path / "seen", start=clean, out=tmp_path / "out")
    assert again.differing[0] == 7
    assert again.same_weights is False
    for name, p in control.model.named_parameters():
        assert torch.equal(again.checkpoint.weights[name], p), name
    assert (tmp_path / "out" / "step-00000012").is_dir()


def test_replay_when_asked_for_what_is_not_there_then_says_so(tmp_path: Path) -> None:
    case = cases.build("pretrain", max_steps=3)
    with pytest.raises(UserError, match="no run in this folder"):
        replay(None, case.plan, tmp_path)
    train(case.model, case.plan, case.config, run_dir=tmp_path)
    with pytest.raises(UserError, match="cannot take steps 0 to 9 of 3"):
        replay(None, case.plan, tmp_path, stop=9)
    case.plan.key = "other"
    with pytest.raises(UserError, match="the data plan changed"):
        replay(None, case.plan, tmp_path)


def test_rollouts_when_kept_then_are_read_and_never_drawn_again(tmp_path: Path) -> None:
    run("grpo", tmp_path)
    kept = json.loads((tmp_path / "rollouts" / "step-00000004.json").read_text())
    assert len(kept["answers"]) == len(kept["rewards"]) == 8

    def never(*_: object) -> list[float]:
        raise AssertionError("asked again")

    case = cases.build("grpo")
    case.objective.sample = case.objective.reward = never
    assert replay(case.model, case.plan, tmp_path, objective=case.objective).exact
