"""When what the server stands on fails: readers that do not read, a database killed or locked, a full disk, the end under load."""

import asyncio
import importlib.util
import json
import os
import resource
import shutil
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore, Usage
from gptwright.guard.config import GuardConfig
from gptwright.guard.guard import Guard
from gptwright.serve.config import ServeConfig

CHAT = "/v1/chat/completions"
posix = pytest.mark.skipif(os.name == "nt", reason="POSIX signals and files")
HERE = Path(__file__).parent


def body(text: str, **extra: Any) -> dict[str, Any]:
    return {"model": "production", "messages": [{"role": "user", "content": text}], **extra}


def until(condition: Any, seconds: float = 30.0) -> bool:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            return False
        time.sleep(0.02)
    return True


def loader() -> Any:
    """The client of the load tests."""
    spec = importlib.util.spec_from_file_location("gw_load", HERE / "test_load.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


# Readers that do not read


def slow_reader(url: str, sent: dict[str, Any] | None, path: str = "POST " + CHAT) -> socket.socket:
    """A connection that asks and takes next to nothing in: its window is small, and nobody empties it."""
    place = urlsplit(url)
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    connection.connect((place.hostname, place.port))
    content = b"" if sent is None else json.dumps({**sent, "stream": True}).encode()
    head = f"{path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
    connection.sendall(f"{head}Content-Length: {len(content)}\r\n\r\n".encode() + content)
    return connection


@pytest.mark.slow
def test_slow_readers_when_answers_are_long_then_others_are_not_held_up_and_they_are_let_go(start: Any) -> None:
    from gw_fakes import Engine, Models

    # Answers of 7 MB each on the wire, more than the system holds for a reader; whole within a moment, to readers that take a byte now and then.
    config = ServeConfig(request_timeout=2.0, keep_alive=0.5, max_concurrent=8)
    url, app = start(models=Models(Engine()), config=config, guard=Guard(GuardConfig(mask_answers=False)))
    backend = app.state.backend
    asked = body("x" * 3800, logprobs=True, top_logprobs=20, max_tokens=4000)
    readers = [slow_reader(url, asked) for _ in range(12)]
    try:
        for reader in readers[:8]:
            reader.settimeout(10)
            assert reader.recv(1)
        assert until(lambda: backend.slots.taken == 0, 20)  # generated: nobody's slot is kept by who does not read
        began = time.monotonic()
        for _ in range(5):
            assert httpx.post(url + CHAT, json=body("hello")).status_code == 200
        assert time.monotonic() - began < 10
        for reader in readers[:4]:
            reader.recv(1)
        # After the time that an answer may take they are forgotten, though their connections are still there.
        assert until(lambda: backend.active == 0, 20), backend.active
        assert not backend.slots.flows
    finally:
        for reader in readers:
            reader.close()
    assert httpx.get(url + "/health").status_code == 200


@pytest.mark.slow
@pytest.mark.parametrize("control", ["sqlite"], indirect=True)  # 10 s, and nothing in it is the database's
def test_watchers_when_they_read_are_never_cut_off_and_when_they_do_not_are_let_go_though_the_work_goes_on(
    start: Any, control: ControlStore
) -> None:
    from gw_fakes import Engine, Models

    config = ServeConfig(request_timeout=4.0, keep_alive=0.2)
    url, app = start(
        models=Models(Engine()), config=config, control=control, guard=Guard(GuardConfig(mask_answers=False))
    )
    backend, asked = app.state.backend, {"model": "production", "background": True}

    def begun(**more: Any) -> str:
        return str(httpx.post(url + "/v1/responses", json={**asked, **more}).json()["id"])

    def watched(name: str) -> str:
        return httpx.get(f"{url}/v1/responses/{name}?stream=true", timeout=30).text

    slow = begun(input="slow", max_output_tokens=100)
    time.sleep(0.5)
    running = watched(slow)  # joined in the middle of a second of work
    assert running.count("event: response.output_text.delta") == 100
    logprobs = {"include": ["message.output_text.logprobs"], "top_logprobs": 20}
    large: dict[str, Any] = {"input": "x" * 3800, "max_output_tokens": 4000, **logprobs}  # 7 MB of events
    made, at = begun(**large), time.monotonic()
    idle = [slow_reader(url, None, f"GET /v1/responses/{made}?stream=true") for _ in range(2)]
    idle.append(slow_reader(url, {**asked, **large}, "POST /v1/responses"))  # one that watches what it began
    try:
        assert until(lambda: backend.active == 3)
        assert until(lambda: backend.slots.taken == 0)
        whole = watched(made)
        assert "event: response.completed" in whole
        assert len(whole) > 5e6
        assert until(lambda: backend.active == 0, 20), backend.active  # who reads nothing is let go
        assert time.monotonic() - at >= config.request_timeout
        # Longer ago than an answer and its reader may take: it is watched from the beginning all the same.
        assert watched(made) == whole
        assert watched(slow) == running
        stored = [httpx.get(f"{url}/v1/responses/{name}").json()["status"] for name in (made, slow)]
        assert stored == ["completed", "incomplete"]
    finally:
        for reader in idle:
            reader.close()


# The database


class Postgres:
    """A PostgreSQL server that may be killed and started again."""

    def __init__(self) -> None:
        found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
        if not found:
            pytest.skip("PostgreSQL is missing: apt-get install postgresql")
        pytest.importorskip("psycopg")
        self.binaries = found[-1].parent
        self.folder = Path(tempfile.mkdtemp(prefix="gw-pg-kill-"))
        self.as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
        if self.as_user:
            shutil.chown(self.folder, "postgres", "postgres")
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._run("initdb", "-D", self.folder / "data", "-A", "trust", "-U", "gptwright")
        self.start()
        self.url = f"postgresql+psycopg://gptwright@127.0.0.1:{self.port}/postgres"

    def _run(self, program: str, *arguments: Any) -> None:
        subprocess.run([*self.as_user, self.binaries / program, *arguments], check=True, capture_output=True)

    def start(self) -> None:
        options = f"-p {self.port} -k {self.folder} -c listen_addresses=127.0.0.1 -c fsync=off"
        self._run("pg_ctl", "-D", self.folder / "data", "-w", "-o", options, "-l", self.folder / "log", "start")

    def kill(self) -> None:
        """As a machine out of memory does."""
        lock = self.folder / "data" / "postmaster.pid"
        pid = int(lock.read_text().split()[0])
        os.kill(pid, signal.SIGKILL)

        def closed() -> bool:
            with socket.socket() as probe:
                return probe.connect_ex(("127.0.0.1", self.port)) != 0 and not Path(f"/proc/{pid}").exists()

        assert until(closed)
        time.sleep(1)  # its children see that it is gone and end too
        lock.unlink(missing_ok=True)

    def stop(self) -> None:
        self._run("pg_ctl", "-D", self.folder / "data", "-m", "immediate", "stop")
        shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture
def killable() -> Iterator[Postgres]:
    server = Postgres()
    yield server
    server.stop()


@posix
@pytest.mark.slow
def test_postgresql_when_it_is_killed_and_started_again_then_the_server_goes_on(start: Any, killable: Postgres) -> None:
    store = ControlStore.open(killable.url)
    url, _ = start(control=store)
    asked = {"model": "production", "input": "hello"}
    first = httpx.post(url + "/v1/responses", json=asked).json()["id"]
    killable.kill()
    refused = httpx.get(f"{url}/v1/responses/{first}", timeout=30)
    assert (refused.status_code, refused.json()["error"]["code"]) == (503, "database_away")
    for _ in range(10):  # what needs no database is answered
        assert httpx.post(url + CHAT, json=body("hello"), timeout=30).status_code == 200
    killable.start()
    assert until(lambda: httpx.get(f"{url}/v1/responses/{first}", timeout=30).status_code == 200)
    assert httpx.post(url + "/v1/responses", json=asked).status_code == 200
    store.close()


def test_sqlite_when_somebody_locks_it_then_answers_come_and_what_they_used_is_written_after(
    start: Any, tmp_path: Path, migrated: Path
) -> None:
    place = Path(shutil.copy(migrated, tmp_path / "control.sqlite"))
    store = ControlStore.open(place)
    url, app = start(control=store)
    locked = sqlite3.connect(place, isolation_level=None)
    locked.execute("BEGIN EXCLUSIVE")
    try:
        # More than there are threads for waiting: what waits for the database must not keep others from answering.
        for _ in range(40):
            assert httpx.post(url + CHAT, json=body("hello"), timeout=10).status_code == 200
        assert httpx.get(url + "/v1/models", timeout=10).status_code == 200
    finally:
        locked.execute("ROLLBACK")
        locked.close()
    assert until(lambda: not app.state.backend._records, 60)
    with store.session() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Usage)) == 40
    store.close()


