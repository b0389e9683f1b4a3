"""Learning from answers that can be checked: a group of answers to each task is drawn, rewarded, and compared within the group.

One update for each drawing, so the policy's ratio to what drew is 1 there, clipping has nothing to do, and the gradient is that of
-advantage * log p, which is what the loss shows (with ``advantage = "best"`` the cross-entropy of kept answers). Answers without advantage
are not counted. What was drawn and rewarded is written before it acts: a reward may depend on a clock, so it is never asked twice for the same step.
Source: GRPO (DeepSeekMath, arXiv 2402.03300), eq. 3 and section 4.1; loss over all tokens alike (DAPO, arXiv 2503.14476, section 3.3).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Protocol, cast

import numpy as np
import torch
from torch import Tensor

from gptwright.core.files import read_json, write_json
from gptwright.core.hashing import b2_json
from gptwright.model.kernels import Kernels
from gptwright.model.transformer import Transformer
from gptwright.tokens.permute import Permutation, draw
from gptwright.tokens.preferences import Task
from gptwright.tokens.slots import RowSlots
from gptwright.train.config import TrainConfig
from gptwright.train.data import IGNORE, Array, Batch, Plan, Rows, Work
from gptwright.train.logprobs import token_logprobs
from gptwright.train.objectives import Objective
from gptwright.train.stepper import Stepper, frozen_copy

_ROUND = 16


@dataclass(frozen=True)
class TaskBatch:
    """Tasks of a step, their prompts as tokens. As a batch it has a row for each answer to come, and no targets yet."""

    tasks: Sequence[Task]
    prompts: Sequence[Sequence[int]]
    tokens: Array
    targets: Array
    docs: Sequence[str]


@dataclass(frozen=True)
class Answer:
    """A drawn answer: its tokens, the ending one included when it came, and its text."""

    ids: list[int]
    text: str


class Sampler(Protocol):
    """Draws answers from a model's present weights; the same seeds give the same answers."""

    def __call__(self, model: Transformer, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]: ...


class Reward(Protocol):
    """Judges answers; higher is better."""

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str], /) -> list[float]: ...


class TaskPlan:
    """Which tasks stand in which step.

    Args:
        tasks: rows of the file.
        prompts: token ids of each, up to where the assistant begins.
        batch_size: tasks in a step.
        group_size: answers drawn for each.
        seed: another seed, another order.
    """

    def __init__(
        self, tasks: Sequence[Task], prompts: Sequence[Sequence[int]], batch_size: int, group_size: int, seed: int = 0
    ) -> None:
        self.tasks, self.prompts, self.batch_size, self.group_size = tasks, prompts, batch_size, group_size
        self.seed = seed
        rows = [[task.uid, task.answer, list(ids)] for task, ids in zip(tasks, prompts, strict=True)]
        self.key = b2_json(["tasks", rows, batch_size, group_size, seed])

    def batch(self, step: int) -> TaskBatch:
        """The tasks of a step (from 0)."""
        n, numbers = len(self.tasks), []
        for slot in range(step * self.batch_size, (step + 1) * self.batch_size):
            epoch, place = divmod(slot, n)
            numbers.append(int(Permutation(n, "tasks", self.seed, epoch)(place)[0]))
        tasks = [self.tasks[number] for number in numbers]
        shape = (len(tasks) * self.group_size, _ROUND)
        empty = np.zeros(shape, dtype=np.int64)
        return TaskBatch(tasks, [self.prompts[n] for n in numbers], empty, empty + IGNORE, [task.uid for task in tasks])

    def slots(self) -> RowSlots:
        """Which task stands in which step."""
        uids, n = np.array([task.uid for task in self.tasks]), len(self.tasks)
        return RowSlots(uids, np.arange(n), np.arange(n + 1), self.batch_size, self.seed, "tasks")


