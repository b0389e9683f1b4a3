"""One spelling for one page; patterns of robots.txt as RFC 9309 matches them."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus.sources.urls import canonical, matches


@pytest.mark.parametrize(
    ("found", "same"),
    [
        ("HTTP://User:pw@EXAMPLE.org:80/a/../b/./c%7e?utm_source=x&a=1&gclid=2#f", "http://example.org/b/c~?a=1"),
        ("/x?", "https://base.org/x"),
        ("y z?q=ä", "https://base.org/dir/y%20z?q=%C3%A4"),
        ("//bücher.de", "https://xn--bcher-kva.de/"),
        ("https://x.org:443", "https://x.org/"),
        ("https://x.org/%zz", "https://x.org/%25zz"),
        ("https://x.org/../..", "https://x.org/"),
        ("mailto:a@b.c", None),
        ("javascript:alert(1)", None),
        ("http://", None),
        ("http://x:99999999/", None),
        ("http://x y/", None),
        ("https://x.org/" + "a" * 5000, None),
    ],
)
def test_canonical_when_spelled_in_many_ways_then_one(found: str, same: str | None) -> None:
    assert canonical(found, "https://base.org/dir/page") == same


@given(st.text(max_size=60))
def test_canonical_when_done_twice_then_it_stays(path: str) -> None:
    once = canonical("https://example.org/" + path)
    if once is not None:
        assert once.isascii()
        assert canonical(once) == once


@given(st.text("ab/*", max_size=8), st.booleans(), st.text("ab/", max_size=10))
def test_matches_when_any_pattern_then_as_the_regular_expression(pattern: str, ends: bool, path: str) -> None:
    plain = "".join(".*" if c == "*" else re.escape(c) for c in pattern)
    expected = re.match(f"(?s){plain}{'$' if ends else ''}", path) is not None
    assert matches(pattern + ("$" if ends else ""), path) is expected
