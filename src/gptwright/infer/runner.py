"""The forward pass of inference: the same arithmetic as ``model.transformer``, arranged for one new token a row.

Three differences make it 2 to 4 times faster on a CPU: the query heads that share a key head are folded into the query's length, so that
attention reads each key once (PyTorch's own grouped attention copies them); bf16 weights are packed once for oneDNN; keys and values are
written together. Parity with the transformer is tested for every family.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwright.infer.cache import SlotCache
from gptwright.model.transformer import Block, RMSNorm, Transformer, rope_tables, rotate, window_mask

Map = Callable[[Tensor], Tensor]


def fast_linear(module: nn.Module) -> Map:
    """The fastest equivalent of a linear layer for few rows.

    oneDNN's packed weights cost a second copy of the weights and save about half the time at 1 to 32 rows. The operators are private to
    PyTorch, so they are tried and compared first; without them the layer is called as it is.
    """
    if type(module) is not nn.Linear:  # an adapter that was not merged
        return module
    weight, bias = module.weight.detach(), None if module.bias is None else module.bias.detach()
    plain: Map = lambda x: F.linear(x, weight, bias)  # noqa: E731
    if weight.dtype != torch.bfloat16 or weight.device.type != "cpu":
        return plain
    try:
        packed = torch.ops.mkldnn._reorder_linear_weight(weight)
        apply = torch.ops.mkldnn._linear_pointwise

        long = weight.shape[1] > 1024

        def fast(x: Tensor) -> Tensor:
            # oneDNN adds up more than 1,024 products in another order for one row than for several (measured: 1 against 2 to 32 rows,
            # on AVX512-BF16; from two rows on the bits agree). A second row costs nothing and makes answers the same alone and in a batch.
            if long and x.shape[:-1].numel() == 1:
                y: Tensor = apply(x.expand(2, *x.shape[1:]).contiguous(), packed, bias, "none", [], "")
                return y[:1]
            y = apply(x, packed, bias, "none", [], "")
            return y

        probe = torch.linspace(-1, 1, 2 * weight.shape[1]).view(2, 1, -1).to(weight.dtype)
        same = torch.allclose(fast(probe).float(), plain(probe).float(), rtol=0.05, atol=0.05)
    except (RuntimeError, AttributeError):
        return plain
    return fast if same else plain


def fast_norm(module: nn.Module) -> Map:
    """The fused form of a norm."""
    if isinstance(module, RMSNorm):
        shape, weight, eps = module.weight.shape, module.weight.detach(), module.eps
        return lambda x: F.rms_norm(x, shape, weight, eps)
    return module


@dataclass(frozen=True)
class Layer:
    """One block's maps."""

    norm1: Map
    qkv: Map
    qk_weight: Tensor | None  # (H + K, E), norms of queries and keys side by side
    out: Map
    norm2: Map
    up: Map
    down: Map
    gated: bool

    @classmethod
    def build(cls, block: Block) -> "Layer":
        """Take over a block of the transformer."""
        a, f = block.attention, block.feed_forward
        qk_weight = None
        if a.q_norm is not None and a.k_norm is not None:
            heads = (a.q_norm.weight.expand(a.config.n_heads, -1), a.k_norm.weight.expand(a.config.n_kv_heads, -1))
            qk_weight = torch.cat(heads).detach()
        return cls(
            fast_norm(block.norm1),
            fast_linear(a.qkv),
            qk_weight,
            fast_linear(a.out),
            fast_norm(block.norm2),
            fast_linear(f.up),
            fast_linear(f.down),
            f.gated,
        )


