"""What GPUs are given besides: blocks through torch.compile, and 8-bit products through torchao. The rest of training is the same code.

Flash attention needs nothing: the transformer calls PyTorch's scaled_dot_product_attention, which takes it where device, dtype and mask allow.
"""

import importlib.util
from typing import Any

import torch
from torch import nn

from gptwright.core.errors import UserError, require
from gptwright.model.transformer import Transformer

FP8_CAPABILITY = (
    8,
    9,
)  # Ada; Hopper is 9.0. Source: CUDA C++ Programming Guide, table of arithmetic by compute capability


def compiler_missing() -> str | None:
    """Why torch.compile cannot make code for a GPU here; None where it can."""
    return None if importlib.util.find_spec("triton") is not None else "triton is not installed"


def compile_blocks(model: Transformer, backend: str = "inductor") -> None:
    """Compile the inside of each block, in place. All blocks are alike, so that one is compiled and the others reuse it.

    Args:
        model: whose blocks' calls, with the hooks around them that gather weights, stay as they are.
        backend: of torch.compile.
    """
    for block in model.blocks:
        block.forward = torch.compile(block.forward, backend=backend)


def uncompiled(model: Transformer) -> Transformer:
    """A copied model whose blocks are its own again: a compiled call belongs to the block that it was made for."""
    for block in model.blocks:
        block.__dict__.pop("forward", None)
    return model


def check_fp8(device: str) -> None:
    """Whether 8-bit products can be had.

    Raises:
        UserError: not on this device, or torchao is missing.
    """
    if device != "cuda":
        raise UserError(f"fp8 needs a GPU, and this runs on {device}", where="fp8", fix="Set fp8 = false")
    found = torch.cuda.get_device_capability()
    if found < FP8_CAPABILITY:
        raise UserError(
            f"fp8 needs compute capability {FP8_CAPABILITY[0]}.{FP8_CAPABILITY[1]} (Ada, Hopper or later), "
            f"{torch.cuda.get_device_name()} has {found[0]}.{found[1]}",
            where="fp8",
            fix="Set fp8 = false",
        )
    require("torchao", "fp8")


def use_fp8(model: Transformer, emulate: bool = False) -> int:
    """Turn the plain matrices of the blocks into ones whose products are of 8-bit floats, in place; names and weights stay.

    Adapters, the embedding and the head stay as they are, and so do matrices whose sides are not multiples of 16, which the products need.

    Args:
        model: with the working weights.
        emulate: compute the same in wider floats, for devices without 8-bit units.

    Returns:
        How many matrices.
    """
    float8: Any = require("torchao.float8", "fp8")

    def fits(module: nn.Module, _name: str) -> bool:
        return type(module) is nn.Linear and module.in_features % 16 == 0 and module.out_features % 16 == 0

    count = sum(fits(module, "") for module in model.blocks.modules())
    float8.convert_to_float8_training(
        model.blocks, module_filter_fn=fits, config=float8.Float8LinearConfig(emulate=emulate)
    )
    return count
