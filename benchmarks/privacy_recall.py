"""How much of the personal data in a planted set is found, and how much of what is found is planted; and how fast the search is.

    python benchmarks/privacy_recall.py [--documents 1000] [--seed 0] [--misses]

The set is made by the public formats, in seven languages, with ISBNs, versions, order numbers and the like beside it
(`gptwright.corpus.privacy.planted`). Intervals are Wilson's, 95 %.
"""

import argparse
import time

import pyarrow as pa

from gptwright.corpus.privacy.bulk import scan
from gptwright.corpus.privacy.measure import NOT_FREE, measure, rows
from gptwright.corpus.privacy.planted import planted_set
from gptwright.corpus.privacy.planted_phrases import PROSE


def prose(n_bytes: int) -> pa.LargeStringArray:
    """Ordinary prose: the planted set's own empty sentences, in documents of about 4 KB."""
    sentences = [sentence for language in PROSE.values() for sentence in language]
    documents, at, size = [], 0, 0
    while size < n_bytes:
        text = " ".join(sentences[(at + k * 7) % len(sentences)] for k in range(48))
        documents.append(text)
        size += len(text.encode())
        at += 1
    return pa.array(documents, pa.large_string())


def speed(text: pa.LargeStringArray) -> float:
    """MB per second of CPU time on one core, the first call (compilation) left out."""
    scan(text.slice(0, 2))
    begin = time.process_time()
    scan(text)
    return float(text.nbytes / 1e6 / (time.process_time() - begin))


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--documents", type=int, default=1000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--misses", action="store_true", help="print what was missed and what was wrongly found")
    args = parser.parse_args()
    documents = planted_set(args.documents, args.seed)
    result = measure(documents)
    print(f"{len(documents)} documents, seed {args.seed}\n")
    print(
        f"{'planted':14} {'n':>5} {'recall':>7}  {'95 % interval':17} {'found as':12} {'n':>5} {'precision':>9}  95 % interval"
    )
    for row in rows(result):
        print(row)
    print(f"\nHard negatives: {result.negatives_touched} of {result.negatives} sentences touched.")
    print(
        f"Spelled out or around a corner, which rules do not claim to find: {result.unclaimed_found} of {result.unclaimed} found."
    )
    print(NOT_FREE)
    dense = pa.array([d.text for d in documents] * 4, pa.large_string())
    print(
        f"\nSpeed, one core: prose {speed(prose(20_000_000)):.0f} MB/s, the planted set itself {speed(dense):.1f} MB/s"
    )
    if args.misses:
        print("\nmissed:", *result.missed, sep="\n  ")
        print("\nwrongly found:", *result.wrong, sep="\n  ")


if __name__ == "__main__":
    main()
