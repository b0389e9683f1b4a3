"""From files to documents: outcomes, ids, copies, masks, what is held out, and what a second build does."""

import json
import os
import shutil
import signal
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import Interrupted, UserError
from gptwright.core.hashing import content_id, doc_uid, norm_id
from gptwright.core.ledger import Ledger
from gptwright.corpus import docwriter, extract, readers, signals, tables
from gptwright.corpus import text as t
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.view import documents, find_document, manifest

if TYPE_CHECKING:
    from conftest import Project


def test_build_when_files_are_of_all_kinds_then_each_ends_in_one_outcome(project: "Project") -> None:
    chat = {"messages": [{"role": "user", "content": "Is it raining?"}, {"role": "assistant", "content": "Not yet."}]}
    project.write("a.txt", project.prose(1))
    project.write("b.md", "# Title\n\n" + project.prose(2))
    project.write(
        "c.html",
        f"<html lang='en'><head><title>T</title></head><body><nav>Menu</nav><main><p>{project.prose(3)}</p></main></body></html>",
    )
    project.write("d.jsonl", json.dumps({"text": project.prose(4)}) + "\nnot json\n" + json.dumps(chat))
    project.write("e.csv", f'title,text\nx,"{project.prose(5)}"\n')
    pq.write_table(pa.table({"content": [project.prose(6)]}), project.data / "f.parquet")
    project.write("g.txt", b"\x00\x01\x02\x03" * 500)
    project.write("h.txt", b"")
    project.write("i.txt", "Caf\xe9 no. 9, a place where the old people sit.".encode("cp1252"))
    project.write("j.png", b"\x89PNG\r\n" + bytes(range(256)))
    project.write("k.txt", b"%PDF-1.7 " + b"x" * 99)
    project.write("l.json", '{"name": "settings", "version": 3}')
    project.write("m.csv", "x,y\n1,2\n")
    project.write("n.txt", "  \n\n ")
    project.write(".hidden", "x")
    result = project.build()
    outcomes = project.outcomes()
    assert {name: outcome for name, (outcome, _) in outcomes.items()} == {
        **dict.fromkeys(("a.txt", "b.md", "c.html", "d.jsonl", "e.csv", "f.parquet", "i.txt"), "ok"),
        "g.txt": "unreadable",
        "h.txt": "empty",
        "j.png": "skipped",
        "k.txt": "unreadable",
        "l.json": "unreadable",
        "m.csv": "skipped",
        "n.txt": "empty",
        ".hidden": "skipped",
    }
    assert outcomes["d.jsonl"][1] is not None
    assert "1 row not read, the first: row 2: not JSON" in outcomes["d.jsonl"][1]
    for name, words in {
        "g.txt": "binary",
        "i.txt": "cp1252",
        "k.txt": "PDF",
        "m.csv": "no column of texts among x, y",
    }.items():
        assert words in str(outcomes[name][1])
    assert result.documents == 8
    own = result.meta["sources"]["own"]
    assert (own["kind"], own["contains_personal_data"], own["pii_policy"]) == ("folder", "unknown", "mask")
    assert own["files"] == {"ok": 7, "unreadable": 3, "empty": 2, "skipped": 3}
    texts = {d.locator: d.text for d in documents(project.out)}
    assert texts["c.html"] == project.prose(3)
    assert texts["i.txt"].startswith("Café")
    assert texts["e.csv#row=1"] == project.prose(5)
    assert [d.messages for d in documents(project.out) if d.messages] == [chat["messages"]]


def test_build_when_documents_are_written_then_ids_are_those_of_the_house(project: "Project") -> None:
    project.write("sub/a.txt", "  Cafe\u0301 and\r\nTWO lines, that is all there is. ")
    project.build()
    row = pq.read_table(tables.part_path(project.out, "docs", 0)).to_pylist()[0]
    text = "  Caf\u00e9 and\nTWO lines, that is all there is."
    assert row["text"] == text
    assert row["doc_uid"].hex() == doc_uid("own", "sub/a.txt")
    assert row["content_id"].hex() == content_id(text)
    assert row["norm_id"].hex() == norm_id("caf\u00e9 AND two  lines, that is all there is.")
    assert pq.read_schema(tables.part_path(project.out, "docs", 0)).equals(tables.DOCS)
    for table, schema in (("edits", tables.EDITS), ("decisions", tables.DECISIONS)):
        assert pq.read_schema(tables.part_path(project.out, table, 0)).equals(schema)
    names = pq.read_schema(tables.part_path(project.out, "signals", 0)).names
    assert names[: len(signals.SCHEMA)] == signals.SCHEMA.names
    assert {"n_bytes_edited", "n_turns", "edit_id", "pii_drop", "pii_email", "pii_secret"} <= set(names)


