"""The transformer: ids in, hidden states out, logits on request. One file for every family we train or open.

Legend of shapes: B batch, T time, D d_model, H query heads, K key/value heads, E d_head, F d_ff, V vocabulary.
Differences between families are few switches: the norm, the positions, the feed-forward part; the norm on queries and keys (modern),
their biases (gpt2, qwen2), a sliding window (mistral).

Source: GPT-2 (Radford et al. 2019); RMSNorm (arXiv 1910.07467); RoPE (2104.09864); SwiGLU (2002.05202); grouped-query
attention (2305.13245); sliding window (Mistral 7B, 2310.06825, section 2); scaled frequencies (Llama 3, 2407.21783, section 3.4.2,
constants of its released code); Qwen3 technical report (2505.09388), whose block `modern` is.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import nullcontext
from typing import Any, Protocol, cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from gptwright.model.config import ModelConfig, RopeScaling
from gptwright.model.kernels import Kernels, Linear


class Cache(Protocol):
    """What attention needs of a key/value cache: store the new keys and values of a layer, give back all of them."""

    def update(self, layer: int, k_bkte: Tensor, v_bkte: Tensor) -> tuple[Tensor, Tensor, Tensor | None]:
        """Returns keys and values (B, K, S, E) of all positions so far, and a mask (B, 1, T, S), true where seen, or None for causal."""
        ...


class RMSNorm(nn.Module):
    """Scale to unit root mean square, computed in fp32 whatever the input's dtype."""

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(width))
        self.eps = eps

    def forward(self, x: Tensor) -> Tensor:
        x32 = x.float() if x.dtype in (torch.bfloat16, torch.float16) else x
        x32 = x32 * torch.rsqrt(x32.square().mean(-1, keepdim=True) + self.eps)
        return self.weight * x32.to(x.dtype)


class Attention(nn.Module):
    """Causal self-attention. Queries, keys and values come from one matrix: one large product is faster than three small ones."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.config, self.layer = config, layer
        gpt2 = config.family == "gpt2"
        q_width, kv_width = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        self.qkv = nn.Linear(config.d_model, q_width + 2 * kv_width, bias=config.qkv_bias)
        self.out = nn.Linear(q_width, config.d_model, bias=gpt2)
        self.q_norm = RMSNorm(config.d_head, config.norm_eps) if config.qk_norm else None
        self.k_norm = RMSNorm(config.d_head, config.norm_eps) if config.qk_norm else None

    def train_forward(self, x_btd: Tensor, angles_te: Tensor | None, kernels: Kernels) -> Tensor:
        """The same by training's kernels: positions 0 .. T-1, no cache."""
        c = self.config
        q_norm, k_norm = (None if norm is None else norm.weight for norm in (self.q_norm, self.k_norm))
        qkv = linear(self.qkv, x_btd)
        y_btw = kernels.attention(qkv, c.n_heads, c.n_kv_heads, q_norm, k_norm, angles_te, c.norm_eps)
        return linear(self.out, y_btw)

    def forward(self, x_btd: Tensor, rope: tuple[Tensor, Tensor] | None, cache: Cache | None) -> Tensor:
        c = self.config
        b, t, _ = x_btd.shape
        qkv = self.qkv(x_btd).view(b, t, c.n_heads + 2 * c.n_kv_heads, c.d_head)
        q, k, v = qkv.split([c.n_heads, c.n_kv_heads, c.n_kv_heads], dim=2)
        if self.q_norm is not None and self.k_norm is not None:
            q, k = self.q_norm(q), self.k_norm(k)
        if rope is not None:
            q, k = rotate(q, *rope), rotate(k, *rope)
        q, k, v = q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2)  # (B, heads, T, E)
        mask = None
        if cache is not None:
            k, v, mask = cache.update(self.layer, k, v)
        if c.window is not None and k.shape[2] > c.window:
            near = window_mask(t, k.shape[2], c.window, x_btd.device)
            mask = near if mask is None else mask & near
        y = F.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, enable_gqa=c.n_heads != c.n_kv_heads
        )
        out: Tensor = self.out(y.transpose(1, 2).reshape(b, t, -1))
        return out


class FeedForward(nn.Module):
    """SwiGLU (modern, llama) or GELU (gpt2). Gate and up stand in one matrix, gate first."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.gated = config.family != "gpt2"
        self.up = nn.Linear(config.d_model, config.d_ff * (2 if self.gated else 1), bias=not self.gated)
        self.down = nn.Linear(config.d_ff, config.d_model, bias=not self.gated)

    def forward(self, x_btd: Tensor) -> Tensor:
        up: Tensor = self.up(x_btd)
        if self.gated:
            gate, up = up.chunk(2, dim=-1)
            inner = F.silu(gate) * up
        else:
            inner = F.gelu(up, approximate="tanh")
        out: Tensor = self.down(inner)
        return out

    def train_forward(self, x_btd: Tensor, kernels: Kernels) -> Tensor:
        """The same by training's kernels."""
        up = linear(self.up, x_btd)
        return linear(self.down, kernels.swiglu(up) if self.gated else F.gelu(up, approximate="tanh"))


