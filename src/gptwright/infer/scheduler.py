"""Continuous batching: requests join and leave between steps, prompts are taken in by pieces beside the running answers.

No threads here: ``step`` does one round and returns. A step is one forward pass over one token of every running answer (and the tokens that
were guessed to follow it) and as much of the entering prompts as the pause between two tokens allows.
"""

import math
import time
from collections import deque
from collections.abc import Collection, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from gptwright.core.errors import GptwrightError
from gptwright.infer.adapters import Adapter
from gptwright.infer.cache import PAGE, Lease, PagedCache
from gptwright.infer.config import GenerationConfig
from gptwright.infer.history import History
from gptwright.infer.request import LENGTH, STOP, Piece, Request
from gptwright.infer.runner import Part
from gptwright.infer.sampling import Sampler
from gptwright.infer.speculative import Drafter, Pace
from gptwright.infer.text import Decoder, TextStream
from gptwright.infer.threads import ThreadChooser
from gptwright.infer.weights import AnyRunner, make_runner
from gptwright.model.transformer import Transformer

# Guesses pay while a step is bound by reading the weights; with more rows the arithmetic is.
_GUESS_ROWS = 4
_FEWEST_PREFILL = 32  # prompt tokens a step takes in at least, or a prompt would never end beside slow answers
_MEMORY = 0.8  # weight of the past in the estimates of time


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
        self.prompt = list(request.prompt)
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

    @property
    def tokens(self) -> list[int]:
        """The prompt and what was generated."""
        return self.prompt + self.request.ids

    @property
    def opened(self) -> Lease:
        """The lease of an answer that was let in."""
        assert self.lease is not None
        return self.lease

    def most_tokens(self, seq_len: int) -> int:
        """Positions that it may come to need."""
        return min(len(self.prompt) + self.request.config.max_tokens, seq_len)

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

    def end(self, reason: str) -> None:
        """End it from outside, with what text there is."""
        rest, _ = self.text.finish()
        self.request.give(Piece(rest, finish_reason=reason))


