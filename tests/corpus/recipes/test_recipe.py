"""Recipes as data: presets, own files, languages, and errors that name the file, the key and the nearest right name."""

import tomllib
from dataclasses import replace
from importlib import resources
from pathlib import Path

import pyarrow as pa
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.recipes import Recipe, presets, rule_sets
from gptwright.corpus.recipes.evaluate import evaluate
from gptwright.corpus.signals import SCHEMA


def own(folder: Path, text: str) -> Recipe:
    (folder / "recipes").mkdir(exist_ok=True)
    (folder / "recipes" / "mine.toml").write_text(text)
    return Recipe.load("recipes/mine.toml", folder)


def test_preset_when_small_then_its_rules_are_the_gentle_four() -> None:
    rules = Recipe.load("small").rules
    assert [(r.id, r.signal, r.op, r.threshold, r.chats, r.plain, r.least_chars) for r in rules] == [
        ("chat.few_turns", "n_turns", "<", 2, True, False, 0),
        ("text.too_short", "n_chars", "<", 20, False, True, 0),
        ("text.few_letters", "letter_share", "<", 0.3, True, True, 20),
        ("text.repetition", "compress_ratio", "<", 0.08, True, True, 500),
    ]


@pytest.mark.parametrize("name", sorted(presets()))
def test_preset_when_loaded_then_it_is_whole_and_can_be_written_down_and_read_back(name: str) -> None:
    recipe = Recipe.load(name)
    assert recipe.description
    again = Recipe.from_data(recipe.as_data())
    assert again.hash == recipe.hash
    assert again.rules == recipe.rules


def test_presets_when_listed_then_all_that_are_promised_are_there() -> None:
    assert set(presets()) >= {"small", "none", "fineweb", "gopher", "c4", "books", "code", "chat"}


def test_rules_when_they_come_with_gptwright_then_each_says_what_it_measures() -> None:
    silent = [rule.id for rules in rule_sets().values() for rule in rules if not rule.description]
    assert not silent


def test_own_recipe_when_it_extends_one_then_rules_move_go_and_come(tmp_path: Path) -> None:
    recipe = own(
        tmp_path,
        """
        extends = "small"
        off = ["text.repetition"]
        [thresholds]
        "text.too_short" = 40
        [language.de.thresholds]
        "text.few_letters" = 0.5
        [licenses]
        allow = ["CC0-1.0", "CC-BY-*"]
        unknown = "drop"
        [[rule]]
        id = "own.too_long"
        signal = "n_chars"
        op = ">"
        threshold = 1000
        """,
    )
    assert {rule.id: rule.threshold for rule in recipe.rules} == {
        "chat.few_turns": 2,
        "text.too_short": 40,
        "text.few_letters": 0.3,
        "own.too_long": 1000,
    }
    assert recipe.by_language == {"de": {"text.few_letters": 0.5}}
    assert (recipe.allow, recipe.unknown_licence) == (("CC0-1.0", "CC-BY-*"), "drop")


