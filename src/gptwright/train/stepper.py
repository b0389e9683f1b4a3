"""One optimizer step: working copy of the model, forward and backward in parts, gradients in fp32, update of the masters.

The caller's model holds the masters (fp32, or fp64 for golden runs); with a bf16 dtype a working copy does the arithmetic
and is rewritten from the masters after every step, so its bits follow from theirs.
"""

import copy
from dataclasses import dataclass

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.kernels import Kernels, linear_cross_entropy
from gptwright.model.native import native
from gptwright.model.transformer import Transformer
from gptwright.train.config import TrainConfig
from gptwright.train.data import IGNORE, Batch, as_tensors
from gptwright.train.machine import Machine
from gptwright.train.optim import Optimizer, trainable
from gptwright.train.workers import Workers

MICRO_TOKENS_CPU = 2048  # activations of a block then stay in the last-level cache
MICRO_TOKENS_GPU = 16384


@dataclass(frozen=True)
class StepResult:
    """What a step found out: mean loss over real targets (nats), gradient norm before clipping, number of tokens."""

    loss: float
    grad_norm: float
    tokens: int
    targets: int


class Stepper:
    """Owns the working weights and the optimizer of a run.

    Args:
        model: holds the masters; moved to the machine's device, in fp32 (fp64).
        config: settings.
        machine: what they mean here.
        rows: of a batch; more workers than rows would only keep gradients for nothing. None: not known.
    """

    def __init__(self, model: Transformer, config: TrainConfig, machine: Machine, rows: int | None = None) -> None:
        self.config, self.machine, self.model = config, machine, model
        wide = torch.float64 if machine.dtype == "float64" else torch.float32
        model.to(device=machine.device, dtype=wide)
        self.masters = trainable(model.named_parameters())
        if not self.masters:
            raise UserError("nothing to train: every parameter is frozen")
        self.work = model
        if machine.torch_dtype != wide:
            self.work = copy.deepcopy(model).to(machine.torch_dtype)
        self.work.train()
        self.kernels = kernels_for(machine)
        self.work.kernels = self.kernels
        self.params = trainable(self.work.named_parameters())
        data = {name: p.data for name, p in self.masters.items()}
        self.micro_tokens = config.micro_tokens or (MICRO_TOKENS_CPU if machine.device == "cpu" else MICRO_TOKENS_GPU)
        self.last_seq_len = model.config.seq_len
        self.optimizer = Optimizer(
            data, model.config, config, wide if machine.dtype == "float64" else machine.torch_dtype
        )
        count = min(machine.threads, rows or machine.threads) if machine.device == "cpu" else 1
        self.workers = Workers(self.work, self.optimizer.grads, self.kernels, count)
        self.optimizer.workers, self.optimizer.parallel = count, self.workers.do

    def batch_loss(self, batch: Batch, train: bool = True) -> tuple[float, int, int]:
        """Forward (and backward when training) of a batch in parts of rows.

        Returns:
            Summed loss over targets divided by their count (nats), count of targets, count of tokens.

        Raises:
            UserError: a target is outside the vocabulary; the kernels would write beside the logits.
        """
        tokens, targets = as_tensors(batch)
        highest, vocab = int(targets.max()), self.model.config.vocab_size
        if highest >= vocab:
            raise UserError(
                f"a batch has the token {highest}, the model knows {vocab}: the shards are from another tokenizer",
                where="tokens",
                fix="Encode the corpus with the model's own tokenizer",
            )
        count = int((targets != IGNORE).sum())
        b, t = tokens.shape
        self.last_seq_len = t
        rows = max(1, min(self.micro_tokens // t, -(-b // len(self.workers.workers))))
        scale, device, kernels = 1.0 / max(count, 1), self.machine.device, self.kernels

        def part_loss(model: Transformer, part: int) -> Tensor:
            where = slice(part * rows, (part + 1) * rows)
            goal = targets[where].to(device).reshape(-1)
            hidden = model(tokens[where].to(device))
            return linear_cross_entropy(hidden.reshape(goal.numel(), -1), model.head_weight, goal, scale, kernels)

        return self.workers.run(part_loss, -(-b // rows), train), count, tokens.numel()

    def gradients(self, batch: Batch) -> StepResult:
        """Gradients of a whole batch, not yet applied."""
        loss, count, tokens = self.batch_loss(batch)
        return StepResult(loss, float(self.optimizer.grad_norm()), tokens, count)

    @torch.no_grad()
    def apply(self, step: int, share: float, grad_norm: float) -> None:
        """Clip, update the masters, rewrite the working weights."""
        self.optimizer.step(step, share, min(1.0, self.config.clip_norm / (grad_norm + 1e-12)))
        self.refresh()

    @torch.no_grad()
    def refresh(self) -> None:
        """Working weights from masters."""
        if self.work is not self.model:
            torch._foreach_copy_([p.data for p in self.params.values()], [p.data for p in self.masters.values()])

    @torch.no_grad()
    def evaluate(self, batch: Batch) -> tuple[float, int]:
        """Summed loss (nats) and count of targets of one held-out batch."""
        mean, count, _ = self.batch_loss(batch, train=False)
        return mean * count, count

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
        self.model.kernels = None
        return self.model.eval().cpu()


def kernels_for(machine: Machine) -> Kernels | None:
    """Training's kernels where the machine's choices allow them."""
    library = native() if machine.compiled and machine.device == "cpu" else None
    return None if library is None else Kernels(library, machine.torch_dtype)
