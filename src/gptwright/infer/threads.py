"""How many threads a decode step should use, found by trying while it runs.

Operators of a small model take microseconds, and two threads that wait for each other are slower than one as soon as anything else
runs on the machine: SmolLM2-135M on two shared cores took 19 ms a step on one thread and 37 ms on two. Which wins changes from minute
to minute, so a few steps now and then go to the alternatives.
"""

import contextlib
import time
from collections.abc import Iterator

import torch

_TRY_EVERY = 48  # steps between two trials of the alternatives
_TRIALS = 2  # steps of each trial; the faster counts
_MEMORY = 0.7  # weight of the past in an estimate


class ThreadChooser:
    """Keeps an estimate of seconds a row for each number of threads, by size of the batch.

    Args:
        most: threads that may be used; default what PyTorch is set to now.
    """

    def __init__(self, most: int | None = None) -> None:
        most = most or torch.get_num_threads()
        self.options = sorted({1, *(1 << i for i in range(most.bit_length()) if 1 << i < most), most})
        self._seconds: dict[tuple[int, int], float] = {}
        self._steps: dict[int, int] = {}

    def choose(self, rows: int) -> int:
        """Threads for the next step of this many rows."""
        bucket = rows.bit_length()
        step = self._steps.get(bucket, 0)
        self._steps[bucket] = step + 1
        trial = (step % _TRY_EVERY) // _TRIALS
        if trial < len(self.options):
            return self.options[trial]
        return min(self.options, key=lambda n: self._seconds.get((bucket, n), float("inf")))

    def record(self, rows: int, threads: int, seconds: float) -> None:
        """Tell how long a step took."""
        key, each = (rows.bit_length(), threads), seconds / rows
        old = self._seconds.get(key)
        # The machine's noise only ever adds time, so a faster step is believed at once.
        self._seconds[key] = each if old is None or each < old else _MEMORY * old + (1 - _MEMORY) * each

    @contextlib.contextmanager
    def step(self, rows: int) -> Iterator[int]:
        """Run the enclosed step with the chosen number, measure it, and put the former number back."""
        if len(self.options) == 1:
            yield self.options[0]
            return
        before, threads = torch.get_num_threads(), self.choose(rows)
        if threads != before:
            torch.set_num_threads(threads)
        start = time.perf_counter()
        try:
            yield threads
        finally:
            self.record(rows, threads, time.perf_counter() - start)
            if threads != before:
                torch.set_num_threads(before)
