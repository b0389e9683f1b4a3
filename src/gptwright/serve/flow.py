"""One answer on its way: an engine (on its own thread) or a provider (async) feeds a queue; the response reads it.

When the client leaves, the deadline passes or the server stops, the work is cancelled at once, also before the first token.
"""

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request

from gptwright.core.errors import UserError
from gptwright.gateway.provider import Delta
from gptwright.serve.errors import ApiError, from_user_error
from gptwright.serve.metrics import Metrics
from gptwright.serve.protocols import Piece, Running

log = logging.getLogger("gptwright.serve")


@dataclass(frozen=True)
class Step:
    """What came from a model: text (maybe empty), and what is known of it."""

    text: str
    token_id: int | None = None
    logprob: float | None = None
    top_logprobs: Sequence[tuple[int, float]] = ()
    finish_reason: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class ClientGoneError(Exception):
    """Nobody is left to answer."""


class Slots:
    """How many answers may be generated at once; one more is refused, not queued for ever."""

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self._limit, self._metrics = limit, metrics
        self.taken = 0
        self.flows: set[Flow] = set()

    def take(self, flow: "Flow") -> None:
        """Take a slot.

        Raises:
            ApiError: 429, all are taken.
        """
        if self.taken >= self._limit:
            raise ApiError(
                429,
                f"The server already works on {self._limit} answers. Try again in a moment.",
                code="server_busy",
                headers={"Retry-After": "1"},
            )
        self.taken += 1
        self.flows.add(flow)
        self._metrics.running.set(self.taken)

    def free(self, flow: "Flow") -> None:
        """Give a slot back; a second time does nothing."""
        if flow in self.flows:
            self.flows.discard(flow)
            self.taken -= 1
            self._metrics.running.set(self.taken)


class Flow:
    """Steps of one answer, with cancellation.

    Args:
        request: whose client is watched.
        slots: admission.
        metrics: counters.
        timeout_s: longest time for the whole answer.
        keep_alive_s: silence after which ``events`` yields None.
    """

    def __init__(self, request: Request, slots: Slots, metrics: Metrics, timeout_s: float, keep_alive_s: float) -> None:
        self._request, self._slots, self._metrics = request, slots, metrics
        self._keep_alive_s = keep_alive_s
        self._loop = asyncio.get_running_loop()
        self._queue: asyncio.Queue[Step | BaseException | None] = asyncio.Queue()
        self._cancel_work: Callable[[], object] = lambda: None
        self._work: Running | None = None
        self._tasks: list[asyncio.Task[None]] = []
        self._started = time.monotonic()
        self._deadline = self._loop.time() + timeout_s
        self._timeout_s = timeout_s
        self._first = True
        self._cancelled = False
        slots.take(self)

    async def run_engine(self, submit: Callable[[Callable[[Piece], None]], Running]) -> None:
        """Start an engine's work.

        Args:
            submit: hands the request to the engine, with what is to be called for each piece; it may take a moment
                (the prompt is encoded), so it runs in a thread.

        Raises:
            UserError: the engine does not take it.
        """
        self._watch()

        def take(piece: Piece) -> None:
            # On the engine's thread. If the loop is gone this raises, and the engine cancels the request.
            self._loop.call_soon_threadsafe(self._take, piece)

        starting = asyncio.ensure_future(asyncio.to_thread(submit, take))
        try:
            work = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_cancel_when_started)  # the thread goes on; what it starts must not
            raise
        self._work, self._cancel_work = work, work.cancel
        if self._cancelled:
            work.cancel()

    def _take(self, piece: Piece) -> None:
        if piece.finish_reason == "error":
            self._queue.put_nowait(_EngineFailedError())
        else:
            self._queue.put_nowait(
                Step(piece.text, piece.token_id, piece.logprob, tuple(piece.top), piece.finish_reason)
            )
        if piece.finish_reason is not None:
            self._queue.put_nowait(None)
            self._slots.free(self)

    def run_provider(self, deltas: AsyncIterator[Delta]) -> None:
        """Start reading a provider's answer."""

        async def pump() -> None:
            try:
                async for delta in deltas:
                    self._queue.put_nowait(
                        Step(
                            delta.text,
                            finish_reason=delta.finish_reason,
                            model=delta.model,
                            prompt_tokens=delta.prompt_tokens,
                            completion_tokens=delta.completion_tokens,
                        )
                    )
                self._queue.put_nowait(None)
            except Exception as error:
                self._queue.put_nowait(error)
            finally:
                self._slots.free(self)

        task = self._loop.create_task(pump())
        self._cancel_work = task.cancel
        # A task that is cancelled before its first step never gets to its own ``finally``.
        task.add_done_callback(lambda _task: self._slots.free(self))
        self._watch()

    async def events(self) -> AsyncIterator[Step | None]:
        """Steps as they come; None after a silence, so that a comment can be sent.

        Raises:
            ClientGoneError: the client left; the work is cancelled.
            ApiError: the work failed, or took too long.
        """
        while True:
            left = self._deadline - self._loop.time()
            if left <= 0:
                self.cancel("timeout")
                raise ApiError(504, f"No complete answer within {self._timeout_s:g} s.", code="timeout")
            try:
                item = await asyncio.wait_for(self._queue.get(), min(left, self._keep_alive_s))
            except TimeoutError:
                yield None
                continue
            if item is None:
                return
            if isinstance(item, BaseException):
                raise await self._refusal(item)
            if self._first:
                self._first = False
                self._metrics.first_token.observe(time.monotonic() - self._started)
            yield item

    async def _refusal(self, error: BaseException) -> Exception:
        """What the client is told of an error: of its own mistakes everything, of ours nothing (the log has it)."""
        if isinstance(error, _EngineFailedError) and self._work is not None:
            try:
                await asyncio.to_thread(self._work.result, 5.0)  # raises what went wrong
            except Exception as cause:
                error = cause
        if isinstance(error, UserError):
            return from_user_error(error)
        if isinstance(error, ClientGoneError | ApiError):
            return error
        log.error("an answer failed", exc_info=error)
        return ApiError(500, "The server failed; its log says why.", code="internal_error")

    def cancel(self, reason: str) -> None:
        """Stop the work. Safe to call again."""
        if not self._cancelled:
            self._cancelled = True
            self._metrics.cancelled.labels(reason).inc()
            self._cancel_work()

    def abandon(self) -> None:
        """Give everything back: the work never started."""
        self._slots.free(self)
        for task in self._tasks:
            task.cancel()

    def close(self, complete: bool) -> None:
        """The response is over; unless it is complete, the work is cancelled."""
        if not complete:
            self.cancel("client_gone")
        for task in self._tasks:
            task.cancel()

    async def _watch_client(self) -> None:
        while True:
            if (await self._request.receive())["type"] == "http.disconnect":
                self.cancel("client_gone")
                self._queue.put_nowait(ClientGoneError())
                return

    def _watch(self) -> None:
        self._tasks.append(self._loop.create_task(self._watch_client()))


class _EngineFailedError(Exception):
    pass


def _cancel_when_started(starting: "asyncio.Future[Running]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        starting.result().cancel()
