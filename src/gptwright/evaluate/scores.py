"""Held-out scores per document and their paired comparison. Numbers only: no model is needed to read or compare them."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.evaluate.statistics import Comparison, compare_ratio, ratio_interval


@dataclass(frozen=True)
class BitsPerByte:
    """Bits and bytes of each held-out document. ``value`` is sum(bits) / sum(bytes)."""

    uids: tuple[str, ...]
    bits: NDArray[np.float64]
    bytes: NDArray[np.int64]
    tokens: int
    skipped: int

    @property
    def value(self) -> float:
        return float(self.bits.sum() / self.bytes.sum())

    @property
    def interval(self) -> tuple[float, float]:
        """95 % interval over documents; (nan, nan) with a single one."""
        return ratio_interval(self.bits, self.bytes)[1:]

    @property
    def dataset_hash(self) -> str:
        """Names the exact held-out set: which documents, how many bytes of each."""
        return b2_json([list(self.uids), self.bytes.tolist()])

    def only(self, uids: Collection[str]) -> "BitsPerByte":
        """The part of the result on these documents, in the order it has. ``tokens`` stays that of the whole."""
        wanted = set(uids)
        keep = np.array([uid in wanted for uid in self.uids], dtype=bool)
        kept = tuple(uid for uid in self.uids if uid in wanted)
        return BitsPerByte(kept, self.bits[keep], self.bytes[keep], self.tokens, self.skipped)

    def to_detail(self) -> dict[str, Any]:
        """For ``ledger.add_evaluation(detail=...)``; ``from_detail`` gives it back."""
        return {
            "uids": list(self.uids), "bits": self.bits.tolist(), "bytes": self.bytes.tolist(),
            "tokens": self.tokens, "skipped": self.skipped,
        }  # fmt: skip

    @classmethod
    def from_detail(cls, detail: dict[str, Any]) -> "BitsPerByte":
        """Rebuild from the ledger."""
        return cls(
            tuple(detail["uids"]), np.asarray(detail["bits"], dtype=np.float64), np.asarray(detail["bytes"], dtype=np.int64),
            int(detail["tokens"]), int(detail["skipped"]),
        )  # fmt: skip


def compare_bpb(a: BitsPerByte, b: BitsPerByte, *, clusters: Sequence[str] | None = None, seed: int = 0) -> Comparison:
    """Paired test of two models on the same held-out documents; ``delta`` below zero means that A is better.

    Raises:
        UserError: they were scored on different documents.
    """
    if a.uids != b.uids or not np.array_equal(a.bytes, b.bytes):
        raise UserError(
            "the two models were scored on different held-out documents", fix="Evaluate both on the same held-out set"
        )
    return compare_ratio(a.bits, b.bits, a.bytes, clusters=clusters, seed=seed)
