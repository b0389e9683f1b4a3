"""Licences, obligations, intents."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import Refused
from gptwright.core.ledger import SourceRow
from gptwright.corpus.licences.table import LicenceRow
from gptwright.govern.policy import UNKNOWN, check, check_licences, license_table, review, terms, terms_of


def source(name, license):
    return SourceRow(name, "folder", f"data/{name}", license, "config", None, "no", "mask")


@pytest.mark.parametrize(
    ("written", "spdx"),
    [
        ("MIT", "MIT"),
        ("mit", "MIT"),
        ("MIT License", "MIT"),
        ("Apache 2.0", "Apache-2.0"),
        ("CC BY-NC 4.0", "CC-BY-NC-4.0"),
        ("cc-by-sa-nc-3.0", "CC-BY-NC-SA-3.0"),
        ("GPL-3.0+", "GPL-3.0-or-later"),
        ("MIT OR Apache-2.0", "MIT OR Apache-2.0"),
        ("own", "LicenseRef-own"),
    ],
)
def test_terms_of_common_spellings_then_normalised_and_known(written, spdx):
    found = terms(written)
    assert found.spdx == spdx
    assert found.known


@pytest.mark.parametrize(
    "written",
    [
        None,
        "",
        "  ",
        "all rights reserved",
        "proprietary",
        "LicenseRef-acme",
        "MIT AND LicenseRef-acme",
        "((",
        "CC-BY-9.9",
    ],
)
def test_terms_of_what_the_table_lacks_then_unknown(written):
    assert not terms(written).known


def test_terms_of_and_or_with_then_combine():
    assert terms("CC-BY-NC-4.0 AND CC-BY-SA-4.0").alternatives == (
        frozenset({"attribution", "notice", "state-changes", "non-commercial", "share-alike"}),
    )
    assert terms("CC-BY-NC-4.0 OR CC0-1.0").alternatives[1] == frozenset()
    assert terms("GPL-2.0-only WITH Classpath-exception-2.0").alternatives == terms("GPL-2.0-only").alternatives


@given(st.text(max_size=40))
def test_terms_of_any_text_then_never_fails(text):
    assert terms(text).alternatives


def test_license_table_for_creative_commons_then_agrees_with_the_names():
    for name, entry in license_table()["licenses"].items():
        if name.startswith("CC-BY"):
            parts = name.split("-")
            for part, obligation in (("NC", "non-commercial"), ("ND", "no-derivatives"), ("SA", "share-alike")):
                assert (part in parts) == (obligation in entry["obligations"]), name
        assert set(entry["obligations"]) <= set(license_table()["obligations"])
    assert license_table()["date"] == "2026-11-24"


def test_check_commercial_with_a_non_commercial_source_then_refused_by_name_with_share():
    rows = [source("wiki", "CC-BY-SA-4.0"), source("songs", "CC-BY-NC-4.0")]
    with pytest.raises(Refused) as caught:
        check(rows, "commercial", {"wiki": 969_000, "songs": 31_000})
    text = str(caught.value)
    assert "songs" in text
    assert "CC-BY-NC-4.0" in text
    assert "3.1% of the text, 31,000 of 1,000,000 bytes" in text
    assert 'intent = "research"' in text
    assert "wiki" not in text
    assert caught.value.exit_code == 3


def test_check_commercial_with_an_unknown_source_then_refused():
    with pytest.raises(Refused, match="source notes has no known licence"):
        check([source("notes", None)], "commercial", {"notes": 5})


def test_check_commercial_when_a_free_alternative_exists_then_allowed():
    assert check([source("dual", "CC-BY-NC-4.0 OR MIT")], "commercial", {"dual": 5}).findings[0].obligations == (
        "notice",
    )


def test_check_research_and_private_then_warn_only():
    rows = [source("songs", "CC-BY-NC-ND-4.0"), source("notes", None)]
    research = check(rows, "research", {"songs": 1, "notes": 3})
    assert research.findings[1].obligations == (UNKNOWN,)
    assert any("songs" in warning and "may not be shared" in warning for warning in research.warnings)
    assert [w.split(":")[0] for w in check(rows, "private", {"songs": 1, "notes": 3}).warnings] == ["notes"]


def test_check_commercial_when_the_bad_source_has_no_text_then_it_does_not_count():
    rows = [source("empty", "CC-BY-NC-4.0"), source("ok", "MIT")]
    assert [f.source for f in check(rows, "commercial", {"ok": 10, "empty": 0}).findings] == ["ok"]


@given(
    st.lists(
        st.sampled_from(["MIT", "CC-BY-4.0", "CC-BY-NC-4.0", None, "CC0-1.0 OR CC-BY-NC-4.0"]), min_size=1, max_size=5
    )
)
def test_review_for_any_mix_then_commercial_is_never_freer_than_private(licenses):
    rows = [source(f"s{i}", license) for i, license in enumerate(licenses)]
    sizes = {row.name: 10 for row in rows}
    assert review(rows, "private", sizes).allowed
    assert review(rows, "commercial", sizes).allowed == (None not in licenses and "CC-BY-NC-4.0" not in licenses)
    assert sum(f.share for f in review(rows, "commercial", sizes).findings) == pytest.approx(1)


def test_check_licences_commercial_then_each_licence_of_a_source_counts_by_itself():
    rows = [
        LicenceRow("MIT", "code", 9, 900),
        LicenceRow("CC-BY-NC-4.0", "code", 1, 100),
        LicenceRow(None, "web", 2, 50),
    ]
    with pytest.raises(Refused) as caught:
        check_licences(rows, commercial=True)
    for words in (
        "150 of 1,050 bytes",
        "CC-BY-NC-4.0 in source code (1 document, 100 bytes)",
        "no known licence in source web (2 documents, 50 bytes)",
    ):
        assert words in str(caught.value)
    assert check_licences(rows[:1], commercial=True).refused == ()
    taken = check_licences([LicenceRow("CC-BY-NC-4.0 OR CC-BY-4.0", "a", 1, 1)], commercial=True)
    assert taken.chosen == {"CC-BY-NC-4.0 OR CC-BY-4.0": "CC-BY-4.0"}
    with pytest.raises(Refused, match="not in the list"):
        check_licences(rows[:1], allow=frozenset({"ISC"}))


def test_terms_of_a_source_with_several_licences_then_one_row_each_with_its_names():
    kept = {
        "uri": "git:x", "kind": "git", "license": "MIT", "license_source": "repository", "attribution": "R", "pii_policy": "mask", "kept": 3,
        "bytes": 30,
    }  # fmt: skip
    assert [row.license for row in terms_of({"code": kept}).rows] == ["MIT"]
    kept["licences"] = [
        {
            "license": "MIT",
            "documents": 2,
            "bytes": 20,
            "known_from": {"repository": 2},
            "attribution": ["Ada", "Bo"],
            "n_attribution": 7,
        },
        {
            "license": "CC-BY-NC-4.0",
            "documents": 1,
            "bytes": 10,
            "known_from": {"spdx-header": 1},
            "attribution": [],
            "n_attribution": 0,
        },
    ]
    found = terms_of({"code": kept})
    assert [(row.name, row.license, row.license_source, row.attribution) for row in found.rows] == [
        ("code [MIT]", "MIT", "repository", "Ada; Bo; and 5 more"), ("code [CC-BY-NC-4.0]", "CC-BY-NC-4.0", "spdx-header", "R"),
    ]  # fmt: skip
    with pytest.raises(Refused, match=r"code \[CC-BY-NC-4.0\].*33.3%"):
        check(found.rows, "commercial", found.sizes)
