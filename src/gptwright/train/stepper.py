"""One optimizer step: working copy of the model, forward and backward in parts, gradients in fp32, update of the masters.

The caller's model holds the masters (fp32, or fp64 for golden runs); with a bf16 dtype a working copy does the arithmetic
and is rewritten from the masters after every step, so its bits follow from theirs.
"""

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.native import native
from gptwright.model.transformer import Transformer
from gptwright.train import accelerate
from gptwright.train.config import TrainConfig
from gptwright.train.data import Array, Batch, Rows, as_tensors, rows_of
from gptwright.train.distributed import ONE, World, flatten
from gptwright.train.documents import DocumentKernels
from gptwright.train.logprobs import row_logprobs
from gptwright.train.machine import Machine
from gptwright.train.objectives import Objective
from gptwright.train.optim import Optimizer, trainable
from gptwright.train.shared import SharedOptimizer
from gptwright.train.workers import Workers

MICRO_TOKENS_CPU = 2048  # activations of a block then stay in the last-level cache
MICRO_TOKENS_GPU = 16384
_NEXT_TOKEN = Objective()


@dataclass(frozen=True)
class StepResult:
    """What a step found out.

    Args:
        loss: mean over what the objective counts (real targets, in nats; pairs; answers).
        grad_norm: before clipping.
        tokens: of the batch.
        targets: how many the objective counts.
        stats: means of what the objective shows besides.
    """

    loss: float
    grad_norm: float
    tokens: int
    targets: int
    stats: Mapping[str, float] = field(default_factory=dict)