@pytest.mark.parametrize("fill", [[], ["empty_dir/"], [".hidden"]])
def test_build_when_folder_has_no_files_then_the_error_names_it_and_the_fix(
    project: "Project", fill: list[str]
) -> None:
    for name in fill:
        (project.data / name).mkdir() if name.endswith("/") else project.write(name, "x")
    with pytest.raises(
        UserError, match=rf"corpus.sources.own: no files in the folder {project.data}.*Put texts into it"
    ):
        project.build()


def test_build_when_nothing_is_readable_then_the_outcomes_are_told(project: "Project") -> None:
    project.write("a.txt", b"\x00" * 100)
    with pytest.raises(UserError, match=r"no text was found in 1 files \(1 unreadable; own/a.txt: .*binary"):
        project.build()
    assert not (project.out / "corpus.json").exists()


def test_build_when_every_document_is_dropped_then_the_rules_are_told(project: "Project") -> None:
    project.write("a.txt", "tiny")
    with pytest.raises(UserError, match=r"every document was dropped: 1 by text.too_short"):
        project.build()


@pytest.mark.parametrize(
    ("uri", "words"),
    [
        ("nowhere", "no such folder or file"),
        ("package:surely-not-installed-xyz", "pip install surely-not-installed-xyz"),
        ("package:pyarrow/*.nothing", "no file matches"),
        ("gopher://example.org", "gopher: are not known"),
    ],
)
def test_build_when_source_is_missing_then_the_error_names_the_fix(project: "Project", uri: str, words: str) -> None:
    with pytest.raises(UserError, match=words) as caught:
        project.build(uri=uri)
    assert caught.value.fix


def test_build_when_there_are_no_sources_then_the_command_is_named(project: "Project") -> None:
    with pytest.raises(UserError, match="gptwright data add"):
        build_corpus(CorpusConfig(), root=project.root, out=project.out, ledger=project.ledger)


@pytest.mark.skipif(os.name == "nt", reason="needs symbolic links and pipes")
def test_build_when_links_loop_then_files_are_read_once_and_the_links_are_named(
    project: "Project", tmp_path: Path
) -> None:
    project.write("a/b/text.txt", project.prose(1))
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (elsewhere / "more.txt").write_text(project.prose(2))
    (elsewhere / "self").symlink_to(elsewhere)
    (project.data / "a/b/up").symlink_to(project.data)
    (project.data / "circle").symlink_to(project.data / "circle")
    (project.data / "gone").symlink_to(project.data / "nothing")
    (project.data / "other").symlink_to(elsewhere)
    os.mkfifo(project.data / "pipe")
    project.build()
    outcomes = project.outcomes()
    assert {name for name, (outcome, _) in outcomes.items() if outcome == "ok"} == {"a/b/text.txt", "other/more.txt"}
    assert outcomes["a/b/up"] == outcomes["other/self"]
    assert outcomes["a/b/up"][0] == "skipped"
    assert "loop" in str(outcomes["circle"][1])
    assert outcomes["gone"] == ("unreadable", "broken link")
    assert outcomes["pipe"] == ("skipped", "not a regular file")


def test_build_when_a_line_is_huge_then_text_is_cut_and_rows_are_refused_in_bounded_memory(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "ROW_CHARS", 10_000)
    monkeypatch.setattr(t, "PART_CHARS", 4_000)
    monkeypatch.setattr(t, "BLOCK_BYTES", 1_000)
    monkeypatch.setattr(docwriter, "OUTPUT_BYTES", 20_000)
    line = " ".join(project.prose(i) for i in range(300))
    project.write("line.txt", line)
    project.write("rows.jsonl", json.dumps({"text": line}) + "\n" + json.dumps({"text": project.prose(999)}))
    project.write("cells.csv", f'text\n{project.prose(998)}\n"{line}"\n{project.prose(997)}\n')
    result = project.build(recipe="none")
    outcomes = project.outcomes()
    assert outcomes["line.txt"] == ("ok", None)
    assert "row 1: longer than" in str(outcomes["rows.jsonl"][1])
    assert "the rows after it were not read" in str(outcomes["cells.csv"][1])
    found = {d.locator: d.text for d in documents(project.out)}
    assert {"line.txt", "line.txt#part=2", "rows.jsonl#row=2", "cells.csv#row=1"} <= set(found)
    assert max(map(len, found.values())) <= 6_000
    assert " ".join(found[k] for k in found if k.startswith("line.txt")).split() == line.split()
    assert result.meta["sources"]["own"]["read"] > 5
    assert manifest(project.out)["parts"] > 3


