"""A request inside a scheduler: how much of it is stored, what comes next, and the text that is handed on."""

from collections.abc import Collection
from typing import Any, Protocol

from gptwright.infer.cache import Lease
from gptwright.infer.history import History
from gptwright.infer.request import LENGTH, STOP, Piece, Request
from gptwright.infer.sampling import COLDEST
from gptwright.infer.speculative import Pace
from gptwright.infer.text import Decoder, TextStream
from gptwright.infer.watermark import WINDOW, Watermark


class TokenizerLike(Protocol):
    """What the scheduler needs of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...

    @property
    def stop_ids(self) -> Collection[int]: ...

    def stream(self) -> Decoder: ...


class Answer:
    """A request inside the scheduler: how much of it is stored, and what comes next."""

    def __init__(self, request: Request, tokenizer: TokenizerLike) -> None:
        self.request = request
        self.prompt = list(request.prompt)  # what must be stored before the next token is drawn
        self.stored = 0  # positions in the cache
        self.pending = -1  # sampled, not yet stored
        self.lease: Lease | None = None
        self.adapter: Any = None
        self.pace = Pace()
        config, form = request.config, request.config.form
        self.text = TextStream(tokenizer.stream(), request.config.stop, form.control_ids if form else ())
        self.stop_ids = frozenset(config.stop_token_ids) | (
            frozenset() if config.ignore_eos else frozenset(tokenizer.stop_ids)
        )
        self.guide = request.guide
        self.history = History.wanted(config, self.prompt, tokenizer.vocab_size)
        self._marked: set[tuple[int, ...]] = set()

    @property
    def tokens(self) -> list[int]:
        """The prompt and what was generated."""
        return [*self.request.prompt, *self.request.ids]

    @property
    def opened(self) -> Lease:
        """The lease of an answer that was let in."""
        assert self.lease is not None
        return self.lease

    def most_tokens(self, seq_len: int) -> int:
        """Positions that it may come to need."""
        return min(len(self.request.prompt) + self.request.config.max_tokens, seq_len)

    def accept(self, token: int, logprob: float, top: tuple[tuple[int, float], ...], seq_len: int) -> bool:
        """Take a sampled token in and hand on its text. Returns whether the answer is complete."""
        request = self.request
        if token in self.stop_ids:
            rest, _ = self.text.finish()
            request.give(Piece(rest, token, logprob, STOP, top))
            return True
        request.ids.append(token)
        request.logprobs.append(logprob)
        if self.history is not None:
            self.history.add(token)
        text, stopped = self.text.push(token)
        if self.guide is not None:
            self.guide.accept(token)
            if self.guide.complete and not stopped:
                text, stopped = text + self.text.finish()[0], True
        reason = STOP if stopped else None
        # The token just sampled would be stored at position ``stored``; the context may be full.
        if not stopped and (len(request.ids) >= request.config.max_tokens or self.stored >= seq_len):
            rest, stopped = self.text.finish()
            text, reason = text + rest, STOP if stopped else LENGTH
        request.give(Piece(text, token, logprob, reason, top))
        self.pending = token
        return reason is not None

    def step_back(self) -> None:
        """Give up its place: what it has generated becomes part of what must be stored before it can go on."""
        self.prompt, self.stored, self.lease = self.tokens, 0, None

    def mark(self, watermark: Watermark) -> int | None:
        """The watermark's seed for the token that comes now; None where it is not marked. Asked once a token."""
        window = tuple(self.request.ids[-WINDOW:])
        # Only what was generated counts: a detector sees no prompt, and every first word after the same frame would lean the same way.
        if len(window) < WINDOW or window in self._marked or self.request.config.temperature < COLDEST:
            return None
        self._marked.add(window)
        return watermark.seed(window)

    def end(self, reason: str) -> None:
        """End it from outside, with what text there is."""
        rest, _ = self.text.finish()
        self.request.give(Piece(rest, finish_reason=reason))
