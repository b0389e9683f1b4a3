"""Documents of one task as columns, written in files of bounded size under temporary names until the task is done."""

import json
import uuid
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa

from gptwright.core.files import TEMPORARY
from gptwright.core.hashing import doc_uid
from gptwright.corpus import tables
from gptwright.corpus.blocks import Blocks
from gptwright.corpus.rowids import content_ids, norm_ids, place_id
from gptwright.corpus.sources.base import Facts

OUTPUT_BYTES = 96 << 20  # of text; a task of more writes several files
PACK_BYTES = 6 << 20  # of text that is held as Python objects
_PACK_ROWS = 8192


@dataclass(frozen=True, eq=False)
class Shared:
    """What all documents of a file, or of a page in it, have in common."""

    raw_hash: str
    mime: str
    charset: str | None
    extractor: str
    facts: Facts

    @property
    def consent(self) -> str | None:
        """The evidence of opt-outs as JSON."""
        return json.dumps([dict(signal) for signal in self.facts.consent], default=str) if self.facts.consent else None


# place, text, messages, title, url, language, part, what it shares
_Row = tuple[str, str, str | None, str | None, str | None, str | None, int, Shared]


@dataclass
class DocWriter:
    """Collects documents; ``flush`` writes what is left.

    Args:
        folder: where the files go.
        source: the source's name.
        pii_policy: a column that all rows share.
        blocks: texts that were erased; documents that are one of them are left out.

    Attributes:
        total: documents that were added.
        done: files that were written, with their rows.
        erased: place -> documents left out there.
    """

    folder: Path
    source: str
    pii_policy: str
    blocks: Blocks | None = None
    total: int = 0
    done: list[tuple[Path, int]] = field(default_factory=list)
    erased: Counter[str] = field(default_factory=Counter)
    _rows: list[_Row] = field(default_factory=list)
    _chars: int = 0
    _tables: list[pa.Table] = field(default_factory=list)
    _bytes: int = 0
    _head: bytes = b""  # norm_id of the first part of the document that parts now follow

    def add(
        self,
        place: str,
        text: str,
        messages: str | None,
        title: str | None,
        url: str | None,
        lang: str | None,
        part: int,
        shared: Shared,
    ) -> None:
        """Add a document. Parts of one follow each other, the first with number 1."""
        self._rows.append((place, text, messages, title, url, lang, part, shared))
        self.total += 1
        self._chars += len(text) + len(messages or "")
        if len(self._rows) >= _PACK_ROWS or self._chars > min(PACK_BYTES, OUTPUT_BYTES):
            self._pack()

    def add_table(self, table: pa.Table) -> None:
        """Add documents that were read before."""
        self._pack()
        self.total += table.num_rows
        self._keep(table, table.nbytes)

    def flush(self) -> None:
        """Write what is held."""
        self._pack()
        if self._tables:
            table = pa.concat_tables(self._tables)
            path = self.folder / f"{TEMPORARY}{uuid.uuid4().hex[:8]}.parquet"
            tables.write_table(path, table)
            self.done.append((path, table.num_rows))
            self._tables, self._bytes = [], 0

    @property
    def mark(self) -> str:
        """What tells the files of this writer from those of one that left nothing out."""
        return f"without{self.erased.total()}-" if self.erased else ""

    def _keep(self, table: pa.Table, size: int) -> None:
        if self.blocks is not None:
            ids = zip(table["doc_uid"].to_pylist(), table["norm_id"].to_pylist(), strict=True)
            gone = [self.blocks.holds(uid, norm) for uid, norm in ids]
            if any(gone):
                self.erased.update(table.filter(pa.array(gone))["locator"].to_pylist())
                table = table.filter(pa.array([not one for one in gone]))
        self._tables.append(table)
        self._bytes += size
        if self._bytes > OUTPUT_BYTES:
            self.flush()

    def _pack(self) -> None:
        if not self._rows:
            return
        places, texts, messages, titles, urls, langs, parts, shared = (
            list(column) for column in zip(*self._rows, strict=True)
        )
        self._rows, self._chars = [], 0
        count = len(places)
        text = pa.array(texts, pa.large_string())
        del texts
        own = norm_ids(text)
        source = self.source.encode() + b"\0"
        plain = all(place.isascii() and "\\" not in place for place in places)
        uids = (
            [place_id(source, p) for p in places] if plain else [bytes.fromhex(doc_uid(self.source, p)) for p in places]
        )
        facts = [one.facts for one in shared]
        columns: dict[str, Any] = {
            "doc_uid": uids,
            "content_id": content_ids(text),
            "norm_id": own,
            "split_id": self._split_ids(own, parts),
            "raw_hash": _column(shared, "raw_hash"),
            "rev": pa.repeat(pa.scalar(1, pa.int32()), count),
            "part": parts,
            "text": text,
            "messages": messages,
            "title": [title or known.title for title, known in zip(titles, facts, strict=True)],
            "url": [url or known.url for url, known in zip(urls, facts, strict=True)],
            "source": pa.repeat(pa.scalar(self.source), count),
            "locator": places,
            "lang_declared": langs,
            "pii_policy": pa.repeat(pa.scalar(self.pii_policy, pa.string()), count),
        }
        for name in ("mime", "charset", "extractor", "consent"):
            columns[name] = _column(shared, name)
        for name in (
            "fetched_at",
            "published_at",
            "license_id",
            "license_source",
            "license_conf",
            "attribution",
            "optout",
        ):
            columns[name] = _column(facts, name)
        arrays = []
        for one in tables.DOCS:
            values = columns[one.name]
            if isinstance(values, _Same):
                values = pa.repeat(pa.scalar(values.value, one.type), count)
            arrays.append(values if isinstance(values, pa.Array) else pa.array(values, one.type))
        self._keep(pa.Table.from_arrays(arrays, schema=tables.DOCS), text.nbytes)

    def _split_ids(self, own: list[bytes], parts: list[int]) -> list[bytes]:
        out = []
        for number, identity in zip(parts, own, strict=True):
            if number == 1 or not self._head:
                self._head = identity
            out.append(self._head)
        return out


@dataclass(frozen=True)
class _Same:
    value: Any


def _column(things: list[Any], name: str) -> Any:
    """A column of what rows share: one value, nearly always."""
    first = things[0]
    if all(thing is first for thing in things):
        return _Same(getattr(first, name))
    return [getattr(thing, name) for thing in things]
