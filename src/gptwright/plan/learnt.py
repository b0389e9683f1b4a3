"""What a project's finished runs teach: each was forecast before it began, and the ratios of fact to forecast correct the next forecasts.

Compared are the uncorrected forecasts, so that corrections do not pile up. Medians are taken, so that one odd run moves nothing, and speed
and loss are drawn towards the forecast, less so the more runs there are. Of memory the difference counts, of runs only that tell apart what
earlier stages had left in the process.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from gptwright.plan.law import Correction, Law, correct

KINDS = ("bits_per_byte", "tokens_per_s", "memory")
_LATEST = 20  # runs: what a machine or a text was like long ago says little
_DRAWN = 0.25  # towards 1, as so much of a run that went as forecast


@dataclass(frozen=True)
class Learnt:
    """Corrections of the planner's forecasts, and the ratios behind the one of the loss.

    Args:
        runs: finished ones that were compared.
        speed: factor on tokens a second.
        memory: to be added. Bytes.
        ratios: fact over forecast of bits per byte, oldest first.
    """

    runs: int = 0
    speed: float = 1.0
    memory: float = 0.0
    ratios: tuple[float, ...] = ()

    def loss(self, law: Law) -> Correction:
        """The correction of the law."""
        return correct(law, self.ratios)


def compare(forecast: Mapping[str, float | None], fact: Mapping[str, float | None]) -> dict[str, dict[str, float]]:
    """Forecast, fact and their ratio, of each kind that both know."""
    rows = {}
    for kind in KINDS:
        said, was = forecast.get(kind), fact.get(kind)
        if said and was and said > 0 and was > 0:
            rows[kind] = {"forecast": float(said), "fact": float(was), "ratio": float(was) / float(said)}
    return rows


def learn(compared: Sequence[Mapping[str, Any]], law: Law | None = None) -> Learnt:
    """Corrections from comparisons, oldest first, as ``compare`` made them.

    Args:
        compared: with ``earlier`` beside fact and forecast of the memory. Where ``params``, ``tokens`` and ``unique_tokens`` stand beside
            them, the loss is compared with the law of today.
        law: None: the ratios as they stand.
    """
    latest = [row for row in compared if any(kind in row for kind in KINDS)][-_LATEST:]
    speed = [float(row["tokens_per_s"]["ratio"]) for row in latest if "tokens_per_s" in row]
    # Comparisons from before it was told what earlier stages held in the process would have the next run need that as well.
    memory = [row["memory"]["fact"] - row["memory"]["forecast"] for row in latest if "earlier" in row.get("memory", {})]
    return Learnt(
        runs=len(latest),
        speed=_factor([ratio for ratio in speed if math.isfinite(ratio) and ratio > 0]),
        memory=_median(memory),
        ratios=tuple(_ratio(row, law) for row in latest if "bits_per_byte" in row),
    )


def _ratio(row: Mapping[str, Any], law: Law | None) -> float:
    """Fact over forecast of bits per byte. The law may have been fitted anew since the run was compared."""
    size = [row.get(name) for name in ("params", "tokens", "unique_tokens")]
    if law is None or not all(size):
        return float(row["bits_per_byte"]["ratio"])
    params, tokens, unique = (float(value or 0) for value in size)
    return float(row["bits_per_byte"]["fact"]) / law(params, tokens, unique)


def _median(values: Sequence[float]) -> float:
    return float(np.median(values)) if values else 0.0


def _factor(ratios: Sequence[float]) -> float:
    if not ratios:
        return 1.0
    n = len(ratios)
    return math.exp(n / (n + _DRAWN) * float(np.median(np.log(ratios))))
