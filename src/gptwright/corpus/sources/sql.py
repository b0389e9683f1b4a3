"""The rows of a query on any database that SQLAlchemy speaks to, kept as parquet files of bounded size; nothing is ever written there.

``sql:URL#QUERY``. The password comes from the environment (``${NAME}`` in the URL) and reaches no file, message or log.
"""

import datetime
import json
import os
import re
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import sqlalchemy as sa

from gptwright.core.errors import Interrupted, UserError, require
from gptwright.core.files import TEMPORARY
from gptwright.core.interrupt import stop_on_signals
from gptwright.core.progress import progress
from gptwright.corpus.shapes import PROMPT_KEYS, REPLY_KEYS, TEXT_KEYS, readable
from gptwright.corpus.sources.base import Request
from gptwright.corpus.sources.raw import RawStore

FETCH_ROWS = 500
CHUNK_BYTES = 64 << 20  # of text in one parquet file
KEY_COLUMNS = ("locator", "id")  # the first of these that the query gives names its rows
KEY_METADATA = b"gptwright.key"  # in a parquet file's schema: the column whose values stand in locators
_NAME = re.compile(r"\$\{([A-Za-z_][A-Za-z0-9_]*)\}")
_WRITES = frozenset(
    {
        "insert", "update", "delete", "merge", "into", "create", "drop", "alter", "truncate", "grant", "revoke", "copy", "call", "do",
        "execute", "replace", "attach", "pragma", "vacuum", "lock",
    }
)  # fmt: skip
_SECRET_KEYS = re.compile(r"pass|pwd|secret|token|key", re.IGNORECASE)
_QUOTED = re.compile(
    r"--[^\n]*|/\*.*?\*/|'(?:[^']|'')*'|\"(?:[^\"]|\"\")*\"|`[^`]*`|\[[A-Za-z_][^\]\n]*\]|\$(\w*)\$.*?\$\1\$",
    re.DOTALL,
)


@dataclass(frozen=True)
class Target:
    """A database and a query. ``secrets`` are the values that came from the environment; they are never shown."""

    url: sa.URL
    query: str
    secrets: tuple[str, ...]

    @property
    def shown(self) -> str:
        """The database for people: no user, no password, no options."""
        host = f"{self.url.host}{f':{self.url.port}' if self.url.port else ''}" if self.url.host else ""
        return f"{self.url.drivername}://{host}/{self.url.database or ''}"

    def clean(self, text: str) -> str:
        """A message without the secrets."""
        for secret in self.secrets:
            text = text.replace(secret, "***")
        return text


def parse(rest: str, where: str, environment: Mapping[str, str] = os.environ) -> Target:
    """Read ``URL#QUERY``.

    Raises:
        UserError: no query, a query that may write, a password in the URL itself, or a name that the environment lacks.
    """
    written, mark, query = rest.partition("#")
    query = query.strip().rstrip(";").strip()
    if not mark or not query:
        raise UserError("no query is given", where=where, fix="Write sql:URL#SELECT text FROM ...")
    check_query(query, where)
    secrets: list[str] = []

    def value(match: re.Match[str]) -> str:
        if match[1] not in environment:
            raise UserError(f"the environment has no {match[1]}", where=where, fix=f"Run: export {match[1]}=...")
        secrets.append(environment[match[1]])
        return environment[match[1]]

    try:
        bare = sa.make_url(written)
    except (sa.exc.ArgumentError, ValueError) as error:
        raise UserError(
            "the part before # is no database URL",
            where=where,
            fix="Write it as postgresql://USER:${PASSWORD}@HOST/NAME",
        ) from error
    open_options = [
        key for key, one in bare.query.items() if _SECRET_KEYS.search(key) and not _NAME.fullmatch(str(one))
    ]
    if (bare.password and not _NAME.fullmatch(str(bare.password))) or open_options:
        raise UserError(
            "the password stands in the URL, and would be kept in files",
            where=where,
            fix="Write ${NAME} in its place, and set NAME in the environment",
        )
    url = bare.set(
        drivername=_driver(bare.drivername),
        username=_NAME.sub(value, bare.username) if bare.username else None,
        password=_NAME.sub(value, str(bare.password)) if bare.password else None,
        host=_NAME.sub(value, bare.host) if bare.host else None,
        database=_NAME.sub(value, bare.database) if bare.database else None,
        query={key: _NAME.sub(value, one) if isinstance(one, str) else one for key, one in bare.query.items()},
    )
    return Target(url, query, tuple(sorted({one for one in secrets if one}, key=len, reverse=True)))


