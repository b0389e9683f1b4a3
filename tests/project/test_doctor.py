"""The doctor says what is missing; it never falls over it."""

import sqlite3
import sys
from pathlib import Path

import pytest

from gptwright.project.doctor import examine


@pytest.mark.parametrize("psycopg", ["there", "gone", "broken"])
def test_examine_when_torch_cannot_be_imported_then_it_says_so_and_looks_at_the_rest(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, psycopg: str
) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    pytest.importorskip("psycopg")
    if psycopg == "gone":
        monkeypatch.setitem(sys.modules, "psycopg", None)
    elif psycopg == "broken":
        (tmp_path / "psycopg.py").write_text("raise ImportError('no pq wrapper available')")
        monkeypatch.delitem(sys.modules, "psycopg", raising=False)
        monkeypatch.syspath_prepend(tmp_path)
    found = {finding.what: finding for finding in examine()}
    assert found["torch"].verdict == "bad"
    assert "pip install torch" in found["torch"].fix
    assert not {"CPU", "GPU", "compiler"} & set(found)
    database = found["database"]
    assert database.found.startswith(f"SQLite {sqlite3.sqlite_version}; ")
    words = {"there": "psycopg 3", "gone": "no PostgreSQL driver", "broken": "no pq wrapper available"}
    assert words[psycopg] in database.found
    assert database.verdict == ("note" if psycopg == "broken" else "ok")


def test_examine_when_no_database_can_be_made_then_it_is_bad(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.setattr(sqlite3.dbapi2, "connect", _broken)
    database = next(finding for finding in examine() if finding.what == "database")
    assert (database.verdict, "disk I/O error" in database.found) == ("bad", True)


def _broken(*_args: object, **_options: object) -> sqlite3.Connection:
    raise sqlite3.OperationalError("disk I/O error")
