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
