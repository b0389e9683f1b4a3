"""Every rule of a recipe over columns of signals: vectors in, vectors out, no Python per document."""

import fnmatch
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc

from gptwright.core.errors import UserError
from gptwright.corpus.recipes.recipe import Recipe
from gptwright.corpus.recipes.rule import Rule, unknown

Bools = npt.NDArray[np.bool_]
Floats = npt.NDArray[Any]  # float32 or float64, as the signal is kept
_COMPARE = {
    "<": np.less,
    "<=": np.less_equal,
    ">": np.greater,
    ">=": np.greater_equal,
    "==": np.equal,
    "!=": np.not_equal,
}


@dataclass(frozen=True)
class Outcome:
    """One rule over n documents: who fails, what was measured (NaN: nothing), and the threshold that held for each."""

    rule: Rule
    failed: Bools  # (n,)
    value: Floats  # (n,)
    threshold: Floats  # (n,); NaN where the rule does not look


def columns(recipe: Recipe) -> list[str]:
    """The signals that a recipe needs."""
    return list(dict.fromkeys(["n_turns", "n_chars", "lang", *(rule.signal for rule in recipe.document_rules)]))


def evaluate(recipe: Recipe, signals: pa.Table) -> list[Outcome]:
    """Every rule that drops documents over every document, not only the first that fails.

    A value that is null or not a number fails no rule. Values are compared in the precision they are kept in, so that a share of
    exactly 0.3 is not above a threshold of 0.3.

    Args:
        signals: one row a document, with ``columns(recipe)``; ``n_turns``, ``n_chars`` and ``lang`` only where a rule asks for them.

    Raises:
        UserError: a rule asks for a signal that is not there.
    """
    rows = signals.num_rows
    found = []
    chat: Bools | None = None
    for rule in recipe.document_rules:
        if rule.signal not in signals.column_names:
            raise no_signal(rule, _numeric(signals.schema))
        value = numbers(signals[rule.signal])
        looked = np.ones(rows, bool)
        if not (rule.chats and rule.plain):
            chat = chat if chat is not None else _valid(signals, "n_turns")
            looked &= chat if rule.chats else ~chat if rule.plain else False
        if rule.least_chars:
            looked &= numbers(_column(signals, "n_chars", rule)) >= rule.least_chars
        threshold = _thresholds(recipe, rule, signals, rows).astype(value.dtype, copy=False)
        threshold = np.where(looked, threshold, value.dtype.type(np.nan))
        # NaN on either side compares false, but for !=, where a missing value is no evidence either.
        failed = _COMPARE[rule.op](value, threshold)
        if rule.op == "!=":
            failed &= ~np.isnan(value) & ~np.isnan(threshold)
        found.append(Outcome(rule, failed, value, threshold))
    return found


def numbers(column: pa.ChunkedArray | pa.Array) -> Floats:
    """A column as floats, null as NaN; float32 stays float32, everything else becomes float64."""
    kind = column.type
    if pa.types.is_boolean(kind):
        column = column.cast(pa.int8())
    elif not (pa.types.is_integer(kind) or pa.types.is_floating(kind)):
        raise UserError(f"a rule compares numbers, and this signal is {kind}", where="recipe")
    array = column.to_numpy() if isinstance(column, pa.ChunkedArray) else column.to_numpy(zero_copy_only=False)
    return np.asarray(array, np.float32 if kind == pa.float32() else np.float64)


def _thresholds(recipe: Recipe, rule: Rule, signals: pa.Table, rows: int) -> Floats:
    """The rule's threshold for each document; NaN where its language is not one the rule looks at."""
    special = {code: of[rule.id] for code, of in recipe.by_language.items() if rule.id in of}
    if not special and not rule.languages:
        return np.full(rows, rule.threshold)
    coded = pc.dictionary_encode(_column(signals, "lang", rule).cast(pa.string()).combine_chunks())
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    default = np.nan if rule.languages else rule.threshold
    table = np.full(len(coded.dictionary) + 1, default)  # the last: language not known
    for place, code in enumerate(coded.dictionary.to_pylist()):
        base = rule.threshold if not rule.languages or code in rule.languages else np.nan
        value = special.get(code, base)
        table[place] = np.nan if value is None else value
    codes = pc.fill_null(coded.indices, len(coded.dictionary)).to_numpy(zero_copy_only=False)
    answer: Floats = table[codes]
    return answer


def _column(signals: pa.Table, name: str, rule: Rule) -> pa.ChunkedArray:
    if name not in signals.column_names:
        raise UserError(f"the rule looks at {name!r}, which was not measured", where=f"rule {rule.id}")
    return signals[name]


def _valid(signals: pa.Table, name: str) -> Bools:
    if name not in signals.column_names:
        return np.zeros(signals.num_rows, bool)
    valid: Bools = signals[name].is_valid().to_numpy()
    return valid


def _numeric(schema: pa.Schema) -> list[str]:
    return [
        f.name
        for f in schema
        if pa.types.is_integer(f.type) or pa.types.is_floating(f.type) or pa.types.is_boolean(f.type)
    ]


def no_signal(rule: Rule, there: Iterable[str]) -> UserError:
    """The error for a rule over something that was not measured."""
    error = unknown("signal", rule.signal, there, f"rule {rule.id}")
    if error.fix and error.fix.startswith("Did you mean"):
        return error
    fix = "Name one that is measured, or give it: [corpus.quality] models (trained by data label) or lists (flagged_words)"
    return UserError(error.what, where=error.where, fix=fix)


def licences_refused(recipe: Recipe, license_id: pa.ChunkedArray | pa.Array) -> Bools:
    """Which documents stand under a licence that the recipe does not allow.

    Args:
        license_id: SPDX expressions, null where none is known. ``A OR B`` is allowed when one of them is, ``A AND B`` when both are.
    """
    if recipe.allow is None and recipe.unknown_licence == "keep":
        return np.zeros(len(license_id), bool)
    coded = pc.dictionary_encode(license_id)
    if isinstance(coded, pa.ChunkedArray):
        coded = coded.combine_chunks()
    refused = [recipe.allow is not None and not allowed(name, recipe.allow) for name in coded.dictionary.to_pylist()]
    table = np.array([*refused, recipe.unknown_licence == "drop"], bool)
    answer: Bools = table[pc.fill_null(coded.indices, len(refused)).to_numpy(zero_copy_only=False)]
    return answer


def allowed(expression: str, patterns: Iterable[str]) -> bool:
    """Whether an SPDX expression may be used when licences matching these patterns may."""
    patterns = tuple(patterns)
    return _holds(_parsed(expression), patterns)


@cache
def _parsed(expression: str) -> Any:
    from license_expression import ExpressionError, Licensing

    try:
        return Licensing().parse(expression)
    except ExpressionError:
        return expression


def _holds(node: Any, patterns: tuple[str, ...]) -> bool:
    kind = type(node).__name__
    if kind == "OR":
        return any(_holds(one, patterns) for one in node.args)
    if kind == "AND":
        return all(_holds(one, patterns) for one in node.args)
    name = node if isinstance(node, str) else node.render()
    return any(fnmatch.fnmatchcase(name.casefold(), pattern.casefold()) for pattern in patterns)
