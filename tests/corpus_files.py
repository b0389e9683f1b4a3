"""A built corpus written by hand: the files that readers of it need, with made-up documents."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptwright.core.files import write_json
from gptwright.core.hashing import doc_uid
from gptwright.corpus.edits import Edit
from gptwright.corpus.tables import DECISIONS, DOCS, EDITS, MANIFEST, part_path, write_table


def write_corpus(folder: Path, parts: Sequence[Sequence[dict[str, Any]]]) -> Path:
    """Write it.

    Args:
        folder: becomes work/corpus.
        parts: documents of each part: ``text``, and if wanted ``title``, ``source``, ``locator``, ``license``, ``url``, ``verdict``,
            ``split``, ``edits``.
    """
    count = 0
    for number, documents in enumerate(parts):
        rows, decisions, edits = [], [], []
        for row, document in enumerate(documents):
            uid = bytes.fromhex(doc_uid("own", str(count)))
            count += 1
            rows.append(
                {
                    **dict.fromkeys(DOCS.names),
                    "doc_uid": uid,
                    "content_id": uid,
                    "norm_id": uid,
                    "split_id": uid,
                    "part": 1,
                    "optout": 0,
                    "text": document["text"],
                    "title": document.get("title"),
                    "url": document.get("url"),
                    "source": document.get("source", "own"),
                    "locator": document.get("locator", f"{count}.txt"),
                    "license_id": document.get("license"),
                }
            )
            kept = document.get("verdict", "keep")
            split = document.get("split", "train") if kept == "keep" else None
            decisions.append({**dict.fromkeys(DECISIONS.names), "doc_uid": uid, "verdict": kept, "split": split})
            edits += [{"doc_row": row, **vars(edit)} for edit in document.get("edits", ())]
        write_table(part_path(folder, "docs", number), pa.Table.from_pylist(rows, DOCS))
        write_table(part_path(folder, "decisions", number), pa.Table.from_pylist(decisions, DECISIONS))
        write_table(part_path(folder, "edits", number), pa.Table.from_pylist(edits, EDITS))
        signals = pa.table({"doc_uid": pa.array([row["doc_uid"] for row in rows], pa.binary(16))})
        write_table(part_path(folder, "signals", number), signals)
    write_json(folder / MANIFEST, {"format": 1, "hash": "b2:0", "parts": len(parts), "meta": {}})
    return folder


__all__ = ["Edit", "write_corpus"]
