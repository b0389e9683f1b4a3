"""Texts to ids against Hugging Face tokenizers with the same tokenizer.json: same texts, same ids, one core, CPU time.

    python benchmarks/encode_vs_tokenizers.py [--json]

The tokenizer is trained on the first part of the texts and counted on neither side. Ours begins with no word known, as when shards are written.
"""

import importlib.metadata
import tempfile
import time
from pathlib import Path
from typing import Any

from signals_common import machine, mixed, one_core, show

one_core()

import numpy as np  # noqa: E402

from gptwright.tokens.tokenizer import train_tokenizer  # noqa: E402

SIZE_BYTES = 16 << 20
VOCABULARY = 16_384


def main() -> None:
    texts = mixed(SIZE_BYTES)
    size = sum(len(text.encode()) for text in texts) / 1e6
    with tempfile.TemporaryDirectory() as folder:
        tokenizer = train_tokenizer(texts[: len(texts) // 4], VOCABULARY, Path(folder) / "tokenizer")
    warm = tokenizer.bulk_encoder()
    fresh = tokenizer.bulk_encoder()
    assert warm is not None
    assert fresh is not None
    warm(texts[:1])
    begin = time.process_time()
    ours = fresh(texts)
    middle = time.process_time()
    theirs = tokenizer.encode_batch(texts)
    end = time.process_time()
    assert all(np.array_equal(a, b) for a, b in zip(ours, theirs, strict=True)), "the ids differ"
    row: dict[str, Any] = {
        "name": "encode_vs_tokenizers",
        "ours": size / (middle - begin),
        "peer": f"tokenizers {importlib.metadata.version('tokenizers')}",
        "theirs": size / (end - middle),
        "unit": "MB of text a CPU second, one core",
        "ratio": (end - middle) / (middle - begin),
        "text_mb": size,
        "tokens": int(sum(len(ids) for ids in ours)),
        "machine": machine(),
    }
    show(row)


if __name__ == "__main__":
    main()
