"""One golden loss curve per objective: eager, float64, one thread. A change that should not alter numerics must reproduce it.

To make them anew after a change that should: ``python tests/train/test_golden.py`` and say why in the commit.
"""

import json
import sys
import tempfile
from pathlib import Path

import pytest
import torch

sys.path.insert(0, str(Path(__file__).parent))
import cases

from gptwright.train.loop import train
from gptwright.train.metrics import read_metrics

GOLDEN = Path(__file__).parent / "golden"
OBJECTIVES = cases.NAMES


def curve(objective: str, folder: Path, dtype: str = "float64", compiled: str = "off") -> list[float]:
    case = cases.build(objective, dtype=dtype, compile=compiled)
    train(case.model, case.plan, case.config, run_dir=folder, objective=case.objective)
    return [row["loss"] for row in read_metrics(folder / "metrics.jsonl")]


@pytest.mark.parametrize("objective", OBJECTIVES)
def test_losses_when_eager_float64_then_equal_the_golden_ones(objective: str, tmp_path: Path) -> None:
    golden = json.loads((GOLDEN / f"{objective}.json").read_text())["loss"]
    assert curve(objective, tmp_path) == pytest.approx(golden, rel=1e-12, abs=0)


@pytest.mark.parametrize("objective", ["pretrain", "sft", "packed", "distill"])
@pytest.mark.parametrize(
    ("dtype", "compiled"), [("float32", "off"), ("float32", "auto"), ("bfloat16", "off"), ("bfloat16", "auto")]
)
def test_losses_when_in_production_precision_then_stay_within_1e_3_of_the_golden_ones(
    objective: str, dtype: str, compiled: str, tmp_path: Path
) -> None:
    golden = json.loads((GOLDEN / f"{objective}.json").read_text())["loss"]
    assert curve(objective, tmp_path, dtype, compiled) == pytest.approx(
        golden, rel=1e-3 if dtype == "bfloat16" else 2e-5
    )


if __name__ == "__main__":
    torch.set_num_threads(1)
    GOLDEN.mkdir(exist_ok=True)
    for name in sys.argv[1:] or OBJECTIVES:
        with tempfile.TemporaryDirectory() as place:
            losses = curve(name, Path(place))
        (GOLDEN / f"{name}.json").write_text(
            json.dumps({"objective": name, "torch": torch.__version__, "loss": losses}, indent=1) + "\n"
        )
