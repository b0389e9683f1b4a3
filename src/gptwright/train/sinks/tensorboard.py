"""TensorBoard: event files of scalars, one folder a run. Look with: tensorboard --logdir work/tracking/tensorboard"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptwright.core.errors import require
from gptwright.train.callbacks import RunView
from gptwright.train.sinks.base import Row, make_folder, settings_of


class TensorBoard:
    """See ``Sink``.

    Args:
        folder: of all runs.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self._make = folder, require("torch.utils.tensorboard", "tracking").SummaryWriter
        self._writer: Any = None

    def open(self, run: RunView) -> set[int]:
        """See ``Sink``."""
        folder = make_folder(self.folder / run.id)
        there = steps_in(folder)
        self._writer = self._make(str(folder))
        if not there:
            table = "\n".join(f"    {name} = {value}" for name, value in settings_of(run).items())
            self._writer.add_text("settings", table, 0)
        return there

    def write(self, rows: Sequence[Row]) -> None:
        """See ``Sink``."""
        for row in rows:
            for name, value in row.items():
                if name != "step":
                    self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self, state: str) -> None:
        """See ``Sink``."""
        self._writer.close()


def steps_in(folder: Path) -> set[int]:
    """Steps that the event files of a run hold already; a torn end of a file is passed over."""
    if not any(folder.glob("events.out.tfevents.*")):
        return set()
    reader = require("tensorboard.backend.event_processing.event_accumulator", "tracking")
    found = reader.EventAccumulator(str(folder), size_guidance={"scalars": 0})
    found.Reload()
    if "tokens" not in found.Tags()["scalars"]:
        return set()
    return {int(event.step) for event in found.Scalars("tokens")}
