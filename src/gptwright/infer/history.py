"""Which tokens an answer has used, for the penalties: a table of a few rows instead of a column for every id of the vocabulary."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptwright.infer.config import GenerationConfig


class History:
    """Tokens of one answer: which were there, and how often each was generated.

    Args:
        prompt: tokens that count as seen, but not as generated.
    """

    def __init__(self, prompt: Iterable[int] = ()) -> None:
        seen = sorted(set(prompt))
        self._at = {token: place for place, token in enumerate(seen)}
        self._table = np.zeros((2, max(64, 2 * len(seen))), dtype=np.int64)
        self._table[0, : len(seen)] = seen

    @classmethod
    def wanted(cls, config: GenerationConfig, prompt: Sequence[int], vocab_size: int) -> "History | None":
        """The history that these settings need, or None. The prompt counts for the repetition penalty alone."""
        if config.repetition_penalty != 1:
            return cls(token for token in prompt if token < vocab_size)
        return cls() if config.frequency_penalty or config.presence_penalty else None

    def add(self, token: int) -> None:
        """A token was generated."""
        place = self._at.setdefault(token, len(self._at))
        if place == self._table.shape[1]:
            self._table = np.concatenate([self._table, np.zeros_like(self._table)], axis=1)
        self._table[0, place] = token
        self._table[1, place] += 1

    @property
    def table(self) -> "np.typing.NDArray[np.int64]":
        """(2, n): ids, and how often each was generated."""
        return self._table[:, : len(self._at)]


@dataclass(frozen=True)
class Past:
    """Histories of a batch's rows as one sparse table.

    Attributes:
        rows: (N,) int64.
        tokens: (N,) int64.
        counts: (N,) fp32, times generated; 0: only in the prompt.
    """

    rows: Tensor
    tokens: Tensor
    counts: Tensor

    @classmethod
    def of(cls, histories: Sequence[History | None], device: torch.device | str = "cpu") -> "Past | None":
        """One for the whole batch; None if no row has any."""
        tables = [(row, history.table) for row, history in enumerate(histories) if history is not None]
        if not tables:
            return None
        rows = np.repeat([row for row, _ in tables], [table.shape[1] for _, table in tables])
        both = np.concatenate([table for _, table in tables], axis=1)
        return cls(
            torch.from_numpy(rows).to(device),
            torch.from_numpy(both[0]).to(device),
            torch.from_numpy(both[1]).to(device, torch.float32),
        )
