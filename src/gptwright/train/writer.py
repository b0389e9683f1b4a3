"""Checkpoints written while training goes on: tensors are copied, which is the only pause, and a thread does the rest.

At most one write is under way. The next one and the end of the run wait for it, and are told of its error. Of several processes the main one
writes for all; of weights that are divided each writes its own part.
"""

from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from dataclasses import replace
from pathlib import Path

import torch
from torch import Tensor

from gptwright.core.errors import GptwrightError
from gptwright.train import shards
from gptwright.train.checkpoint import Checkpoint, save_checkpoint
from gptwright.train.distributed import ONE, World


class CheckpointWriter:
    """Writes checkpoints of one run.

    Args:
        background: in a thread; else in the caller's.
        keep: numbered checkpoints that stay.
        world: the processes of the run.
    """

    def __init__(self, background: bool, keep: int, world: World = ONE) -> None:
        self.keep, self.world = keep, world
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="gptwright-checkpoint") if background else None
        self._pending: Future[Path] | None = None

    def save(self, folder: Path, checkpoint: Checkpoint, name: str | None = None) -> None:
        """Write a checkpoint; see ``save_checkpoint``. The tensors may change as soon as this returns.

        Raises:
            UserError: the disk is full; perhaps since the write before.
        """
        self.wait()
        if not self.world.is_main and not shards.divided(checkpoint.weights):
            return
        if self._pool is None:
            save_checkpoint(folder, checkpoint, name, self.keep, self.world)
            return
        optimizer = _copies(checkpoint.optimizer) | {"rng": torch.get_rng_state()}
        copied = replace(checkpoint, weights=_copies(checkpoint.weights), optimizer=optimizer)
        self._pending = self._pool.submit(save_checkpoint, folder, copied, name, self.keep, self.world)

    def wait(self) -> None:
        """Until nothing is under way.

        Raises:
            UserError: what was under way failed.
        """
        pending, self._pending = self._pending, None
        if pending is not None:
            pending.result()

    def close(self) -> None:
        """Wait, and end the thread. For the way out of a failed run: an error of a write is not raised over the run's own."""
        with suppress(GptwrightError, OSError, RuntimeError):  # RuntimeError: another process is gone
            self.wait()
        if self._pool is not None:
            self._pool.shutdown()


def _copies(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {name: shards.copied(tensor) for name, tensor in tensors.items()}
