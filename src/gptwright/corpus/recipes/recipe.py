"""A recipe: sets of rules, switched off or moved where it says so, by language where there are numbers for it, and licences allowed.

```toml
description = "My notes"
extends = "small"                         # a preset, or another recipe beside this one
rules = ["gopher_quality@datatrove"]      # sets of rules, or single rules
off = ["gopher_quality.stop_words@datatrove"]
languages = true                          # thresholds of recipes/languages/<language>.toml for texts in that language

[thresholds]
"text.too_short" = 40

[language.de.thresholds]                  # your own thresholds for a language
"gopher_quality.max_mean_word_length@datatrove" = 16

[licenses]
allow = ["CC0-1.0", "CC-BY-*"]            # texts under other licences are dropped
unknown = "keep"                          # or "drop": texts of which no licence is known

[[rule]]                                  # a rule of your own over any signal
id = "own.too_long"
signal = "n_chars"
op = ">"
threshold = 100000
```
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.corpus.recipes.rule import Rule, read_toml, rule_of, rule_sets, set_of, unknown

_LANGUAGE_KEYS = ("source", "off", "thresholds")
_KEYS = ("description", "extends", "rules", "off", "languages", "thresholds", "language", "licenses", "rule")


def _folder(name: str) -> Any:
    return files(__package__).joinpath(name)


def presets() -> dict[str, str]:
    """Names of the recipes that come with gptwright, with what each is for."""
    found = sorted(p.name.removesuffix(".toml") for p in _folder("presets").iterdir() if p.name.endswith(".toml"))
    return {name: str(read_toml(_folder("presets") / f"{name}.toml").get("description", "")) for name in found}


@cache
def _language_files() -> dict[str, dict[str, Any]]:
    found = {}
    for path in sorted(_folder("languages").iterdir(), key=lambda p: str(p.name)):
        if path.name.endswith(".toml"):
            found[path.name.removesuffix(".toml")] = read_toml(path)
    return found


@dataclass(frozen=True)
class Recipe:
    """What is asked of every document. Thresholds of a language replace the rule's own for texts in that language."""

    name: str
    rules: tuple[Rule, ...] = ()
    by_language: Mapping[str, Mapping[str, float | None]] = field(
        default_factory=dict
    )  # language -> rule -> threshold; None: off
    allow: tuple[str, ...] | None = None  # licences; None: all
    unknown_licence: str = "keep"
    description: str = ""

    @classmethod
    def load(cls, name: str, root: Path | None = None) -> "Recipe":
        """A preset by name, or a user's own file.

        Args:
            name: a preset (``small``), or a path that ends in .toml.
            root: the project folder, which paths are relative to.

        Raises:
            UserError: unknown names; file and key are named, and the nearest right name.
        """
        return _load(name, root or Path(), ())

    @property
    def hash(self) -> str:
        """Changes with anything that can change a decision."""
        data = self.as_data()
        data.pop("name"), data.pop("description")
        for rule in data["rules"]:
            rule.pop("description"), rule.pop("source")
        return b2_json(data)

    @property
    def document_rules(self) -> tuple[Rule, ...]:
        """Rules that drop documents."""
        return tuple(rule for rule in self.rules if rule.edit is None)

    @property
    def line_rules(self) -> tuple[Rule, ...]:
        """Rules that remove lines; the step that makes edits takes them."""
        return tuple(rule for rule in self.rules if rule.edit == "lines")

    def rule(self, name: str, where: str = "the recipe") -> Rule:
        """The rule with this name; the implementation may be left out where that is clear.

        Raises:
            UserError: there is none, or there are two.
        """
        return _named(name, self.rules, where)

    def changed(self, changes: Mapping[str, float | None], where: str = "what-if") -> "Recipe":
        """The same recipe with other thresholds: for all languages. A rule that it does not have yet is taken from the known sets.

        Args:
            changes: rule -> threshold; None switches the rule off.
        """
        rules = list(self.rules)
        by_language = {code: dict(of) for code, of in self.by_language.items()}
        for name, value in changes.items():
            every = {r.id: r for known in rule_sets().values() for r in known} | {r.id: r for r in rules}
            try:
                rule = _named(name, tuple(rules), where)
            except UserError:
                rule = _named(name, tuple(every.values()), where)
                rules.append(rule)
            at = next(i for i, r in enumerate(rules) if r.id == rule.id)
            if value is None:
                rules.pop(at)
            else:
                rules[at] = replace(rule, threshold=float(value))
            for of in by_language.values():
                of.pop(rule.id, None)
        return replace(self, rules=tuple(rules), by_language=by_language)

    def as_data(self) -> dict[str, Any]:
        """Everything, for JSON; ``from_data`` reads it back."""
        return {
            "name": self.name,
            "description": self.description,
            "rules": [rule.as_data() for rule in self.rules],
            "by_language": {code: dict(sorted(of.items())) for code, of in sorted(self.by_language.items())},
            "allow": list(self.allow) if self.allow is not None else None,
            "unknown_licence": self.unknown_licence,
        }

    @classmethod
    def from_data(cls, data: Mapping[str, Any]) -> "Recipe":
        """A recipe as a build wrote it down."""
        rules = tuple(rule_of({k: v for k, v in r.items() if v is not None}, "recipe") for r in data["rules"])
        allow = tuple(data["allow"]) if data["allow"] is not None else None
        return cls(data["name"], rules, data["by_language"], allow, data["unknown_licence"], data["description"])


