"""Kernels of training: the loss of the head without logits in memory. Each has a hand-written backward and a plain form to test against."""

from typing import Any

import torch
from torch import Tensor

CHUNK_ROWS = 1024


def linear_cross_entropy(
    hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor, scale: float, chunk: int = CHUNK_ROWS
) -> Tensor:
    """Sum of cross-entropies of ``hidden @ weight.T`` times ``scale``, with gradients for both; logits exist a chunk at a time.

    Args:
        hidden_nd: hidden states (N, D), any float dtype; the products run in it, the softmax in fp32 (fp64 for fp64).
        weight_vd: the head (V, D), same dtype.
        targets_n: int64 (N,); rows with -100 cost nothing, not even time.
        scale: usually 1 / number of targets of the whole step.
        chunk: rows of logits held at once.

    Returns:
        The scaled sum, fp32 (fp64 for fp64 input), shape ().
    """
    result: Tensor = _LinearCrossEntropy.apply(hidden_nd, weight_vd, targets_n, scale, chunk)  # type: ignore[no-untyped-call]
    return result


class _LinearCrossEntropy(torch.autograd.Function):
    """Gradients are made in the forward pass, chunk by chunk, while the logits are still in cache."""

    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, scale: float, chunk: int) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        needs_h, needs_w = ctx.needs_input_grad[:2]
        rows = (targets >= 0).nonzero()[:, 0]
        every = rows.numel() == targets.numel()
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        grad_h = torch.zeros_like(hidden) if needs_h else None
        grad_w = torch.zeros_like(weight, dtype=wide) if needs_w else None
        for start in range(0, rows.numel(), chunk):
            index = slice(start, start + chunk) if every else rows[start : start + chunk]
            h, t = hidden[index], targets[index]
            logits = h @ weight.t()
            part, dlogits = softmax_gradient(logits, t, scale)
            loss += part
            if grad_h is not None:
                grad_h[index] = dlogits @ weight
            if grad_w is not None:
                grad_w += dlogits.t() @ h
        ctx.save_for_backward(grad_h, None if grad_w is None else grad_w.to(weight.dtype))
        return loss

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        grad_h, grad_w = ctx.saved_tensors
        factor = grads[0]
        return (
            None if grad_h is None else grad_h * factor.to(grad_h.dtype),
            None if grad_w is None else grad_w * factor.to(grad_w.dtype),
            None,
            None,
            None,
        )


def softmax_gradient(logits_nv: Tensor, targets_n: Tensor, scale: float) -> tuple[Tensor, Tensor]:
    """Scaled sum of cross-entropies of a chunk, and its gradient to the logits (N, V) in their dtype."""
    wide = torch.float64 if logits_nv.dtype == torch.float64 else torch.float32
    x = logits_nv.to(wide)
    lse = x.logsumexp(-1, keepdim=True)
    picked = x.gather(-1, targets_n[:, None])
    gradient = (x - lse).exp() * scale
    gradient.scatter_add_(-1, targets_n[:, None], torch.full_like(picked, -scale))
    return (lse - picked).sum() * scale, gradient.to(logits_nv.dtype)
