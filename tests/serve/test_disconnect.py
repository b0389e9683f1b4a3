"""When the client leaves, or the server is told to stop."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

CHAT = "/v1/chat/completions"


def body(text: str, **extra: Any) -> dict[str, Any]:
    return {"model": "production", "messages": [{"role": "user", "content": text}], **extra}


def comes_true(condition: Callable[[], bool], seconds: float = 30.0) -> bool:
    """Wait long: how soon depends on what else the machine does, and nothing would ever end these requests by itself in that time."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if condition():
            return True
        time.sleep(0.01)
    return False


def cancelled(engine: Any) -> bool:
    return bool(engine.requests) and engine.requests[-1].finish_reason == "cancelled"


def test_stream_when_the_client_leaves_in_the_middle_then_the_engine_stops(stored: Any) -> None:
    url, app = stored()
    with httpx.stream("POST", url + CHAT, json=body("slow", stream=True)) as response:
        lines = response.iter_lines()
        for _ in range(6):
            next(lines)
    assert comes_true(lambda: cancelled(app.state.backend.models.fake))
    assert len(app.state.backend.models.fake.requests[-1]._text) < 4000  # of 5000, which take at least 50 s
    counted = 'gptwright_cancelled_total{reason="client_gone"} 1.0'
    assert comes_true(lambda: counted in httpx.get(url + "/metrics").text)


@pytest.mark.parametrize("stream", [False, True])
def test_chat_when_the_client_leaves_before_the_first_token_then_the_engine_stops(stored: Any, stream: bool) -> None:
    url, app = stored()
    with pytest.raises(httpx.ReadTimeout):
        httpx.post(url + CHAT, json=body("hang", stream=stream), timeout=httpx.Timeout(30, read=0.5))
    assert comes_true(lambda: cancelled(app.state.backend.models.fake))
    assert comes_true(lambda: app.state.backend.slots.taken == 0)


def test_stream_when_nothing_comes_for_a_while_then_comments_keep_it_alive(stored: Any) -> None:
    from gptwright.serve.config import ServeConfig

    url, _ = stored(config=ServeConfig(keep_alive=0.05, request_timeout=1.0))
    with httpx.stream("POST", url + CHAT, json=body("hang", stream=True)) as response:
        text = "".join(response.iter_text())
    assert text.count(": keep-alive") >= 3
    last = [line for line in text.splitlines() if line.startswith("data: ")][-1]
    assert json.loads(last.removeprefix("data: "))["error"]["code"] == "timeout"


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGTERM to send to a child")
def test_server_when_told_to_stop_then_the_running_answer_ends_whole_and_the_exit_code_is_0() -> None:
    script = Path(__file__).with_name("fakes.py")
    command = [sys.executable, str(script), "--delay", "0.02"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as server:
        assert server.stdout is not None
        assert server.stderr is not None
        url = server.stdout.readline().strip()
        question = "x" * 60
        with httpx.stream("POST", url + CHAT, json=body(question, stream=True)) as response:
            lines = response.iter_lines()
            next(lines)
            server.send_signal(signal.SIGTERM)
            rest = list(lines)
        chunks = [json.loads(line[6:]) for line in rest if line.startswith("data: {")]
        text = "".join(chunk["choices"][0]["delta"].get("content", "") for chunk in chunks)
        assert text == f"You said: {question}"
        assert rest[-2:] == ["data: [DONE]", ""] or rest[-1] == "data: [DONE]"
        assert server.wait(60) == 0
        assert server.stdout.read().strip() == "stopped"
        log = server.stderr.read()
        assert f"POST {CHAT} 200" in log
        assert question not in log
