"""The kernels give what the plain reference gives, on any text."""

import math
import random

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptwright.corpus.signals import COLUMNS, SCHEMA, measure

from . import reference

WORDS = [
    "the",
    "of",
    "and",
    "that",
    "have",
    "with",
    "THE",
    "cat",
    "sat",
    "on",
    "mat",
    "don't",
    "it's",
    "I'll",
    "they've",
    "cannot",
    "gonna",
    "dont",
    "www.example.com",
    "a@b.org/x",
    "http://x.org/a-b",
    "foo-bar",
    "and/or",
    "e.g.",
    "U.S.",
    "Mr.",
    "Smith",
    "3.5kg",
    "10am",
    "$5",
    "5$",
    "+1",
    "1+1",
    "x=y",
    ":)",
    "(:",
    "):",
    "...",
    "…",
    ".",
    ".",
    ".",
    "#",
    "##",
    "#tag",
    "[12]",
    "[edit]",
    "[citation",
    "needed]",
    "[]",
    "{",
    "}",
    "javascript",
    "Lorem",
    "ipsum",
    "privacy",
    "policy",
    "terms",
    "of",
    "use",
    "uses",
    "cookies",
    "日本語",
    "ひらがな",
    "カタカナ",
    "naïve",
    "Ünïcödé",
    "नमस्ते",
    "ไทย",
    "-",
    "•",
    "●",
    "*",
    "‣",
    "«",
    "»",
    "-»",
    "read",
    "more..",
    "12",
    "likes",
    "3K",
    "views",
    "Sign-in",
    "Read",
    "more...",
    "items",
    "in",
    "cart",
    "SHOUT",
    "ALL",
    "CAPS",
    "ǅ",
    "ß",
    "İ",
    "𝒜",
    "👍",
    "a.b.c.",
    "don’t",
    "y'all",
    "'quoted'",
    '"end."',
    "end?",
    "end!",
    "(x).",
    "f(x):",
    "__x__",
]
SPACES = (" ", " ", " ", " ", "  ", "\n", "\n\n", "\n\n\n", " \n", "\t", "\r\n", "\u2028", "\x0b", "\u00a0", "\x85")


@st.composite
def texts(draw: st.DrawFn) -> str:
    """Words that matter between kinds of white space, with repeats, and now and then anything at all."""
    parts = draw(st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=6)), max_size=40))
    seed = draw(st.integers(0, 2**32))
    rng = random.Random(seed)
    text = "".join(part + rng.choice(SPACES) for part in parts)
    return (text * draw(st.sampled_from((1, 1, 1, 2, 3)))).encode("utf-8", "replace").decode()


def assert_same(text: str) -> None:
    ours, plain = measure(pa.array([text], pa.large_string())).to_pylist()[0], reference.measure(text)
    for column in COLUMNS:
        a, b = ours[column.name], plain[column.name]
        assert math.isclose(a, b, rel_tol=2e-6, abs_tol=2e-6), f"{column.name}: kernel {a}, reference {b}"


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(texts())
def test_measure_when_any_text_then_as_the_plain_reference(text: str) -> None:
    assert_same(text)


@settings(max_examples=250, deadline=None)
@given(st.text(alphabet=st.characters(exclude_categories=("Cs",)), max_size=60))
def test_measure_when_any_characters_then_as_the_plain_reference(text: str) -> None:
    assert_same(text)


@settings(max_examples=150, deadline=None)
@given(st.text(alphabet="aB1.,:'’\"-–—/=@#$%+()[]{}<>_…s&kgm \n", max_size=60))
def test_measure_when_punctuation_everywhere_then_as_the_plain_reference(text: str) -> None:
    assert_same(text)


@pytest.mark.parametrize("text", ["", " ", "\n", "\n\n", "a", ".", "a" * 1001, "\r\n\r\n", "\u0300a", "a\n" * 50])
def test_measure_when_the_text_is_an_edge_then_as_the_plain_reference(text: str) -> None:
    assert_same(text)


def test_measure_when_texts_come_together_then_each_is_as_alone() -> None:
    rng = random.Random(3)
    many = ["".join(rng.choice(WORDS) + rng.choice(SPACES) for _ in range(rng.randrange(80))) for _ in range(300)]
    together = measure(pa.chunked_array([many[:7], many[7:200], many[200:]], pa.large_string()))
    alone = pa.concat_tables([measure(pa.array([text], pa.large_string())) for text in many[:60]])
    assert together.schema.equals(SCHEMA)
    assert together.slice(0, 60).to_pylist() == alone.to_pylist()
    assert measure(pa.array(many[::-1], pa.string())).to_pylist()[::-1] == together.to_pylist()


def test_measure_when_the_known_runs_are_forgotten_then_nothing_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    rng = random.Random(4)
    fresh = ["".join(rng.choice("abcdefgh") for _ in range(9)) for _ in range(150_000)]
    first = "the cat and the dog that have it. the cat and the dog that have it."
    table = measure(
        pa.array([first, *(" ".join(fresh[i : i + 500]) for i in range(0, 150_000, 500)), first], pa.large_string())
    )
    assert table.slice(0, 1).to_pylist() == table.slice(table.num_rows - 1).to_pylist()


def test_measure_when_there_are_nulls_then_they_are_empty_texts() -> None:
    table = measure(pa.array(["a b", None, ""], pa.large_string()))
    assert table["n_words"].to_pylist() == [2, 0, 0]
    assert measure(pa.array([], pa.large_string())).num_rows == 0
