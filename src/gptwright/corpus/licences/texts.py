"""Licences told by their texts: phrases that only one licence has, looked for in a text without its layout, case and punctuation."""

import functools
import re
import tomllib
from dataclasses import dataclass
from pathlib import Path

from gptwright.corpus.licences.base import Licence
from gptwright.corpus.licences.headers import header_licence

READ_CHARS = 400_000  # of a licence file; longer ones list what is bundled


@dataclass(frozen=True)
class Fingerprint:
    """A licence and what its text has, has not; the first phrase says where it begins."""

    id: str
    has: tuple[str, ...]
    lacks: tuple[str, ...] = ()
    confidence: float = 0.95


@dataclass(frozen=True)
class Found:
    """A licence in a text, and where it begins (characters of the plain text)."""

    id: str
    confidence: float
    start: int


_CC_START = re.compile(
    r"(?:creative commons )?attribution(?P<parts>(?: non ?commercial| no ?derivatives| no ?derivs| share ?alike)*) (?P<version>[1-4] [05])\b"
)
_BUNDLED = re.compile(
    r"bundle|third part|vendor|incorporat|includes? (?:code|software|source|portions|files)|portions of|derived from|based on|adapted from"
    r"|the following (?:files|components|licenses|software)|additional licen"
    r"|license for|license notice|copied from|ported from|is licensed under|subcomponents"
)
_CHOICE = re.compile(
    r"dual licen|either (?:of )?(?:license|the|these)|at your (?:option|choice|discretion)|under the terms of either|choose (?:either|between|one)"
)
_SPACE = re.compile(r"[^a-z0-9]+")


@functools.cache
def prints() -> tuple[Fingerprint, ...]:
    """The known texts, from prints.toml."""
    with open(Path(__file__).with_name("prints.toml"), "rb") as file:
        rows = tomllib.load(file)["print"]
    return tuple(
        Fingerprint(row["id"], tuple(row["has"]), tuple(row.get("lacks", ())), row.get("confidence", 0.95))
        for row in rows
    )


def plain(text: str) -> str:
    """A text in the form that phrases are looked for in: lower case, words one space apart."""
    return _SPACE.sub(" ", text[:READ_CHARS].lower().replace("ʼ", "").replace("(c)", " ")).strip()


def licences_in(text: str) -> list[Found]:
    """Licences whose texts stand in a text, each once, in order of their beginnings."""
    return _in_plain(plain(text))


def _in_plain(words: str) -> list[Found]:
    found: dict[str, Found] = {}
    for mark in prints():
        if mark.id in found:
            continue
        start = words.find(mark.has[0])
        # A licence's phrases stand close together; what another licence of the same file has or lacks further on says nothing.
        while start >= 0:
            window = words[start : start + _reach(mark)]
            if all(phrase in window for phrase in mark.has[1:]) and not any(phrase in window for phrase in mark.lacks):
                found[mark.id] = Found(mark.id, mark.confidence, start)
                break
            start = words.find(mark.has[0], start + 1)
    if (match := _CC_START.search(words[:3000])) and (cc := _creative_commons(match["parts"], match["version"])):
        found.setdefault(cc, Found(cc, 0.9, match.start()))
    # The LGPL's third version is written as additions to the GPL, which is then printed beside it; the older ones name each other.
    if "LGPL-3.0-only" in found:
        found.pop("GPL-3.0-only", None)
    if "PSF-2.0" in found:  # Python's licence tells its history, and its ancestors' terms are part of it
        found = {one: found[one] for one in found if one not in ("MIT-CMU", "HPND", "0BSD")}
    return sorted(found.values(), key=lambda one: (one.start, one.id))


def _reach(mark: Fingerprint) -> int:
    return 2200 if len(mark.has) > 1 or mark.lacks else 0


def _creative_commons(parts: str, version: str) -> str | None:
    from gptwright.corpus.licences.names import normalise

    squeezed = parts.replace(" ", "")
    names = [
        short for word, short in (("noncommercial", "NC"), ("noderiv", "ND"), ("sharealike", "SA")) if word in squeezed
    ]
    return normalise("-".join(["CC-BY", *names, version.replace(" ", ".")]))


def licence_of_text(text: str, source: str, where: str) -> Licence | None:
    """The licence that a LICENSE file grants.

    Several texts in one file are a choice when it says so; those after words about what is bundled are named in the evidence and do not
    count; else all of them apply.

    Args:
        text: the file's content.
        source: how it is to be said to be known ("repository", "sidecar", "package-metadata").
        where: the file's name, for the evidence.

    Returns:
        The licence, or None when no known text stands in it and it names none.
    """
    words = plain(text)
    found = _in_plain(words)
    if not found:
        named = header_licence(text)  # a short file that only points to the licence
        return (
            Licence(named.id, source, min(named.confidence, 0.8), f"named in {where}") if named and named.id else None
        )
    first = found[0]
    if len(found) == 1:
        later = _later(words, first.id)
        return Licence(later or first.id, source, 0.9 if later else first.confidence, f"the text of {where}")
    begin = words[: first.start + 400]
    if _CHOICE.search(begin):
        ids = " OR ".join(one.id for one in found)
        return Licence(ids, source, 0.7, f"{where} says that one may choose")
    kept = [first]
    for one in found[1:]:
        before = words[kept[-1].start : one.start]
        if _BUNDLED.search(before[-1500:]) or len(before) > 12_000:
            break
        kept.append(one)
    rest = ", ".join(one.id for one in found[len(kept) :])
    note = f"the text of {where}" + (f"; what is bundled is under {rest}" if rest else "")
    if len(kept) == 1:
        return Licence(first.id, source, min(first.confidence, 0.85), note)
    return Licence(" AND ".join(one.id for one in kept), source, 0.6, note)


def _later(words: str, identity: str) -> str | None:
    """Before a GNU licence's text an author may say "or any later version"; the text itself says it only as an example at its end."""
    if not identity.endswith("-only"):
        return None
    title = words.find("everyone is permitted to copy")
    said = words[: max(title, 0)]
    return identity.replace("-only", "-or-later") if "any later version" in said else None
