"""Learning from a teacher's probabilities: the divergence of the student from the teacher at every target, a chunk of logits at a time.

Source: Hinton et al. (arXiv 1503.02531), section 2: softened distributions, gradients scaled by the squared temperature; forward KL, as
there, since the student is to cover what the teacher finds possible.
"""

from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.kernels import CHUNK_ROWS, Kernels, softmax_gradient
from gptwright.model.transformer import Transformer
from gptwright.train.data import Plan, Rows
from gptwright.train.documents import hidden_states
from gptwright.train.objectives import Objective
from gptwright.train.stepper import Stepper, frozen_copy


def check_tokenizers(student_hash: str, teacher_hash: str, teacher: str) -> None:
    """A teacher's probabilities are of its own tokens.

    Raises:
        UserError: the two tokenizers differ.
    """
    if student_hash != teacher_hash:
        raise UserError(
            "the teacher has another tokenizer than the student, so its probabilities are of other tokens",
            where=teacher,
            fix='Take a teacher of the same family, or fine-tune on texts that the teacher writes (method = "sft")',
        )


class Distillation(Objective):
    """The mean over targets of ``share * T^2 * KL(teacher || student) + (1 - share) * cross-entropy``.

    Args:
        teacher: is copied, and frozen.
        share: weight of the teacher.
        temperature: T.
        key: names the teacher's weights, kept in the run's config.
    """

    def __init__(self, teacher: Transformer, share: float, temperature: float, key: str = "") -> None:
        self.teacher, self.share, self.temperature = teacher, share, temperature
        self.key = f"teacher {key}" if key else ""

    def begin(self, stepper: Stepper, plan: Plan, folder: Path) -> None:
        """The teacher goes to the student's device and dtype, and gets the kernels."""
        self.teacher = frozen_copy(self.teacher).to(device=stepper.machine.device, dtype=stepper.machine.torch_dtype)
        self.teacher.kernels = stepper.kernels

    def loss(self, model: Transformer, rows: Rows, scale: float, kernels: Kernels | None) -> Tensor:
        """See ``Objective``."""
        goal = rows.targets.reshape(-1)
        with torch.no_grad():
            theirs = hidden_states(self.teacher, rows.tokens, rows.segments).reshape(goal.numel(), -1)
        hidden = hidden_states(model, rows.tokens, rows.segments).reshape(goal.numel(), -1)
        loss, divergence = distillation_loss(
            hidden, model.head_weight, theirs, self.teacher.head_weight, goal, scale, self.share, self.temperature
        )
        rows.stats["divergence"] = float(divergence)
        return loss


def distillation_loss(
    hidden_nd: Tensor,
    weight_vd: Tensor,
    teacher_ne: Tensor,
    teacher_ve: Tensor,
    targets_n: Tensor,
    scale: float,
    share: float,
    temperature: float,
    chunk: int = CHUNK_ROWS,
) -> tuple[Tensor, Tensor]:
    """Summed loss times ``scale`` with gradients for the student, and the plain sum of divergences (detached).

    Args:
        hidden_nd: the student's hidden states (N, D).
        weight_vd: its head (V, D); columns that the teacher lacks are padding and are left out of the divergence.
        teacher_ne: the teacher's hidden states (N, E).
        teacher_ve: its head.
        targets_n: int64 (N,), -100 carries no loss.
        scale: 1 / number of targets of the step.
        share: weight of the teacher.
        temperature: softens both.
        chunk: rows of logits held at once.
    """
    train = torch.is_grad_enabled()
    both: tuple[Tensor, Tensor] = _Distil.apply(  # type: ignore[no-untyped-call]
        hidden_nd, weight_vd, teacher_ne, teacher_ve, targets_n, scale, share, temperature, chunk, train
    )
    return both


class _Distil(torch.autograd.Function):
    """Gradients are made in the forward pass, chunk by chunk, as in the kernels' cross-entropy."""

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        teacher: Tensor,
        teacher_weight: Tensor,
        targets: Tensor,
        scale: float,
        share: float,
        t: float,
        chunk: int,
        train: bool,
    ) -> tuple[Tensor, Tensor]:
        wide = torch.float64 if hidden.dtype == torch.float64 else torch.float32
        needs_h, needs_w = (train and needed for needed in ctx.needs_input_grad[:2])
        loss = torch.zeros((), dtype=wide, device=hidden.device)
        divergence = torch.zeros_like(loss)
        grad_h = torch.zeros_like(hidden) if needs_h else None
        grad_w = torch.zeros_like(weight, dtype=wide) if needs_w else None
        rows = (targets >= 0).nonzero()[:, 0]
        common = min(weight.shape[0], teacher_weight.shape[0])
        for start in range(0, rows.numel(), chunk):
            index = rows[start : start + chunk]
            h = hidden[index]
            logits = h @ weight.t()
            entropy, gradient = softmax_gradient(logits.to(wide), targets[index], scale)
            ours = torch.log_softmax(logits[:, :common].to(wide) / t, -1)
            theirs = torch.log_softmax((teacher[index] @ teacher_weight[:common].t()).to(wide) / t, -1)
            p = theirs.exp()
            kl = (p * (theirs - ours)).sum()
            loss += (1 - share) * entropy + share * t * t * scale * kl
            divergence += kl
            gradient *= 1 - share
            gradient[:, :common] += (share * t * scale) * (ours.exp() - p)
            dlogits = gradient.to(hidden.dtype)
            if grad_h is not None:
                grad_h[index] = dlogits @ weight
            if grad_w is not None:
                grad_w += dlogits.t() @ h
        ctx.save_for_backward(grad_h, None if grad_w is None else grad_w.to(weight.dtype))
        ctx.mark_non_differentiable(divergence)
        return loss, divergence

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        grad_h, grad_w = ctx.saved_tensors
        factor = grads[0]
        scaled = (None if g is None else g * factor.to(g.dtype) for g in (grad_h, grad_w))
        return *scaled, None, None, None, None, None, None, None, None
