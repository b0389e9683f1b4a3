"""Keys and values of running requests: one slot (row) a request, contiguous along time, grown in buckets.

Running rows are kept at the front without gaps, so a decode step works on plain slices. On a CPU this beats paging: attention wants
contiguous keys and values, and copying one row when a request leaves costs less than gathering all rows at every step.
"""

import torch
from torch import Tensor

from gptwright.model.config import ModelConfig

_SMALLEST_TOKENS = 64


class SlotCache:
    """Preallocated keys and values, (rows, K, tokens, E) for each layer.

    Args:
        config: the model's shape.
        dtype: dtype of keys and values.
        device: where they live.
    """

    def __init__(self, config: ModelConfig, dtype: torch.dtype, device: torch.device | str = "cpu") -> None:
        self.config, self.dtype, self.device = config, dtype, device
        self.rows = self.tokens = 0
        self.keys: list[Tensor] = []
        self.values: list[Tensor] = []
        self.reserve(1, _SMALLEST_TOKENS)

    @property
    def size_bytes(self) -> int:
        """Bytes allocated."""
        return sum(t.numel() * t.element_size() for t in (*self.keys, *self.values))

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
        shape = (rows, self.config.n_kv_heads, tokens, self.config.d_head)
        for tensors in (self.keys, self.values):
            for layer in range(self.config.n_layers):
                # Zeros, not garbage: masked positions are multiplied by a weight of 0, and 0 * NaN would be NaN.
                grown = torch.zeros(shape, dtype=self.dtype, device=self.device)
                if layer < len(tensors):
                    grown[: self.rows, :, : self.tokens] = tensors[layer]
                    tensors[layer] = grown
                else:
                    tensors.append(grown)
        self.rows, self.tokens = rows, tokens

    def shrink(self) -> None:
        """Give the memory back when nothing runs."""
        self.rows = self.tokens = 0
        self.keys, self.values = [], []
        self.reserve(1, _SMALLEST_TOKENS)

    def move(self, source: int, target: int, length: int) -> None:
        """Copy a row's first ``length`` positions over another row."""
        if source != target and length:
            for tensor in (*self.keys, *self.values):
                tensor[target, :, :length] = tensor[source, :, :length]


class PrefillView:
    """What attention sees while one row takes in a chunk of its prompt.

    Args:
        cache: the store.
        row: its row.
        start: positions stored before this chunk.
        length: tokens of the chunk.
    """

    def __init__(self, cache: SlotCache, row: int, start: int, length: int) -> None:
        self.cache, self.row, self.start, self.end = cache, row, start, start + length
        self.mask: Tensor | None = None
        if start:  # a first chunk is plainly causal and needs none
            queries = torch.arange(start, self.end, device=cache.device)[:, None]
            self.mask = (torch.arange(self.end, device=cache.device)[None] <= queries)[None, None]

    def update(self, layer: int, k_bkte: Tensor, v_bkte: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store a layer's keys and values (1, K, T, E); give back those of all positions so far, and the mask."""
        keys, values = self.cache.keys[layer][self.row], self.cache.values[layer][self.row]
        keys[:, self.start : self.end] = k_bkte[0]
        values[:, self.start : self.end] = v_bkte[0]
        return keys[None, :, : self.end], values[None, :, : self.end], self.mask


class DecodeView:
    """What attention sees in a decode step: one new token for each of the first B rows, each at its own position.

    Args:
        cache: the store.
        lengths: positions stored in each row before this token, int64 (B,).
        longest: the largest of them.
    """

    def __init__(self, cache: SlotCache, lengths: Tensor, longest: int) -> None:
        self.cache, self.lengths, self.span = cache, lengths, longest + 1
        self.row_index = torch.arange(len(lengths), device=lengths.device)
        self.mask = (torch.arange(self.span, device=lengths.device)[None] <= lengths[:, None])[:, None, None]

    def update(self, layer: int, k_bkte: Tensor, v_bkte: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Store a layer's keys and values (B, K, 1, E); give back those of the longest row's span, and the mask."""
        keys, values = self.cache.keys[layer], self.cache.values[layer]
        keys[self.row_index, :, self.lengths] = k_bkte[:, :, 0]
        values[self.row_index, :, self.lengths] = v_bkte[:, :, 0]
        n = len(self.row_index)
        return keys[:n, :, : self.span], values[:n, :, : self.span], self.mask
