"""Training speed: gptwright against transformers.Trainer in bf16 on the same model (Qwen3 of the same shape).

The peer is the real Trainer with its defaults (AdamW, bf16 autocast), batch 16 x 512. Each side runs in a process of its own, in turn.
"""

import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers
from torch.utils.data import Dataset

from gptwright.model.config import ModelConfig
from train_common import ROWS, RandomRows, as_qwen3, compare_widths, speed_arguments, speeds, train_ours


class RowsDataset(Dataset[dict[str, torch.Tensor]]):
    """One sequence an item, from a plan of batches."""

    def __init__(self, plan: Any, steps: int) -> None:
        self.plan, self.steps = plan, steps

    def __len__(self) -> int:
        return self.steps * ROWS

    def __getitem__(self, index: int) -> dict[str, torch.Tensor]:
        ids = torch.as_tensor(self.plan.batch(index // ROWS).tokens[index % ROWS])
        return {"input_ids": ids, "labels": ids}


class Clock(transformers.TrainerCallback):
    """Seconds of every optimizer step, and a stop after a time if one is given."""

    def __init__(self, stop_after_s: float | None = None) -> None:
        self.seconds: list[float] = []
        self.cpu: list[float] = []
        self.begin = self.start = time.perf_counter()
        self.cpu_begin = 0.0
        self.stop_after_s = stop_after_s

    def on_step_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.begin, self.cpu_begin = time.perf_counter(), time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        self.seconds.append(time.perf_counter() - self.begin)
        self.cpu.append(time.process_time() - self.cpu_begin)
        if self.stop_after_s is not None and time.perf_counter() - self.start > self.stop_after_s:
            control.should_training_stop = True


def qwen3(config: ModelConfig) -> transformers.PreTrainedModel:
    """The same architecture in transformers."""
    return transformers.Qwen3ForCausalLM(transformers.Qwen3Config(**as_qwen3(config)))


def run_trainer(
    config: ModelConfig,
    plan: Any,
    steps: int,
    stop_after_s: float | None = None,
    rate: float = 1e-3,
    keep: Path | None = None,
    options: dict[str, Any] | None = None,
) -> tuple[transformers.PreTrainedModel, Clock, float]:
    """The real Trainer. Returns the model, the clock of its steps and its training loss.

    With a folder to ``keep`` it saves there every 50 steps, and goes on from what it finds. ``options``
    are further TrainingArguments.
    """
    transformers.set_seed(0)
    model, clock = qwen3(config), Clock(stop_after_s)
    saved = sorted(keep.glob("checkpoint-*/trainer_state.json")) if keep is not None else []
    with tempfile.TemporaryDirectory() as temporary:
        folder = str(keep or temporary)
        settings = transformers.TrainingArguments(
            output_dir=folder,
            per_device_train_batch_size=ROWS,
            max_steps=steps,
            learning_rate=rate,
            warmup_steps=min(20, steps // 10),
            bf16=True,
            use_cpu=True,
            report_to=[],
            save_strategy="no" if keep is None else "steps",
            save_steps=50,
            save_total_limit=2,
            logging_strategy="no",
            disable_tqdm=True,
            dataloader_num_workers=0,
            **(options or {}),
        )
        trainer = transformers.Trainer(
            model=model, args=settings, train_dataset=RowsDataset(plan, steps), callbacks=[clock]
        )
        clock.start = time.perf_counter()
        loss = trainer.train(resume_from_checkpoint=bool(saved) or None).training_loss
    return model, clock, loss


def run_timed(config: ModelConfig, steps: int) -> dict[str, float]:
    """Trainer's speed, without its first two steps."""
    _, clock, loss = run_trainer(config, RandomRows(), steps + 2)
    return speeds(clock.seconds[2:], clock.cpu[2:]) | {"loss": loss}


def main() -> None:
    args = speed_arguments(__doc__).parse_args()
    compare_widths(
        args,
        f"transformers {transformers.__version__} Trainer, bf16",
        lambda config: train_ours(RandomRows(), config, args.steps, args.optimizer),
        lambda config: run_timed(config, args.steps),
    )


if __name__ == "__main__":
    main()