class Stepper:
    """Owns the working weights and the optimizer of a run. Several processes hold replicas, each takes its own rows of a batch, and the
    sums of their gradients are joined once a step, in the masters' dtype; ``ShardedStepper`` divides the weights too.

    Args:
        model: holds the masters; moved to the machine's device, in fp32 (fp64).
        config: settings.
        machine: what they mean here.
        rows: of a batch; more workers than rows would only keep gradients for nothing. None: not known.
        objective: what a step minimises; None: next-token prediction.
        world: the processes that train together.
    """

    even = False  # whether every process must run as many parts as the others

    def __init__(
        self,
        model: Transformer,
        config: TrainConfig,
        machine: Machine,
        rows: int | None = None,
        objective: Objective | None = None,
        world: World = ONE,
    ) -> None:
        self.config, self.machine, self.model, self.world = config, machine, model, world
        self.objective = objective or Objective()
        self.masked = config.masks_documents
        self.wide = torch.float64 if machine.dtype == "float64" else torch.float32
        if not any(p.requires_grad for p in model.parameters()):
            raise UserError("nothing to train: every parameter is frozen")
        self.kernels = kernels_for(machine)
        self.work = self._place(model)
        self.work.train()
        self.work.kernels, self.work.recompute = self.kernels, config.activation_checkpointing
        self.masters = trainable(model.named_parameters())
        self.params = trainable(self.work.named_parameters())
        self.micro_tokens = config.micro_tokens or (MICRO_TOKENS_CPU if machine.device == "cpu" else MICRO_TOKENS_GPU)
        self.last_seq_len = model.config.seq_len
        self.optimizer = self._optimizer()
        count = min(machine.threads, rows or machine.threads) if machine.device == "cpu" else 1
        self.workers = self._workers(count)
        self.optimizer.workers, self.optimizer.parallel = len(self.workers.workers), self.workers.do

    def _place(self, model: Transformer) -> Transformer:
        """Put the masters on the device. Returns the model that does the arithmetic."""
        model.to(device=self.machine.device, dtype=self.wide)
        if self.world.size > 1:
            for p in trainable(model.named_parameters()).values():
                self.world.from_main(p.data)
        if self.machine.torch_dtype == self.wide:
            return self._accelerated(model)
        whole = {id(p): p for p in model.parameters() if not p.is_floating_point()}  # int8 bases are not held twice
        return self._accelerated(copy.deepcopy(model, memo=dict(whole)).to(self.machine.torch_dtype))

    def _accelerated(self, work: Transformer) -> Transformer:
        """What a GPU is given besides, in place."""
        if self.config.fp8:
            accelerate.use_fp8(work)
        if self.machine.kernels == "inductor":
            accelerate.compile_blocks(work)
        return work

    def _optimizer(self) -> Optimizer:
        data = {name: p.data for name, p in self.masters.items()}
        fast = self.machine.torch_dtype
        if self.world.size == 1:
            return Optimizer(data, self.model.config, self.config, fast)
        shared = SharedOptimizer(data, self.model.config, self.config, fast, self.world)
        self.flat = flatten(shared.grads)
        return shared

    def _workers(self, count: int) -> Workers:
        return Workers(self.work, self.optimizer.grads, self.kernels, count)

    def _join(self) -> None:
        """After the backward passes of a step: gradients become those of all processes."""
        if self.world.size > 1 and self.flat is not None:
            self.world.add(self.flat)

    def batch_loss(
        self, batch: Batch, train: bool = True, objective: Objective | None = None
    ) -> tuple[float, int, dict[str, float]]:
        """Forward (and backward when training) of a batch in parts of rows; of all processes' rows together.

        Returns:
            Summed loss divided by the objective's count, that count, and the means of its stats.

        Raises:
            UserError: a target is outside the vocabulary; the kernels would write beside the logits.
        """
        objective = objective or self.objective
        count = objective.count(batch)
        scale, stats = 1.0 / max(count, 1), {}

        def part_loss(model: Transformer, number: int, rows: Rows) -> Tensor:
            if number < 0:  # only to keep step with the others
                return objective.loss(model, rows, 0.0, self.kernels)
            loss = objective.loss(model, rows, scale, self.kernels)
            stats[number] = rows.stats
            return loss

        loss = self._in_parts(batch, objective.unit, part_loss, train)
        names = stats.get(0, ())
        loss, *shown = self.world.sums(loss, *(scale * sum(stats[n][name] for n in sorted(stats)) for name in names))
        return loss, count, dict(zip(names, shown, strict=True))

    def _in_parts(
        self, batch: Batch, unit: int, part_loss: Callable[[Transformer, int, Rows], Tensor], train: bool
    ) -> float:
        tokens, targets = as_tensors(batch)
        highest, vocab = int(targets.max()), self.model.config.vocab_size
        if highest >= vocab:
            raise UserError(
                f"a batch has the token {highest}, the model knows {vocab}: the shards are from another tokenizer",
                where="tokens",
                fix="Encode the corpus with the model's own tokenizer",
            )
        b, t = tokens.shape
        self.last_seq_len = t
        mine, most = self.world.rows(b, unit), self.world.most_rows(b, unit)
        rows = max(1, min(self.micro_tokens // t, -(-most // len(self.workers.workers))))
        rows = -(-rows // unit) * unit
        own = -(-len(mine) // rows)

        def part(model: Transformer, number: int) -> Tensor:
            first = mine.start + number * rows
            where = slice(first, min(first + rows, mine.stop)) if number < own else slice(0, unit)
            given = rows_of(batch, where, self.machine.device, self.masked)
            return part_loss(model, number if number < own else -1, given)

        return self.workers.run(part, -(-most // rows) if self.even else own, train)

    @torch.no_grad()
    def logprobs(self, batch: Batch) -> Array:
        """log p of each row's targets together under the working weights, fp64 (B,)."""
        found: dict[int, Tensor] = {}

        def part_loss(model: Transformer, number: int, rows: Rows) -> Tensor:
            found[number] = row_logprobs(model, rows)
            return found[number].sum()

        self._in_parts(batch, 1, part_loss, train=False)
        own = [found[number].cpu().numpy() for number in sorted(found) if number >= 0]
        if self.world.size == 1:
            values: Array = np.concatenate(own)
            return values
        values, mine = np.zeros(len(batch.tokens)), self.world.rows(len(batch.tokens))
        if own:
            values[mine.start : mine.stop] = np.concatenate(own)
        return np.array(self.world.sums(*values.tolist()))

    def gradients(self, batch: Batch) -> StepResult:
        """Gradients of a whole batch, not yet applied."""
        loss, count, stats = self.batch_loss(batch)
        self._join()
        return StepResult(loss, float(self.optimizer.grad_norm()), as_tensors(batch)[0].numel(), count, stats)

    @torch.no_grad()
    def apply(self, step: int, share: float, grad_norm: float) -> None:
        """Clip, update the masters, rewrite the working weights."""
        self.optimizer.step(step, share, min(1.0, self.config.clip_norm / (grad_norm + 1e-12)))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Working weights from masters."""
        if self.work is not self.model:
            working, masters = ([p.data for p in held.values()] for held in (self.params, self.masters))
            self.workers.spread(torch._foreach_copy_, working, masters)

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """Summed loss (nats) and count of targets of one held-out batch."""
        mean, count, _ = self.batch_loss(batch, train=False, objective=_NEXT_TOKEN)
        return mean * count, count

    def norms(self, tensors: Mapping[str, Tensor]) -> list[float]:
        """L2 norms of gradients, masters or their like, of the whole ones where this process holds a part."""
        found: list[float] = torch.stack(list(torch._foreach_norm(list(tensors.values())))).tolist()
        return found

    def tensors(self) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
        """Masters and optimizer state, for checkpoints and snapshots."""
        return {n: p.data for n, p in self.masters.items()}, self.optimizer.state()

    @torch.no_grad()
    def load(self, weights: dict[str, Tensor], state: dict[str, Tensor] | None) -> None:
        """Put masters (and optimizer state) back in place."""
        for name, p in self.masters.items():
            p.data.copy_(weights[name])
        if state is not None:
            self.optimizer.load(state)
        self.refresh()

    def finished(self) -> Transformer:
        """The caller's model, which holds the masters, ready to be used."""
        self.workers.close()
        self.model.kernels, self.model.recompute = None, False
        return accelerate.uncompiled(self.model).eval().cpu()


def kernels_for(machine: Machine) -> DocumentKernels | None:
    """Training's kernels where the machine's choices allow them."""
    library = native() if machine.compiled and machine.device == "cpu" else None
    return None if library is None else DocumentKernels(library, machine.torch_dtype)


def frozen_copy(model: Transformer) -> Transformer:
    """A model as it is now, not to be trained; compiled kernels are shared."""
    shared: dict[int, object] = {} if model.kernels is None else {id(model.kernels): model.kernels}
    return accelerate.uncompiled(copy.deepcopy(model, memo=shared)).requires_grad_(False).eval()
