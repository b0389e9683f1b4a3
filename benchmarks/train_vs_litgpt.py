"""Training speed: gptwright against litgpt's own pretraining (``litgpt.pretrain.setup``) on the CPU, the same shape and batch.

litgpt is not among gptwright's dependencies: run this with a Python that has both (``pip install --no-deps litgpt==0.5.13``, and lightning).
It keeps its defaults: bf16 in the precision it chooses itself, torch.compile, four rows to a micro batch, AdamW, chunked cross-entropy;
a step is 16 x 512 tokens. Its compilation is not timed. ``--eager`` leaves torch.compile out. Each side runs in a process of its own.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader, Dataset

from gptwright.model.config import ModelConfig
from train_common import ROWS, SEQ_LEN, RandomRows, as_litgpt, compare_widths, speed_arguments, speeds, train_ours

MICRO_ROWS = 4
WARM_UP = 2  # steps


class RowsOfIds(Dataset[torch.Tensor]):
    """Rows of T + 1 ids."""

    def __init__(self, steps: int) -> None:
        self.steps, self.plan = steps, RandomRows()

    def __len__(self) -> int:
        return self.steps * ROWS

    def __getitem__(self, index: int) -> torch.Tensor:
        batch, row = self.plan.batch(index // ROWS), index % ROWS
        return torch.cat([torch.as_tensor(batch.tokens[row]), torch.as_tensor(batch.targets[row][-1:])])


def run_litgpt(config: ModelConfig, steps: int, compiled: bool) -> dict[str, float]:
    """litgpt's setup and loop; its function of the learning rate, called once an iteration, is also the clock."""
    import litgpt.pretrain as recipe
    from litgpt.args import EvalArgs, TrainArgs
    from litgpt.config import Config
    from litgpt.data import DataModule

    class Data(DataModule):
        def connect(self, tokenizer: Any = None, batch_size: int = 1, max_seq_length: int | None = None) -> None:
            assert (batch_size, max_seq_length) == (MICRO_ROWS, SEQ_LEN)

        def train_dataloader(self) -> Any:
            return DataLoader(RowsOfIds(steps + WARM_UP + 1), batch_size=MICRO_ROWS)

        def val_dataloader(self) -> Any:
            return DataLoader(RowsOfIds(1), batch_size=MICRO_ROWS)

    wall: list[float] = []
    cpu: list[float] = []
    rate = recipe.get_lr

    def clocked(*arguments: Any, **named: Any) -> float:
        wall.append(time.perf_counter())
        cpu.append(time.process_time())
        return float(rate(*arguments, **named))

    recipe.get_lr = clocked
    recipe.save_checkpoint = lambda *_: None  # it would read this script's arguments as its own
    if not compiled:
        recipe.torch.compile = lambda model: model
    parts = ROWS // MICRO_ROWS
    with tempfile.TemporaryDirectory() as folder:
        recipe.setup(
            "benchmark",
            model_config=Config(**as_litgpt(config)),
            out_dir=Path(folder),
            data=Data(),
            train=TrainArgs(
                save_interval=None,
                log_interval=1,
                global_batch_size=ROWS,
                micro_batch_size=MICRO_ROWS,
                max_tokens=(steps + WARM_UP) * ROWS * SEQ_LEN + 1,
                max_norm=1.0,
                lr_warmup_steps=1,
                tie_embeddings=config.tie_embeddings,
            ),
            eval=EvalArgs(interval=10**6, max_iters=1, final_validation=False),
            logger_name="csv",
            devices=1,
        )
    # The last iteration has no next one to be timed by, so its step is left out.
    return speeds(
        [b - a for a, b in zip(wall[::parts], wall[parts::parts], strict=False)][WARM_UP:],
        [b - a for a, b in zip(cpu[::parts], cpu[parts::parts], strict=False)][WARM_UP:],
    )


def main() -> None:
    parser = speed_arguments(__doc__)
    parser.add_argument("--eager", action="store_true", help="litgpt without torch.compile")
    args = parser.parse_args()
    compare_widths(
        args,
        f"litgpt 0.5.13, {'eager' if args.eager else 'torch.compile'}",
        lambda config: train_ours(RandomRows(), config, args.steps, args.optimizer),
        lambda config: run_litgpt(config, args.steps + 1, not args.eager),
        ["--eager"] if args.eager else [],
    )


if __name__ == "__main__":
    main()
