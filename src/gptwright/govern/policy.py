"""Licences become obligations, and obligations meet the project's intent: a source that does not fit is refused by name.

The table of obligations is a dated data file (licenses.json). Readings are the cautious ones, and none of it is legal advice.
"""

import functools
import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from gptwright.core.errors import Refused
from gptwright.core.ledger import Ledger, SourceRow

Intent = Literal["private", "research", "commercial"]
UNKNOWN = "unknown"

# What an intent cannot live with, and what it must be told. A private model that leaves the house becomes one of the others.
_FORBIDDEN: dict[str, frozenset[str]] = {
    "private": frozenset(),
    "research": frozenset(),
    "commercial": frozenset({"non-commercial", UNKNOWN}),
}
_WARNINGS: dict[str, str] = {
    UNKNOWN: "its licence is not known; sharing the model may not be allowed",
    "no-derivatives": "read cautiously, a model trained on it may not be shared",
    "share-alike": "read cautiously, the model and its adaptations must be shared under the same licence",
    "non-commercial": "the model must stay non-commercial",
}
_WARNED: dict[str, frozenset[str]] = {
    "private": frozenset({UNKNOWN}),
    "research": frozenset({UNKNOWN, "no-derivatives", "share-alike", "non-commercial"}),
    "commercial": frozenset({"no-derivatives", "share-alike"}),
}
# Spellings that people write and SPDX does not know.
_SPELLINGS = {
    "mit license": "MIT",
    "the mit license": "MIT",
    "apache": "Apache-2.0",
    "apache 2": "Apache-2.0",
    "apache 2.0": "Apache-2.0",
    "apache license 2.0": "Apache-2.0",
    "apache license, version 2.0": "Apache-2.0",
    "apache software license": "Apache-2.0",
    "bsd 3-clause": "BSD-3-Clause",
    "bsd 2-clause": "BSD-2-Clause",
    "cc0": "CC0-1.0",
    "cc0 1.0": "CC0-1.0",
    "public domain": "LicenseRef-public-domain",
    "own": "LicenseRef-own",
    "unlicense": "Unlicense",
    "odc-by": "ODC-By-1.0",
}
_CREATIVE_COMMONS = re.compile(r"cc[ -]by((?:[ -](?:nc|nd|sa))*)[ -]v?(\d\.\d)", re.IGNORECASE)


@dataclass(frozen=True)
class Terms:
    """A licence as written and as understood. ``alternatives``: the user may pick any one set of obligations."""

    written: str | None
    spdx: str | None
    alternatives: tuple[frozenset[str], ...]

    @property
    def known(self) -> bool:
        """Whether at least one alternative is fully understood."""
        return any(UNKNOWN not in option for option in self.alternatives)


@dataclass(frozen=True)
class Finding:
    """One source under one intent."""

    source: str
    license: str | None
    size_bytes: int
    share: float
    obligations: tuple[str, ...]
    conflicts: tuple[str, ...]
    warnings: tuple[str, ...]


@dataclass(frozen=True)
class Review:
    """All sources under one intent. ``table_date`` dates the licence table."""

    intent: str
    findings: tuple[Finding, ...]
    table_date: str

    @property
    def allowed(self) -> bool:
        """Whether no source conflicts with the intent."""
        return not any(finding.conflicts for finding in self.findings)

    @property
    def warnings(self) -> list[str]:
        """One sentence for each thing to know."""
        return [f"{finding.source}: {warning}" for finding in self.findings for warning in finding.warnings]


@functools.cache
def license_table() -> dict[str, Any]:
    """The dated table: obligations by SPDX id, what each obligation means, and where it was read."""
    loaded: dict[str, Any] = json.loads(Path(__file__).with_name("licenses.json").read_text(encoding="utf-8"))
    return loaded


def meaning(obligation: str) -> str:
    """What an obligation asks, in a few words."""
    return str(license_table()["obligations"].get(obligation, "its terms are not known"))


def terms(license: str | None) -> Terms:
    """Understand a licence: an SPDX id or expression, or a common spelling of one.

    AND adds obligations up, OR gives a choice, WITH keeps those of the licence. What is not in the table is unknown.
    """
    unknown = Terms(license, None, (frozenset({UNKNOWN}),))
    if not license or not license.strip():
        return unknown
    from license_expression import ExpressionError, ExpressionParseError

    text = _respell(license.strip())
    try:
        expression = _licensing().parse(text)
    except (ExpressionError, ExpressionParseError):
        return unknown
    if expression is None:
        return unknown
    return Terms(license, str(expression), tuple(dict.fromkeys(_options(expression))))


