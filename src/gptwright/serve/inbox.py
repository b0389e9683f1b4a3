"""The way of pieces from an engine's thread into the event loop, made for many streams: what is paid for each token is paid by all at once.

A step of the engine gives every stream a token. Waking the loop for each, and a task with a timer for each wait (``asyncio.wait_for``), cost
more than what is done with the token.
"""

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Generic, TypeVar

Item = TypeVar("Item")


class Mail:
    """Calls from other threads, handed to the loop together: it is woken once for all that came since it looked.

    Args:
        loop: where they are made.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self.loop = loop
        self._calls: deque[Callable[[], None]] = deque()
        self._woken = False

    def post(self, call: Callable[[], None]) -> None:
        """Have something called on the loop; calls keep their order. On any thread.

        Raises:
            RuntimeError: the loop is closed.
        """
        self._calls.append(call)
        # The mark goes up before the loop is woken and down before it looks: what is posted in between wakes it once too often, never too rarely.
        if not self._woken:
            self._woken = True
            try:
                self.loop.call_soon_threadsafe(self._deliver)
            except BaseException:
                self._woken = False
                raise

    def _deliver(self) -> None:
        self._woken = False
        while self._calls:
            self._calls.popleft()()


class Inbox(Generic[Item]):
    """A queue that one task reads, with one timer for all its waits.

    Args:
        loop: whose task reads and writes it.
    """

    def __init__(self, loop: asyncio.AbstractEventLoop) -> None:
        self._loop = loop
        self._items: deque[Item] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self._alarm: asyncio.TimerHandle | None = None
        self._until = 0.0

    def put(self, item: Item) -> None:
        """Add something. On the loop's thread."""
        self._items.append(item)
        self._wake()

    async def get(self, until: float) -> Item:
        """Take the next.

        Args:
            until: how long to wait, as ``loop.time()``.

        Raises:
            TimeoutError: nothing came.
        """
        while not self._items:
            if self._loop.time() >= until:
                raise TimeoutError
            if self._alarm is None or until < self._until:
                self.close()
                self._alarm = self._loop.call_at(until, self._ring)
            self._until = until
            self._waiter = self._loop.create_future()
            try:
                await self._waiter
            finally:
                self._waiter = None
        return self._items.popleft()

    def close(self) -> None:
        """Stop the timer."""
        if self._alarm is not None:
            self._alarm.cancel()
            self._alarm = None

    def _ring(self) -> None:
        self._alarm = None
        if self._loop.time() < self._until:  # there were news meanwhile
            self._alarm = self._loop.call_at(self._until, self._ring)
        else:
            self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)