class Grpo(Objective):
    """GRPO, or with ``advantage = "best"`` learning the rewarded answers alone (rejection sampling).

    Args:
        sample: draws answers.
        reward: judges them.
        config: group_size, advantage, beta, seed.
    """

    may_be_empty = True

    def __init__(self, sample: Sampler, reward: Reward, config: TrainConfig) -> None:
        self.sample, self.reward, self.config = sample, reward, config
        self.start: Transformer | None = None
        self.folder = Path()

    def begin(self, stepper: Stepper, plan: Plan, folder: Path) -> None:
        """Keep the start weights when the divergence from them is part of the loss."""
        self.folder = folder / "rollouts"
        if self.config.beta > 0:
            self.start = frozen_copy(stepper.work)

    def gather(self, stepper: Stepper, batch: Batch, step: int) -> Batch:
        """Draw and reward answers, or read what was drawn."""
        given = cast(TaskBatch, batch)
        kept = stepper.world.share(partial(self._drawn, stepper, given, step))
        answers: list[list[int]] = kept["answers"]
        prompts = [prompt for prompt in given.prompts for _ in range(self.config.group_size)]
        weights = advantages(np.array(kept["rewards"]), self.config.group_size, self.config.advantage)
        longest = max(len(p) + len(a) for p, a in zip(prompts, answers, strict=True)) - 1
        shape = (len(answers), -(-longest // _ROUND) * _ROUND)
        tokens, targets = np.zeros(shape, dtype=np.int64), np.full(shape, IGNORE, dtype=np.int64)
        for row, (prompt, answer) in enumerate(zip(prompts, answers, strict=True)):
            ids = [*prompt, *answer]
            tokens[row, : len(ids) - 1] = ids[:-1]
            if weights[row] != 0 or self.start is not None:
                targets[row, len(prompt) - 1 : len(ids) - 1] = answer
        docs = [uid for uid in given.docs for _ in range(self.config.group_size)]
        count = int((targets != IGNORE).sum())
        # A step divides its stats by targets; the mean reward is over answers.
        extra = {"advantage": weights, "shown": np.array(kept["rewards"], dtype=np.float64) * count / len(answers)}
        return Work(tokens, targets, given.docs, extra, row_docs=[[uid] for uid in docs])

    def _drawn(self, stepper: Stepper, given: TaskBatch, step: int) -> dict[str, Any]:
        path = self.folder / f"step-{step:08d}.json"
        if step >= 0 and path.is_file():
            kept: dict[str, Any] = read_json(path)
            return kept
        kept = self._draw(stepper, given, step)
        if step >= 0:
            write_json(path, kept)
        return kept

    def _draw(self, stepper: Stepper, given: TaskBatch, step: int) -> dict[str, Any]:
        size = self.config.group_size
        prompts = [prompt for prompt in given.prompts for _ in range(size)]
        seeds = [draw(1 << 53, "grpo", self.config.seed, step, row) for row in range(len(prompts))]
        drawn = self.sample(stepper.work, prompts, seeds)
        stepper.work.train()
        tasks = [task for task in given.tasks for _ in range(size)]
        rewards = self.reward(tasks, [answer.text for answer in drawn])
        return {"answers": [answer.ids for answer in drawn], "rewards": [float(value) for value in rewards]}

    def loss(self, model: Transformer, rows: Rows, scale: float, kernels: Kernels | None) -> Tensor:
        """See ``Objective``."""
        logp = token_logprobs(model, rows)
        real = rows.targets >= 0
        losses = -rows.extra["advantage"][:, None].to(logp.dtype) * logp * real
        rows.stats["reward"] = float(rows.extra["shown"].sum())
        if self.start is not None:
            with torch.no_grad():
                before = token_logprobs(self.start, rows)
            away = before - logp
            losses = losses + self.config.beta * (away.exp() - away - 1) * real  # never below 0 (Schulman's k3)
        return losses.sum() * scale


def advantages(rewards: Array, group: int, kind: str) -> Array:
    """How much each answer is to be learnt, fp64 like ``rewards`` (N,), N a multiple of ``group``.

    Args:
        rewards: group after group.
        group: answers of a task.
        kind: "group": less the group's mean, over its standard deviation (ddof 1, + 1e-4); "best": 1 for answers rewarded above 0 and at
            least as well as any of their group, else 0.
    """
    by_group = rewards.astype(np.float64).reshape(-1, group)
    if kind == "best":
        best: Array = ((by_group > 0) & (by_group == by_group.max(1, keepdims=True))).astype(np.float64)
        return best.reshape(-1)
    centred = by_group - by_group.mean(1, keepdims=True)
    scaled: Array = centred / (by_group.std(1, ddof=1, keepdims=True) + 1e-4)
    return scaled.reshape(-1)
