"""A finished run: its numbers, result.json, and its curves as pictures."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwright.core.files import atomic_write, write_json
from gptwright.model.transformer import Transformer
from gptwright.train.plot import svg_plot

_KEPT = ("steps", "final_loss", "heldout_bpb", "tokens", "seconds", "tokens_per_s", "flops_per_s", "peak_share")


@dataclass(frozen=True)
class TrainResult:
    """A finished run. ``model`` holds the trained weights (fp32); a model that was handed in was trained in place."""

    model: Transformer
    steps: int
    final_loss: float
    heldout_bpb: float | None
    tokens: int
    seconds: float
    tokens_per_s: float
    flops_per_s: float
    peak_share: float
    run_dir: Path
    checkpoint: Path
    stable_checkpoint: Path | None
    best_checkpoint: Path | None = None

    def write(self) -> dict[str, Any]:
        """Write result.json into the run's folder. Returns what is in it."""
        meta = {name: getattr(self, name) for name in _KEPT}
        write_json(self.run_dir / "result.json", meta)
        return meta


def draw(path: Path, run_id: str, rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Write loss.svg and heldout.svg into a run's folder.

    Args:
        path: the folder.
        run_id: for the titles.
        rows: of metrics.jsonl.

    Returns:
        The losses, (step, nats).
    """
    losses = [
        (row["step"], row["loss"]) for row in rows if "loss" in row
    ]  # none when every step so far was passed over
    measured = [(row["step"], row["heldout_bpb"]) for row in rows if "heldout_bpb" in row]
    for name, series, points, title in (
        ("loss.svg", "training loss", losses, "nats per token"),
        ("heldout.svg", "held-out", measured, "held-out bits per byte"),
    ):
        if points or name == "loss.svg":
            with atomic_write(path / name, "w") as file:
                file.write(svg_plot({series: points}, f"{run_id}: {title}"))
    return losses
