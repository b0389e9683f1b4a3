"""Views of a built corpus: the documents with their edits made, one of them by selector, samples, licences, and why."""

from pathlib import Path
from typing import Any

import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.corpus.find import find_document, find_documents, iter_documents, sample, selector_of
from gptwright.corpus.reading import Document, Found, Split, at_rows, documents, manifest
from gptwright.corpus.tables import part_path
from gptwright.corpus.why import why

__all__ = [
    "Document",
    "Found",
    "Split",
    "at_rows",
    "documents",
    "find_document",
    "find_documents",
    "iter_documents",
    "licenses",
    "manifest",
    "sample",
    "selector_of",
    "why",
]

ATTRIBUTIONS = 1000  # told apart; where every document names someone else, the rest is one row


def licenses(corpus_dir: Path, tokens: int | None = None) -> list[dict[str, Any]]:
    """Licences of the kept text by size, each document by its own: license, license_source, attribution, sources, documents, bytes, share.

    Args:
        corpus_dir: work/corpus.
        tokens: of the whole corpus; then each row has its share of them under ``tokens``.
    """
    rows: dict[tuple[Any, ...], dict[str, Any]] = {}
    keys = ["license_id", "license_source", "attribution", "source"]
    for number in range(manifest(corpus_dir)["parts"]):
        table = pq.read_table(part_path(corpus_dir, "docs", number), columns=keys)
        size = pq.read_table(part_path(corpus_dir, "signals", number), columns=["n_bytes_edited"])["n_bytes_edited"]
        kept = pc.equal(
            pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict"])["verdict"], "keep"
        )
        table = table.append_column("bytes", size).filter(kept)
        for one in table.group_by(keys).aggregate([("bytes", "sum"), ([], "count_all")]).to_pylist():
            key = (one["license_id"], one["license_source"], one["attribution"])
            if key not in rows and len(rows) >= ATTRIBUTIONS:
                key = (*key[:2], "(several)")
            row = rows.setdefault(
                key,
                {
                    "license": key[0],
                    "license_source": key[1],
                    "attribution": key[2],
                    "sources": [],
                    "documents": 0,
                    "bytes": 0,
                },
            )
            if one["source"] not in row["sources"]:
                row["sources"].append(one["source"])
            row["documents"] += one["count_all"]
            row["bytes"] += one["bytes_sum"]
    total = max(sum(row["bytes"] for row in rows.values()), 1)
    for row in rows.values():
        row["share"] = row["bytes"] / total
        if tokens is not None:
            row["tokens"] = round(tokens * row["share"])
    return sorted(rows.values(), key=lambda row: (-row["bytes"], str(row["license"]), str(row["attribution"])))
