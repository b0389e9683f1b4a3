"""A sink is a view of metrics.jsonl: it is told which steps it lacks, and nothing twice, whatever was killed when.

Each works in a thread of its own, so a slow one does not slow training; one that fails is told of once and left alone.
"""

import queue
import threading
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from gptwright.core.progress import say
from gptwright.train.callbacks import Callback, RunView
from gptwright.train.metrics import read_metrics

Row = Mapping[str, Any]
_WAITING_ROWS = 20_000
_AT_ONCE = 500
_PATIENCE_S = 60.0  # at the end of a run


class Sink(Protocol):
    """Where rows go."""

    def open(self, run: RunView) -> set[int]:
        """Find or make the run there. Returns the steps that it has already."""
        ...

    def write(self, rows: Sequence[Row]) -> None:
        """Add rows of numbers, each with a ``step``, in ascending order of steps."""
        ...

    def close(self, state: str) -> None:
        """Finish: "done", "interrupted" or "failed"."""
        ...


class Sending(Callback):
    """Hands a run's lines to a sink.

    Args:
        name: of the sink, for messages.
        make: imports the package and makes the sink.
        patience_s: how long the end of a run waits for it.

    Attributes:
        sent: steps that the sink has.
    """

    def __init__(self, name: str, make: Callable[[], Sink], patience_s: float = _PATIENCE_S) -> None:
        self.name, self.make, self.patience_s = name, make, patience_s
        self.sent: set[int] = set()
        self._rows: queue.Queue[Row | str] = queue.Queue(_WAITING_ROWS)
        self._thread: threading.Thread | None = None
        self._failed = False

    def begin(self, run: RunView) -> None:
        """See ``Callback``; what the sink lacks of the lines before this process is sent first."""
        known = [row for row in read_metrics(run.folder / "metrics.jsonl") if row["step"] <= run.step]
        self._thread = threading.Thread(
            target=self._work, args=(run, known), name=f"gptwright-{self.name}", daemon=True
        )
        self._thread.start()

    def line(self, row: Row) -> None:
        """See ``Callback``."""
        if self._thread is not None and not self._failed:
            try:
                self._rows.put_nowait(dict(row))
            except queue.Full:
                self._fail("it does not keep up")

    def end(self, state: str, facts: Mapping[str, Any]) -> None:
        """See ``Callback``; waits a while for what is still under way."""
        if self._thread is None:
            return
        if not self._failed:
            try:
                self._rows.put(state, timeout=self.patience_s)
                self._thread.join(self.patience_s)
            except queue.Full:
                pass
            if self._thread.is_alive():
                self._fail(f"it did not finish in {self.patience_s:.0f} s")
        self._thread = None

    def _work(self, run: RunView, known: list[Row]) -> None:
        try:
            sink = self.make()
            self.sent = sink.open(run)
            self._send(sink, known)
            while True:
                rows, state = self._waiting()
                self._send(sink, rows)
                if state:
                    sink.close(state)
                    return
        except (Exception, SystemExit) as error:
            self._fail(f"{type(error).__name__}: {error}")

    def _waiting(self) -> tuple[list[Row], str]:
        """Rows that came in meanwhile, at least one; and how the run ended, if it did."""
        rows: list[Row] = []
        while True:
            one = self._rows.get()
            if isinstance(one, str):
                return rows, one
            rows.append(one)
            if self._rows.empty() or len(rows) >= _AT_ONCE:
                return rows, ""

    def _send(self, sink: Sink, rows: Sequence[Row]) -> None:
        fresh = [row for row in rows if row["step"] not in self.sent]
        for first in range(0, len(fresh), _AT_ONCE):
            part = fresh[first : first + _AT_ONCE]
            sink.write(part)
            self.sent.update(row["step"] for row in part)

    def _fail(self, why: str) -> None:
        if not self._failed:
            self._failed = True
            say(f"tracking: {self.name} is left out from here on: {' '.join(why.split())[:300]}")


def settings_of(run: RunView) -> dict[str, str | float | int | bool]:
    """A run's settings, flat: ``train.lr_matrix`` and so on; what is None is left out."""
    found: dict[str, str | float | int | bool] = {}

    def walk(values: Mapping[str, Any], prefix: str) -> None:
        for name, value in values.items():
            if isinstance(value, Mapping):
                walk(value, f"{prefix}{name}.")
            elif value is not None:
                found[prefix + name] = value if isinstance(value, str | float | int | bool) else str(value)

    walk(run.config, "")
    return found


def make_folder(folder: Path) -> Path:
    """A sink's own folder."""
    folder.mkdir(parents=True, exist_ok=True)
    return folder
