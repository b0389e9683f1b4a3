"""kill -9 at random instants, then the same command again: the final weights are the same bits."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

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