class Block(nn.Module):
    """Pre-norm residual block: x + attention(norm(x)), then x + feed_forward(norm(x))."""

    def __init__(self, config: ModelConfig, layer: int) -> None:
        super().__init__()
        self.norm1 = make_norm(config)
        self.attention = Attention(config, layer)
        self.norm2 = make_norm(config)
        self.feed_forward = FeedForward(config)

    def forward(self, x_btd: Tensor, rope: tuple[Tensor, Tensor] | None, cache: Cache | None = None) -> Tensor:
        x_btd = x_btd + self.attention(self.norm1(x_btd), rope, cache)
        out: Tensor = x_btd + self.feed_forward(self.norm2(x_btd))
        return out

    def train_forward(
        self, x_btd: Tensor, delta_btd: Tensor | None, angles_te: Tensor | None, kernels: Kernels
    ) -> tuple[Tensor, Tensor]:
        """The same by training's kernels. The last addition is left to the next norm, which does it in the same pass.

        Args:
            x_btd: the residual stream, without what the block before adds to it.
            delta_btd: what the block before adds, or None.
            angles_te: rotary angles, or None.
            kernels: training's kernels.

        Returns:
            The residual stream without this block's feed-forward part, and that part.
        """
        x_btd, y_btd = add_norm(self.norm1, x_btd, delta_btd, kernels)
        x_btd, y_btd = add_norm(self.norm2, x_btd, self.attention.train_forward(y_btd, angles_te, kernels), kernels)
        return x_btd, self.feed_forward.train_forward(y_btd, kernels)


class Transformer(nn.Module):
    """A decoder-only language model.

    Args:
        config: its shape. Build it under ``torch.device("meta")`` to count without memory, then ``to_empty`` and ``init_weights``.
    """

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        self.config = config
        self.embedding = nn.Embedding(config.vocab_size, config.d_model)
        self.positions = nn.Embedding(config.seq_len, config.d_model) if config.family == "gpt2" else None
        self.blocks = nn.ModuleList(Block(config, layer) for layer in range(config.n_layers))
        self.norm = make_norm(config)
        self.head = None if config.tie_embeddings else nn.Linear(config.d_model, config.vocab_size, bias=False)
        self.kernels: Kernels | None = None  # set by the trainer on its working copy
        self.recompute = (
            False  # by the trainer: a block's inside is computed again in the backward pass rather than kept
        )

    def forward(self, ids_bt: Tensor, cache: Cache | None = None, positions_bt: Tensor | None = None) -> Tensor:
        """Hidden states after the last norm.

        Args:
            ids_bt: token ids, int64 (B, T).
            cache: keys and values of earlier positions, if any.
            positions_bt: position of each token, int64 (B, T) or (1, T); default 0 .. T-1.

        Returns:
            Hidden states (B, T, D) in the weights' dtype.
        """
        kernels = self.kernels
        window = self.config.window  # where it cuts, training's kernels do not fit: they see all that came before
        plain = cache is None and positions_bt is None and (window is None or ids_bt.shape[1] <= window)
        if kernels is not None and plain and kernels.fits(self.embedding.weight):
            return self._train_forward(ids_bt, kernels)
        if positions_bt is None:
            positions_bt = torch.arange(ids_bt.shape[1], device=ids_bt.device)[None]
        c = self.config
        x = self.embedding(ids_bt)
        rope = None
        if self.positions is not None:
            x = x + self.positions(positions_bt)
        else:
            rope = rope_tables(positions_bt, c.d_head, c.rope_theta, x.dtype, c.rope_scaling)
        for block in self.blocks:
            x = self._kept_small(block, x, rope, cache)
        hidden: Tensor = self.norm(x)
        return hidden

    def _train_forward(self, ids_bt: Tensor, kernels: Kernels) -> Tensor:
        t, angles_te = ids_bt.shape[1], None
        x = self.embedding(ids_bt)
        if self.positions is not None:
            x = x + self.positions.weight[:t]
        else:
            c = self.config
            cos, sin = rope_tables(torch.arange(t)[None], c.d_head, c.rope_theta, torch.float32, c.rope_scaling)
            half = c.d_head // 2
            angles_te = torch.cat([cos[0, :, 0, :half], sin[0, :, 0, :half]], dim=-1).contiguous()
        delta = None
        for block in self.blocks:
            x, delta = self._kept_small(cast(Block, block).train_forward, x, delta, angles_te, kernels)
        return add_norm(self.norm, x, delta, kernels)[1]

    def _kept_small(self, block: Callable[..., Any], *given: Any) -> Any:
        """A block's output; with ``recompute`` autograd keeps what is given to it alone."""
        if not (self.recompute and torch.is_grad_enabled()):
            return block(*given)
        kernels = self.kernels
        again = nullcontext if kernels is None else kernels.again
        # Nothing in a block draws random numbers. The backward pass finds the kernels as they are now.
        return checkpoint(
            block, *given, use_reentrant=False, preserve_rng_state=False, context_fn=lambda: (nullcontext(), again())
        )

    @property
    def head_weight(self) -> Tensor:
        """The output matrix (V, D), tied or not."""
        return self.embedding.weight if self.head is None else self.head.weight

    def logits(self, hidden_btd: Tensor) -> Tensor:
        """Unnormalised log-probabilities (B, T, V), in the hidden states' dtype."""
        return F.linear(hidden_btd, self.head_weight)

    @torch.no_grad()
    def init_weights(self, seed: int) -> None:
        """Fill in ``initial_values``."""
        for parameter, (_, value) in zip(self.parameters(), self.initial_values(seed), strict=True):
            parameter.copy_(value)

    def initial_values(self, seed: int) -> Iterator[tuple[str, Tensor]]:
        """GPT-2's initialisation: normal with std 0.02, and output projections smaller by 1/sqrt(2 n_layers), so that the residual
        stream's variance does not grow with depth. One generator, so that a seed means the same weights everywhere.

        Yields:
            Name and value of each parameter, in order, on the CPU; the model may be on the meta device.
        """
        generator = torch.Generator().manual_seed(seed)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                yield name, torch.zeros(parameter.shape)
            elif parameter.ndim == 1:
                yield name, torch.ones(parameter.shape)
            else:
                residual = name.endswith(("attention.out.weight", "feed_forward.down.weight"))
                std = 0.02 / math.sqrt(2 * self.config.n_layers) if residual else 0.02
                yield name, torch.empty(parameter.shape).normal_(0.0, std, generator=generator)


