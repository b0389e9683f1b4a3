"""Baselines against counting by hand."""

import math

import pytest

from gptwright.core.errors import UserError
from gptwright.evaluate.baselines import baselines, bigram_bits, lzma_baseline


def test_bigram_bits_on_a_tiny_text_then_equals_counting_by_hand():
    bits, sizes = bigram_bits([b"abab", b"aa"], [b"ab", b"z"])
    # After a: b twice, a once, of 3 + 256; a document starts with a twice of 2 + 256.
    assert bits[0] == pytest.approx(-math.log2(3 / 258) - math.log2(3 / 259))
    assert bits[1] == pytest.approx(-math.log2(1 / 258))
    assert sizes.tolist() == [2, 1]


def test_lzma_baseline_when_the_text_was_seen_then_costs_next_to_nothing():
    import random

    rng = random.Random(1)
    text = bytes(rng.choice(b"abcdefgh ") for _ in range(4000))
    assert lzma_baseline([text], [text]).bits_per_byte < 0.1
    assert lzma_baseline([], [text]).bits_per_byte > 3
    assert "alone" in lzma_baseline([], [text]).note


def test_baselines_on_english_then_each_beats_the_one_before_it():
    train = [
        f"The {a} {b} the {c}."
        for a in ("cat", "dog", "girl", "boy")
        for b in ("sees", "likes", "finds")
        for c in ("hat", "tree")
    ] * 4
    rows = baselines(train, ["The dog finds the tree. The girl likes the hat.", "The boy sees the hat."])
    assert [row.name for row in rows] == ["uniform bytes", "byte bigram", "lzma"]
    assert rows[0].bits_per_byte == 8
    assert rows[1].bits_per_byte < 5
    assert "bytes of training text" in rows[1].note


def test_baselines_without_heldout_text_then_user_error():
    with pytest.raises(UserError, match="no text"):
        baselines(["a"], [""])
