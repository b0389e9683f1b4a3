"""Muon for the matrices inside the blocks, AdamW for everything else, over fp32 masters held in one flat buffer each.

Fused matrices are orthogonalised part by part (query, key, value, gate, up), since each part is a map of its own.
Source: Muon (kellerjordan.github.io/posts/muon); AdamW (arXiv 1711.05101); Polar Express (arXiv 2505.16932).
"""

import re
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import pairwise

import torch
from torch import Tensor

from gptwright.model.config import ModelConfig
from gptwright.train.config import TrainConfig

# Coefficients of the odd polynomial per iteration: Polar Express for lower bound 1e-3, with its safety factor of 1.01 inside.
POLAR = (
    (8.156554524902461, -22.48329292557795, 15.878769915207462),
    (4.042929935166739, -2.808917465908714, 0.5000178451051316),
    (3.8916678022926607, -2.772484153217685, 0.5060648178503393),
    (3.285753657755655, -2.3681294933425376, 0.46449024233003106),
    (2.3465413258596377, -1.7097828382687081, 0.42323551169305323),
)
Part = tuple[str, int, int]  # parameter, first row, end row
Task = Callable[[], object]
_BLOCK_MATRIX = re.compile(r"blocks\.\d+\.(attention\.(qkv|out)|feed_forward\.(up|down))\.weight")


def orthogonalise(g_nrc: Tensor, dtype: torch.dtype) -> Tensor:
    """The nearest semi-orthogonal matrices (N, R, C), R <= C, approximately: singular values end near 1.

    Args:
        g_nrc: stacked matrices.
        dtype: of the products; bf16 is enough.
    """
    x = g_nrc.to(dtype)
    x = x / (x.norm(dim=(-2, -1), keepdim=True) * 1.02 + 1e-7)
    for a, b, c in POLAR:
        s = x @ x.mT
        x = torch.baddbmm(x, torch.baddbmm(s, s, s, beta=b, alpha=c), x, beta=a)
    return x


