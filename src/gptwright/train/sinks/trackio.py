"""trackio: a local database of runs. Look with: TRACKIO_DIR=work/tracking/trackio trackio show"""

import contextlib
import io
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptwright.core.errors import require
from gptwright.train.callbacks import RunView
from gptwright.train.sinks.base import Row, make_folder, settings_of


class Trackio:
    """See ``Sink``.

    Args:
        folder: of the database, unless TRACKIO_DIR names another.
        project: of the runs.
    """

    def __init__(self, folder: Path, project: str) -> None:
        os.environ.setdefault("TRACKIO_DIR", str(make_folder(folder).resolve()))
        self._trackio: Any = require("trackio", "tracking")
        self.project = project
        self._run: Any = None

    def open(self, run: RunView) -> set[int]:
        """See ``Sink``."""
        stored = require("trackio.sqlite_storage", "tracking").SQLiteStorage
        there = {int(row["step"]) for row in stored.get_logs(self.project, run.id)}
        with _silent():
            self._run = self._trackio.init(
                project=self.project, name=run.id, config=settings_of(run), resume="allow", embed=False,
                auto_log_gpu=False, auto_log_cpu=False,
            )  # fmt: skip
        return there

    def write(self, rows: Sequence[Row]) -> None:
        """See ``Sink``."""
        for row in rows:
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self, state: str) -> None:
        """See ``Sink``."""
        with _silent():
            self._run.finish()


@contextlib.contextmanager
def _silent() -> Any:
    """It greets on stdout, which is kept for results."""
    with contextlib.redirect_stdout(io.StringIO()):
        yield
