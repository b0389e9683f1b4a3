"""What the loop asks of data: a plan that gives the batch of any step, and a held-out set to measure on."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from gptwright.tokens.plan import IGNORE

__all__ = ["IGNORE", "Batch", "Heldout", "Plan", "Rows", "Work", "as_tensors", "rows_of"]
Array = np.ndarray[Any, Any]


class Batch(Protocol):
    """Tokens and targets of one optimizer step: int64 arrays or tensors (B, T); a target of -100 carries no loss.

    It may also have ``segments`` (B, T), the document of each token, ``extra``, an objective's arrays with B rows, and
    ``row_docs``, the documents of each row.
    """

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
class Work:
    """A batch that an objective made: see ``Batch``."""

    tokens: Array
    targets: Array
    docs: Sequence[str] = ()
    extra: Mapping[str, Array] = field(default_factory=dict)
    segments: Array | None = None
    row_docs: Sequence[Sequence[str]] = ()


@dataclass(frozen=True)
class Rows:
    """A part of a batch, as an objective's loss is given it.

    Args:
        tokens: int64 (R, T), on the device.
        targets: int64 (R, T), on the device.
        segments: (R, T) ints, or None: rows are seen as wholes.
        extra: the objective's arrays, R rows.
        stats: sums of whatever the objective wants shown; the step divides them by its count.
    """

    tokens: Tensor
    targets: Tensor
    segments: Array | None
    extra: Mapping[str, Tensor]
    stats: dict[str, float]


@dataclass(frozen=True)
class Heldout:
    """Text the model never trains on.

    Args:
        batches: the whole set (or the part to measure), each with tokens and targets.
        byte_lengths: bytes of text per token id (V,), 0 for control ids: turns nats per token into bits per byte.
        sources: the corpus's source of each batch; empty: not told apart.
        shares: each source's share of all held-out text, which the batches need not have; empty: that of the batches.
    """

    batches: Sequence[Batch]
    byte_lengths: np.ndarray[Any, Any]
    sources: Sequence[str] = ()
    shares: Mapping[str, float] = field(default_factory=dict)

    def size_bytes(self) -> int:
        """Bytes of text that the targets stand for."""
        return sum(self._size(batch) for batch in self.batches)

    def bits_per_byte(self, nats: Sequence[float]) -> tuple[float, dict[str, float]]:
        """What was measured, as one number and by source.

        Args:
            nats: summed loss of each batch.

        Returns:
            Bits per byte of the whole, sources weighted by their shares; and of each source, when there are several.
        """
        sizes = [self._size(batch) for batch in self.batches]
        whole = sum(nats) / math.log(2) / max(sum(sizes), 1)
        names = list(dict.fromkeys(self.sources))
        if len(names) < 2:
            return whole, {}
        found = {}
        for name in names:
            mine = [i for i, source in enumerate(self.sources) if source == name]
            found[name] = sum(nats[i] for i in mine) / math.log(2) / max(sum(sizes[i] for i in mine), 1)
        shares = {name: self.shares.get(name, 0.0) for name in names}
        if not sum(shares.values()):
            return whole, found
        return sum(found[name] * share for name, share in shares.items()) / sum(shares.values()), found

    def _size(self, batch: Batch) -> int:
        targets = np.asarray(batch.targets)
        return int(self.byte_lengths[targets[targets >= 0]].astype(np.int64).sum())


def as_tensors(batch: Batch) -> tuple[Tensor, Tensor]:
    """Tokens and targets of a batch as int64 tensors (B, T)."""
    return torch.as_tensor(batch.tokens).long(), torch.as_tensor(batch.targets).long()


def rows_of(batch: Batch, where: slice, device: str, masked: bool) -> Rows:
    """Some rows of a batch on a device.

    Args:
        batch: the whole.
        where: its rows.
        device: where they go.
        masked: keep the segments, if the batch has them.
    """
    tokens, targets = as_tensors(batch)
    segments = getattr(batch, "segments", None) if masked else None
    extra: Mapping[str, Array] = getattr(batch, "extra", {})
    return Rows(
        tokens[where].to(device),
        targets[where].to(device),
        None if segments is None else np.asarray(segments)[where],
        {name: torch.as_tensor(array)[where].to(device) for name, array in extra.items()},
        {},
    )
