"""The bulk encoder gives the ids of the general one, whatever the text."""

import json

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.tokens.bulk import BulkEncoder
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

# What the pattern's alternatives turn on: contractions, blanks of all kinds, line ends, numbers of all scripts, marks, joiners.
PIECES = (
    " ", "  ", "\n", "\r\n", "\r", "\t", "\u00a0", "\u2003", "\u0085", "\u2028", "\x1c", "\ufeff", "\u180e", "'s", "'S", "'re", "'LL", "'x", "'",
    "a", "the", "É", "ß", "ſ", "ǅ", "ª", "中文", "\u0e33", "\u0301", "\u200d", "1", "²", "٣", "½", "Ⅷ", ".", "!!", "_", "🙂", "\x00", "\ud800",
)  # fmt: skip


@pytest.fixture(scope="module")
def tokenizer(tmp_path_factory: pytest.TempPathFactory) -> Tokenizer:
    words = ["the cat's on the mat", "they'll say it's 1984", "Über die Straße", "  indented\n\n\tcode()", "中文也可以"]
    return train_tokenizer(words * 50, 400, tmp_path_factory.mktemp("bulk") / "tokenizer")


@pytest.fixture(scope="module")
def bulk(tokenizer: Tokenizer) -> BulkEncoder:
    found = tokenizer.bulk_encoder()
    assert found is not None
    return found


@given(st.one_of(st.lists(st.sampled_from(PIECES), max_size=14).map("".join), st.text(max_size=40)))
@settings(max_examples=400, deadline=None)
def test_ids_of_any_text_are_those_of_the_general_encoder(tokenizer: Tokenizer, bulk: BulkEncoder, text: str) -> None:
    assert bulk([text])[0].tolist() == tokenizer.encode(text)


def test_every_character_is_of_the_class_that_the_library_gives_it(tokenizer: Tokenizer, bulk: BulkEncoder) -> None:
    text = "".join(f"{chr(point)} a" for point in range(0x110000) if not 0xD800 <= point < 0xE000)
    assert np.array_equal(bulk([text])[0], tokenizer.encode(text))


def test_names_of_control_tokens_are_ordinary_text(tokenizer: Tokenizer, bulk: BulkEncoder) -> None:
    text = "a <|im_end|>\n<|endoftext|> b"
    (ids,) = bulk([text])
    assert ids.tolist() == tokenizer.encode(text)
    assert tokenizer.control_ids.isdisjoint(ids.tolist())


def test_texts_beside_one_with_an_endless_word_are_right_and_it_too(tokenizer: Tokenizer, bulk: BulkEncoder) -> None:
    texts = ["the cat", "mat" * 3000, "", "on the mat"]
    assert [row.tolist() for row in bulk(texts)] == [tokenizer.encode(text) for text in texts]


def test_a_text_longer_than_a_unit_is_cut_as_the_general_encoder_cuts_it(
    tokenizer: Tokenizer, bulk: BulkEncoder
) -> None:
    text = "the cat's on the mat, they'll say\n" * 40_000
    assert np.array_equal(bulk([text])[0], tokenizer.encode(text))


def test_words_are_right_after_the_store_of_words_was_full(
    tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.tokens.bulk._WORDS", 64)
    small = tokenizer.bulk_encoder()
    assert small is not None
    texts = [f"word{n:x} the{n * 7919:x} cat's mat" for n in range(300)] * 2
    assert [row.tolist() for row in small(texts)] == [tokenizer.encode(text) for text in texts]


@pytest.mark.parametrize(
    "change",
    [
        {"normalizer": {"type": "NFC"}},
        {"pre_tokenizer": {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}},
        {"added_tokens": [{"id": 5, "content": "hello", "special": False}]},
    ],
)
def test_a_vocabulary_of_another_kind_is_left_to_the_general_encoder(
    tokenizer: Tokenizer, change: dict[str, object]
) -> None:
    assert BulkEncoder.of({**json.loads(tokenizer.json), **change}, tokenizer.encode) is None
