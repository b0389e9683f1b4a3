"""Parts of a batch side by side: one Python thread a core, each with its own gradients over shared weights, joined once a step.

Threads inside every operation would meet at thousands of barriers a step. On a quiet machine that costs a few percent; on a busy one,
where a thread may be off its core for milliseconds, it costs nearly everything (measured: 619 instead of several thousand tokens/s).
That holds for zeroing, adding and updating too: OpenMP's threads spin before and after each operation (measured: 41 % of a step's
processor time), so these are shared out among the workers, whose operations have one thread each.
Which part goes to which worker, and the order of the sums, are fixed, so the same number of threads gives the same bits.
"""

import copy
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import torch
from torch import Tensor, nn

from gptwright.model.kernels import Kernels
from gptwright.model.transformer import Transformer
from gptwright.train.optim import shares, trainable

PartLoss = Callable[[Transformer, int], Tensor]


class Worker:
    """A model that shares its weights' memory with the first one, and sums its own gradients."""

    def __init__(self, model: Transformer, sums: dict[str, Tensor], kernels: Kernels | None) -> None:
        self.model, self.sums, self.kernels = model, sums, kernels
        self.params = trainable(model.named_parameters())

    def run(self, part_loss: PartLoss, parts: Sequence[int], train: bool) -> list[Tensor]:
        """Losses of some parts, in order; their gradients are added to ``sums``."""
        losses = []
        with torch.set_grad_enabled(train):
            for part in parts:
                loss = part_loss(self.model, part)
                if train:
                    loss.backward()  # type: ignore[no-untyped-call]
                    self._collect()
                losses.append(loss.detach().cpu().double())  # on the CPU: MPS has no fp64
        return losses

    @torch.no_grad()
    def _collect(self) -> None:
        for name, p in self.params.items():
            if p.grad is None:
                continue
            if self.kernels is not None and p.grad.is_contiguous() and p.grad.dtype == self.kernels.dtype:
                self.kernels.native.call("accumulate", p.grad.dtype, self.sums[name], p.grad, p.grad.numel())
            else:
                self.sums[name] += p.grad
            p.grad = None


class Workers:
    """All workers of a step.

    Args:
        model: the working model; it is the first worker's.
        sums: gradients by name, wide dtype; the first worker's and, after ``run``, everyone's.
        kernels: training's kernels or None.
        count: how many; 1 runs in the calling thread.
    """

    def __init__(self, model: Transformer, sums: dict[str, Tensor], kernels: Kernels | None, count: int) -> None:
        self.workers = [Worker(model, sums, kernels)]
        for _ in range(count - 1):
            own = {name: torch.zeros_like(tensor) for name, tensor in sums.items()}
            self.workers.append(Worker(_twin(model), own, kernels))
        self.threads = torch.get_num_threads()
        self.pool = (
            ThreadPoolExecutor(count, initializer=_quiet_thread, initargs=(max(1, self.threads // count),))
            if count > 1
            else None
        )

    @torch.no_grad()
    def run(self, part_loss: PartLoss, parts: int, train: bool) -> float:
        """Sum of the losses of all parts; gradients, when training, are left in the first worker's sums.

        Args:
            part_loss: (model, number of the part) -> its scaled loss.
            parts: how many.
            train: with gradients.
        """
        if train:
            self.do([partial(torch._foreach_zero_, list(worker.sums.values())) for worker in self.workers])
        shares = [range(first, parts, len(self.workers)) for first in range(len(self.workers))]
        if self.pool is None:
            lists = [self.workers[0].run(part_loss, shares[0], train)]
        else:
            futures = [
                self.pool.submit(w.run, part_loss, share, train) for w, share in zip(self.workers, shares, strict=True)
            ]
            lists = [future.result() for future in futures]
            torch.set_num_threads(self.threads)  # the workers' own setting also became the default for new threads
        if train:
            total = list(self.workers[0].sums.values())
            for worker in self.workers[1:]:
                self.spread(torch._foreach_add_, total, list(worker.sums.values()))
        return float(sum(loss for losses in lists for loss in losses))

    def spread(self, operation: Callable[..., object], *lists: list[Tensor]) -> None:
        """An operation on lists of tensors of the same shapes, each worker doing a share of them.

        Args:
            operation: takes as many lists; what it gives back is dropped.
            lists: as long as each other.
        """
        parts = shares(lists[0], len(self.workers))
        self.do([partial(operation, *(tensors[part] for tensors in lists)) for part in parts])

    def do(self, tasks: Sequence[Callable[[], object]]) -> None:
        """Independent tasks, shared among the workers' threads."""
        if self.pool is None:
            for task in tasks:
                task()
        else:
            for future in [self.pool.submit(task) for task in tasks]:
                future.result()

    def close(self) -> None:
        if self.pool is not None:
            self.pool.shutdown()


def _quiet_thread(threads: int) -> None:
    torch.get_num_threads()  # the first call in a thread takes over the default, so the setting must come after it
    torch.set_num_threads(threads)


def _twin(model: Transformer) -> Transformer:
    """A copy whose parameters are new leaves over the same memory."""
    shared: dict[int, object] = {id(p): nn.Parameter(p.data, requires_grad=p.requires_grad) for p in model.parameters()}
    if model.kernels is not None:
        shared[id(model.kernels)] = model.kernels
    return copy.deepcopy(model, memo=shared)