def make_norm(config: ModelConfig) -> nn.Module:
    """LayerNorm for gpt2, RMSNorm for the others."""
    return (
        nn.LayerNorm(config.d_model, config.norm_eps)
        if config.family == "gpt2"
        else RMSNorm(config.d_model, config.norm_eps)
    )


def linear(module: nn.Module, x: Tensor) -> Tensor:
    """A plain Linear by the form with the cheaper weight gradient; anything else (an adapter) as it is."""
    if type(module) is nn.Linear:
        y: Tensor = Linear.apply(x, module.weight, module.bias)  # type: ignore[no-untyped-call]
        return y
    wrapped: Tensor = module(x)
    return wrapped


def add_norm(norm: nn.Module, x_btd: Tensor, delta_btd: Tensor | None, kernels: Kernels) -> tuple[Tensor, Tensor]:
    """x + delta and its norm: one kernel for RMSNorm, two PyTorch operations for LayerNorm."""
    if isinstance(norm, RMSNorm):
        return kernels.add_norm(x_btd, delta_btd, norm.weight, norm.eps)
    x_btd = x_btd if delta_btd is None else x_btd + delta_btd
    return x_btd, norm(x_btd)


def rope_tables(
    positions_bt: Tensor, d_head: int, theta: float, dtype: torch.dtype, scaling: RopeScaling | None = None
) -> tuple[Tensor, Tensor]:
    """Cosine and sine (B, T, 1, E) of the rotary angles, computed in fp32 and then cast."""
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    frequencies = theta ** (-torch.arange(0, d_head, 2, device=positions_bt.device, dtype=wide) / d_head)
    if scaling is not None:
        frequencies = frequencies / rope_divisors(frequencies, scaling)
    angles = positions_bt.to(wide)[..., None] * frequencies
    angles = torch.cat([angles, angles], dim=-1)[:, :, None, :]
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rope_divisors(frequencies: Tensor, scaling: RopeScaling) -> Tensor:
    """What each rotary frequency (E/2,) is divided by.

    llama3 counts a frequency's turns within the first context: many turns tell near positions apart and stay (1), few are stretched
    (factor), and between the two bounds the frequency itself, not the divisor, is blended.
    """
    if scaling.kind == "linear":
        return torch.full_like(frequencies, scaling.factor)
    turns = scaling.original_seq_len * frequencies / (2 * math.pi)
    low, high = scaling.low_freq_factor, scaling.high_freq_factor
    kept = ((turns - low) / (high - low)).clamp(0, 1)
    return 1 / (kept + (1 - kept) / scaling.factor)


def window_mask(t: int, s: int, window: int, device: torch.device) -> Tensor:
    """(1, 1, T, S), true where the last T of S positions see a key: not after them, and less than ``window`` before."""
    distance = torch.arange(s - t, s, device=device)[:, None] - torch.arange(s, device=device)[None]
    return ((distance >= 0) & (distance < window))[None, None]


def rotate(x_bthe: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotary embedding, the half-split form that Llama and Qwen weights on disk expect."""
    left, right = x_bthe.chunk(2, dim=-1)
    return x_bthe * cos + torch.cat([-right, left], dim=-1) * sin
