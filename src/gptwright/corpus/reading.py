"""Reading a built corpus: its manifest, its documents with their edits made, and single rows with all that is known of them.

Read-only, a batch at a time. Everything here raises a UserError when the corpus was not built to its end.
"""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.corpus.edits import Edit, apply_edits, apply_to_messages
from gptwright.corpus.tables import DOCS, MANIFEST, part_path

Split = Literal["train", "heldout"]
BATCH = 1024  # documents at a time
_COLUMNS = ["doc_uid", "norm_id", "source", "locator", "text", "messages", "license_id"]


@dataclass(frozen=True)
class Document:
    """A document as training sees it. ``messages`` is None for plain text; ids are hex."""

    uid: str
    source: str
    locator: str
    text: str
    messages: list[dict[str, str]] | None
    license: str | None
    norm_id: str


@dataclass(frozen=True)
class Found:
    """A document with all that is known of it: its row in docs (ids as hex), its signals, its decision and its edits."""

    document: Document
    row: dict[str, Any]
    signals: dict[str, Any]
    decision: dict[str, Any]
    edits: list[Edit]


def manifest(corpus_dir: Path) -> dict[str, Any]:
    """What the last finished build said: format, hash, parts, meta.

    Raises:
        UserError: there is none.
    """
    path = corpus_dir / MANIFEST
    if not path.exists():
        raise UserError(
            "the corpus is not built, or its building was stopped",
            where=str(corpus_dir),
            fix="Run: gptwright data build",
        )
    found: dict[str, Any] = read_json(path)
    return found


def documents(corpus_dir: Path, split: Split | None = None) -> Iterator[Document]:
    """The kept documents with their edits made, in the corpus's order.

    Args:
        corpus_dir: work/corpus.
        split: "train", "heldout", or None for both.
    """
    for number in range(manifest(corpus_dir)["parts"]):
        yield from (document for _, document in part_documents(corpus_dir, number, split))


def part_documents(corpus_dir: Path, number: int, split: Split | None = None) -> Iterator[tuple[int, Document]]:
    """The kept documents of one part, with their rows in it."""
    decisions = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["verdict", "split"])
    chosen = pc.equal(decisions["verdict"], "keep")
    if split is not None:
        chosen = pc.and_(chosen, pc.fill_null(pc.equal(decisions["split"], split), False))
    chosen = chosen.to_numpy()
    if chosen.any():
        edits = PartEdits(corpus_dir, number)
        for row, values in chosen_rows(corpus_dir, number, chosen, _COLUMNS):
            yield row, document_of(values, edits.of(row))


class PartEdits:
    """The edits of a part by row. They stay columns; only those that are asked for become objects."""

    def __init__(self, corpus_dir: Path, number: int) -> None:
        self.table = pq.read_table(part_path(corpus_dir, "edits", number))
        self.rows = self.table["doc_row"].to_numpy()  # ascending

    def of(self, row: int) -> list[Edit]:
        """The edits of a row, in order."""
        first, last = np.searchsorted(self.rows, [row, row + 1])
        if first == last:
            return []
        own = self.table.slice(first, last - first).to_pylist()
        return [Edit(e["start"], e["end"], e["kind"], e["replacement"]) for e in own]


def chosen_rows(
    corpus_dir: Path, number: int, chosen: Any, columns: list[str] | None = None
) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows of a docs file as dictionaries, a batch at a time; row groups without a chosen row are not read.

    Args:
        chosen: (rows,) booleans.

    Raises:
        UserError: bytes of the file changed since it was written; it is named.
    """
    path = part_path(corpus_dir, "docs", number)
    try:
        yield from _rows(path, chosen, columns)
    except (OSError, pa.ArrowException) as error:  # a page's checksum, or what its header says
        raise UserError(
            f"documents of the corpus cannot be read: {path.stem} is damaged",
            where=str(path),
            fix=f"Delete {corpus_dir} and run: gptwright data build",
        ) from error


def _rows(path: Path, chosen: Any, columns: list[str] | None) -> Iterator[tuple[int, dict[str, Any]]]:
    row = 0
    with pq.ParquetFile(path, page_checksum_verification=True) as file:
        if missing := {*(columns or DOCS.names)} - {*file.schema_arrow.names}:  # names have no checksum
            raise OSError(f"no column {', '.join(sorted(missing))}")
        for group in range(file.num_row_groups):
            size = file.metadata.row_group(group).num_rows
            if not chosen[row : row + size].any():
                row += size
                continue
            for batch in file.iter_batches(batch_size=BATCH, row_groups=[group], columns=columns):
                wanted = np.asarray(chosen[row : row + batch.num_rows])
                if wanted.any():
                    rows = (row + np.flatnonzero(wanted)).tolist()
                    yield from zip(rows, batch.filter(pa.array(wanted)).to_pylist(), strict=True)
                row += batch.num_rows


def document_of(row: dict[str, Any], edits: Sequence[Edit]) -> Document:
    """A row of docs with its edits made."""
    messages = json.loads(row["messages"]) if row["messages"] is not None else None
    text = row["text"]
    if edits:
        text = apply_edits(text, edits)
        messages = apply_to_messages(messages, edits) if messages is not None else None
    return Document(
        row["doc_uid"].hex(), row["source"], row["locator"], text, messages, row["license_id"], row["norm_id"].hex()
    )


def found_rows(corpus_dir: Path, number: int, chosen: Any) -> Iterator[tuple[int, Found]]:
    """All that is known of the chosen rows of a part."""
    at = np.flatnonzero(chosen)
    if not len(at):
        return
    edits = PartEdits(corpus_dir, number)
    signals, decisions = (
        pq.read_table(part_path(corpus_dir, table, number)).take(pa.array(at)) for table in ("signals", "decisions")
    )
    for place, (row, values) in enumerate(chosen_rows(corpus_dir, number, chosen)):
        own = edits.of(row)
        numbers, decision = signals.slice(place, 1).to_pylist()[0], decisions.slice(place, 1).to_pylist()[0]
        yield row, Found(document_of(values, own), _hex(values), _hex(numbers), _hex(decision), own)


def at_rows(corpus_dir: Path, rows: Iterable[int]) -> Iterator[tuple[int, Found]]:
    """All that is known of documents by their rows over all parts, in ascending order."""
    wanted = np.unique(np.fromiter(rows, np.int64))
    first = 0
    for number in range(manifest(corpus_dir)["parts"]):
        size = pq.read_metadata(part_path(corpus_dir, "docs", number)).num_rows
        here = wanted[(wanted >= first) & (wanted < first + size)] - first
        if len(here):
            chosen = np.zeros(size, bool)
            chosen[here] = True
            yield from ((first + row, found) for row, found in found_rows(corpus_dir, number, chosen))
        first += size


def _hex(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value.hex() if isinstance(value, bytes) else value for key, value in row.items()}
