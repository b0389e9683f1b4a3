"""The thread that owns a model: requests arrive from any thread, one loop takes them in and steps the scheduler until it is closed."""

import atexit
import contextlib
import threading
import weakref
from collections.abc import Sequence
from typing import Protocol

from gptwright.core.errors import GptwrightError
from gptwright.infer.request import Request


class Steps(Protocol):
    """What does the work, such as ``infer.scheduler.Scheduler``."""

    @property
    def busy(self) -> bool: ...
    def add(self, request: Request) -> None: ...
    def step(self) -> None: ...
    def fail_all(self, error: BaseException) -> None: ...


class Worker:
    """Runs a scheduler on a thread of its own, which begins with the first request.

    Args:
        scheduler: touched by that thread alone.

    Attributes:
        arrived: requests that were not taken in yet; guarded by ``condition``.
    """

    def __init__(self, scheduler: Steps) -> None:
        self.scheduler = scheduler
        self.thread: threading.Thread | None = None
        self.closed = False
        self.arrived: list[Request] = []
        self.condition = threading.Condition()
        self._fault: BaseException | None = None
        _workers.add(self)

    def enqueue(self, requests: Sequence[Request]) -> None:
        """Hand requests over; they join at the next step, all at once.

        Raises:
            GptwrightError: it is closed.
        """
        with self.condition:
            if self.closed:
                after = "" if self._fault is None else f" after a fault: {self._fault}"
                raise GptwrightError(f"the engine is closed{after}") from self._fault
            self.arrived.extend(requests)
            if self.thread is None:
                self.thread = threading.Thread(target=self._run, name="gptwright-engine", daemon=True)
                self.thread.start()
            self.condition.notify_all()

    def wake(self) -> None:
        """Something changed that a sleeping loop must look at."""
        with self.condition:
            self.condition.notify_all()

    def close(self) -> None:
        """End all requests with an error and stop the thread."""
        with self.condition:
            self.closed = True
            self.condition.notify_all()
        if self.thread is not None and self.thread is not threading.current_thread():
            self.thread.join()

    def _run(self) -> None:
        try:
            while self._round():
                pass
        except BaseException as fault:  # nothing may end this thread and leave callers waiting for it
            self._fault = fault
        error = self._fault or GptwrightError("the engine was closed")
        with self.condition:
            self.closed = True
            left, self.arrived = self.arrived, []
        for request in left:
            request.fail(error)
        with contextlib.suppress(Exception):  # after a fault it may fail again, but only once all are told
            self.scheduler.fail_all(error)

    def _round(self) -> bool:
        """Take in what arrived, do one step. Returns whether to go on."""
        scheduler = self.scheduler
        with self.condition:
            while not (self.closed or self.arrived or scheduler.busy):
                self.condition.wait()
            if self.closed:
                return False
            while self.arrived:
                scheduler.add(self.arrived[0])
                del self.arrived[0]  # only now: if adding fails, it must still be found and told
        try:
            scheduler.step()
        except BaseException as error:  # one bad step must not hang every caller for ever
            scheduler.fail_all(error)
        return True


_workers: "weakref.WeakSet[Worker]" = weakref.WeakSet()


@atexit.register
def _close_all() -> None:
    """A daemon thread inside a torch operator while the interpreter goes down can crash it."""
    for worker in list(_workers):
        worker.close()
