"""Log-probabilities of given targets, differentiable, with logits for a chunk at a time: what losses over whole answers are made of."""

from typing import Any

import torch
from torch import Tensor

from gptwright.model.kernels import CHUNK_ROWS
from gptwright.model.transformer import Transformer
from gptwright.train.data import Rows
from gptwright.train.documents import hidden_states


def target_logprobs(hidden_nd: Tensor, weight_vd: Tensor, targets_n: Tensor, chunk: int = CHUNK_ROWS) -> Tensor:
    """log p(target) of each row, 0 where there is none (-100).

    Gradients of whole answers depend on sums over the answer, so logits are made once more in the backward pass rather than kept.

    Args:
        hidden_nd: (N, D), any float dtype; the products run in it, the softmax in fp32 (fp64 for fp64).
        weight_vd: the head (V, D).
        targets_n: int64 (N,).
        chunk: rows of logits held at once.

    Returns:
        (N,) nats, fp32 (fp64).
    """
    result: Tensor = _TargetLogprobs.apply(hidden_nd, weight_vd, targets_n, chunk)  # type: ignore[no-untyped-call]
    return result


class _TargetLogprobs(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, chunk: int) -> Tensor:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        out = torch.zeros(targets.shape, dtype=wide, device=hidden.device)
        rows = (targets >= 0).nonzero()[:, 0]
        for start in range(0, rows.numel(), chunk):
            index = rows[start : start + chunk]
            logits = (hidden[index] @ weight.t()).to(wide)
            out[index] = logits.gather(-1, targets[index, None])[:, 0] - logits.logsumexp(-1)
        ctx.save_for_backward(hidden, weight, targets, rows)
        ctx.chunk = chunk
        return out

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        hidden, weight, targets, rows = ctx.saved_tensors
        needs_h, needs_w = ctx.needs_input_grad[:2]
        wide = grads[0].dtype
        grad_h = torch.zeros_like(hidden) if needs_h else None
        grad_w = torch.zeros_like(weight, dtype=wide) if needs_w else None
        for start in range(0, rows.numel(), ctx.chunk):
            index = rows[start : start + ctx.chunk]
            h, g = hidden[index], grads[0][index, None]
            d = torch.softmax((h @ weight.t()).to(wide), -1).mul_(-g)
            d.scatter_add_(-1, targets[index, None], g)
            dlogits = d.to(hidden.dtype)
            if grad_h is not None:
                grad_h[index] = dlogits @ weight
            if grad_w is not None:
                grad_w += dlogits.t() @ h
        return grad_h, None if grad_w is None else grad_w.to(weight.dtype), None, None


def token_logprobs(model: Transformer, rows: Rows) -> Tensor:
    """log p of every target of some rows, (R, T), 0 where there is none."""
    hidden = hidden_states(model, rows.tokens, rows.segments)
    return target_logprobs(hidden.reshape(rows.targets.numel(), -1), model.head_weight, rows.targets.reshape(-1)).view(
        rows.targets.shape
    )


def row_logprobs(model: Transformer, rows: Rows) -> Tensor:
    """log p of each row's targets together, (R,) fp64."""
    return token_logprobs(model, rows).double().sum(1)
