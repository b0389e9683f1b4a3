"""The control store: what cannot be made again. Releases and aliases, keys, usage, conversations, feedback, labels, audit.

SQLite in ``state/`` by default, PostgreSQL by URL; the same models and migrations serve both. Never deleted with ``work/``.
"""

import contextlib
import datetime
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import sqlalchemy as sa
from sqlalchemy.orm import DeclarativeBase, Mapped, Session, mapped_column

from gptwright.core.errors import UserError, require
from gptwright.core.files import disk_full, says_disk_is_full


class Base(DeclarativeBase):
    """Tables of the control store; the JSON columns hold plain values."""

    type_annotation_map = {dict[str, Any]: sa.JSON, list[Any]: sa.JSON, datetime.datetime: sa.DateTime(timezone=True)}  # noqa: RUF012


def utc_now() -> datetime.datetime:
    """The present, in UTC."""
    return datetime.datetime.now(datetime.UTC)


class Release(Base):
    """A model that may be promoted: immutable, with the gate's verdict."""

    __tablename__ = "release"
    id: Mapped[int] = mapped_column(primary_key=True)
    model_id: Mapped[str] = mapped_column(unique=True)
    model_hash: Mapped[str]
    path: Mapped[str]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    verdict: Mapped[dict[str, Any]]


class Alias(Base):
    """A name such as ``production`` and the release it points to now."""

    __tablename__ = "alias"
    name: Mapped[str] = mapped_column(primary_key=True)
    release_id: Mapped[int] = mapped_column(sa.ForeignKey("release.id"))
    updated_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)


class AliasHistory(Base):
    """Every move of an alias and why."""

    __tablename__ = "alias_history"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(index=True)
    release_id: Mapped[int] = mapped_column(sa.ForeignKey("release.id"))
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    reason: Mapped[str]


class ApiKey(Base):
    """A key to the API. Only its hash is kept."""

    __tablename__ = "api_key"
    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str]
    hash: Mapped[str] = mapped_column(unique=True)
    prefix: Mapped[str]
    scopes: Mapped[list[Any]]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    expires_at: Mapped[datetime.datetime | None]
    revoked_at: Mapped[datetime.datetime | None]
    requests_per_minute: Mapped[int | None] = mapped_column(sa.BigInteger)
    tokens_per_minute: Mapped[int | None] = mapped_column(sa.BigInteger)
    max_concurrent: Mapped[int | None] = mapped_column(sa.BigInteger)  # answers at once
    tokens_per_day: Mapped[int | None] = mapped_column(sa.BigInteger)


class Usage(Base):
    """Tokens used by one request. ``end_user`` is a hash of the name that the caller gave to whom it asks for."""

    __tablename__ = "usage"
    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"))
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now, index=True)
    model: Mapped[str]
    prompt_tokens: Mapped[int]
    completion_tokens: Mapped[int]
    end_user: Mapped[str | None]


class Conversation(Base):
    """A conversation of the chat page. ``key_id`` is the API key that owns it, None where the server asks for no key."""

    __tablename__ = "conversation"
    id: Mapped[str] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    title: Mapped[str]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    updated_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    info: Mapped[dict[str, Any]] = mapped_column(default=dict)  # its settings, and which branch is shown


class Message(Base):
    """A turn of a conversation; ``parent_id`` makes branches."""

    __tablename__ = "message"
    id: Mapped[str] = mapped_column(primary_key=True)
    conversation_id: Mapped[str] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"), index=True)
    parent_id: Mapped[str | None]
    role: Mapped[str]
    content: Mapped[str]
    model: Mapped[str | None]
    created_at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    info: Mapped[dict[str, Any]] = mapped_column(default=dict)  # how it ended, its tokens' probabilities


class Feedback(Base):
    """A judgement of an answer, and whether it may be trained on. ``end_user`` is a hash of the name of whoever judged."""

    __tablename__ = "feedback"
    id: Mapped[int] = mapped_column(primary_key=True)
    key_id: Mapped[int | None] = mapped_column(sa.ForeignKey("api_key.id"), index=True)
    end_user: Mapped[str | None]
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    model: Mapped[str]
    messages: Mapped[list[Any]]
    kind: Mapped[str]
    value: Mapped[dict[str, Any]]
    consent: Mapped[bool]


class Erasure(Base):
    """A demand to erase texts that was carried out: on whose ground, what it reached, and what it could not."""

    __tablename__ = "erasure"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    basis: Mapped[str]
    selector: Mapped[str]  # its kind, and the value where that is no personal datum itself
    documents: Mapped[int]
    certificate: Mapped[dict[str, Any]]
    previous: Mapped[str | None]  # hash of the erasure before it, so that none can be taken out unseen
    hash: Mapped[str]


class ErasureBlock(Base):
    """What keeps an erased text from coming back: keyed hashes (``corpus.blocks``), nothing of the text."""

    __tablename__ = "erasure_block"
    id: Mapped[int] = mapped_column(primary_key=True)
    erasure_id: Mapped[int] = mapped_column(sa.ForeignKey("erasure.id"), index=True)
    mac: Mapped[str] = mapped_column(unique=True)
    sketch: Mapped[str | None]


