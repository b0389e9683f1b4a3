"""Ids must mean the same everywhere and for ever."""

import unicodedata

from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.hashing import b2, b2_json, content_id, doc_uid, norm_id


def test_ids_when_compared_with_recorded_ones_then_they_have_not_moved() -> None:
    assert b2(b"abc") == "b2:bddd813c634239723171ef3fee98579b94964e3bb1cb3e427262c8c068d52319"
    assert doc_uid("web", "a/b.txt") == doc_uid("web", "a\\b.txt")
    assert content_id("abc") == "cf4ab791c62b8d2b2109c90275287816"
    assert norm_id("  ABC\n") == "cf4ab791c62b8d2b2109c90275287816"


@given(st.text())
def test_content_id_when_text_is_decomposed_then_it_is_the_same(text: str) -> None:
    assert content_id(unicodedata.normalize("NFD", text)) == content_id(text)


@given(st.dictionaries(st.text(), st.integers()))
def test_b2_json_when_keys_are_reordered_then_it_is_the_same(value: dict[str, int]) -> None:
    assert b2_json(dict(reversed(list(value.items())))) == b2_json(value)
