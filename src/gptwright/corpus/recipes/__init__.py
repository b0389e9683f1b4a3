"""Recipes: which rules a corpus goes by, as data. Rules are TOML, thresholds may differ by language, every rule is evaluated."""

from gptwright.corpus.recipes.evaluate import Outcome, columns, evaluate, licences_refused
from gptwright.corpus.recipes.recipe import Recipe, presets
from gptwright.corpus.recipes.rule import OPS, Rule, rule_sets

__all__ = [
    "OPS",
    "Outcome",
    "Recipe",
    "Rule",
    "columns",
    "evaluate",
    "licences_refused",
    "presets",
    "rule_sets",
]
