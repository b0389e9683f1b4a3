"""SPDX expressions evaluated: which of the choices that OR gives can be lived with, and which one is taken."""

import re
from collections.abc import Callable
from typing import Any

from gptwright.corpus.licences.names import licensing, normalise

MOST_CHOICES = 256  # an expression of more is not a licence but an attack; it counts as not understood
_OR_LATER = re.compile(r"(?P<family>.+)-(?P<version>\d+\.\d+)-or-later")
_ONE_VERSION = re.compile(r"(?P<family>.+)-(?P<version>\d+\.\d+)-(?:only|or-later)")


def alternatives(expression: str | None) -> list[tuple[str, ...]]:
    """The choices that an expression gives, each with all licences that then apply.

    Args:
        expression: an SPDX expression, or anything that ``names.normalise`` understands.

    Returns:
        Tuples of ids in the order of writing ("GPL-2.0-only WITH Classpath-exception-2.0" is one); empty when not understood.
    """
    written = normalise(expression)
    if written is None:
        return []
    return _choices(licensing().parse(written))


def _choices(expression: Any) -> list[tuple[str, ...]]:
    kind = type(expression).__name__
    if kind == "OR":
        found = [choice for part in expression.args for choice in _choices(part)]
    elif kind == "AND":
        found = [tuple[str, ...]()]
        for part in expression.args:
            own = _choices(part)
            if len(found) * len(own) > MOST_CHOICES:
                return []
            found = [tuple(dict.fromkeys(a + b)) for a in found for b in own]
    else:
        return [(str(expression),)]
    return list(dict.fromkeys(found))[:MOST_CHOICES]


def choose(expression: str | None, accepts: Callable[[str], bool]) -> str | None:
    """The choice that is taken: of those whose every licence is accepted the one with the fewest, the first written among equals.

    Args:
        expression: the licence of a text.
        accepts: says of one id (with its exception) whether it can be lived with.

    Returns:
        The chosen licences joined by AND; None when no choice is acceptable or the expression is not understood.
    """
    fit = [choice for choice in alternatives(expression) if all(accepts(one) for one in choice)]
    if not fit:
        return None
    best: tuple[str, ...] = min(fit, key=len)
    return " AND ".join(best)


def accepted_by(allowed: frozenset[str]) -> Callable[[str], bool]:
    """What a list of allowed ids accepts: the id itself, with any exception (which only gives more), and for "or later" any allowed
    later version."""
    versions: dict[str, list[str]] = {}
    for one in allowed:
        if match := _ONE_VERSION.fullmatch(one):
            versions.setdefault(match["family"], []).append(match["version"])

    def accepts(identity: str) -> bool:
        plain = identity.partition(" WITH ")[0]
        if identity in allowed or plain in allowed:
            return True
        match = _OR_LATER.fullmatch(plain)
        return match is not None and any(
            _number(v) >= _number(match["version"]) for v in versions.get(match["family"], [])
        )

    return accepts


def _number(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in version.split("."))
