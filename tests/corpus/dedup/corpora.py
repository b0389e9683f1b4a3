"""Texts as docs files with features, and texts that are alike to a wanted degree."""

import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.hashing import content_id, norm_id
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import write_features
from gptwright.corpus.dedup.layout import PartFiles

VOCABULARY = ["".join(random.Random(i).choices("etaoinshrdlucmf", k=2 + i % 8)) for i in range(8000)]


def prose(seed: int, words: int = 200) -> list[str]:
    """Words of an unrelated text for each seed."""
    return random.Random(seed).choices(VOCABULARY, k=words)


def similar(words: list[str], jaccard: float, seed: int) -> list[str]:
    """A text whose five-word shingles have about this Jaccard index with those of another: words in far places are replaced.

    A word that is replaced costs five shingles on both sides: J = (S - 5r) / (S + 5r).
    """
    shingles = len(words) - 4
    replaced = round(shingles * (1 - jaccard) / (1 + jaccard) / 5)
    out = list(words)
    for i, at in enumerate(np.linspace(5, len(words) - 6, replaced).astype(int)):
        out[at] = f"qz{seed}x{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}"
    return out


def docs_table(texts: Sequence[str], messages: Sequence[str | None] | None = None) -> pa.Table:
    """A docs file's columns that deduplication reads."""
    return pa.table(
        {
            "norm_id": pa.array([bytes.fromhex(norm_id(text)) for text in texts], pa.binary(16)),
            "content_id": pa.array([bytes.fromhex(content_id(text)) for text in texts], pa.binary(16)),
            "text": pa.array(texts, pa.large_string()),
            "messages": pa.array(messages or [None] * len(texts), pa.large_string()),
        }
    )


def make_part(
    folder: Path, name: str, texts: Sequence[str], config: DedupConfig, source: str = "own", rows: int = 1000
) -> PartFiles:
    """A docs file and its features."""
    docs = folder / f"{name}.parquet"
    pq.write_table(docs_table(texts), docs, row_group_size=rows)
    return PartFiles(docs, write_features(docs, folder / f"{name}-features.arrow", config), source)
