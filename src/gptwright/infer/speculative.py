"""Guesses at the coming tokens, which one forward pass then checks all at once. What is wrong is thrown away, so the answer never changes.

The scheduler draws each token from the model's own logits, in order and with the request's own random numbers, and goes on only while the
guess was right: greedy and sampled answers are the same with guesses and without, to the bit, because the compiled forward pass gives a
token the same logits whatever stands beside it.

Source: speculative decoding (arXiv 2211.17192) with exact-match acceptance; prompt look-up (github.com/apoorvumang/prompt-lookup-decoding).
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

import torch

from gptwright.core.errors import UserError
from gptwright.infer.cache import Lease, PagedCache
from gptwright.infer.opening import open_model
from gptwright.infer.runner import Part
from gptwright.infer.weights import make_runner
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

_LONGEST, _SHORTEST = 4, 2  # tokens that must have been seen before
_WINDOW = 4096  # positions that are searched
MOST = 8  # tokens guessed at once
_DRAFT_BYTES = 2**28  # keys and values of a draft model


class Drafter(Protocol):
    """Whatever can guess."""

    def propose(self, number: int, ids: Sequence[int], count: int) -> list[int]:
        """Guess up to ``count`` tokens after ``ids``; ``number`` tells requests apart."""
        ...

    def forget(self, number: int) -> None:
        """A request is done."""
        ...


class PromptLookup:
    """Guesses that what followed these words last time follows again: right for quotes, code, tables and summaries, free otherwise."""

    def propose(self, number: int, ids: Sequence[int], count: int) -> list[int]:
        """See ``Drafter``."""
        text = list(ids[-_WINDOW:])
        for length in range(_LONGEST, _SHORTEST - 1, -1):
            if len(text) <= length:
                continue
            tail = text[-length:]
            last = tail[-1]
            for end in range(len(text) - 1, length - 1, -1):  # the latest occurrence counts
                if text[end - 1] == last and text[end - length : end] == tail:
                    return text[end : end + count]
        return []

    def forget(self, number: int) -> None:
        """See ``Drafter``."""


class Runs(Protocol):
    """A runner, as far as a draft model needs it."""

    def forward(self, cache: PagedCache, parts: Sequence[Part], threads: int | None = None) -> object: ...


class DraftModel:
    """A small model with the same tokenizer guesses, greedily.

    Args:
        runner: the small model.
        cache: its own pages.
        vocab_size: ids that both models have.
    """

    def __init__(self, runner: "Runs", cache: PagedCache, seq_len: int) -> None:
        self.runner, self.cache, self.seq_len = runner, cache, seq_len
        self._open: dict[int, tuple[Lease, list[int]]] = {}  # with the tokens that are stored

    def propose(self, number: int, ids: Sequence[int], count: int) -> list[int]:
        """See ``Drafter``."""
        count = min(count, self.seq_len - len(ids))
        if count < 1:
            return []
        if number not in self._open:
            lease = self.cache.open(ids, self.seq_len)
            if lease is None:
                return []
            self._open[number] = (lease, list(ids[: lease.reused]))
        lease, stored = self._open[number]
        same = next(
            (i for i, (a, b) in enumerate(zip(stored, ids, strict=False)) if a != b), min(len(stored), len(ids))
        )
        del stored[min(same, len(ids) - 1) :]
        guesses: list[int] = []
        coming = list(ids[len(stored) :])
        while len(guesses) < count:
            logits = self.runner.forward(self.cache, [Part(coming, len(stored), lease)])
            stored.extend(coming)
            guesses.append(int(logits.argmax()))  # type: ignore[attr-defined]
            coming = guesses[-1:]
        return guesses

    def forget(self, number: int) -> None:
        """See ``Drafter``."""
        if number in self._open:
            self.cache.close(self._open.pop(number)[0])


def open_draft(folder: Path, tokenizer: Tokenizer, model: Transformer) -> DraftModel:
    """A model directory as a guesser for another model.

    Args:
        folder: the small model's.
        tokenizer: of the model that answers.
        model: the model that answers; its dtype and device are taken.

    Raises:
        UserError: the directory is none, or has another tokenizer.
    """
    small, own, _ = open_model(folder, model.embedding.weight.dtype, model.embedding.weight.device.type, None)
    ids = own.vocab_size
    if ids != tokenizer.vocab_size or any(own.token_bytes(i) != tokenizer.token_bytes(i) for i in range(ids)):
        raise UserError(
            "the draft model has another tokenizer", where=str(folder), fix="Take one that was trained with the same"
        )
    with torch.inference_mode():
        runner = make_runner(small.eval(), min(ids, model.config.vocab_size))
    return DraftModel(runner, PagedCache(small.config, runner.dtype, size_bytes=_DRAFT_BYTES), small.config.seq_len)


class Pace:
    """How many tokens to guess for one request: more while guesses are right, none for a while when they are not.

    A step that checks guesses costs more than one that does not (SmolLM2-135M in int8: a fifth more for each), so wrong ones must stay few.
    """

    def __init__(self) -> None:
        self._length, self._rest = 3, 0
        self.guessed = self.right = 0

    def length(self) -> int:
        """Tokens to guess now."""
        if self._rest:
            self._rest -= 1
            return 0
        return self._length

    def record(self, guessed: int, right: int) -> None:
        """Tell how many of the guesses were right."""
        if not guessed:
            return
        self.guessed, self.right = self.guessed + guessed, self.right + right
        if right == guessed:
            self._length = min(MOST, self._length + 2)
        elif right == 0:
            self._length = max(1, self._length - 1)
            self._rest = 8 if self._length == 1 else 2
        else:
            self._length = max(1, right)
