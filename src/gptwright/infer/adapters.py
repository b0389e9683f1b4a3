"""LoRA adapters beside a running model: each request may name its own, and one batch holds any mix of them."""

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from gptwright.model.config import ModelConfig
from gptwright.model.lora import LoraLinear, load_adapter
from gptwright.model.transformer import Block, Transformer

PARTS = ("qkv", "out", "gate", "up", "down")
Factors = tuple[Tensor, Tensor]  # (R, K), and (R, N) with the scale in it


@dataclass(frozen=True)
class Adapter:
    """The low-rank updates of one PEFT directory.

    Args:
        number: its own, never 0; separates stored keys and values.
        layers: for each block the factors of each of ``PARTS``, or None where it changes nothing.
    """

    number: int
    layers: list[tuple[Factors | None, ...]]

    @classmethod
    def load(cls, folder: str | Path, config: ModelConfig, number: int) -> "Adapter":
        """Read a PEFT directory for a model of this shape.

        Raises:
            UserError: it is none, or does not fit the model.
        """
        with torch.device("meta"):
            skeleton = Transformer(config)
        # Only the adapter's own factors are real; the frozen weights beside them stay without memory.
        for module in skeleton.modules():
            if isinstance(module, torch.nn.Linear):
                module.weight = torch.nn.Parameter(torch.zeros(()).expand(module.weight.shape))
        load_adapter(skeleton, folder)
        layers: list[tuple[Factors | None, ...]] = []
        for block in skeleton.blocks:
            assert isinstance(block, Block)
            a, f = block.attention, block.feed_forward
            gate, up = (_factors(f.up, half) for half in (0, 1)) if f.gated else (None, _factors(f.up))
            layers.append((_factors(a.qkv), _factors(a.out), gate, up, _factors(f.down)))
        return cls(number, layers)


def with_adapter(model: Transformer, folder: str | Path) -> Transformer:
    """A model with an adapter on it, for reading texts. The frozen weights are shared, not copied.

    Raises:
        UserError: it does not fit the model.
    """
    with torch.device("meta"):
        twin = Transformer(model.config)
    twin.load_state_dict(model.state_dict(), assign=True)
    load_adapter(twin, folder)
    return twin.eval()


def _factors(module: torch.nn.Module, half: int | None = None) -> Factors | None:
    """All parts of a fused layer (or one half of gate and up) as one pair of factors."""
    if not isinstance(module, LoraLinear):
        return None
    total = module.out_features if half is None else module.out_features // 2
    begin = 0 if half is None else half * total
    down, up, at = [], [], 0
    for name, rows, on in module.parts:
        if on and begin <= at < begin + total:
            wide = torch.zeros(module.rank, total)
            wide[:, at - begin : at - begin + rows] = module.scale * module.lora_b[name].detach().float().t()
            down.append(module.lora_a[name].detach().float())
            up.append(wide)
        at += rows
    return (torch.cat(down), torch.cat(up)) if down else None
