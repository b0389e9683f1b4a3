"""Memory does not grow with the corpus but for a few bytes a document."""

import os
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from gptwright.corpus.dedup import candidates, features, found, layout, near, spans, star, store, verify
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.edits import write_edits
from gptwright.corpus.dedup.find import find

from .corpora import make_part, prose, similar

BYTES_A_DOCUMENT = 40  # masks, priorities and the keys of texts that are known, with their temporary copies


def peak(folder: Path, documents: int) -> int:
    """Bytes that all steps held at most."""
    folder.mkdir()
    config = DedupConfig()
    parts = []
    for part in range(documents // 1000):
        texts = []
        for i in range(500):
            words = prose(1000 * part + i, 80)
            texts += [" ".join(words), " ".join(similar(words, 0.9, i))]
        parts.append(make_part(folder, f"p{part}", texts, config, rows=200))
    tracemalloc.start()
    try:
        result = find(parts, config, folder / "index", folder / "work")
        copies = result.resolve(np.ones(documents, bool), np.zeros(documents, bool))
        write_edits(result, copies.kept_of < 0, folder / "edits")
        assert (copies.kept_of >= 0).sum() > 0.45 * documents
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.slow
def test_find_when_the_corpus_is_twenty_times_larger_then_memory_stays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "fsync", lambda _: None)
    for module in (store, star, near, sys.modules["gptwright.corpus.dedup.find"]):
        monkeypatch.setattr(module, "PARTITION_RECORDS", 8192)
    for module in (store, star, near, layout, found, candidates):
        monkeypatch.setattr(module, "CHUNK_RECORDS", 4096)
    monkeypatch.setattr(store.chunks, "__defaults__", (4096,))
    monkeypatch.setattr(star, "SAMPLE", 512)
    monkeypatch.setattr(features, "BATCH_BYTES", 1 << 17)
    monkeypatch.setattr(verify, "SET_BUDGET", 1 << 15)
    monkeypatch.setattr(spans, "TEXT_CACHE", 1 << 17)
    monkeypatch.setattr(found, "MAPPED_ROWS", 0)
    small, large = peak(tmp_path / "small", 1000), peak(tmp_path / "large", 20_000)
    assert large < small * 1.2 + 19_000 * BYTES_A_DOCUMENT
    assert pa.default_memory_pool().bytes_allocated() < 8 << 20
