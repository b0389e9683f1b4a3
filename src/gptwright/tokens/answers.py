"""Prompts with answers as rows: pairs for DPO and IPO, judged answers for KTO. A row is one answer after its prompt, loss on the answer.

Rows are as long as the batch's longest, rounded up; nothing is packed, since a loss is of whole answers.
"""

import functools
import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.tokens.permute import Permutation
from gptwright.tokens.plan import IGNORE
from gptwright.tokens.preferences import Judged, Message, Pair
from gptwright.tokens.slots import RowSlots
from gptwright.tokens.tokenizer import Tokenizer

_ROUND = 16  # rows are a multiple of this long: few different shapes, little padding
Ints = npt.NDArray[np.int64]


@dataclass(frozen=True)
class AnswerBatch:
    """Answers, a row each.

    Args:
        tokens: (B, T) int64.
        targets: (B, T) int64; -100 carries no loss.
        docs: ids of the rows of the file, each once.
        extra: ``answer`` (B,) numbers the answers; ``good`` (B,) bool for judged ones.
        row_docs: of each row.
        mismatched: for KTO, the same prompts with other answers.
    """

    tokens: Ints
    targets: Ints
    docs: list[str]
    extra: Mapping[str, npt.NDArray[Any]]
    row_docs: list[list[str]]
    segments: None = None
    mismatched: "AnswerBatch | None" = field(default=None, repr=False)


@dataclass(frozen=True)
class AnswerReport:
    """What rendering did: answers given, those cut at the end, prompts that lost their beginning, and tokens that are learnt."""

    answers: int
    cut_answers: int
    cut_prompts: int
    targets: int

    def __str__(self) -> str:
        text = f"{self.answers:,} answers, {self.targets:,} targets"
        faults = {"cut answers": self.cut_answers, "prompts without their beginning": self.cut_prompts}
        return text + "".join(f"; {count:,} {name}" for name, count in faults.items() if count)