class Runner:
    """A model prepared for inference.

    Args:
        model: its weights are read now; later changes to them need a new runner.
        vocab_size: real ids; the logits of padding rows are not computed.
    """

    def __init__(self, model: Transformer, vocab_size: int) -> None:
        self.model, self.config = model, model.config
        self.device, self.dtype = model.embedding.weight.device, model.embedding.weight.dtype
        self.layers = [Layer.build(block) for block in model.blocks if isinstance(block, Block)]
        self.norm = fast_norm(model.norm)
        head = nn.Linear(self.config.d_model, vocab_size, bias=False, device="meta")
        head.weight = nn.Parameter(model.head_weight.detach()[:vocab_size], requires_grad=False)
        self.head = fast_linear(head)

    def decode(self, cache: SlotCache, ids: list[int], lengths: list[int]) -> Tensor:
        """One token for each of the first B rows.

        Args:
            cache: has room for position ``lengths[i]`` in row i.
            ids: the tokens.
            lengths: positions stored in each row before.

        Returns:
            Logits (B, V) in fp32.
        """
        n = len(ids)
        positions = torch.tensor(lengths, device=self.device)
        rows = torch.arange(n, device=self.device)
        group = self.config.n_heads // self.config.n_kv_heads
        # Rows of one length go together. Others go one by one, each over its own span: as fast as one masked call over the longest (a
        # call takes 30 us, 8 rows at once 210), and a row's bits do not depend on how long its neighbours are.
        parts = [slice(0, n)] if min(lengths) == max(lengths) else [slice(i, i + 1) for i in range(n)]
        window = self.config.window or self.config.seq_len

        def attend(store: Tensor, q_bthe: Tensor, kv_btge: Tensor) -> Tensor:
            store[rows, :, positions] = kv_btge[:, 0]
            q = q_bthe.reshape(n, -1, group, self.config.d_head)
            done = []
            for part in parts:
                end = lengths[part.start] + 1
                keys, values = store[part, :, max(0, end - window) : end].chunk(2, dim=1)
                done.append(F.scaled_dot_product_attention(q[part], keys, values))
            return (done[0] if len(done) == 1 else torch.cat(done)).reshape(n, 1, -1)

        return self._forward(cache, torch.tensor(ids, device=self.device)[:, None], positions[:, None], attend)

    def prefill(self, cache: SlotCache, ids: list[int], row: int, start: int) -> Tensor:
        """A chunk of one row's prompt.

        Args:
            cache: has room for it.
            ids: the chunk.
            row: its row.
            start: positions stored before.

        Returns:
            Logits (1, V) in fp32 after the chunk's last token.
        """
        end = start + len(ids)
        positions = torch.arange(start, end, device=self.device)
        mask = None if start == 0 else torch.arange(end, device=self.device)[None] <= positions[:, None]
        if self.config.window is not None and end > self.config.window:
            mask = window_mask(len(ids), end, self.config.window, self.device)[0, 0]
        group = self.config.n_heads // self.config.n_kv_heads

        def attend(store: Tensor, q_bthe: Tensor, kv_btge: Tensor) -> Tensor:
            store[row, :, start:end] = kv_btge[0].transpose(0, 1)
            both = store[row, :, :end]
            if group > 1:
                both = both.repeat_interleave(group, dim=0)
            keys, values = both[None].chunk(2, dim=1)
            y = F.scaled_dot_product_attention(
                q_bthe.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None
            )
            return y.transpose(1, 2).reshape(1, len(ids), -1)

        return self._forward(cache, torch.tensor([ids], device=self.device), positions[None], attend)

    def _forward(
        self, cache: SlotCache, ids_bt: Tensor, positions_bt: Tensor, attend: Callable[[Tensor, Tensor, Tensor], Tensor]
    ) -> Tensor:
        c = self.config
        b, t = ids_bt.shape
        rotated = c.n_heads + c.n_kv_heads
        x = F.embedding(ids_bt, self.model.embedding.weight)
        rope = None
        if self.model.positions is not None:
            x = x + F.embedding(positions_bt, self.model.positions.weight)
        else:
            rope = rope_tables(positions_bt, c.d_head, c.rope_theta, x.dtype, c.rope_scaling)
        for layer, store in zip(self.layers, cache.layers, strict=True):
            qkv = layer.qkv(layer.norm1(x)).view(b, t, rotated + c.n_kv_heads, c.d_head)
            q, kv = qkv[:, :, : c.n_heads], qkv[:, :, c.n_heads :]
            if rope is not None:
                qk = qkv[:, :, :rotated]
                if layer.qk_weight is not None:
                    qk = F.rms_norm(qk, (c.d_head,), None, c.norm_eps) * layer.qk_weight
                qk = rotate(qk, *rope)
                q = qk[:, :, : c.n_heads]
                kv = torch.cat([qk[:, :, c.n_heads :], qkv[:, :, rotated:]], dim=2)
            x = x + layer.out(attend(store, q, kv))
            y = layer.up(layer.norm2(x))
            if layer.gated:
                gate, up = y.chunk(2, dim=-1)
                y = F.silu(gate) * up
            else:
                y = F.gelu(y, approximate="tanh")
            x = x + layer.down(y)
        return self.head(self.norm(x[:, -1:]))[:, 0].float()
