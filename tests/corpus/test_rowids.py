"""Ids of many texts at once equal those of the house, one by one."""

import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.hashing import content_id, doc_uid, norm_id
from gptwright.corpus import rowids, text

TEXTS = st.lists(
    st.text(st.characters(codec="utf-8"), max_size=60)
    | st.text("Aaß İIıẞ\t\n \u2003\u00a0\x1c\x85日Ωﬀ𐐀ΐ", max_size=40),
    min_size=1,
    max_size=8,
)


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_ids_when_taken_at_once_then_they_are_those_taken_one_by_one(texts: list[str]) -> None:
    texts = [text.normalise(one) for one in texts]
    few, rowids.FEW_BYTES = rowids.FEW_BYTES, 0
    try:
        array = pa.array(["x", *texts], pa.large_string()).slice(1)
        assert [one.hex() for one in rowids.norm_ids(array)] == [norm_id(one) for one in texts]
        assert [one.hex() for one in rowids.content_ids(array)] == [content_id(one) for one in texts]
    finally:
        rowids.FEW_BYTES = few


def test_ids_when_every_character_is_folded_then_the_table_is_pythons() -> None:
    codes = [*range(0xD800), *range(0xE000, 0x1F000)]
    texts = [f"a{chr(code)}b" for code in codes]
    few, rowids.FEW_BYTES = rowids.FEW_BYTES, 0
    try:
        got = rowids.norm_ids(pa.array(texts, pa.large_string()))
    finally:
        rowids.FEW_BYTES = few
    assert [one.hex() for one in got] == [norm_id(one) for one in texts]


@pytest.mark.parametrize("place", ["a/b.txt", "a.zip!/x#row=3&part=2"])
def test_place_when_ascii_then_its_id_is_the_documents(place: str) -> None:
    assert rowids.place_id(b"own\0", place).hex() == doc_uid("own", place)
