"""One answer on its way: an engine (on its own thread) or a provider (async) feeds a queue; the response reads it.

When the client leaves, the deadline passes or the server stops, the work is cancelled at once, also before the first token.
"""

import asyncio
import contextlib
import logging
import time
from collections import deque
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Sequence
from dataclasses import dataclass

from fastapi import Request

from gptwright.core.errors import UserError
from gptwright.gateway.provider import Delta
from gptwright.serve.errors import ApiError, ClientGoneError, from_user_error
from gptwright.serve.inbox import Inbox, Mail
from gptwright.serve.metrics import Metrics
from gptwright.serve.protocols import Piece, Running
from gptwright.serve.structure import CallDelta

log = logging.getLogger("gptwright.serve")

Listener = Callable[[Piece], None]
Submit = Callable[[Callable[[int], Listener]], Sequence[Running]]
"""Hands all choices of an answer to an engine: gets a listener for each choice, returns what then runs."""


@dataclass(frozen=True)
class Step:
    """What came from a model: text (maybe empty), and what is known of it."""

    text: str
    index: int = 0
    token_id: int | None = None
    logprob: float | None = None
    top_logprobs: Sequence[tuple[int, float]] = ()
    finish_reason: str | None = None
    model: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    calls: Sequence[CallDelta] = ()


class Slots:
    """How many answers may be generated at once; one more is refused, not queued for ever.

    Attributes:
        taken: choices being generated.
        live: those of them that somebody waits for; the rest belongs to batches.
        hosted: answers of providers, counted apart: they keep no engine busy, and step in when ours are all taken.
        flows: the answers themselves.
    """

    def __init__(self, limit: int, metrics: Metrics) -> None:
        self.limit, self._metrics = limit, metrics
        self.taken = self.live = self.hosted = 0
        self.flows: set[Flow] = set()
        self._mail: Mail | None = None

    def mail(self, loop: asyncio.AbstractEventLoop) -> Mail:
        """How pieces of all answers reach the loop."""
        if self._mail is None or self._mail.loop is not loop:
            self._mail = Mail(loop)
        return self._mail

    def check(self) -> None:
        """Refuse early, before a prompt is encoded.

        Raises:
            ApiError: 429, all are taken.
        """
        if self.taken >= self.limit:
            raise self._busy(self.taken)

    def take(self, flow: "Flow") -> None:
        """Take as many slots as the answer has choices, at most all there are: what is too much for all runs alone.

        Raises:
            ApiError: 429, all are taken.
        """
        if flow.hosted:
            if self.hosted >= self.limit:
                raise self._busy(self.hosted)
            self.hosted += 1
        else:
            if self.taken and self.taken + flow.cost > self.limit:
                raise self._busy(self.taken)
            self.taken += flow.cost
            self.live += 0 if flow.background else flow.cost
        self.flows.add(flow)
        self._metrics.answers.set(self.taken)

    def _busy(self, taken: int) -> ApiError:
        return ApiError(
            429,
            f"The server works on {taken} of at most {self.limit} answers. Try again in a moment.",
            code="server_busy",
            headers={"Retry-After": "1"},
        )

    def free(self, flow: "Flow") -> None:
        """Give them back; a second time does nothing."""
        if flow in self.flows:
            self.flows.discard(flow)
            if flow.hosted:
                self.hosted -= 1
            else:
                self.taken -= flow.cost
                self.live -= 0 if flow.background else flow.cost
            self._metrics.answers.set(self.taken)


