"""Attention that ends at a document's border, for rows that hold several: what a token sees does not depend on its row's company.

With training's kernels a row is taken apart: stretches of about the same length are gathered, attended to as rows of their own, and put
back. Nothing is computed and thrown away, so short documents get cheaper, which pays for the copying. Otherwise PyTorch gets a mask.
"""

import threading
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from gptwright.model.kernels import Kernels
from gptwright.model.transformer import Transformer

_SHORTEST = 64  # shorter stretches are padded to this: more, smaller calls would cost more than they save


@dataclass(frozen=True)
class Group:
    """Stretches of at most one length.

    Args:
        places: (N, L) int64, where each position stands in the flat batch; behind a stretch's end its first position again.
        real: (N * L, 1) bool, false behind a stretch's end.
    """

    places: Tensor
    real: Tensor


@dataclass(frozen=True)
class Layout:
    """A batch (B, T) as groups of stretches.

    Args:
        groups: all of them.
        back: (B * T,) int64, where each position stands in the groups laid end to end.
    """

    groups: list[Group]
    back: Tensor


def layout_of(segments: np.ndarray[Any, Any]) -> Layout | None:
    """How to take rows apart; None when every row is one stretch.

    Args:
        segments: (B, T) ints; neighbours of one number belong together.
    """
    b, t = segments.shape
    begins = np.ones((b, t), dtype=bool)
    begins[:, 1:] = segments[:, 1:] != segments[:, :-1]
    starts = np.flatnonzero(begins)
    if len(starts) == b:
        return None
    lengths = np.diff(np.append(starts, b * t))
    # Measured: in short rows padding costs more than further calls, in long ones it is the other way round.
    fine, coarse = -(-lengths // _SHORTEST) * _SHORTEST, 1 << np.ceil(np.log2(lengths)).astype(np.int64)
    sizes = np.minimum(t, fine if t <= 4 * _SHORTEST else np.maximum(_SHORTEST, coarse))
    groups, back, before = [], np.empty(b * t, dtype=np.int64), 0
    for size in np.unique(sizes).tolist():
        mine = sizes == size
        offsets = np.arange(size)
        real = offsets[None] < lengths[mine][:, None]
        places = starts[mine][:, None] + np.where(real, offsets[None], 0)
        back[places[real]] = before + np.flatnonzero(real)
        before += places.size
        groups.append(Group(torch.from_numpy(places), torch.from_numpy(real.reshape(-1, 1))))
    return Layout(groups, torch.from_numpy(back))


class DocumentKernels(Kernels):
    """Training's kernels; inside ``apart`` attention keeps to the layout that this thread gave."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._own = threading.local()

    @contextmanager
    def apart(self, layout: Layout | None) -> Iterator[None]:
        """Calls of this thread attend within the stretches of a layout."""
        self._own.layout = layout
        try:
            yield
        finally:
            self._own.layout = None

    def again(self) -> AbstractContextManager[None]:
        """See ``Kernels``: with the layout of now."""
        return self.apart(getattr(self._own, "layout", None))

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
        """See ``Kernels``. Rotary positions then count from a stretch's start; only distances matter to them."""
        layout: Layout | None = getattr(self._own, "layout", None)
        whole = super().attention
        if layout is None:
            return whole(qkv_btw, n_heads, n_kv_heads, q_norm, k_norm, angles_te, eps)
        b, t, w = qkv_btw.shape
        pieces: tuple[Tensor, ...] = _Apart.apply(qkv_btw.reshape(b * t, w), layout)  # type: ignore[no-untyped-call]
        done = []
        for group, piece in zip(layout.groups, pieces, strict=True):
            n, length = group.places.shape
            angles = None if angles_te is None else angles_te[:length]
            y = whole(piece.view(n, length, w), n_heads, n_kv_heads, q_norm, k_norm, angles, eps)
            done.append(y.reshape(n * length, -1))
        together: Tensor = _Together.apply(layout, *done)  # type: ignore[no-untyped-call]
        return together.view(b, t, -1)


class _Apart(torch.autograd.Function):
    """Positions (B T, W) gathered into one tensor a group. Both directions are gathers: no scattered sums, so fast and in fixed order."""

    @staticmethod
    def forward(ctx: Any, flat: Tensor, layout: Layout) -> tuple[Tensor, ...]:
        ctx.layout = layout
        return tuple(flat.index_select(0, group.places.reshape(-1)) for group in layout.groups)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        laid = [g.reshape(-1, g.shape[-1]) for g in grads]
        return (laid[0] if len(laid) == 1 else torch.cat(laid)).index_select(0, ctx.layout.back), None


class _Together(torch.autograd.Function):
    """The inverse of ``_Apart``; what stands behind a stretch's end is dropped and gets no gradient."""

    @staticmethod
    def forward(ctx: Any, layout: Layout, *pieces: Tensor) -> Tensor:
        ctx.layout = layout
        return (pieces[0] if len(pieces) == 1 else torch.cat(pieces)).index_select(0, layout.back)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Any, ...]:
        groups = ctx.layout.groups
        return None, *(
            grads[0].index_select(0, group.places.reshape(-1)).masked_fill_(~group.real, 0) for group in groups
        )


class DocumentMask:
    """For the plain path: a ``Cache`` that stores nothing and only says who sees whom."""

    def __init__(self, segments_bt: Tensor) -> None:
        t = segments_bt.shape[1]
        # A number may come back later in a row (a document twice): stretches are counted, not numbers compared.
        changes = (segments_bt[:, 1:] != segments_bt[:, :-1]).long().cumsum(1)
        stretch = torch.nn.functional.pad(changes, (1, 0))
        causal = torch.ones(t, t, dtype=torch.bool, device=segments_bt.device).tril()
        self.mask = ((stretch[:, :, None] == stretch[:, None, :]) & causal)[:, None]

    def update(self, layer: int, k_bkte: Tensor, v_bkte: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """See ``model.transformer.Cache``."""
        return k_bkte, v_bkte, self.mask


def hidden_states(model: Transformer, tokens_bt: Tensor, segments: np.ndarray[Any, Any] | None) -> Tensor:
    """Hidden states (B, T, D) of a batch whose tokens see only their own document.

    Args:
        model: its kernels, if any, are ``DocumentKernels``.
        tokens_bt: int64 (B, T).
        segments: (B, T) ints, the document of each token; None: rows are seen as wholes.
    """
    layout = None if segments is None else layout_of(segments)
    if segments is None or layout is None:
        hidden: Tensor = model(tokens_bt)
        return hidden
    kernels = model.kernels
    if isinstance(kernels, DocumentKernels) and kernels.fits(model.embedding.weight):
        with kernels.apart(layout):
            hidden = model(tokens_bt)
        return hidden
    mask = DocumentMask(torch.as_tensor(segments, device=tokens_bt.device))
    hidden = model(tokens_bt, mask)
    return hidden
