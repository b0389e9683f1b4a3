"""Rules over columns: the same as a plain loop over documents, with missing values, languages and licences."""

import math
import operator

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus.recipes import OPS, Recipe, Rule
from gptwright.corpus.recipes.evaluate import allowed, evaluate, licences_refused

PYTHON = dict(zip(OPS, (operator.lt, operator.le, operator.gt, operator.ge, operator.eq, operator.ne), strict=True))
values = st.one_of(st.none(), st.just(math.nan), st.integers(-3, 3).map(lambda n: n / 2))
languages = st.sampled_from(["de", "en", "fr"])
rules = st.builds(
    Rule,
    id=st.sampled_from(["a.one", "a.two", "b.three@x"]),
    signal=st.sampled_from(["s32", "s64", "whole", "flag"]),
    op=st.sampled_from(OPS),
    threshold=st.integers(-2, 2).map(lambda n: n / 2),
    chats=st.booleans(),
    plain=st.booleans(),
    least_chars=st.sampled_from([0, 10]),
    languages=st.sampled_from([(), ("en",), ("de", "en")]),
)
rows = st.fixed_dictionaries(
    {
        "n_turns": st.one_of(st.none(), st.integers(1, 3)),
        "n_chars": st.integers(5, 15),
        "lang": st.one_of(st.none(), languages),
        "s32": values,
        "s64": values,
        "whole": st.one_of(st.none(), st.integers(-2, 2)),
        "flag": st.one_of(st.none(), st.booleans()),
    }
)
SCHEMA = pa.schema(
    [
        ("n_turns", pa.int32()), ("n_chars", pa.int64()), ("lang", pa.string()), ("s32", pa.float32()), ("s64", pa.float64()),
        ("whole", pa.int16()), ("flag", pa.bool_()),
    ]
)  # fmt: skip


def plain(recipe: Recipe, rule: Rule, row: dict[str, object]) -> bool:
    """One rule over one document, as one would say it."""
    value, chat, lang = row[rule.signal], row["n_turns"] is not None, row["lang"]
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return False
    if not (rule.chats if chat else rule.plain) or row["n_chars"] < rule.least_chars:  # type: ignore[operator]
        return False
    threshold: float | None = rule.threshold if not rule.languages or lang in rule.languages else None
    if lang in recipe.by_language and rule.id in recipe.by_language[lang]:  # type: ignore[index]
        threshold = recipe.by_language[lang][rule.id]  # type: ignore[index]
    return threshold is not None and bool(PYTHON[rule.op](float(value), threshold))  # type: ignore[arg-type]


@settings(max_examples=300, deadline=None)
@given(
    st.lists(rules, min_size=1, max_size=3, unique_by=lambda rule: rule.id),
    st.dictionaries(
        languages, st.dictionaries(st.sampled_from(["a.one", "b.three@x"]), st.sampled_from([None, 0.5, -1.0]))
    ),
    st.lists(rows, max_size=12),
)
def test_evaluate_when_any_rules_and_documents_are_given_then_it_equals_a_plain_loop(
    some: list[Rule], by_language: dict[str, dict[str, float | None]], documents: list[dict[str, object]]
) -> None:
    recipe = Recipe("x", tuple(some), by_language)
    table = pa.Table.from_pylist(documents, schema=SCHEMA)
    for outcome in evaluate(recipe, table):
        assert outcome.failed.tolist() == [plain(recipe, outcome.rule, row) for row in documents]


def test_evaluate_when_a_share_is_exactly_the_threshold_then_it_is_not_above_it() -> None:
    # 0.3 as float32 is a little more than 0.3 as float64
    recipe = Recipe("x", (Rule("a.b", "s", ">", 0.3),))
    (outcome,) = evaluate(
        recipe, pa.table({"s": pa.array([0.3, np.nextafter(np.float32(0.3), np.float32(1))], pa.float32())})
    )
    assert outcome.failed.tolist() == [False, True]


def test_evaluate_when_a_signal_is_missing_then_the_nearest_one_is_offered() -> None:
    with pytest.raises(UserError, match=r"rule a.b: unknown signal 'n_char'. Did you mean 'n_chars'"):
        evaluate(Recipe("x", (Rule("a.b", "n_char", "<", 1),)), pa.table({"n_chars": [1]}))


def test_evaluate_when_a_signal_is_text_then_it_is_said() -> None:
    with pytest.raises(UserError, match="compares numbers"):
        evaluate(Recipe("x", (Rule("a.b", "lang", "<", 1),)), pa.table({"lang": ["de"]}))


@pytest.mark.parametrize(
    ("expression", "patterns", "answer"),
    [
        ("MIT", ["MIT"], True),
        ("mit", ["MIT"], True),
        ("CC-BY-4.0", ["CC-BY-*"], True),
        ("CC-BY-NC-4.0", ["CC-BY-4.0"], False),
        ("MIT OR GPL-3.0-only", ["MIT"], True),
        ("MIT AND GPL-3.0-only", ["MIT"], False),
        ("(MIT OR GPL-3.0-only) AND CC0-1.0", ["MIT", "CC0-*"], True),
        ("not an ( expression", ["MIT"], False),
    ],
)
def test_licence_when_an_expression_is_asked_for_then_or_needs_one_and_and_needs_all(
    expression: str, patterns: list[str], answer: bool
) -> None:
    assert allowed(expression, patterns) is answer


def test_licences_when_none_is_known_then_the_recipe_says_what_happens() -> None:
    ids = pa.chunked_array([["MIT", None], ["GPL-3.0-only"]])
    assert licences_refused(Recipe("x"), ids).tolist() == [False, False, False]
    assert licences_refused(Recipe("x", allow=("MIT",)), ids).tolist() == [False, False, True]
    assert licences_refused(Recipe("x", allow=("MIT",), unknown_licence="drop"), ids).tolist() == [False, True, True]