def test_own_recipe_when_it_extends_another_own_one_then_the_path_is_beside_it(tmp_path: Path) -> None:
    (tmp_path / "recipes").mkdir()
    (tmp_path / "recipes" / "base.toml").write_text('extends = "none"\nrules = ["text.too_short"]\n')
    assert [rule.id for rule in own(tmp_path, 'extends = "base.toml"').rules] == ["text.too_short"]


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ('extend = "small"', r"recipes/mine.toml: unknown key 'extend'. Did you mean 'extends'"),
        ('extends = "smal"', r"unknown recipe 'smal'. Did you mean 'small'"),
        ('rules = ["texts"]', r"mine.toml rules: unknown set of rules 'texts'. Did you mean 'text'"),
        ('extends = "small"\noff = ["text.to_short"]', r"mine.toml off: unknown rule 'text.to_short'. Did you mean 'text.too_short'"),
        ('extends = "small"\n[thresholds]\n"text.too_short" = "x"', r"\[thresholds\] text.too_short: 'x' is not a number"),
        ('extends = "small"\n[language.de.thresholds]\n"text.shor" = 1', r"\[language.de\]: unknown rule 'text.shor'"),
        ('[[rule]]\nid = "a.b"\nsignal = "n_chars"\nop = "<<"\nthreshold = 1', r"\[\[rule\]\] a.b: unknown op '<<'"),
        ('[[rule]]\nid = "a.b"\nsignal = "n_chars"\nop = "<"', r"\[\[rule\]\] a.b: the key 'threshold' is missing"),
        ('[[rule]]\nid = "a.b"\nsignal = "n_chars"\nop = "<"\ntreshold = 1', r"unknown key 'treshold'. Did you mean 'threshold'"),
        ('[[rule]]\nid = "B"\nsignal = "n_chars"\nop = "<"\nthreshold = 1', r"'B' is no name of a rule"),
        ('[licenses]\nalow = ["MIT"]', r"\[licenses\]: unknown key 'alow'. Did you mean 'allow'"),
        ('[licenses]\nunknown = "dorp"', r"Did you mean 'drop'"),
        ('extends = "mine.toml"', r"extends itself"),
        ("rules = [", r"recipes/mine.toml: not valid TOML"),
    ],
)  # fmt: skip
def test_own_recipe_when_something_is_wrong_then_file_key_and_the_right_name_are_said(
    tmp_path: Path, text: str, said: str
) -> None:
    with pytest.raises(UserError, match=said):
        own(tmp_path, text)


def test_recipe_when_file_is_missing_then_it_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"nowhere.toml: no such file"):
        Recipe.load("nowhere.toml", tmp_path)


def test_recipe_when_changed_then_only_what_can_change_a_decision_changes_its_hash() -> None:
    recipe = Recipe.load("small")
    assert recipe.changed({"text.too_short": 20}).hash == recipe.hash
    assert recipe.changed({"text.too_short": 21}).hash != recipe.hash
    assert [rule.id for rule in recipe.changed({"text.too_short": None}).rules][1] == "text.few_letters"
    with pytest.raises(UserError, match="Did you mean 'text.too_short'"):
        recipe.changed({"text.too_shrt": 1})


def test_languages_when_their_files_are_read_then_every_rule_they_speak_of_exists() -> None:
    known = {rule.id for rules in rule_sets().values() for rule in rules}
    files = sorted(resources.files("gptwright.corpus.recipes").joinpath("languages").iterdir(), key=str)
    assert {path.name for path in files} >= {"de.toml", "fr.toml", "es.toml", "ru.toml"}
    for path in files:
        data = tomllib.loads(path.read_text(encoding="utf-8"))
        assert set(data) == {"source", "off", "thresholds"}
        assert {*data["off"], *data["thresholds"]} <= known, path.name
        assert not set(data["off"]) & set(data["thresholds"])


def test_languages_when_a_text_is_german_then_fineweb_2_s_numbers_hold_and_english_ones_do_not() -> None:
    recipe = Recipe.load("fineweb")
    rows = {"lang": ["de", "en", "fi", None], "mean_word_length@datatrove": [12.0] * 4, "stop_words@datatrove": [0] * 4}
    rows |= {"short_lines@datatrove": [0.9] * 4, "char_dup@datatrove": [0.05] * 4}
    signals = pa.table(rows)
    some = replace(recipe, rules=tuple(rule for rule in recipe.rules if rule.signal in signals.column_names))
    failed = {outcome.rule.id: outcome.failed.tolist() for outcome in evaluate(some, signals)}
    assert failed == {
        "gopher_quality.min_mean_word_length@datatrove": [False] * 4,
        "gopher_quality.max_mean_word_length@datatrove": [False, True, True, True],  # 15 in German, else 10
        "gopher_quality.stop_words@datatrove": [False, True, False, False],  # English words are looked for in English
        "fineweb.short_lines@datatrove": [False, True, True, True],  # not asked of German
        "fineweb.char_dup@datatrove": [False, True, True, True],  # 0.1 in German, else 0.01
    }


def test_presets_when_loaded_then_every_signal_they_ask_for_is_measured() -> None:
    beside = {"n_turns"}  # of conversations, measured where they are read
    for name in presets():
        for rule in Recipe.load(name).document_rules:
            assert rule.signal in {*SCHEMA.names, *beside}, rule.id
