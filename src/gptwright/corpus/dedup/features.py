"""What deduplication needs to know of each document, computed once for a docs file: a pure task, file in, files out.

Three Arrow files a docs file: one row a document (its ids and the keys of its MinHash bands), the hashes of its lines and
paragraphs, and the anchors of its spans. They depend on the docs file and on a few settings only, so an incremental build makes them
for new docs files alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.ipc
import pyarrow.parquet as pq

from gptwright.core.files import atomic_write
from gptwright.core.hashing import b2_json
from gptwright.core.stages import code_version
from gptwright.corpus import tables as corpus_tables
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.kernels import (
    FORMAT,
    char_shingles,
    constants,
    describe,
    drop_repeats,
    signature,
    word_shingles,
)
from gptwright.corpus.dedup.words import Array, Scratch, buffers, tables

BATCH_BYTES = 16 << 20
CODE = tuple(f"gptwright.corpus.dedup.{m}" for m in ("words", "kernels", "features"))
LINES = pa.schema([("hash", pa.uint64()), ("doc_row", pa.int32())])
ANCHORS = pa.schema([("hash", pa.uint64()), ("doc_row", pa.int32()), ("start", pa.int64())])  # bytes into the text

CUTTABLE = ("messages", "extractor")
_PROGRAMS = pa.array(["gptwright.readers.code", "gptwright.readers.notebook"])


@dataclass(frozen=True)
class Features:
    """Of some documents, in their order.

    Attributes:
        words: (documents,) int32, words of the simplified text.
        shingles: (documents,) int32; 0 where a text is too short to be compared but as a whole.
        keys: (documents, bands) uint64, equal keys make candidates.
        lines, line_rows: (units,) uint64 and int32: hashes of lines and paragraphs, and their document.
        anchors, anchor_rows, anchor_starts: (anchors,) uint64, int32, int64: hash, document and byte in its text.
    """

    words: Array
    shingles: Array
    keys: Array
    lines: Array
    line_rows: Array
    anchors: Array
    anchor_rows: Array
    anchor_starts: Array


def settings_key(config: DedupConfig) -> str:
    """Names the code and the settings that features depend on; part of their task's name."""
    asked = config.model_dump(include={"bands", "rows", "short_words", "lines", "line_words", "spans", "span_words"})
    return b2_json([FORMAT, code_version(CODE), asked])


