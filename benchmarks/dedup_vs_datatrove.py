"""Near-duplicate removal against datatrove's four MinHash stages (signature, buckets, cluster, filter), same text, one core, CPU time.

datatrove gets its documents in memory, ours are read from parquet. Its settings are FineWeb's: 14 bands of 8, word 5-grams, English words.

    python benchmarks/dedup_vs_datatrove.py --mb 16 [--scale] [--json]
"""

import argparse
import shutil
import tempfile
import time
from importlib.metadata import version
from typing import Any

from signals_common import one_core, show

one_core()
from dedup_common import compare  # noqa: E402


def datatrove(texts: list[str]) -> dict[str, Any]:
    """All four stages over one task; words are split by spaCy as they are by default."""
    from datatrove.data import Document
    from datatrove.pipeline.dedup.minhash import (
        MinhashConfig,
        MinhashDedupBuckets,
        MinhashDedupCluster,
        MinhashDedupFilter,
        MinhashDedupSignature,
    )
    from datatrove.utils.logging import logger

    logger.remove()
    folder = tempfile.mkdtemp(prefix="gptwright-datatrove-")
    config = MinhashConfig()
    try:
        documents = [Document(text=text, id=str(i)) for i, text in enumerate(texts)]
        stage = MinhashDedupSignature(f"{folder}/signatures", config=config)
        stage.get_shingles("warm up " * 10)
        begin = time.process_time()
        stage.run(iter(documents))
        for bucket in range(config.num_buckets):
            MinhashDedupBuckets(f"{folder}/signatures", f"{folder}/buckets", config=config).run(
                None, bucket, config.num_buckets
            )
        MinhashDedupCluster(f"{folder}/buckets", f"{folder}/remove", config=config).run(None)
        kept = sum(1 for _ in MinhashDedupFilter(f"{folder}/remove").run(iter(documents)))
        end = time.process_time()
    finally:
        shutil.rmtree(folder)
    return {"cpu_s": end - begin, "copies": len(texts) - kept}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=16)
    parser.add_argument("--scale", action="store_true", help="how our cost grows with the text")
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    show(compare("near duplicates", f"datatrove {version('datatrove')}", datatrove, args.mb, args.scale))


if __name__ == "__main__":
    main()
