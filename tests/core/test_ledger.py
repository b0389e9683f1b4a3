"""The ledger remembers lineage, and refuses what it cannot read."""

import sqlite3
import threading
from pathlib import Path

import pytest

from gptwright.core.errors import UserError
from gptwright.core.ledger import FileRow, Ledger, SourceRow


@pytest.fixture
def ledger(tmp_path: Path):
    with Ledger.open(tmp_path / "work" / "ledger.sqlite") as opened:
        yield opened


def add(ledger: Ledger, name: str, *parents: int) -> int:
    return ledger.add_artifact("thing", stage=name, name=name, path=name, hash=name, parents=parents).id


def test_ancestors_when_lineage_branches_then_each_is_given_once_in_order(ledger: Ledger) -> None:
    corpus = add(ledger, "corpus")
    tokenizer = add(ledger, "tokenizer", corpus)
    tokens = add(ledger, "tokens", corpus, tokenizer)
    other = add(ledger, "other")
    assert [a.name for a in ledger.ancestors(tokens)] == ["corpus", "tokenizer"]
    assert ledger.ancestors(other) == []


def test_add_artifact_when_a_parent_does_not_exist_then_nothing_is_written(ledger: Ledger) -> None:
    with pytest.raises(sqlite3.IntegrityError):
        add(ledger, "orphan", 999)
    assert ledger.artifacts() == []


def test_set_sources_when_one_is_gone_then_its_files_go_with_it(ledger: Ledger) -> None:
    rows = [SourceRow(name, "folder", name, None, "none", None, "unknown", "mask") for name in ("a", "b")]
    ledger.set_sources(rows)
    ledger.set_files("a", [FileRow("a", "x.txt", "ok", None, 1, 2, "h", 1)])
    ledger.set_files("b", [FileRow("b", "y.txt", "empty", "no text", 0, 2, "h", 0)])
    ledger.set_sources(rows[1:])
    assert [file.locator for file in ledger.files()] == ["y.txt"]


def test_start_run_when_started_again_then_its_configuration_stays(ledger: Ledger) -> None:
    ledger.start_run("r1", "pretrain", {"steps": 100})
    ledger.finish_run("r1", "interrupted")
    ledger.start_run("r1", "pretrain", {"steps": 7})
    run = ledger.run("r1")
    assert run is not None
    assert (run.state, run.config) == ("running", {"steps": 100})


def test_numbers_when_they_are_none_then_are_null_and_can_be_asked_for(ledger: Ledger) -> None:
    ledger.start_run("r", "pretrain", {})
    ledger.finish_run("r", "done", {"loss": float("nan"), "rates": [1.0, float("inf")], "steps": 3})
    ledger.add_event("r", "seen", {"loss": float("-inf")})
    run = ledger.run("r")
    assert run is not None
    assert run.meta == {"rates": [1.0, None], "steps": 3}
    assert ledger.events("r")[0].data == {"loss": None}
    artifact = ledger.add_artifact(
        "model", stage="pretrain", name="m", path="work/m", hash="b2:1", meta={"loss": float("nan")}
    )
    assert ledger.latest_of_stage("pretrain") == artifact
    assert artifact.meta == {"loss": None}


def test_readers_when_a_writer_is_busy_then_they_are_not_blocked(tmp_path: Path, ledger: Ledger) -> None:
    add(ledger, "before")
    with ledger.transaction():
        ledger.start_run("r", "corpus", {})
        seen: list[int] = []

        def read() -> None:
            with Ledger.open(tmp_path / "work" / "ledger.sqlite", readonly=True) as reader:
                seen.append(len(reader.artifacts()))

        thread = threading.Thread(target=read)
        thread.start()
        thread.join(timeout=10)
    assert seen == [1]


def test_open_when_written_by_a_newer_version_then_it_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    Ledger.open(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version=99")
    with pytest.raises(UserError, match="newer gptwright"):
        Ledger.open(path)


def test_open_when_the_file_is_not_a_database_then_the_fix_is_named(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.write_bytes(b"not a database" * 100)
    with pytest.raises(UserError, match="not a readable ledger.*Move it away"):
        Ledger.open(path)


def test_open_when_only_reading_a_file_without_tables_then_nothing_was_made_yet(tmp_path: Path) -> None:
    path = tmp_path / "ledger.sqlite"
    path.touch()
    with pytest.raises(UserError, match=r"nothing was made here yet.*gptwright run"):
        Ledger.open(path, readonly=True)
    with Ledger.open(path) as made:
        assert made.artifacts() == []


def test_ledger_when_copied_then_what_is_written_to_the_copy_stays_there(tmp_path: Path) -> None:
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.set_setting("share", 1)
        with Ledger.open(ledger.path, readonly=True) as kept, kept.copied() as copy:
            copy.start_run("run", "pretrain", {})
            copy.set_setting("share", 2)
            assert (copy.get_setting("share"), len(copy.runs())) == (2, 1)
        assert (ledger.get_setting("share"), ledger.runs()) == (1, [])
