"""A toy plan and objective for each way of training, shared by the tests of golden losses, resume, replay and kills."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.model.lora import apply_lora
from gptwright.model.transformer import Transformer
from gptwright.tokens.permute import draw
from gptwright.tokens.preferences import Task
from gptwright.train.config import TrainConfig
from gptwright.train.data import IGNORE, Work
from gptwright.train.distill import Distillation
from gptwright.train.grpo import Answer, Grpo, TaskPlan
from gptwright.train.objectives import Objective
from gptwright.train.preferences import Kto, Preference

NAMES = ("pretrain", "sft", "sft-lora", "packed", "dpo", "dpo-lora", "ipo", "kto", "grpo", "grpo-kl", "best", "distill")


@dataclass
class Answers:
    """Counting sequences: after a prompt of four tokens the good answer goes on counting, the bad one draws at random."""

    n: int = 12
    rows: int = 4
    judged: bool = False
    key: str = "answers"
    n_answers: int = field(init=False)

    def __post_init__(self) -> None:
        self.n_answers = 2 * self.n

    def answers(self, first: int, last: int) -> Work:
        tokens, targets = [], []
        for number in range(first, last):
            prompt, which = divmod(number, 2) if not self.judged else (number % self.n, number // self.n)
            generator = torch.Generator().manual_seed(prompt)
            start = int(torch.randint(0, 64, (), generator=generator))
            ids = (start + torch.arange(17)) % 64
            if which:
                ids[4:] = torch.randint(0, 64, (13,), generator=generator)
            goal = ids[1:].clone()
            goal[:3] = IGNORE
            goal[16 - prompt % 6 :] = IGNORE
            tokens.append(ids[:-1].numpy())
            targets.append(goal.numpy())
        docs = [f"answer-{number}" for number in range(first, last)]
        extra = {"answer": np.arange(first, last), "good": np.arange(first, last) % 3 != 0}
        return Work(np.stack(tokens), np.stack(targets), docs, extra, row_docs=[[doc] for doc in docs])

    def _pick(self, numbers: Sequence[int]) -> Work:
        parts = [self.answers(number, number + 1) for number in numbers]
        return Work(
            np.concatenate([part.tokens for part in parts]),
            np.concatenate([part.targets for part in parts]),
            [part.docs[0] for part in parts],
            {name: np.concatenate([part.extra[name] for part in parts]) for name in ("answer", "good")},
            row_docs=[part.row_docs[0] for part in parts],
        )

    def batch(self, step: int) -> Any:
        first = step * self.rows // 2
        if not self.judged:
            return self._pick([2 * ((first + i) % self.n) + which for i in range(self.rows // 2) for which in (0, 1)])
        numbers = [(step * self.rows + i) % self.n for i in range(self.rows)]
        own = self._pick(numbers)
        object.__setattr__(own, "mismatched", self._pick([self.n + number for number in numbers]))
        return own


@dataclass
class Packed(TinyPlan):
    """Rows of several counting sequences, which end anywhere."""

    def batch(self, step: int) -> Work:
        found = super().batch(step)
        generator = torch.Generator().manual_seed(1000 + step)
        segments = (torch.rand(found.tokens.shape, generator=generator) < 0.2).long().cumsum(1)
        return Work(
            found.tokens.numpy(), found.targets.numpy(), found.docs, {}, segments.numpy(), [[doc] for doc in found.docs]
        )


def toy_sample(model: Transformer, prompts: Sequence[Sequence[int]], seeds: Sequence[int]) -> list[Answer]:
    """Draws from the model's probabilities with a generator of its own; plain and slow."""
    kernels, model.kernels = model.kernels, None
    found = []
    for prompt, seed in zip(prompts, seeds, strict=True):
        ids = list(prompt)
        for place in range(6):
            with torch.no_grad():
                logits = model.logits(model(torch.tensor([ids])))[0, -1].double()
            chances = torch.softmax(logits, 0).cumsum(0)
            at = draw(1 << 40, seed, place) / (1 << 40)
            ids.append(min(63, int((chances < at).sum())))
        found.append(Answer(ids[len(prompt) :], " ".join(map(str, ids[len(prompt) :]))))
    model.kernels = kernels
    return found


def toy_reward(tasks: Sequence[Task], answers: Sequence[str]) -> list[float]:
    """How many tokens are even."""
    return [sum(int(token) % 2 == 0 for token in answer.split()) / 6 for answer in answers]


def tasks(config: TrainConfig) -> TaskPlan:
    made = [Task(f"task-{n}", [], None, {}) for n in range(5)]
    return TaskPlan(made, [[n, n + 1, n + 2] for n in range(5)], 2, config.group_size)


def teacher() -> Transformer:
    model = Transformer(tiny_config(d_model=48, n_heads=3, n_kv_heads=3, n_layers=1))
    model.init_weights(9)
    with torch.no_grad():
        model.embedding.weight.mul_(8)  # so that it has opinions
    return model


@dataclass
class Case:
    """What ``train`` needs for one way of training. ``build`` makes it anew, with fresh start weights."""

    name: str
    model: Transformer
    plan: Any
    config: TrainConfig
    objective: Objective


def build(name: str, **changes: Any) -> Case:
    base, _, lora = name.partition("-lora")
    objective_name = {"packed": "sft", "grpo-kl": "grpo", "best": "grpo"}.get(base, base)
    values: dict[str, Any] = {"objective": objective_name, "max_steps": 8, "micro_tokens": 32, "threads": 1}
    # No defaults: a rising rate and a decay are part of what the golden curves hold fast.
    values |= {"warmup_share": 0.02, "weight_decay": 0.1}
    if base in ("grpo", "grpo-kl", "best"):
        values |= {"group_size": 4, "beta": 0.2 if base == "grpo-kl" else 0.0}
        values |= {"advantage": "best" if base == "best" else "group"}
    config = TrainConfig(**{**values, **changes})
    model = Transformer(tiny_config())
    model.init_weights(config.seed)
    if lora or name.endswith("-lora"):
        apply_lora(model, rank=4, alpha=8.0)
    makers: dict[str, Callable[[], tuple[Any, Objective]]] = {
        "pretrain": lambda: (TinyPlan(), Objective()),
        "sft": lambda: (TinyPlan(masked=True), Objective()),
        "packed": lambda: (Packed(), Objective()),
        "dpo": lambda: (Answers(), Preference("dpo", config.beta)),
        "ipo": lambda: (Answers(), Preference("ipo", config.beta)),
        "kto": lambda: (Answers(judged=True), Kto(config.beta, 1.0, 1.2)),
        "distill": lambda: (TinyPlan(), Distillation(teacher(), 0.7, 2.0)),
    }
    grpo = lambda: (tasks(config), Grpo(toy_sample, toy_reward, config))  # noqa: E731
    plan, objective = makers.get(base, grpo)()
    return Case(name, model, plan, config, objective)
