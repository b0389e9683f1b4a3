"""A query's rows as parquet: only reading, in bounded memory, on SQLite and PostgreSQL, and no password anywhere."""

import os
import shutil
import socket
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest
import sqlalchemy as sa
from tests.peak import PEAK

from gptwright.core.errors import UserError
from gptwright.core.ledger import Ledger
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.reading import documents
from gptwright.corpus.sources.base import Listing
from gptwright.corpus.sources.kinds import gather_sources, list_source, request_for
from gptwright.corpus.sources.sql import KEY_METADATA, check_query, gather, parse


@pytest.fixture
def database(tmp_path: Path) -> Path:
    path = tmp_path / "notes.db"
    with sqlite3.connect(path) as db:
        db.execute("CREATE TABLE note (id INTEGER PRIMARY KEY, body TEXT, made TEXT, tag TEXT)")
        db.executemany(
            "INSERT INTO note VALUES (?,?,?,?)",
            [(i, f"Note {i}: 100% true", f"2024-01-{i:02d}", "x") for i in range(1, 11)],
        )
    db.close()
    return path


def collect(root: Path, uri: str) -> Listing:
    config = SourceConfig(uri=uri)
    gather(request_for("db", config, root))
    return list_source("db", config, root)


def rows(listing: Listing) -> list[dict[str, Any]]:
    return [row for file in listing.files for row in pq.read_table(file.path).to_pylist()]


def test_gather_on_sqlite_then_rows_stand_in_parquet_with_their_key(database: Path, tmp_path: Path) -> None:
    found = collect(
        tmp_path,
        "sql:sqlite:///notes.db#SELECT id, body AS text, made FROM note WHERE body LIKE '%9%' OR id = 1 ORDER BY id;",
    )
    assert rows(found) == [
        {"id": "1", "text": "Note 1: 100% true", "made": "2024-01-01"},
        {"id": "9", "text": "Note 9: 100% true", "made": "2024-01-09"},
    ]
    assert found.kind == "sql"
    assert pq.read_schema(found.files[0].path).metadata[KEY_METADATA] == b"id"


def test_gather_again_when_nothing_changed_then_the_file_stays_and_when_rows_went_they_are_gone(
    database: Path, tmp_path: Path
) -> None:
    uri = "sql:sqlite:///notes.db#SELECT body AS text FROM note ORDER BY id"
    before, again = collect(tmp_path, uri).files, collect(tmp_path, uri).files
    assert before == again
    with sqlite3.connect(database) as db:
        db.execute("DELETE FROM note WHERE id > 2")
    db.close()
    assert len(rows(collect(tmp_path, uri))) == 2


