"""Servers in threads on free loopback ports, with the fake engine."""

import importlib.util
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import uvicorn

if "gw_fakes" not in sys.modules:
    spec = importlib.util.spec_from_file_location("gw_fakes", Path(__file__).parent / "fakes.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["gw_fakes"] = module
    spec.loader.exec_module(module)

import gw_fakes

from gptwright.serve.app import create_app


@contextmanager
def running(app: Any) -> Iterator[str]:
    server = uvicorn.Server(
        uvicorn.Config(app, host="127.0.0.1", port=0, log_level="warning", timeout_graceful_shutdown=2)
    )
    thread = threading.Thread(target=server.run, daemon=True)
    thread.start()
    end = time.monotonic() + 60
    while not server.started:
        assert thread.is_alive(), "the server ended before it had started"
        assert time.monotonic() < end, "the server does not start"
        time.sleep(0.01)
    port = server.servers[0].sockets[0].getsockname()[1]
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        server.should_exit = True
        thread.join(30)


@pytest.fixture
def start() -> Iterator[Callable[..., tuple[str, Any]]]:
    """Start a server with its own fake engine; returns its URL and the app."""
    stack = []

    def begin(**options: Any) -> tuple[str, Any]:
        options.setdefault("models", gw_fakes.Models())
        app = create_app(options.pop("models"), **options)
        context = running(app)
        url = context.__enter__()
        stack.append(context)
        return url, app

    yield begin
    for context in reversed(stack):
        context.__exit__(None, None, None)


@pytest.fixture(scope="module")
def shared() -> Iterator[tuple[str, Any]]:
    """One server for tests that only ask."""
    models = gw_fakes.Models()
    app = create_app(models)
    with running(app) as url:
        yield url, models.fake
