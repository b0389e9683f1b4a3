"""Loss, not only speed: held-out bits per byte of the chit-chat text after M minutes of gptwright, and of two peers after three times M.

Peers: a plain fp32 eager GPT-2 loop, and transformers.Trainer in bf16 on the same Qwen3 shape, each at a peak rate of 1e-3. All see
the same tokenizer and the same rows (Trainer in an order of its own), and all warm-up counts as time. Default M = 5, so peers get 15.
"""

import json
import math
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import transformers

from gptwright.train.config import TrainConfig
from gptwright.train.data import Heldout
from gptwright.train.loop import train
from train_common import ROWS, SEQ_LEN, ChitChat, arguments, report, shape
from train_vs_plain_torch import PlainGPT, plain_optimizer, plain_step
from train_vs_transformers import run_trainer

PEER_TIMES = 3


def bits_per_byte(nats: float, data: ChitChat) -> float:
    return nats / math.log(2) / Heldout(data.heldout(), data.tokenizer.byte_lengths).size_bytes()


def ours(data: ChitChat, minutes: float, width: int) -> dict[str, Any]:
    heldout = Heldout(data.heldout(), data.tokenizer.byte_lengths)
    with tempfile.TemporaryDirectory() as folder:
        result = train(
            shape(width),
            data,
            TrainConfig(max_time=minutes * 60, eval_every=10**9),
            run_dir=Path(folder),
            heldout=heldout,
            label="ours",
        )
    return {"bits_per_byte": result.heldout_bpb, "tokens": result.tokens, "minutes": result.seconds / 60}


def plain(data: ChitChat, minutes: float, width: int) -> dict[str, Any]:
    """The rate falls to a tenth over the time, as in nanoGPT, with a warm-up of 20 steps."""
    torch.manual_seed(0)
    model = PlainGPT(width, shape(width).n_layers)
    optimizer, begin, step = plain_optimizer(model), time.perf_counter(), 0
    while (spent := time.perf_counter() - begin) < minutes * 60:
        fall = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, spent / (minutes * 60))))
        optimizer.param_groups[0]["lr"] = 1e-3 * fall * min(1.0, (step + 1) / 20)
        batch = data.batch(step)
        plain_step(model, optimizer, torch.as_tensor(batch.tokens), torch.as_tensor(batch.targets))
        step += 1
    with torch.no_grad():
        nats = sum(
            float(model(torch.as_tensor(b.tokens), torch.as_tensor(b.targets))) * b.targets.size for b in data.heldout()
        )
    return {
        "bits_per_byte": bits_per_byte(nats, data),
        "tokens": step * ROWS * SEQ_LEN,
        "minutes": (time.perf_counter() - begin) / 60,
    }


def trainer_bits_per_byte(model: transformers.PreTrainedModel, data: ChitChat) -> float:
    """Held-out bits per byte of a model of transformers."""
    model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        nats = 0.0
        for batch in data.heldout():
            logits = model(torch.as_tensor(batch.tokens)).logits.float()
            nats += float(
                torch.nn.functional.cross_entropy(
                    logits.flatten(0, 1), torch.as_tensor(batch.targets).flatten(), reduction="sum"
                )
            )
    return bits_per_byte(nats, data)


def trainer(data: ChitChat, minutes: float, width: int) -> dict[str, Any]:
    """The Trainer's rate falls linearly over max_steps; three steps are timed first so that it ends with the time."""
    _, clock, _ = run_trainer(shape(width), data, 3)
    steps = max(10, int(minutes * 60 / clock.seconds[-1]))
    model, clock, _ = run_trainer(shape(width), data, steps, stop_after_s=minutes * 60)
    return {
        "bits_per_byte": trainer_bits_per_byte(model, data),
        "tokens": len(clock.seconds) * ROWS * SEQ_LEN,
        "minutes": sum(clock.seconds) / 60,
    }


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--minutes", type=float, default=5.0, help="ours; each peer gets three times as much")
    parser.add_argument("--width", type=int, default=384)
    parser.add_argument("--only", choices=["ours", "plain", "trainer"], help="one side, its numbers only")
    args = parser.parse_args()
    data = ChitChat()
    sides = {"ours": (ours, 1), "plain": (plain, PEER_TIMES), "trainer": (trainer, PEER_TIMES)}
    found = {}
    for name, (side, times) in sides.items():
        if args.only in (None, name):
            found[name] = side(data, args.minutes * times, args.width)
            print(f"{name}: {json.dumps(found[name])}", file=sys.stderr, flush=True)
    if args.only:
        return
    best = min(("plain", "trainer"), key=lambda name: found[name]["bits_per_byte"])
    peers = {
        "plain": f"plain PyTorch {torch.__version__} GPT-2, fp32 eager",
        "trainer": f"transformers {transformers.__version__} Trainer, bf16",
    }
    report(
        args.json,
        f"held-out after {args.minutes:g} minutes against {args.minutes * PEER_TIMES:g}",
        found["ours"]["bits_per_byte"],
        peers[best],
        found[best]["bits_per_byte"],
        "bits/byte",
        higher_is_better=False,
        all={name: {"bits_per_byte": row["bits_per_byte"], "tokens": row["tokens"]} for name, row in found.items()},
    )


if __name__ == "__main__":
    main()
