"""Training's own operations: each an autograd function with a hand-written backward, matrix products by PyTorch (oneDNN), the
elementwise rest by kernels.cpp. Where the library, the dtype or the device does not fit, callers use the plain form.

Why: on CPUs PyTorch's attention backward costs six times its forward and elementwise chains leave the cache between operations.
"""

from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch
from torch import Tensor

from gptwright.model import cost
from gptwright.model.native import Native

CHUNK_ROWS = 1024
QUERY_ROWS = (
    cost.QUERY_ROWS
)  # a block of queries skips the keys after it: a quarter of the products saved at 512, and less memory


class Kernels:
    """The library with a dtype: what the blocks of a working model are given.

    Args:
        native: the compiled library.
        dtype: float32 or bfloat16.
    """

    def __init__(self, native: Native, dtype: torch.dtype) -> None:
        self.native, self.dtype = native, dtype

    def fits(self, x: Tensor) -> bool:
        """Whether an input can be given to the kernels."""
        return x.dtype == self.dtype and x.device.type == "cpu"

    def again(self) -> AbstractContextManager[None]:
        """What a later computation of the same is to run in."""
        return nullcontext()

    def add_norm(self, x_btd: Tensor, delta_btd: Tensor | None, weight_d: Tensor, eps: float) -> tuple[Tensor, Tensor]:
        """x + delta, and its RMS norm. Returns both (B, T, D); the sum is x itself without delta."""
        y: tuple[Tensor, Tensor] = _AddNorm.apply(self, x_btd, delta_btd, weight_d, eps)  # type: ignore[no-untyped-call]
        return y

    def attention(
        self,
        qkv_btw: Tensor,
        n_heads: int,
        n_kv_heads: int,
        q_norm: Tensor | None = None,
        k_norm: Tensor | None = None,
        angles_te: Tensor | None = None,
        eps: float = 1e-6,
    ) -> Tensor:
        """Causal attention from the fused projection to the heads' outputs.

        Args:
            qkv_btw: (B, T, (H + 2K) E).
            n_heads: H.
            n_kv_heads: K.
            q_norm: weight of the norm on queries (E,), or None.
            k_norm: the same for keys.
            angles_te: fp32 (T, E), cosines then sines of the half-split rotary embedding, or None.
            eps: of the norms.

        Returns:
            (B, T, H E).
        """
        y: Tensor = _Attention.apply(self, qkv_btw, q_norm, k_norm, angles_te, n_heads, n_kv_heads, eps)  # type: ignore[no-untyped-call]
        return y

    def swiglu(self, up_btf: Tensor) -> Tensor:
        """silu(gate) * up of (B, T, 2F), gate first."""
        y: Tensor = _SwiGLU.apply(self, up_btf)  # type: ignore[no-untyped-call]
        return y


