"""Near-duplicate removal against datasketch: MinHash with 128 permutations and MinHashLSH at 0.8, same text, one core, CPU time.

python benchmarks/dedup_vs_datasketch.py --mb 16 [--json]
"""

import argparse
import re
import time
from importlib.metadata import version
from typing import Any

from signals_common import one_core, show

one_core()
from dedup_common import compare  # noqa: E402

_WORD = re.compile(r"\w+")


def datasketch(texts: list[str]) -> dict[str, Any]:
    """Word 5-grams of lower-case text, hashed in one batch a document, which is datasketch's fast way."""
    from datasketch import MinHash, MinHashLSH

    begin = time.process_time()
    index = MinHashLSH(threshold=0.8, num_perm=128)
    dropped = 0
    for number, text in enumerate(texts):
        words = _WORD.findall(text.lower())
        sketch = MinHash(num_perm=128)
        sketch.update_batch({" ".join(words[i : i + 5]).encode() for i in range(len(words) - 4)})
        if index.query(sketch):
            dropped += 1
        else:
            index.insert(number, sketch)
    return {"cpu_s": time.process_time() - begin, "copies": dropped}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--mb", type=int, default=16)
    parser.add_argument("--json", action="store_true")
    args = parser.parse_args()
    show(compare("near duplicates", f"datasketch {version('datasketch')}", datasketch, args.mb, False))


if __name__ == "__main__":
    main()