def _named(name: str, rules: tuple[Rule, ...], where: str) -> Rule:
    found = [rule for rule in rules if rule.id == name] or [r for r in rules if r.id.partition("@")[0] == name]
    if len(found) == 1:
        return found[0]
    if found:
        raise UserError(
            f"{name!r} could be {' or '.join(rule.id for rule in found)}",
            where=where,
            fix="Name the implementation too",
        )
    raise unknown("rule", name, (rule.id for rule in rules), where)


def _load(name: str, root: Path, within: tuple[str, ...]) -> Recipe:
    if name.endswith(".toml"):
        path: Any = root / name
        where, beside = name, (root / name).parent
    else:
        if name not in presets():
            raise unknown("recipe", name, presets(), "corpus.recipe")
        path, where, beside = _folder("presets") / f"{name}.toml", f"recipes/presets/{name}.toml", root
    if str(path) in within:
        raise UserError("a recipe that extends itself", where=where)
    data = read_toml(path)
    for key in data:
        if key not in _KEYS:
            raise unknown("key", key, _KEYS, where)
    base = Recipe(name)
    if "extends" in data:
        base = _load(_text(data, "extends", where), beside, (*within, str(path)))
    rules = _rules(data, base, where)
    by_language = {code: dict(of) for code, of in base.by_language.items()}
    if data.get("languages", False) is True:
        for code, file in _language_files().items():
            by_language[code] = by_language.get(code, {}) | _language(
                file, rules, f"recipes/languages/{code}.toml", False
            )
    for code, own in _table(data, "language", where).items():
        by_language[code] = by_language.get(code, {}) | _language(own, rules, f"{where} [language.{code}]", True)
    known = {rule.id for rule in rules}
    by_language = {code: {r: t for r, t in of.items() if r in known} for code, of in by_language.items()}
    terms = _table(data, "licenses", where)
    for key in terms:
        if key not in ("allow", "unknown"):
            raise unknown("key", key, ("allow", "unknown"), f"{where} [licenses]")
    if (missing := terms.get("unknown", base.unknown_licence)) not in ("keep", "drop"):
        raise unknown("value of licenses.unknown:", str(missing), ("keep", "drop"), where)
    allow = tuple(_texts(terms, "allow", f"{where} [licenses]")) if "allow" in terms else base.allow
    return Recipe(
        name, rules, {c: of for c, of in by_language.items() if of}, allow, missing, str(data.get("description", ""))
    )


def _rules(data: Mapping[str, Any], base: Recipe, where: str) -> tuple[Rule, ...]:
    sets = rule_sets()
    every = tuple(rule for rules in sets.values() for rule in rules)
    chosen = {rule.id: rule for rule in base.rules}
    for name in _texts(data, "rules", where):
        if name in sets:
            chosen |= {rule.id: rule for rule in sets[name]}
        elif any(rule.id == name for rule in every):
            chosen[name] = _named(name, every, where)
        else:
            raise unknown(
                "set of rules",
                name,
                [*sets, *(rule.id for rule in every if set_of(name) == rule.set)],
                f"{where} rules",
            )
    for own in data.get("rule", []):
        rule = rule_of(own, where)
        chosen[rule.id] = rule
    for name in _texts(data, "off", where):
        if name in {rule.set for rule in chosen.values()}:
            chosen = {id_: rule for id_, rule in chosen.items() if rule.set != name}
        else:
            chosen.pop(_named(name, tuple(chosen.values()), f"{where} off").id)
    for name, value in _table(data, "thresholds", where).items():
        rule = _named(name, tuple(chosen.values()), f"{where} [thresholds]")
        chosen[rule.id] = replace(rule, threshold=_number(value, f"{where} [thresholds] {name}"))
    return tuple(chosen.values())


def _language(file: Mapping[str, Any], rules: Iterable[Rule], where: str, strict: bool) -> dict[str, float | None]:
    """Thresholds of one language. Files that come with gptwright speak of more rules than one recipe has."""
    rules = tuple(rules)
    for key in file:
        if key not in _LANGUAGE_KEYS:
            raise unknown("key", key, _LANGUAGE_KEYS, where)
    changes: dict[str, float | None] = {}
    asked = [*((name, None) for name in _texts(file, "off", where)), *_table(file, "thresholds", where).items()]
    for name, value in asked:
        if not strict and not any(rule.id == name for rule in rules):
            continue
        changes[_named(name, rules, where).id] = None if value is None else _number(value, f"{where} {name}")
    return changes


def _number(value: Any, where: str) -> float:
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise UserError(f"{value!r} is not a number", where=where)
    return float(value)


def _text(data: Mapping[str, Any], key: str, where: str) -> str:
    if not isinstance(data[key], str):
        raise UserError(f"{key} = {data[key]!r} is not a name", where=where)
    return str(data[key])


def _texts(data: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = data.get(key, [])
    if not isinstance(value, list) or not all(isinstance(one, str) for one in value):
        raise UserError(f"{key} = {value!r} is not a list of names", where=where)
    return value


def _table(data: Mapping[str, Any], key: str, where: str) -> dict[str, Any]:
    value = data.get(key, {})
    if not isinstance(value, dict):
        raise UserError(f"{key} = {value!r} is not a table: [{key}]", where=where)
    return value
