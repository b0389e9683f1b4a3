"""A web server on this machine that answers as told and remembers what it was asked."""

import contextlib
import http.server
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from tests.corpus.sources.gathered import OPTIONS, Gather, requested

from gptwright.corpus.sources import web
from gptwright.corpus.sources.fetch import Fetcher
from gptwright.corpus.sources.options import CrawlOptions
from gptwright.corpus.sources.raw import Place, RawStore


@dataclass
class Reply:
    """An answer: a body with its headers, or ``act``, which speaks to the connection itself."""

    body: bytes = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    act: Callable[[Any], None] | None = None


class Server:
    """Replies by path. A page's entity tag is its content's; what asks with it gets 304. Unknown paths are 404."""

    def __init__(self, address: str = "127.0.0.1") -> None:
        self.replies: dict[str, Reply] = {}
        self.asked: list[tuple[str, dict[str, str]]] = []
        outer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            disable_nagle_algorithm = True

            def log_message(self, *_: object) -> None:
                pass

            def do_GET(self) -> None:
                outer.asked.append((self.path, {k.lower(): v for k, v in self.headers.items()}))
                reply = outer.replies.get(self.path, Reply(status=404))
                if reply.act is not None:
                    self.close_connection = True
                    with contextlib.suppress(OSError):
                        reply.act(self)
                    return
                tag = f'"{hash(reply.body) & 0xFFFFFFFF:x}"'
                same = reply.status == 200 and self.headers.get("If-None-Match") == tag
                self.send_response(304 if same else reply.status)
                for name, value in reply.headers.items():
                    self.send_header(name, value)
                if reply.status == 200:
                    self.send_header("ETag", tag)
                if not same:
                    self.send_header("Content-Length", str(len(reply.body)))
                self.end_headers()
                if not same:
                    self.wfile.write(reply.body)

        self._server = http.server.ThreadingHTTPServer((address, 0), Handler)
        self._server.handle_error = lambda *_: None  # type: ignore[method-assign]  # clients here break off on purpose
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
        self._thread.start()
        self.port = self._server.server_port
        self.base = f"http://{address}:{self.port}"

    def page(self, path: str, html: str, status: int = 200, **headers: str) -> None:
        named = {"Content-Type": "text/html; charset=utf-8", **{k.replace("_", "-"): v for k, v in headers.items()}}
        self.replies[path] = Reply(html.encode(), status, named)

    def text(self, path: str, text: str, mime: str = "text/plain", status: int = 200) -> None:
        self.replies[path] = Reply(text.encode(), status, {"Content-Type": mime})

    def paths(self) -> list[str]:
        """What was asked, without robots.txt and its kin."""
        return [path for path, _ in self.asked if path not in ("/robots.txt", "/.well-known/tdmrep.json")]

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server()
    yield made
    made.close()


@pytest.fixture
def servers() -> Iterator[Callable[[str], Server]]:
    """More servers, by the address they stand on."""
    made: list[Server] = []

    def make(address: str) -> Server:
        made.append(Server(address))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def reply() -> type[Reply]:
    return Reply


@pytest.fixture
def client() -> Iterator[Callable[..., Fetcher]]:
    """Clients that may ask this machine, without delay; options and parts can be given."""
    made: list[Fetcher] = []

    def make(options: dict[str, Any] | None = None, **parts: Any) -> Fetcher:
        chosen = {"delay": 0, "timeout": 5, "allow_private": True, **(options or {})}
        parts.setdefault("sleep", lambda _seconds: None)
        made.append(Fetcher(CrawlOptions.model_validate(chosen), **parts))
        return made[-1]

    yield make
    for one in made:
        one.__exit__()


@pytest.fixture
def gather(tmp_path: Path, client: Callable[..., Any]) -> Gather:
    """Gather a source and give its places by locator."""

    def run(
        uri: str, options: dict[str, Any] | None = None, settings: dict[str, Any] | None = None, **parts: Any
    ) -> dict[str, Place]:
        request = requested(tmp_path, uri, options, settings)
        web.gather_with(request, client({**OPTIONS, **(options or {})}, **parts))
        return {place.locator: place for place in RawStore(request.raw).places()}

    return run
