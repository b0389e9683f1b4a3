"""Recipes: which rules a corpus goes by, as data. Rules are TOML, thresholds may differ by language, every rule is evaluated.

Reading a recipe needs no arrays, so that ``status`` stays quick; ``recipes.evaluate`` does.
"""

from gptwright.corpus.recipes.recipe import Recipe, presets
from gptwright.corpus.recipes.rule import OPS, Rule, rule_sets

__all__ = ["OPS", "Recipe", "Rule", "presets", "rule_sets"]
