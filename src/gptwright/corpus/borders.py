"""Passages that begin in one part of a long document and end in a later one: who looks for a text must not miss it there."""

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from gptwright.corpus.copies import Array
from gptwright.corpus.reading import BATCH, manifest
from gptwright.corpus.tables import part_path

_PART = re.compile(r"[#&]part=(\d+)$")


def across_parts(corpus_dir: Path, passage: str) -> Array:
    """Rows over all parts of the corpus, (n,) int64 ascending, that share a passage with the next or the former part of their document.

    Args:
        corpus_dir: work/corpus.
        passage: not empty. White space is nowhere compared: a cut takes what stands at it.
    """
    wanted = _tight(passage)
    rows: set[int] = set()
    tail, owners = (
        "",
        list[tuple[int, int]](),
    )  # the end of what was read of a document, and the rows it is of: (row, where it ends)
    for row, text, begins in _long_documents(corpus_dir):
        if begins:
            tail, owners = "", []
        before, joined = len(tail), tail + _tight(text)
        owners.append((row, len(joined)))
        starts = [0, *(end for _, end in owners)]
        at = joined.find(wanted)
        while 0 <= at < before:
            last = at + len(wanted)
            rows |= {own for (own, end), start in zip(owners, starts, strict=False) if start < last and at < end}
            at = joined.find(wanted, at + 1)
        cut = max(len(joined) - len(wanted) + 1, 0)
        tail, owners = joined[cut:], [(own, end - cut) for own, end in owners if end > cut]
    return np.array(sorted(rows), np.int64)


def _long_documents(corpus_dir: Path) -> Iterator[tuple[int, str, bool]]:
    """Rows of documents that stand in several parts, with their texts, and whether a document begins there."""
    first, place, part = 0, ("", ""), 0
    begun: tuple[int, str] | None = None  # the last row of a batch, which may be a first part
    for number in range(manifest(corpus_dir)["parts"]):
        with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
            for batch in file.iter_batches(batch_size=BATCH, columns=["source", "locator", "text"]):
                names = zip(batch["source"].to_pylist(), batch["locator"].to_pylist(), strict=True)
                for row, (source, locator) in enumerate(names):
                    found = _PART.search(locator)
                    here = (source, locator[: found.start()] if found else locator)
                    own = int(found[1]) if found else 1  # a first part is named like a whole document
                    if own > 1:
                        follows = (here, own) == (place, part + 1)
                        if follows and own == 2:
                            head = begun if row == 0 and begun else (first + row - 1, batch["text"][row - 1].as_py())
                            yield *head, True
                        yield first + row, batch["text"][row].as_py(), not follows
                    place, part = here, own
                begun = (first + batch.num_rows - 1, batch["text"][batch.num_rows - 1].as_py())
                first += batch.num_rows


def _tight(text: str) -> str:
    return "".join(text.casefold().split())
