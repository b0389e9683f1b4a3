"""Recall and precision of the rules on a planted set, with intervals."""

import math
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

import pyarrow as pa

from gptwright.corpus.privacy.bulk import scan
from gptwright.corpus.privacy.planted import PLANTED, PlantedText
from gptwright.corpus.privacy.spans import KINDS, Span

NOT_FREE = (
    "Measured on planted text, which was made by rules too. It never means that a corpus is free of personal data: names and stories have no"
    " shape, and what is spelled in another way is not found."
)


@dataclass
class Measured:
    """Counts by planted sort and by found kind; ``missed`` and ``wrong`` say which."""

    planted: Counter[str] = field(default_factory=Counter)
    found: Counter[str] = field(default_factory=Counter)  # wholly inside spans of the right kind
    claimed: Counter[str] = field(default_factory=Counter)  # spans by kind
    right: Counter[str] = field(default_factory=Counter)  # those that touch something planted under that kind
    negatives: int = 0  # sentences that only look as if
    negatives_touched: int = 0
    unclaimed: int = 0
    unclaimed_found: int = 0
    missed: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)


def measure(documents: Sequence[PlantedText]) -> Measured:
    """Search the planted documents and compare."""
    _, edits = scan(pa.array([d.text for d in documents], pa.large_string()))
    by_row: dict[int, list[Span]] = {}
    for edit in edits.to_pylist():
        by_row.setdefault(edit["doc_row"], []).append(Span(edit["start"], edit["end"], edit["kind"]))
    result = Measured()
    for row, document in enumerate(documents):
        spans = by_row.get(row, [])
        for plant in document.plants:
            touching = [s for s in spans if s.start < plant.end and plant.start < s.end]
            if plant.sort == "unclaimed":
                result.unclaimed += 1
                result.unclaimed_found += bool(touching)
                continue
            result.planted[plant.sort] += 1
            covered = sum(
                min(s.end, plant.end) - max(s.start, plant.start) for s in touching if s.kind == PLANTED[plant.sort]
            )
            if covered >= plant.end - plant.start:
                result.found[plant.sort] += 1
            else:
                around = document.text[max(0, plant.start - 30) : plant.end + 10]
                result.missed.append(
                    f"{plant.sort}: {around!r} {[(s.kind, document.text[s.start : s.end]) for s in touching]}"
                )
        for start, end in document.negatives:
            result.negatives += 1
            result.negatives_touched += any(s.start < end and start < s.end for s in spans)
        for span in spans:
            result.claimed[span.kind] += 1
            if any(
                s.start < span.end and span.start < s.end and PLANTED.get(s.sort) == span.kind for s in document.plants
            ):
                result.right[span.kind] += 1
            else:
                result.wrong.append(f"{span.kind}: {document.text[max(0, span.start - 30) : span.end + 10]!r}")
    return result


def wilson(k: int, n: int, z: float = 1.959964) -> tuple[float, float]:
    """Interval of a share at 95 %.

    Source: E. B. Wilson, Probable inference, the law of succession, and statistical inference, JASA 22 (1927).
    """
    if not n:
        return 0.0, 1.0
    share, square = k / n, z * z
    centre = (share + square / (2 * n)) / (1 + square / n)
    half = z / (1 + square / n) * math.sqrt(share * (1 - share) / n + square / (4 * n * n))
    return max(0.0, centre - half), min(1.0, centre + half)


def rows(result: Measured) -> Iterator[str]:
    """The table's lines: recall by planted sort on the left, precision by found kind on the right."""
    right = [
        f"{kind:12} {result.claimed[kind]:5d} {_share(result.right[kind], result.claimed[kind])}" for kind in KINDS
    ]
    for at, sort in enumerate(PLANTED):
        left = f"{sort:14} {result.planted[sort]:5d} {_share(result.found[sort], result.planted[sort])}"
        yield f"{left}  {right[at]}" if at < len(right) else left


def _share(k: int, n: int) -> str:
    low, high = wilson(k, n)
    return f"{k / n if n else 0:7.1%}  {low:6.1%} to {high:6.1%}"
