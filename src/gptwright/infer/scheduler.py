"""Continuous batching: requests join and leave between steps, prompts are taken in by pieces beside the running answers.

No threads here: ``step`` does one round and returns. A step is one forward pass over one token of every running answer (and the tokens that
were guessed to follow it) and as much of the entering prompts as the pause between two tokens allows.
"""

import math
import time
from collections import deque
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from gptwright.core.errors import GptwrightError
from gptwright.infer.adapters import Adapter
from gptwright.infer.answer import Answer, TokenizerLike
from gptwright.infer.cache import PAGE, PagedCache
from gptwright.infer.config import GenerationConfig
from gptwright.infer.request import STOP, Request
from gptwright.infer.runner import Part
from gptwright.infer.sampling import Sampler
from gptwright.infer.speculative import Drafter
from gptwright.infer.threads import ThreadChooser
from gptwright.infer.watermark import Watermark
from gptwright.infer.weights import AnyRunner, make_runner
from gptwright.model.transformer import Transformer

# Guesses pay while a step is bound by reading the weights; with more rows the arithmetic is.
_GUESS_ROWS = 4
_FEWEST_PREFILL = 32  # prompt tokens a step takes in at least, or a prompt would never end beside slow answers
_SHORT_STEPS = 2  # between two that take in prompts, while answers run
_SHARED_EVERY = 4  # while somebody waits, what nobody waits for takes part in each step of so many
_MEMORY = 0.8  # weight of the past in the estimates of time


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

    Attributes:
        watermark: marks what is sampled; None: nothing is marked. Set before the first request.
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
        self.watermark: Watermark | None = None
        self._turn = 0
        self._rest = 0  # steps of answers alone before prompts go on

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
        decoding, entering = self._taking_part()
        parts = [self._next_tokens(answer) for answer in decoding]
        # A word may not leave before it is whole: with steps of answers alone in between, its tokens wait for one long step, not for each.
        self._rest = self._rest - 1 if self._rest and decoding else _SHORT_STEPS
        chunks = self._chunks(entering if self._rest == _SHORT_STEPS else [], bool(decoding))
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

    def _taking_part(self) -> tuple[list[Answer], list[Answer]]:
        """Who gets a token in this step, and whose prompts go on. What nobody waits for steps back, but never for good."""
        running = [answer for answer in self.running if not answer.request.background]
        entering = [answer for answer in self.entering if not answer.request.background]
        if running or entering:
            self._turn = (self._turn + 1) % _SHARED_EVERY
            if self._turn:
                return running, entering
        return list(self.running), list(self.entering)

    def _chunks(self, entering: Sequence[Answer], decoding: bool) -> list[tuple[Answer, int]]:
        """How much of which prompts to take in now; ``decoding``: beside answers that run."""
        budget = self.prefill_tokens
        if not self.runner.exact:
            chunks, taken = [], 0
            for answer in entering:
                # Pieces end at the same places whatever else is going on, so that an answer's bits do not depend on its neighbours.
                size = min(budget - answer.stored % budget, len(answer.prompt) - answer.stored)
                if taken and taken + size > budget:
                    break
                chunks.append((answer, size))
                taken += size
            return chunks
        if decoding and self._token_s:
            spare = (self.max_gap_s - self._decode_s) / self._token_s
            budget = max(min(_FEWEST_PREFILL, budget), min(budget, int(spare)))
        sizes = dict.fromkeys(range(len(entering)), 0)
        left = [len(answer.prompt) - answer.stored for answer in entering]
        # The oldest gets a quarter at least; beyond that short ones go first, so that a question need not wait for a book.
        if left:
            sizes[0] = min(left[0], max(1, budget // 4))
            budget -= sizes[0]
        for i in sorted(range(len(left)), key=lambda i: left[i]):
            more = min(left[i] - sizes[i], budget)
            sizes[i] += more
            budget -= more
        return [(entering[i], size) for i, size in sizes.items() if size]

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
            configs = [answer.request.config for answer in answers]
            self._sampler = (members, Sampler(configs, self.vocab_size, self.device, self.watermark))
        uniforms = [a.request.random.random() for a in answers]
        allowed = [None if a.guide is None else a.guide.allowed() for a in answers]
        marks = [] if self.watermark is None else [answer.mark(self.watermark) for answer in answers]
        drawn = self._sampler[1](logits, uniforms, [a.history for a in answers], allowed, marks)
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
        while self.waiting:
            heads: dict[tuple[bool, str], Answer] = {}
            for answer in self.waiting:
                heads.setdefault((answer.request.background, answer.request.client), answer)
            answer = min(heads.values(), key=lambda a: (a.request.background, self._served[a.request.client]))
            if not self._enter(answer) and (answer.request.background or not self._make_room()):
                return  # nobody overtakes it: a long request would never find room

    def _enter(self, answer: Answer) -> bool:
        """Let one in, if there is room."""
        if len(self.running) + len(self.entering) >= self.max_batch:
            return False
        root = 0 if answer.adapter is None else answer.adapter[0]
        lease = self.cache.open(answer.prompt, answer.most_tokens(self.seq_len), root, self._unit)
        if lease is None:
            return False
        self.waiting.remove(answer)
        answer.lease, answer.stored = lease, lease.reused
        self.entering.append(answer)
        if answer.request.started_at is None:  # else it comes back
            answer.request.reused_tokens = lease.reused
            answer.request.started_at = time.monotonic()
            self._served[answer.request.client] += len(answer.prompt)
        return True

    def _make_room(self) -> bool:
        """Send the youngest answer that nobody waits for back to the queue; what it has stored may still be there when it returns."""
        if not self.runner.exact:  # its bits would change: what was decoded would be stored again as a prompt
            return False
        for group in (self.entering, self.running):
            for answer in reversed(group):
                if answer.request.background:
                    group.remove(answer)
                    self.cache.share(answer.opened, answer.tokens[: answer.stored])
                    self.cache.close(answer.opened)
                    answer.step_back()
                    self.waiting.appendleft(answer)
                    return True
        return False

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
            assert answer.stored == len(answer.tokens) - 1
            assert answer.pending == answer.request.ids[-1]
            assert answer.request.finish_reason is None
        for answer in self.entering:
            assert answer.stored < len(answer.prompt)
        self.cache.check_integrity([answer.opened for answer in (*self.running, *self.entering)])
        assert all(answer.lease is None for answer in self.waiting)


def _blend(old: float, new: float) -> float:
    """A running estimate. The machine's noise only ever adds time, so a faster measurement is believed at once."""
    return new if not old or new < old else _MEMORY * old + (1 - _MEMORY) * new