def _driver(name: str) -> str:
    return "postgresql+psycopg" if name in ("postgres", "postgresql") else name


def check_query(query: str, where: str = "sql") -> None:
    """Refuse what is not one reading statement.

    Raises:
        UserError: it begins with another word than SELECT or WITH, holds several statements, or a word that writes.
    """
    fix = "Write one SELECT, or WITH ... SELECT"
    if "\\'" in query:  # ends a string in some databases and not in others
        raise UserError("the query holds \\'", where=where, fix="Write a quote inside a string as ''")
    bare = _QUOTED.sub(" ", query)
    words = re.findall(r"[a-z_]+|;", bare.lower())
    if not words or words[0] not in ("select", "with"):
        raise UserError(f"the query begins with {words[0].upper() if words else 'nothing'}", where=where, fix=fix)
    if ";" in words:
        raise UserError("the query holds several statements", where=where, fix=fix)
    if writes := next(
        (word for word in words if word in _WRITES and not re.search(rf"\b{word}\s*\(", bare, re.IGNORECASE)), None
    ):
        raise UserError(
            f"the query holds the word {writes.upper()}, and only reading is done",
            where=where,
            fix=f'{fix}; quote a name "{writes}"',
        )


def gather(request: Request) -> None:
    """Bring the query's rows into the raw store, as ``rows-00000.parquet`` and so on.

    Raises:
        UserError: the database cannot be reached or refuses the query, or its columns hold no text.
        Interrupted: stopped; the next call asks again, since rows of two moments do not belong together.
    """
    target = parse(request.rest, request.where)
    store = RawStore(request.raw)
    store.begin(uuid.uuid4().hex)
    n_rows = 0
    with _reading(target, request) as rows, stop_on_signals() as stop, progress("sql", total=None, unit="rows") as bar:
        names = list(rows.keys())
        key = _check_columns(names, request.where)
        schema = pa.schema([(name, pa.large_string()) for name in names])
        schema = schema.with_metadata({KEY_METADATA: key.encode()} if key else None)
        for number, (path, count) in enumerate(_chunks(_batches(rows, schema), schema, request.raw)):
            store.put(f"rows-{number:05d}.parquet", path, suffix=".parquet", kind=None)
            path.unlink()
            n_rows += count
            bar.advance(count)
            if stop:
                raise Interrupted(f"stopped by {stop.reason}; run again to ask anew")
    if n_rows == 0:
        store.outcome("rows", "empty", "the query gave no rows")
    store.finish(about={"database": target.shown, "query": target.query, "columns": names, "key": key, "rows": n_rows})


@contextmanager
def _reading(target: Target, request: Request) -> Iterator[sa.CursorResult[Any]]:
    """The query's rows from a cursor on the server's side, in a transaction that reads only where the database has one."""
    try:
        engine = _engine(target, request)
        try:
            with engine.connect() as connection:
                name = engine.dialect.name
                if name == "postgresql":
                    connection = connection.execution_options(
                        isolation_level="REPEATABLE READ", postgresql_readonly=True
                    )
                elif name in ("mysql", "mariadb"):
                    connection.exec_driver_sql("SET SESSION TRANSACTION READ ONLY")
                    connection.commit()
                elif name == "oracle":
                    connection.exec_driver_sql("SET TRANSACTION READ ONLY")
                # Without parameters a driver must not look for their marks: a % in LIKE is a %.
                connection = connection.execution_options(
                    stream_results=True, max_row_buffer=FETCH_ROWS, no_parameters=True
                )
                yield connection.exec_driver_sql(target.query)
        finally:
            engine.dispose()
    except (sa.exc.SQLAlchemyError, ModuleNotFoundError, UnicodeDecodeError) as error:
        raise _explained(error, target, request.where) from None


