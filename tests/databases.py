"""Control stores for tests, on SQLite and on a real PostgreSQL that the tests start themselves, once a session."""

import itertools
import os
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore

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
