"""The held-out text that is measured while training: some of every source, so that each has a number of its own."""

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.corpus.tables import part_path
from gptwright.corpus.view import Document, documents, manifest
from gptwright.evaluate.bpb import heldout_windows
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.data import IGNORE, Heldout

if TYPE_CHECKING:
    from gptwright.project.pipeline import Job

_MEASURED_BYTES = 32_000  # during training; all of it is measured by the evaluate stage
_LEAST_BYTES = 3_000  # of a source; fewer say too little
_MOST_SOURCES = 12
OTHERS = "other sources"


class MeasuredBatch:
    """A held-out batch (B, T) whose only targets are tokens that carry text."""

    def __init__(self, tokens: np.ndarray[Any, Any], targets: np.ndarray[Any, Any]) -> None:
        self.tokens, self.targets = tokens, targets
        self.docs: list[str] = []


def heldout(job: "Job", tokenizer: Tokenizer, seq_len: int, batch_size: int) -> Heldout | None:
    """The held-out documents that are measured while training.

    Args:
        job: of the stage.
        tokenizer: of the model.
        seq_len: context, tokens.
        batch_size: rows at most.

    Returns:
        Batches of one source each, the sources' shares of all held-out text; None when nothing is held out.
    """
    if "corpus" not in job.inputs:
        return None
    corpus = job.project.work / "corpus"
    sizes = source_sizes(corpus)
    if not sizes:
        return None
    largest = sorted(sizes, key=lambda name: (-sizes[name], name))
    kept = largest if len(largest) <= _MOST_SOURCES else largest[: _MOST_SOURCES - 1]
    group_of = {name: name if name in kept else OTHERS for name in sizes}
    whole = sum(sizes.values())
    shares: dict[str, float] = {}
    for name, size in sizes.items():
        shares[group_of[name]] = shares.get(group_of[name], 0.0) + size / whole
    wanted = {group: max(_LEAST_BYTES, int(_MEASURED_BYTES * share)) for group, share in shares.items()}
    texts: dict[str, list[Document]] = {group: [] for group in shares}
    for document in _until_full(documents(corpus, "heldout"), group_of, wanted):
        texts[group_of[document.source]].append(document)
    batches, sources = [], []
    for group, found in texts.items():
        rows = list(heldout_windows(tokenizer, found, seq_len))
        for first in range(0, len(rows), batch_size):
            batches.append(_batch(rows[first : first + batch_size], seq_len))
            sources.append(group)
    return Heldout(batches, tokenizer.byte_lengths, sources, shares) if batches else None


def source_sizes(corpus: Path) -> dict[str, int]:
    """Bytes of the held-out part by source, in the corpus's order; no text is read."""
    sizes: dict[str, int] = {}
    for number in range(manifest(corpus)["parts"]):
        decisions = pq.read_table(part_path(corpus, "decisions", number), columns=["verdict", "split"])
        chosen = pc.and_(
            pc.equal(decisions["verdict"], "keep"), pc.fill_null(pc.equal(decisions["split"], "heldout"), False)
        )
        table = pq.read_table(part_path(corpus, "docs", number), columns=["source"]).append_column(
            "size", pq.read_table(part_path(corpus, "signals", number), columns=["n_bytes_edited"])["n_bytes_edited"]
        )
        for row in table.filter(chosen).group_by("source", use_threads=False).aggregate([("size", "sum")]).to_pylist():
            sizes[row["source"]] = sizes.get(row["source"], 0) + int(row["size_sum"] or 0)
    return {name: size for name, size in sizes.items() if size}


def _until_full(found: Iterator[Document], group_of: dict[str, str], wanted: dict[str, int]) -> Iterator[Document]:
    """The first documents of each group, until each has its bytes."""
    left = dict(wanted)
    for document in found:
        group = group_of.get(document.source)
        if group is None or left[group] <= 0:
            continue
        yield document
        left[group] -= len(document.text.encode())
        if all(size <= 0 for size in left.values()):
            return


def _batch(rows: list[tuple[list[int], list[int]]], seq_len: int) -> MeasuredBatch:
    tokens = np.zeros((len(rows), seq_len), dtype=np.int64)
    targets = np.full((len(rows), seq_len), IGNORE, dtype=np.int64)
    for row, (inputs, goals) in enumerate(rows):
        tokens[row, : len(inputs)] = inputs
        targets[row, : len(goals)] = goals
    return MeasuredBatch(tokens, targets)
