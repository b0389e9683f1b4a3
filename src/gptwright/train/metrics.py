"""metrics.jsonl: one line a step, appended; on resume cut back to the checkpoint, so that the file reads as one run."""

import contextlib
import json
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from gptwright.core.files import atomic_write, writing_error
from gptwright.core.progress import clock, short


class Metrics:
    """Appends lines to a file. Use as a context manager.

    Args:
        path: of metrics.jsonl.
        step: steps done by the checkpoint the run starts from; later lines are cut off, a torn last line too.
        writes: false: lines go nowhere.
    """

    def __init__(self, path: Path, step: int, writes: bool = True) -> None:
        self.path, self._file = path, None
        if not writes:
            return
        kept = [row for row in read_metrics(path) if row["step"] <= step]
        with atomic_write(path, "w") as file:
            file.writelines(json.dumps(row) + "\n" for row in kept)
        self._file = open(path, "a", encoding="utf-8", newline="\n")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._file is not None:
            with contextlib.suppress(OSError):  # a full disk was told of already
                self._file.close()

    def add(self, row: dict[str, Any]) -> None:
        """Append one line.

        Raises:
            UserError: the disk is full.
        """
        if self._file is None:
            return
        try:
            self._file.write(json.dumps(row) + "\n")
            self._file.flush()
        except OSError as error:
            raise writing_error(error, self.path) from error


def progress_line(loss: float, bpb: float | None, tokens_per_s: float, flops: float, peak: float, left_s: float) -> str:
    """What stands behind the bar.

    Args:
        loss: nats.
        bpb: of the held-out text, if it was measured.
        tokens_per_s: of late.
        flops: of a token.
        peak: of products on this machine, FLOP/s; 0 when it is not known.
        left_s: seconds.
    """
    parts = [f"loss {loss:.3f}"]
    if bpb is not None:
        parts.append(f"held-out {bpb:.3f} bits/byte")
    parts.append(f"{short(tokens_per_s)} tokens/s  {short(tokens_per_s * flops)}FLOP/s")
    if peak and tokens_per_s * flops <= peak:  # else the peak was measured while others used the machine
        parts.append(f"{100 * tokens_per_s * flops / peak:.0f}% of matmul peak")
    parts.append(f"{clock(left_s)} left")
    return "  ".join(parts)


def read_metrics(path: Path) -> list[dict[str, Any]]:
    """All whole lines of a metrics file; none when it is not there."""
    rows: list[dict[str, Any]] = []
    if not path.exists():
        return rows
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        try:
            row = json.loads(line)
        except json.JSONDecodeError:
            continue  # torn by a kill
        if isinstance(row, dict) and "step" in row:
            rows.append(row)
    return rows