@pytest.mark.slow
def test_sqlite_when_the_disk_is_full_then_answers_come_and_the_log_says_what_is_lost(
    start: Any, tmp_path: Path, migrated: Path, caplog: pytest.LogCaptureFixture
) -> None:
    place = Path(shutil.copy(migrated, tmp_path / "control.sqlite"))
    store = ControlStore.open(place)
    full = True

    def no_room(connection: Any, *_: Any) -> None:
        pages = connection.execute("PRAGMA page_count").fetchone()[0]
        connection.execute(f"PRAGMA max_page_count = {pages if full else 10_000}")

    store.engine.dispose()
    sa.event.listen(store.engine, "connect", no_room)
    url, app = start(control=store)
    lost = 0
    while "disk is full" not in caplog.text and lost < 300:
        lost += 1
        assert httpx.post(url + CHAT, json=body("hello")).status_code == 200
        until(lambda: not app.state.backend._records)
    assert "disk is full" in caplog.text
    kept = httpx.post(url + "/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"{}\n" * 100_000)})
    assert kept.status_code in (500, 503, 507)
    assert kept.json()["error"].keys() == {"message", "type", "param", "code"}
    full = False
    store.engine.dispose()
    assert httpx.post(url + "/v1/responses", json={"model": "production", "input": "hello"}).status_code == 200
    store.close()


# The disk, while logging


@posix
@pytest.mark.slow
@pytest.mark.parametrize("form", ["text", "json"])
def test_log_when_the_disk_is_full_then_the_server_answers_and_ends_as_ever(form: str) -> None:
    if not Path("/dev/full").exists():
        pytest.skip("no /dev/full, the device that is always full")
    command = [sys.executable, str(HERE / "fakes.py"), "--config", json.dumps({"log_format": form})]
    with (
        open("/dev/full", "w") as full,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=full, text=True) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        try:
            for _ in range(20):
                answer = httpx.post(url + CHAT, json=body("hello"))
                assert answer.json()["choices"][0]["message"]["content"] == "You said: hello"
            assert httpx.post(url + CHAT, json=body("fail")).status_code == 500  # with a traceback for the log
            with httpx.stream("POST", url + CHAT, json=body("hello", stream=True)) as stream:
                assert "data: [DONE]" in stream.read().decode()
        finally:
            server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
        assert server.stdout.read().strip() == "stopped"


@posix
@pytest.mark.slow
def test_log_when_its_file_may_not_grow_then_the_server_answers(tmp_path: Path) -> None:
    command = [sys.executable, str(HERE / "fakes.py")]

    def small() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))

    log = tmp_path / "log"
    with (
        log.open("w") as file,
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=file, text=True, preexec_fn=small) as server,
    ):
        assert server.stdout is not None
        url = server.stdout.readline().strip()
        for _ in range(60):
            assert httpx.post(url + CHAT, json=body("hello")).status_code == 200
        server.send_signal(signal.SIGTERM)
        assert server.wait(30) == 0
    assert 1000 < log.stat().st_size <= 2000