def parts(name: str, shape: torch.Size, config: ModelConfig) -> list[tuple[int, int]] | None:
    """Row ranges of a block's matrix that are maps of their own; None for what Muon does not touch."""
    found = _BLOCK_MATRIX.fullmatch(name)
    if found is None or len(shape) != 2:
        return None
    rows = shape[0]
    if found[2] == "qkv":
        q, kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
        return [(0, q), (q, q + kv), (q + kv, q + 2 * kv)]
    if found[3] == "up" and config.family != "gpt2":
        return [(0, rows // 2), (rows // 2, rows)]
    return [(0, rows)]


class Optimizer:
    """Updates masters in place from gradients in place; its state is two flat buffers.

    Args:
        masters: name -> fp32 (or fp64) tensor, updated in place; iteration order is the layout of the state.
        model_config: tells where fused matrices split.
        config: rates and decay.
        fast_dtype: dtype of Newton-Schulz products.
    """

    def __init__(
        self, masters: Mapping[str, Tensor], model_config: ModelConfig, config: TrainConfig, fast_dtype: torch.dtype
    ) -> None:
        self.config, self.fast_dtype = config, fast_dtype
        self.masters = dict(masters)
        self.grads = {name: torch.zeros_like(p) for name, p in masters.items()}
        self.first = {name: torch.zeros_like(p) for name, p in masters.items()}
        self.groups: dict[tuple[int, int], list[Part]] = {}
        self.workers = 1
        self.parallel: Callable[[list[Task]], None] = _one_by_one
        self.adam: list[str] = []
        for name, p in masters.items():
            split = parts(name, p.shape, model_config) if config.optimizer == "muon" else None
            if split is None:
                self.adam.append(name)
                continue
            for start, end in split:
                r, c = end - start, p.shape[1]
                self.groups.setdefault((min(r, c), max(r, c)), []).append((name, start, end))
        self.second = {name: torch.zeros_like(masters[name]) for name in self.adam}

    def grad_norm(self) -> Tensor:
        """Global L2 norm of the gradients, shape ()."""
        grads = list(self.grads.values())
        parts = shares(grads, self.workers)
        found: list[Sequence[Tensor]] = [()] * len(parts)

        def measure(number: int) -> None:
            found[number] = torch._foreach_norm(grads[parts[number]])

        self.parallel([partial(measure, number) for number in range(len(parts))])
        norm: Tensor = torch.stack([norm for norms in found for norm in norms]).norm()
        return norm

    def step(self, step: int, share: float, clip: float) -> None:
        """One update.

        Args:
            step: 0-based, for Adam's bias correction.
            share: of the peak rates.
            clip: factor on the gradients (at most 1).
        """
        if self.adam:
            self.parallel([partial(self._adam, step, share, clip)])
        self._matrices(share, min(clip, 1.0))

    def _matrices(self, share: float, clip: float) -> None:
        self.parallel([partial(self._muon, entries, share, clip) for entries in self._chunks()])

    def _chunks(self) -> list[list[Part]]:
        """Parts of one shape in stacks, as many stacks as there are workers, the larger shapes first."""
        chunks = []
        for shape in sorted(self.groups, key=lambda rc: -rc[0] * rc[0] * rc[1]):
            entries, count = self.groups[shape], min(self.workers, len(self.groups[shape]))
            chunks += [entries[i * len(entries) // count : (i + 1) * len(entries) // count] for i in range(count)]
        return chunks

    @torch.no_grad()
    def _adam(self, step: int, share: float, clip: float) -> None:
        c = self.config
        if clip < 1:
            torch._foreach_mul_([self.grads[name] for name in self.adam], clip)
        by_rate: dict[tuple[float, float], list[str]] = {}
        for name in self.adam:
            vocabulary = name in ("embedding.weight", "head.weight", "positions.weight")
            block = _BLOCK_MATRIX.fullmatch(name) is not None
            by_rate.setdefault(
                (c.lr_embedding if vocabulary else c.lr_other, c.weight_decay if block else 0.0), []
            ).append(name)
        for (rate, decay), names in by_rate.items():
            torch._fused_adamw_(
                [self.masters[n] for n in names],
                [self.grads[n] for n in names],
                [self.first[n] for n in names],
                [self.second[n] for n in names],
                [],
                [torch.tensor(float(step + 1), device=self.masters[n].device) for n in names],
                lr=rate * share,
                beta1=c.beta1,
                beta2=c.beta2,
                weight_decay=decay,
                eps=1e-10,
                amsgrad=False,
                maximize=False,
            )

    @torch.no_grad()
    def _muon(self, entries: list[Part], share: float, clip: float) -> None:
        pieces = [self._direction(name, start, end, clip) for name, start, end in entries]
        for (name, start, end), update in zip(entries, self._orthogonal(pieces), strict=True):
            self._move(name, start, end, update, share)

    def _direction(self, name: str, start: int, end: int, clip: float) -> Tensor:
        """Some rows' Nesterov momentum, brought up to date (R, C)."""
        gradient, momentum = self.grads[name][start:end].mul_(clip), self.first[name][start:end]
        momentum.lerp_(gradient, 1 - self.config.momentum)
        return gradient.lerp(momentum, self.config.momentum)

    def _orthogonal(self, pieces: list[Tensor]) -> list[Tensor]:
        """Whole matrices (R, C) of one shape or its transpose, orthogonalised together, each in its own shape."""
        wide = [piece if piece.shape[0] <= piece.shape[1] else piece.mT for piece in pieces]
        updates = orthogonalise(torch.stack(wide), self.fast_dtype).unbind()
        return [u if p.shape[0] <= p.shape[1] else u.mT for u, p in zip(updates, pieces, strict=True)]

    def _move(self, name: str, start: int, end: int, update: Tensor, share: float, rows: int | None = None) -> None:
        """Update some rows of a master.

        Args:
            name: of the parameter.
            start: first row.
            end: the row after the last.
            update: orthogonalised (R, C).
            share: of the peak rate.
            rows: of the whole map that these are of, when they are not all of it.
        """
        rate, master = self.config.lr_matrix * share, self.masters[name][start:end]
        scale = max(1.0, (rows or master.shape[0]) / master.shape[1]) ** 0.5
        master.mul_(1 - rate * self.config.weight_decay).add_(update.to(master.dtype), alpha=-rate * scale)

    def state(self) -> dict[str, Tensor]:
        """Every tensor that the next step depends on, by name."""
        return {f"first.{n}": t for n, t in self.first.items()} | {f"second.{n}": t for n, t in self.second.items()}

    def load(self, state: Mapping[str, Tensor]) -> None:
        """Put a state back in place."""
        for name, tensor in self.state().items():
            tensor.copy_(state[name])


def shares(tensors: Sequence[Tensor], count: int) -> list[slice]:
    """A list of tensors cut into at most so many runs of about the same number of elements."""
    ends, total, seen = [0], sum(tensor.numel() for tensor in tensors), 0
    for number, tensor in enumerate(tensors):
        seen += tensor.numel()
        if seen * count >= total * len(ends) and len(ends) < count:
            ends.append(number + 1)
    ends.append(len(tensors))
    return [slice(a, b) for a, b in pairwise(ends) if a < b]


def trainable(named: Iterable[tuple[str, torch.nn.Parameter]]) -> dict[str, torch.nn.Parameter]:
    """The parameters that a run optimises and checkpoints."""
    return {name: p for name, p in named if p.requires_grad}


def _one_by_one(tasks: list[Task]) -> None:
    for task in tasks:
        task()