class Label(Base):
    """A person's judgement of a document, to train a classifier from. A later one of the same text replaces an earlier one."""

    __tablename__ = "label"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    doc_uid: Mapped[str]
    content_id: Mapped[str] = mapped_column(index=True)
    task: Mapped[str] = mapped_column(index=True)  # quality, toxicity, or any other question
    value: Mapped[str]  # good, bad or skip for quality; toxic, ok or skip for toxicity
    who: Mapped[str | None]


class LicenseReview(Base):
    """A person's decision about the licence of the texts that a scope names. A later one of the same scope replaces an earlier one."""

    __tablename__ = "license_review"
    id: Mapped[int] = mapped_column(primary_key=True)
    at: Mapped[datetime.datetime] = mapped_column(default=utc_now)
    source: Mapped[str] = mapped_column(index=True)
    scope: Mapped[str]  # "*", "host:NAME", "path:GLOB", "found:LICENCE"
    license_id: Mapped[str]
    attribution: Mapped[str | None]
    note: Mapped[str | None]
    who: Mapped[str | None]


class ControlStore:
    """Open it with ``ControlStore.open``; work in ``with store.session() as session``."""

    def __init__(self, engine: sa.Engine) -> None:
        self.engine = engine

    @classmethod
    def open(cls, place: str | Path) -> Self:
        """Open or create the store and bring its schema up to date.

        Args:
            place: a file (SQLite) or an SQLAlchemy URL such as ``postgresql+psycopg://user@host/db``.

        Raises:
            UserError: the database cannot be reached, or the driver is missing.
        """
        url = place if isinstance(place, str) and "://" in place else None
        if url is None:
            Path(place).parent.mkdir(parents=True, exist_ok=True)
            engine = sa.create_engine(f"sqlite:///{Path(place).as_posix()}", connect_args={"timeout": 30})
            sa.event.listen(engine, "connect", _sqlite_pragmas)
            # The driver's own transactions start late and let two writers both read first; ours start by taking the write lock.
            sa.event.listen(engine, "begin", lambda connection: connection.exec_driver_sql("BEGIN IMMEDIATE"))
        else:
            engine = _engine(url)
        try:
            _upgrade(engine)
        except (sa.exc.OperationalError, sa.exc.DatabaseError) as error:
            engine.dispose()
            if says_disk_is_full(error):
                raise disk_full() from error
            raise UserError(
                f"the control store cannot be opened: {error.__cause__ or error}", where=_shown(place)
            ) from error
        return cls(engine)

    @contextlib.contextmanager
    def session(self) -> Iterator[Session]:
        """A session that commits on a clean exit and rolls back otherwise."""
        with Session(self.engine, expire_on_commit=False) as session, session.begin():
            yield session

    def forget_deleted(self) -> None:
        """After a deletion that must be real: SQLite's log of changes is emptied too, where what was deleted still stands.

        A reader that is at work keeps the log; then it goes at the next occasion. PostgreSQL does this by itself (autovacuum).
        """
        if self.engine.dialect.name == "sqlite":
            with self.engine.connect() as connection:
                connection.rollback()  # a checkpoint must not run inside a transaction
                raw = connection.connection.dbapi_connection
                assert raw is not None
                raw.cursor().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def close(self) -> None:
        """Close all connections."""
        self.engine.dispose()


def _engine(url: str) -> sa.Engine:
    """An engine for a URL; ``postgres://``, which many hosts hand out, is PostgreSQL too."""
    scheme, mark, rest = url.partition("://")
    if scheme in ("postgres", "postgresql"):
        url = f"postgresql+psycopg{mark}{rest}"
    if url.startswith("postgresql+psycopg:"):
        require("psycopg", "postgres")
    try:
        return sa.create_engine(url, pool_pre_ping=True)
    except (sa.exc.ArgumentError, ImportError, ValueError) as error:
        # The text of these errors may hold the whole URL, password and all.
        why = f": {error}" if isinstance(error, sa.exc.NoSuchModuleError | ImportError) else ""
        raise UserError(
            f"a {scheme}:// URL that cannot be used{why}",
            where="[serve] database_url",
            fix="Write postgresql://USER:PASSWORD@HOST/NAME, or leave it out for SQLite",
        ) from error


def _sqlite_pragmas(connection: Any, _record: Any) -> None:
    connection.isolation_level = None
    # secure_delete: what is deleted is overwritten; without it the words stay in the file until something else needs the place.
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON", "secure_delete=ON"):
        connection.execute(f"PRAGMA {pragma}")


def _shown(place: str | Path) -> str:
    return (
        sa.engine.make_url(place).render_as_string(hide_password=True)
        if isinstance(place, str) and "://" in place
        else str(place)
    )


def _upgrade(engine: sa.Engine) -> None:
    """Run the migrations that are missing. Looking first is cheap, and spares every start the import of Alembic's machinery."""
    from alembic import command
    from alembic.config import Config as AlembicConfig
    from alembic.migration import MigrationContext
    from alembic.script import ScriptDirectory

    settings = AlembicConfig()
    settings.set_main_option("script_location", str(Path(__file__).with_name("migrations")))
    with engine.begin() as connection:
        heads = set(ScriptDirectory.from_config(settings).get_heads())
        if set(MigrationContext.configure(connection).get_current_heads()) != heads:
            settings.attributes["connection"] = connection
            command.upgrade(settings, "head")
