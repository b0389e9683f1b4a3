"""An upstream in a thread: a second gptwright with the fake engine, and a rude server that misbehaves on request."""

import importlib.util
import json
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, ClassVar

import pytest

SERVE = Path(__file__).parents[1] / "serve"


def _load(name: str, path: Path) -> Any:
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


_load("gw_fakes", SERVE / "fakes.py")
servers = _load("gw_servers", SERVE / "conftest.py")
start = servers.start


class Rude(BaseHTTPRequestHandler):
    """Answers with the status that the model's name asks for."""

    seen: ClassVar[list[dict[str, str]]] = []

    def do_POST(self) -> None:
        length = int(self.headers["content-length"])
        body = json.loads(self.rfile.read(length))
        self.seen.append({**{key.lower(): value for key, value in self.headers.items()}, "body": json.dumps(body)})
        what = body["model"]
        if what == "close":
            self.connection.close()
            return
        if what == "sleep":
            threading.Event().wait(3)
        status = int(what) if what.isdigit() else 200
        data = json.dumps({"error": {"message": f"upstream says {status}", "type": "x", "param": None, "code": None}})
        if what == "cut":
            chunk = {"id": "1", "object": "chat.completion.chunk", "created": 1, "model": "m"}
            chunk["choices"] = [{"index": 0, "delta": {"content": "half"}, "finish_reason": None}]
            data = f"data: {json.dumps(chunk)}\n\n"
        self.send_response(status)
        self.send_header("content-type", "text/event-stream" if status == 200 else "application/json")
        # "cut" promises more than it sends.
        self.send_header("content-length", str(len(data) + (500 if what == "cut" else 0)))
        self.end_headers()
        self.wfile.write(data.encode())

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def rude() -> Iterator[tuple[str, list[dict[str, str]]]]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Rude)
    Rude.seen.clear()
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}/v1", Rude.seen
    server.shutdown()


def chunk(delta: dict[str, Any], finish: str | None = None, **more: Any) -> str:
    """A server-sent chunk of a chat."""
    choices = [{"index": 0, "delta": delta, "finish_reason": finish}]
    body = {
        "id": "1",
        "object": "chat.completion.chunk",
        "created": 1,
        "model": "fake-1-2026-01-01",
        "choices": choices,
    }
    return f"data: {json.dumps({**body, **more})}\n\n"


USAGE = chunk({}, choices=[], usage={"prompt_tokens": 1000, "completion_tokens": 500, "total_tokens": 1500})
HELLO = chunk({"role": "assistant", "content": "Hel"}) + chunk({"content": "lo."})
STOP, DONE = chunk({}, "stop"), "data: [DONE]\n\n"


def _call(**function: Any) -> str:
    head = {"id": "call_1", "type": "function"} if "name" in function else {}
    return chunk({"tool_calls": [{"index": 0, **head, "function": function}]})


STREAMS = {
    "ok": HELLO + STOP + USAGE + DONE,
    "uncounted": HELLO + STOP + DONE,
    "tool": _call(name="weather", arguments="") + _call(arguments='{"city": ') + _call(arguments='"Rome"}')
    + chunk({}, "tool_calls") + USAGE + DONE,
    "truncated": HELLO,
    "long": chunk({"content": "many words "}) * 9,
    "garbage": HELLO + "data: {this is no json\n\n",
    "wrong": 'data: {"choices": "none"}\n\n' + DONE,
    "number": chunk({"content": 7}) + STOP + DONE,
    "html": "<html><body>Welcome</body></html>",
    "error": HELLO + 'data: {"error": {"message": "the model crashed", "type": "x", "param": null, "code": null}}\n\n',
}  # fmt: skip


class FakeProvider:
    """A provider that does what its plan says, one item a request; the last item goes on.

    Items: a name in ``STREAMS``; ``hang``; a status, with ``@SECONDS`` for Retry-After; ``key``: a 400 that repeats the key it was sent.
    """

    def __init__(self) -> None:
        self.plan: list[str] = ["ok"]
        self.bodies: list[dict[str, Any]] = []
        self.headers: list[dict[str, str]] = []
        self.paths: list[str] = []
        self.release = threading.Event()
        outer = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.paths.append(self.path)
                self._send(200, json.dumps({"object": "list", "data": [{"id": "models/b"}, {"id": "a"}]}))

            def do_POST(self) -> None:
                outer.headers.append({k.lower(): v for k, v in self.headers.items()})
                outer.bodies.append(json.loads(self.rfile.read(int(self.headers["content-length"]))))
                item = outer.plan.pop(0) if len(outer.plan) > 1 else outer.plan[0]
                if item == "hang":
                    outer.release.wait(20)
                    return
                if item.startswith("http"):  # a redirect
                    self.send_response(307)
                    self.send_header("location", item)
                    self.send_header("content-length", "0")
                    self.end_headers()
                    return
                if item in STREAMS:
                    self._send(200, STREAMS[item], "text/html" if item == "html" else "text/event-stream")
                    return
                status, _, wait = item.partition("@")
                said = self.headers["authorization"] if item == "key" else f"upstream says {item}"
                error = {"message": said, "type": "x", "param": None, "code": None}
                self._send(400 if item == "key" else int(status), json.dumps({"error": error}), wait=wait)

            def _send(self, status: int, text: str, kind: str = "application/json", wait: str = "") -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(text.encode())))
                if wait:
                    self.send_header("retry-after", wait)
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}/v1"


@pytest.fixture
def fake() -> Iterator[FakeProvider]:
    found = FakeProvider()
    threading.Thread(target=found.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()
    yield found
    found.release.set()
    found.server.shutdown()
