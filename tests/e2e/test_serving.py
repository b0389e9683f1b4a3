"""`gptwright serve` in its own process, asked by the official client, and by a second project as a provider."""

import json
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

pytestmark = pytest.mark.slow


class Server:
    """A running server and what it wrote."""

    def __init__(self, process: "subprocess.Popen[str]") -> None:
        self.process = process
        self.lines: list[str] = []
        self.url = ""
        self._up = threading.Event()
        threading.Thread(target=self._read, daemon=True).start()
        assert self._up.wait(60), "".join(self.lines)

    def _read(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.lines.append(line)
            if found := re.search(r"(http://[\d.]+:\d+)/v1", line):
                self.url = found[1]
                self._up.set()
        self._up.set()


@pytest.fixture(scope="module")
def server(finished: Path, gptwright: Any) -> Iterator[Server]:
    process = gptwright.start("serve", "--port", "0", "--no-studio", "--project", str(finished))
    running = Server(process)
    yield running
    if process.poll() is None:
        process.kill()
    process.wait()


@pytest.fixture(scope="module")
def client(server: Server) -> openai.OpenAI:
    return openai.OpenAI(base_url=server.url + "/v1", api_key="none", max_retries=0)


def test_client_when_it_lists_models_then_sees_ids_and_production(client: openai.OpenAI, finished: Path) -> None:
    names = {model.id for model in client.models.list()}
    assert names == {"production", *(path.name for path in (finished / "work" / "models").iterdir())}


def test_client_when_it_chats_then_streamed_and_whole_answers_agree_with_python(
    client: openai.OpenAI, finished: Path
) -> None:
    import gptwright as gw

    messages: list[Any] = [{"role": "user", "content": "What happened?"}]
    options: dict[str, Any] = {
        "model": "production",
        "messages": messages,
        "seed": 4,
        "max_tokens": 12,
        "temperature": 0.8,
    }
    whole = client.chat.completions.create(**options)
    streamed = "".join(c.choices[0].delta.content or "" for c in client.chat.completions.create(**options, stream=True))
    assert whole.choices[0].message.content == streamed
    likeliest = client.chat.completions.create(
        **options | {"temperature": 0}
    )  # what is sampled is marked by the server
    own = gw.load("production", project=str(finished)).chat(messages, max_tokens=12, temperature=0)
    assert likeliest.choices[0].message.content == own
    assert whole.model.startswith("tiny-finetune-")


def test_client_when_the_model_is_unknown_then_404_in_the_protocols_shape(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError, match="no model nothing"):
        client.chat.completions.create(model="nothing", messages=[{"role": "user", "content": "x"}])


def test_second_project_when_it_names_the_server_as_provider_then_chats_through_it(
    server: Server, tmp_path: Path, gptwright: Any
) -> None:
    root = tmp_path / "second"
    gptwright("new", str(root), "--template", "empty").ok()
    with (root / "gptwright.toml").open("a", encoding="utf-8") as file:
        file.write(f'\n[providers.first]\nbase_url = "{server.url}/v1"\n')
    for name in ("first:production", "provider:first"):
        asked = ("chat", name, "--max-tokens", "8", "--seed", "1", "--json")
        done = gptwright(*asked, stdin="Hello!\nAnd you?\n", cwd=root).ok().json
        assert done["model"] == "first:production"
        assert [message["role"] for message in done["messages"]] == ["user", "assistant"] * 2
        assert done["messages"][1]["content"]


def test_second_project_when_the_provider_is_not_named_in_its_file_then_the_error_says_what_to_add(
    tmp_path: Path, gptwright: Any
) -> None:
    root = tmp_path / "second"
    gptwright("new", str(root), "--template", "empty").ok()
    done = gptwright("chat", "nobody:model", stdin="Hello!\n", cwd=root)
    assert done.code == 2
    assert "[providers.nobody]" in done.err


def test_second_project_when_the_provider_is_down_then_one_clear_line(tmp_path: Path, gptwright: Any) -> None:
    root = tmp_path / "second"
    gptwright("new", str(root), "--template", "empty").ok()
    with (root / "gptwright.toml").open("a", encoding="utf-8") as file:
        file.write('\n[providers.gone]\nbase_url = "http://127.0.0.1:9/v1"\nmax_retries = 0\n')
    done = gptwright("chat", "gone:model", "--json", stdin="Hello!\n", cwd=root)
    assert done.code == 2
    assert json.loads(done.out)["error"]["message"]
    assert "our fault" not in done.err


def test_serve_when_there_is_no_model_then_says_what_to_run(tmp_path: Path, gptwright: Any) -> None:
    root = tmp_path / "empty"
    gptwright("new", str(root), "--template", "empty").ok()
    done = gptwright.alone("serve", "--port", "0", "--project", str(root))
    assert done.code == 2
    assert "gptwright run" in done.err


def test_serve_when_the_port_is_taken_then_one_clear_line(server: Server, finished: Path, gptwright: Any) -> None:
    port = server.url.rpartition(":")[2]
    done = gptwright.alone("serve", "--port", port, "--no-studio", "--project", str(finished))
    assert done.code == 2
    assert port in done.err
    assert "Traceback" not in done.err


def test_serve_when_reachable_from_elsewhere_without_a_key_then_refused(copy: Path, gptwright: Any) -> None:
    done = gptwright.alone("serve", "--host", "0.0.0.0", "--port", "0", "--no-studio", "--project", str(copy))
    assert done.code == 3
    assert "keys create" in done.err


@pytest.mark.skipif(sys.platform == "win32", reason="signals")
def test_serve_when_stopped_by_ctrl_c_then_ends_well(copy: Path, gptwright: Any) -> None:
    process = gptwright.start("serve", "--port", "0", "--no-studio", "--project", str(copy))
    running = Server(process)
    process.send_signal(signal.SIGINT)
    assert process.wait(30) == 0
    assert "Traceback" not in "".join(running.lines)
