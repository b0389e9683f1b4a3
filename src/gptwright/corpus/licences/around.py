"""What stands around a file about its licence: ``file.license`` beside it, REUSE.toml and .reuse/dep5 above it, the nearest LICENSE or manifest.

It decides for any file of a tree from the few files that say something, so that the tree may be a commit, a folder or an archive.
"""

import re
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import PurePosixPath

from gptwright.corpus.licences.base import Licence
from gptwright.corpus.licences.expressions import alternatives
from gptwright.corpus.licences.headers import copyright_lines, header_licence
from gptwright.corpus.licences.manifests import MANIFESTS, manifest_licence
from gptwright.corpus.licences.names import normalise
from gptwright.corpus.licences.texts import licence_of_text

_TEXT_NAME = re.compile(
    r"(?:un)?(?:licen[sc]e|copying)(?:[-_.](?P<tag>[A-Za-z0-9.+-]{1,40}?))?(?:\.(?:txt|md|rst|markdown))?$",
    re.IGNORECASE,
)
_NONE = Licence(None, "none", 0.0, "nothing around the file names one")
_MOST_RULES = 10_000
_MOST_STARS = 6


def says_something(locator: str) -> bool:
    """Whether a file of this place is one that says what licence others are under."""
    path = PurePosixPath(locator)
    return (
        path.name in MANIFESTS
        or path.name == "REUSE.toml"
        or locator == ".reuse/dep5"
        or locator.endswith(".license")
        or is_licence_text(locator)
    )


def is_licence_text(locator: str) -> bool:
    """Whether a file of this place is a licence's text or a sidecar, which is evidence and no text to learn from."""
    path = PurePosixPath(locator)
    if locator.endswith(".license") and locator != ".license":
        return True
    return path.suffix.lower() not in (".py", ".js", ".json", ".html", ".go", ".c", ".h", ".java") and (
        _TEXT_NAME.match(path.name) is not None or "LICENSES" in path.parts[:-1]
    )


@dataclass(frozen=True)
class _Rule:
    """One annotation of REUSE.toml or dep5: files by pattern, relative to ``folder``."""

    folder: str
    patterns: tuple[re.Pattern[str], ...]
    licence: Licence
    precedence: str


class Around:
    """Decides for every file of a tree.

    Args:
        files: the content of those files for which ``says_something``, by place (POSIX, relative to the tree).
        source: how a licence by LICENSE files and manifests is said to be known: "repository", or "sidecar" for a plain folder.
    """

    def __init__(self, files: Mapping[str, str], source: str = "repository") -> None:
        self._sidecars: dict[str, Licence] = {}
        self._rules: list[_Rule] = []
        self._folders: dict[str, Licence] = {}
        texts: dict[str, list[tuple[str, str]]] = {}
        stated: dict[str, list[tuple[str, str]]] = {}
        for place, text in sorted(files.items()):
            path = PurePosixPath(place)
            folder = "" if str(path.parent) == "." else str(path.parent)
            if path.name == "REUSE.toml":
                self._rules += _reuse(folder, text)
            elif place == ".reuse/dep5":
                self._rules += _dep5(text)
            elif place.endswith(".license") and path.name != ".license":
                if (said := header_licence(text)) is not None:
                    self._sidecars[place.removesuffix(".license")] = replace(
                        said, source="sidecar", evidence=f"{place}"
                    )
            elif path.name in MANIFESTS:
                if expression := manifest_licence(path.name, text):
                    stated.setdefault(folder, []).append((place, expression))
            elif is_licence_text(place) and "LICENSES" not in path.parts[:-1]:
                texts.setdefault(folder, []).append((place, text))
        for folder in {*texts, *stated}:
            if (found := _of_folder(texts.get(folder, []), stated.get(folder, []), source)) is not None:
                self._folders[folder] = found

    @property
    def whole(self) -> Licence:
        """The licence of the tree as a whole."""
        return self._folders.get("", _NONE)

    def of(self, locator: str, own: Licence | None = None) -> Licence:
        """The licence of one file.

        Args:
            locator: its place in the tree.
            own: what its beginning says (``headers.own_licence``); None when that is not known or not text.

        Returns:
            The most trusted: what the file says, what stands beside it or is annotated, else what the nearest folder above says.
        """
        named = own.attribution if own else None
        best = own if own is not None and own.id is not None else None
        rule = self._rule(locator)
        if rule is not None and (rule.precedence == "override" or best is None):
            best = rule.licence
        elif rule is not None and rule.precedence == "aggregate" and best is not None:
            both = normalise(f"({best.id}) AND ({rule.licence.id})") if best.id != rule.licence.id else best.id
            best = replace(best, id=both or best.id, evidence=f"{best.evidence}, and {rule.licence.evidence}")
        best = self._sidecars.get(locator) or best
        around = self._above(locator)
        if best is None or best.id is None:
            best = around
        return replace(best, attribution=named or best.attribution or around.attribution)

    def _rule(self, locator: str) -> _Rule | None:
        for rule in reversed(self._rules):  # the last that matches counts
            if rule.folder and not locator.startswith(rule.folder + "/"):
                continue
            inner = locator[len(rule.folder) + 1 :] if rule.folder else locator
            if any(pattern.fullmatch(inner) for pattern in rule.patterns):
                return rule
        return None

    def _above(self, locator: str) -> Licence:
        folder = locator
        while folder:
            folder = folder.rpartition("/")[0]
            if folder in self._folders:
                return self._folders[folder]
        return _NONE


