"""A tiny plan in memory and a toy model, shared by the tests of the training room."""

from dataclasses import dataclass, field

import pytest
import torch

from gptwright.model.config import ModelConfig


@dataclass
class TinyBatch:
    tokens: torch.Tensor
    targets: torch.Tensor
    docs: list[str]


@dataclass
class TinyPlan:
    """Counting sequences with a seeded start: learnable, and the same batch for the same step."""

    vocab: int = 64
    rows: int = 4
    seq_len: int = 16
    masked: bool = False
    key: str = "tiny"
    poison: dict[int, TinyBatch] = field(default_factory=dict)

    def batch(self, step: int) -> TinyBatch:
        if step in self.poison:
            return self.poison[step]
        generator = torch.Generator().manual_seed(step)
        first = torch.randint(0, self.vocab, (self.rows, 1), generator=generator)
        stride = torch.randint(1, 4, (self.rows, 1), generator=generator)
        ids = (first + stride * torch.arange(self.seq_len + 1)) % self.vocab
        targets = ids[:, 1:].clone()
        if self.masked:
            targets[torch.rand(targets.shape, generator=generator) < 0.6] = -100
        return TinyBatch(ids[:, :-1].clone(), targets, [f"doc-{step}-{row}" for row in range(self.rows)])


def tiny_config(**changes: object) -> ModelConfig:
    values = {
        "vocab_size": 64,
        "n_layers": 2,
        "d_model": 32,
        "n_heads": 2,
        "n_kv_heads": 1,
        "d_head": 16,
        "d_ff": 64,
        "seq_len": 16,
    }
    return ModelConfig(**(values | changes))


@pytest.fixture
def tiny_model() -> ModelConfig:
    return tiny_config()


@pytest.fixture
def plan() -> TinyPlan:
    return TinyPlan()
