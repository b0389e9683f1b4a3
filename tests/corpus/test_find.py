"""Selectors of documents: ids, places, pages, licences, passages and addresses."""

import json
import random
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus import tables
from gptwright.corpus import text as t
from gptwright.corpus.find import _matches_path, find_documents, iter_documents, selector_of
from gptwright.corpus.view import at_rows, licenses, manifest

if TYPE_CHECKING:
    from conftest import Project


def places(project: "Project", selector: str) -> list[str]:
    return [found.document.locator for found in find_documents(project.out, selector, None)]


def test_find_when_id_is_cut_anywhere_then_the_document_is_found(project: "Project") -> None:
    for i in range(20):
        project.write(f"{i}.txt", project.prose(i))
    project.build()
    uid = find_documents(project.out, "path:7.txt")[0].document.uid
    for length in (6, 7, 31, 32):
        assert places(project, f"id:{uid[:length]}") == ["7.txt"]
        assert places(project, uid[:length].upper() if length > 30 else f"id:{uid[:length].upper()}") == (
            ["7.txt"] if length < 30 else []
        )
    assert places(project, "id:nothex") == []


def test_find_when_passage_is_given_then_case_and_layout_do_not_matter_and_masks_do_not_hide_it(
    project: "Project", tmp_path: Path
) -> None:
    project.write(
        "a.txt", "It was a quiet evening.\n\nThe STRASSE was empty; write to ada@example.org today. " + project.prose(1)
    )
    project.write("b.txt", project.prose(2))
    project.write(
        "c.txt", "It was a quiet\tevening. The Straße   was empty; write to ADA@example.org today. " + project.prose(3)
    )
    project.build()
    passage = tmp_path / "passage.txt"
    passage.write_text("the straße was\nempty; write to ada@example.org")
    assert places(project, f"text:{passage}") == ["a.txt", "c.txt"]
    passage.write_text("a quiet morning")
    assert places(project, f"text:{passage}") == []
    passage.write_text(" \n")
    with pytest.raises(UserError, match="the passage is empty"):
        find_documents(project.out, f"text:{passage}")
    with pytest.raises(UserError, match="cannot be read"):
        find_documents(project.out, f"text:{tmp_path}/nowhere.txt")


def test_find_when_address_is_a_piece_of_a_longer_one_then_it_is_not_found(project: "Project") -> None:
    project.write("a.txt", project.prose(1) + " Write to Ada@Example.org.")
    project.write("b.txt", project.prose(2) + " Write to nada@example.org now")
    project.write("c.txt", project.prose(3) + " Write to ada@example.org.uk now")
    project.write("d.txt", project.prose(4) + " <ada@example.org>, ä")
    project.build()
    assert places(project, "email:ada@example.org") == ["a.txt", "d.txt"]
    with pytest.raises(UserError, match="not an e-mail address"):
        find_documents(project.out, "email:ada")


def test_find_when_licence_is_of_the_document_then_each_is_found_by_its_own(project: "Project") -> None:
    for i in range(4):
        project.write(f"{i}.txt", project.prose(i))
    project.build(license="MIT")
    path = tables.part_path(project.out, "docs", 0)
    docs = pq.read_table(path)
    own = ["MIT", "CC0-1.0", None, "CC0-1.0"]
    urls = [None, "https://example.org/a", "https://example.com/b", "https://example.org/c"]
    for name, values in (("license_id", own), ("url", urls)):
        at = docs.schema.get_field_index(name)
        docs = docs.set_column(at, docs.schema.field(name), [values])
    tables.write_table(path, docs)
    assert places(project, "license:cc0-1.0") == ["1.txt", "3.txt"]
    assert places(project, "url:https://example.org/*") == ["1.txt", "3.txt"]
    rows = {row["license"]: row for row in licenses(project.out, tokens=1000)}
    assert {name: row["documents"] for name, row in rows.items()} == {"MIT": 1, "CC0-1.0": 2, None: 1}
    assert sum(row["tokens"] for row in rows.values()) == pytest.approx(1000, abs=2)


def test_rows_when_asked_for_in_any_order_then_they_come_in_theirs(project: "Project") -> None:
    project.write("a.jsonl", "\n".join(json.dumps({"text": project.prose(i)}) for i in range(50)))
    project.build()
    found = dict(at_rows(project.out, [30, 2, 2, 49]))
    assert list(found) == [2, 30, 49]
    by_path = dict(iter_documents(project.out, "source:own"))
    assert all(by_path[row].document == one.document for row, one in found.items())


@pytest.mark.parametrize(
    ("text", "kind"),
    [("id:3f", "id"), ("3fa9bc", "id"), ("notes/a.txt", "path"), ("https://x.org", "path"), ("url:https://x.org", "url"), ("text:a:b", "text")],
)  # fmt: skip
def test_selector_when_prefix_is_known_or_not_then_its_kind_is(text: str, kind: str) -> None:
    assert selector_of(text)[0] == kind


@given(st.text(alphabet="ab/.[]*?#", min_size=1, max_size=8))
def test_path_when_it_is_named_as_it_stands_then_it_matches(locator: str) -> None:
    assert _matches_path(locator, "own", locator)
    assert _matches_path(f"own/{locator}", "own", locator)


def test_find_when_a_passage_crosses_parts_and_files_then_every_part_that_holds_a_piece_of_it_is_found(
    project: "Project", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "PART_CHARS", 400)
    monkeypatch.setattr("gptwright.corpus.docwriter.OUTPUT_BYTES", 1500)  # documents go on in the next docs file
    monkeypatch.setattr("gptwright.corpus.borders.BATCH", 2)
    project.write("a.txt", "\n\n".join(project.prose(i, 30) for i in range(12)))
    project.write("b.txt", "\n\n".join(project.prose(i, 30) for i in range(50, 60)))
    project.build()
    parts = {f.document.locator: f.row["text"] for f in find_documents(project.out, "path:a.txt", None)}
    assert len(parts) > 5
    assert manifest(project.out)["parts"] > 2
    words = [(word, name) for name, text in parts.items() for word in text.split()]
    chooser = random.Random(4)
    for length in (2, 9, 40, 150):
        for _ in range(8):
            at = chooser.randrange(len(words) - length)
            (tmp_path / "p.txt").write_text(" ".join(word for word, _ in words[at : at + length]).upper())
            expected = sorted({name for _, name in words[at : at + length]})
            assert sorted(places(project, f"text:{tmp_path / 'p.txt'}")) == expected
    (tmp_path / "p.txt").write_text(
        f"{words[-1][0]} {project.prose(50)[:9]}"
    )  # the end of one text and the beginning of the next
    assert places(project, f"text:{tmp_path / 'p.txt'}") == []
