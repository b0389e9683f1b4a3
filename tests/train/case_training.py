"""One run of a case, to be killed: python case_training.py NAME RUN_DIR STEPS."""

import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

import cases
import torch

from gptwright.train.loop import train

SETTINGS = {"checkpoint_every": 3, "dtype": "float32", "compile": "off", "log_every": 1}


def run(name: str, folder: Path, steps: int) -> None:
    torch.set_num_threads(1)
    torch.manual_seed(0)  # its state is kept with the optimizer's
    pause = float(os.environ.get("TINY_PAUSE_S", "0"))  # a step lasts at least this long, for whoever wants to hit one
    case = cases.build(name, max_steps=steps, **SETTINGS)
    wait = [lambda info: time.sleep(pause)]
    train(case.model, case.plan, case.config, run_dir=folder, objective=case.objective, callbacks=wait)


if __name__ == "__main__":
    run(sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]))
