"""What the loop asks of data: a plan that gives the batch of any step, and a held-out set to measure on."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

IGNORE = -100


class Batch(Protocol):
    """Tokens and targets of one optimizer step: int64 arrays or tensors (B, T); a target of -100 carries no loss."""

    @property
    def tokens(self) -> Any: ...
    @property
    def targets(self) -> Any: ...
    @property
    def docs(self) -> Sequence[str]:
        """Ids of the documents whose tokens stand in the batch."""
        ...


class Plan(Protocol):
    """The order of all data. The same step always gives the same batch, so that a resumed run sees what it would have seen."""

    def batch(self, step: int) -> Batch: ...


@dataclass(frozen=True)
class Heldout:
    """Text the model never trains on.

    Args:
        batches: the whole set (or the part to measure), each with tokens and targets.
        byte_lengths: bytes of text per token id (V,), 0 for control ids: turns nats per token into bits per byte.
    """

    batches: Sequence[Batch]
    byte_lengths: np.ndarray[Any, Any]

    def size_bytes(self) -> int:
        """Bytes of text that the targets stand for."""
        total = 0
        for batch in self.batches:
            targets = np.asarray(batch.targets)
            total += int(self.byte_lengths[targets[targets >= 0]].astype(np.int64).sum())
        return total


def as_tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens and targets of a batch as int64 tensors (B, T)."""
    return torch.as_tensor(batch.tokens).long(), torch.as_tensor(batch.targets).long()