class Flow:
    """Steps of one answer, with cancellation.

    Args:
        request: whose client is watched.
        slots: admission.
        metrics: counters.
        model: its id, for the counters.
        timeout_s: longest time for the whole answer.
        keep_alive_s: silence after which ``events`` yields None.
        choices: how many are generated; 0: given texts are only scored.
        background: part of a batch, for which nobody waits.
        hosted: a provider answers.

    Attributes:
        read_until: when whoever has not read the answer by then is given up; a time of the loop.
    """

    def __init__(
        self,
        request: Request,
        slots: Slots,
        metrics: Metrics,
        model: str,
        timeout_s: float,
        keep_alive_s: float,
        choices: int = 1,
        background: bool = False,
        hosted: bool = False,
    ) -> None:
        self._request, self._slots, self._metrics, self._model = request, slots, metrics, model
        self._keep_alive_s = keep_alive_s
        self.choices, self.background, self.hosted = choices, background, hosted
        self.cost = max(1, min(choices, slots.limit))
        self._loop = asyncio.get_running_loop()
        self._inbox: Inbox[Step | BaseException | None] = Inbox(self._loop)
        self._cancel_work: Callable[[], object] = lambda: None
        self._works: Sequence[Running] = ()
        self._unfinished = choices
        self._tasks: list[asyncio.Task[None]] = []
        self.started = time.monotonic()
        self.first_at: float | None = None
        self.last_at: float | None = None
        self._latest: dict[int, float] = {}
        self._deadline = self._loop.time() + timeout_s
        self.read_until = self._deadline + keep_alive_s
        self._timeout_s = timeout_s
        self.cancelled: str | None = None
        self.peeked: deque[Step] = deque()
        self._over = False
        slots.take(self)

    async def run_engine(self, submit: Submit) -> None:
        """Start an engine's work.

        Args:
            submit: see ``Submit``; it may take a moment, so it runs in a thread. Nothing that runs: the answer is over at once.

        Raises:
            UserError: the engine does not take it.
        """
        self.watch()
        mail = self._slots.mail(self._loop)

        def listener(index: int) -> Listener:
            def take(piece: Piece) -> None:
                # On the engine's thread. If the loop is gone this raises, and the engine cancels the request.
                mail.post(lambda: self._take(index, piece))

            return take

        starting = asyncio.ensure_future(asyncio.to_thread(submit, listener))
        try:
            works = await asyncio.shield(starting)
        except asyncio.CancelledError:
            starting.add_done_callback(_cancel_when_started)  # the thread goes on; what it starts must not
            raise
        self._works, self._cancel_work = works, lambda: _cancel_all(works)
        if self.cancelled:
            self._cancel_work()
        if not works:
            self._inbox.put(None)
            self._slots.free(self)

    def check_alive(self) -> None:
        """For work before the engine's: end it when nobody waits any more.

        Raises:
            ClientGoneError: it was cancelled.
            ApiError: 504, it takes too long.
        """
        if self.cancelled:
            raise ClientGoneError
        if self._loop.time() >= self._deadline:
            raise self._too_late()

    def _take(self, index: int, piece: Piece) -> None:
        if piece.finish_reason == "error":
            self._inbox.put(_EngineFailedError())
        else:
            self._inbox.put(
                Step(piece.text, index, piece.token_id, piece.logprob, tuple(piece.top), piece.finish_reason)
            )
        if piece.finish_reason is not None:
            self._unfinished -= 1
            if self._unfinished == 0:
                self._inbox.put(None)
                self._slots.free(self)

    def run_provider(self, deltas: AsyncIterator[Delta]) -> None:
        """Start reading a provider's answer."""

        async def pump() -> None:
            try:
                async for delta in deltas:
                    self._inbox.put(
                        Step(
                            delta.text,
                            finish_reason=delta.finish_reason,
                            model=delta.model,
                            prompt_tokens=delta.prompt_tokens,
                            completion_tokens=delta.completion_tokens,
                            calls=[CallDelta(c.index, c.arguments, c.id, c.name) for c in delta.calls],
                        )
                    )
                self._inbox.put(None)
            except Exception as error:
                self._inbox.put(error)
            finally:
                self._slots.free(self)

        task = self._loop.create_task(pump())
        self._cancel_work = task.cancel
        # A task that is cancelled before its first step never gets to its own ``finally``.
        task.add_done_callback(lambda _task: self._slots.free(self))
        self.watch()

    async def events(self) -> AsyncGenerator[Step | None, None]:
        """Steps as they come; None after a silence, so that a comment can be sent.

        Raises:
            ClientGoneError: the client left; the work is cancelled.
            ApiError: the work failed, or took too long.
        """
        while True:
            if self.peeked:
                yield self.peeked.popleft()
                continue
            if self._over:
                return
            now = self._loop.time()
            if now >= self._deadline:
                self.cancel("timeout")
                raise self._too_late()
            try:
                item = await self._inbox.get(min(self._deadline, now + self._keep_alive_s))
            except TimeoutError:
                yield None
                continue
            if item is None:
                self._over = True
                return
            if isinstance(item, BaseException):
                raise await self._refusal(item)
            self._clock(item)
            yield item

    async def peek(self, enough: Callable[[list[Step]], bool]) -> list[Step]:
        """Look at the first steps; ``events`` gives them all the same.

        Args:
            enough: told of the steps so far, whether they will do.

        Returns:
            Steps until there were enough, or the answer was over.

        Raises:
            ClientGoneError, ApiError: as ``events``.
        """
        seen: list[Step] = []
        async with contextlib.aclosing(self.events()) as events:
            async for step in events:
                if step is not None:
                    seen.append(step)
                    if enough(seen):
                        break
        self.peeked.extend(seen)
        return seen

    def _clock(self, step: Step) -> None:
        now = time.monotonic()
        if self.first_at is None:
            self.first_at = now
            self._metrics.first_token.labels(self._model).observe(now - self.started)
        if (before := self._latest.get(step.index)) is not None:
            self._metrics.between_tokens.labels(self._model).observe(now - before)
        self.last_at = self._latest[step.index] = now

    def _too_late(self) -> ApiError:
        return ApiError(504, f"No complete answer within {self._timeout_s:g} s.", code="timeout")

    async def _refusal(self, error: BaseException) -> Exception:
        """What the client is told of an error: of its own mistakes everything, of ours nothing (the log has it)."""
        if isinstance(error, _EngineFailedError):
            for work in self._works:
                try:
                    await asyncio.to_thread(work.result, 5.0)  # raises what went wrong
                except TimeoutError:
                    continue
                except Exception as cause:
                    error = cause
                    break
        if isinstance(error, UserError):
            return from_user_error(error)
        if isinstance(error, ClientGoneError | ApiError):
            return error
        log.error("an answer failed", exc_info=error)
        return ApiError(500, "The server failed; its log says why.", code="internal_error")

    def cancel(self, reason: str) -> None:
        """Stop the work. Safe to call again."""
        if not self.cancelled:
            self.cancelled = reason
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
        self._inbox.close()
        for task in self._tasks:
            task.cancel()

    async def _watch_client(self) -> None:
        while True:
            if (await self._request.receive())["type"] == "http.disconnect":
                self.cancel("client_gone")
                self._inbox.put(ClientGoneError())
                return

    def watch(self) -> None:
        """Begin to watch whether the client is still there; a second time does nothing."""
        if not self._tasks:
            self._tasks.append(self._loop.create_task(self._watch_client()))


class _EngineFailedError(Exception):
    pass


def _cancel_all(works: Sequence[Running]) -> None:
    for work in works:
        work.cancel()


def _cancel_when_started(starting: "asyncio.Future[Sequence[Running]]") -> None:
    if not starting.cancelled() and starting.exception() is None:
        _cancel_all(starting.result())
