"""Licences that a person should look at, with context and by amount; what they decide is kept in the control store and holds at the next build."""

import fnmatch
import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pyarrow.parquet as pq

from gptwright.core.files import read_json
from gptwright.corpus.licences.decisions import Decision, decide, decisions
from gptwright.corpus.sources.base import Facts, Listing
from gptwright.corpus.tables import MANIFEST, part_path

__all__ = ["Candidate", "Decision", "apply", "candidates", "decide", "decisions", "for_document"]
SURE = 0.9  # a licence known at least so well need not be looked at
MOST_GROUPS = 5000
_WORDS = re.compile(
    r"licen[sc]e|copyright|©|creative commons|public domain|all rights reserved|terms of use", re.IGNORECASE
)
_COLUMNS = ["source", "locator", "url", "license_id", "license_source", "license_conf"]


@dataclass
class Candidate:
    """Documents that share a place and what was found of their licence.

    ``scope`` is what a decision about them would name; ``context`` is text around words about licences in the first of the examples.
    """

    source: str
    scope: str
    license: str | None
    license_source: str
    confidence: float
    documents: int
    bytes: int
    examples: list[str]
    context: str = ""


def candidates(corpus_dir: Path, limit: int = 50, sure: float = SURE) -> list[Candidate]:
    """Groups of documents whose licence is unknown or doubtful, those with most text first.

    Args:
        corpus_dir: work/corpus, built to its end.
        limit: so many groups.
        sure: documents whose licence is known at least so well are left out.
    """
    groups: dict[tuple[str, str, str | None, str], Candidate] = {}
    places: dict[tuple[str, str, str | None, str], tuple[int, int]] = {}
    for number in range(read_json(corpus_dir / MANIFEST)["parts"]):
        rows = pq.read_table(part_path(corpus_dir, "docs", number), columns=_COLUMNS).to_pydict()
        sizes = pq.read_table(part_path(corpus_dir, "signals", number), columns=["n_bytes_edited"])[
            "n_bytes_edited"
        ].to_pylist()
        verdicts = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict"])["verdict"].to_pylist()
        for row, values in enumerate(zip(*rows.values(), strict=True)):
            source, locator, url, identity, how, confidence = values
            if verdicts[row] != "keep" or (
                identity is not None and confidence >= sure - 1e-6
            ):  # stored in single precision
                continue
            key = (source, _scope(locator, url), identity, how)
            if key not in groups and len(groups) >= MOST_GROUPS:
                key = (source, "*", identity, how)
            one = groups.setdefault(key, Candidate(source, key[1], identity, how, confidence, 0, 0, []))
            places.setdefault(key, (number, row))
            one.documents += 1
            one.bytes += sizes[row]
            one.confidence = min(one.confidence, confidence)
            if len(one.examples) < 3:
                one.examples.append(locator)
    order = sorted(groups, key=lambda key: (-groups[key].bytes, key[0], key[1], key[2] or ""))[:limit]
    for key in order:
        groups[key].context = _context(corpus_dir, *places[key])
    return [groups[key] for key in order]


def _scope(locator: str, url: str | None) -> str:
    """The host of a page, the first folder of a file."""
    for place in (url, locator):
        if place and place.startswith(("http://", "https://")):
            return f"host:{urlsplit(place).hostname or ''}"
    folder = locator.partition("#")[0].rpartition("/")[0].partition("/")[0]
    return f"path:{folder}/*" if folder else "path:*"


def _context(corpus_dir: Path, number: int, row: int) -> str:
    with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
        for group in range(file.num_row_groups):
            count = file.metadata.row_group(group).num_rows
            if row < count:
                text = str(file.read_row_group(group, columns=["text"])["text"][row].as_py())
                break
            row -= count
        else:
            return ""
    match = _WORDS.search(text)
    start = max(match.start() - 100, 0) if match else 0
    return " ".join(text[start : start + 300].split())


def apply(listing: Listing, made: Sequence[Decision]) -> list[list[Any]]:
    """Put decisions on the files of a source, above all that was told of them.

    Args:
        listing: its files' facts are changed; only files that a decision names are, so that only these are read anew.
        made: of ``decisions``.

    Returns:
        What single documents of files must be held against, as JSON values for ``for_document``: decisions about hosts and about
        licences that were found. Empty when there are none.
    """
    own = [one for one in made if one.source == listing.name]
    whole = [one for one in own if one.scope == "*" or one.scope.startswith("path:")]
    for index, file in enumerate(listing.files):
        for one in whole:
            if one.scope == "*" or _path_matches(file.locator, one.scope):
                facts = replace(
                    file.facts, license_id=one.license, license_source="user-asserted", license_conf=1.0,
                    attribution=one.attribution or file.facts.attribution,
                )  # fmt: skip
                file = replace(file, facts=facts)
        listing.files[index] = file
    return [[one.scope, one.license, one.attribution] for one in own if one not in whole]


def _path_matches(locator: str, scope: str) -> bool:
    pattern = scope.removeprefix("path:")
    return fnmatch.fnmatchcase(locator, pattern) and (pattern != "*" or "/" not in locator)


def for_document(facts: Facts, rows: Sequence[Sequence[Any]], url: str | None) -> Facts:
    """A document's facts with the decisions that ``apply`` left for documents.

    Args:
        facts: what is known of it so far.
        rows: of ``apply``.
        url: its address.
    """
    host = urlsplit(url).hostname if url and url.startswith(("http://", "https://")) else None
    for scope, license, attribution in rows:
        kind, _, value = scope.partition(":")
        if (kind == "host" and host == value) or (kind == "found" and (facts.license_id or "none") == value):
            facts = replace(
                facts, license_id=license, license_source="user-asserted", license_conf=1.0,
                attribution=attribution or facts.attribution,
            )  # fmt: skip
    return facts
