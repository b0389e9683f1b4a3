"""What a step minimises. The loop and the stepper know an objective by four things: rows that belong together, what a loss is a mean
over, a hook before the gradients, and the loss of some rows. Losses of preferences are in ``preferences.py``, and so on.
"""

from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from gptwright.model.kernels import Kernels, linear_cross_entropy
from gptwright.model.transformer import Transformer
from gptwright.train.data import IGNORE, Batch, Rows, as_tensors
from gptwright.train.documents import hidden_states

if TYPE_CHECKING:
    from gptwright.train.data import Plan
    from gptwright.train.stepper import Stepper


class Objective:
    """The base, which is also next-token prediction: pretraining, SFT and continued training differ by their targets alone.

    Attributes:
        key: names what the objective depends on besides config and plan (a teacher); kept in the run's config.
        unit: rows that belong together and are never split over parts.
        may_be_empty: a batch without anything to learn is passed over instead of refused.
    """

    key = ""
    unit = 1
    may_be_empty = False

    def begin(self, stepper: "Stepper", plan: "Plan", folder: Path) -> None:
        """Before the first step, and before a checkpoint is read: the stepper holds the start weights.

        Args:
            stepper: of the run.
            plan: of the run.
            folder: of the run; what is made once is kept there.
        """

    def gather(self, stepper: "Stepper", batch: Batch, step: int) -> Batch:
        """What the gradients of a step are taken of; with whatever has to be known of the whole batch first.

        Args:
            stepper: may be asked for log-probabilities.
            batch: of the plan.
            step: 0-based; -1 when steps are only timed: nothing is to be kept then.
        """
        return batch

    def count(self, batch: Batch) -> int:
        """What the loss is a mean over: targets."""
        return int((as_tensors(batch)[1] != IGNORE).sum())

    def loss(self, model: Transformer, rows: Rows, scale: float, kernels: Kernels | None) -> Tensor:
        """Loss of some rows, summed and times ``scale`` (1 / count of the batch), shape (). Runs in a worker's thread."""
        goal = rows.targets.reshape(-1)
        hidden = hidden_states(model, rows.tokens, rows.segments)
        return linear_cross_entropy(hidden.reshape(goal.numel(), -1), model.head_weight, goal, scale, kernels)
