"""Streaming: whole characters, at once, and nothing lost."""

from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.tokens.stream import StreamDecoder
from gptwright.tokens.tokenizer import Tokenizer

from .strategies import hostile_texts


@settings(max_examples=200, deadline=None)
@given(text=hostile_texts)
def test_stream_of_a_text_gives_the_text_in_whole_characters(tokenizer: Tokenizer, text: str) -> None:
    decoder = tokenizer.stream()
    pushed = [decoder.push(token) for token in tokenizer.encode(text)]
    assert all("\ufffd" not in piece for piece in pushed) or "\ufffd" in text
    assert "".join(pushed) + decoder.finish() == text


@settings(max_examples=300, deadline=None)
@given(parts=st.lists(st.binary(min_size=0, max_size=4), max_size=30))
def test_stream_of_any_bytes_equals_decoding_at_once_and_never_stalls(parts: list[bytes]) -> None:
    decoder = StreamDecoder(lambda index: parts[index])
    given_bytes, shown = b"", ""
    for index, part in enumerate(parts):
        given_bytes += part
        shown += decoder.push(index)
        expected = given_bytes.decode("utf-8", "replace")
        # At most one unfinished character (three bytes) is held back, and what was shown is never taken back.
        assert len(expected) - len(shown) <= 3
        assert expected.startswith(shown)
    assert shown + decoder.finish() == given_bytes.decode("utf-8", "replace")


def test_finish_in_the_middle_of_a_character_gives_one_replacement(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.stream()
    ids = tokenizer.encode("日")
    assert len(ids) > 1
    assert [decoder.push(token) for token in ids[:-1]] == [""] * (len(ids) - 1)
    assert decoder.finish() == "\ufffd"
    assert decoder.finish() == ""


def test_control_ids_in_a_stream_write_nothing(tokenizer: Tokenizer) -> None:
    decoder = tokenizer.stream()
    assert "".join(decoder.push(token) for token in (1, 2, 0, 10_000)) + decoder.finish() == ""