def test_gather_when_the_result_is_large_then_it_is_cut_into_files(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.corpus.sources.sql.CHUNK_BYTES", 100)
    monkeypatch.setattr("gptwright.corpus.sources.sql.FETCH_ROWS", 3)
    found = collect(tmp_path, "sql:sqlite:///notes.db#SELECT id, body AS text FROM note ORDER BY id")
    assert [file.locator for file in found.files] == [f"rows-{n:05d}.parquet" for n in range(len(found.files))]
    assert len(found.files) > 2
    assert [row["id"] for row in rows(found)] == [str(i) for i in range(1, 11)]


@pytest.mark.parametrize(
    "query",
    [
        "SELECT text FROM note", "with a as (select 1) select * from a", "/* DROP */ SELECT 'a; DELETE' AS text -- ; UPDATE\n FROM note",
        'SELECT "update" FROM note', "SELECT replace(body, 'a', 'b') AS text FROM note", "SELECT $q$ ; DROP $q$ AS text",
        "SELECT updated_at, text FROM n",
    ],
)  # fmt: skip
def test_check_query_when_it_reads_then_it_passes(query: str) -> None:
    check_query(query)


@pytest.mark.parametrize(
    "query",
    [
        "DELETE FROM note", "SELECT 1; DROP TABLE note", "WITH x AS (DELETE FROM note RETURNING *) SELECT * FROM x",
        "SELECT * INTO other FROM note", "SELECT * FROM note FOR UPDATE", "PRAGMA table_info(note)", "", "/* SELECT */ UPDATE note SET body=1",
        "EXPLAIN SELECT 1", "SELECT 1 AS text -- x\n; INSERT INTO note VALUES (1)", "SELECT 'a\\'; DELETE FROM note; --'",
    ],
)  # fmt: skip
def test_check_query_when_it_may_write_then_it_is_refused(query: str) -> None:
    with pytest.raises(UserError):
        check_query(query)


def test_gather_when_a_write_slips_through_then_the_database_itself_refuses(
    database: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.corpus.sources.sql.check_query", lambda *_: None)
    with pytest.raises(UserError, match="readonly"):
        collect(tmp_path, "sql:sqlite:///notes.db#DELETE FROM note RETURNING body AS text")
    with sqlite3.connect(database) as db:
        assert db.execute("SELECT count(*) FROM note").fetchone() == (10,)
    db.close()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("sql:sqlite:///notes.db", "no query"),
        ("sql:sqlite:///none.db#SELECT 1 AS text", "no such database"),
        ("sql:sqlite:///notes.db#SELECT id, tag FROM note", "no column of texts"),
        ("sql:sqlite:///notes.db#SELECT body AS text, tag AS text FROM note", "same name"),
        ("sql:sqlite:///notes.db#SELECT text FROM nothing", "refuses the query"),
        ("sql:sqlite:///notes.db#SELECT body AS text FROM note WHERE id > 99", "nothing was gathered"),
        ("sql:nonsense#SELECT 1 AS text", "no database URL"),
        ("sql:nodriver://h/d#SELECT 1 AS text", "no driver"),
        ("sql:postgresql://me:hunter2@127.0.0.1/x#SELECT 1 AS text", "the password stands in the URL"),
        ("sql:mysql+pymysql://me@h/x?password=hunter2#SELECT 1 AS text", "the password stands in the URL"),
        (
            "sql:postgresql://me:${NOT_SET_ANYWHERE}@127.0.0.1/x#SELECT 1 AS text",
            "the environment has no NOT_SET_ANYWHERE",
        ),
    ],
)
def test_gather_when_it_cannot_be_done_then_the_error_says_why(
    database: Path, tmp_path: Path, uri: str, words: str
) -> None:
    with pytest.raises(UserError) as caught:
        collect(tmp_path, uri)
    assert words in str(caught.value)
    assert "hunter2" not in str(caught.value)


def test_gather_when_the_password_comes_from_the_environment_then_no_file_or_error_holds_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("psycopg")
    monkeypatch.setenv("DB_PASSWORD", "open-sesame-77")
    uri = "sql:postgresql://me:${DB_PASSWORD}@127.0.0.1:1/x#SELECT 1 AS text"
    assert parse(uri.removeprefix("sql:"), "w").url.password == "open-sesame-77"
    with pytest.raises(UserError) as caught:
        collect(tmp_path, uri)
    assert "open-sesame-77" not in str(caught.value) + repr(caught.value.__cause__) + repr(caught.value.__context__)
    assert "cannot be read" in str(caught.value)
    assert not any(b"open-sesame-77" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())


@pytest.mark.slow
def test_gather_when_the_table_is_large_then_memory_stays_bounded(tmp_path: Path) -> None:
    """The peak of a fresh process for 20 times the rows grows by less than a third."""
    script = PEAK + (
        "import sys; from pathlib import Path\n"
        "from gptwright.corpus.config import SourceConfig\n"
        "from gptwright.corpus.sources import sql; from gptwright.corpus.sources.kinds import request_for\n"
        "sql.CHUNK_BYTES = 4 << 20\n"
        "n = sys.argv[2]\n"
        "query = f'WITH RECURSIVE c(x) AS (SELECT 1 UNION ALL SELECT x + 1 FROM c WHERE x < {n})'\n"
        "query += ' SELECT x AS id, printf(\"%01000d\", x) AS text FROM c'\n"
        "sql.gather(request_for('db', SourceConfig(uri='sql:sqlite:///e.db#' + query), Path(sys.argv[1])))\n"
        "print(round(peak_mb()))\n"
    )
    sqlite3.connect(tmp_path / "e.db").close()
    peaks = [
        int(
            subprocess.run(
                [sys.executable, "-c", script, str(tmp_path), str(n)], check=True, capture_output=True, text=True
            ).stdout
        )
        for n in (8_000, 160_000)
    ]
    assert peaks[1] < 1.33 * peaks[0]


def binaries() -> Path | None:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb")) if Path("/usr/lib/postgresql").is_dir() else []
    return found[-1].parent if found else None


