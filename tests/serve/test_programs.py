"""Programs of others pointed at the server, each as its users run it: a chat front end (``llm``), an evaluation tool (``inspect``), a
scanner (``garak``).

They are found on the path, or in the folders that GPTWRIGHT_TOOLS names: each is best installed in an environment of its own.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

TASK = """
from inspect_ai import Task, task
from inspect_ai.dataset import Sample
from inspect_ai.scorer import match
from inspect_ai.solver import generate

@task
def echo():
    samples = [Sample(input=word, target=f"You said: {word}") for word in ("hello", "blue whale", "7")]
    return Task(dataset=samples, solver=generate(), scorer=match(location="exact"))
"""


def program(name: str, package: str) -> str:
    found = shutil.which(name, path=os.pathsep.join([os.environ.get("GPTWRIGHT_TOOLS", ""), os.environ["PATH"]]))
    if found is None:
        pytest.skip(f"{name} is missing: pip install {package}, and GPTWRIGHT_TOOLS=FOLDER/bin")
    return found


def run(*command: str, **environment: str) -> subprocess.CompletedProcess[str]:
    given = environment.pop("stdin", "")
    done = subprocess.run(
        command,
        capture_output=True,
        text=True,
        encoding="utf-8",
        timeout=120,
        input=given,
        env={**os.environ, **environment},
    )
    assert done.returncode == 0, done.stderr
    return done


@pytest.mark.slow
def test_llm_when_it_chats_then_it_streams_our_answers_and_remembers(shared: tuple[str, Any], tmp_path: Path) -> None:
    llm = program("llm", "llm")
    models = f"- model_id: mine\n  model_name: production\n  api_base: {shared[0]}/v1\n"
    (tmp_path / "extra-openai-models.yaml").write_text(models)
    settings = {"LLM_USER_PATH": str(tmp_path), "OPENAI_API_KEY": "none"}
    assert run(llm, "-m", "mine", "hello", **settings).stdout.strip() == "You said: hello"
    assert run(llm, "-m", "mine", "--no-stream", "-o", "temperature", "0", "hello", **settings).stdout.strip() == (
        "You said: hello"
    )
    chat = run(llm, "chat", "-m", "mine", stdin="one\ntwo\nexit\n", **settings)
    assert "You said: one" in chat.stdout
    assert "You said: two" in chat.stdout
    assert "one" in shared[1].prompts[-1]  # the second turn holds the first
    assert "You said: one" in shared[1].prompts[-1]


@pytest.mark.slow
def test_inspect_when_it_evaluates_then_every_sample_is_answered(
    shared: tuple[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    inspect = program("inspect", "inspect-ai")
    (tmp_path / "echo.py").write_text(TASK)
    monkeypatch.chdir(tmp_path)  # it takes relative paths only
    logs = tmp_path / "logs"
    run(
        *(inspect, "eval", "echo.py", "--model", "openai-api/gptwright/production"),
        *("--log-format", "json", "--log-dir", str(logs), "--display", "plain"),
        GPTWRIGHT_BASE_URL=f"{shared[0]}/v1",
        GPTWRIGHT_API_KEY="none",
    )
    log = json.loads(next(logs.glob("*.json")).read_text(encoding="utf-8"))
    assert log["status"] == "success"
    assert log["results"]["scores"][0]["metrics"]["accuracy"]["value"] == 1


@pytest.mark.slow
def test_garak_when_it_probes_then_every_attempt_is_answered_and_judged(
    shared: tuple[str, Any], tmp_path: Path
) -> None:
    garak = program("garak", "garak")
    target = {"uri": f"{shared[0]}/v1/", "max_tokens": 400}
    settings = tmp_path / "few.yaml"
    settings.write_text("run:\n  soft_probe_prompt_cap: 24\n")
    run(
        *(garak, "--config", str(settings), "--spec", "probes.encoding.InjectBase64", "--generations", "1"),
        *("--target_type", "openai.OpenAICompatible", "--target_name", "production", "--parallel_attempts", "4"),
        *("--generator_options", json.dumps({"openai": {"OpenAICompatible": target}})),
        *("--report_prefix", str(tmp_path / "found")),
        OPENAICOMPATIBLE_API_KEY="none",
        HF_HUB_OFFLINE="1",
        **{f"XDG_{kind}_HOME": str(tmp_path) for kind in ("DATA", "CACHE", "CONFIG")},
    )
    rows = [json.loads(row) for row in (tmp_path / "found.report.jsonl").read_text(encoding="utf-8").splitlines()]
    judged = [row for row in rows if row["entry_type"] == "eval"]
    assert judged
    for row in judged:
        assert (row["nones"], row["passed"] + row["fails"]) == (0, 24)
    attempts = [row for row in rows if row["entry_type"] == "attempt"]
    assert len(attempts) >= 24
    for row in attempts:
        asked = row["prompt"]["turns"][0]["content"]["text"]
        # It stops answers at "#" and ";" by itself.
        assert row["outputs"][0]["text"] == f"You said: {asked.strip()}".partition("#")[0].partition(";")[0]
