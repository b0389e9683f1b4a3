"""kill -9 at random instants, then the same command again: the final weights are the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import cases
import pytest
from case_training import run as run_case

from gptwright.core.hashing import b2_file
from gptwright.train.metrics import read_metrics

SCRIPT = Path(__file__).with_name("tiny_training.py")
STEPS = 160


def command(run: Path) -> list[str]:
    settings = {
        "max_steps": STEPS,
        "checkpoint_every": 3,
        "dtype": "bfloat16",
        "seed": 3,
        "threads": 2,
        "micro_tokens": 16,
    }
    return [sys.executable, str(SCRIPT), str(run), json.dumps(settings)]


def final_hash(run: Path) -> str:
    return b2_file(run / "checkpoints" / f"step-{STEPS:08d}" / "weights.safetensors")


def steps_done(run: Path) -> int:
    rows = read_metrics(run / "metrics.jsonl")
    return int(rows[-1]["step"]) if rows else 0


def kills(tmp_path: Path, count: int, seed: int) -> None:
    subprocess.run(command(tmp_path / "whole"), check=True, capture_output=True, timeout=300)
    whole = final_hash(tmp_path / "whole")
    draw, run, died, at = random.Random(seed), tmp_path / "killed", 0, []
    places = sorted(draw.uniform(0, 0.9) for _ in range(count))
    paced = os.environ | {"TINY_PAUSE_S": "0.03"}  # or a fast machine is done before the signal arrives
    for place in places:
        with subprocess.Popen(command(run), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=paced) as process:
            while process.poll() is None and steps_done(run) < place * STEPS:
                time.sleep(0.004)
            time.sleep(draw.uniform(0, 0.06))  # so that the kill falls anywhere in a step or a checkpoint
            if process.poll() is None:
                os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()
                died += 1
                at.append(steps_done(run))
    assert died == count, "the run was too short to be killed"
    subprocess.run(command(run), check=True, capture_output=True, timeout=300)
    assert final_hash(run) == whole, f"killed at steps {at} (seed {seed})"
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == list(range(1, STEPS + 1))


@pytest.mark.slow
def test_weights_when_killed_at_random_instants_then_end_bit_identical(tmp_path: Path) -> None:
    kills(tmp_path, count=3, seed=random.SystemRandom().randrange(10**6))


@pytest.mark.soak
def test_weights_when_killed_thirty_times_then_end_bit_identical(tmp_path: Path) -> None:
    kills(tmp_path, count=30, seed=1)


def kills_of(name: str, tmp_path: Path, count: int, seed: int, steps: int = 40) -> None:
    """As ``kills``, for one of the cases; the undisturbed run is made in this process."""
    run_case(name, tmp_path / "whole", steps)
    run, draw, died = tmp_path / "killed", random.Random(seed), 0
    call = [sys.executable, str(SCRIPT.with_name("case_training.py")), name, str(run), str(steps)]
    paced = os.environ | {"TINY_PAUSE_S": "0.05"}
    for place in sorted(draw.uniform(0, 0.85) for _ in range(count)):
        with subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=paced) as process:
            while process.poll() is None and steps_done(run) < place * steps:
                time.sleep(0.004)
            time.sleep(draw.uniform(0, 0.08))
            if process.poll() is None:
                os.kill(process.pid, getattr(signal, "SIGKILL", signal.SIGTERM))
                process.wait()
                died += 1
    assert died == count, "the run was too short to be killed"
    run_case(name, run, steps)
    for file in ("weights.safetensors", "optimizer.safetensors"):
        ends = [b2_file(tmp_path / f / "checkpoints" / f"step-{steps:08d}" / file) for f in ("whole", "killed")]
        assert ends[0] == ends[1], f"{name} {file} (seed {seed})"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["sft-lora", "dpo", "kto", "grpo", "distill"])
def test_objective_when_killed_at_a_random_instant_then_ends_bit_identical(name: str, tmp_path: Path) -> None:
    kills_of(name, tmp_path, count=1, seed=random.SystemRandom().randrange(10**6))


@pytest.mark.soak
@pytest.mark.parametrize("name", cases.NAMES)
def test_objective_when_killed_thirty_times_then_ends_bit_identical(name: str, tmp_path: Path) -> None:
    kills_of(name, tmp_path, count=30, seed=2, steps=120)
