"""One rule, and the sets of rules that come with gptwright: read from TOML, checked key by key.

A rule is named ``group.rule@implementation``: the group and the implementation together name a set (``gopher_quality@datatrove``),
so that two readings of one paper stand side by side and a decision says which of them it followed.
"""

import difflib
import re
import tomllib
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import cache
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError

OPS = ("<", "<=", ">", ">=", "==", "!=")
_ID = re.compile(r"[a-z][a-z0-9_]*\.[a-z0-9_]+(@[a-z0-9_.-]+)?")


@dataclass(frozen=True)
class Rule:
    """A document fails when ``signal op threshold`` holds, among those the rule looks at."""

    id: str
    signal: str
    op: str
    threshold: float
    description: str = ""  # one line: what is measured, and why it matters
    source: str = ""  # where the threshold is from
    chats: bool = True  # looks at conversations
    plain: bool = True  # looks at plain text
    least_chars: int = 0  # looks at texts from this length on
    languages: tuple[str, ...] = ()  # looks at these languages only; empty: at all
    edit: str | None = None  # "lines": removes the lines that fail and not the document

    @property
    def set(self) -> str:
        """The set it belongs to: ``gopher_quality@datatrove`` of ``gopher_quality.min_words@datatrove``."""
        return set_of(self.id)

    def as_data(self) -> dict[str, Any]:
        """All fields, for JSON."""
        return asdict(self) | {"languages": list(self.languages)}


def set_of(rule_id: str) -> str:
    """The set a rule's name belongs to."""
    name, at, implementation = rule_id.partition("@")
    return name.partition(".")[0] + at + implementation


def read_toml(path: Traversable | Path) -> dict[str, Any]:
    """A TOML file.

    Raises:
        UserError: it is missing or not TOML; the message names the place.
    """
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path), fix="Name a recipe that exists") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not valid TOML: {error}", where=str(path)) from error


def unknown(what: str, name: str, known: Iterable[str], where: str) -> UserError:
    """The error for a name that nothing has: it offers the nearest right ones."""
    known = sorted(set(known))
    near = difflib.get_close_matches(name, known, 3, 0.5)
    offer = " or ".join(repr(n) for n in near)
    listed = ", ".join(known[:12]) + (", ..." if len(known) > 12 else "")
    return UserError(
        f"unknown {what} {name!r}", where=where, fix=f"Did you mean {offer}?" if offer else f"There are: {listed}"
    )


def rule_of(data: Any, where: str) -> Rule:
    """A rule of a TOML table.

    Raises:
        UserError: a key is unknown, missing or of the wrong type.
    """
    if not isinstance(data, Mapping):
        raise UserError("a rule is a table: [[rule]]", where=where)
    where = f"{where} [[rule]] {data.get('id', '')}".rstrip()
    types: dict[str, Any] = {
        "id": str, "signal": str, "op": str, "threshold": (int, float), "description": str, "source": str, "chats": bool,
        "plain": bool, "least_chars": int, "languages": list, "edit": str,
    }  # fmt: skip
    for key, value in data.items():
        if key not in types:
            raise unknown("key", key, types, where)
        if not isinstance(value, types[key]) or (isinstance(value, bool) and types[key] is not bool):
            raise UserError(f"{key} = {value!r} is not of the right kind", where=where)
    for key in ("id", "signal", "op", "threshold"):
        if key not in data:
            raise UserError(f"the key {key!r} is missing", where=where)
    if not _ID.fullmatch(data["id"]):
        raise UserError(
            f"{data['id']!r} is no name of a rule", where=where, fix="Name it group.rule or group.rule@implementation"
        )
    if data["op"] not in OPS:
        raise unknown("op", data["op"], OPS, where)
    if data.get("edit") not in (None, "lines"):
        raise unknown("edit", str(data["edit"]), ["lines"], where)
    values = {key: value for key, value in data.items() if key in {f.name for f in fields(Rule)}}
    values["threshold"] = float(values["threshold"])
    values["languages"] = tuple(values.get("languages", ()))
    return Rule(**values)


@cache
def rule_sets() -> dict[str, tuple[Rule, ...]]:
    """The sets that come with gptwright: name -> rules in order."""
    sets: dict[str, tuple[Rule, ...]] = {}
    seen: set[str] = set()
    for path in sorted(files(__package__).joinpath("rules").iterdir(), key=lambda p: p.name):
        if not path.name.endswith(".toml"):
            continue
        where = f"recipes/rules/{path.name}"
        for data in read_toml(path).get("rule", []):
            rule = rule_of(data, where)
            if rule.id in seen:
                raise UserError(f"the rule {rule.id} stands twice", where=where)
            seen.add(rule.id)
            sets[rule.set] = (*sets.get(rule.set, ()), rule)
    return sets
