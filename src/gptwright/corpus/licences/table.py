"""What a built corpus holds by licence: each kept document counts under its own, not under its source's."""

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.files import read_json
from gptwright.corpus.tables import MANIFEST, part_path

MOST_NAMES = 10_000  # attributions told apart in one row; the number of all is kept
_KEYS = ["license_id", "source", "license_source", "attribution"]


@dataclass
class LicenceRow:
    """Kept documents of one source under one licence. ``known_from``: how that is known, with its documents.

    ``attribution`` lists whom to name, those with most text first; ``n_attribution`` counts them all.
    """

    license: str | None
    source: str
    documents: int = 0
    bytes: int = 0
    known_from: dict[str, int] = field(default_factory=dict)
    attribution: list[str] = field(default_factory=list)
    n_attribution: int = 0


def licence_table(corpus_dir: Path, parts: int | None = None) -> list[LicenceRow]:
    """The kept text of a corpus by licence and source, the largest first.

    Args:
        corpus_dir: work/corpus, built to its end.
        parts: how many there are; None asks the manifest.

    Returns:
        One row for each licence (None where it is not known) of each source; bytes of UTF-8 with the edits made.
    """
    rows: dict[tuple[str | None, str], LicenceRow] = {}
    names: dict[tuple[str | None, str], dict[str, int]] = {}
    others: dict[tuple[str | None, str], int] = {}
    for counted in _counted(corpus_dir, parts):
        for one in counted:
            key = (one["license_id"], one["source"])
            row = rows.setdefault(key, LicenceRow(*key))
            row.documents += one["count_all"]
            row.bytes += one["bytes_sum"]
            how = one["license_source"] or "none"
            row.known_from[how] = row.known_from.get(how, 0) + one["count_all"]
            if (name := one["attribution"]) is not None:
                own = names.setdefault(key, {})
                if name in own or len(own) < MOST_NAMES:
                    own[name] = own.get(name, 0) + one["bytes_sum"]
                else:
                    others[key] = others.get(key, 0) + 1
    for key, row in rows.items():
        own = names.get(key, {})
        row.attribution = sorted(own, key=lambda name: (-own[name], name))
        row.n_attribution = len(own) + others.get(key, 0)
        row.known_from = dict(sorted(row.known_from.items()))
    return sorted(rows.values(), key=lambda row: (-row.bytes, row.license or "", row.source))


def _counted(corpus_dir: Path, parts: int | None) -> Iterator[list[dict[str, Any]]]:
    for number in range(read_json(corpus_dir / MANIFEST)["parts"] if parts is None else parts):
        docs = pq.read_table(part_path(corpus_dir, "docs", number), columns=_KEYS)
        size = pq.read_table(part_path(corpus_dir, "signals", number), columns=["n_bytes_edited"])["n_bytes_edited"]
        verdict = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict"])["verdict"]
        table: pa.Table = docs.append_column("bytes", size).filter(pc.equal(verdict, "keep"))
        yield table.group_by(_KEYS).aggregate([("bytes", "sum"), ([], "count_all")]).to_pylist()


def by_source(rows: Sequence[LicenceRow], most_names: int = 50) -> dict[str, list[dict[str, Any]]]:
    """The rows as JSON values by source, for the manifest and the ledger.

    Args:
        rows: of ``licence_table``.
        most_names: attributions that are written out; ``n_attribution`` tells how many there are.
    """
    found: dict[str, list[dict[str, Any]]] = {}
    for row in rows:
        values = asdict(row)
        values["attribution"] = row.attribution[:most_names]
        found.setdefault(values.pop("source"), []).append(values)
    return found
