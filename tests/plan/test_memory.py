"""Memory as it is forecast, against the peak of a real run in a process of its own."""

import json
import subprocess
import sys

import pytest

# A model whose parts are no rounding error beside Python and torch, and steps enough for a checkpoint to be written beside them.
RUN = """
import json, sys, tempfile
from pathlib import Path
from types import SimpleNamespace
import numpy as np
from gptwright.model.presets import modern
from gptwright.plan.memory import Setting, parts, peak_bytes
import gptwright.project.training  # what a run in a project has loaded
from gptwright.train.config import TrainConfig
from gptwright.train.loop import train

class Rows:
    key = "random"
    def batch(self, step):
        ids = np.random.default_rng(step).integers(0, 4096, (16, 257))
        return SimpleNamespace(tokens=ids[:, :-1], targets=ids[:, 1:], docs=[])

shape = modern(params=int(sys.argv[1]), vocab_size=4096, seq_len=256)
with tempfile.TemporaryDirectory() as folder:
    train(shape, Rows(), TrainConfig(max_steps=4, checkpoint_every=2), run_dir=Path(folder) / "run")
    chosen = json.loads((Path(folder) / "run" / "config.json").read_text())["machine"]
setting = Setting(chosen["device"], chosen["dtype"], chosen["threads"], chosen["compiled"])
print(json.dumps({"peak": peak_bytes(), "parts": parts(shape, 4096, setting)}))
"""


@pytest.mark.slow
def test_parts_when_a_real_run_is_measured_then_its_peak_is_their_sum():
    done = subprocess.run([sys.executable, "-c", RUN, "12000000"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    found = json.loads(done.stdout.splitlines()[-1])
    if found["peak"] is None:
        pytest.skip("this system does not tell a process its peak")
    total, parts = sum(found["parts"].values()), found["parts"]
    assert total == pytest.approx(found["peak"], rel=0.2)
    # The bound means something: without any one of the large parts the sum would be outside it.
    assert parts["activations"] + parts["gradients"] > 0.25 * found["peak"]
