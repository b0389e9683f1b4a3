"""Peak memory of training: gptwright against transformers.Trainer in bf16, the same model, batch and sequence length.

Each side trains three steps in a fresh process of its own. What counts is the high-water mark of its address space (VmHWM of
/proc/self/status, which begins anew with the process; ru_maxrss does not) beyond what it had after its imports: weights, gradients,
optimizer, activations, logits, and whatever the allocator keeps. Linux only. Load on the machine does not matter.
"""

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from train_common import ROWS, SEQ_LEN, RandomRows, arguments, machine, shape

STEPS = 3


def peak_mb() -> float:
    """High-water mark of this process. MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1e3


def run_ours(width: int, layers: int) -> dict[str, float]:
    """Our loop, as users run it."""
    from gptwright.train.config import TrainConfig
    from gptwright.train.loop import train

    imported = peak_mb()
    with tempfile.TemporaryDirectory() as folder:
        result = train(shape(width, layers), RandomRows(), TrainConfig(max_steps=STEPS), run_dir=Path(folder))
    return {"imported_mb": imported, "peak_mb": peak_mb(), "loss": result.final_loss}


def run_theirs(width: int, layers: int, options: dict[str, bool]) -> dict[str, float]:
    """The real Trainer."""
    from train_vs_transformers import run_trainer, transformers

    assert transformers.Qwen3ForCausalLM  # loaded now, not later
    assert transformers.Trainer
    imported = peak_mb()
    _, _, loss = run_trainer(shape(width, layers), RandomRows(), STEPS, options=options)
    return {"imported_mb": imported, "peak_mb": peak_mb(), "loss": loss}


def child(side: str, width: int, layers: int) -> dict[str, float]:
    """One side in a process of its own."""
    command = [sys.executable, sys.argv[0], "--side", side, "--widths", str(width), "--layers", str(layers)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"{side} failed:\n{done.stderr[-3000:]}")
    found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    found["training_mb"] = found["peak_mb"] - found["imported_mb"]
    print(f"{side} {width}: {found}", file=sys.stderr, flush=True)
    return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--side", choices=["ours", "theirs", "checkpointed"], help="run one side only")
    parser.add_argument("--widths", type=int, nargs="+", default=[256, 384, 768, 1024])
    parser.add_argument("--layers", type=int, default=6)
    args = parser.parse_args()
    if args.side == "ours":
        print(json.dumps(run_ours(args.widths[0], args.layers)))
        return
    if args.side is not None:
        options = {"gradient_checkpointing": True} if args.side == "checkpointed" else {}
        print(json.dumps(run_theirs(args.widths[0], args.layers, options)))
        return
    rows = []
    for width in args.widths:
        found = {side: child(side, width, args.layers) for side in ("ours", "theirs", "checkpointed")}
        ours, theirs, checkpointed = (found[side]["training_mb"] for side in ("ours", "theirs", "checkpointed"))
        rows.append(
            {
                "width": width,
                "ours_mb": ours,
                "trainer_mb": theirs,
                "share": ours / theirs,
                "trainer_gradient_checkpointing_mb": checkpointed,
                "share_of_that": ours / checkpointed,
                "ours_whole_mb": found["ours"]["peak_mb"],
                "trainer_whole_mb": found["theirs"]["peak_mb"],
                "share_whole": found["ours"]["peak_mb"] / found["theirs"]["peak_mb"],
            }
        )
    if args.json:
        print(json.dumps({"name": "training memory", "batch": [ROWS, SEQ_LEN], "machine": machine(), "rows": rows}))
        return
    print(f"{ROWS} x {SEQ_LEN} tokens, {args.layers} layers; MB beyond imports; {machine()}")
    print("width     ours  Trainer  share   Trainer + gradient checkpointing  share   whole processes")
    for r in rows:
        print(
            f"{r['width']:5} {r['ours_mb']:8.0f} {r['trainer_mb']:8.0f} {r['share']:6.2f} "
            f"{r['trainer_gradient_checkpointing_mb']:34.0f} {r['share_of_that']:6.2f} {r['share_whole']:17.2f}"
        )


if __name__ == "__main__":
    main()