class Answers:
    """Rendered prompts and answers.

    Args:
        prompts: messages of each row.
        answers: messages that follow each.
        uids: ids of each.
        tokenizer: renders them.
        seq_len: longest row. An answer keeps at least half of it, and is cut at its end if that is not enough; a prompt loses its
            beginning for the rest.

    Raises:
        UserError: a row's messages cannot be rendered; it is named.
    """

    def __init__(
        self,
        prompts: Sequence[list[Message]],
        answers: Sequence[list[Message]],
        uids: Sequence[str],
        tokenizer: Tokenizer,
        seq_len: int,
    ) -> None:
        self.uids, self.eos_id = uids, tokenizer.eos_id
        self.ids: list[Ints] = []
        self.learn: list[npt.NDArray[np.bool_]] = []
        cut_answers = cut_prompts = 0
        for prompt, answer, uid in zip(prompts, answers, uids, strict=True):
            # What the prompt says was not written by this model's answer: nothing of it is learnt.
            silent = [{**message, "weight": 0} if message["role"] == "assistant" else message for message in prompt]
            try:
                rendered = tokenizer.render([*silent, *answer])
            except UserError as error:
                raise UserError(error.what, where=uid, fix=error.fix) from error
            ids, learn = np.array(rendered.ids, dtype=np.int64), np.array(rendered.loss_mask, dtype=bool)
            if not learn.any():
                raise UserError("its answer is empty once rendered", where=uid, fix="Remove the row")
            first, last = int(learn.argmax()), len(learn) - int(learn[::-1].argmax())
            ids, learn = ids[:last], learn[:last]
            if len(ids) > seq_len + 1:
                room = max(min(last - first, (seq_len + 1) // 2), seq_len + 1 - first)
                cut_answers += int(last - first > room)
                ids, learn = ids[: first + room], learn[: first + room]
                cut_prompts += int(len(ids) > seq_len + 1)
                ids, learn = ids[-(seq_len + 1) :], learn[-(seq_len + 1) :]
            self.ids.append(ids)
            self.learn.append(learn)
        targets = sum(int(learn[1:].sum()) for learn in self.learn)
        self.report = AnswerReport(len(self.ids), cut_answers, cut_prompts, targets)

    @functools.cached_property
    def hash(self) -> str:
        """Of all tokens and which are learnt."""
        digest = hashlib.blake2b(digest_size=32)
        for ids, learn in zip(self.ids, self.learn, strict=True):
            digest.update(len(ids).to_bytes(8, "little") + ids.astype("<i8").tobytes() + learn.tobytes())
        return "b2:" + digest.hexdigest()

    def batch(self, numbers: Sequence[int], extra: Mapping[str, npt.NDArray[Any]] | None = None) -> AnswerBatch:
        """Rows of these answers, as long as the longest."""
        longest = max(len(self.ids[n]) for n in numbers) - 1
        shape = (len(numbers), -(-longest // _ROUND) * _ROUND)
        tokens = np.full(shape, self.eos_id, dtype=np.int64)
        targets = np.full(shape, IGNORE, dtype=np.int64)
        for row, n in enumerate(numbers):
            ids, learn = self.ids[n], self.learn[n]
            tokens[row, : len(ids) - 1] = ids[:-1]
            targets[row, : len(ids) - 1] = np.where(learn[1:], ids[1:], IGNORE)
        row_docs = [[self.uids[n]] for n in numbers]
        docs = list(dict.fromkeys(self.uids[n] for n in numbers))
        return AnswerBatch(tokens, targets, docs, {"answer": np.array(numbers), **(extra or {})}, row_docs)


class PairPlan:
    """Batches of DPO and IPO: rows 2i and 2i + 1 are the chosen and the rejected answer of a pair.

    Args:
        pairs: rows of the file.
        tokenizer: renders them.
        seq_len: longest row.
        batch_size: pairs in a step.
        seed: another seed, another order.

    Attributes:
        key: names data, shape and seed.
        n_answers: two for each pair.
        report: what rendering did.
    """

    def __init__(
        self, pairs: Sequence[Pair], tokenizer: Tokenizer, seq_len: int, batch_size: int, seed: int = 0
    ) -> None:
        self.n, self.batch_size, self.seed = len(pairs), batch_size, seed
        self.rendered = Answers(
            [pair.prompt for pair in pairs for _ in range(2)],
            [answer for pair in pairs for answer in (pair.chosen, pair.rejected)],
            [pair.uid for pair in pairs for _ in range(2)],
            tokenizer,
            seq_len,
        )
        self.n_answers, self.report = 2 * self.n, self.rendered.report
        self.key = b2_json(["pairs", self.rendered.hash, batch_size, seed])

    @property
    def steps_per_epoch(self) -> float:
        """Steps until every pair was seen once."""
        return self.n / self.batch_size

    def batch(self, step: int) -> AnswerBatch:
        """The batch of a step (from 0)."""
        numbers = [2 * pair + which for pair in _order(self.n, self.batch_size, self.seed, step) for which in (0, 1)]
        return self.rendered.batch(numbers)

    def answers(self, first: int, last: int) -> AnswerBatch:
        """Answers first .. last - 1, in order."""
        return self.rendered.batch(range(first, last))

    def slots(self) -> RowSlots:
        """Which pair stands in which step."""
        uids = np.array(self.rendered.uids[::2])
        return RowSlots(uids, np.arange(self.n), np.arange(self.n + 1), self.batch_size, self.seed, "answers")


class JudgedPlan:
    """Batches of KTO: an answer a row, with the same prompts' mismatched answers beside it. Attributes as ``PairPlan``.

    An answer's mismatch is its neighbour in one seeded circle of all answers, the same in every epoch, so that its log-probability under
    the start weights is made once. Answers ``n`` and on are the mismatched ones.

    Args:
        judged: rows of the file; at least two.
        tokenizer: renders them.
        seq_len: longest row.
        batch_size: answers in a step.
        seed: another seed, another order and other mismatches.
    """

    def __init__(
        self, judged: Sequence[Judged], tokenizer: Tokenizer, seq_len: int, batch_size: int, seed: int = 0
    ) -> None:
        if len(judged) < 2:
            raise UserError("needs at least two answers", where="[finetune] data", fix="Give more rows")
        self.n, self.batch_size, self.seed = len(judged), batch_size, seed
        circle = Permutation(self.n, "mismatch", seed)
        places = circle.place(np.arange(self.n))
        partner = circle((places + 1) % self.n).tolist()
        self.partner = np.array(partner, dtype=np.int64)
        self.rendered = Answers(
            [row.prompt for row in judged] * 2,
            [row.answer for row in judged] + [judged[other].answer for other in partner],
            [row.uid for row in judged] * 2,
            tokenizer,
            seq_len,
        )
        self.good = np.array([row.good for row in judged])
        self.n_answers, self.report = 2 * self.n, self.rendered.report
        self.key = b2_json(["judged", self.rendered.hash, self.good.tolist(), batch_size, seed])

    @property
    def steps_per_epoch(self) -> float:
        """Steps until every answer was seen once."""
        return self.n / self.batch_size

    def batch(self, step: int) -> AnswerBatch:
        """The batch of a step (from 0)."""
        numbers = _order(self.n, self.batch_size, self.seed, step)
        own = self.rendered.batch(numbers, {"good": self.good[numbers]})
        other = self.rendered.batch([self.n + number for number in numbers])
        return AnswerBatch(own.tokens, own.targets, own.docs, own.extra, own.row_docs, mismatched=other)

    def answers(self, first: int, last: int) -> AnswerBatch:
        """Answers first .. last - 1, in order; from ``n`` on the mismatched ones."""
        return self.rendered.batch(range(first, last))

    def slots(self) -> RowSlots:
        """Which row of the file stands in which step; a mismatched answer has been seen too."""
        members = np.stack([np.arange(self.n), self.partner], axis=1).reshape(-1)
        edges = np.arange(0, 2 * self.n + 1, 2)
        return RowSlots(np.array(self.rendered.uids[: self.n]), members, edges, self.batch_size, self.seed, "answers")


def _order(n: int, batch_size: int, seed: int, step: int) -> list[int]:
    """Which of n stand in a step: a permutation an epoch."""
    found = []
    for slot in range(step * batch_size, (step + 1) * batch_size):
        epoch, place = divmod(slot, n)
        found.append(int(Permutation(n, "answers", seed, epoch)(place)[0]))
    return found