def _engine(target: Target, request: Request) -> sa.Engine:
    url = target.url
    if url.drivername == "postgresql+psycopg":
        require("psycopg", "postgres")
        return sa.create_engine(url, poolclass=sa.NullPool, connect_args={"connect_timeout": 15})
    if url.get_backend_name() == "sqlite":
        path = request.root / Path(url.database or "").expanduser()
        if not path.is_file():
            raise UserError(f"no such database: {path}", where=request.where, fix="Correct the URL: sqlite:///FILE")
        import sqlite3

        def connect() -> sqlite3.Connection:
            opened = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, timeout=30, check_same_thread=False
            )
            opened.execute("PRAGMA query_only=ON")
            return opened

        return sa.create_engine("sqlite://", creator=connect, poolclass=sa.NullPool)
    return sa.create_engine(url, poolclass=sa.NullPool)


def _explained(error: Exception, target: Target, where: str) -> UserError:
    if isinstance(error, ModuleNotFoundError | sa.exc.NoSuchModuleError):
        return UserError(
            f"no driver for {target.url.drivername} is installed ({target.clean(str(error))})",
            where=where,
            fix="Install the database's Python driver; SQLAlchemy's documentation names it",
        )
    cause = getattr(error, "orig", None) or error
    said = " ".join(target.clean(str(cause)).split())[:400]
    if (
        isinstance(error, sa.exc.OperationalError | sa.exc.InterfaceError)
        and "syntax" not in said
        and "no such" not in said
    ):
        return UserError(
            f"{target.shown} cannot be read: {said}", where=where, fix="Is it running, and may we read it?"
        )
    return UserError(f"{target.shown} refuses the query: {said}", where=where, fix="Correct the query after #")


def _check_columns(names: Sequence[str], where: str) -> str | None:
    """The column that names rows; None when there is none.

    Raises:
        UserError: two columns have one name, or none holds texts.
    """
    if len({name.lower() for name in names}) < len(names):
        raise UserError(f"two columns have the same name: {', '.join(names)}", where=where, fix="Rename one with AS")
    if not readable(dict.fromkeys(names)):
        wanted = f"{TEXT_KEYS[0]}, messages, or {PROMPT_KEYS[0]} and {REPLY_KEYS[0]}"
        raise UserError(
            f"no column of texts among {', '.join(names[:8])}", where=where, fix=f"Name one of them {wanted}, with AS"
        )
    return next((name for wanted in KEY_COLUMNS for name in names if name.lower() == wanted), None)


def _batches(rows: sa.CursorResult[Any], schema: pa.Schema) -> Iterator[pa.RecordBatch]:
    while found := rows.fetchmany(FETCH_ROWS):
        columns = zip(*found, strict=True)
        arrays = [pa.array([_text(value) for value in column], pa.large_string()) for column in columns]
        yield pa.RecordBatch.from_arrays(arrays, schema=schema)


def _chunks(batches: Iterator[pa.RecordBatch], schema: pa.Schema, folder: Path) -> Iterator[tuple[Path, int]]:
    """Parquet files of at most ``CHUNK_BYTES`` of text and one batch, with their numbers of rows."""
    writer: pq.ParquetWriter | None = None
    path = folder / f"{TEMPORARY}rows.parquet"
    size = count = 0
    try:
        for batch in batches:
            if writer is None:
                writer = pq.ParquetWriter(path, schema, compression="zstd", compression_level=3)
            writer.write_batch(batch)
            size, count = size + batch.nbytes, count + batch.num_rows
            if size >= CHUNK_BYTES:
                writer.close()
                writer = None
                yield path, count
                size = count = 0
        if writer is not None:
            writer.close()
            writer = None
            yield path, count
    finally:
        if writer is not None:
            writer.close()
        path.unlink(missing_ok=True)


def _text(value: Any) -> str | None:
    """A cell as text: JSON for objects and lists, ISO for times, nothing for bytes."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, dict | list):
        return json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, datetime.datetime | datetime.date | datetime.time):
        return value.isoformat()
    if isinstance(value, bytes | bytearray | memoryview):
        try:
            return bytes(value).decode("utf-8")
        except UnicodeDecodeError:
            return None
    if isinstance(value, bool):
        return "true" if value else "false"
    return format(value, "f") if isinstance(value, Decimal) else str(value)
