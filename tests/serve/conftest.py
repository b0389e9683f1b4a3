"""Servers in threads on free loopback ports, with the fake engine."""

import datetime
import functools
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
from tests.databases import DATABASES, fresh_store

from gptwright.core.control import ControlStore
from gptwright.serve.app import create_app

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "openai-openapi.yaml"


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
    running_now: dict[str, Any] = {}

    def begin(**options: Any) -> tuple[str, Any]:
        options.setdefault("models", gw_fakes.Models())
        app = create_app(options.pop("models"), **options)
        context = running(app)
        url = context.__enter__()
        running_now[url] = context
        return url, app

    def stop(url: str) -> None:
        running_now.pop(url).__exit__(None, None, None)

    begin.stop = stop  # type: ignore[attr-defined]
    yield begin
    for url in list(running_now):
        stop(url)


@pytest.fixture(scope="module", params=DATABASES)
def store(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlStore]:
    """A control store that the tests of a module share, on both databases: for those that only need one to be there."""
    with fresh_store(request.param, request, tmp_path_factory.mktemp("store")) as store:
        yield store


@pytest.fixture
def stored(start: Callable[..., tuple[str, Any]], store: ControlStore) -> Callable[..., tuple[str, Any]]:
    """``start``, with the module's control store."""
    return functools.partial(start, control=store)


@pytest.fixture(scope="module", params=DATABASES)
def shared(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[str, Any]]:
    """One server for tests that only ask; they run on both databases."""
    models = gw_fakes.Models()
    with fresh_store(request.param, request, tmp_path_factory.mktemp("shared")) as store:
        app = create_app(models, control=store)
        with running(app) as url:
            yield url, models.fake


@pytest.fixture(scope="session")
def reference() -> dict[str, Any]:
    """OpenAI's published description of its API."""
    if not REFERENCE.exists():
        pytest.skip(f"{REFERENCE} is not here")
    yaml = pytest.importorskip("yaml")
    text = REFERENCE.read_text(encoding="utf-8")
    document: dict[str, Any] = _nullable(yaml.load(text, Loader=getattr(yaml, "CSafeLoader", yaml.SafeLoader)))
    return document


@pytest.fixture(scope="session")
def check(reference: dict[str, Any]) -> Callable[[str, Any], None]:
    """Validate an answer against a schema of OpenAI's own description."""
    rs = pytest.importorskip("jsonschema_rs")
    components = {"schemas": reference["components"]["schemas"]}
    known: dict[str, Any] = {}

    def validate(name: str, value: Any) -> None:
        if name not in known:
            schema = {"$ref": f"#/components/schemas/{name}", "components": components}
            known[name] = rs.validator_for(schema)
        found = [f"{list(error.instance_path)}: {error.message}" for error in known[name].iter_errors(value)]
        assert not found, found

    return validate


def _nullable(node: Any) -> Any:
    """OpenAPI 3.0's ``nullable`` in a 3.1 document: read it as it is meant."""
    if isinstance(node, list):
        return [_nullable(item) for item in node]
    if not isinstance(node, dict):
        return node.isoformat() if isinstance(node, datetime.date) else node
    plain = {key: _nullable(value) for key, value in node.items() if key != "nullable"}
    return {"anyOf": [plain, {"type": "null"}]} if node.get("nullable") is True else plain
