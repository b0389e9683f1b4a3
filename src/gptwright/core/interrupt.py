"""Ctrl-C and SIGTERM as a flag: long work looks at it between two safe points, saves, and raises Interrupted."""

import contextlib
import signal
import threading
from collections.abc import Iterator
from types import FrameType


class StopFlag:
    """True once a stop was asked for. ``reason`` names the signal."""

    def __init__(self) -> None:
        self._event = threading.Event()
        self.reason = ""

    def set(self, reason: str) -> None:
        self.reason = reason
        self._event.set()

    def __bool__(self) -> bool:
        return self._event.is_set()


@contextlib.contextmanager
def stop_on_signals() -> Iterator[StopFlag]:
    """Turn the first SIGINT or SIGTERM into a flag; the second one interrupts at once. Outside the main thread it only gives a flag."""
    flag = StopFlag()
    if threading.current_thread() is not threading.main_thread():
        yield flag
        return

    def handler(number: int, _frame: FrameType | None) -> None:
        if flag:
            raise KeyboardInterrupt
        flag.set(signal.Signals(number).name)

    former = {number: signal.signal(number, handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield flag
    finally:
        for number, old in former.items():
            signal.signal(number, old)
