"""The control store on SQLite, and on a real PostgreSQL."""

from pathlib import Path

import pytest
import sqlalchemy as sa

import gptwright.core.serving_tables  # noqa: F401  its tables are checked too
from gptwright.core.control import Alias, Base, ControlStore, Release
from gptwright.core.errors import UserError


def test_open_when_migrated_then_the_schema_is_that_of_the_models(tmp_path: Path) -> None:
    store = ControlStore.open(tmp_path / "state" / "control.sqlite")
    assert_schema_matches(store)


def test_session_when_the_block_fails_then_nothing_is_kept(control: ControlStore) -> None:
    with pytest.raises(RuntimeError), control.session() as session:
        session.add(Release(model_id="m", model_hash="h", path="p", verdict={}))
        session.flush()
        raise RuntimeError
    with control.session() as session:
        assert session.scalars(sa.select(Release)).all() == []


def test_session_when_a_reference_is_broken_then_it_is_refused(control: ControlStore) -> None:
    with pytest.raises(sa.exc.IntegrityError), control.session() as session:
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


def test_open_when_opened_again_then_what_was_kept_is_there(control: ControlStore) -> None:
    assert_schema_matches(control)
    with control.session() as session:
        release = Release(model_id="m", model_hash="h", path="p", verdict={"passed": True})
        session.add(release)
        session.flush()
        session.add(Alias(name="production", release_id=release.id))
    again = ControlStore.open(control.place)  # type: ignore[attr-defined]
    with again.session() as session:
        assert session.scalars(sa.select(Release)).one().verdict == {"passed": True}
    again.close()


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
