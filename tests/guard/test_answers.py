"""The filter of streamed answers: the same result as masking the whole, whatever the pieces, and never a half."""

import itertools
import random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.privacy import mask_pii
from gptwright.guard.answers import AnswerFilter

PERSONAL = [
    "bob.smith+x@mail.example.org",
    "+1 650 253 0000",
    "(650) 253-0000",
    "+49 30 901820",
    "GB82 WEST 1234 5698 7654 32",
    "4539 1488 0343 6467",
    "81.2.69.142",
]
PLAIN = [
    "hello",
    "THE",
    "and",
    "I",
    "at",
    "2026",
    "3.14",
    "x@y",
    "call",
    "ext",
    "the year 1999,",
    "(see",
    "a-b",
    "🙂",
    "\n\n",
    "...",
    "1.",
    "2)",
    "**Title**:",
    "x-ray",
    "extra",
    "Wash",
    "6 eggs",
]
words = st.lists(st.sampled_from(PERSONAL + PLAIN), max_size=14)


def filtered(text: str, cuts: list[int]) -> list[str]:
    answer = AnswerFilter()
    edges = [0, *sorted(cut % (len(text) + 1) for cut in cuts), len(text)]
    out = [answer.push(text[start:end]) for start, end in itertools.pairwise(edges)]
    return [*out, answer.finish()]


@settings(max_examples=300, deadline=None)
@given(words, st.sampled_from([" ", ", ", "\n", ". "]), st.lists(st.integers(0, 500), max_size=30))
def test_push_when_pieces_are_cut_anywhere_then_the_result_is_that_of_masking_the_whole(
    parts: list[str], between: str, cuts: list[int]
) -> None:
    text = between.join(parts)
    assert "".join(filtered(text, cuts)) == mask_pii(text)[0]


@pytest.mark.parametrize("secret", PERSONAL)
def test_push_when_characters_come_one_by_one_then_no_part_of_personal_data_leaves(secret: str) -> None:
    answer = AnswerFilter()
    sent = ""
    for character in f"Write to {secret} today, please.":
        sent += answer.push(character)
        assert not any(part in sent for part in secret.split()), sent
    sent += answer.finish()
    assert sent == mask_pii(f"Write to {secret} today, please.")[0]
    assert secret not in sent
    assert sum(answer.counts.values()) == 1


def test_push_when_words_are_plain_then_at_most_the_last_word_waits() -> None:
    answer = AnswerFilter()
    sent = ""
    for word in ["It", "was", "a", "bright", "cold", "day", "in", "April", ""]:
        sent += answer.push(word + " ")
    assert sent.strip() == "It was a bright cold day in April"


def test_push_when_a_number_is_followed_by_a_plain_word_then_it_does_not_wait_for_that_words_end() -> None:
    answer = AnswerFilter()
    assert answer.push("3. ") == ""  # could be the first group of a telephone number
    assert answer.push("Wa") == "3. "
    assert answer.push("sh ") == "Wash "


@pytest.mark.parametrize("text", ["x" * 20_000, "1 2 3 4 5 " * 2_000, "1234567890" * 2_000, "A" * 5 + " B2 C3" * 3_000])
def test_push_when_nothing_ever_ends_a_word_then_the_held_tail_is_bounded_and_nothing_is_lost(text: str) -> None:
    answer = AnswerFilter()
    sent, pushed = "", 0
    for start in range(0, len(text), 7):
        sent += answer.push(text[start : start + 7])
        pushed = min(start + 7, len(text))
        assert pushed - len(sent) < 1200
    sent += answer.finish()
    assert sent == text


def test_push_when_a_long_run_hides_an_address_then_it_is_still_masked() -> None:
    text = "z " * 400 + "1 2 3 4 " * 200 + " write bob@example.org"
    pieces = random.Random(3)
    answer, sent, at = AnswerFilter(), "", 0
    while at < len(text):
        step = pieces.randint(1, 9)
        sent += answer.push(text[at : at + step])
        at += step
    sent += answer.finish()
    assert sent.endswith("write [EMAIL]")
    assert len(sent) == len(text) - len("bob@example.org") + len("[EMAIL]")


def test_push_when_masking_is_off_then_text_passes_at_once() -> None:
    answer = AnswerFilter(mask=False)
    assert answer.push("bob@exa") == "bob@exa"
    assert answer.finish() == ""
