"""Passages of an answer that stand in training documents: all that are long enough, none that are not there."""

import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.corpus_files import Edit, write_corpus

from gptwright.core.errors import UserError
from gptwright.project.overlap import common, overlap, words_of

SENTENCE = "The old harbour master counted every boat that came home before the storm."


def spelled(text: str) -> list[str]:
    raw = text.encode()
    _, starts, ends = words_of(raw)
    return [raw[start:end].decode() for start, end in zip(starts, ends, strict=True)]


@settings(deadline=None)
@given(st.text(st.sampled_from("aAbÄäЖжΣσ 1-,.—“”\n日本é🙂"), max_size=60))
def test_words_when_a_text_is_any_then_they_are_its_letters_and_digits_and_case_does_not_matter(text: str) -> None:
    assert spelled(text) == re.findall(r"[日本]|[^\W日本]+", text)
    assert words_of(text.upper().encode())[0].tolist() == words_of(text.lower().replace("ς", "σ").encode())[0].tolist()


@settings(deadline=None)
@given(st.lists(st.integers(0, 2), max_size=24), st.lists(st.integers(0, 2), max_size=24), st.integers(2, 5))
def test_common_when_compared_with_trying_everything_then_the_longest_runs_are_found(
    a: list[int], b: list[int], least: int
) -> None:
    asked, held = (words_of(" ".join("xyz"[n] for n in side).encode())[0] for side in (a, b))
    runs = {
        (i, n)
        for i in range(len(a))
        for j in range(len(b))
        for n in range(least, len(a) - i + 1)
        if a[i : i + n] == b[j : j + n]
    }
    longest = sorted(r for r in runs if not any(o != r and o[0] <= r[0] and sum(r) <= sum(o) for o in runs))
    assert common(asked, held, least) == longest


def test_overlap_when_an_answer_repeats_texts_then_each_passage_names_documents_and_licences(tmp_path: Path) -> None:
    poem = "Roses are red and violets are blue, sugar is sweet and so are you."
    corpus = write_corpus(
        tmp_path,
        [
            [
                {"text": "Nothing to see here, only other words than those that are looked for."},
                {"text": f"Foreword.\n\n{SENTENCE} Then he slept.", "title": "Harbour", "license": "CC-BY-4.0"},
            ],
            [
                {
                    "text": f"{SENTENCE.upper()} {poem}",
                    "source": "web",
                    "locator": "a/b.html",
                    "url": "https://x.test/b",
                },
                {"text": SENTENCE, "verdict": "drop"},
                {"text": SENTENCE, "split": "heldout"},
            ],
        ],
    )
    answer = f"He said: “{SENTENCE.replace(' ', chr(10), 1)}” and also: roses ARE red and violets are blue... SUGAR is not the end"
    found = overlap(corpus, answer)
    assert (found.documents, found.of, found.complete) == (3, 3, True)
    first, second = found.passages
    assert answer[first.start : first.end] == SENTENCE.replace(" ", "\n", 1).rstrip(".")
    assert first.words == 13
    assert [(o.title, o.source, o.licence) for o in first.origins] == [
        ("Harbour", "own", "CC-BY-4.0"),
        ("", "web", None),
    ]
    assert first.origins[1].url == "https://x.test/b"
    assert answer[second.start : second.end] == "roses ARE red and violets are blue... SUGAR is"
    assert [o.locator for o in second.origins] == ["a/b.html"]


def test_overlap_when_a_run_is_a_word_too_short_or_stands_across_two_documents_then_it_is_none(tmp_path: Path) -> None:
    corpus = write_corpus(
        tmp_path, [[{"text": "one two three four five six seven"}, {"text": "eight nine ten"}, {"text": ""}]]
    )
    text = "zero one two three four five six seven eight nine ten"
    assert overlap(corpus, text).passages == []
    assert [p.words for p in overlap(corpus, text, least=7).passages] == [7]
    assert overlap(corpus, "too short").passages == []
    assert overlap(corpus, "").complete


def test_overlap_when_training_saw_a_mask_then_what_is_under_it_is_no_passage(tmp_path: Path) -> None:
    text = "call me at nine one two three four five six seven for more"
    corpus = write_corpus(tmp_path, [[{"text": text, "edits": [Edit(11, 43, "phone", "[PHONE]")]}]])
    assert overlap(corpus, text).passages == []
    assert len(overlap(write_corpus(tmp_path / "plain", [[{"text": text}]]), text).passages) == 1


def test_overlap_when_time_is_up_then_it_says_how_much_was_read(tmp_path: Path) -> None:
    corpus = write_corpus(tmp_path, [[{"text": SENTENCE}], [{"text": SENTENCE}]])
    found = overlap(corpus, SENTENCE, limit_s=-1)
    assert (found.documents, found.of, found.complete, found.passages) == (0, 2, False, [])


def test_overlap_when_many_documents_hold_it_then_five_are_named_and_the_rest_counted(tmp_path: Path) -> None:
    (passage,) = overlap(write_corpus(tmp_path, [[{"text": SENTENCE}] * 9]), SENTENCE).passages
    assert (len(passage.origins), passage.more) == (5, 4)


def test_overlap_when_there_is_no_corpus_then_it_says_so(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="corpus is not built"):
        overlap(tmp_path, SENTENCE)
