"""Time to quality: the held-out bits per byte that transformers.Trainer with AdamW reaches in 30 minutes, and ours in 6.

Both sides train the same shape on the same chit-chat rows with the same tokenizer, in bf16. The loss depends on the steps alone, not on the
clock, so each side gets the steps that its minutes hold at a speed measured apart on a quiet machine (``--speeds``; without it,
train_vs_transformers.py is run first); this script may then run beside other work. Ours pays its warm-up out of its minutes.

Trainer's peak rate is tuned: every rate of ``--rates`` gets a run of ``--sweep-steps`` steps with its own schedule, and the best
held-out value goes on. Ours has its defaults. Everything is kept in ``--folder``: the same command goes on after an interruption.
"""

import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch

from gptwright.model.config import ModelConfig
from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.loop import train
from quality_vs_peers import trainer_bits_per_byte
from train_common import ROWS, SEQ_LEN, ChitChat, arguments, report, shape
from train_vs_transformers import run_trainer, transformers

WARM_UP_S = 10.0  # of ours: process, probe of the matmul peak, first step; 2 to 4 s measured


def run_ours(data: ChitChat, config: ModelConfig, steps: int, folder: Path) -> dict[str, Any]:
    """Our loop with its defaults."""
    heldout = Heldout(data.heldout(), data.tokenizer.byte_lengths)
    settings = TrainConfig(max_steps=steps, eval_every=max(1, steps // 10))
    result = train(config, data, settings, run_dir=folder / f"ours-{steps}", heldout=heldout, label="ours")
    return {"bits_per_byte": result.heldout_bpb, "steps": steps, "tokens": result.tokens}


def run_theirs(data: ChitChat, config: ModelConfig, steps: int, rate: float, folder: Path) -> dict[str, Any]:
    """Trainer's run at one rate; resumes from its own checkpoints."""
    model, _, loss = run_trainer(config, data, steps, rate=rate, keep=folder / f"trainer-{rate:g}-{steps}")
    bits = trainer_bits_per_byte(model, data)
    return {
        "bits_per_byte": bits,
        "steps": steps,
        "tokens": steps * ROWS * SEQ_LEN,
        "rate": rate,
        "training_loss": loss,
    }


def kept(path: Path, make: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """What a file says, or what is made now and written to it."""
    if not path.exists():
        path.write_text(json.dumps(make()), encoding="utf-8")
    found: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    print(f"{path.stem}: {found}", file=sys.stderr, flush=True)
    return found


def measured_speeds(width: int, layers: int) -> tuple[float, float]:
    """Tokens/s of both sides, by the benchmark of speed."""
    script = Path(__file__).with_name("train_vs_transformers.py")
    command = [sys.executable, str(script), "--json", "--widths", str(width), "--layers", str(layers)]
    row = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)["rows"][0]
    return row["ours"], row["theirs"]


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--side", choices=["sweep", "ours", "theirs"], help="one part only; its result is kept")
    parser.add_argument("--width", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--minutes", type=float, nargs=2, default=(6.0, 30.0), metavar=("OURS", "THEIRS"))
    parser.add_argument("--speeds", type=float, nargs=2, metavar=("OURS", "THEIRS"), help="tokens/s on a quiet machine")
    parser.add_argument("--rates", type=float, nargs="+", default=(1e-3, 2e-3, 4e-3, 8e-3), help="of Trainer's AdamW")
    parser.add_argument("--sweep-steps", type=int, default=100)
    parser.add_argument("--threads", type=int, help="of PyTorch; the loss hardly depends on it")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir(), "gptwright-time-to-quality"))
    args = parser.parse_args()
    torch.set_num_threads(args.threads or os.cpu_count() or 1)
    folder, config, data = args.folder / f"{args.width}-{args.layers}", shape(args.width, args.layers), ChitChat()
    folder.mkdir(parents=True, exist_ok=True)
    speeds = args.speeds or measured_speeds(args.width, args.layers)
    seconds = (args.minutes[0] * 60 - WARM_UP_S, args.minutes[1] * 60)
    steps = [int(s * speed / (ROWS * SEQ_LEN)) for s, speed in zip(seconds, speeds, strict=True)]
    print(f"steps: ours {steps[0]}, Trainer {steps[1]}", file=sys.stderr, flush=True)
    ours: dict[str, Any] = {}
    if args.side in (None, "ours"):
        ours = kept(folder / f"ours-{steps[0]}.json", lambda: run_ours(data, config, steps[0], folder))
    if args.side == "ours":
        return
    swept = [
        kept(
            folder / f"sweep-{rate:g}-{args.sweep_steps}.json",
            lambda rate=rate: run_theirs(data, config, args.sweep_steps, rate, folder),
        )
        for rate in args.rates
    ]
    if args.side == "sweep":
        return
    rate = min(swept, key=lambda row: row["bits_per_byte"])["rate"]
    name = folder / f"trainer-{rate:g}-{steps[1]}.json"
    theirs = kept(name, lambda: run_theirs(data, config, steps[1], rate, folder))
    if args.side is None:
        report(
            args.json,
            f"held-out bits per byte after {args.minutes[0]:g} minutes against {args.minutes[1]:g}, {args.width} wide",
            ours["bits_per_byte"],
            f"transformers {transformers.__version__} Trainer, bf16, AdamW at {rate:g}",
            theirs["bits_per_byte"],
            "bits/byte",
            higher_is_better=False,
            steps=steps,
            speeds=list(speeds),
            sweep={f"{row['rate']:g}": row["bits_per_byte"] for row in swept},
        )


if __name__ == "__main__":
    main()
