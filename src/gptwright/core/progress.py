"""Progress on stderr: a live bar on a terminal, a plain line now and then elsewhere. Stdout stays for results."""

import contextlib
import sys
import time
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Self

_quiet = False
_PLAIN_EVERY_S = 10.0


def set_quiet(quiet: bool) -> None:
    """Silence messages and bars (``--quiet``). Errors still print."""
    global _quiet
    _quiet = quiet


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Silence what runs inside the block; a bar that was begun before goes on."""
    global _quiet
    before, _quiet = _quiet, True
    try:
        yield
    finally:
        _quiet = before


def say(text: str) -> None:
    """One message for a person, on stderr."""
    if not _quiet:
        print(text, file=sys.stderr, flush=True)


class Bar:
    """A task under way. Use as a context manager through ``progress``."""

    def __init__(self, label: str, total: float | None, unit: str) -> None:
        self.label, self.total, self.unit = label, total, unit
        self.done = 0.0
        self.note_text = ""
        self._mute = _quiet
        self._start = time.monotonic()
        self._printed = self._start
        self._live: Any = None
        self._task: Any = None

    def __enter__(self) -> Self:
        if not self._mute and sys.stderr.isatty():
            self._live = _live_bar(bool(self.total))
            self._live.start()
            self._task = self._live.add_task(self.label, total=self.total, rate="", note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()
        elif kind is None:
            self._plain(final=True)

    def advance(self, n: float = 1) -> None:
        """Count n more units."""
        self.done += n
        if self._live is not None:
            self._live.update(self._task, completed=self.done, rate=self._rate(), note=self.note_text)
        elif time.monotonic() - self._printed > _PLAIN_EVERY_S:
            self._plain()

    def note(self, text: str) -> None:
        """What stands behind the bar, such as the loss."""
        self.note_text = text

    def _rate(self) -> str:
        rate = self.done / max(time.monotonic() - self._start, 1e-9)
        return f"{short(rate)} {self.unit}/s" if self.unit else ""

    def _plain(self, final: bool = False) -> None:
        self._printed = time.monotonic()
        elapsed = self._printed - self._start
        share = f"{100 * self.done / self.total:3.0f}%" if self.total else short(self.done)
        left = ""
        if self.total and self.done and not final:
            left = f", {clock(elapsed * (self.total - self.done) / self.done)} left"
        parts = [f"{self.label}: {share}", self._rate(), f"{clock(elapsed)}{left}", self.note_text]
        if not self._mute:
            print("  ".join(part for part in parts if part), file=sys.stderr, flush=True)


def _live_bar(known_total: bool) -> Any:
    """A bar with its note on a line below it: beside it, a narrow terminal would cut both."""
    from rich.console import Console, RenderableType
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn
    from rich.text import Text

    class TwoLines(Progress):
        def get_renderables(self) -> Iterator[RenderableType]:
            yield self.make_tasks_table(self.tasks)
            for task in self.tasks:
                if note := task.fields.get("note"):
                    yield Text(f"  {note}", no_wrap=True, overflow="ellipsis")

    return TwoLines(
        TextColumn("{task.description:<12}"),
        BarColumn(bar_width=24),
        TextColumn("{task.percentage:>3.0f}%") if known_total else TextColumn(""),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn() if known_total else TimeElapsedColumn(),
        console=Console(stderr=True),
        refresh_per_second=4,
    )


@contextlib.contextmanager
def progress(label: str, total: float | None = None, unit: str = "") -> Iterator[Bar]:
    """Show a bar while the block runs.

    Args:
        label: what is being done, one word if possible.
        total: units in all, None when unknown.
        unit: what is counted, such as "tokens".
    """
    with Bar(label, total, unit) as bar:
        yield bar


def short(number: float) -> str:
    """1234567 as 1.23M."""
    for size, letter in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.3g}{letter}"
    return f"{number:.3g}"


def clock(seconds: float) -> str:
    """75 as 1:15, 3700 as 1:01:40."""
    whole = round(seconds)
    hours, rest = divmod(whole, 3600)
    return f"{hours}:{rest // 60:02d}:{rest % 60:02d}" if hours else f"{rest // 60}:{rest % 60:02d}"
