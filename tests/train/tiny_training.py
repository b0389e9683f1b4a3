"""A tiny plan in memory and a toy model, shared by the tests of the training room. As a script: one run, to be killed.

python tiny_training.py RUN_DIR JSON_OF_TRAIN_CONFIG [FILE_SIZE_LIMIT_BYTES]
"""

import json
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path

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
    special: dict[int, TinyBatch] = field(default_factory=dict)

    def batch(self, step: int) -> TinyBatch:
        if step in self.special:
            return self.special[step]
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


def main() -> None:
    from gptwright.core.errors import GptwrightError
    from gptwright.train.config import TrainConfig
    from gptwright.train.loop import train

    if len(sys.argv) > 3:
        import resource

        resource.setrlimit(resource.RLIMIT_FSIZE, (int(sys.argv[3]), int(sys.argv[3])))
    torch.set_num_threads(1)
    pause = float(os.environ.get("TINY_PAUSE_S", "0"))  # a step lasts at least this long, for whoever wants to hit one
    try:
        config = TrainConfig(**json.loads(sys.argv[2]))
        train(tiny_config(), TinyPlan(), config, run_dir=Path(sys.argv[1]), callbacks=[lambda info: time.sleep(pause)])
    except GptwrightError as error:
        print(error, file=sys.stderr)
        sys.exit(error.exit_code)


if __name__ == "__main__":
    main()
