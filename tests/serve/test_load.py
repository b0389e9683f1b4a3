"""Many connections at once, half of which vanish in the middle: nothing is lost, mixed up or left behind."""

import asyncio
import json
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import httpx
import pytest

from gptwright.core.control import ControlStore
from gptwright.serve.config import ServeConfig

CHAT = "/v1/chat/completions"
MODEL = "tiny-pretrain-0123456789"


class BrokenStreamError(Exception):
    """A stream ended without its end."""


async def ask(url: str, path: str, body: dict[str, Any], leave_after: int | None = None) -> tuple[int, str, bool]:
    """One streamed request on a connection of its own.

    Args:
        url: of the server.
        path: of the endpoint.
        body: what is sent.
        leave_after: pieces after which the connection is cut.

    Returns:
        The status, the text so far, and whether it is whole.

    Raises:
        BrokenStreamError: it ended too soon, or with an error.
    """
    place = urlsplit(url)
    content = json.dumps({**body, "stream": True}).encode()
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    text, pieces = "", 0
    try:
        head = f"POST {path} HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        writer.write(f"{head}Content-Length: {len(content)}\r\nConnection: close\r\n\r\n".encode() + content)
        status = int((await reader.readline()).split()[1])
        if status != 200:
            return status, "", False
        async for line in reader:
            if line.strip() == b"data: [DONE]":
                return status, text, True
            if line.startswith(b"data: "):
                chunk = json.loads(line[6:])
                if "choices" not in chunk:
                    raise BrokenStreamError(chunk)
                choice = chunk["choices"][0]
                text += choice["text"] if "text" in choice else choice["delta"].get("content") or ""
                pieces += 1
                if leave_after is not None and pieces >= leave_after:
                    writer.transport.abort()
                    return status, text, False
        raise BrokenStreamError("no [DONE]")
    finally:
        writer.close()


class Load:
    """So many clients, each with one request after the other, half of which it leaves in the middle.

    Args:
        url: of the server.
        path: of the endpoint.
        asks: bodies, and the answer that each must get.
    """

    def __init__(self, url: str, path: str, asks: list[tuple[dict[str, Any], str]]) -> None:
        self.url, self.path, self.asks = url, path, asks
        self.found: Counter[str] = Counter()

    async def _client(self, number: int, end: float) -> None:
        chance = random.Random(number)
        while time.monotonic() < end:
            body, expected = chance.choice(self.asks)
            leaves = chance.randint(1, 4) if chance.random() < 0.5 else None
            try:
                status, text, whole = await ask(self.url, self.path, body, leaves)
            except (BrokenStreamError, OSError) as error:
                self.found[f"broken: {error!r}"] += 1
                continue
            if status == 429:
                self.found["refused"] += 1
                await asyncio.sleep(0.2)
            elif status != 200:
                self.found[f"status {status}"] += 1
            elif whole:
                self.found["whole" if text == expected else "mixed up"] += 1
            else:
                self.found["vanished" if expected.startswith(text) else "mixed up"] += 1

    def run(self, connections: int, seconds: float) -> Counter[str]:
        """Returns what the clients saw, counted."""

        async def all_of_them() -> None:
            end = time.monotonic() + seconds
            await asyncio.gather(*(self._client(number, end) for number in range(connections)))

        asyncio.run(all_of_them())
        return self.found


@pytest.mark.slow
def test_server_when_half_of_many_clients_vanish_then_nothing_is_lost_mixed_or_left(
    start: Any, control: ControlStore
) -> None:
    from gw_fakes import Engine, Models

    engine = Engine(delay_s=0.002)
    url, app = start(models=Models(engine), control=control, config=ServeConfig(max_concurrent=30))
    asks = []
    for number in range(200):
        marker = f"marker {number} " * 5
        body = {"model": "production", "messages": [{"role": "user", "content": marker}]}
        asks.append((body, f"You said: {marker}".strip()))
    found = Load(url, CHAT, asks).run(60, 4)
    assert found.keys() <= {"whole", "vanished", "refused"}, found
    assert found["whole"] > 0
    assert found["vanished"] > 0
    backend = app.state.backend
    end = time.monotonic() + 60
    while time.monotonic() < end and (backend.slots.taken or backend.active or backend._records):
        time.sleep(0.05)
    assert (backend.slots.taken, backend.slots.live, len(backend.slots.flows)) == (0, 0, 0)
    assert backend.active == 0
    assert (len(backend._records), backend.accounts._known[None].running) == (0, 0)
    assert all(request.done for request in engine.requests)
    cancelled = sum(request.finish_reason == "cancelled" for request in engine.requests)
    assert cancelled >= found["vanished"] * 0.5  # the others were nearly done when their client left
    assert httpx.get(url + "/ready").status_code == 200


