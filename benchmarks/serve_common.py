"""Shared by the serving benchmarks: a client of many streams, the servers it asks, and what is made of the times it sees.

The client is asyncio and nothing else, about 30 microseconds a token: it runs on the cores of the server, as the peer's client does.
"""

import asyncio
import itertools
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

if TYPE_CHECKING:
    from gptwright.tokens.tokenizer import Tokenizer

HERE = Path(__file__).parent


@dataclass
class Burst:
    """What all clients of one burst saw. Seconds since the burst began.

    Args:
        seconds: until the last was answered.
        tokens: generated for all.
        times: for each client, when each of its pieces came.
    """

    seconds: float
    tokens: int
    times: list[list[float]]

    @property
    def rate(self) -> float:
        """Tokens a second, of all clients together."""
        return self.tokens / self.seconds


@dataclass
class Seen:
    """The bursts of one side."""

    bursts: list[Burst] = field(default_factory=list)

    def add(self, burst: Burst) -> None:
        """Take one in."""
        self.bursts.append(burst)

    def summary(self) -> dict[str, float]:
        """The best rate, as noise only ever takes time; waits and gaps of all bursts together."""
        gaps = sorted(b - a for burst in self.bursts for one in burst.times for a, b in itertools.pairwise(one))
        first = sorted(one[0] for burst in self.bursts for one in burst.times if one)
        gaps, first = gaps or [0.0], first or [0.0]
        return {
            "tokens_per_s": max(burst.rate for burst in self.bursts),
            "tokens_per_s_median": statistics.median(burst.rate for burst in self.bursts),
            "first_token_p50_s": _at(first, 0.5),
            "first_token_max_s": first[-1],
            "gap_p50_ms": 1e3 * _at(gaps, 0.5),
            "gap_p99_ms": 1e3 * _at(gaps, 0.99),
            "gap_max_ms": 1e3 * gaps[-1],
            "gaps_under_200_ms": sum(gap < 0.2 for gap in gaps) / len(gaps),
        }


def _at(ordered: Sequence[float], share: float) -> float:
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))]


def talk(folder: Path) -> "tuple[Tokenizer, list[int]]":
    """Conversations of people (package chitchat-dataset) as one long row of tokens.

    Words at random would do for the engine's speed, but what a small model makes of them are rows of numbers, which the guard holds back as
    it would a telephone number.
    """
    import chitchat_dataset

    from gptwright.tokens.tokenizer import Tokenizer

    raw = json.loads((Path(chitchat_dataset.__file__).parent / "dataset.json").read_text(encoding="utf-8"))
    turns = (" ".join(m["text"] for m in turn) for one in raw.values() for turn in one["messages"])
    tokenizer = Tokenizer.load(folder)
    return tokenizer, tokenizer.encode("\n".join(itertools.islice(turns, 20_000)))


def prompts(source: "tuple[Tokenizer, list[int]]", count: int, length: int, turn: int) -> list[str]:
    """Texts of about so many tokens, no two alike, the same for all sides in one turn."""
    tokenizer, ids = source
    starts = [((turn + 1) * count + i) * length % (len(ids) - length) for i in range(count)]
    return [tokenizer.decode(ids[at : at + length]) for at in starts]


def burst(url: str, bodies: Sequence[dict[str, Any]], patience_s: float) -> Burst:
    """All requests at once, streamed.

    Raises:
        RuntimeError: a stream ended early or with an error.
        TimeoutError: it took longer than ``patience_s``.
    """
    return asyncio.run(asyncio.wait_for(_burst(url, bodies), patience_s))


async def _burst(url: str, bodies: Sequence[dict[str, Any]]) -> Burst:
    start = time.perf_counter()
    found = await asyncio.gather(*(_stream(url, body, start) for body in bodies))
    return Burst(time.perf_counter() - start, sum(tokens for tokens, _ in found), [times for _, times in found])


