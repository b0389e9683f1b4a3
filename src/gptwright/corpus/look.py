"""Numbers about documents and the spans to replace in them: one pass over a docs file, two files out."""

import json
import re
import zlib
from collections import Counter
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.hashing import b2_json
from gptwright.core.stages import code_version
from gptwright.corpus import tables
from gptwright.corpus.edits import Edit, apply_edits, turns
from gptwright.corpus.privacy import find_pii, placeholder
from gptwright.corpus.tidy import tidy_edits

CODE = tuple(f"gptwright.corpus.{m}" for m in ("look", "edits", "privacy", "tidy", "tables"))
_NO_LETTER = re.compile(r"[\W\d_]+")
_SPACE = re.compile(r"\s+")


@dataclass(frozen=True)
class Job:
    """A task: the signals and edits of one docs file under a source's policy."""

    folder: str
    docs: str  # file name in the folder; it is named by its content
    policy: str
    tidy: bool

    @property
    def name(self) -> str:
        return "signals-" + b2_json([code(), self.docs, self.policy, self.tidy]).removeprefix("b2:")[:32]

    @property
    def signals(self) -> Path:
        return Path(self.folder) / f"{self.name}.parquet"

    @property
    def edits(self) -> Path:
        return Path(self.folder) / f"{self.name}-edits.parquet"


@cache
def code() -> str:
    """Version of what decides a task's result."""
    import importlib.metadata

    return b2_json([code_version(CODE), importlib.metadata.version("phonenumbers")])


def run(job: Job) -> str:
    """Do a task unless it is done. Returns its name."""
    if job.signals.exists():
        return job.name
    file = pq.ParquetFile(Path(job.folder) / job.docs)
    rows: list[dict[str, Any]] = []
    edits: list[dict[str, Any]] = []
    for batch in file.iter_batches(batch_size=1024, columns=["text", "messages"]):
        for text, messages in zip(batch["text"].to_pylist(), batch["messages"].to_pylist(), strict=True):
            row, found = look(text, json.loads(messages) if messages else None, job.policy, job.tidy)
            edits += [{"doc_row": len(rows), **vars(edit)} for edit in found]
            rows.append(row)
    tables.write_table(job.edits, pa.Table.from_pylist(edits, schema=tables.EDITS))
    tables.write_table(job.signals, pa.Table.from_pylist(rows, schema=tables.SIGNALS))
    return job.name


def look(
    text: str, messages: list[dict[str, str]] | None, policy: str = "mask", tidy: bool = False
) -> tuple[dict[str, Any], list[Edit]]:
    """Signals and edits of one document.

    Args:
        text: the document; for a conversation its turns joined by "\\n".
        messages: the turns of a conversation.
        policy: keep, mask or drop.
        tidy: write chat turns as sentences.
    """
    edits: list[Edit] = []
    counts: Counter[str] = Counter()
    for start, turn in turns(messages) if messages is not None else [(0, text)]:  # nothing is found across two turns
        spans = find_pii(turn)
        counts.update(span.kind for span in spans)
        masks = [Edit(s.start, s.end, s.kind, placeholder(s.kind)) for s in spans] if policy == "mask" else []
        if tidy and messages is not None:
            masks += tidy_edits(turn, masks)
        edits += [
            Edit(e.start + start, e.end + start, e.kind, e.replacement)
            for e in sorted(masks, key=lambda e: (e.start, e.end))
        ]
    raw = text.encode()
    visible = _SPACE.sub("", text)
    row: dict[str, Any] = {
        "n_bytes": len(raw),
        "n_bytes_edited": len(apply_edits(text, edits).encode()) if edits else len(raw),
        "n_chars": len(text),
        "n_turns": len(messages) if messages is not None else None,
        "letter_share": len(_NO_LETTER.sub("", visible)) / len(visible) if visible else 0.0,
        "compress_ratio": len(zlib.compress(raw, 1)) / len(raw) if raw else 1.0,
        "edit_id": blake2b(
            json.dumps([messages, [list(vars(e).values()) for e in edits]]).encode(), digest_size=16
        ).digest(),
    }
    for kind in tables.PII_KINDS:
        row[f"pii_{kind.lower()}"] = counts[kind]
    return row, edits
