"""The three signs of a readable reply."""

import pytest

from gptwright.evaluate.chat_quality import chat_quality, ends_in_sentence, repeats, shares_subject


@pytest.mark.parametrize(
    ("reply", "ends"),
    [
        ("I like it.", True),
        ('He said "yes!"', True),
        ("Fine :)", False),
        ("Fine. :)", True),
        ("Great! 😀", True),
        ("I like", False),
        ("...", False),
        ("", False),
        ("Really?!", True),
        ("It is 3.5", False),
        ("Well, that’s nice.’", True),
    ],
)
def test_ends_in_sentence_for_many_endings_then_judges_them(reply, ends):
    assert ends_in_sentence(reply) is ends


def test_repeats_when_four_words_come_back_in_another_case_then_true():
    assert repeats("I like the sea. Yes, i LIKE the sea.")
    assert not repeats("I like the sea and I like the hills.")
    assert repeats("no no no no no")
    assert not repeats("no no no no")


def test_shares_subject_when_only_stop_words_are_common_then_false():
    context = [{"role": "user", "content": "Do you like the movies?"}]
    assert shares_subject("That movie was long.", context)
    assert not shares_subject("I do like you.", context)
    assert shares_subject("My dog’s name is Rex.", "I have two dogs")


def test_chat_quality_over_replies_then_counts_each_sign():
    replies = ["I love the sea.", "the sea the sea the sea the sea the sea", "Good for you!"]
    result = chat_quality(replies, ["Do you love the sea?"] * 3)
    assert [s.successes for s in (result.complete_sentence, result.no_repeat, result.on_subject, result.all_three)] == [
        2,
        2,
        2,
        1,
    ]
    assert result.failures == (1, 2)
    with pytest.raises(ValueError, match="2 replies"):
        chat_quality(["a", "b"], ["c"])
