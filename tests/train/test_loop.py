"""The loop: what it learns, what it leaves untouched, and that every way through it gives the same bits."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch
from tiny_training import TinyBatch, TinyPlan, tiny_config

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.ledger import Ledger
from gptwright.model.lora import apply_lora
from gptwright.model.transformer import Transformer
from gptwright.train.checkpoint import latest_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.loop import StepInfo, train
from gptwright.train.metrics import read_metrics
from gptwright.train.stepper import Stepper


def weights(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: p.detach().clone() for name, p in model.named_parameters()}


def assert_same_bits(a: dict[str, torch.Tensor], b: dict[str, torch.Tensor]) -> None:
    assert a.keys() == b.keys()
    for name in a:
        assert torch.equal(a[name], b[name]), name


class Stop(Exception):
    pass


def stop_at(step: int, error: type[BaseException] = Stop):
    def callback(info: StepInfo) -> None:
        if info.step == step:
            raise error

    return callback


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("family", ["modern", "gpt2"])
def test_train_when_data_has_a_pattern_then_loss_falls_far_below_chance(
    tmp_path: Path, dtype: str, family: str
) -> None:
    plan = TinyPlan(rows=8)
    shape = tiny_config(family=family, n_kv_heads=2)
    heldout = Heldout([plan.batch(10**6)], np.ones(64, dtype=np.uint16))
    result = train(shape, plan, TrainConfig(max_steps=120, dtype=dtype), run_dir=tmp_path / "r", heldout=heldout)
    assert result.final_loss < 0.6 * math.log(64)
    assert result.heldout_bpb is not None
    assert result.heldout_bpb < 0.7 * 6
    assert result.steps == 120
    assert result.tokens == 120 * 8 * 16
    assert result.peak_share > 0


def test_train_when_stopped_and_run_again_then_ends_with_the_same_bits(tmp_path: Path) -> None:
    plan, config = TinyPlan(), TrainConfig(max_steps=25, checkpoint_every=7)
    whole = train(tiny_config(), plan, config, run_dir=tmp_path / "whole")
    for step in (5, 16, 24):
        with pytest.raises(Stop):
            train(tiny_config(), plan, config, run_dir=tmp_path / "parts", callbacks=[stop_at(step)])
    parts = train(tiny_config(), plan, config, run_dir=tmp_path / "parts")
    assert_same_bits(weights(whole.model), weights(parts.model))
    rows = read_metrics(tmp_path / "parts" / "metrics.jsonl")
    assert [row["step"] for row in rows] == list(range(1, 26))
    assert [row["loss"] for row in rows] == [row["loss"] for row in read_metrics(tmp_path / "whole" / "metrics.jsonl")]


def test_train_when_finished_and_run_again_then_gives_the_same_result_without_training(tmp_path: Path) -> None:
    config = TrainConfig(max_steps=5)
    first = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path)
    again = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path, callbacks=[stop_at(1)])
    assert_same_bits(weights(first.model), weights(again.model))
    assert (again.steps, again.final_loss, again.tokens) == (first.steps, first.final_loss, first.tokens)


def test_train_when_settings_changed_then_refuses_and_names_them(tmp_path: Path) -> None:
    train(tiny_config(), TinyPlan(), TrainConfig(max_steps=3), run_dir=tmp_path)
    with pytest.raises(UserError, match=r"lr_matrix was 0\.01, now 0\.5"):
        train(tiny_config(), TinyPlan(), TrainConfig(max_steps=3, lr_matrix=0.5), run_dir=tmp_path)
    with pytest.raises(UserError, match="data plan changed"):
        train(tiny_config(), TinyPlan(key="other"), TrainConfig(max_steps=3), run_dir=tmp_path)


def test_train_when_batch_is_split_then_gradients_weigh_tokens_not_parts(tmp_path: Path) -> None:
    """Rows have different numbers of targets: a mean of means would differ."""
    plan = TinyPlan(rows=6, masked=True)
    ends = []
    for micro in (96, 16, 32):
        config = TrainConfig(max_steps=4, dtype="float64", micro_tokens=micro)
        ends.append(weights(train(tiny_config(), plan, config, run_dir=tmp_path / str(micro)).model))
    for name in ends[0]:
        torch.testing.assert_close(ends[0][name], ends[1][name], rtol=1e-7, atol=1e-9)
        torch.testing.assert_close(ends[0][name], ends[2][name], rtol=1e-7, atol=1e-9)


def test_train_when_base_is_frozen_then_only_adapters_move_and_are_checkpointed(tmp_path: Path) -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)
    apply_lora(model, rank=4, alpha=8.0)
    before = weights(model)
    trainable = {name for name, p in model.named_parameters() if p.requires_grad}
    assert 0 < len(trainable) < len(before)
    result = train(
        model, TinyPlan(masked=True), TrainConfig(objective="sft", max_steps=8, dtype="bfloat16"), run_dir=tmp_path
    )
    assert result.model is model
    after = weights(model)
    moved = {name for name in after if not torch.equal(before[name], after[name])}
    assert moved == trainable
    from safetensors import safe_open

    with safe_open(result.checkpoint / "weights.safetensors", "pt") as file:
        assert set(file.keys()) == trainable


def test_train_when_started_from_a_stable_checkpoint_then_goes_on_from_its_weights_and_moments(tmp_path: Path) -> None:
    first = train(tiny_config(), TinyPlan(), TrainConfig(max_steps=20), run_dir=tmp_path / "a")
    assert first.stable_checkpoint is not None
    more = TrainConfig(max_steps=1, decay_share=0.0, warmup_share=0.0, clip_norm=1e9)
    continued = train(tiny_config(), TinyPlan(), more, run_dir=tmp_path / "b", start=first.stable_checkpoint)
    fresh = train(tiny_config(), TinyPlan(), more, run_dir=tmp_path / "c")
    stable_loss = read_metrics(tmp_path / "a" / "metrics.jsonl")[11]["loss"]
    assert abs(read_metrics(tmp_path / "b" / "metrics.jsonl")[0]["loss"] - stable_loss) < 0.5
    assert continued.final_loss < fresh.final_loss - 0.2


def test_train_when_interrupted_by_a_signal_then_saves_and_says_how_to_go_on(tmp_path: Path) -> None:
    import signal

    def press(info: StepInfo) -> None:
        if info.step == 4:
            signal.raise_signal(signal.SIGINT)

    config = TrainConfig(max_steps=10)
    with pytest.raises(Interrupted, match="stopped after step 4 of 10"):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "a", callbacks=[press])
    assert (tmp_path / "a" / "checkpoints" / "step-00000004").is_dir()
    whole = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "b")
    parts = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "a")
    assert_same_bits(weights(whole.model), weights(parts.model))


def test_train_when_loss_is_nan_then_names_the_documents_and_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    model = Transformer(tiny_config())
    model.init_weights(0)

    def poison(info: StepInfo) -> None:
        if info.step == 6:
            with torch.no_grad():
                model.blocks[0].feed_forward.up.weight[0, 0] = float("nan")

    with pytest.raises(UserError, match=r"not a number at step 6; documents of the batch: doc-6-0, doc-6-1"):
        train(
            model,
            TinyPlan(),
            TrainConfig(max_steps=10, checkpoint_every=5, decay_share=0.1, dtype="float32"),
            run_dir=tmp_path,
            callbacks=[poison],
        )
    kept = latest_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 5
    assert all(torch.isfinite(t).all() for t in kept.weights.values())


@pytest.mark.parametrize("last", [6, 10])
def test_train_when_an_update_ruins_the_weights_then_they_are_never_the_newest_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, last: int
) -> None:
    apply = Stepper.apply

    def ruin(self: Stepper, step: int, share: float, grad_norm: float) -> None:
        apply(self, step, share, grad_norm)
        if step == 5:
            next(iter(self.masters.values())).data[0, 0] = float("inf")

    monkeypatch.setattr(Stepper, "apply", ruin)
    config = TrainConfig(max_steps=last, checkpoint_every=2, dtype="float32")
    with pytest.raises(UserError, match=r"the weights are not numbers at step 6; documents of the batch: doc-5-0"):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path)
    kept = latest_checkpoint(tmp_path / "checkpoints")
    assert kept is not None
    assert kept.step == 4


def test_train_when_the_heldout_loss_is_nan_then_stops_before_a_checkpoint(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    plan = TinyPlan()
    monkeypatch.setattr(Stepper, "evaluate", lambda self, batch: (float("nan"), 1))
    heldout = Heldout([plan.batch(10**6)], np.ones(64, dtype=np.uint16))
    with pytest.raises(UserError, match="the held-out loss is not a number at step 1"):
        train(tiny_config(), plan, TrainConfig(max_steps=3), run_dir=tmp_path, heldout=heldout)
    assert latest_checkpoint(tmp_path / "checkpoints") is None


def test_train_when_a_batch_has_no_targets_then_says_so(tmp_path: Path) -> None:
    empty = TinyBatch(torch.zeros(2, 16, dtype=torch.long), torch.full((2, 16), -100), ["d"])
    with pytest.raises(UserError, match="step 1 has no targets"):
        train(tiny_config(), TinyPlan(special={1: empty}), TrainConfig(max_steps=3), run_dir=tmp_path)


def test_train_when_everything_is_frozen_then_says_so(tmp_path: Path) -> None:
    model = Transformer(tiny_config()).requires_grad_(False)
    with pytest.raises(UserError, match="nothing to train"):
        train(model, TinyPlan(), TrainConfig(max_steps=3), run_dir=tmp_path)


def test_train_when_a_ledger_is_given_then_the_run_its_end_and_its_numbers_are_in_it(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        train(tiny_config(), TinyPlan(), TrainConfig(max_steps=4), run_dir=tmp_path / "run-1", ledger=ledger)
        with pytest.raises(Stop):
            train(
                tiny_config(),
                TinyPlan(),
                TrainConfig(max_steps=4),
                run_dir=tmp_path / "run-2",
                ledger=ledger,
                callbacks=[stop_at(2)],
            )
        done, failed = ledger.run("run-1"), ledger.run("run-2")
    assert done is not None
    assert (done.state, done.stage, done.meta["steps"]) == ("done", "pretrain", 4)
    assert failed is not None
    assert failed.state == "failed"


def test_train_when_done_then_run_folder_holds_config_metrics_plot_and_result(tmp_path: Path) -> None:
    train(tiny_config(), TinyPlan(), TrainConfig(max_steps=4), run_dir=tmp_path)
    names = {path.name for path in tmp_path.iterdir()}
    assert {"config.json", "metrics.jsonl", "loss.svg", "result.json", "checkpoints"} <= names
    assert not [name for name in names if name.startswith(".tmp-")]
