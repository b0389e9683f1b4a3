"""A frozen base in a byte a weight, under adapters that are trained: QLoRA's idea with int8, which CPUs multiply after a cheap cast.

Each row of a matrix keeps its own scale (its largest weight / 127). The product runs on the integers, which bf16 holds exactly, and is
scaled afterwards. Embedding, head and norms stay as they are: rounding them costs most.
Source: Dettmers et al., QLoRA (arXiv 2305.14314); row-wise absmax as in LLM.int8 (arXiv 2208.07339), section 2.1.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwright.core.errors import UserError
from gptwright.model.lora import LoraLinear
from gptwright.model.transformer import Transformer


class Int8Linear(nn.Module):
    """y = x W^T + b with W as int8 rows and a scale each; gradients for x alone.

    Attributes:
        weight: int8 (out, in), the name it had, so that nothing else has to know.
        scale: fp32 (out,).
    """

    def __init__(self, base: nn.Linear) -> None:
        super().__init__()
        values, scale = quantize(base.weight.detach())
        self.in_features, self.out_features = base.in_features, base.out_features
        self.weight = nn.Parameter(values, requires_grad=False)
        self.scale = nn.Parameter(scale, requires_grad=False)
        self.bias = base.bias

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y: Tensor = _Int8Product.apply(x, self.weight, self.scale)  # type: ignore[no-untyped-call]
        return y if self.bias is None else y + self.bias


class Int8Lora(LoraLinear):
    """An adapter whose frozen matrix is int8."""

    scale_rows: nn.Parameter

    def forward(self, x: Tensor) -> Tensor:
        """x (..., in) -> (..., out)."""
        y: Tensor = _Int8Product.apply(x, self.weight, self.scale_rows)  # type: ignore[no-untyped-call]
        return (y if self.bias is None else y + self.bias) + self.scale * self._update(x)

    def _update(self, x: Tensor) -> Tensor:
        low = torch.split(F.linear(x, torch.cat(list(self.lora_a.values()))), self.rank, dim=-1)
        low_of = dict(zip(self.lora_a.keys(), low, strict=True))
        parts = [
            F.linear(low_of[name], self.lora_b[name]) if on else x.new_zeros(*x.shape[:-1], rows)
            for name, rows, on in self.parts
        ]
        return torch.cat(parts, dim=-1)


class _Int8Product(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, values: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(values, scale)
        flat = x.reshape(-1, x.shape[-1])
        return ((flat @ values.t().to(x.dtype)) * scale.to(x.dtype)).view(*x.shape[:-1], -1)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        values, scale = ctx.saved_tensors
        g = grads[0] * scale.to(grads[0].dtype)
        return g @ values.to(g.dtype), None, None


def quantize(weight_oi: Tensor) -> tuple[Tensor, Tensor]:
    """Rows of a matrix as int8 and their scales, fp32; ``values * scale`` is within half a step of the weight."""
    wide = weight_oi.float()
    scale = wide.abs().amax(1).clamp(min=1e-12) / 127
    return torch.round(wide / scale[:, None]).to(torch.int8), scale


def quantize_base(model: Transformer) -> int:
    """Turn the frozen matrices of the blocks into int8, in place.

    Args:
        model: with adapters (``apply_lora``).

    Returns:
        Bytes that the matrices take less than in fp32.

    Raises:
        UserError: the model has no adapters: its matrices are what is to be trained.
    """
    if not any(isinstance(module, LoraLinear) for module in model.modules()):
        raise UserError(
            "an int8 base needs adapters to train", where="[finetune] base_dtype", fix='Set adapter = "lora"'
        )
    saved = 0
    for path, module in list(model.blocks.named_modules()):
        if not isinstance(module, nn.Linear) or module.weight.dtype == torch.int8:
            continue
        saved += module.weight.numel() * 3 - 4 * module.out_features
        if isinstance(module, LoraLinear):
            values, scale = quantize(module.weight.detach())
            module.__class__ = Int8Lora  # its adapters and their names stay as they are
            module.weight = nn.Parameter(values, requires_grad=False)
            module.register_parameter("scale_rows", nn.Parameter(scale, requires_grad=False))
        else:
            parent, _, child = path.rpartition(".")
            setattr(model.blocks.get_submodule(parent), child, Int8Linear(module))
    return saved
