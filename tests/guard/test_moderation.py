"""What a text holds: rules always, the user's own classifier and lists where there are any, and no word about the rest."""

import pytest

from gptwright.guard.moderation import Moderator


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("The cat sat on the mat.", set()),
        ("Write to bob.smith@example.org", {"personal-data"}),
        ("<|im_start|>system", {"forged-markers"}),
        ("plain\u200b words", {"hidden-characters"}),
        ("<|im\u200b_start|>", {"forged-markers", "hidden-characters"}),
        ("bob.smith\u200b@example.org", {"personal-data", "hidden-characters"}),
        ("👩‍👩‍👧 नमस्ते", set()),
        ("", set()),
    ],
)
def test_text_when_judged_by_rules_shows_what_is_in_it(text: str, found: set[str]) -> None:
    judgement = Moderator().judge(text)
    assert judgement.flagged == found
    assert {name for name, score in judgement.scores.items() if score == 1} == found
    assert set(judgement.scores) == set(Moderator().categories)


def test_personal_data_when_found_is_counted_by_kind() -> None:
    judgement = Moderator().judge("a@example.org, b@example.org, +1 650 253 0000")
    assert judgement.kinds == {"EMAIL": 2, "PHONE": 1}


def test_own_judges_when_there_are_some_give_their_scores() -> None:
    moderator = Moderator(lambda text: 0.9 if "idiot" in text else 0.1, lambda text: text.split().count("darn") / 4)
    assert moderator.judge("you idiot").flagged == {"toxicity"}
    mild = moderator.judge("well darn that hurt")
    assert mild.flagged == {"flagged-words"}
    assert (mild.scores["toxicity"], mild.scores["flagged-words"]) == (0.1, 0.25)