def _of_folder(texts: list[tuple[str, str]], stated: list[tuple[str, str]], source: str) -> Licence | None:
    """What the licence files and manifests of one folder say together."""
    found = []
    for place, text in texts:
        if (one := licence_of_text(text, source, place)) is not None and one.id:
            found.append((place, one))
    attribution = next((line for _, text in texts if (line := copyright_lines(text))), None)
    by_text: Licence | None = found[0][1] if found else None
    if len(found) > 1:
        ids = list(dict.fromkeys(f"({one.id})" for _, one in found))
        # LICENSE-MIT beside LICENSE-APACHE is the custom of those who give the choice; LICENSE beside COPYING.LESSER is not.
        tagged = all((match := _TEXT_NAME.match(PurePosixPath(place).name)) and match["tag"] for place, _ in found)
        names = ", ".join(place for place, _ in found)
        by_text = Licence(
            normalise((" OR " if tagged else " AND ").join(ids)),
            source,
            0.7 if tagged else 0.5,
            f"the texts of {names}",
        )
    expressions = list(dict.fromkeys(expression for _, expression in stated))
    if len(expressions) == 1:
        expression, place = expressions[0], stated[0][0]
        if by_text is None:
            return Licence(expression, source, 0.85, place, attribution)
        if _agree(expression, str(by_text.id)):
            precise = by_text.id if expression.startswith("LicenseRef-") else expression
            return Licence(precise, source, 1.0, f"{place} and {by_text.evidence}", attribution)
        evidence = f"{by_text.evidence}, though {place} says {expression}"
        return replace(by_text, confidence=0.5, evidence=evidence, attribution=attribution)
    if by_text is None:
        return None
    return replace(by_text, attribution=attribution)


def _agree(expression: str, by_text: str) -> bool:
    """Whether a manifest and a text can mean the same: the text's licences are among those stated, versions of GNU's aside."""

    def plain(one: str) -> set[str]:
        ids = {part for choice in alternatives(one) for part in choice}
        return {re.sub(r"-(only|or-later)$", "", identity.partition(" WITH ")[0]) for identity in ids}

    said = plain(expression)
    if any(one == "LicenseRef-BSD" for one in said):
        return by_text.startswith("BSD-")
    return bool(said) and plain(by_text) <= said


def _reuse(folder: str, text: str) -> list[_Rule]:
    """Annotations of a REUSE.toml.

    Source: REUSE specification 3.3, REUSE.toml.
    """
    try:
        annotations = tomllib.loads(text).get("annotations", [])
    except ValueError:
        return []
    rules = []
    for one in annotations[:_MOST_RULES] if isinstance(annotations, list) else []:
        said, paths = one.get("SPDX-License-Identifier"), one.get("path")
        said = " AND ".join(f"({part})" for part in said) if isinstance(said, list) else said
        identity = normalise(said) if isinstance(said, str) else None
        holders = one.get("SPDX-FileCopyrightText")
        named = "; ".join(holders) if isinstance(holders, list) else holders
        where = f"{folder}/REUSE.toml" if folder else "REUSE.toml"
        if identity is None or not isinstance(paths, str | list):
            continue
        patterns = tuple(_glob(path) for path in ([paths] if isinstance(paths, str) else paths))
        rules.append(
            _Rule(folder, patterns, Licence(identity, "sidecar", 1.0, where, named), one.get("precedence", "closest"))
        )
    return rules


def _dep5(text: str) -> list[_Rule]:
    """Paragraphs of a Debian copyright file, where "*" crosses folders.

    Source: Debian's machine-readable debian/copyright, version 1.0.
    """
    rules = []
    for paragraph in re.split(r"\n\s*\n", text)[:_MOST_RULES]:
        fields = dict(re.findall(r"^(Files|License|Copyright):[ \t]*((?:.*)(?:\n[ \t]+.*)*)", paragraph, re.MULTILINE))
        identity = normalise(fields.get("License", "").split("\n")[0])
        if "Files" in fields and identity:
            patterns = tuple(_glob(path.replace("*", "**")) for path in fields["Files"].split())
            named = "; ".join(line.strip() for line in fields.get("Copyright", "").splitlines() if line.strip())
            rules.append(
                _Rule("", patterns, Licence(identity, "sidecar", 1.0, ".reuse/dep5", named or None), "closest")
            )
    return rules


def _glob(pattern: str) -> re.Pattern[str]:
    """REUSE's patterns: "*" inside a folder, "**" across folders, nothing else is special."""
    parts = re.split(r"(\*+)", str(pattern)[:500].replace("\\*", "\0"))
    if len(parts) > 2 * _MOST_STARS:  # each star may be tried at every place of a name: more than a few cost too much
        parts = [pattern]
    made = "".join(
        ("[^/]*" if part == "*" else ".*") if part.startswith("*") else re.escape(part.replace("\0", "*"))
        for part in parts
    )
    return re.compile(made, re.DOTALL)
