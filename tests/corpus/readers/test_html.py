"""HTML: main text on labelled pages, encodings, facts, and rules that must not take too much."""

import importlib.util
import sys
import time
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.readers import boilerplate, html

if TYPE_CHECKING:
    from conftest import Extract


@pytest.fixture(scope="module")
def labelled() -> ModuleType:
    path = Path(__file__).parents[3] / "benchmarks" / "html_main_content.py"
    spec = importlib.util.spec_from_file_location("html_main_content", path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules["html_main_content"] = module
    spec.loader.exec_module(module)
    return module


def test_main_text_when_measured_on_labelled_pages_then_it_holds_its_bounds(labelled: ModuleType) -> None:
    assert len(labelled.pages()) == 30
    precision, recall, f1 = labelled.mean(labelled.ours)
    assert (precision > 0.94, recall > 0.99, f1 > 0.965) == (True, True, True), (precision, recall, f1)
    assert f1 > labelled.mean(labelled.resiliparse)[2] + 0.04
    assert f1 > labelled.mean(labelled.whole)[2] + 0.08
    for page in labelled.pages():
        assert labelled.score(labelled.ours(page.html), page.gold)[2] > 0.85, page.name


def test_score_when_words_repeat_then_each_counts_once(labelled: ModuleType) -> None:
    assert labelled.score("a a b", "a b c") == pytest.approx((2 / 3, 2 / 3, 2 / 3))
    assert labelled.score("", "a") == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("frame", ['<div class="sidebar">', '<div id="footer">', '<div class="comments menu">'])
def test_main_text_when_the_page_s_own_frame_has_a_telling_name_then_its_text_stays(frame: str) -> None:
    page = f"<html><body>{frame}<h1>Bridge</h1><p>{'The old bridge stands as it stood before. ' * 8}</p></div></body></html>"
    assert "stands as it stood" in html.main_text(html.parse(page))


def test_main_text_when_lists_have_no_links_then_they_stay_with_their_numbers() -> None:
    page = "<html><body><main><p>Do this:</p><ol><li>Open it.</li><li>Close <b>it</b>.<ul><li>slowly</li></ul></li></ol></main></body></html>"
    text = html.main_text(html.parse(page))
    assert "Open it." in text
    assert "• slowly" in text
    assert "1. one" in html.main_text(html.parse("<main><p>Words:</p><ol><li>one</ol></main>"))


@given(st.text("<>/ulioa \"'=x", max_size=80))
def test_rules_when_markup_is_anything_then_words_stay(markup: str) -> None:
    page = f"<p>first word</p>{markup}"
    assert html.keep_lists(page).startswith("<p>first word</p>")
    assert html.flatten(page) == page


def test_rules_when_page_is_made_to_be_slow_then_time_stays_linear() -> None:
    for piece in ("<ul><li>", "<a href=x>", "<a>x</a> ", "<li>x", "<ul>" + "x" * 50, "<a b='", "<" * 50):
        started = time.process_time()
        boilerplate.keep_lists(boilerplate.drop_link_rows(html.flatten(piece * 40_000)))
        assert time.process_time() - started < 3, piece


@pytest.mark.parametrize(
    ("head", "codec"),
    [
        ('<meta charset="windows-1251">', "cp1251"),
        ('<meta http-equiv="Content-Type" content="text/html; charset=koi8-r">', "koi8-r"),
        ("", "cp1251"),
        ('<meta charset="iso-8859-1">', "utf-8"),
    ],
)
def test_page_when_its_bytes_are_of_any_encoding_then_its_text_is_right(
    extracted: "Extract", head: str, codec: str
) -> None:
    sentence = "Мельница стояла на краю деревни и молчала уже лет тридцать, и никто не знал, кому она принадлежит."
    page = f"<html><head>{head}<title>Мельница</title></head><body><main><p>{sentence}</p></main></body></html>"
    found = extracted({"a.html": page.encode(codec)})
    assert found.texts["a.html"] == sentence
    assert found.rows[0]["title"] == "Мельница"
    assert found.outcomes["a.html"][1] == (None if head else "read as cp1251: not valid UTF-8")


def test_page_when_it_says_things_of_itself_then_they_are_facts_of_the_document(extracted: "Extract") -> None:
    page = (
        '<html lang="de"><head><title>Brücke</title><link rel="canonical" href="https://example.org/b"><meta name="author" content="Ann">'
        '<meta property="article:published_time" content="2020-02-03T00:00:00Z"><link rel="license" href="https://creativecommons.org/licenses/by/4.0/">'
        '<meta name="robots" content="noai"></head><body><main><p>Die alte Brücke steht noch.</p></main></body></html>'
    )
    row = extracted({"a.html": page}).rows[0]
    assert (row["title"], row["url"], row["lang_declared"]) == ("Brücke", "https://example.org/b", "de")
    assert (row["license_id"], row["license_source"], row["published_at"].year) == ("CC-BY-4.0", "page-metadata", 2020)
    assert row["optout"] != 0
    assert "noai" in row["consent"]
    asserted = extracted(
        {"b.html": page}, {"license_id": "MIT", "license_source": "user-asserted", "license_conf": 1.0}
    ).rows[0]
    assert asserted["license_id"] == "MIT"