class Scheduler:
    """Runs many requests on one model, step by step.

    Args:
        model: in evaluation mode.
        tokenizer: decodes, and says how many of the logits are real: padding rows of the embedding are never sampled.
        max_batch: most answers that run at once; others wait.
        prefill_tokens: most prompt tokens taken in beside a decode step.
        kv_bytes: memory for keys and values; a request that would pass it waits until others leave.
        weights: see ``weights.make_runner``.
        max_gap_s: aim for the pause between two tokens of a stream while prompts enter. Seconds.
        drafter: guesses coming tokens; None: no guessing. Only the compiled forward pass is exact enough for it.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: TokenizerLike,
        max_batch: int = 32,
        prefill_tokens: int = 256,
        kv_bytes: int = 2**32,
        weights: str = "as_is",
        max_gap_s: float = 0.1,
        drafter: Drafter | None = None,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_batch, self.prefill_tokens, self.max_gap_s = max_batch, prefill_tokens, max_gap_s
        self.device = model.embedding.weight.device
        self.config, self.seq_len = model.config, model.config.seq_len
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        with torch.inference_mode():
            self.runner: AnyRunner = make_runner(model, self.vocab_size, weights)
        self.cache = PagedCache(model.config, self.runner.dtype, self.device, kv_bytes, max_batch)
        self.drafter = drafter if self.runner.exact else None
        # Where bits depend on how a prompt is cut, it is cut at the same places always, and stored beginnings are taken up only there.
        self._unit = PAGE if self.runner.exact else math.lcm(PAGE, prefill_tokens)
        self.threads = ThreadChooser()
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []
        self.entering: list[Answer] = []
        self.adapters: dict[str, tuple[int, Any]] = {}
        self._served: dict[str, float] = {}  # tokens spent on each client
        self._token_s = self._decode_s = 0.0  # estimates: a prompt token, a step without prompts
        self._sampler: tuple[tuple[int, ...], Sampler] | None = None

    def add(self, request: Request) -> None:
        """Queue a request; it joins at a coming step."""
        if request.client not in self._served:  # a newcomer owes nothing, but has no claim on the past either
            active = [self._served.get(a.request.client, 0.0) for a in (*self.running, *self.entering, *self.waiting)]
            self._served[request.client] = min(active, default=0.0)
        answer = Answer(request, self.tokenizer)
        if request.adapter is not None:
            answer.adapter = self.adapters[request.adapter]
        self.waiting.append(answer)

    @staticmethod
    def refuses(config: GenerationConfig) -> str | None:
        """What of a request it cannot do: nothing."""
        return None

    def add_adapter(self, name: str, adapter: Adapter) -> None:
        """Let requests name an adapter. One of the same name is replaced; answers that run keep the one they began with."""
        self.adapters[name] = (adapter.number, self.runner.adapter(adapter))

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self.waiting or self.running or self.entering)

    @property
    def cache_usage(self) -> float:
        """Share of the pages that requests hold."""
        return self.cache.used_pages / self.cache.n_pages

    @torch.inference_mode()
    def step(self) -> None:
        """One token or more for every running answer, and a piece of the prompts that are entering."""
        self._drop_ended()
        self._admit()
        decoding = list(self.running)
        parts = [self._next_tokens(answer) for answer in decoding]
        chunks = self._chunks()
        pieces = [(answer, answer.prompt[answer.stored : answer.stored + size]) for answer, size in chunks]
        for answer, ids in pieces:
            last = answer.stored + len(ids) == len(answer.prompt)
            parts.append(self._part(answer, ids, 1 if last else 0))
        if not parts:
            return
        logits = self._forward(parts, len(decoding), sum(size for _, size in chunks))
        for answer, ids in pieces:
            answer.stored += len(ids)
            self.cache.share(answer.opened, answer.prompt[: answer.stored])
        begun = [answer for answer, _ in pieces if answer.stored == len(answer.prompt)]
        finished = self._draw(decoding, begun, parts, logits)
        for answer in begun:
            self.entering.remove(answer)
            self.running.append(answer)
        for answer in finished:
            self.running.remove(answer)
            self._close(answer)

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error and forget them."""
        everyone = [*self.running, *self.entering, *self.waiting]
        self.running, self.entering = [], []
        self.waiting.clear()
        for answer in everyone:
            answer.request.fail(error)
            self._close(answer, keep=False)
        self.cache.clear()

    def _part(self, answer: Answer, ids: list[int], wanted: int) -> Part:
        adapter = None if answer.adapter is None else answer.adapter[1]
        return Part(ids, answer.stored, answer.opened, wanted, adapter)

    def _next_tokens(self, answer: Answer) -> Part:
        """The token that was sampled last, and guesses at those to follow."""
        guesses: list[int] = []
        left = min(answer.request.config.max_tokens - len(answer.request.ids), self.seq_len - answer.stored) - 1
        if self.drafter is not None and left > 0 and len(self.running) + len(self.entering) <= _GUESS_ROWS:
            count = min(answer.pace.length(), left)
            if count:
                guesses = self.drafter.propose(answer.request.number, answer.tokens, count)
        return self._part(answer, [answer.pending, *guesses], 1 + len(guesses))

    def _chunks(self) -> list[tuple[Answer, int]]:
        """How much of which prompts to take in now."""
        budget = self.prefill_tokens
        if not self.runner.exact:
            chunks, taken = [], 0
            for answer in self.entering:
                # Pieces end at the same places whatever else is going on, so that an answer's bits do not depend on its neighbours.
                size = min(budget - answer.stored % budget, len(answer.prompt) - answer.stored)
                if taken and taken + size > budget:
                    break
                chunks.append((answer, size))
                taken += size
            return chunks
        if self.running and self._token_s:
            spare = (self.max_gap_s - self._decode_s) / self._token_s
            budget = max(min(_FEWEST_PREFILL, budget), min(budget, int(spare)))
        sizes = dict.fromkeys(range(len(self.entering)), 0)
        left = [len(answer.prompt) - answer.stored for answer in self.entering]
        # The oldest gets a quarter at least; beyond that short ones go first, so that a question need not wait for a book.
        if left:
            sizes[0] = min(left[0], max(1, budget // 4))
            budget -= sizes[0]
        for i in sorted(range(len(left)), key=lambda i: left[i]):
            more = min(left[i] - sizes[i], budget)
            sizes[i] += more
            budget -= more
        return [(self.entering[i], size) for i, size in sizes.items() if size]

    def _forward(self, parts: Sequence[Part], rows: int, prompt_tokens: int) -> Tensor:
        seeded = any(answer.request.config.seed is not None for answer in (*self.running, *self.entering))
        # Libraries add up in another order on another number of threads (measured in fp32: the last bits differ). Who gave a seed was promised
        # the same answer again, so as long as such a one runs beside them, PyTorch's own number stays.
        free = not prompt_tokens and (self.runner.exact or not seeded)
        threads = self.threads.choose(rows) if free else None
        start = time.perf_counter()
        logits = self.runner.forward(self.cache, parts, threads)
        seconds = time.perf_counter() - start
        if threads is not None:
            self.threads.record(rows, threads, seconds)
        if not prompt_tokens:
            self._decode_s = _blend(self._decode_s, seconds)
        elif prompt_tokens >= _FEWEST_PREFILL:
            own = seconds - (self._decode_s if rows else 0.0)
            self._token_s = _blend(self._token_s, max(own, seconds / 4) / prompt_tokens)
        return logits

    def _draw(
        self, decoding: Sequence[Answer], begun: Sequence[Answer], parts: Sequence[Part], logits: Tensor
    ) -> list[Answer]:
        """Sample for all who have logits, going on where guesses were right. Returns those that are complete."""
        first, at = [], 0
        for part in parts:
            if part.wanted:
                first.append(at)
            at += part.wanted
        finished: list[Answer] = []
        active = list(zip([*decoding, *begun], first, strict=True))
        guesses = {answer: part.ids[1:] for answer, part in zip(decoding, parts, strict=False)}
        right = dict.fromkeys(decoding, 0)
        for turn in range(max((part.wanted for part in parts), default=0)):
            for answer, _ in active:
                answer.stored += (
                    answer in guesses
                )  # this turn's token is in the cache: the one before, or a right guess
            rows = [row + turn for _, row in active]
            chosen = logits if rows == list(range(len(logits))) else logits[rows]
            done = self._sample([answer for answer, _ in active], chosen)
            finished += done
            going = []
            for answer, row in active:
                guess = guesses.get(answer, ())
                if turn < len(guess) and answer.pending == guess[turn] and answer not in done:
                    right[answer] += 1
                    going.append((answer, row))
            active = going
            if not active:
                break
        for answer in decoding:
            answer.pace.record(len(guesses[answer]), right[answer])
        return finished

    def _sample(self, answers: Sequence[Answer], logits: Tensor) -> list[Answer]:
        """Draw a token for each answer. Returns those that are complete."""
        members = tuple(answer.request.number for answer in answers)
        if self._sampler is None or self._sampler[0] != members:
            self._sampler = (members, Sampler([a.request.config for a in answers], self.vocab_size, self.device))
        uniforms = [a.request.random.random() for a in answers]
        allowed = [None if a.guide is None else a.guide.allowed() for a in answers]
        drawn = self._sampler[1](logits, uniforms, [a.history for a in answers], allowed)
        finished = []
        for answer, token, logprob, top in zip(answers, drawn.ids, drawn.logprobs, drawn.top, strict=True):
            if answer.guide is not None and (fault := answer.guide.error) is not None:
                answer.request.fail(fault)
                finished.append(answer)
                continue
            if logprob != logprob:  # NaN
                raise GptwrightError("the model's logits are not numbers; its weights are damaged")
            if answer.accept(token, logprob, top, self.seq_len):
                finished.append(answer)
        return finished

    def _close(self, answer: Answer, keep: bool = True) -> None:
        """Give an answer's pages back; what is stored in full ones stays for others."""
        client = answer.request.client
        self._served[client] = self._served.get(client, 0.0) + answer.request.completion_tokens
        if all(a.request.client != client for a in (*self.running, *self.entering, *self.waiting)):
            self._served.pop(client, None)
        if self.drafter is not None:
            self.drafter.forget(answer.request.number)
        if answer.lease is not None:
            if keep:
                self.cache.share(answer.lease, answer.tokens[: answer.stored])
            self.cache.close(answer.lease)
            answer.lease = None

    def _admit(self) -> None:
        """Let waiting requests in while there is room: whose client was served least first, and of one client in order."""
        while self.waiting and len(self.running) + len(self.entering) < self.max_batch:
            heads: dict[str, Answer] = {}
            for answer in self.waiting:
                heads.setdefault(answer.request.client, answer)
            answer = min(heads.values(), key=lambda a: self._served.get(a.request.client, 0.0))
            root = 0 if answer.adapter is None else answer.adapter[0]
            lease = self.cache.open(answer.prompt, answer.most_tokens(self.seq_len), root, self._unit)
            if lease is None:  # nobody overtakes it: a long request would never find room
                return
            self.waiting.remove(answer)
            answer.lease, answer.stored = lease, lease.reused
            answer.request.reused_tokens = lease.reused
            answer.request.started_at = time.monotonic()
            self._served[answer.request.client] = self._served.get(answer.request.client, 0.0) + len(answer.prompt)
            self.entering.append(answer)

    def _drop_ended(self) -> None:
        """Cancelled requests and those past their deadline."""
        for group in (self.waiting, self.entering, self.running):
            for answer in [a for a in group if a.request.ended_from_outside]:
                group.remove(answer)
                answer.end(answer.request.ended_from_outside or STOP)
                self._close(answer)

    def check_integrity(self) -> None:
        """Invariants between steps; for tests."""
        for answer in self.running:
            assert answer.stored == len(answer.prompt) + len(answer.request.ids) - 1
            assert answer.pending == answer.request.ids[-1]
            assert answer.request.finish_reason is None
        for answer in self.entering:
            assert answer.stored < len(answer.prompt)
        self.cache.check_integrity([answer.opened for answer in (*self.running, *self.entering)])
        assert all(answer.lease is None for answer in self.waiting)


def _blend(old: float, new: float) -> float:
    """A running estimate. The machine's noise only ever adds time, so a faster measurement is believed at once."""
    return new if not old or new < old else _MEMORY * old + (1 - _MEMORY) * new
