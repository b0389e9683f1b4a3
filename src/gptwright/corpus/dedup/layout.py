"""All documents of a corpus seen by deduplication: parts in their order, rows over all parts, and distinct texts among them.

A text is known by the first eight bytes of its norm_id. Evidence about texts is kept under that key and not under rows, so that it
stays true when documents come and go. Should two norm_ids ever share a key, the later text is compared as a whole only.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.ipc

from gptwright.corpus.dedup.features import side_files
from gptwright.corpus.dedup.store import CHUNK_RECORDS, Spill, bits_for, chunks, mapped, text_keys
from gptwright.corpus.dedup.words import Array

PLACE = np.dtype([("key", "<u8"), ("row", "<i8")])


@dataclass(frozen=True)
class PartFiles:
    """A docs file and what ``write_features`` made of it."""

    docs: Path
    features: Path
    source: str

    def rows(self) -> int:
        """Documents."""
        with pa.memory_map(str(self.features)) as file, pa.ipc.open_file(file) as reader:
            return sum(reader.get_batch(i).num_rows for i in range(reader.num_record_batches))

    def batches(self, what: str = "features") -> Iterator[pa.RecordBatch]:
        """The rows of the "features", the "lines" or the "anchors"."""
        lines, anchors = side_files(self.features)
        path = {"features": self.features, "lines": lines, "anchors": anchors}[what]
        with pa.OSFile(str(path)) as file, pa.ipc.open_file(file) as reader:
            for i in range(reader.num_record_batches):
                yield reader.get_batch(i)


@dataclass(frozen=True)
class Layout:
    """Rows and texts of a corpus; arrays are memory maps of files in ``folder``.

    Attributes:
        parts: in corpus order.
        bounds: (parts + 1,): first row of each part, and the number of all rows.
    """

    folder: Path
    parts: Sequence[PartFiles]
    bounds: Array = field(repr=False)

    @property
    def rows(self) -> int:
        """Documents in all."""
        return int(self.bounds[-1])

    @cached_property
    def norm_ids(self) -> Array:
        """(rows,) V16."""
        return mapped(self.folder / "norm.ids", "V16")

    @cached_property
    def contents(self) -> Array:
        """(rows,) uint64, the beginning of each content_id."""
        return mapped(self.folder / "contents.u64", "<u8")

    @cached_property
    def texts(self) -> Array:
        """(texts,) uint64: keys of the distinct texts, ascending."""
        return mapped(self.folder / "texts.key", "<u8")

    @cached_property
    def first_rows(self) -> Array:
        """(texts,) int64: the first row of each text."""
        return mapped(self.folder / "texts.row", "<i8")

    def digest(self) -> str:
        """Names the set of texts, whatever their rows."""
        digest = blake2b(digest_size=16)
        for chunk in chunks(self.folder / "texts.key", np.dtype("<u8")):
            digest.update(chunk.tobytes())
        return digest.hexdigest()

    def mask(self, texts: Array) -> Array:
        """(rows,) bool: first rows of some texts.

        Args:
            texts: (texts,) bool.
        """
        out = np.zeros(self.rows, bool)
        step = CHUNK_RECORDS
        for first in range(0, len(texts), step):
            out[self.first_rows[first : first + step][texts[first : first + step]]] = True
        return out

    def part_of(self, rows: Array) -> Array:
        """Part that each row is in."""
        return np.searchsorted(self.bounds, rows, "right") - 1


def lay_out(parts: Sequence[PartFiles], folder: Path) -> Layout:
    """List the rows of all parts and find the distinct texts."""
    folder.mkdir(parents=True, exist_ok=True)
    counts = [part.rows() for part in parts]
    bounds = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)
    bits = bits_for(int(bounds[-1]))
    first = 0
    with (
        Spill(folder / "texts.tmp", PLACE, 1 << bits) as spill, open(folder / "norm.ids", "wb") as ids,
        open(folder / "contents.u64", "wb") as contents,
    ):  # fmt: skip
        for part in parts:
            for batch in part.batches():
                raw = fixed(batch["norm_id"])
                ids.write(raw.tobytes())
                contents.write(text_keys(fixed(batch["content_id"])).tobytes())
                records = np.empty(len(raw), PLACE)
                records["key"], records["row"] = text_keys(raw), np.arange(first, first + len(raw))
                # By the top bits themselves: partitions in order make one ascending table.
                spill.add(
                    records,
                    (records["key"] >> np.uint64(64 - bits)).astype(np.int64) if bits else np.zeros(len(raw), np.int64),
                )
                first += len(raw)
    with open(folder / "texts.key", "wb") as keys, open(folder / "texts.row", "wb") as rows:
        for p in range(1 << bits):
            records = spill.read(p)
            records = records[np.argsort(records["key"], kind="stable")]  # rows came ascending
            new = np.ones(len(records), bool)
            new[1:] = records["key"][1:] != records["key"][:-1]
            keys.write(np.ascontiguousarray(records["key"][new]).tobytes())
            rows.write(np.ascontiguousarray(records["row"][new]).tobytes())
            spill.drop(p)
    return Layout(folder, parts, bounds)


def fixed(ids: pa.Array) -> Array:
    """(n, 16) uint8 of a column of 16-byte ids."""
    raw = np.frombuffer(ids.buffers()[1], np.uint8) if len(ids) else np.zeros(0, np.uint8)
    return raw[16 * ids.offset : 16 * (ids.offset + len(ids))].reshape(-1, 16)