# The end


@posix
@pytest.mark.slow
def test_server_when_told_to_stop_under_load_then_all_that_runs_ends_whole_and_the_rest_is_refused(
    control: ControlStore, tmp_path: Path
) -> None:
    load = loader()
    with load.real_server(control, tmp_path, seq_len=1024, max_concurrent=100) as (url, server):
        no_end = {"0": -100, "2": -100}
        asks = [
            {
                "model": load.MODEL,
                "prompt": f"marker {number} the cat",
                "seed": number,
                "max_tokens": 400,
                "logit_bias": no_end,
            }
            for number in range(24)
        ]
        refused: list[int] = []

        async def all_at_once() -> list[Any]:
            return await asyncio.gather(*(load.ask(url, "/v1/completions", asked) for asked in asks))

        async def stopped_meanwhile() -> list[Any]:
            running = asyncio.ensure_future(all_at_once())
            idle = 'vllm:num_requests_running{model_name="tiny-pretrain-0123456789"} 0.0'
            async with httpx.AsyncClient(timeout=30) as client:
                while idle in (await client.get(url + "/metrics")).text:
                    await asyncio.sleep(0.01)
                server.send_signal(signal.SIGTERM)
                while (await client.get(url + "/ready")).status_code == 200:
                    await asyncio.sleep(0.01)
                for asked in asks[:5]:
                    refused.append((await client.post(url + "/v1/completions", json=asked)).status_code)
            return await running

        alone = asyncio.run(all_at_once())
        found = asyncio.run(asyncio.wait_for(stopped_meanwhile(), 120))
        assert refused == [503] * 5
        assert [(status, whole) for status, _, whole in found] == [(200, True)] * 24
        assert [text for _, text, _ in found] == [text for _, text, _ in alone]
        assert server.wait(60) == 0
    with control.session() as session:
        assert session.scalar(sa.select(sa.func.count()).select_from(Usage)) == 48  # the last ones' use too
