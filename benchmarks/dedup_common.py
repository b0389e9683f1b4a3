"""Shared by the benchmarks of deduplication: real text with copies planted in it, our side, and how its cost grows."""

import random
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from signals_common import documents

PART_DOCUMENTS = 20_000
COPY_EACH = 10  # one document in so many is planted again with some words changed


def texts_with_copies(size_bytes: int) -> list[str]:
    """About so many bytes of documents: real ones of all kinds, then, when these are used up, real ones with their words shuffled (which
    resemble nothing); a tenth are near copies of others."""
    real = [text for kind in documents().values() for text in kind]
    chance = random.Random(5)
    chance.shuffle(real)
    out: list[str] = []
    total = number = 0
    while total < size_bytes:
        text = real[number % len(real)]
        if number >= len(real):
            words = text.split(" ")
            chance.shuffle(words)
            text = " ".join(words)
        number += 1
        out.append(text)
        total += len(text)
        if number % COPY_EACH == 0:
            words = text.split(" ")
            for _ in range(len(words) // 100):
                words[chance.randrange(len(words))] = "changed"
            out.append(" ".join(words))
            total += len(out[-1])
    return out


def write_docs(texts: list[str], folder: Path) -> list[Path]:
    """Docs files as extraction leaves them: text with its ids. Not timed: every build has them, with or without deduplication."""
    from gptwright.core.hashing import content_id, norm_id

    out = []
    for first in range(0, len(texts), PART_DOCUMENTS):
        some = texts[first : first + PART_DOCUMENTS]
        table = pa.table(
            {
                "norm_id": pa.array([bytes.fromhex(norm_id(text)) for text in some], pa.binary(16)),
                "content_id": pa.array([bytes.fromhex(content_id(text)) for text in some], pa.binary(16)),
                "text": pa.array(some, pa.large_string()),
                "messages": pa.nulls(len(some), pa.large_string()),
            }
        )
        out.append(folder / f"docs-{first:07d}.parquet")
        pq.write_table(table, out[-1], compression="zstd", row_group_size=4000)
    return out


def ours(texts: list[str], *, everything: bool = False) -> dict[str, Any]:
    """Features, index, verified pairs and the choice, from docs files to the row that is kept for each copy; CPU seconds.

    Args:
        texts: documents.
        everything: boilerplate lines and repeated spans too.
    """
    from gptwright.corpus.dedup.config import DedupConfig
    from gptwright.corpus.dedup.edits import write_edits
    from gptwright.corpus.dedup.features import write_features
    from gptwright.corpus.dedup.find import find
    from gptwright.corpus.dedup.layout import PartFiles
    from gptwright.corpus.dedup.words import tables

    tables()
    config = DedupConfig(lines=everything, spans=everything)
    folder = Path(tempfile.mkdtemp(prefix="gptwright-dedup-"))
    try:
        docs = write_docs(texts, folder)
        begin = time.process_time()
        parts = [PartFiles(path, write_features(path, path.with_suffix(".arrow"), config), "all") for path in docs]
        features = time.process_time()
        found = find(parts, config, folder / "index", folder / "work")
        rows = found.layout.rows
        kept_of = found.resolve(np.ones(rows, bool), np.zeros(rows, bool)).kept_of
        if everything:
            write_edits(found, kept_of < 0, folder / "edits")
        end = time.process_time()
    finally:
        shutil.rmtree(folder)
    return {
        "cpu_s": end - begin,
        "features_s": features - begin,
        "copies": int((kept_of >= 0).sum()),
        "kept_of": kept_of,
    }


def growth(size_bytes: int) -> dict[str, float]:
    """CPU seconds for 1, 4 and 16 times so much text."""
    texts = texts_with_copies(16 * size_bytes)
    random.Random(6).shuffle(texts)
    out = {}
    for times in (1, 4, 16):
        some, total = [], 0
        for text in texts:
            if total >= times * size_bytes:
                break
            some.append(text)
            total += len(text)
        out[f"{times}x"] = ours(some)["cpu_s"]
    return out


def compare(name: str, peer: str, theirs: Any, mb: int, scale: bool) -> dict[str, Any]:
    """One object: both speeds on the same text, in one process."""
    from signals_common import machine

    texts = texts_with_copies(mb * 1_000_000)
    size = sum(len(text.encode()) for text in texts) / 1e6
    ours(texts[:200])  # compiles
    mine = ours(texts)
    full = ours(texts, everything=True)
    other = theirs(texts)
    result = {
        "name": name,
        "ours": size / mine["cpu_s"],
        "peer": peer,
        "theirs": size / other["cpu_s"],
        "unit": "MB of text per CPU second",
        "ratio": other["cpu_s"] / mine["cpu_s"],
        "machine": machine(),
        "text_mb": size,
        "documents": len(texts),
        "ours_with_lines_and_spans": size / full["cpu_s"],
        "ours_dropped": mine["copies"],
        "theirs_dropped": other["copies"],
        "ours_note": "every dropped document was compared with a kept one on all its shingles",
    }
    if scale:
        result["cpu_s_by_size"] = growth(mb * 1_000_000 // 2)
    return result