def review(sources: Sequence[SourceRow], intent: Intent, sizes: Mapping[str, int]) -> Review:
    """Judge every source; nothing is refused here.

    Args:
        sources: rows of the ledger.
        intent: what the project is for.
        sizes: bytes of text by source; sources without any are left out of the judgement, since the model never sees them.
    """
    total = sum(sizes.get(source.name, 0) for source in sources) or 1
    findings = []
    for source in sources:
        size = sizes.get(source.name, 0)
        if size == 0 and any(sizes.values()):
            continue
        understood = terms(source.license)
        option = min(
            understood.alternatives,
            key=lambda o: (len(o & _FORBIDDEN[intent]), len(o & _WARNED[intent]), len(o), sorted(o)),
        )
        findings.append(
            Finding(
                source=source.name,
                license=understood.spdx or source.license,
                size_bytes=size,
                share=size / total,
                obligations=tuple(o for o in license_table()["obligations"] if o in option)
                + ((UNKNOWN,) if UNKNOWN in option else ()),
                conflicts=tuple(sorted(option & _FORBIDDEN[intent])),
                warnings=tuple(_WARNINGS[o] for o in sorted(option & _WARNED[intent])),
            )
        )
    return Review(intent, tuple(findings), str(license_table()["date"]))


def check(sources: Sequence[SourceRow], intent: Intent, sizes: Mapping[str, int]) -> Review:
    """As ``review``, and refuse what the intent does not allow.

    Raises:
        Refused: names each source in conflict, its licence, its share in bytes, and the ways out.
    """
    result = review(sources, intent, sizes)
    total = sum(finding.size_bytes for finding in result.findings)
    lines = []
    for finding in result.findings:
        if finding.conflicts:
            if "non-commercial" in finding.conflicts:
                why = f"is under {finding.license}, which forbids commercial use"
            elif finding.license:
                why = f"is under {finding.license}, whose terms are not known"
            else:
                why = "has no known licence"
            lines.append(
                f"source {finding.source} {why} ({finding.share:.1%} of the text, {finding.size_bytes:,} of {total:,} bytes)"
            )
    if lines:
        names = ", ".join(finding.source for finding in result.findings if finding.conflicts)
        raise Refused(
            f'intent = "{intent}" does not fit the data: ' + "; ".join(lines),
            where="[project] intent",
            fix=f"Remove or replace {names}, or record the licence you hold ([corpus.sources.NAME] license), and run again;"
            ' or set intent = "research"',
        )
    return result


def source_sizes(ledger: Ledger) -> dict[str, int]:
    """Bytes of readable files by source, as the ledger has them."""
    sizes: dict[str, int] = {}
    for file in ledger.files():
        if file.outcome == "ok":
            sizes[file.source] = sizes.get(file.source, 0) + file.size_bytes
    return sizes


@functools.cache
def _licensing() -> Any:
    from license_expression import get_spdx_licensing

    return get_spdx_licensing()


def _respell(text: str) -> str:
    if found := _SPELLINGS.get(" ".join(text.casefold().split())):
        return found

    def canonical(match: re.Match[str]) -> str:
        parts = [part.upper() for part in re.split(r"[ -]", match[1]) if part]
        return "-".join(["CC-BY", *sorted(parts, key=["NC", "ND", "SA"].index), match[2]])

    return _CREATIVE_COMMONS.sub(canonical, text)


def _options(expression: Any) -> list[frozenset[str]]:
    """Disjunctive form: each set is what one choice asks."""
    kind = type(expression).__name__
    if kind == "OR":
        return [option for part in expression.args for option in _options(part)]
    if kind == "AND":
        options = [frozenset[str]()]
        for part in expression.args:
            options = [a | b for a in options for b in _options(part)]
        return options
    symbol = getattr(expression, "license_symbol", expression)  # of "X WITH exception", X
    entry = license_table()["licenses"].get(symbol.key)
    return [frozenset(entry["obligations"]) if entry else frozenset({UNKNOWN})]
