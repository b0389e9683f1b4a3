"""The held-out split and copies as properties of the decisions."""

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.hashing import norm_id
from gptwright.corpus import decide
from gptwright.corpus import text as t
from gptwright.corpus.view import documents

if TYPE_CHECKING:
    from conftest import Project


@given(st.text(min_size=1))
def test_bucket_when_case_and_layout_change_then_it_stays(text: str) -> None:
    one, other = (bytes.fromhex(norm_id(value)) for value in (text, f"  {text}\n\n"))
    assert decide.bucket(one) == decide.bucket(other)
    assert 0 <= decide.bucket(one) < decide.BUCKETS


def test_bucket_when_id_is_known_then_its_value_never_changes() -> None:
    assert decide.bucket(bytes.fromhex(norm_id("Hello, world!"))) == 9506


def test_bucket_when_there_are_many_texts_then_shares_come_out_true() -> None:
    places = np.array([decide.bucket(bytes.fromhex(norm_id(f"text {i}"))) for i in range(20_000)])
    assert abs((places < 100).mean() - 0.01) < 0.003


def test_split_when_corpus_grows_then_no_document_changes_sides(project: "Project") -> None:
    sides: dict[str, str] = {}
    for size in (30, 90, 200):
        for i in range(size):
            project.write(f"{i:03d}.txt", project.prose(i, 100))
        result = project.build()
        for side in ("train", "heldout"):
            for document in documents(project.out, side):
                assert sides.setdefault(document.uid, side) == side
    assert len(sides) == 200
    assert {"train", "heldout"} == set(sides.values())
    assert result.meta["heldout_share"] == project.ledger.get_setting("heldout_share")


def test_split_when_corpus_is_small_then_the_share_is_raised_and_said(project: "Project") -> None:
    for i in range(400):
        project.write(f"{i:03d}.txt", project.prose(i, 400))
    result = project.build()
    assert result.meta["heldout"]["bytes"] >= decide.HELDOUT_BYTES
    assert result.meta["heldout"]["bytes"] < 0.3 * result.bytes
    assert any("instead of 1.00%" in note for note in result.meta["notes"])


def test_split_when_share_is_asked_for_later_then_the_first_one_stays_and_it_is_said(project: "Project") -> None:
    for i in range(300):
        project.write(f"{i:03d}.txt", project.prose(i, 20))
    first = project.build()
    second = project.build(share=0.4)
    assert second.hash == first.hash
    assert any("stays" in note for note in second.meta["notes"])


def test_split_when_share_is_zero_then_nothing_is_held_out(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    assert project.build(share=0).meta["heldout"]["documents"] == 0


def test_split_when_there_is_one_long_file_then_it_is_cut_inside(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "PART_CHARS", 8_000)
    project.write("book.txt", "\n\n".join(project.prose(i, 200) for i in range(900)))
    result = project.build()
    assert result.meta["heldout_unit"] == "part"
    assert result.meta["heldout"]["bytes"] >= decide.HELDOUT_BYTES
    assert result.meta["train"]["bytes"] > result.meta["heldout"]["bytes"]


def test_split_when_there_are_many_files_then_parts_stay_with_their_file(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "PART_CHARS", 1_000)
    for i in range(60):
        project.write(f"{i}.txt", "\n\n".join(project.prose(i * 100 + j, 100) for j in range(12)))
    result = project.build(share=0.2)
    assert result.meta["heldout_unit"] == "document"
    sides: dict[str, set[str]] = {}
    for side in ("train", "heldout"):
        for document in documents(project.out, side):
            sides.setdefault(document.locator.partition("#")[0], set()).add(side)
    assert len(sides) == 60
    assert all(len(side) == 1 for side in sides.values())


def test_split_when_there_is_one_short_file_then_nothing_is_held_out_and_it_is_said(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    result = project.build()
    assert result.meta["train"]["documents"] == 1
    assert any("nothing is held out" in note for note in result.meta["notes"])


def test_hash_when_files_are_written_in_another_order_then_it_is_the_same(project: "Project") -> None:
    for i in range(20):
        project.write(f"{i}.txt", project.prose(i))
    first = project.build()
    shutil.rmtree(project.data)
    shutil.rmtree(project.out)
    for i in reversed(range(20)):
        project.write(f"{i}.txt", project.prose(i))
    assert project.build().hash == first.hash


def test_corpus_when_a_build_stopped_before_the_manifest_then_it_cannot_be_read(
    project: "Project", tmp_path: Path
) -> None:
    from gptwright.core.errors import UserError

    project.write("a.txt", project.prose(1))
    project.build()
    (project.out / "corpus.json").unlink()
    with pytest.raises(UserError, match="not built, or its building was stopped"):
        list(documents(project.out))