async def _stream(url: str, body: dict[str, Any], start: float) -> tuple[int, list[float]]:
    """Returns its tokens, and when each piece of text came."""
    place = urlsplit(url)
    content = json.dumps(body).encode()
    head = (
        f"POST /v1/completions HTTP/1.1\r\nHost: {place.netloc}\r\nContent-Type: application/json\r\n"
        f"Connection: close\r\nContent-Length: {len(content)}\r\n\r\n"
    )
    reader, writer = await asyncio.open_connection(place.hostname, place.port)
    times: list[float] = []
    tokens = 0
    done = False
    try:
        writer.write(head.encode() + content)
        status = await reader.readline()
        if b" 200 " not in status:
            raise RuntimeError(f"{url} answered {status!r} {await reader.read(2000)!r}")
        async for line in reader:
            if not line.startswith(b"data:"):
                continue
            now = time.perf_counter() - start
            if line.strip().endswith(b"[DONE]"):
                done = True
                break
            chunk = json.loads(line[5:])
            if "error" in chunk:
                raise RuntimeError(f"{url} failed: {chunk}")
            if chunk.get("usage"):
                tokens = chunk["usage"]["completion_tokens"]
            if any(choice.get("text") for choice in chunk["choices"]):
                times.append(now)
    finally:
        writer.close()
    if not done:
        raise RuntimeError(f"{url}: a stream ended early")
    return tokens or len(times), times


class Process:
    """A server or the engine in its own process, silent unless it fails.

    Args:
        name: for people.
        command: what is run.
        threads: for its environment.
        url: where it will listen; None: the first line it prints.
        healthy: a path that answers 200 once it may be asked.
    """

    def __init__(
        self, name: str, command: Sequence[object], threads: int, url: str | None = None, healthy: str = ""
    ) -> None:
        self.name, self.seen = name, Seen()
        self.log: Any = tempfile.NamedTemporaryFile(prefix=f"{name.split()[0]}-", suffix=".log", delete=False)
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        out = subprocess.PIPE if url is None else self.log
        self.process: Any = subprocess.Popen(
            [str(part) for part in command], stdin=subprocess.PIPE, stdout=out, stderr=self.log, text=True, env=env
        )
        self.url = url or self.process.stdout.readline().strip()
        if not self.url:
            raise SystemExit(f"{name} did not start: see {self.log.name}")
        end = time.monotonic() + 120
        while healthy:
            if self.process.poll() is not None or time.monotonic() > end:
                raise SystemExit(f"{name} did not start: see {self.log.name}")
            try:
                with urllib.request.urlopen(self.url + healthy, timeout=5):
                    break
            except OSError:
                time.sleep(0.2)

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(60)
        except subprocess.TimeoutExpired:
            self.process.kill()
        self.log.close()


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def ours(what: str, folder: Path, threads: int, weights: str) -> Process:
    """Our server (``http``) or its engine alone (``engine``)."""
    name = "gptwright" if what == "http" else "engine without HTTP"
    return Process(name, [sys.executable, HERE / "serve_side.py", what, folder, threads, weights], threads)


def ask_engine(engine: Process, asked: dict[str, Any]) -> Burst:
    """The burst straight on the engine."""
    engine.process.stdin.write(json.dumps(asked) + "\n")
    engine.process.stdin.flush()
    line = engine.process.stdout.readline()
    if not line:
        raise SystemExit(f"the engine ended: see {engine.log.name}")
    return Burst(**json.loads(line))


def llama_server(binary: Path, file: Path, threads: int, clients: int, context: int, flash: bool) -> Process:
    """llama.cpp's own server with its best settings here: a cache for each client, as many clients as come."""
    port = free_port()
    command = [binary, "-m", file, "--host", "127.0.0.1", "--port", port, "-t", threads, "-tb", threads]
    command += ["-c", clients * context, "-np", clients, "--no-kv-unified", "-fa", "on" if flash else "off"]
    name = f"llama-server {file.stem[-9:]}{' fa' if flash else ''}"
    return Process(name, [*command, "-b", 2048, "-ub", 512], threads, f"http://127.0.0.1:{port}", "/health")


def llama_cpp_python(python: str, file: Path, threads: int, context: int) -> Process:
    """llama-cpp-python's server, which answers one request at a time."""
    port = free_port()
    command = [python, "-m", "llama_cpp.server", "--model", file, "--port", port, "--n_ctx", context]
    command += ["--n_threads", threads, "--n_threads_batch", threads, "--interrupt_requests", "false"]
    return Process(
        f"llama-cpp-python {file.stem[-9:]}", command, threads, f"http://127.0.0.1:{port}", "/v1/models"
    )  # fmt: skip


def version_of_llamacpp(python: str) -> str:
    """What the peer's environment has."""
    code = "from importlib.metadata import version; print(version('llama-cpp-python'))"
    done = subprocess.run([python, "-c", code], capture_output=True, text=True)
    return done.stdout.strip() or "?"


def machine() -> str:
    """The processor and how busy it is, for the result."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.exists() else []
    name = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")
    load = f", load {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return f"{name}, {os.cpu_count()} cores, Python {sys.version.split()[0]}{load}"
