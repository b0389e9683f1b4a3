"""What goes wrong while training: numbers that are none, a full disk, a clock set back, damaged shards; and checkpoints in a thread."""

import errno
import json
import time
from pathlib import Path

import cases
import numpy as np
import pytest
import torch
from tiny_training import TinyPlan, tiny_config

import gptwright.train.checkpoint as checkpoint_module
from gptwright.core.errors import UserError
from gptwright.model.transformer import Transformer
from gptwright.train.checkpoint import latest_checkpoint, load_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout, Work
from gptwright.train.loop import StepInfo, train
from gptwright.train.metrics import read_metrics
from gptwright.train.replay import replay
from gptwright.train.run import RunFolder
from gptwright.train.writer import CheckpointWriter

POISON = 63


class PoisonedPlan(TinyPlan):
    """Token 63 stands in one row of step 3 alone; its embedding is not a number."""

    def batch(self, step: int) -> Work:
        found = super().batch(step)
        tokens, targets = found.tokens.clone() % POISON, found.targets.clone() % POISON
        if step == 3:
            tokens[2, 5] = POISON
        return Work(tokens.numpy(), targets.numpy(), found.docs, row_docs=[[doc] for doc in found.docs])


def poisoned() -> Transformer:
    model = Transformer(tiny_config(tie_embeddings=False))  # a tied head would spread it to every row
    model.init_weights(0)
    with torch.no_grad():
        model.embedding.weight[POISON] = float("inf")
    model.embedding.weight.requires_grad_(False)
    return model


@pytest.mark.parametrize("compiled", ["off", "auto"])
def test_nan_when_in_one_batch_then_the_document_and_the_layer_are_named(compiled: str, tmp_path: Path) -> None:
    config = TrainConfig(max_steps=6, dtype="float32", compile=compiled)
    with pytest.raises(UserError, match=r"at step 3; documents of the batch: doc-3-2; first in embedding") as caught:
        train(poisoned(), PoisonedPlan(), config, run_dir=tmp_path)
    assert "doc-3-1" not in str(caught.value)
    assert 'on_nan = "skip"' in str(caught.value)


