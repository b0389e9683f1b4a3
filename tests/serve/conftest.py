"""Servers in threads on free loopback ports, with the fake engine; control stores on SQLite and on a real PostgreSQL."""

import datetime
import importlib.util
import itertools
import os
import shutil
import socket
import subprocess
import sys
import tempfile
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
import sqlalchemy as sa

from gptwright.core.control import ControlStore
from gptwright.serve.app import create_app

REFERENCE = Path(__file__).parents[2].parent / "shared" / "reference" / "openai-openapi.yaml"
DATABASES = ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)]
_numbers = itertools.count(1)


@pytest.fixture(scope="session")
def postgres() -> Iterator[str]:
    """A PostgreSQL server of our own with a migrated database named gptwright; its URL without a database."""
    pytest.importorskip("psycopg")
    root = Path("/usr/lib/postgresql")
    found = sorted(root.glob("*/bin/initdb")) if root.is_dir() else []
    if not found:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    binaries = found[-1].parent
    folder = Path(tempfile.mkdtemp(prefix="gw-pg-", dir="/tmp"))
    # PostgreSQL refuses to run as root; a container's root hands it to the user that the package made.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    data = folder / "data"
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off -c max_connections=400"

    def run(*command: Any) -> None:
        subprocess.run([*as_user, *command], check=True, capture_output=True)

    run(binaries / "initdb", "-D", data, "-A", "trust", "-U", "gptwright")
    run(binaries / "pg_ctl", "-D", data, "-w", "-o", options, "-l", folder / "log", "start")
    url = f"postgresql+psycopg://gptwright@127.0.0.1:{port}"
    try:
        admin = sa.create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text("CREATE DATABASE gptwright"))
        admin.dispose()
        ControlStore.open(f"{url}/gptwright").close()
        yield url
    finally:
        run(binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop")
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A SQLite store that is up to date, to copy: migrating takes longer than most tests."""
    path = tmp_path_factory.mktemp("store") / "control.sqlite"
    ControlStore.open(path).close()
    with sa.create_engine(f"sqlite:///{path}").connect() as connection:
        connection.exec_driver_sql("PRAGMA wal_checkpoint(TRUNCATE)")
    return path


@contextmanager
def fresh_store(kind: str, request: pytest.FixtureRequest, folder: Path) -> Iterator[ControlStore]:
    """An empty control store of a kind."""
    if kind == "sqlite":
        place: str | Path = Path(shutil.copy(request.getfixturevalue("migrated"), folder / "control.sqlite"))
    else:
        url = request.getfixturevalue("postgres")
        name = f"t{next(_numbers)}"
        admin = sa.create_engine(f"{url}/postgres", isolation_level="AUTOCOMMIT")
        with admin.connect() as connection:
            connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE gptwright"))
        admin.dispose()
        place = f"{url}/{name}"
    store = ControlStore.open(place)
    store.place = place  # type: ignore[attr-defined]
    try:
        yield store
    finally:
        store.close()


@pytest.fixture(params=DATABASES)
def control(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[ControlStore]:
    """An empty control store; every test that asks for it runs on both databases."""
    with fresh_store(request.param, request, tmp_path) as store:
        yield store


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
