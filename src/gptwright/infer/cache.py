"""Keys and values of running requests: one slot (row) a request, contiguous along time, grown in buckets.

Running rows are kept at the front without gaps, so a decode step works on plain slices. On a CPU this beats paging: attention wants
contiguous keys and values, and copying one row when a request leaves costs less than gathering all rows at every step.
"""

import torch
from torch import Tensor

from gptwright.model.config import ModelConfig

_SMALLEST_TOKENS = 64


class SlotCache:
    """Preallocated keys and values, one tensor (rows, 2K, tokens, E) for each layer: K heads of keys, then K of values.

    Args:
        config: the model's shape.
        dtype: dtype of keys and values.
        device: where they live.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.config, self.dtype, self.device = config, dtype, device
        self.rows = self.tokens = 0
        self.layers: list[Tensor] = []
        self.reserve(1, _SMALLEST_TOKENS)

    @property
    def size_bytes(self) -> int:
        """Bytes allocated."""
        return sum(t.numel() * t.element_size() for t in self.layers)

    def bytes_for(self, rows: int, tokens: int) -> int:
        """Bytes that ``reserve`` would make it take."""
        rows, tokens = self._bucket(rows, tokens)
        c = self.config
        return 2 * c.n_layers * rows * c.n_kv_heads * tokens * c.d_head * self.dtype.itemsize

    def _bucket(self, rows: int, tokens: int) -> tuple[int, int]:
        rows = max(self.rows, 1 << (max(rows, 1) - 1).bit_length())
        tokens = max(self.tokens, min(1 << (max(tokens, _SMALLEST_TOKENS) - 1).bit_length(), self.config.seq_len))
        return rows, tokens

    def reserve(self, rows: int, tokens: int) -> None:
        """Make room, in powers of two up to the context's length; what is stored stays."""
        assert tokens <= max(self.config.seq_len, _SMALLEST_TOKENS), "longer than the context"
        rows, tokens = self._bucket(rows, tokens)
        if (rows, tokens) == (self.rows, self.tokens):
            return
        shape = (rows, 2 * self.config.n_kv_heads, tokens, self.config.d_head)
        for layer in range(self.config.n_layers):
            # Zeros, not garbage: masked positions are multiplied by a weight of 0, and 0 * NaN would be NaN.
            grown = torch.zeros(shape, dtype=self.dtype, device=self.device)
            if layer < len(self.layers):
                grown[: self.rows, :, : self.tokens] = self.layers[layer]
                self.layers[layer] = grown
            else:
                self.layers.append(grown)
        self.rows, self.tokens = rows, tokens

    def shrink(self) -> None:
        """Give the memory back when nothing runs."""
        self.rows = self.tokens = 0
        self.layers = []
        self.reserve(1, _SMALLEST_TOKENS)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first ``length`` positions over another row."""
        if source != target and length:
            for tensor in self.layers:
                tensor[target, :, :length] = tensor[source, :, :length]