class Linear(torch.autograd.Function):
    """x @ W.T whose weight gradient comes out contiguous, in W's layout: autograd's own is a transposed view that gets copied."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        flat = x.reshape(-1, x.shape[-1])
        ctx.save_for_backward(flat, weight)
        y = flat @ weight.t() if bias is None else torch.addmm(bias, flat, weight.t())
        return y.view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        flat, weight = ctx.saved_tensors
        g = grads[0].reshape(-1, weight.shape[0])
        needs = ctx.needs_input_grad
        return (
            (g @ weight).view(*grads[0].shape[:-1], -1) if needs[0] else None,
            g.t() @ flat if needs[1] else None,
            g.sum(0) if needs[2] else None,
        )


class _AddNorm(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, kernels: Kernels, x: Tensor, delta: Tensor | None, weight: Tensor, eps: float
    ) -> tuple[Tensor, Tensor]:
        x = x.contiguous()
        total = x if delta is None else torch.empty_like(x)
        y = torch.empty_like(x)
        rstd = torch.empty(x.shape[:-1], dtype=torch.float32)
        other = None if delta is None else delta.contiguous()
        kernels.native.call("norm_fwd", x.dtype, x, other, weight, total, y, rstd, rstd.numel(), x.shape[-1], eps)
        ctx.save_for_backward(total, weight, rstd)
        ctx.kernels, ctx.added = kernels, delta is not None
        return (x.view_as(x) if delta is None else total), y

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        total, weight, rstd = ctx.saved_tensors
        gx, gy = (g.contiguous() for g in grads)
        dx = torch.empty_like(total)
        dw = torch.empty(weight.shape, dtype=torch.float32)
        ctx.kernels.native.call("norm_bwd", dx.dtype, gx, gy, total, weight, rstd, dx, dw, rstd.numel(), dx.shape[-1])
        return None, dx, dx if ctx.added else None, dw.to(weight.dtype), None


class _Attention(torch.autograd.Function):
    """Probabilities are kept for the backward pass (bf16: 0.4 MB a head at 512), which costs less than making them again."""

    @staticmethod
    def forward(
        ctx: Any,
        kernels: Kernels,
        qkv: Tensor,
        q_norm: Tensor | None,
        k_norm: Tensor | None,
        angles: Tensor | None,
        n_heads: int,
        n_kv_heads: int,
        eps: float,
    ) -> Tensor:
        b, t, width = qkv.shape
        e = width // (n_heads + 2 * n_kv_heads)
        qkv = qkv.contiguous()
        q, k, v = (torch.empty(b * n_heads, t, e, dtype=qkv.dtype) for _ in range(3))
        sizes = (b, t, n_heads, n_kv_heads, e, eps, e**-0.5)
        call = kernels.native.call
        call("heads_fwd", qkv.dtype, qkv, q_norm, k_norm, angles, q, k, v, *sizes)
        y = torch.empty_like(q)
        kept = []
        for start in range(0, t, QUERY_ROWS):
            end = min(t, start + QUERY_ROWS)
            p = torch.bmm(q[:, start:end], k[:, :end].mT)
            call("softmax_fwd", p.dtype, p, p.shape[0], end - start, end, start)
            y[:, start:end] = torch.bmm(p, v[:, :end])
            kept.append(p)
        out = torch.empty(b, t, n_heads * e, dtype=qkv.dtype)
        call("swap_heads", out.dtype, y, out, b, t, n_heads, e, 0)
        ctx.save_for_backward(qkv, q_norm, k_norm, angles, q, k, v, *kept)
        ctx.kernels, ctx.sizes = kernels, sizes
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        qkv, q_norm, k_norm, angles, q, k, v, *kept = ctx.saved_tensors
        b, t, n_heads, _, e = ctx.sizes[:5]
        call = ctx.kernels.native.call
        dy = torch.empty_like(q)
        call("swap_heads", dy.dtype, grads[0].contiguous(), dy, b, t, n_heads, e, 1)
        dq, dk, dv = (torch.empty_like(q) for _ in range(3))
        last = len(kept) - 1
        for number in reversed(range(len(kept))):
            start, p = number * QUERY_ROWS, kept[number]
            end = start + p.shape[1]
            g = dy[:, start:end]
            s = torch.bmm(g, v[:, :end].mT)
            call("softmax_bwd", s.dtype, p, s, s.shape[0], end - start, end, start)
            dq[:, start:end] = torch.bmm(s, k[:, :end])
            if number == last:
                torch.bmm(p.mT, g, out=dv)
                torch.bmm(s.mT, q[:, start:end], out=dk)
            else:
                dv[:, :end] += torch.bmm(p.mT, g)
                dk[:, :end] += torch.bmm(s.mT, q[:, start:end])
        dqkv = torch.empty_like(qkv)
        dwq, dwk = (torch.empty(e, dtype=torch.float32) for _ in range(2))
        call("heads_bwd", dqkv.dtype, dq, dk, dv, qkv, q_norm, k_norm, angles, dqkv, dwq, dwk, *ctx.sizes)
        norms = (None, None) if q_norm is None else (dwq.to(q_norm.dtype), dwk.to(q_norm.dtype))
        return None, dqkv, *norms, None, None, None, None


class _SwiGLU(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, kernels: Kernels, up: Tensor) -> Tensor:
        up = up.contiguous()
        out = torch.empty(*up.shape[:-1], up.shape[-1] // 2, dtype=up.dtype)
        kernels.native.call("swiglu_fwd", up.dtype, up, out, out.numel() // out.shape[-1], out.shape[-1])
        ctx.save_for_backward(up)
        ctx.kernels = kernels
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        (up,) = ctx.saved_tensors
        g = grads[0].contiguous()
        dup = torch.empty_like(up)
        ctx.kernels.native.call("swiglu_bwd", up.dtype, g, up, dup, g.numel() // g.shape[-1], g.shape[-1])
        return None, dup


def linear_cross_entropy(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    targets_n: Tensor,
    scale: float,
    kernels: Kernels | None = None,
    chunk: int = CHUNK_ROWS,
) -> Tensor:
    """Sum of cross-entropies of ``hidden @ weight.T`` times ``scale``, with gradients for both; logits exist a chunk at a time.

    Args:
        hidden_nd: hidden states (N, D), any float dtype; the products run in it, the softmax in fp32 (fp64 for fp64).
        weight_vd: the head (V, D), same dtype.
        targets_n: int64 (N,); rows with -100 cost nothing, not even time.
        scale: usually 1 / number of targets of the whole step.
        kernels: used when they fit the input.
        chunk: rows of logits held at once.

    Returns:
        The scaled sum, fp32 (fp64 for fp64 input), shape ().
    """
    train = torch.is_grad_enabled()
    result: Tensor = _LinearCrossEntropy.apply(hidden_nd, weight_vd, targets_n, scale, kernels, chunk, train)  # type: ignore[no-untyped-call]
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass, chunk by chunk, while the logits are still in cache."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        targets: Tensor,
        scale: float,
        kernels: Kernels | None,
        chunk: int,
        train: bool,
    ) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        needs_h, needs_w = (train and needed for needed in ctx.needs_input_grad[:2])
        rows = (targets >= 0).nonzero()[:, 0]
        every = rows.numel() == targets.numel()
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        grad_h = (torch.empty_like if every else torch.zeros_like)(hidden) if needs_h else None
        grad_w = torch.zeros_like(weight, dtype=wide) if needs_w else None
        native = kernels.native if kernels is not None and kernels.fits(hidden) else None
        for start in range(0, rows.numel(), chunk):
            index = slice(start, start + chunk) if every else rows[start : start + chunk]
            h, t = hidden[index], targets[index]
            logits = h @ weight.t()
            if native is None:
                part, dlogits = softmax_gradient(logits, t, scale)
            else:
                sums = torch.zeros((), dtype=torch.float64)
                native.call("xent", logits.dtype, logits, t.contiguous(), sums, *logits.shape, scale)
                part, dlogits = (sums * scale).to(wide), logits
            loss += part
            if grad_h is not None:
                grad_h[index] = dlogits @ weight
            if grad_w is not None:
                piece = dlogits.t() @ h
                if native is None:
                    grad_w += piece
                else:
                    native.call("accumulate", piece.dtype, grad_w, piece, piece.numel())
        ctx.save_for_backward(grad_h, None if grad_w is None else grad_w.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        grad_h, grad_w = ctx.saved_tensors
        factor = grads[0]
        same = float(factor) == 1.0  # nearly always: the loss is the end of the graph
        return (
            grad_h if grad_h is None or same else grad_h * factor.to(grad_h.dtype),
            grad_w if grad_w is None or same else grad_w * factor.to(grad_w.dtype),
            None,
            None,
            None,
            None,
            None,
        )


def softmax_gradient(logits_nv: Tensor, targets_n: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Scaled sum of cross-entropies of a chunk, and its gradient to the logits (N, V) in their dtype: the plain form."""
    wide = torch.float64 if logits_nv.dtype == torch.float64 else torch.float32
    x = logits_nv.to(wide)
    lse = x.logsumexp(-1, keepdim=True)
    picked = x.gather(-1, targets_n[:, None])
    gradient = (x - lse).exp() * scale
    gradient.scatter_add_(-1, targets_n[:, None], torch.full_like(picked, -scale))
    return (lse - picked).sum() * scale, gradient.to(logits_nv.dtype)
