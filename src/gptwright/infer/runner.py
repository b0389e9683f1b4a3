"""The forward pass of inference by PyTorch: the same arithmetic as ``model.transformer``, for one new token a sequence or a piece of a prompt.

It runs where the compiled one (native.py) cannot: on GPUs, without a C++ compiler, beside odd shapes. The query heads that share a key head
are folded into the query's length, so that attention reads each key once (PyTorch's own grouped attention copies them); bf16 weights are
packed once for oneDNN; keys and values are written together. Parity with the transformer is tested for every family.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwright.infer.adapters import Adapter, Factors
from gptwright.infer.cache import PAGE, Lease, PagedCache
from gptwright.model.transformer import Block, RMSNorm, Transformer, rope_tables, rotate, window_mask

Map = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class Part:
    """Consecutive tokens of one sequence in a step.

    Args:
        ids: the tokens.
        start: position of the first.
        lease: the sequence's pages.
        wanted: how many of the last tokens' logits are asked for.
        adapter: as the runner's ``adapter`` made it, or None.
    """

    ids: Sequence[int]
    start: int
    lease: Lease
    wanted: int = 1
    adapter: Any = None


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

    # Libraries' products may add up in another order for another number of rows, so prompts must always be cut at the same places.
    exact = False
    kind = "as they are"

    def __init__(self, model: Transformer, vocab_size: int) -> None:
        self.model, self.config, self.vocab_size = model, model.config, vocab_size
        self.device, self.dtype = model.embedding.weight.device, model.embedding.weight.dtype
        self.layers = [Layer.build(block) for block in model.blocks if isinstance(block, Block)]
        self.norm = fast_norm(model.norm)
        head = nn.Linear(self.config.d_model, vocab_size, bias=False, device="meta")
        head.weight = nn.Parameter(model.head_weight.detach()[:vocab_size], requires_grad=False)
        self.head = fast_linear(head)

    def adapter(self, adapter: Adapter) -> list[tuple[Factors | None, ...]]:
        """An adapter in the model's dtype, for ``Part.adapter``."""

        def moved(factors: Factors | None) -> Factors | None:
            if factors is None:
                return None
            down, up = (factor.to(self.device, self.dtype) for factor in factors)
            return down, up

        return [tuple(moved(factors) for factors in layer) for layer in adapter.layers]

    def forward(self, cache: PagedCache, parts: Sequence[Part], threads: int | None = None) -> Tensor:
        """Run tokens of several sequences; their keys and values are stored.

        Args:
            cache: holds the pages of all parts.
            parts: what to run, each of another sequence.
            threads: fewer or more than usual, for this call.

        Returns:
            Logits (sum of ``wanted``, V) in fp32, part by part.
        """
        before = torch.get_num_threads()
        if threads is not None and threads != before:
            torch.set_num_threads(threads)
        try:
            singles = [part for part in parts if len(part.ids) == 1]
            together = iter(self._decode(cache, singles) if singles else ())
            rows = [
                next(together)[: part.wanted] if len(part.ids) == 1 else self._prefill(cache, part) for part in parts
            ]
            return torch.cat(rows).float()
        finally:
            if threads is not None and threads != before:
                torch.set_num_threads(before)

    def _decode(self, cache: PagedCache, parts: Sequence[Part]) -> list[Tensor]:
        """One token of each sequence, (1, V) each."""
        n = len(parts)
        slots = torch.tensor([_slot(part.lease, part.start) for part in parts], device=self.device)
        positions = torch.tensor([[part.start] for part in parts], device=self.device)
        group = self.config.n_heads // self.config.n_kv_heads
        window = self.config.window or self.config.seq_len

        def attend(store: Tensor, q_bthe: Tensor, kv_btge: Tensor) -> Tensor:
            store[:, slots] = kv_btge[:, 0].transpose(0, 1)
            q = q_bthe.reshape(n, -1, group, self.config.d_head)
            done = []
            # One by one, each over its own span: as fast as one masked call over the longest (a call takes 30 us, 8 rows at once 210),
            # and a row's bits do not depend on how long its neighbours are.
            for i, part in enumerate(parts):
                end = part.start + 1
                keys, values = _span(store, part.lease, max(0, end - window), end)[None].chunk(2, dim=1)
                done.append(F.scaled_dot_product_attention(q[i : i + 1], keys, values))
            return (done[0] if n == 1 else torch.cat(done)).reshape(n, 1, -1)

        ids = torch.tensor([list(part.ids) for part in parts], device=self.device)
        adapters = [(slice(i, i + 1), part.adapter) for i, part in enumerate(parts) if part.adapter is not None]
        logits = self._forward(cache, ids, positions, attend, adapters, 1)
        return list(logits)

    def _prefill(self, cache: PagedCache, part: Part) -> Tensor:
        """A piece of one sequence, (wanted, V)."""
        ids, start = part.ids, part.start
        end = start + len(ids)
        positions = torch.arange(start, end, device=self.device)
        slots = torch.tensor([_slot(part.lease, p) for p in range(start, end)], device=self.device)
        mask = None if start == 0 else torch.arange(end, device=self.device)[None] <= positions[:, None]
        if self.config.window is not None and end > self.config.window:
            mask = window_mask(len(ids), end, self.config.window, self.device)[0, 0]
        group = self.config.n_heads // self.config.n_kv_heads

        def attend(store: Tensor, q_bthe: Tensor, kv_btge: Tensor) -> Tensor:
            store[:, slots] = kv_btge[0].transpose(0, 1)
            both = _span(store, part.lease, 0, end)
            if group > 1:
                both = both.repeat_interleave(group, dim=0)
            keys, values = both[None].chunk(2, dim=1)
            y = F.scaled_dot_product_attention(
                q_bthe.transpose(1, 2), keys, values, attn_mask=mask, is_causal=mask is None
            )
            return y.transpose(1, 2).reshape(1, len(ids), -1)

        adapters = [] if part.adapter is None else [(slice(0, 1), part.adapter)]
        ids_bt = torch.tensor([list(ids)], device=self.device)
        return self._forward(cache, ids_bt, positions[None], attend, adapters, part.wanted)[0]

    def _forward(
        self,
        cache: PagedCache,
        ids_bt: Tensor,
        positions_bt: Tensor,
        attend: Callable[[Tensor, Tensor, Tensor], Tensor],
        adapters: Sequence[tuple[slice, list[tuple[Factors | None, ...]]]],
        wanted: int,
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
        for number, (layer, store) in enumerate(zip(self.layers, cache.layers, strict=True)):

            def apply(map_: Map, v: Tensor, *which: int, at: int = number) -> Tensor:
                y = map_(v)
                for rows, factors in adapters:
                    for part, half in zip(which, y.chunk(len(which), dim=-1), strict=True):
                        if (pair := factors[at][part]) is not None:
                            half[rows] += F.linear(v[rows], pair[0]) @ pair[1]
                return y

            qkv = apply(layer.qkv, layer.norm1(x), 0).view(b, t, rotated + c.n_kv_heads, c.d_head)
            q, kv = qkv[:, :, : c.n_heads], qkv[:, :, c.n_heads :]
            if rope is not None:
                qk = qkv[:, :, :rotated]
                if layer.qk_weight is not None:
                    qk = F.rms_norm(qk, (c.d_head,), None, c.norm_eps) * layer.qk_weight
                qk = rotate(qk, *rope)
                q = qk[:, :, : c.n_heads]
                kv = torch.cat([qk[:, :, c.n_heads :], qkv[:, :, rotated:]], dim=2)
            x = x + apply(layer.out, attend(store, q, kv), 1)
            y = apply(layer.up, layer.norm2(x), *((2, 3) if layer.gated else (3,)))
            if layer.gated:
                gate, up = y.chunk(2, dim=-1)
                y = F.silu(gate) * up
            else:
                y = F.gelu(y, approximate="tanh")
            x = x + apply(layer.down, y, 4)
        # `[:, t - wanted :]`: none when none is wanted
        return self.head(self.norm(x[:, t - wanted :]))


def _slot(lease: Lease, position: int) -> int:
    return lease.pages[position // PAGE] * PAGE + position % PAGE


def _span(store: Tensor, lease: Lease, begin: int, end: int) -> Tensor:
    """Keys and values (2K, end - begin, E) of some positions: a view when their pages lie side by side, as they mostly do."""
    pages = lease.pages[begin // PAGE : (end - 1) // PAGE + 1]
    skip = begin % PAGE
    if pages == list(range(pages[0], pages[0] + len(pages))):
        first = pages[0] * PAGE + skip
        return store[:, first : first + end - begin]
    paged = store.view(len(store), -1, PAGE, store.shape[-1])
    found = paged[:, torch.tensor(pages, device=store.device)].flatten(1, 2)
    return found[:, skip : skip + end - begin]
