"""kill -9 at random instants, then the same call again: the final weights, moments and curve are the same."""

import os
import random
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cases
import pytest
from forked import Nursery

from gptwright.core.hashing import b2_file
from gptwright.train.metrics import read_metrics

# Every objective, and where it trains adapters too, both.
ALL = [*cases.NAMES, "ipo-lora", "kto-lora", "grpo-lora", "distill-lora"]
PRODUCTION = {  # two workers, kernels, bf16 where the processor has it
    "checkpoint_every": 3,
    "dtype": "bfloat16",
    "seed": 3,
    "threads": 2,
    "micro_tokens": 16,
}


@pytest.fixture(scope="module")
def nursery() -> Iterator[Nursery]:
    """Begins runs."""
    with Nursery() as found:
        yield found


def lines(run: Path) -> int:
    """Steps done, as far as metrics.jsonl says."""
    path = run / "metrics.jsonl"
    return path.read_bytes().count(b"\n") if path.exists() else 0


def kills(nursery: Nursery, run: dict[str, Any], steps: int, tmp_path: Path, count: int, seed: int) -> None:
    """Kill a run at ``count`` instants spread over it, each anywhere in a step or a checkpoint, and compare with one left alone.

    Args:
        nursery: begins the runs.
        run: see ``forked.take``; without its folder.
        steps: that it takes.
        tmp_path: for both folders.
        count: kills that have to hit a living process.
        seed: of the instants.
    """
    whole, killed, draw = tmp_path / "whole", tmp_path / "killed", random.Random(seed)
    nursery.start({**run, "folder": str(whole), "pause_s": 0})
    assert nursery.wait() == 0
    died, at, most = 0, [], lines(whole)  # a step in which no answer teaches anything leaves no line
    for place in sorted(draw.uniform(0, 0.9) for _ in range(count)):
        pid = nursery.start({**run, "folder": str(killed), "pause_s": 0.02})
        until = time.monotonic() + 60
        while lines(killed) < place * most and time.monotonic() < until:
            time.sleep(0.005)
        time.sleep(draw.uniform(0, 0.05))
        os.kill(pid, getattr(signal, "SIGKILL", signal.SIGTERM))
        died += nursery.wait() != 0
        at.append(lines(killed))
    assert died == count, "a run ended before it was killed"
    nursery.start({**run, "folder": str(killed), "pause_s": 0})
    assert nursery.wait() == 0
    said = f"{run} killed at steps {at} (seed {seed})"
    for file in ("weights.safetensors", "optimizer.safetensors"):
        ends = [b2_file(f / "checkpoints" / f"step-{steps:08d}" / file) for f in (whole, killed)]
        assert ends[0] == ends[1], said
    curves = [[(row["step"], row.get("loss")) for row in read_metrics(f / "metrics.jsonl")] for f in (whole, killed)]
    assert curves[0] == curves[1], said


def anywhere() -> int:
    """Another seed each time; a failure names it."""
    return random.SystemRandom().randrange(10**6)


@pytest.mark.slow
def test_run_when_killed_at_five_instants_then_ends_bit_identical(nursery: Nursery, tmp_path: Path) -> None:
    kills(nursery, {"config": PRODUCTION | {"max_steps": 60}}, 60, tmp_path, 5, anywhere())


@pytest.mark.slow
@pytest.mark.parametrize("name", ALL)
def test_objective_when_killed_at_five_instants_then_ends_bit_identical(
    name: str, nursery: Nursery, tmp_path: Path
) -> None:
    kills(nursery, {"case": name, "steps": 30}, 30, tmp_path, 5, anywhere())


@pytest.mark.soak
def test_run_when_killed_thirty_times_then_ends_bit_identical(nursery: Nursery, tmp_path: Path) -> None:
    kills(nursery, {"config": PRODUCTION | {"max_steps": 160}}, 160, tmp_path, 30, 1)


@pytest.mark.soak
@pytest.mark.parametrize("name", ALL)
def test_objective_when_killed_thirty_times_then_ends_bit_identical(
    name: str, nursery: Nursery, tmp_path: Path
) -> None:
    kills(nursery, {"case": name, "steps": 90}, 90, tmp_path, 30, 2)
