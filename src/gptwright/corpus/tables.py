"""The corpus on disk: schemas of the parquet files, which share file numbers and row order, and where they stand.

docs/part-00000.parquet        documents as they came, never edited
signals/part-00000.parquet     numbers about each document, one row a document
edits/part-00000.parquet       spans to replace (personal data, tidied chat), any number of rows a document
decisions/part-00000.parquet   keep or drop, the split and the evidence, one row a document
index/occurrences.parquet      every place where a text that occurs more than once stands
tasks/                         results of tasks by the hash of what they were made from; the files above are links to them
corpus.json                    the manifest, written last: without it the corpus is not there
"""

import os
import shutil
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.files import atomic_write

MANIFEST = "corpus.json"
ID = pa.binary(16)
UTC = pa.timestamp("us", tz="UTC")

DOCS = pa.schema(
    [
        ("doc_uid", ID),  # by place: source and locator
        ("content_id", ID),  # by text
        ("norm_id", ID),  # by text without case and layout
        ("split_id", ID),  # norm_id of the whole document's beginning: parts of a document share it
        ("raw_hash", pa.string()),  # of the file it was read from
        ("rev", pa.int32()),
        ("part", pa.int32()),  # 1 unless a long document was cut
        ("text", pa.large_string()),  # NFC, "\n" line ends; for conversations the turns' texts joined by "\n"
        ("messages", pa.large_string()),  # JSON [{"role","content"}], null for plain text
        ("title", pa.string()),
        ("url", pa.string()),
        ("source", pa.string()),
        ("locator", pa.string()),  # path[#row=N|#key=K][&part=N]
        ("fetched_at", UTC),
        ("published_at", UTC),
        ("mime", pa.string()),
        ("charset", pa.string()),
        ("extractor", pa.string()),
        ("lang_declared", pa.string()),
        ("license_id", pa.string()),
        ("license_source", pa.string()),  # user-asserted, package-metadata, none; later issues add more
        ("license_conf", pa.float32()),
        ("attribution", pa.string()),
        ("optout", pa.int32()),  # bit set of opt-out signals seen
        ("consent", pa.string()),  # JSON: the evidence of those signals; null when there is none
        ("pii_policy", pa.string()),
    ]
)

# signals: the columns of ``signals.SCHEMA``, and behind them n_bytes_edited (UTF-8, with the edits applied), n_turns (null for plain
# text), edit_id (with content_id it names the final text), pii_drop (the source's policy drops it), a count pii_<kind> for each kind of
# personal data, and a column for each score that the configuration asks for.

EDITS = pa.schema(
    [
        ("doc_row", pa.int32()),  # row in the docs file of the same number
        ("start", pa.int64()),  # characters into text
        ("end", pa.int64()),
        ("kind", pa.string()),  # a kind of personal data, TIDY, LINE, SPAN or RULE
        ("replacement", pa.string()),
    ]
)

_EVIDENCE = [("rule", pa.string()), ("value", pa.float32()), ("op", pa.string()), ("threshold", pa.float32())]

DECISIONS = pa.schema(
    [
        ("doc_uid", ID),
        ("verdict", pa.string()),  # keep, drop
        ("split", pa.string()),  # train, heldout; null when dropped
        *_EVIDENCE,  # of the first rule that failed; the measured value failed "value op threshold"
        ("kept_uid", ID),  # for a copy: the document that is kept
        ("jaccard", pa.float32()),  # for a near copy: similarity, verified on the texts
        ("containment", pa.float32()),  # for a near copy: share of it that the kept one holds
        ("method", pa.string()),  # for a copy: same text, same words, near
        ("eval_items", pa.list_(pa.string())),  # evaluation items whose text it holds
        ("failed", pa.list_(pa.struct(_EVIDENCE))),  # all rules that failed
        ("place", pa.int16()),  # among 10,000, by what the text says: held out when under the share
    ]
)

OCCURRENCES = pa.schema(
    [
        ("content_id", ID),
        ("norm_id", ID),
        ("doc_uid", ID),
        ("kept_uid", ID),  # null when no copy is kept
        ("source", pa.string()),
        ("locator", pa.string()),
        ("license_id", pa.string()),
    ]
)


def part_path(corpus_dir: Path, table: str, number: int) -> Path:
    """Where a part of a table stands."""
    return corpus_dir / table / f"part-{number:05d}.parquet"


def write_table(path: Path, table: pa.Table) -> None:
    """Write a parquet file atomically: zstd, row groups of bounded size, page index, a checksum for each page.

    Only short words get a dictionary: of numbers, ids and texts nearly every value is new, and looking for it costs time and space.
    """
    words = [one.name for one in table.schema if pa.types.is_string(one.type)]
    with atomic_write(path) as file:
        pq.write_table(
            table,
            file,
            compression="zstd",
            compression_level=1,
            use_dictionary=words,
            row_group_size=max(1, min(65536, _rows_per_group(table))),
            write_page_index=True,
            write_page_checksum=True,
        )


def _rows_per_group(table: pa.Table) -> int:
    return int(table.num_rows * (16 << 20) / max(table.nbytes, 1)) + 1


def link(task_file: Path, target: Path) -> None:
    """Let a part's name stand for a task's result: a hard link, or a copy where the file system has none."""
    target.parent.mkdir(parents=True, exist_ok=True)
    target.unlink(missing_ok=True)
    try:
        os.link(task_file, target)
    except OSError:
        shutil.copyfile(task_file, target)