def features(text: pa.LargeStringArray, config: DedupConfig | None = None, editable: Array | None = None) -> Features:
    """Features of texts.

    Args:
        text: (documents,) large_string.
        config: bands, rows and what is short; None: the defaults.
        editable: (documents,) bool: lines and spans may be taken out; None: of all.

    Returns:
        The features; see Features for shapes.
    """
    config = config or DedupConfig()
    data, offsets = buffers(text)
    n = len(text)
    flips, factors = constants(config.bands * config.rows)
    longest = int(np.diff(offsets).max(initial=0))
    scratch = Scratch(longest)
    size = int(offsets[-1] - offsets[0])
    breaks = int(np.count_nonzero(data[offsets[0] : offsets[-1]] == 10))
    sizes, keys = np.zeros((n, 2), np.int32), np.zeros((n, config.bands), np.uint64)
    units = np.empty(2 * (breaks + n) + 2, np.uint64)
    unit_rows = np.empty(len(units), np.int32)
    anchors = np.empty(size // 2 + n + 2, np.uint64)  # pages that are not written cost nothing
    anchor_rows, anchor_starts = np.empty(len(anchors), np.int32), np.empty(len(anchors), np.int64)
    gram = gram_words(config)
    settings = [
        config.short_words,
        config.line_words if config.lines else 0,
        gram,
        config.span_words - gram + 1 if config.spans else 0,
    ]
    n_units, n_anchors = describe(
        data, offsets, np.ones(n, bool) if editable is None else editable, *tables(), *scratch.arrays,
        flips, factors, np.empty(len(flips), np.uint32), np.empty(2 * longest + 4, np.uint64),
        np.array(settings, np.int64), sizes, keys, units, unit_rows,
        np.empty(2 * len(units), np.int32), anchors, anchor_rows, anchor_starts,
    )  # fmt: skip
    return Features(
        sizes[:, 0].copy(),
        sizes[:, 1].copy(),
        keys,
        units[:n_units].copy(),
        unit_rows[:n_units].copy(),
        anchors[:n_anchors].copy(),
        anchor_rows[:n_anchors].copy(),
        anchor_starts[:n_anchors].copy(),
    )


def gram_words(config: DedupConfig) -> int:
    """Words of a gram whose hash is an anchor: half a span, so that a span holds as many of them as a gram has words."""
    return config.span_words // 2


def minhash(text: str, config: DedupConfig | None = None) -> Array:
    """The MinHash values of one text, (bands * rows,) uint32."""
    config = config or DedupConfig()
    data, offsets = buffers(pa.array([text], pa.large_string()))
    shingles, count, _ = Shingler(config, int(offsets[1])).all(data, 0, int(offsets[1]), fine=False)
    out = np.empty(config.bands * config.rows, np.uint32)
    signature(shingles, count, *constants(len(out)), out)
    return out


class Shingler:
    """Makes the shingles of texts of up to so many bytes."""

    def __init__(self, config: DedupConfig, longest: int) -> None:
        self.config = config
        self.scratch = Scratch(longest)
        self.out = np.empty(2 * longest + 4, np.uint64)

    def all(self, data: Array, low: int, high: int, fine: bool) -> tuple[Array, int, bool]:
        """Hashes in order (valid until the next call), how many, and whether the text is short.

        Args:
            data, low, high: UTF-8, and where the text stands in it.
            fine: digits as they are.
        """
        n, n_norm, _ = self.scratch.split(data, low, high)
        if n < self.config.short_words:
            return self.out, char_shingles(self.scratch.norm, n_norm - 1, self.out), True
        return self.out, word_shingles(self.scratch.fine if fine else self.scratch.coarse, n, self.out), False

    def set(self, data: Array, low: int, high: int) -> tuple[Array, bool]:
        """Distinct hashes, ascending, with numbers as the configuration takes them; and whether the text is short."""
        out, count, short = self.all(data, low, high, self.config.numbers_differ)
        found = np.sort(out[:count])
        return found[: drop_repeats(found, count)], short


def shingle_set(text: str, config: DedupConfig | None = None) -> tuple[Array, bool]:
    """Distinct shingle hashes of one text, ascending (uint64), and whether it is compared as a short one."""
    data, offsets = buffers(pa.array([text], pa.large_string()))
    return Shingler(config or DedupConfig(), int(offsets[1])).set(data, 0, int(offsets[1]))


def schema(bands: int) -> pa.Schema:
    """Of the file with one row a document."""
    return pa.schema(
        [
            ("norm_id", corpus_tables.ID),
            ("content_id", corpus_tables.ID),
            ("words", pa.int32()),
            ("shingles", pa.int32()),
            ("keys", pa.list_(pa.uint64(), bands)),
        ]
    )


def side_files(out: Path) -> tuple[Path, Path]:
    """Where the lines and the anchors of a features file stand."""
    return out.with_name(f"{out.stem}-lines{out.suffix}"), out.with_name(f"{out.stem}-anchors{out.suffix}")


def write_features(docs: Path, out: Path, config: DedupConfig | None = None, *, editable: bool = True) -> Path:
    """The task: features of a docs file. Does nothing when they are there; the file ``out`` comes last.

    Args:
        docs: parquet with ``norm_id``, ``text`` and ``messages``.
        out: Arrow file to write, beside it ``-lines`` and ``-anchors``.
        config: settings; ``settings_key(config)`` belongs into the name of ``out``.
        editable: lines and spans may be taken out of the texts that ``cuttable`` names.

    Returns:
        ``out``.
    """
    config = config or DedupConfig()
    if out.exists():
        return out
    lines, anchors = side_files(out)
    shape = schema(config.bands)
    with (
        atomic_write(out) as f1, atomic_write(anchors) as f2, atomic_write(lines) as f3,
        pa.ipc.new_file(f1, shape) as w1, pa.ipc.new_file(f2, ANCHORS) as w2, pa.ipc.new_file(f3, LINES) as w3,
    ):  # fmt: skip
        for first, batch in text_batches(docs, ["norm_id", "content_id", "text", *CUTTABLE]):
            found = features(batch["text"], config, cuttable(batch) & editable)
            keys = pa.FixedSizeListArray.from_arrays(pa.array(found.keys.reshape(-1)), config.bands)
            w1.write(
                pa.record_batch(
                    [batch["norm_id"], batch["content_id"], pa.array(found.words), pa.array(found.shingles), keys],
                    schema=shape,
                )
            )
            w2.write(
                pa.record_batch(
                    [
                        pa.array(found.anchors),
                        pa.array(found.anchor_rows + np.int32(first)),
                        pa.array(found.anchor_starts),
                    ],
                    schema=ANCHORS,
                )
            )
            w3.write(
                pa.record_batch([pa.array(found.lines), pa.array(found.line_rows + np.int32(first))], schema=LINES)
            )
    return out


def cuttable(batch: pa.RecordBatch) -> Array:
    """Documents that lines and spans may be taken out of, (documents,) bool: no conversation would make sense without a part of it,
    and no program would run.

    Args:
        batch: with the columns CUTTABLE; texts that nothing says the reader of are taken for prose.
    """
    plain: Array = np.asarray(pc.is_null(batch["messages"]))
    if "extractor" in batch.schema.names:
        plain &= ~np.asarray(pc.is_in(batch["extractor"], _PROGRAMS))
    return plain


def text_batches(docs: Path, columns: list[str], wanted: Array | None = None) -> Iterator[tuple[int, pa.RecordBatch]]:
    """Pieces of a docs file, with the row that each begins at, of at most about BATCH_BYTES of text (a longer document stands alone).

    Args:
        docs: parquet with ``text``.
        columns: to read, ``text`` among them.
        wanted: (documents,) bool: row groups without any are not read.
    """
    file = pq.ParquetFile(docs)
    row = 0
    for group in range(file.num_row_groups):
        rows = file.metadata.row_group(group).num_rows
        if wanted is not None and not wanted[row : row + rows].any():
            row += rows
            continue
        for batch in file.iter_batches(batch_size=8192, row_groups=[group], columns=columns):
            _, offsets = buffers(batch["text"])
            first = 0
            while first < batch.num_rows:
                last = int(np.searchsorted(offsets, offsets[first] + BATCH_BYTES, "right")) - 1
                last = min(max(last, first + 1), batch.num_rows)
                yield row + first, batch.slice(first, last - first)
                first = last
            row += batch.num_rows