def test_nan_when_a_gradient_alone_is_none_then_its_layer_is_named(tmp_path: Path) -> None:
    class Bad(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.view_as(x)

        @staticmethod
        def backward(ctx, g):
            return g * float("nan")

    model = Transformer(tiny_config())
    model.init_weights(0)
    model.blocks[1].feed_forward.up.register_forward_hook(lambda module, given, out: Bad.apply(out))
    config = TrainConfig(max_steps=2, dtype="float32", compile="off")
    with pytest.raises(
        UserError, match=r"the gradient is not a number at step 0; .* first in the gradient of blocks\.1"
    ):
        train(model, TinyPlan(), config, run_dir=tmp_path)


def test_nan_when_it_may_be_skipped_then_the_step_is_recorded_changes_nothing_and_repeats_alike(tmp_path: Path) -> None:
    class Stop(Exception):
        pass

    def stop(info: StepInfo) -> None:
        if info.step == 5:
            raise Stop

    config = TrainConfig(max_steps=8, dtype="float32", on_nan="skip", checkpoint_every=2, keep_last=9)
    whole = train(poisoned(), PoisonedPlan(), config, run_dir=tmp_path / "whole")
    with pytest.raises(Stop):
        train(poisoned(), PoisonedPlan(), config, run_dir=tmp_path / "parts", callbacks=[stop])
    parts = train(poisoned(), PoisonedPlan(), config, run_dir=tmp_path / "parts")
    for a, b in zip(whole.model.parameters(), parts.model.parameters(), strict=True):
        assert torch.equal(a, b)
    events = RunFolder(tmp_path / "parts", None).decisions("step_skipped")
    assert [(event["step"], event["docs"], event["layer"]) for event in events] == [(3, ["doc-3-2"], "embedding")]
    assert load_checkpoint(whole.checkpoint).updates == 7
    assert [row["step"] for row in read_metrics(tmp_path / "whole" / "metrics.jsonl")] == [1, 2, 3, 5, 6, 7, 8]
    assert replay(poisoned(), PoisonedPlan(), tmp_path / "parts").exact


def test_nan_when_every_batch_has_it_then_skipping_ends(tmp_path: Path) -> None:
    model = poisoned()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with pytest.raises(UserError, match="at step 4"):
        train(model, PoisonedPlan(), TrainConfig(max_steps=20, dtype="float32", on_nan="skip"), run_dir=tmp_path)


@pytest.mark.parametrize("background", [True, False])
def test_checkpoint_when_the_disk_is_full_then_the_run_says_so_and_goes_on_later_with_the_same_bits(
    background: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = TrainConfig(max_steps=12, checkpoint_every=3, dtype="float32", checkpoint_async=background)
    whole = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "whole")
    real, calls = Path.write_bytes, []

    def failing(self: Path, data: bytes) -> int:
        calls.append(self)
        if len(calls) > 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(checkpoint_module.Path, "write_bytes", failing)
    with pytest.raises(UserError, match="the disk is full"):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "full")
    monkeypatch.undo()
    kept = latest_checkpoint(tmp_path / "full" / "checkpoints")
    assert kept is not None
    assert kept.step == 3
    full = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "full")
    for a, b in zip(whole.model.parameters(), full.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_writer_when_tensors_change_after_save_then_the_checkpoint_is_of_the_moment(tmp_path: Path) -> None:
    weights = {"a": torch.arange(4.0)}
    writer = CheckpointWriter(True, 2)
    for step in range(1, 6):
        weights["a"].fill_(step)
        extra = {"heldout_bpb": None}
        at = checkpoint_module.Checkpoint(step, step, 0.0, 0, 0.0, weights, {"m": weights["a"]}, extra)
        writer.save(tmp_path, at)
        weights["a"].fill_(-1)
    writer.wait()
    writer.close()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000004", "step-00000005"]
    for step in (4, 5):
        found = load_checkpoint(tmp_path / f"step-{step:08d}")
        assert found.weights["a"].tolist() == [step] * 4
        assert found.optimizer["m"].tolist() == [step] * 4


def test_checkpoints_when_kept_by_number_and_best_then_those_stay(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan, scores = TinyPlan(), iter([5.0, 3.0, 4.0, 3.5, 6.0])
    monkeypatch.setattr("gptwright.train.loop._Run._measure", lambda self: next(scores))
    config = TrainConfig(max_steps=10, checkpoint_every=1, eval_every=2, keep_last=3, keep_best=True, decay_share=0.0)
    heldout = Heldout([plan.batch(99)], np.ones(64, dtype=np.uint16))
    result = train(tiny_config(), plan, config, run_dir=tmp_path, heldout=heldout)
    assert [p.name for p in sorted((tmp_path / "checkpoints").iterdir())] == [f"step-{n:08d}" for n in (8, 9, 10)]
    assert result.best_checkpoint is not None
    best = load_checkpoint(result.best_checkpoint)
    assert (best.step, best.extra["heldout_bpb"], best.extra["best_bpb"]) == (4, 3.0, 3.0)


def test_run_when_the_clock_is_set_back_then_nothing_changes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(max_steps=10, checkpoint_every=3, dtype="float32", max_time=60)
    whole = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "whole")
    now = [2e9]

    def back() -> float:
        now[0] -= 86_400
        return now[0]

    def interrupt(info: StepInfo) -> None:
        if info.step == 7:
            raise KeyboardInterrupt

    monkeypatch.setattr(time, "time", back)
    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "back", callbacks=[interrupt])
    for path in (tmp_path / "back" / "checkpoints").iterdir():  # and files that claim to be of another year
        import os

        os.utime(path, (1e9 - int(path.name[-2:]), 1e9 - int(path.name[-2:])))
    found = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "back")
    for a, b in zip(whole.model.parameters(), found.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert found.seconds >= 0


def test_run_when_begun_before_a_setting_existed_then_its_default_is_taken(tmp_path: Path) -> None:
    config = TrainConfig(max_steps=4, checkpoint_every=2, dtype="float32")

    def interrupt(info: StepInfo) -> None:
        if info.step == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path, callbacks=[interrupt])
    stored = json.loads((tmp_path / "config.json").read_text())
    for name in ("goldfish", "beta", "keep_best", "document_mask", "on_nan"):
        del stored["train"][name]
    (tmp_path / "config.json").write_text(json.dumps(stored))
    assert train(tiny_config(), TinyPlan(), config, run_dir=tmp_path).steps == 4
    with pytest.raises(UserError, match="goldfish was 0, now 4"):
        train(tiny_config(), TinyPlan(), config.model_copy(update={"goldfish": 4}), run_dir=tmp_path)


@pytest.mark.parametrize("name", ["dpo", "grpo"])
def test_run_when_killed_between_a_rollout_or_reference_and_a_step_then_ends_alike(name: str, tmp_path: Path) -> None:
    """The files beside the checkpoint may be ahead of it; they are read, not made from other weights."""
    case = cases.build(name, max_steps=6, checkpoint_every=5, dtype="float32")
    train(case.model, case.plan, case.config, run_dir=tmp_path / "whole", objective=case.objective)

    class Stop(Exception):
        pass

    def stop(info: StepInfo) -> None:
        if info.step == 4:
            raise Stop

    again = cases.build(name, max_steps=6, checkpoint_every=5, dtype="float32")
    with pytest.raises(Stop):
        train(
            again.model, again.plan, again.config, run_dir=tmp_path / "cut", objective=again.objective, callbacks=[stop]
        )
    last = cases.build(name, max_steps=6, checkpoint_every=5, dtype="float32")
    train(last.model, last.plan, last.config, run_dir=tmp_path / "cut", objective=last.objective)
    for a, b in zip(case.model.parameters(), last.model.parameters(), strict=True):
        assert torch.equal(a, b)