@contextmanager
def real_server(
    control: ControlStore, folder: Path, seq_len: int = 256, **config: Any
) -> Iterator[tuple[str, "subprocess.Popen[str]"]]:
    """The real engine behind the server, as a process, with a control store that it opens for itself."""
    script = Path(__file__).with_name("real_server.py")
    place = str(control.place)  # type: ignore[attr-defined]
    command = [sys.executable, str(script), "--state", place, "--config", json.dumps(config)]
    command += ["--seq-len", str(seq_len)]
    log = (folder / "server.log").open("w")
    with log, subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log, text=True) as server:
        assert server.stdout is not None
        try:
            url = server.stdout.readline().strip()
            assert url, (folder / "server.log").read_text()
            yield url, server
        finally:
            if server.poll() is None:
                server.kill()


def resident_mb(pid: int) -> float:
    """Memory that a process really has."""
    fields = Path(f"/proc/{pid}/statm").read_text().split()
    return int(fields[1]) * 4096 / 1e6


def open_files(pid: int) -> int:
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def gauges(url: str) -> dict[str, float]:
    """What the server says of its engine: running, waiting, share of the pages in use; and answers on their way."""
    rows = httpx.get(url + "/metrics", timeout=30).text.splitlines()
    names = ("vllm:num_requests_running", "vllm:num_requests_waiting", "vllm:kv_cache_usage_perc", "gptwright_answers")
    return {row.split("{")[0].split(" ")[0]: float(row.rsplit(" ", 1)[1]) for row in rows if row.startswith(names)}


def settled(url: str, seconds: float = 60) -> dict[str, float]:
    """The gauges once nothing runs any more, or after so long."""
    end = time.monotonic() + seconds
    while any((found := gauges(url)).values()) and time.monotonic() < end:
        time.sleep(0.2)
    return found


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads a process's memory from /proc")
@pytest.mark.parametrize(
    ("control", "seconds"),
    [
        ("sqlite", 20),
        pytest.param("sqlite", 300, marks=pytest.mark.soak),
        pytest.param("postgresql", 300, marks=pytest.mark.soak),
    ],
    indirect=["control"],
)
def test_real_engine_when_250_of_500_clients_vanish_then_answers_are_right_and_memory_and_pages_return(
    control: ControlStore, tmp_path: Path, seconds: float
) -> None:
    with real_server(control, tmp_path, max_concurrent=500, log_format="json") as (url, server):
        chance = random.Random(5)
        asks = []
        for number in range(60):
            prompt = f"marker {number} " + "".join(chance.choices("the cat sat on mat ", k=chance.randint(5, 90)))
            body = {
                "model": MODEL,
                "prompt": prompt,
                "seed": number,
                "temperature": 1,
                "max_tokens": chance.randint(10, 40),
            }
            _, alone, whole = asyncio.run(ask(url, "/v1/completions", body))
            assert whole
            asks.append((body, alone))
        assert len({answer for _, answer in asks}) == 60  # an answer tells whose it is
        Load(url, "/v1/completions", asks).run(500, 5)  # what a server needs once, it has after this
        assert not any(settled(url).values())
        before, files = resident_mb(server.pid), open_files(server.pid)
        found = Load(url, "/v1/completions", asks).run(500, seconds)
        left = settled(url)
        print(f"{seconds} s: {dict(found)}; resident {before:.1f} MB, then {resident_mb(server.pid):.1f} MB; {left}")
        assert found.keys() <= {"whole", "vanished", "refused"}, found
        assert min(found["whole"], found["vanished"]) > 5 * seconds
        assert len(left) == 4
        assert not any(left.values()), left
        # The allocator keeps some, and threads that work for the first time take some, but not without end: over 300 s (10 MB measured)
        # a leak of 0.4 kB a request would be more.
        assert resident_mb(server.pid) - before < 8 + 0.5e-3 * min(sum(found.values()), 20_000)
        assert open_files(server.pid) <= files + 2
        for body, alone in asks[:5]:
            assert asyncio.run(ask(url, "/v1/completions", body))[1] == alone
