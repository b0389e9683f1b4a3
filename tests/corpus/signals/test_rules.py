"""Each rule at its threshold: a text just on the good side passes, one step further fails, and no other way round."""

import re
from collections.abc import Callable
from dataclasses import replace

import pyarrow as pa
import pytest

from gptwright.corpus.recipes import Recipe, rule_sets
from gptwright.corpus.recipes.evaluate import evaluate
from gptwright.corpus.signals import SCHEMA, measure

SETS = (
    "gopher_quality@datatrove", "gopher_quality@dclm", "gopher_repetition@datatrove", "gopher_repetition@dclm", "c4@reference", "c4@datatrove",
    "c4@fineweb", "fineweb@datatrove", "refinedweb@dclm", "curator@curator",
)  # fmt: skip
# ruff: noqa: E501
COUNT = iter(range(10**9))


def fresh(n: int, letters: int = 5) -> list[str]:
    """Words that never come again."""
    return [
        "".join("abcdefghij"[(next(COUNT) // 10**k if k < 9 else 0) % 10] for k in range(letters)) for _ in range(n)
    ]


def fails(rule_id: str, text: str) -> bool:
    rule = next(r for rules in rule_sets().values() for r in rules if r.id == rule_id)
    outcome = evaluate(Recipe("one", (replace(rule, edit=None),)), measure(pa.array([text], pa.large_string())))
    return bool(outcome[0].failed[0])


def words(n: int) -> str:
    return " ".join(fresh(n))


def longer(mean: float, n: int = 100) -> str:
    """n words whose mean length is mean."""
    total = round(mean * n)
    sizes = [total // n + (i < total % n) for i in range(n)]
    return " ".join("abcdefghijklmnop"[:size] for size in sizes)


def with_marks(mark: str, marks: int, others: int) -> str:
    return " ".join([*fresh(others), *[mark] * marks])


def lines(bad: str, n_bad: int, n: int) -> str:
    """n lines, of which n_bad are made of ``bad`` around fresh words; all differ."""
    return "\n".join(bad.format(words(6)) if i < n_bad else words(6) for i in range(n))


def copied(copies: int, n: int) -> str:
    """n lines of the same length, of which one comes copies + 1 times."""
    one = words(5)
    return "\n".join([one] * (copies + 1) + [words(5) for _ in range(n - copies - 1)])


def stops(n: int) -> str:
    return " ".join([*["the", "of", "and"][:n], *fresh(60)])


def sentences(n: int) -> str:
    return "\n".join(f"{words(6).capitalize()}." for _ in range(n))


Q, D = "gopher_quality.{}@datatrove", "gopher_quality.{}@dclm"
C = "curator.{}@curator"
CASES: list[tuple[str, Callable[[], str], Callable[[], str]]] = [
    (Q.format("min_words"), lambda: words(50), lambda: words(49) + " - ."),
    (D.format("min_words"), lambda: words(50), lambda: words(49) + " - ."),
    (C.format("min_words"), lambda: words(50), lambda: words(49)),
    (Q.format("max_words"), lambda: "ab " * 100_000, lambda: "ab " * 100_001),
    (D.format("max_words"), lambda: "ab " * 100_000, lambda: "ab " * 100_001),
    (C.format("max_words"), lambda: "ab " * 100_000, lambda: "ab " * 100_001),
    *[
        case
        for name in (Q, D, C)
        for case in (
            (name.format("min_mean_word_length"), lambda: longer(3), lambda: longer(2.99)),
            (name.format("max_mean_word_length"), lambda: longer(10), lambda: longer(10.01)),
        )
    ],
    (Q.format("hash_ratio"), lambda: with_marks("#", 10, 90), lambda: with_marks("#", 11, 89)),
    (Q.format("ellipsis_ratio"), lambda: with_marks("…", 10, 90), lambda: with_marks("...", 11, 89)),
    (D.format("symbol_ratio"), lambda: with_marks("#", 10, 90), lambda: with_marks("...", 11, 89)),
    (C.format("symbol_words"), lambda: with_marks("[...]", 10, 90), lambda: with_marks("#", 11, 89)),
    (Q.format("bullet_lines"), lambda: lines("- {}", 90, 100), lambda: lines("  • {}", 91, 100)),
    (D.format("bullet_lines"), lambda: lines("● {}", 90, 100), lambda: lines("* {}", 91, 100)),
    (C.format("bullet_lines"), lambda: lines("‣ {}", 90, 100), lambda: lines("◦ {}", 91, 100)),
    (Q.format("ellipsis_lines"), lambda: lines("{}...", 30, 100), lambda: lines("{}… ", 31, 100)),
    (D.format("ellipsis_lines"), lambda: lines("{}...", 30, 100), lambda: lines("{} . . .", 31, 100)),
    (C.format("ellipsis_lines"), lambda: lines("{} (...)", 30, 100), lambda: lines("{} Read More", 31, 100)),
    (C.format("unended_lines"), lambda: lines("{}", 85, 85) + "\n" + lines("{}.", 15, 15), lambda: lines("{}", 86, 86) + "\n" + lines("{}.", 14, 14)),
    (Q.format("alpha_words"), lambda: with_marks("12", 20, 80), lambda: with_marks("12", 21, 79)),
    (D.format("non_alpha_words"), lambda: with_marks("12", 20, 80), lambda: with_marks("12", 21, 79)),
    (C.format("alpha_words"), lambda: with_marks("12", 20, 80), lambda: with_marks("12", 21, 79)),
    (Q.format("stop_words"), lambda: stops(2), lambda: "the the " + stops(1)),
    (D.format("stop_words"), lambda: "The THE " + words(60), lambda: stops(1)),
    (C.format("stop_words"), lambda: "the the " + words(60), lambda: "The THE " + words(60)),
    *[
        (f"gopher_repetition.dup_lines@{at}", lambda k=k: copied(k, 100), lambda k=k: copied(k + 1, 100))
        for at, k in (("datatrove", 30), ("dclm", 29))
    ],
    *[
        (
            f"gopher_repetition.dup_paragraphs@{at}",
            lambda k=k: copied(k, 100).replace("\n", "\n\n"),
            lambda k=k: copied(k + 1, 100).replace("\n", "\n\n"),
        )
        for at, k in (("datatrove", 30), ("dclm", 29))
    ],
    ("gopher_repetition.dup_line_chars@datatrove", lambda: copied(20, 100), lambda: copied(21, 100)),
    ("gopher_repetition.dup_line_chars@dclm", lambda: copied(19, 100), lambda: copied(20, 100)),
    (
        "gopher_repetition.dup_paragraph_chars@datatrove",
        lambda: copied(20, 100).replace("\n", "\n\n"),
        lambda: copied(22, 100).replace("\n", "\n\n"),
    ),
    (
        "gopher_repetition.dup_paragraph_chars@dclm",
        lambda: copied(19, 100).replace("\n", "\n\n"),
        lambda: copied(20, 100).replace("\n", "\n\n"),
    ),
    ("c4.max_chars@reference", lambda: "a" * 190_000, lambda: "a" * 190_001),
    ("c4.min_sentences@reference", lambda: sentences(3), lambda: sentences(2) + "\nOnly four words here."),
    ("c4.min_sentences@datatrove", lambda: sentences(4) + "\nOnly three words.", lambda: sentences(4) + "\nTwo words."),
    ("c4.min_sentences@fineweb", lambda: sentences(4) + "\nOnly three words", lambda: sentences(4) + "\nTwo words"),
    *[
        case
        for at in ("reference", "datatrove", "fineweb")
        for case in (
            (f"c4.lorem_ipsum@{at}", lambda: sentences(5) + "\nIpsum lorem is not the filler.", lambda: "So Lorem Ipsum is what it says."),
            (f"c4.curly_bracket@{at}", lambda: "{ short\n" + sentences(5), lambda: "This line here holds a { mark."),
            (f"c4.lines@{at}", lambda: sentences(1), lambda: "JavaScript is needed to see this page."),
        )
    ],
    ("fineweb.line_punct@datatrove", lambda: lines("{}.", 12, 100), lambda: lines("{}。", 11, 100)),
    (
        "fineweb.short_lines@datatrove",
        lambda: "\n".join(["a" * 30] * 67 + ["a" * 31] * 33),
        lambda: "\n".join(["a" * 30] * 68 + ["a" * 31] * 32),
    ),
    ("fineweb.char_dup@datatrove", lambda: copied(1, 100), lambda: copied(2, 100)),
    ("fineweb.list_ratio@datatrove", lambda: "\n".join(words(10) for _ in range(4)) + "\n" * 9, lambda: "\n".join(words(10) for _ in range(4)) + "\n" * 10),
    ("refinedweb.words_removed@dclm", lambda: words(95) + "\nAB CD EF GH IJ", lambda: words(94) + "\nAB CD EF GH IJ KL"),
    ("refinedweb.lines@dclm", lambda: "some likes here\n3 of them", lambda: words(5) + "\n1.2K likes!"),
    (C.format("non_alnum"), lambda: "a" * 75 + " " * 25, lambda: "a" * 74 + " " * 26),
    (C.format("digits"), lambda: "a" * 85 + "1" * 15, lambda: "a" * 84 + "1" * 16),
    (C.format("urls"), lambda: "a" * 79 + " http://a.example.org", lambda: "a" * 78 + " http://a.example.org"),
    (C.format("white_space"), lambda: "a" * 75 + " " * 25, lambda: "a" * 74 + " " * 26),
    (C.format("parentheses"), lambda: "a" * 90 + "()" * 5, lambda: "a" * 89 + "()" * 5 + "["),
    (C.format("max_word_length"), lambda: "a" * 1000, lambda: "a" * 1001),
    (C.format("boilerplate"), lambda: "\n\n".join(["our privacy policy"] * 2 + ["a b"] * 3), lambda: "\n\n".join(["it uses cookies"] * 3 + ["a b"] * 2)),
]  # fmt: skip


def _grams(n: int, share: float, repeats: bool) -> tuple[str, str]:
    """A text of 10,000 characters in which copies of n words stand for the share, or for a little more."""
    size = n * 5 + (0 if repeats else n - 1)
    both = []
    for extra in (0, 1):
        count = int(share * 10_000) // size + extra
        gram = " ".join(fresh(n))
        first = [gram] if repeats else []
        text = " ".join(x for _ in range(count) for x in (gram, *fresh(1, 6)))
        text = " ".join([*first, *fresh(1, 6), text]) + " "
        while len(text) < 10_000 - 7:
            text += fresh(1, 6)[0] + " "
        both.append(text + "z" * (10_000 - len(text)))
    return both[0], both[1]


@pytest.mark.parametrize(("rule_id", "good", "bad"), CASES, ids=[case[0] for case in CASES])
def test_rule_when_at_its_threshold_then_it_passes_and_a_step_further_it_fails(
    rule_id: str, good: Callable[[], str], bad: Callable[[], str]
) -> None:
    assert not fails(rule_id, good())
    assert fails(rule_id, bad())


GRAMS = [
    (n, share, n > 4)
    for n, share in zip(range(2, 11), (0.20, 0.18, 0.16, 0.15, 0.14, 0.13, 0.12, 0.11, 0.10), strict=True)
]


@pytest.mark.parametrize(("n", "share", "repeats"), GRAMS)
def test_repetition_rule_when_at_its_threshold_then_it_passes_and_a_step_further_it_fails(
    n: int, share: float, repeats: bool
) -> None:
    good, bad = _grams(n, share, repeats)
    name = f"{'dup' if repeats else 'top'}_{n}gram"
    assert not fails(f"gopher_repetition.{name}@datatrove", good)
    assert fails(f"gopher_repetition.{name}@datatrove", bad)
    solid = 3000  # characters of words, of which the repeated ones make exactly the share, then one word more
    for copies, failing in ((round(share * solid / 5 / n), False), (round(share * solid / 5 / n) + 1, True)):
        gram = fresh(n)
        text = [w for _ in range(copies) for w in (*gram, *fresh(1))]
        text += fresh(solid // 5 - len(text))
        assert fails(f"gopher_repetition.{name}@dclm", " ".join(text)) is failing


def test_rules_when_read_then_every_signal_is_measured_and_every_rule_has_a_case() -> None:
    tried = {case[0] for case in CASES} | {
        f"gopher_repetition.{'dup' if r else 'top'}_{n}gram@{a}" for n, _, r in GRAMS for a in ("datatrove", "dclm")
    }
    for name in SETS:
        for rule in rule_sets()[name]:
            assert rule.signal in SCHEMA.names, rule.id
            assert rule.id in tried, rule.id
            assert rule.description
            assert rule.source
            assert re.fullmatch(r"[a-z0-9_]+\.[a-z0-9_]+@[a-z]+", rule.id)