@pytest.fixture(scope="module")
def postgres() -> Iterator[str]:
    programs = binaries()
    if programs is None:
        if os.environ.get("CI"):
            pytest.fail("PostgreSQL is missing: apt-get install postgresql")
        pytest.skip("PostgreSQL is missing: apt-get install postgresql")
    pytest.importorskip("psycopg")
    folder = Path("/tmp") / f"gptwright-pg-sql-{os.getpid()}"
    folder.mkdir(mode=0o700)
    as_user = ["runuser", "-u", "postgres", "--"] if os.geteuid() == 0 else []
    if as_user:
        shutil.chown(folder, "postgres", "postgres")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    (folder / "pw").write_text("open-sesame-77\n")
    (folder / "pw").chmod(0o644)
    data = folder / "data"
    initdb = [
        programs / "initdb",
        "-D",
        data,
        "-A",
        "scram-sha-256",
        "-U",
        "writer",
        f"--pwfile={folder / 'pw'}",
        "-E",
        "UTF8",
    ]
    subprocess.run([*as_user, *initdb], check=True, capture_output=True)
    control = [*as_user, programs / "pg_ctl", "-D", data, "-w"]
    options = f"-p {port} -k {folder} -c listen_addresses=127.0.0.1 -c fsync=off"
    subprocess.run([*control, "-o", options, "-l", folder / "log", "start"], check=True, capture_output=True)
    try:
        yield f"127.0.0.1:{port}/postgres"
    finally:
        subprocess.run([*control, "-m", "immediate", "stop"], check=False, capture_output=True)
        shutil.rmtree(folder, ignore_errors=True)


@pytest.mark.slow
def test_gather_on_postgresql_then_types_become_text_and_the_transaction_reads_only(
    postgres: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DB_PASSWORD", "open-sesame-77")
    engine = sa.create_engine(f"postgresql+psycopg://writer:open-sesame-77@{postgres}")
    with engine.begin() as db:
        db.exec_driver_sql(
            "CREATE TABLE talk (id serial, messages jsonb, made timestamptz, price numeric, raw bytea, n int)"
        )
        db.exec_driver_sql(
            "INSERT INTO talk (messages, made, price, raw, n) SELECT"
            ' \'[{"role": "user", "content": "Hi"}]\'::jsonb, \'2024-01-02T03:04:05Z\', 1.50, \'\\xff00\', 7 FROM generate_series(1, 3000)'
        )
    uri = f"sql:postgresql://writer:${{DB_PASSWORD}}@{postgres}#SELECT id, messages, made, price, raw, n FROM talk"
    uri += " WHERE messages::text LIKE '%Hi%' ORDER BY id"
    got = rows(collect(tmp_path, uri))
    assert len(got) == 3000
    assert got[0] == {
        "id": "1", "messages": '[{"role": "user", "content": "Hi"}]', "made": got[0]["made"], "price": "1.50", "raw": None, "n": "7",
    }  # fmt: skip
    assert got[0]["made"].startswith("2024-01-02T")
    with pytest.raises(UserError, match="read-only transaction"):
        collect(
            tmp_path, f"sql:postgresql://writer:${{DB_PASSWORD}}@{postgres}#SELECT nextval('talk_id_seq')::text AS text"
        )
    monkeypatch.setenv("DB_PASSWORD", "wrong-one-88")
    with pytest.raises(UserError) as caught:
        collect(tmp_path, uri)
    assert "wrong-one-88" not in str(caught.value)
    assert not any(b"open-sesame-77" in path.read_bytes() for path in tmp_path.rglob("*") if path.is_file())
    engine.dispose()


def test_build_from_a_query_then_rows_are_named_by_their_key(database: Path, tmp_path: Path) -> None:
    uri = "sql:sqlite:///notes.db#SELECT id, body || ' and some more words about it, so that it is text' AS text FROM note WHERE id <> 3"
    config = CorpusConfig(sources={"db": SourceConfig(uri=uri)}, recipe="none")
    assert list(gather_sources(config, tmp_path, again=False)) == ["db"]
    with Ledger.open(tmp_path / "work" / "ledger.sqlite") as ledger:
        build_corpus(config, root=tmp_path, out=tmp_path / "work" / "corpus", ledger=ledger)
    places = {document.locator for document in documents(tmp_path / "work" / "corpus")}
    assert places == {f"rows-00000.parquet#key={number}" for number in range(1, 11) if number != 3}
