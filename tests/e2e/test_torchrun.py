"""The command under torchrun: stages by one process, training by two, one answer, and a stop that one process goes on from."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from gptwright.cli.main import main
from gptwright.project.project import Project
from gptwright.train.metrics import read_metrics

CONFIG = """
[project]
name = "two"
[corpus.sources.own]
uri = "data"
license = "CC0-1.0"
attribution = "the test"
[tokenizer]
vocab_size = 300
[model]
depth = 1
seq_len = 32
[pretrain]
max_steps = 100
batch_tokens = 160
dtype = "float32"
[finetune]
data = "chats.jsonl"
adapter = "lora"
max_steps = 6
batch_tokens = 128
parallel = "fsdp"
"""
WORDS = [
    "cat",
    "mat",
    "rain",
    "hills",
    "birds",
    "water",
    "stone",
    "green",
    "small",
    "quiet",
    "sang",
    "fell",
    "over",
    "near",
]


@pytest.fixture
def project(tmp_path: Path) -> Path:
    draw = random.Random(0)
    (tmp_path / "gptwright.toml").write_text(CONFIG)
    (tmp_path / "data").mkdir()
    for number in range(40):
        paragraphs = [" ".join(draw.choice(WORDS) for _ in range(60)).capitalize() + "." for _ in range(5)]
        (tmp_path / "data" / f"{number}.txt").write_text("\n\n".join(paragraphs))
    with open(tmp_path / "chats.jsonl", "w") as file:
        for _ in range(24):
            turns = [
                ("user", f"What is {draw.choice(WORDS)}?"),
                ("assistant", " ".join(draw.choice(WORDS) for _ in range(8))),
            ]
            file.write(json.dumps({"messages": [{"role": role, "content": text} for role, text in turns]}) + "\n")
    return tmp_path


def torchrun(project: Path, *arguments: str) -> subprocess.Popen[str]:
    call = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "gptwright"]
    env = os.environ | {"OMP_NUM_THREADS": "1"}
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [*call, *arguments, "--project", str(project)], stdout=pipe, stderr=pipe, text=True, env=env
    )


def steps_done(project: Path) -> int:
    found = list(project.glob("work/runs/*/metrics.jsonl"))
    return int(rows[-1]["step"]) if found and (rows := read_metrics(found[0])) else 0


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_command_when_under_torchrun_then_trains_together_stops_together_and_one_process_goes_on(project: Path) -> None:
    with torchrun(project, "pretrain", "--quiet") as running:
        try:
            end = time.monotonic() + 200
            while steps_done(project) < 5 and running.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            assert running.poll() is None, running.communicate()
            running.send_signal(signal.SIGTERM)
            _, told = running.communicate(timeout=120)
        finally:
            running.kill()
    assert running.returncode != 0
    assert "run the same command to go on" in told
    stopped = steps_done(project)
    assert 5 <= stopped < 100
    (run,) = project.glob("work/runs/*")
    assert (run / "checkpoints" / f"step-{stopped:08d}" / "weights.safetensors").is_file()

    assert main(["pretrain", "--resume", "--quiet", "--project", str(project)]) == 0
    assert [row["step"] for row in read_metrics(run / "metrics.jsonl")] == list(range(1, 101))
    assert json.loads((run / "config.json").read_text())["machine"]["processes"] == 2

    with torchrun(project, "finetune", "--json") as running:
        told, errors = running.communicate(timeout=200)
    assert running.returncode == 0, errors[-2000:]
    answer = json.loads(told)  # the main process alone answers
    assert [item["stage"] for item in answer["ran"]] == ["finetune"]
    opened = Project.open(project)
    assert {v.stage: v.state for v in opened.status()}["finetune"] == "fresh"
    model = project / answer["ran"][0]["path"]
    assert (model / "model.safetensors").is_file()
    assert len(list(project.glob("work/runs/*"))) == 2


@pytest.mark.parametrize("verb", [["status"], ["pretrain", "--sweep", "lr"]])
def test_verb_when_it_is_the_work_of_one_process_then_is_refused_in_several(
    verb: list[str], project: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    assert main([*verb, "--project", str(project)]) == 2
    assert "without torchrun" in capsys.readouterr().err
