"""Licences of a built corpus: summed up, refused by policies with amounts, reviewed by a person, applied at the next build."""

from pathlib import Path
from typing import Any

import pytest

from gptwright.core.control import ControlStore
from gptwright.core.errors import Refused, UserError
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.licences import review
from gptwright.corpus.licences.decisions import UNCLEAR
from gptwright.corpus.licences.policy import enforce, judge, parse_allow
from gptwright.corpus.licences.sidecars import with_sidecars
from gptwright.corpus.licences.table import LicenceRow, by_source, licence_table
from gptwright.corpus.sources.base import Facts, Listing
from gptwright.corpus.sources.kinds import list_source

ROWS = [
    LicenceRow("MIT", "code", 10, 1000), LicenceRow("GPL-3.0-only", "code", 2, 400), LicenceRow("GPL-3.0-only OR MIT", "code", 1, 100),
    LicenceRow(None, "web", 5, 300), LicenceRow("CC-BY-NC-4.0", "songs", 1, 200),
]  # fmt: skip


def test_judge_under_a_list_then_what_is_refused_is_named_with_amounts() -> None:
    judgement = judge(ROWS, allow=parse_allow("mit, CC BY-NC 4.0"))
    assert [(one.license, one.source, one.documents, one.bytes) for one in judgement.refused] == [
        ("GPL-3.0-only", "code", 2, 400), (None, "web", 5, 300),
    ]  # fmt: skip
    assert judgement.chosen == {"GPL-3.0-only OR MIT": "MIT"}
    with pytest.raises(Refused) as caught:
        enforce(judgement)
    assert "700 of 2,000 bytes (35.0%)" in str(caught.value)
    assert "GPL-3.0-only in source code (2 documents, 400 bytes)" in str(caught.value)


def test_judge_under_a_use_then_unknown_licences_are_refused_and_what_does_not_permit_it() -> None:
    judgement = judge(ROWS, permits=lambda one: "NC" not in one, use="commercial use")
    assert {one.license for one in judgement.refused} == {None, "CC-BY-NC-4.0"}
    assert "commercial use" in judgement.refused[1].reason
    assert judge(ROWS).refused == ()
    enforce(judge(ROWS))


@pytest.mark.parametrize("text", ["", "nonsense", "MIT OR ISC", ","])
def test_parse_allow_of_what_is_no_list_of_licences_then_refused(text: str) -> None:
    with pytest.raises(UserError):
        parse_allow(text)


def test_licence_table_of_a_corpus_then_sums_are_those_of_its_documents(project: Any) -> None:
    for number in range(6):
        project.write(f"a{number}.txt", project.prose(number))
    project.write("copy.txt", project.prose(0))
    result = project.build(license="CC-BY-4.0", attribution="Ada")
    (row,) = licence_table(project.out)
    assert (row.license, row.source, row.documents, row.bytes) == ("CC-BY-4.0", "own", 6, result.bytes)
    assert (row.known_from, row.attribution, row.n_attribution) == ({"user-asserted": 6}, ["Ada"], 1)
    assert by_source([row])["own"][0]["bytes"] == result.bytes


def test_with_sidecars_then_files_of_a_folder_have_the_licences_beside_them(tmp_path: Path) -> None:
    for name, text in {
        "a.txt": "words", "sub/b.txt": "words", "sub/LICENSE": "Boost Software License - Version 1.0", "c.csv": "text\nx\n",
        "c.csv.license": "SPDX-License-Identifier: CC0-1.0\nSPDX-FileCopyrightText: 2020 Cy\n",
    }.items():  # fmt: skip
        (tmp_path / "data" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "data" / name).write_text(text)
    listing = list_source("own", SourceConfig(uri="data"), tmp_path)
    with_sidecars(listing)
    told = {file.locator: (file.facts.license_id, file.facts.license_source) for file in listing.files}
    assert told == {"a.txt": (None, "none"), "sub/b.txt": ("BSL-1.0", "sidecar"), "c.csv": ("CC0-1.0", "sidecar")}
    assert {row.locator for row in listing.set_aside} == {"sub/LICENSE", "c.csv.license"}


def test_candidates_then_doubtful_texts_by_amount_with_context(project: Any) -> None:
    for number in range(3):
        project.write(f"big/{number}.txt", f"{project.prose(number, 200)} This page is under a free license, ask Bo.")
    project.write("small/x.txt", project.prose(9))
    project.build()
    found = review.candidates(project.out)
    assert [(one.scope, one.documents, one.license, one.license_source) for one in found] == [
        ("path:big/*", 3, None, "none"), ("path:small/*", 1, None, "none"),
    ]  # fmt: skip
    assert "free license, ask Bo" in found[0].context
    assert review.candidates(project.out, limit=1) == found[:1]
    project.build(license="MIT")
    assert review.candidates(project.out) == []


def test_decide_then_it_holds_above_detection_and_the_last_word_counts(control: ControlStore, tmp_path: Path) -> None:
    (tmp_path / "data" / "big").mkdir(parents=True)
    (tmp_path / "data" / "big" / "a.txt").write_text("a")
    (tmp_path / "data" / "b.txt").write_text("b")
    store = control
    review.decide(store, "own", "path:big/*", "CC-BY-4.0")
    review.decide(store, "own", "path:big/*", "CC BY-SA 4.0", attribution="Bo", note="asked", who="me")
    review.decide(store, "own", "host:a.org", "MIT")
    review.decide(store, "own", "found:MIT", None)
    review.decide(store, "other", "*", "ISC")
    made = review.decisions(store)
    assert len(made) == 4
    listing = list_source("own", SourceConfig(uri="data"), tmp_path)
    rows = review.apply(listing, made)
    facts = {file.locator: file.facts for file in listing.files}
    assert facts["b.txt"] == Facts()
    big = facts["big/a.txt"]
    assert (big.license_id, big.license_source, big.attribution) == ("CC-BY-SA-4.0", "user-asserted", "Bo")
    page = review.for_document(Facts(license_id="GPL-3.0-only", license_source="cc-link"), rows, "https://a.org/x")
    assert (page.license_id, page.license_source, page.license_conf) == (UNCLEAR, "user-asserted", 1.0)
    assert review.for_document(Facts(license_id="ISC"), rows, "https://b.org/").license_id == "ISC"


@pytest.mark.parametrize(("scope", "license"), [("*", "no such thing"), ("what:x", "MIT")])
def test_decide_of_what_is_not_understood_then_refused(tmp_path: Path, scope: str, license: str) -> None:
    store = ControlStore.open(tmp_path / "control.sqlite")
    with pytest.raises(UserError):
        review.decide(store, "own", scope, license)
    store.close()


def test_apply_when_nothing_was_decided_then_nothing_changes() -> None:
    listing = Listing("own", "folder")
    assert review.apply(listing, []) == []
