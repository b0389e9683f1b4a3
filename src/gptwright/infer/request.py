"""One request and what comes back of it: pieces while it runs, a result when it is done. Made and read by any thread."""

import itertools
import queue
import random
import secrets
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

from gptwright.infer.config import GenerationConfig
from gptwright.infer.structured import Guide

STOP, LENGTH, CANCELLED, DEADLINE = "stop", "length", "cancelled", "deadline"


@dataclass(frozen=True, slots=True)
class Piece:
    """What one generated token adds.

    Args:
        text: text that may now be shown; often empty (inside a character, or while a stop text may be beginning).
        token_id: the token, or None when the request was ended from outside.
        logprob: its log-probability under the model itself (temperature 1, no filters). Nats.
        finish_reason: on the last piece "stop", "length", "cancelled" or "deadline"; else None.
        top: the likeliest (token id, log-probability) pairs, as many as ``top_logprobs`` asked for.
    """

    text: str
    token_id: int | None = None
    logprob: float | None = None
    finish_reason: str | None = None
    top: tuple[tuple[int, float], ...] = ()

    def __str__(self) -> str:
        return self.text


@dataclass(frozen=True, slots=True)
class Result:
    """A finished answer.

    Args:
        text: the answer, without any stop text.
        ids: its tokens, without the id that ended it.
        logprobs: of each of ``ids``.
        finish_reason: "stop", "length", "cancelled" or "deadline".
        prompt_tokens: tokens taken in.
        completion_tokens: tokens generated, the ending id included.
        seed: repeats the answer; to the bit if it was given, for without one the engine also chooses its threads freely.
    """

    text: str
    ids: list[int]
    logprobs: list[float]
    finish_reason: str
    prompt_tokens: int
    completion_tokens: int
    seed: int

    def __str__(self) -> str:
        return self.text


_numbers = itertools.count(1)


@dataclass(eq=False)
class Request:
    """A submitted request. Iterate over it once for its pieces, or ask for ``result()``.

    Args:
        prompt: token ids, at least one.
        config: how to generate.
        deadline: ``time.monotonic()`` value at which it ends with what it has; None: never. Seconds.
        on_piece: called with each piece on the engine's thread instead of queueing it; must be quick. If it raises, the request is cancelled.
        adapter: the adapter that answers, by its name in the engine; None: the model itself.
        client: whose request it is; clients take turns.
        background: nobody waits for it; it steps back while there are others.
        guide: keeps the answer to ``config.form``; None without one.
        reused_tokens: of the prompt, found in the cache. Set when it starts.
        started_at: ``time.monotonic()`` when its prompt began to be taken in; None while it waits. Seconds.
    """

    prompt: Sequence[int]
    config: GenerationConfig
    deadline: float | None = None
    on_piece: Callable[[Piece], None] | None = None
    adapter: str | None = None
    client: str = ""
    background: bool = False
    guide: Guide | None = None
    number: int = field(default_factory=lambda: next(_numbers))
    dropped_messages: int = 0
    reused_tokens: int = 0
    submitted_at: float = field(default_factory=time.monotonic)
    started_at: float | None = None
    first_token_at: float | None = None
    finished_at: float | None = None

    def __post_init__(self) -> None:
        self.seed = self.config.seed if self.config.seed is not None else secrets.randbits(53)
        # The Mersenne twister's stream for a seed is promised by Python's documentation: the same on every platform and version.
        self.random = random.Random(self.seed)
        self._pieces: queue.SimpleQueue[Piece | BaseException] = queue.SimpleQueue()
        self._cancelled = threading.Event()
        self._done = threading.Event()
        self._wake: Callable[[], None] = lambda: None
        self._error: BaseException | None = None
        self._text: list[str] = []
        self.ids: list[int] = []
        self.logprobs: list[float] = []
        self.completion_tokens = 0
        self.finish_reason: str | None = None

    # For callers

    def cancel(self) -> None:
        """End it at the next step; its last piece says "cancelled". Harmless when it is done already."""
        self._cancelled.set()
        self._wake()

    @property
    def done(self) -> bool:
        """Whether the last piece was given."""
        return self._done.is_set()

    def __iter__(self) -> Iterator[Piece]:
        """Pieces as they come; the last has a finish reason.

        Raises:
            GptwrightError: the engine failed or was closed.
        """
        while not (self.done and self._pieces.empty()):  # a second iteration ends instead of waiting for ever
            item = self._pieces.get()
            if isinstance(item, BaseException):
                raise item
            yield item
            if item.finish_reason is not None:
                return

    def result(self, timeout_s: float | None = None) -> Result:
        """Wait for the end. May be called as often as one likes, also beside iterating.

        Raises:
            TimeoutError: it is not done after ``timeout_s``.
            GptwrightError: the engine failed or was closed.
        """
        if not self._done.wait(timeout_s):
            raise TimeoutError(f"not done after {timeout_s} s")
        if self._error is not None:
            raise self._error
        assert self.finish_reason is not None
        return Result(
            text="".join(self._text),
            ids=list(self.ids),
            logprobs=list(self.logprobs),
            finish_reason=self.finish_reason,
            prompt_tokens=len(self.prompt),
            completion_tokens=self.completion_tokens,
            seed=self.seed,
        )

    # For the scheduler

    @property
    def ended_from_outside(self) -> str | None:
        """The reason to end it now, or None."""
        if self._cancelled.is_set():
            return CANCELLED
        if self.deadline is not None and time.monotonic() >= self.deadline:
            return DEADLINE
        return None

    def on_wake(self, wake: Callable[[], None]) -> None:
        """What ``cancel`` calls so that a sleeping engine looks."""
        self._wake = wake

    def give(self, piece: Piece) -> None:
        """Hand a piece to whoever listens."""
        if piece.text:
            self._text.append(piece.text)
        if piece.token_id is not None:
            self.completion_tokens += 1
            if self.first_token_at is None:
                self.first_token_at = time.monotonic()
        if piece.finish_reason is not None:
            self.finish_reason = piece.finish_reason
            self.finished_at = time.monotonic()
        self._hand_on(piece)
        if piece.finish_reason is not None:
            self._done.set()

    def fail(self, error: BaseException) -> None:
        """End it with an error; nothing happens when it is done already."""
        if self.done:
            return
        self._error = error
        self.finished_at = time.monotonic()
        self._pieces.put(error)
        if self.on_piece is not None:
            self._hand_on(Piece("", finish_reason="error"))
        self._done.set()

    def _hand_on(self, piece: Piece) -> None:
        if self.on_piece is None:
            self._pieces.put(piece)
            return
        try:
            self.on_piece(piece)
        except Exception:  # a listener that broke must not stop the others in the batch
            self._cancelled.set()
