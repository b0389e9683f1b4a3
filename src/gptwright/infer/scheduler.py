"""Continuous batching: requests join and leave between steps, prompts are taken in by chunks beside the running answers.

No threads here: ``step`` does one round and returns. Rows 0 .. n-1 of the cache hold the running answers, row n the one prompt that is
being taken in; so a decode step is one batch over plain slices.
"""

import contextlib
from collections import deque
from collections.abc import Collection, Sequence
from typing import Protocol

import torch
from torch import Tensor

from gptwright.core.errors import GptwrightError
from gptwright.infer.cache import SlotCache
from gptwright.infer.request import LENGTH, STOP, Piece, Request
from gptwright.infer.runner import Runner
from gptwright.infer.sampling import Sampler
from gptwright.infer.text import Decoder, TextStream
from gptwright.infer.threads import ThreadChooser
from gptwright.model.transformer import Transformer


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
        self.text = TextStream(tokenizer.stream(), request.config.stop)
        config = request.config
        self.stop_ids = frozenset(config.stop_token_ids) | (
            frozenset() if config.ignore_eos else frozenset(tokenizer.stop_ids)
        )
        self.seen: Tensor | None = None
        if config.repetition_penalty != 1:
            self.seen = torch.zeros(tokenizer.vocab_size, dtype=torch.bool)
            self.seen[[i for i in self.prompt if i < tokenizer.vocab_size]] = True

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
        if self.seen is not None:
            self.seen[token] = True
        text, stopped = self.text.push(token)
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
        prefill_tokens: prompt tokens taken in beside each decode step; bounds the pause between two tokens of a stream.
        kv_bytes: memory for keys and values; a request that would pass it waits until others leave.
    """

    def __init__(
        self,
        model: Transformer,
        tokenizer: TokenizerLike,
        max_batch: int = 32,
        prefill_tokens: int = 256,
        kv_bytes: int = 2**32,
    ) -> None:
        self.tokenizer = tokenizer
        self.max_batch, self.prefill_tokens, self.kv_bytes = max_batch, prefill_tokens, kv_bytes
        weight = model.embedding.weight
        self.device = weight.device
        self.cache = SlotCache(model.config, weight.dtype, weight.device)
        self.seq_len = model.config.seq_len
        self.vocab_size = min(tokenizer.vocab_size, model.config.vocab_size)
        with torch.inference_mode():
            self.runner = Runner(model, self.vocab_size)
        self.threads = ThreadChooser()
        self.waiting: deque[Answer] = deque()
        self.running: list[Answer] = []
        self.entering: Answer | None = None
        self._sampler: tuple[tuple[int, ...], Sampler] | None = None

    def add(self, request: Request) -> None:
        """Queue a request; it joins at a coming step."""
        self.waiting.append(Answer(request, self.tokenizer))

    @property
    def busy(self) -> bool:
        """Whether a step has anything to do."""
        return bool(self.waiting or self.running or self.entering)

    @torch.inference_mode()
    def step(self) -> None:
        """One token for every running answer, then up to ``prefill_tokens`` of prompts."""
        self._drop_ended()
        if self.running:
            self._decode()
        taken = 0
        while self._admit():
            assert self.entering is not None
            # Chunks end at the same places whatever else is going on, so that an answer's bits do not depend on its neighbours.
            size = min(self.prefill_tokens, len(self.entering.prompt) - self.entering.stored)
            if taken and taken + size > self.prefill_tokens:
                break
            self._prefill(self.entering, size)
            taken += size

    def fail_all(self, error: BaseException) -> None:
        """End every request with an error and forget them."""
        entering = [self.entering] if self.entering else []
        for answer in (*self.running, *entering, *self.waiting):
            answer.request.fail(error)
        self.running, self.entering = [], None
        self.waiting.clear()
        self.cache.shrink()

    def _decode(self) -> None:
        lengths = [answer.stored for answer in self.running]
        self.cache.reserve(len(self.running) + 1, max(lengths) + 1)
        # fp32 sums in another order on another number of threads (measured: the last bits differ; bf16 agreed). Who gave a seed was promised
        # the same answer again, so as long as such a one runs, PyTorch's own number stays.
        seeded = any(answer.request.config.seed is not None for answer in self.running)
        with contextlib.nullcontext() if seeded else self.threads.step(len(lengths)):
            logits = self.runner.decode(self.cache, [answer.pending for answer in self.running], lengths)
            for answer in self.running:
                answer.stored += 1
            finished = self._sample(self.running, logits)
        for row in sorted(finished, reverse=True):
            self._leave(row)

    def _prefill(self, answer: Answer, size: int) -> None:
        """Take in a chunk of the entering prompt."""
        chunk = answer.prompt[answer.stored : answer.stored + size]
        row, start = len(self.running), answer.stored
        self.cache.reserve(row + 1, start + len(chunk))
        logits = self.runner.prefill(self.cache, chunk, row, start)
        answer.stored += len(chunk)
        if answer.stored == len(answer.prompt):
            finished = self._sample([answer], logits)
            self.entering = None  # only now: if sampling fails, ``fail_all`` must still find it
            if not finished:
                self.running.append(answer)

    def _sample(self, answers: Sequence[Answer], logits: Tensor) -> list[int]:
        """Draw a token for each answer. Returns the rows of those that are complete."""
        members = tuple(answer.request.number for answer in answers)
        if self._sampler is None or self._sampler[0] != members:
            self._sampler = (members, Sampler([a.request.config for a in answers], self.vocab_size, self.device))
        sampler = self._sampler[1]
        seen = None
        if sampler.penalised:
            nothing = torch.zeros(self.vocab_size, dtype=torch.bool)
            seen = torch.stack([nothing if a.seen is None else a.seen[: self.vocab_size] for a in answers]).to(
                self.device
            )
        uniforms = [a.request.random.random() for a in answers]
        ids, logprobs = sampler(logits, uniforms, seen)
        finished = []
        for row, (token, logprob) in enumerate(zip(ids.tolist(), logprobs.tolist(), strict=True)):
            answer = answers[row]
            if logprob != logprob:  # NaN
                raise GptwrightError("the model's logits are not numbers; its weights are damaged")
            top: tuple[tuple[int, float], ...] = ()
            if answer.request.config.top_logprobs:
                best = torch.log_softmax(logits[row], -1).topk(min(answer.request.config.top_logprobs, self.vocab_size))
                top = tuple(zip(best.indices.tolist(), best.values.tolist(), strict=True))
            if answer.accept(token, logprob, top, self.seq_len):
                finished.append(row)
        return finished

    def _leave(self, row: int) -> None:
        """Take a running answer out; the last one fills its row, and the entering prompt follows."""
        last = len(self.running) - 1
        moved = self.running.pop()
        if row != last:
            self.cache.move(last, row, moved.stored)
            self.running[row] = moved
        if self.entering is not None:
            self.cache.move(last + 1, last, self.entering.stored)

    def _admit(self) -> bool:
        """Whether a prompt is entering, after letting the next one in if there is room."""
        if self.entering is not None:
            return True
        if not self.waiting or len(self.running) >= self.max_batch:
            return False
        tokens = max(a.most_tokens(self.seq_len) for a in (*self.running, self.waiting[0]))
        if self.running and self.cache.bytes_for(len(self.running) + 1, tokens) > self.kv_bytes:
            return False
        self.entering = self.waiting.popleft()
        return True

    def _drop_ended(self) -> None:
        """Cancelled requests and those past their deadline."""
        for answer in [a for a in self.waiting if a.request.ended_from_outside]:
            answer.end(answer.request.ended_from_outside or STOP)
            self.waiting.remove(answer)
        if self.entering is not None and (reason := self.entering.request.ended_from_outside):
            self.entering.end(reason)
            self.entering = None
        for row in range(len(self.running) - 1, -1, -1):
            if reason := self.running[row].request.ended_from_outside:
                self.running[row].end(reason)
                self._leave(row)

    def check_integrity(self) -> None:
        """Invariants between steps; for tests."""
        for answer in self.running:
            assert answer.stored == len(answer.prompt) + len(answer.request.ids) - 1
            assert answer.pending == answer.request.ids[-1]
            assert answer.request.finish_reason is None
        assert len(self.running) <= self.cache.rows
        if self.entering is not None:
            assert self.entering.stored < len(self.entering.prompt)
