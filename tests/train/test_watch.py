"""What a run records of itself, and how it explains a jump: planted faults, each of which must be named."""

import dataclasses
import math
import mmap
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.files import read_json
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.callbacks import StepInfo
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout, Work
from gptwright.train.diagnose import layer_norms
from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics
from gptwright.train.reread import by_kind, older_weights, reread
from gptwright.train.spikes import Detector
from gptwright.train.stepper import Stepper
from gptwright.train.watch import Diverged, explanations, memory

FAULT = 90


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig(**{"max_steps": 120, "dtype": "float32", "threads": 1, **changes})


class Poisoned(TinyPlan):
    """Two documents a row; at one step the second one of row 2 is noise (random tokens), or one wrong answer over and over."""

    fault = "random"
    cut = 3  # where the second begins

    def batch(self, step: int) -> Work:
        found = super().batch(step)
        tokens, targets = found.tokens.numpy().copy(), found.targets.numpy().copy()
        half = self.cut
        if step == FAULT:
            draw = np.random.default_rng(5)
            if self.fault == "random":
                tokens[2, half:] = draw.integers(0, 64, self.seq_len - half)
            targets[2, half:] = draw.integers(0, 64, self.seq_len - half) if self.fault == "random" else 7
        segments = np.tile((np.arange(self.seq_len) >= half).astype(np.int64), (len(tokens), 1))
        rows = [[f"{doc}-a", f"{doc}-b"] for doc in found.docs]
        return Work(tokens, targets, [uid for row in rows for uid in row], {}, segments, rows)


@pytest.mark.parametrize("fault", ["random", "wrong"])
@pytest.mark.parametrize("every", [20, None])
def test_loss_when_one_document_is_poison_then_it_alone_is_named(fault: str, every: int | None, tmp_path: Path) -> None:
    plan = Poisoned(rows=8)
    plan.fault = fault
    train(tiny_config(), plan, settings(checkpoint_every=every), run_dir=tmp_path)
    told = explanations(tmp_path)
    assert [(one["step"], one["cause"]) for one in told] == [(FAULT, "documents")]
    assert [uid for uid, _ in told[0]["documents"]] == [f"doc-{FAULT}-2-b"]
    assert f"data why id:doc-{FAULT}-2-b" in told[0]["fix"]
    assert bool(told[0]["before"]) == bool(every)
    assert read_json(tmp_path / "result.json")["explanations"] == told