def test_build_when_texts_are_copies_then_one_is_kept_and_all_places_are_known(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.txt", project.prose(1))
    project.write("c.txt", project.prose(1).upper().replace(" ", "\n"))
    project.write("d.txt", project.prose(2))
    result = project.build()
    assert result.documents == 2
    assert result.meta["sources"]["own"]["dropped"] == {"copy.exact": 2}
    kept = next(d for d in documents(project.out) if d.locator == "a.txt")
    for name in ("b.txt", "c.txt"):
        decision = find_document(project.out, f"path:{name}").decision
        assert (decision["verdict"], decision["rule"], decision["kept_uid"]) == ("drop", "copy.exact", kept.uid)
    rows = pq.read_table(project.out / "index" / "occurrences.parquet").to_pylist()
    assert {row["locator"] for row in rows} == {"a.txt", "b.txt", "c.txt"}
    assert {row["kept_uid"].hex() for row in rows} == {kept.uid}


@pytest.mark.parametrize(
    ("text", "rule"),
    [
        ("too short", "text.too_short"),
        ("12345 67890 --- ### 1111 2222 3333 4444", "text.few_letters"),
        ("spam and eggs " * 300, "text.repetition"),
        (json.dumps({"messages": [{"role": "user", "content": "Is anybody out there tonight?"}]}), "chat.few_turns"),
    ],
)
def test_build_when_document_fails_a_rule_then_value_and_threshold_are_kept(
    project: "Project", text: str, rule: str
) -> None:
    project.write("good.txt", project.prose(1))
    project.write("bad.jsonl" if text.startswith("{") else "bad.txt", text)
    assert project.build().meta["sources"]["own"]["dropped"] == {rule: 1}
    decision = find_document(project.out, "path:bad.*").decision
    assert decision["rule"] == rule
    assert decision["value"] < decision["threshold"]
    assert [f["rule"] for f in decision["failed"]] == [rule]


@pytest.mark.parametrize(("policy", "text"), [("mask", "Ask [EMAIL] or [PHONE], they know."), ("keep", None)])
def test_build_when_personal_data_is_found_then_the_policy_decides(
    project: "Project", policy: str, text: str | None
) -> None:
    raw = "Ask ada@lovelace.org or (801) 422-4636, they know."
    chat = {"messages": [{"role": "user", "content": "Who knows?"}, {"role": "assistant", "content": raw}]}
    project.write("a.txt", raw)
    project.write("b.jsonl", json.dumps(chat))
    result = project.build(pii=policy)
    assert result.meta["sources"]["own"]["pii"] == {"EMAIL": 2, "PHONE": 2}
    plain, talk = documents(project.out)
    assert plain.text == (text or raw)
    assert talk.messages is not None
    assert talk.messages[1]["content"] == (text or raw)
    assert talk.text == "Who knows?\n" + (text or raw)
    assert pq.read_table(tables.part_path(project.out, "docs", 0))["text"][0].as_py() == raw


def test_build_when_policy_is_drop_then_documents_with_personal_data_go(project: "Project") -> None:
    project.write("a.txt", "Ask ada@lovelace.org, she knows.")
    project.write("b.txt", project.prose(1))
    assert project.build(pii="drop").meta["sources"]["own"]["dropped"] == {"privacy.drop": 1}
    assert [d.locator for d in documents(project.out)] == ["b.txt"]


def test_build_when_done_again_then_no_file_is_read_and_the_hash_is_the_same(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        project.write(f"{i}.txt", project.prose(i))
    first = project.build()
    read: list[str] = []
    real = readers.read_blob
    monkeypatch.setattr(readers, "read_blob", lambda blob, *more: read.append(blob.name) or real(blob, *more))
    monkeypatch.setattr(extract, "b2_file", lambda path: pytest.fail(f"{path} was hashed again"))
    assert project.build() == first
    assert read == []


def test_build_when_one_file_is_new_then_only_that_one_is_read(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(5):
        project.write(f"{i}.txt", project.prose(i))
    project.build()
    project.write("2b.txt", project.prose(22))
    project.write("3.txt", project.prose(33))
    read: list[str] = []
    real = readers.read_blob
    monkeypatch.setattr(readers, "read_blob", lambda blob, *more: read.append(blob.name) or real(blob, *more))
    grown = project.build()
    assert read == ["2b.txt", "3.txt"]
    assert [d.locator for d in documents(project.out)] == ["0.txt", "1.txt", "2.txt", "2b.txt", "3.txt", "4.txt"]
    shutil.rmtree(project.out)
    assert project.build() == grown, "a build that grew must equal one from nothing"


def test_build_when_file_is_deleted_then_its_text_is_nowhere(project: "Project") -> None:
    secret = "The password of the old library is a long forgotten word, zyzzyva."
    project.write("a.txt", project.prose(1))
    project.write("b.txt", secret)
    first = project.build()
    project.write("c.txt", project.prose(3))
    project.build()
    (project.data / "b.txt").unlink()
    (project.data / "c.txt").unlink()
    second = project.build()
    assert second.hash != first.hash
    assert [row.locator for row in project.ledger.files("own")] == ["a.txt"]
    for path in project.out.rglob("*.parquet"):
        table = pq.read_table(path)
        assert "zyzzyva" not in str(table.to_pylist())


def test_build_when_licence_or_mask_changes_then_the_hash_changes(project: "Project") -> None:
    project.write("a.txt", "Ask ada@lovelace.org, she knows.")
    hashes = [project.build().hash, project.build(license="CC0-1.0").hash, project.build(pii="keep").hash]
    assert len(set(hashes)) == 3
    assert project.build().hash == hashes[0]


@pytest.mark.slow
def test_build_when_processes_share_the_work_then_the_result_is_the_same(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "GROUP_BYTES", 2_000)
    for i in range(40):
        project.write(f"{i}.txt", project.prose(i))
    one = project.build(workers=1)
    bytes_one = {p.name: p.read_bytes() for p in (project.out / "docs").iterdir()}
    shutil.rmtree(project.out)
    assert project.build(workers=2) == one
    assert {p.name: p.read_bytes() for p in (project.out / "docs").iterdir()} == bytes_one
    assert len(bytes_one) > 3


def test_build_when_project_stands_elsewhere_then_the_hash_is_the_same(project: "Project", tmp_path: Path) -> None:
    for i in range(5):
        project.write(f"{i}.txt", project.prose(i))
    first = project.build()
    other = tmp_path / "moved"
    shutil.copytree(project.data, other / "data", copy_function=shutil.copy)
    with Ledger.open(other / "work" / "ledger.sqlite") as ledger:
        assert type(project)(other, ledger).build() == first


def test_build_when_file_changes_while_it_is_read_then_it_is_said_and_the_next_build_has_the_new_text(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("a.txt", project.prose(1))
    real = readers.read_blob

    def late(blob: readers.Blob, *more: str | None) -> readers.Reading:
        project.write("a.txt", project.prose(2) + " More than before.")
        return real(blob, *more)

    with monkeypatch.context() as patch:
        patch.setattr(readers, "read_blob", late)
        with pytest.raises(UserError, match=r"a.txt: the file changed while it was read. Run the same command again"):
            project.build()
    project.build()
    assert [d.text for d in documents(project.out)] == [project.prose(2) + " More than before."]


def test_build_when_stopped_by_a_signal_then_it_ends_between_tasks_and_continues(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(extract, "GROUP_BYTES", 500)
    for i in range(6):
        project.write(f"{i}.txt", project.prose(i))
    real = extract.run

    def stopped(job: extract.Job) -> str:
        signal.raise_signal(signal.SIGINT)
        return real(job)

    with monkeypatch.context() as patch:
        patch.setattr(extract, "run", stopped)
        with pytest.raises(Interrupted, match=r"SIGINT after 1 of \d tasks"):
            project.build()
    assert project.build().documents == 6


def test_build_when_disk_is_full_then_it_is_said_and_the_next_build_works(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    project.write("a.txt", project.prose(1))

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(tables.pq, "write_table", full)
        with pytest.raises(UserError, match="disk is full"):
            project.build()
    assert project.build().documents == 1
