"""Weights as the compiled kernels read them: panels of 64 rows, 4 bytes of each row side by side, in four number formats.

int8: a scale for each row, taken so that its largest weight is 127. int4: a scale for each 32 weights of a row, the one of 13 tried that has
the smallest squared error. Activations are rounded to int8 while the model runs, by groups of 64 (32 beside int4); see tiles.h.

Source: round-to-nearest with a searched clip, as in AWQ's weight clipping (arXiv 2306.00978, section 3.2); dynamic activations by groups
as in ZeroQuant (2206.01861, section 4.1).
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

COLS = 64
F32, BF16, INT8, INT4 = 0, 1, 2, 3
GROUP = {INT8: 64, INT4: 32}


@dataclass(frozen=True)
class Packed:
    """A matrix in panels.

    Args:
        kind: F32, BF16, INT8 or INT4.
        rows: outputs, N.
        columns: inputs, K.
        weight: the panels.
        scale: int8: fp32, one for each row; int4: bf16 (panels, groups, 64); else None.
    """

    kind: int
    rows: int
    columns: int
    weight: Tensor
    scale: Tensor | None

    @property
    def size_bytes(self) -> int:
        """Bytes in memory."""
        return sum(t.numel() * t.element_size() for t in (self.weight, self.scale) if t is not None)


def pack(weight_nk: Tensor, kind: int) -> Packed:
    """Pack a matrix (N, K) of a linear layer."""
    rows, columns = weight_nk.shape
    w = weight_nk.detach().float().cpu()
    if kind == F32:
        return Packed(kind, rows, columns, _panels(w, 1), None)
    if kind == BF16:
        return Packed(kind, rows, columns, _panels(w.bfloat16(), 2), None)
    w = F.pad(w, (0, -columns % GROUP[kind], 0, -rows % COLS))
    if kind == INT8:
        scale = _safe(w.abs().amax(1) / 127)
        return Packed(kind, rows, columns, _panels((w / scale[:, None]).round_().add_(128).to(torch.uint8), 4), scale)
    q, scales = quantize_int4(w)
    panels = len(w) // COLS
    # (panel, unit, half, low or high nibble, 16 columns x 4)
    nibbles = _panels(q, 4).view(panels, -1, 2, 2, 64)
    packed = (nibbles[:, :, :, 0] | (nibbles[:, :, :, 1] << 4)).contiguous()
    return Packed(kind, rows, columns, packed, scales.view(panels, COLS, -1).transpose(1, 2).contiguous())


def quantize_int4(w: Tensor) -> tuple[Tensor, Tensor]:
    """Groups of 32 as values 0 .. 15 (8 means zero).

    Args:
        w: fp32 (N, K), K a multiple of 32.

    Returns:
        uint8 (N, K), and bf16 scales (N, K / 32); a scale may be negative, so that the largest weight of either sign can be 8 steps away.
    """
    groups = w.view(-1, GROUP[INT4])
    extreme = groups.gather(1, groups.abs().argmax(1, keepdim=True))
    best = torch.full_like(extreme, torch.inf)
    chosen = torch.ones_like(extreme)
    for share in torch.linspace(0.75, 1.05, 13).tolist():
        scale = _safe((-extreme * share / 8).bfloat16().float())
        error = ((groups / scale).round_().clamp_(-8, 7) * scale - groups).square_().sum(1, keepdim=True)
        better = error < best
        best, chosen = torch.where(better, error, best), torch.where(better, scale, chosen)
    q = (groups / chosen).round_().clamp_(-8, 7).add_(8).to(torch.uint8)
    return q.view(w.shape), chosen.view(len(w), -1).bfloat16()


def unpack(packed: Packed) -> Tensor:
    """The matrix that a packed one stands for, fp32 (N, K); for tests and for running without a compiler."""
    panels = -(-packed.rows // COLS)
    if packed.kind == INT4:
        assert packed.scale is not None
        both = torch.stack([packed.weight & 15, packed.weight >> 4], dim=3)
        q = both.view(panels, -1, COLS, 4).transpose(1, 2).reshape(panels * COLS, -1).float() - 8
        w = q * packed.scale.float().transpose(1, 2).reshape(panels * COLS, -1).repeat_interleave(GROUP[INT4], dim=1)
    elif packed.kind == INT8:
        assert packed.scale is not None
        q = packed.weight.view(panels, -1, COLS, 4).transpose(1, 2).reshape(panels * COLS, -1).float() - 128
        w = q * packed.scale[:, None]
    else:
        each = 1 if packed.kind == F32 else 2
        w = packed.weight.view(panels, -1, COLS, each).transpose(1, 2).reshape(panels * COLS, -1).float()
    return w[: packed.rows, : packed.columns]


def round_rows(x: Tensor, kind: int) -> Tensor:
    """Activations as the integer kernels see them: by groups, the largest of each at 127; fp32 out."""
    size = GROUP[kind]
    padded = F.pad(x.float(), (0, -x.shape[-1] % size))
    groups = padded.view(*x.shape[:-1], -1, size)
    top = groups.abs().amax(-1, keepdim=True)
    q = (groups * torch.where(top > 0, 127 / top, 0)).round()
    return (q * (top / 127)).view(padded.shape)[..., : x.shape[-1]]


def _safe(scale: Tensor) -> Tensor:
    return torch.where(scale == 0, torch.ones_like(scale), scale)


def _panels(w: Tensor, each: int) -> Tensor:
    """(panels, units, 64, each), padded by zeros."""
    w = F.pad(w, (0, -w.shape[1] % each, 0, -w.shape[0] % COLS))
    return w.view(-1, COLS, w.shape[1] // each, each).transpose(1, 2).contiguous()