@pytest.mark.parametrize("every", [20, None])
def test_loss_when_one_layer_explodes_then_it_alone_is_named(
    every: int | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = Transformer(tiny_config(n_layers=4))
    model.init_weights(0)

    def explode(info: StepInfo) -> None:
        if info.step == 70:
            with torch.no_grad():
                model.blocks[1].feed_forward.down.weight.mul_(50)

    train(model, TinyPlan(rows=8), settings(checkpoint_every=every), run_dir=tmp_path, callbacks=[explode])
    first = explanations(tmp_path)[0]
    assert (first["step"], first["cause"]) == (70, "layer")
    assert first["layer"] == ("blocks.1.feed_forward.down" if every else "blocks.1")
    assert "lr_matrix" in first["fix"]
    assert first["layer"] in capsys.readouterr().err


@pytest.mark.parametrize(
    "changes",
    [{"lr_embedding": 3.0}, {"lr_embedding": 3.0, "checkpoint_every": 5}, {"optimizer": "adamw", "lr_other": 30.0}],
)
def test_run_when_a_rate_is_too_high_then_it_is_named_and_the_run_stops(
    changes: dict[str, Any], tmp_path: Path
) -> None:
    name = next(key for key in changes if key.startswith("lr_"))
    with pytest.raises(Diverged, match=f"the run diverges.*the rate is too high.*{name} is .* times the default"):
        train(tiny_config(), TinyPlan(rows=8), settings(**changes), run_dir=tmp_path)
    result = read_json(tmp_path / "result.json")
    assert (result["state"], result["explanations"][0]["cause"]) == ("failed", "rate")
    assert "the rate is too high" in result["why"]


def test_run_that_diverged_when_told_to_go_on_then_does(tmp_path: Path) -> None:
    for _ in range(2):
        with pytest.raises(Diverged):
            train(tiny_config(), TinyPlan(rows=8), settings(lr_embedding=3.0), run_dir=tmp_path)
    told = settings(lr_embedding=3.0, on_divergence="tell")
    assert train(tiny_config(), TinyPlan(rows=8), told, run_dir=tmp_path).steps == 120
    assert "state" not in read_json(tmp_path / "result.json")


def test_run_when_nothing_is_planted_then_nothing_is_told(tmp_path: Path) -> None:
    for seed in range(3):
        plan = TinyPlan(rows=4, key=f"tiny-{seed}")
        first = seed * 1000
        plan.batch = lambda step, plan=plan, first=first: TinyPlan.batch(plan, first + step)  # type: ignore[method-assign]
        train(tiny_config(), plan, settings(seed=seed, max_steps=200), run_dir=tmp_path / str(seed))
        assert explanations(tmp_path / str(seed)) == []


def test_spike_when_explained_then_bits_are_those_of_a_run_that_is_not_watched(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watched = train(tiny_config(), Poisoned(rows=8), settings(checkpoint_every=20), run_dir=tmp_path / "a")
    assert explanations(tmp_path / "a")
    monkeypatch.setattr("gptwright.train.watch.Watch.before", lambda *_: None)
    plain = train(tiny_config(), Poisoned(rows=8), settings(checkpoint_every=20), run_dir=tmp_path / "b")
    for a, b in zip(watched.model.parameters(), plain.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_spike_when_the_run_is_resumed_behind_it_then_is_told_once(tmp_path: Path) -> None:
    def stop(info: StepInfo) -> None:
        if info.step == FAULT + 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), Poisoned(rows=8), settings(checkpoint_every=20), run_dir=tmp_path, callbacks=[stop])
    assert read_json(tmp_path / "result.json")["state"] == "interrupted"
    train(tiny_config(), Poisoned(rows=8), settings(checkpoint_every=20), run_dir=tmp_path)
    assert [one["step"] for one in explanations(tmp_path)] == [FAULT]


def test_detector_when_its_state_is_put_back_then_judges_alike() -> None:
    draw = np.random.default_rng(1)
    steps = [(2.0 + 0.05 * draw.standard_normal(), math.exp(0.3 * draw.standard_normal())) for _ in range(300)]
    steps[200] = (2.0, 40.0)
    steps[250] = (4.0, 1.0)
    whole, parts = Detector(True, True), Detector(True, True)
    found = [whole.add(step, *values) for step, values in enumerate(steps)]
    assert [(s.step, s.kind) for s in found if s] == [(200, "gradient"), (250, "loss")]
    again = []
    for step, values in enumerate(steps):
        if step % 37 == 0:
            state, parts = parts.state(), Detector(True, True)
            parts.load(state)
        again.append(parts.add(step, *values))
    assert again == found


def test_reread_when_a_batch_is_packed_then_losses_are_those_of_each_document() -> None:
    model = Transformer(tiny_config())
    model.init_weights(3)
    config = settings(document_mask="on", compile="off")
    stepper = Stepper(model, config, machine.choose(config))
    batch = Poisoned(rows=4).batch(0)
    batch.targets[1, 3] = -100
    found = reread(stepper, batch)
    with torch.no_grad():  # each document by itself is what it is among others
        for row, docs in enumerate(batch.row_docs):
            for uid, part in zip(docs, (slice(0, 3), slice(3, 16)), strict=True):
                logits = model.logits(model(torch.from_numpy(batch.tokens[row : row + 1, part])))[0]
                goal = torch.from_numpy(batch.targets[row, part])
                assert found.losses[uid] == pytest.approx(
                    float(torch.nn.functional.cross_entropy(logits, goal)), rel=1e-5
                )
                assert found.targets[uid] == int((goal >= 0).sum())
    assert next(iter(found.layers)) == "embedding"


def test_older_weights_when_left_then_the_weights_and_the_generator_are_as_before(tmp_path: Path) -> None:
    result = train(tiny_config(), TinyPlan(), settings(max_steps=4, checkpoint_every=2), run_dir=tmp_path)
    config = settings(compile="off")
    stepper = Stepper(result.model.train(), config, machine.choose(config))
    before = {name: p.detach().clone() for name, p in stepper.params.items()}
    generator = torch.get_rng_state()
    with pytest.raises(KeyError), older_weights(stepper, tmp_path / "checkpoints" / "step-00000002") as read:
        assert read
        assert not torch.equal(before["embedding.weight"], stepper.params["embedding.weight"])
        raise KeyError
    with older_weights(stepper, tmp_path / "nowhere") as read:
        assert not read
    assert all(torch.equal(p, before[name]) for name, p in stepper.params.items())
    assert torch.equal(generator, torch.get_rng_state())


def test_growth_when_all_of_a_kind_grow_then_it_is_no_news() -> None:
    grown = by_kind({"blocks.0.a": 40.0, "blocks.1.a": 44.0, "blocks.2.a": 400.0, "norm": 1.1})
    assert grown["blocks.0.a"] == 1.0
    assert grown["blocks.2.a"] == 10.0
    assert grown["norm"] == 1.1


def test_layers_when_measured_then_ratio_is_that_of_the_weights_before_and_after(tmp_path: Path) -> None:
    config = settings(max_steps=12, watch_every=5, checkpoint_every=1, keep_last=20, compile="off")
    train(tiny_config(), TinyPlan(), config, run_dir=tmp_path)
    rows = {row["step"]: row for row in read_metrics(tmp_path / "metrics.jsonl")}
    assert [step for step, row in rows.items() if "update_ratio" in row] == [1, 2, 4, 6, 8, 11]
    from gptwright.train.checkpoint import load_checkpoint

    before, after = (load_checkpoint(tmp_path / "checkpoints" / f"step-{n:08d}").weights for n in (5, 6))
    sizes = layer_norms({name: float(p.norm()) for name, p in after.items()})
    moved = layer_norms({name: float((after[name] - before[name]).norm()) for name in after})
    row = rows[6]
    assert set(sizes) == {"embedding", "blocks.0", "blocks.1", "norm"}
    for layer, size in sizes.items():
        assert row[f"weight_norm/{layer}"] == pytest.approx(size, rel=1e-4)
        assert row[f"update_ratio/{layer}"] == pytest.approx(moved[layer] / size, rel=1e-3)
    squares = sum(value**2 for name, value in row.items() if name.startswith("grad_norm/"))
    assert math.sqrt(squares) == pytest.approx(row["grad_norm"], rel=1e-4)
    assert row["rss_bytes"] > 1e7
    assert rows[7]["lr_matrix"] == pytest.approx(config.lr_matrix * rows[7]["lr_share"])
    assert all({"tokens_per_s", "peak_share", "lr_embedding", "lr_other"} <= row.keys() for row in rows.values())


def test_memory_when_asked_then_counts_what_is_held() -> None:
    before = memory("cpu")["rss_bytes"]
    with mmap.mmap(-1, 64_000_000) as held:  # fresh pages: an array might stand in memory that this process had before
        held.write(bytes(64_000_000))
        assert memory("cpu")["rss_bytes"] - before > 0.7 * 64_000_000


def test_heldout_when_of_two_sources_then_each_has_its_number_and_the_whole_is_weighted(tmp_path: Path) -> None:
    plan = TinyPlan()
    easy, hard = plan.batch(10**6), plan.batch(10**6 + 1)
    hard.targets[:] = torch.randint(0, 64, hard.targets.shape, generator=torch.Generator().manual_seed(0))
    lengths = np.full(64, 2, dtype=np.uint16)
    heldout = Heldout([easy, easy, hard], lengths, ["easy", "easy", "hard"], {"easy": 0.25, "hard": 0.75})
    result = train(tiny_config(), plan, settings(max_steps=40), run_dir=tmp_path, heldout=heldout)
    row = read_metrics(tmp_path / "metrics.jsonl")[-1]
    easy_bpb, hard_bpb = row["heldout_bpb/easy"], row["heldout_bpb/hard"]
    assert easy_bpb < hard_bpb
    assert result.heldout_bpb == row["heldout_bpb"] == pytest.approx(0.25 * easy_bpb + 0.75 * hard_bpb)
    assert hard_bpb > 6 / 2  # ln 64 nats over 2 bytes, at the least
    one = dataclasses.replace(heldout, sources=[], shares={})
    assert one.bits_per_byte([math.log(2) * 64 * 2] * 3) == (1.0, {})
