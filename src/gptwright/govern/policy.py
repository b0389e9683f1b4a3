"""Licences become obligations, and obligations meet the project's intent: a source that does not fit is refused by name.

The table of obligations is a dated data file (licenses.json). Readings are the cautious ones, and none of it is legal advice.
"""

import functools
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from gptwright.core.errors import Refused
from gptwright.core.ledger import Ledger, SourceRow
from gptwright.corpus.licences import normalise
from gptwright.corpus.licences.expressions import alternatives
from gptwright.corpus.licences.policy import Judgement, enforce, judge
from gptwright.corpus.licences.table import LicenceRow

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
    spdx = normalise(license)
    options = tuple(dict.fromkeys(_obligations(choice) for choice in alternatives(spdx)))
    return Terms(license, spdx, options) if options else Terms(license, None, (frozenset({UNKNOWN}),))


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


def permits_commercial(identity: str) -> bool:
    """Whether one licence, with its exception, is known and permits commercial use."""
    return not _obligations((identity,)) & _FORBIDDEN["commercial"]


def check_licences(
    rows: Sequence[LicenceRow], *, allow: frozenset[str] | None = None, commercial: bool = False
) -> Judgement:
    """Hold a corpus's licences against a list of allowed ones and commercial use.

    Args:
        rows: of ``corpus.licences.table.licence_table``.
        allow: SPDX ids (``corpus.licences.policy.parse_allow``); None allows all.
        commercial: whether each must permit commercial use.

    Raises:
        Refused: names each licence and source that does not fit, with documents and bytes.
    """
    permits = permits_commercial if commercial else None
    judgement = judge(rows, allow=allow, permits=permits, use="commercial use")
    enforce(judgement, "--commercial" if commercial and allow is None else "--allow")
    return judgement


@dataclass
class SourceTerms:
    """The texts a data set was made from, one row for each licence of each source; counts by the row's name."""

    rows: list[SourceRow]
    sizes: dict[str, int]
    documents: dict[str, int]


def terms_of(sources: Mapping[str, Mapping[str, Any]]) -> SourceTerms:
    """The rows to judge and to name in cards, from what a data set's record says of its sources.

    Args:
        sources: ``meta["sources"]`` of a corpus or data set; where a source has ``licences`` (``table.by_source``) each of them is a row of
            its own, named "source [licence]" when there are several.
    """
    found = SourceTerms([], {}, {})
    for name, kept in sources.items():
        row = SourceRow(
            name, kept.get("kind", UNKNOWN), kept["uri"], kept["license"], kept["license_source"], kept["attribution"],
            kept.get("contains_personal_data", UNKNOWN), kept["pii_policy"],
        )  # fmt: skip
        licences = kept.get("licences") or []
        if not licences:
            licences = [{"license": row.license, "documents": kept["kept"], "bytes": kept["bytes"]}]
        for one in licences:
            own = replace(
                row,
                name=name if len(licences) == 1 else f"{name} [{one['license'] or 'licence not known'}]",
                license=one["license"],
                license_source=_known_from(one.get("known_from"), row.license_source),
                attribution=_credit(one) or row.attribution,
            )
            found.rows.append(own)
            found.sizes[own.name] = int(one["bytes"])
            found.documents[own.name] = int(one["documents"])
    return found


def _known_from(counts: Mapping[str, int] | None, otherwise: str) -> str:
    return max(counts, key=lambda how: (counts[how], how)) if counts else otherwise


def _credit(row: Mapping[str, Any]) -> str | None:
    names = row.get("attribution") or []
    more = int(row.get("n_attribution", len(names))) - len(names)
    return "; ".join(names) + (f"; and {more:,} more" if more > 0 else "") if names else None


def _obligations(choice: tuple[str, ...]) -> frozenset[str]:
    """What the licences of one choice ask together; what is not in the table is unknown."""
    asked: frozenset[str] = frozenset()
    for identity in choice:
        entry = license_table()["licenses"].get(identity.partition(" WITH ")[0])
        asked |= frozenset(entry["obligations"]) if entry else frozenset({UNKNOWN})
    return asked
