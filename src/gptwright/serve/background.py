"""Responses in the background: they go on when their client has left, and can be asked for, watched from any event on, and cancelled."""

import asyncio
import contextlib
from collections import OrderedDict
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from fastapi import Request
from starlette.types import Message

if TYPE_CHECKING:
    from gptwright.serve.response_events import Event, Growing

KEPT_S = 600.0
"""How long the events of a response that is over can be read again. Seconds."""
_MOST_KEPT = 100


def detached(request: Request) -> Request:
    """The same request of a client that never leaves."""

    async def receive() -> Message:
        return await asyncio.Future()

    return Request(request.scope, receive)


class Job:
    """One response in the background.

    Args:
        growing: the response as it grows.
        key_id: whose it is.
    """

    def __init__(self, growing: "Growing", key_id: int | None) -> None:
        self.growing, self.key_id = growing, key_id
        self.events: list[Event] = []
        self.over = False
        self.forgotten: asyncio.TimerHandle | None = None
        self.cancelled = self.deleted = False
        self._changed = asyncio.Event()

    def tell(self, event: "Event") -> None:
        """Something happened."""
        self.events.append(event)
        self._wake()

    def end(self) -> None:
        """Nothing more will happen."""
        self.over = True
        self._wake()

    async def watch(self, after: int, keep_alive_s: float) -> AsyncIterator["Event | None"]:
        """Events with a higher number than ``after``, those to come too; None after a silence."""
        at = max(0, after + 1)  # an event's number is its place
        while True:
            while at < len(self.events):
                yield self.events[at]
                at += 1
            if self.over:
                return
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), keep_alive_s)
            except TimeoutError:
                yield None

    async def finished(self, timeout_s: float) -> None:
        """Wait for the end, for a while."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(timeout_s):
                async for _ in self.watch(-1, timeout_s):
                    pass

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()


class Jobs:
    """The responses in the background of this process."""

    def __init__(self) -> None:
        self._jobs: OrderedDict[str, Job] = OrderedDict()

    def add(self, response_id: str, job: Job) -> None:
        """A response begins."""
        self._jobs[response_id] = job

    def find(self, response_id: str, key_id: int | None) -> Job | None:
        """A response that runs here, or ended a short while ago; None: there is none, or it is another key's."""
        job = self._jobs.get(response_id)
        return job if job is not None and job.key_id == key_id else None

    def ended(self, response_id: str) -> None:
        """Forget a response's events after a while, and the oldest at once when there are many."""
        if (job := self._jobs.get(response_id)) is not None:
            job.forgotten = asyncio.get_running_loop().call_later(KEPT_S, self._jobs.pop, response_id, None)
        over = [name for name, job in self._jobs.items() if job.over]
        for name in over[: max(0, len(over) - _MOST_KEPT)]:
            timer = self._jobs.pop(name).forgotten
            if timer is not None:
                timer.cancel()
