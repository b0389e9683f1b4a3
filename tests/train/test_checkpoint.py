"""Checkpoints: whole or absent, verified by hash, the previous one used when bytes changed, the disk full or not."""

import errno
import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_training import TinyPlan, tiny_config

import gptwright.train.checkpoint as module
from gptwright.core.errors import UserError
from gptwright.train.checkpoint import Checkpoint, latest_checkpoint, load_checkpoint, save_checkpoint
from gptwright.train.config import TrainConfig
from gptwright.train.loop import train

SCRIPT = Path(__file__).with_name("tiny_training.py")


def checkpoint(step: int) -> Checkpoint:
    generator = torch.Generator().manual_seed(step)
    weights = {"a": torch.randn(3, 5, generator=generator), "b.c": torch.randn(7, generator=generator)}
    return Checkpoint(
        step,
        step + 2,
        1.5,
        step * 10,
        2.25,
        weights,
        {"first.a": torch.randn(3, 5, generator=generator)},
        {"heldout_bpb": None},
    )


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_checkpoint_when_loaded_then_is_what_was_saved_with_the_generator(tmp_path: Path) -> None:
    torch.manual_seed(5)
    save_checkpoint(tmp_path, checkpoint(3))
    expected = torch.rand(4)
    torch.manual_seed(99)
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert torch.equal(torch.rand(4), expected)
    saved = checkpoint(3)
    assert (found.step, found.updates, found.tokens, found.loss, found.extra) == (3, 5, 30, 2.25, {"heldout_bpb": None})
    assert all(torch.equal(found.weights[n], saved.weights[n]) for n in saved.weights)
    assert all(torch.equal(found.optimizer[n], saved.optimizer[n]) for n in saved.optimizer)


def test_checkpoints_when_many_then_the_newest_two_stay_and_a_named_one_always(tmp_path: Path) -> None:
    save_checkpoint(tmp_path, checkpoint(1), name="stable")
    for step in (1, 2, 3, 9, 10):
        save_checkpoint(tmp_path, checkpoint(step))
    assert names(tmp_path) == ["stable", "step-00000009", "step-00000010"]


@pytest.mark.parametrize("file", ["weights.safetensors", "optimizer.safetensors", "state.json"])
@pytest.mark.parametrize("place", [0.0, 0.5, 0.999])
def test_checkpoint_when_one_byte_is_flipped_then_is_refused_by_name_and_the_previous_one_used(
    tmp_path: Path, file: str, place: float, capsys: pytest.CaptureFixture[str]
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    path = save_checkpoint(tmp_path, checkpoint(2)) / file
    data = bytearray(path.read_bytes())
    data[int(place * len(data))] ^= 0x04
    path.write_bytes(bytes(data))
    found = latest_checkpoint(tmp_path)
    assert found is not None
    assert found.step == 1
    said = capsys.readouterr().err
    assert "refused checkpoint step-00000002" in said
    assert file in said
    assert names(tmp_path) == ["refused-step-00000002", "step-00000001"]


@pytest.mark.parametrize("file", ["weights.safetensors", "state.json"])
def test_checkpoint_when_a_file_is_missing_or_cut_then_the_previous_one_is_used(tmp_path: Path, file: str) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    missing = save_checkpoint(tmp_path, checkpoint(2))
    (missing / file).unlink()
    assert (latest_checkpoint(tmp_path) or checkpoint(0)).step == 1
    cut = save_checkpoint(tmp_path, checkpoint(3)) / file
    cut.write_bytes(cut.read_bytes()[:-9])
    assert (latest_checkpoint(tmp_path) or checkpoint(0)).step == 1


def test_checkpoint_when_none_is_whole_then_says_what_to_do(tmp_path: Path) -> None:
    (save_checkpoint(tmp_path, checkpoint(1)) / "state.json").write_text("{}")
    for _ in range(2):  # the second time it is set aside already
        with pytest.raises(UserError, match="no checkpoint is whole"):
            latest_checkpoint(tmp_path)
    assert latest_checkpoint(tmp_path / "nowhere") is None


def test_training_when_the_newest_checkpoint_is_damaged_then_still_ends_with_the_same_bits(tmp_path: Path) -> None:
    config = TrainConfig(max_steps=12, checkpoint_every=4)
    whole = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "whole")

    def stop(info: object) -> None:
        if getattr(info, "step", 0) == 9:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "hurt", callbacks=[stop])
    path = tmp_path / "hurt" / "checkpoints" / "step-00000008" / "weights.safetensors"
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(bytes(data))
    hurt = train(tiny_config(), TinyPlan(), config, run_dir=tmp_path / "hurt")
    for a, b in zip(whole.model.parameters(), hurt.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_checkpoint_when_writing_fails_for_space_then_says_so_and_the_previous_one_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, checkpoint(1))
    real, calls = Path.write_bytes, []

    def failing(self: Path, data: bytes) -> int:
        calls.append(self.name)
        if len(calls) == 2:
            real(self, data[:10])
            raise OSError(errno.ENOSPC, "No space left on device")
        return real(self, data)

    monkeypatch.setattr(module.Path, "write_bytes", failing)
    with pytest.raises(UserError, match="disk is full"):
        save_checkpoint(tmp_path, checkpoint(2))
    monkeypatch.undo()
    assert names(tmp_path) == ["step-00000001"]
    assert load_checkpoint(tmp_path / "step-00000001").step == 1


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="no file size limit on Windows")
def test_training_when_the_disk_fills_then_exits_with_2_and_goes_on_once_there_is_space(tmp_path: Path) -> None:
    settings = json.dumps({"max_steps": 8, "checkpoint_every": 3, "compile": "off", "dtype": "float32"})
    run = tmp_path / "run"

    def start(*limit: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, str(SCRIPT), str(run), settings, *limit],
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )

    for limit in ("20000", "300"):  # the checkpoint does not fit; then not even the small files
        full = start(limit)
        assert full.returncode == 2, full.stderr
        assert "the disk is full" in full.stderr
        assert "Traceback" not in full.stderr
    assert start().returncode == 0
    whole = train(tiny_config(), TinyPlan(), TrainConfig(**json.loads(settings)), run_dir=tmp_path / "whole")
    found = latest_checkpoint(run / "checkpoints")
    assert found is not None
    for name, p in whole.model.named_parameters():
        assert torch.equal(found.weights[name], p), name
