"""What a finished build has to say: numbers by source for the manifest, rows for the ledger, and lines for the person."""

import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gptwright.core.hashing import b2_json
from gptwright.core.ledger import FileRow, SourceRow
from gptwright.core.progress import say
from gptwright.corpus.config import CorpusConfig, SourceConfig
from gptwright.corpus.decide import Decided, Tally
from gptwright.corpus.sources.base import Listing


@dataclass(frozen=True)
class CorpusResult:
    """A corpus that was built: its hash, its size, and what is to be said about it."""

    hash: str
    documents: int
    bytes: int
    meta: dict[str, Any] = field(default_factory=dict)


def pii_words(source: SourceConfig) -> str:
    """A source's policy on personal data in one word, or as JSON where it differs by kind."""
    return source.pii if isinstance(source.pii, str) else json.dumps(source.pii, sort_keys=True)


def source_row(listing: Listing, source: SourceConfig) -> SourceRow:
    """A source for the ledger."""
    licence = listing.licence
    return SourceRow(
        listing.name,
        listing.kind,
        source.uri,
        licence.id,
        licence.source,
        licence.attribution,
        source.contains_personal_data,
        pii_words(source),
    )


def corpus_result(
    config: CorpusConfig,
    listings: Sequence[Listing],
    rows: Sequence[FileRow],
    decided: Decided,
    notes: Sequence[str],
    abouts: dict[str, dict[str, Any]],
) -> CorpusResult:
    """Hash and numbers of a corpus.

    Args:
        config: its configuration.
        listings: its sources.
        rows: the outcome of every file.
        decided: all decisions.
        notes: more to be said than the decisions say themselves.
        abouts: what gatherers said about sources, by name: a commit, opt-outs that were overridden and why.
    """
    sources: dict[str, Any] = {}
    for listing in listings:
        tally = decided.sources.get(listing.name, Tally())
        source = config.sources[listing.name]
        sources[listing.name] = {
            "kind": listing.kind,
            "uri": source.uri,
            "license": listing.licence.id,
            "license_source": listing.licence.source,
            "license_evidence": listing.licence.evidence,
            "attribution": listing.licence.attribution,
            "weight": source.weight,
            "files": dict(Counter(row.outcome for row in rows if row.source == listing.name)),
            "read": tally.read,
            "kept": tally.kept,
            "dropped": dict(sorted(tally.dropped.items())),
            "bytes": tally.bytes,
            "pii": {kind: n for kind, n in tally.pii.items() if n},
            "pii_policy": pii_words(source),
            "contains_personal_data": source.contains_personal_data,
            "train": tally.train,
            "heldout": tally.heldout,
            **({"about": abouts[listing.name]} if abouts.get(listing.name) else {}),
            **({"consent_override": source.consent.reason} if source.consent.policy == "override" else {}),
        }

    def total(side: str) -> dict[str, int]:
        return {key: sum(getattr(t, side)[key] for t in decided.sources.values()) for key in ("documents", "bytes")}

    whole = {"documents": decided.kept, "bytes": sum(tally.bytes for tally in decided.sources.values())}
    terms = {name: [row["license"], row["attribution"]] for name, row in sources.items()}
    meta = {
        **whole,
        "train": total("train"),
        "heldout": total("heldout"),
        "heldout_share": decided.share,
        "heldout_unit": decided.unit,
        "recipe": config.recipe,
        "sources": sources,
        "notes": [*decided.notes, *notes],
    }
    return CorpusResult(b2_json([decided.digest, terms]), whole["documents"], whole["bytes"], meta)


def tell(result: CorpusResult) -> None:
    """What a person should know of each source: its size, its licence, and files that gave nothing."""
    for name, source in result.meta["sources"].items():
        licence = _licence_words(source)
        dropped = f", {sum(source['dropped'].values())} dropped" if source["dropped"] else ""
        say(f"corpus: {name}: {source['kept']} documents, {source['bytes'] / 1e6:.2f} MB{dropped}; {licence}")
        if others := {outcome: n for outcome, n in source["files"].items() if outcome != "ok"}:
            say(f"corpus: {name}: files without text: " + ", ".join(f"{n} {o}" for o, n in sorted(others.items())))
        if source["pii"]:
            found = ", ".join(f"{n} {kind}" for kind, n in source["pii"].items())
            say(f"corpus: {name}: personal data found by rules: {found}; policy: {source['pii_policy']}")
    for note in result.meta["notes"]:
        say(f"corpus: {note}")


def _licence_words(source: dict[str, Any]) -> str:
    """The licence of a source's texts: of each by itself where they have their own."""
    told = f"{source['license'] or 'licence unknown'} ({source['license_evidence']})"
    own = {row["license"] for row in source.get("licences", [])}
    if own <= {source["license"]}:
        return told
    known = sorted(one for one in own if one is not None)
    more = f" and {len(known) - 3} more" if len(known) > 3 else ""
    unknown = "; of some unknown" if None in own else ""
    return f"licences of its documents: {', '.join(known[:3])}{more}{unknown}" if known else told


def nothing(rows: Sequence[FileRow]) -> str:
    """Why there is no text at all."""
    outcomes = Counter(row.outcome for row in rows)
    counted = ", ".join(f"{count} {outcome}" for outcome, count in sorted(outcomes.items()))
    first = next((f"; {row.source}/{row.locator}: {row.reason}" for row in rows if row.reason), "")
    return f"no text was found in {len(rows)} files ({counted}{first})"
