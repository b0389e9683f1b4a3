"""The control store on SQLite, and on a real PostgreSQL where one is installed."""

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa

import gptwright.core.serving_tables  # noqa: F401  its tables are checked too
from gptwright.core.control import Alias, Base, ControlStore, Release
from gptwright.core.errors import UserError


def test_open_when_migrated_then_the_schema_is_that_of_the_models(tmp_path: Path) -> None:
    store = ControlStore.open(tmp_path / "state" / "control.sqlite")
    assert_schema_matches(store)


def test_session_when_the_block_fails_then_nothing_is_kept(tmp_path: Path) -> None:
    store = ControlStore.open(tmp_path / "control.sqlite")
    with pytest.raises(RuntimeError), store.session() as session:
        session.add(Release(model_id="m", model_hash="h", path="p", verdict={}))
        session.flush()
        raise RuntimeError
    with store.session() as session:
        assert session.scalars(sa.select(Release)).all() == []


def test_session_when_a_reference_is_broken_then_it_is_refused(tmp_path: Path) -> None:
    store = ControlStore.open(tmp_path / "control.sqlite")
    with pytest.raises(sa.exc.IntegrityError), store.session() as session:
        session.add(Alias(name="production", release_id=42))


def test_open_when_the_database_is_away_then_the_error_hides_the_password() -> None:
    with pytest.raises(UserError) as caught:
        ControlStore.open("postgresql://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
    assert "127.0.0.1:1" in str(caught.value)


def assert_schema_matches(store: ControlStore) -> None:
    inspector = sa.inspect(store.engine)
    for table in Base.metadata.sorted_tables:
        columns = {c["name"]: bool(c["nullable"]) for c in inspector.get_columns(table.name)}
        assert columns == {c.name: bool(c.nullable) for c in table.columns}, table.name


def postgres_binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
    return found[-1].parent if found else None


@pytest.fixture(scope="session")
def postgres_url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    binaries = postgres_binaries()
    if binaries is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    folder = Path("/tmp") / f"gptwright-pg-{os.getpid()}"
    folder.mkdir(mode=0o700)
    # PostgreSQL refuses to run as root; a container's root hands it to the user that the package made.
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    data, port = folder / "data", "54329"
    subprocess.run(
        [*as_user, binaries / "initdb", "-D", data, "-A", "trust", "-U", "gptwright"], check=True, capture_output=True
    )
    server = [
        *as_user,
        binaries / "pg_ctl",
        "-D",
        data,
        "-w",
        "-o",
        f"-p {port} -k {folder} -c listen_addresses=127.0.0.1",
    ]
    subprocess.run([*server, "-l", folder / "log", "start"], check=True, capture_output=True)
    try:
        yield f"postgresql://gptwright@127.0.0.1:{port}/postgres"
    finally:
        subprocess.run(
            [*as_user, binaries / "pg_ctl", "-D", data, "-m", "immediate", "stop"], check=False, capture_output=True
        )
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_open_when_on_postgresql_then_the_same_models_work(postgres_url: str) -> None:
    pytest.importorskip("psycopg")
    store = ControlStore.open(postgres_url)
    assert_schema_matches(store)
    with store.session() as session:
        release = Release(model_id="m", model_hash="h", path="p", verdict={"passed": True})
        session.add(release)
        session.flush()
        session.add(Alias(name="production", release_id=release.id))
    again = ControlStore.open(postgres_url)
    with again.session() as session:
        assert session.scalars(sa.select(Release)).one().verdict == {"passed": True}


@pytest.mark.parametrize(
    ("url", "words"),
    [
        (
            "mongo://user:secret@host/db",
            r"a mongo:// URL that cannot be used: Can't load plugin: sqlalchemy.dialects:mongo",
        ),
        ("postgresql+pg8000://user:secret@host/db", "No module named 'pg8000'"),
        ("postgresql://user:secret@host:port/db", "a postgresql:// URL that cannot be used"),
        ("://user:secret@host", "cannot be used"),
    ],
)
def test_open_when_the_url_is_of_no_use_then_the_key_and_the_form_are_named(url: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        ControlStore.open(url)
    assert "[serve] database_url" in str(caught.value)
    assert "Write postgresql://" in str(caught.value)
    assert "secret" not in str(caught.value)


def test_open_when_the_scheme_is_postgres_then_it_is_postgresql() -> None:
    with pytest.raises(UserError, match="the control store cannot be opened: connection failed") as caught:
        ControlStore.open("postgres://user:secret@127.0.0.1:1/none")
    assert "secret" not in str(caught.value)
