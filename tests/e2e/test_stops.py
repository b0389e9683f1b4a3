"""Stopped at any instant, by Ctrl-C, kill or a full disk: the next run goes on and ends with the same models."""

import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

posix = pytest.mark.skipif(sys.platform == "win32", reason="POSIX signals and limits")


def longer(tiny: Any, steps: int = 40) -> str:
    """The tiny project with enough steps to be met in the middle of pretraining."""
    return str(
        tiny.toml.replace("max_steps = 6\nbatch", f"max_steps = {steps}\nbatch").replace("every = 2", "every = 5")
    )


def models(root: Path) -> set[str]:
    return {path.name for path in (root / "work" / "models").iterdir()}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory, tiny: Any, gptwright: Any) -> Path:
    """The same work, never stopped, in a process of its own as the stopped ones are."""
    root = tiny.make(tmp_path_factory.mktemp("undisturbed") / "tiny", toml=longer(tiny))
    gptwright.alone("run", "--project", str(root), timeout=300).ok()
    assert len(models(root)) == 2
    return root


def metrics_of(root: Path, stage: str) -> int:
    """Steps that the newest run of a stage has logged."""
    ledger = root / "work" / "ledger.sqlite"
    if not ledger.is_file():
        return 0
    try:
        with sqlite3.connect(f"file:{ledger}?mode=ro", uri=True) as db:
            row = db.execute("SELECT id FROM run WHERE stage=? ORDER BY seq DESC LIMIT 1", (stage,)).fetchone()
    except sqlite3.Error:
        return 0
    path = root / "work" / "runs" / row[0] / "metrics.jsonl" if row else None
    return path.read_text().count("\n") if path is not None and path.is_file() else 0


def wait_for_step(process: "subprocess.Popen[str]", root: Path, step: int, stage: str = "pretrain") -> None:
    limit = time.monotonic() + 120
    while metrics_of(root, stage) < step:
        assert process.poll() is None, f"ended too early: {process.stderr.read() if process.stderr else ''}"
        assert time.monotonic() < limit
        time.sleep(0.005)


@posix
@pytest.mark.slow
def test_run_when_interrupted_in_pretraining_then_exits_130_and_goes_on_to_the_same_models(
    undisturbed: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tiny.make(tmp_path / "tiny", toml=longer(tiny))
    process = gptwright.start("run", "--project", str(root), "--json")
    wait_for_step(process, root, 12)
    during = gptwright("status", "--project", str(root), "--json").ok().json["stages"]
    second = gptwright("run", "--project", str(root), "--json")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert re.fullmatch(r"\{.*\}\n", out), out
    assert '"exit_code": 130' in out
    assert "Traceback" not in err

    assert {s["stage"]: s["state"] for s in during}["pretrain"] == "running"
    assert second.code == 2
    assert str(process.pid) in second.json["error"]["message"]
    assert "already being worked on" in second.err

    stages = gptwright("status", "--project", str(root), "--json").ok().json["stages"]
    assert {s["stage"]: s["state"] for s in stages}["pretrain"] == "interrupted"
    done = gptwright.alone("run", "--project", str(root), timeout=300).ok()
    assert "pretrain: continuing" in done.err
    assert models(root) == models(undisturbed)


@posix
@pytest.mark.slow
def test_run_when_interrupted_before_training_then_exits_130_and_the_next_run_ends_the_same(
    undisturbed: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tiny.make(tmp_path / "tiny", toml=longer(tiny))
    process = gptwright.start("run", "--project", str(root), start_new_session=True)
    while process.poll() is None and not (root / "work" / "ledger.sqlite").is_file():
        time.sleep(0.005)
    time.sleep(0.15)  # in the corpus, most likely; a terminal sends the signal to the workers too
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert "Traceback" not in err
    gptwright.alone("run", "--project", str(root), timeout=300).ok()
    assert models(root) == models(undisturbed)


@posix
@pytest.mark.slow
def test_run_when_killed_at_random_instants_then_ends_with_the_same_models(
    undisturbed: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    kills(undisturbed, tmp_path, tiny, gptwright, count=3, seed=random.SystemRandom().randrange(10**6))


@posix
@pytest.mark.soak
def test_run_when_killed_twenty_times_then_ends_with_the_same_models(
    undisturbed: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    for seed in range(5):
        kills(undisturbed, tmp_path / str(seed), tiny, gptwright, count=4, seed=seed)


def kills(undisturbed: Path, place: Path, tiny: Any, gptwright: Any, *, count: int, seed: int) -> None:
    """Kill ``run`` at places drawn over its whole way: the first before or in the corpus, the others later and later."""
    draw = random.Random(seed)
    root = tiny.make(place / "tiny", toml=longer(tiny))
    at = []
    for number in range(count):
        process = gptwright.start("run", "--project", str(root), start_new_session=True)
        if number:
            while process.poll() is None and not metrics_of(root, "pretrain") and not metrics_of(root, "finetune"):
                time.sleep(0.005)
            time.sleep(draw.uniform(0, 0.4 * number))
        else:
            time.sleep(draw.uniform(0.3, 2.5))
        at.append((metrics_of(root, "pretrain"), metrics_of(root, "finetune")))
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
    done = gptwright.alone("run", "--project", str(root), timeout=300)
    assert done.code == 0, f"seed {seed}, killed at {at}: {done.err}"
    assert models(root) == models(undisturbed), f"seed {seed}, killed at {at}"
    after = gptwright.alone("status", "--project", str(root), "--json").ok().json["stages"]
    assert {s["state"] for s in after} == {"fresh"}, after
    assert not list((root / "work").rglob(".tmp-*"))


LIMITED = """
import resource, signal, sys
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv.pop(1)), resource.RLIM_INFINITY))
from gptwright.cli.main import main
sys.exit(main())
"""


@posix
@pytest.mark.slow
@pytest.mark.parametrize("limit", [0, 2_000, 30_000, 150_000, 300_000])
def test_run_when_the_disk_is_full_then_one_clear_line_and_the_next_run_ends_the_same(
    limit: int, finished: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tiny.make(tmp_path / "tiny")
    line = [sys.executable, "-c", LIMITED, str(limit), "run", "--project", str(root)]
    done = subprocess.run(line, capture_output=True, text=True, timeout=120, env=gptwright.environment(), check=False)
    assert done.returncode == 2, done.stderr
    assert "full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "our fault" not in done.stderr
    if limit == 30_000:
        gptwright("run", "--project", str(root)).ok()
        assert models(root) == models(finished)
