"""A finished run: its numbers, result.json, and its curves as pictures."""

import contextlib
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, write_json
from gptwright.model.transformer import Transformer
from gptwright.train.page import page
from gptwright.train.plot import svg_plot
from gptwright.train.watch import explanations

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
        told = explanations(self.run_dir)
        write_json(self.run_dir / "result.json", meta | ({"explanations": told} if told else {}))
        return meta


def write_stopped(run_dir: Path, state: str, steps: int, why: str) -> dict[str, Any]:
    """Write result.json of a run that did not come to its end: where it stands, and what it told of itself.

    Args:
        run_dir: of the run; nothing is written where it has not begun.
        state: interrupted or failed.
        steps: done.
        why: the error, in words.

    Returns:
        What is in it.
    """
    facts = {"state": state, "steps": steps, "why": why, "explanations": explanations(run_dir)}
    if (run_dir / "config.json").is_file():
        with contextlib.suppress(UserError):  # a full disk was told of already
            write_json(run_dir / "result.json", facts)
    return facts


def draw(path: Path, run_id: str, rows: list[dict[str, Any]]) -> list[tuple[float, float]]:
    """Write loss.svg, heldout.svg and curves.html, which has all curves, into a run's folder.

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
    told = [f"{one['what']}. {one['text']}. {one['fix']}." for one in explanations(path)]
    with atomic_write(path / "curves.html", "w") as file:
        file.write(page(run_id, {run_id: rows}, told))
    return losses
