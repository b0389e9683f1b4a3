"""Chats packed into rows for fine-tuning: whole conversations side by side, loss on the assistant's words alone. Plain documents may stand
among them, with a loss on every token but the first.

Packing is best-fit decreasing over a seeded order, done once; epochs reshuffle the rows, and the chats within a row. Every
row holds at least one conversation with a target, so a batch without targets cannot come about.
"""

import functools
import hashlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.tokens.chat import Messages
from gptwright.tokens.fit import Example, fit_conversation
from gptwright.tokens.goldfish import goldfish as left_out
from gptwright.tokens.packing import pack
from gptwright.tokens.permute import Permutation
from gptwright.tokens.plan import IGNORE, Batch
from gptwright.tokens.shards import DocumentLike, TokenDataset
from gptwright.tokens.tokenizer import Tokenizer

Conversation: TypeAlias = "Messages | DocumentLike"
_BATCH = 1024


class ChatSet:
    """Rendered conversations as flat arrays: 3 to 5 bytes a token in memory, or mapped from disk.

    Attributes:
        starts: (n + 1,) int64, where conversations start.
        lengths: (n,) int64, their tokens; on disk each is followed by an end token, which packing adds itself.
        learn: (n_tokens,) uint8, 1 where the model learns to write the token.
        plain: (n,) bool, documents that are no conversations.
        hash: of all of it; for a mapped data set its hash before any erasure.
    """

    def __init__(
        self,
        tokens: npt.NDArray[Any] | TokenDataset,
        learn: npt.NDArray[np.uint8],
        starts: npt.NDArray[np.int64],
        uids: Sequence[str],
        tokenizer: Tokenizer,
        plain: npt.NDArray[np.bool_] | None = None,
    ) -> None:
        self.plain = np.zeros(len(starts) - 1, dtype=np.bool_) if plain is None else plain
        self._tokens, self.learn, self.starts, self._uids = tokens, learn, starts, uids
        self.lengths = np.diff(starts) - int(isinstance(tokens, TokenDataset))
        self.eos_id = tokenizer.eos_id
        self.turn_id = tokenizer.im_start_id
        self.system_header = tokenizer.encode("system\n")

    @classmethod
    def render(cls, conversations: Iterable[Conversation], tokenizer: Tokenizer) -> "ChatSet":
        """Render conversations; each is a list of messages, or a document that has some, or one that is learnt as plain text.

        Raises:
            UserError: a conversation is malformed (named by its id or number), or there is none.
        """
        dtype = np.uint16 if tokenizer.vocab_size <= 1 << 16 else np.uint32
        tokens: list[npt.NDArray[Any]] = []
        learn: list[npt.NDArray[np.uint8]] = []
        uids: list[str] = []
        lengths: list[int] = []
        plain: list[bool] = []
        for names, chats in _chunks(conversations):
            plain += [isinstance(chats, _Texts)] * len(names)
            uids += names
            if isinstance(chats, _Texts):
                for ids in (np.array(tokenizer.encode(text), dtype=dtype) for text in chats.texts):
                    lengths.append(len(ids))
                    tokens.append(ids)
                    learn.append((np.arange(len(ids)) > 0).astype(np.uint8))
                continue
            try:
                rendered = tokenizer.render_batch(chats)
            except UserError:
                for name, chat in zip(names, chats, strict=True):  # again one by one, to name the culprit
                    try:
                        tokenizer.render(chat)
                    except UserError as error:
                        raise UserError(error.what, where=f"conversation {name}", fix=error.fix) from error
                raise
            lengths += [len(item.ids) for item in rendered]
            tokens.append(np.array([token for item in rendered for token in item.ids], dtype=dtype))
            learn.append(np.array([bit for item in rendered for bit in item.loss_mask], dtype=np.uint8))
        if not uids:
            raise UserError(
                "there is no conversation",
                where="[finetune] data",
                fix="Give a file of chats: gptwright finetune --data PATH",
            )
        starts = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        return cls(np.concatenate(tokens), np.concatenate(learn), starts, uids, tokenizer, np.array(plain))

    @classmethod
    def mapped(cls, dataset: TokenDataset, tokenizer: Tokenizer) -> "ChatSet":
        """A data set that ``write_tokens(..., only_answers=True)`` wrote. Its tokens stay on disk, the mask takes a byte each."""
        learn = np.ones(dataset.n_tokens, dtype=np.uint8)
        for low, high in dataset.spans:
            learn[low:high] = 0
        return cls(dataset, learn, dataset.starts, [], tokenizer)

    def __len__(self) -> int:
        return len(self.starts) - 1

    @functools.cached_property
    def hash(self) -> str:
        if isinstance(self._tokens, TokenDataset):
            return self._tokens.origin
        digest = hashlib.blake2b(digest_size=32)
        marked = (
            (self.plain,) if self.plain.any() else ()
        )  # a set of chats alone keeps the name it had before there were others
        for part in (self._tokens.astype("<u4"), self.learn, self.starts.astype("<i8"), *marked):
            digest.update(part.tobytes())
        return "b2:" + digest.hexdigest()

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Tokens of a stretch, (length,) int64."""
        if isinstance(self._tokens, TokenDataset):
            return self._tokens.read(start, length)
        return self._tokens[start : start + length].astype(np.int64)

    def uid(self, index: int) -> str:
        """Id of a conversation."""
        return self._tokens.uid(index) if isinstance(self._tokens, TokenDataset) else self._uids[index]


@dataclass(frozen=True)
class SftReport:
    """What packing did, for people.

    Args:
        conversations: given.
        examples: pieces that are trained on; more than conversations when long ones were split.
        rows: packed rows.
        tokens: in all conversations.
        targets: tokens that carry a loss in an epoch.
        truncated: conversations longer than a row, cut at the end (or split).
        cut_answers: answers longer than a row, whose end is not taught.
        cut_prompts: prompts longer than a row, whose beginning was left out.
        without_targets: conversations without an assistant's turn, left out.
        lost_tokens, lost_targets: tokens that no row holds, in consequence.
        fill: share of row positions that hold text.
        documents: how many of the conversations are plain documents instead.
    """

    conversations: int
    examples: int
    rows: int
    tokens: int
    targets: int
    truncated: int
    cut_answers: int
    cut_prompts: int
    without_targets: int
    lost_tokens: int
    lost_targets: int
    fill: float
    documents: int = 0

    def __str__(self) -> str:
        also = f" and {self.documents:,} documents" if self.documents else ""
        text = f"{self.conversations - self.documents:,} conversations{also} in {self.rows:,} rows"
        text += f", {100 * self.fill:.1f} % filled, {self.targets:,} targets"
        faults = {
            "longer than a row": self.truncated,
            "with a cut answer": self.cut_answers,
            "with a cut prompt": self.cut_prompts,
            "without an answer (left out)": self.without_targets,
        }
        return text + "".join(f"; {count:,} {name}" for name, count in faults.items() if count)


class SftPlan:
    """Batches of the fine-tuning objective; same interface as ``BatchPlan``.

    Args:
        chats: a ``ChatSet``; ``SftPlan.of`` makes one from conversations.
        seq_len: T; a row holds T + 1 tokens, of which T are inputs and T are targets.
        batch_size: B, rows in a step.
        seed: another seed, another packing and order.
        overlong: a conversation longer than a row keeps its beginning up to the last whole answer that fits
            ("truncate"), or goes on in further rows, each with the system message again ("split").
        goldfish: leave one target in this many out (see ``goldfish.py``); 0: none.

    Raises:
        UserError: no conversation has an assistant's turn, or seq_len is below 8.

    Attributes:
        key: names data, shape and seed.
        report: what packing did.
        rows: in an epoch.
    """

    def __init__(
        self,
        chats: ChatSet,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        *,
        overlong: Literal["truncate", "split"] = "truncate",
        goldfish: int = 0,
    ) -> None:
        if seq_len < 8 or batch_size < 1:
            raise UserError(f"seq_len ({seq_len}) must be at least 8 and batch_size ({batch_size}) at least 1")
        self.chats, self.seq_len, self.batch_size, self.seed, self.overlong = chats, seq_len, batch_size, seed, overlong
        self.goldfish = goldfish
        self._examples, counts = _examples(chats, seq_len, overlong == "split")
        if not len(self._examples):
            raise UserError(
                f"none of {len(chats):,} conversations has an assistant's turn to learn from",
                where="[finetune] data",
                fix='Give conversations with messages of role "assistant"',
            )
        sizes = self._examples[:, 2] + self._examples[:, 3] + 1
        self._row_items, self._row_edges = pack(sizes, seq_len + 1, seed)
        self.rows = len(self._row_edges) - 1
        self.report = self._report(counts)

    @classmethod
    def of(
        cls,
        conversations: Iterable[Conversation],
        tokenizer: Tokenizer,
        seq_len: int,
        batch_size: int,
        seed: int = 0,
        *,
        overlong: Literal["truncate", "split"] = "truncate",
        goldfish: int = 0,
    ) -> "SftPlan":
        """Render conversations (lists of messages, or documents that have some) and plan them."""
        chats = ChatSet.render(conversations, tokenizer)
        return cls(chats, seq_len, batch_size, seed, overlong=overlong, goldfish=goldfish)

    @functools.cached_property
    def key(self) -> str:
        """Hash of everything that decides the order."""
        parts = ["sft", self.chats.hash, self.seq_len, self.batch_size, self.seed, self.overlong]
        return b2_json([*parts, "goldfish", self.goldfish] if self.goldfish else parts)

    @property
    def steps_per_epoch(self) -> float:
        """Steps until every row was seen once."""
        return self.rows / self.batch_size

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0), in time that does not depend on the step."""
        tokens = np.full((self.batch_size, self.seq_len), self.chats.eos_id, dtype=np.int64)
        targets, segments = np.full_like(tokens, IGNORE), np.zeros_like(tokens)
        row_docs: list[list[str]] = []
        for place in range(self.batch_size):
            slot = step * self.batch_size + place
            epoch, index = divmod(slot, self.rows)
            row = int(Permutation(self.rows, "rows", self.seed, epoch)(index)[0])
            ids, learn, begins, members = self._row(row, epoch)
            if self.goldfish:
                learn &= ~left_out(ids, begins, self.goldfish)
            tokens[place, : len(ids) - 1] = ids[:-1]
            targets[place, : len(ids) - 1] = np.where(learn[1:], ids[1:], IGNORE)
            segments[place, : len(ids) - 1] = np.cumsum(begins[:-1])  # what fills the row up is 0
            row_docs.append([self.chats.uid(member) for member in members])
        docs = list(dict.fromkeys(uid for uids in row_docs for uid in uids))
        return Batch(tokens, targets, docs, segments, row_docs)

    def row(self, row: int, epoch: int = 0) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], list[int]]:
        """A packed row before shifting: ids (at most T + 1), which of them carry a loss, and its conversations."""
        ids, learn, _, members = self._row(row, epoch)
        return ids, learn, members

    def _row(
        self, row: int, epoch: int
    ) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.bool_], npt.NDArray[np.bool_], list[int]]:
        """As ``row``, and which ids begin a conversation."""
        items = self._row_items[self._row_edges[row] : self._row_edges[row + 1]]
        items = items[Permutation(len(items), "row", self.seed, epoch, row)(np.arange(len(items)))]
        ids: list[npt.NDArray[np.int64]] = []
        learn: list[npt.NDArray[np.uint8]] = []
        end, mute = np.array([self.chats.eos_id], dtype=np.int64), np.zeros(1, dtype=np.uint8)
        for conversation, start, length, prefix in self._examples[items].tolist():
            base = int(self.chats.starts[conversation])
            if prefix:
                ids.append(self.chats.read(base, prefix))
                learn.append(np.zeros(prefix, dtype=np.uint8))
            ids += [self.chats.read(base + start, length), end]
            learn += [self.chats.learn[base + start : base + start + length], mute]
        sizes = self._examples[items, 2] + self._examples[items, 3] + 1
        begins = np.zeros(int(sizes.sum()), dtype=np.bool_)
        first = np.cumsum(sizes) - sizes
        begins[first] = True
        learned = np.concatenate(learn) != 0
        learned[first[self.chats.plain[self._examples[items, 0]]]] = (
            False  # a document's first word follows from nothing
        )
        return np.concatenate(ids), learned, begins, self._examples[items, 0].tolist()

    @property
    def members(self) -> npt.NDArray[np.int64]:
        """The conversation of each packed example, row after row, (items,) int64."""
        found: npt.NDArray[np.int64] = self._examples[self._row_items, 0]
        return found

    @property
    def row_edges(self) -> npt.NDArray[np.int64]:
        """Where rows begin in ``members``, (rows + 1,) int64."""
        return self._row_edges

    def _report(self, counts: Mapping[str, int]) -> SftReport:
        kept = int(self._examples[:, 2].sum())
        learned = np.concatenate(([0], np.cumsum(self.chats.learn, dtype=np.int64)))
        first = self.chats.starts[self._examples[:, 0]] + self._examples[:, 1]
        targets = int((learned[first + self._examples[:, 2]] - learned[first]).sum())
        total = int(self.chats.lengths.sum())
        # The pieces of a long document share a token, which the second does not learn.
        shared = int((self.chats.plain[self._examples[:, 0]] & (self._examples[:, 1] > 0)).sum())
        targets -= shared
        return SftReport(
            conversations=len(self.chats),
            examples=len(self._examples),
            rows=self.rows,
            tokens=total,
            targets=targets,
            **counts,
            lost_tokens=total - kept + shared,
            lost_targets=int(learned[-1]) - targets,
            fill=kept / (self.rows * (self.seq_len + 1)),
            documents=int(self.chats.plain.sum()),
        )


def _examples(chats: ChatSet, seq_len: int, split: bool) -> tuple[npt.NDArray[np.int64], dict[str, int]]:
    """Pieces to train on, (n, 4) int64: conversation, start in it, length, tokens of its system message put before."""
    counts = dict.fromkeys(("truncated", "cut_answers", "cut_prompts", "without_targets"), 0)
    lengths = chats.lengths
    learned = np.concatenate(([0], np.cumsum(chats.learn, dtype=np.int64)))
    targets = learned[chats.starts[1:]] - learned[chats.starts[:-1]]
    counts["without_targets"] = int((targets == 0).sum())
    whole = np.flatnonzero((lengths <= seq_len) & (targets > 0))
    parts = [np.stack([whole, 0 * whole, lengths[whole], 0 * whole], axis=1)]
    for index in np.flatnonzero((lengths > seq_len) & (targets > 0) & chats.plain).tolist():
        # Each piece begins with the last token of the one before, which it does not learn again.
        pieces_of = np.arange(0, int(lengths[index]) - 1, seq_len - 1)
        sizes = np.minimum(seq_len, int(lengths[index]) - pieces_of)
        parts.append(np.stack([np.full_like(pieces_of, index), pieces_of, sizes, 0 * sizes], axis=1))
        counts["truncated"] += 1
    for index in np.flatnonzero((lengths > seq_len) & (targets > 0) & ~chats.plain).tolist():
        start, length = int(chats.starts[index]), int(lengths[index])
        ids, learn = chats.read(start, length), chats.learn[start : start + length] != 0
        pieces: list[Example] = fit_conversation(ids, learn, seq_len, chats.turn_id, chats.system_header, split)
        counts["truncated"] += 1
        counts["cut_answers"] += sum(piece.cut == "answer" for piece in pieces)
        counts["cut_prompts"] += sum(piece.cut == "prompt" for piece in pieces)
        parts.append(np.array([[index, piece.start, piece.length, piece.prefix] for piece in pieces], dtype=np.int64))
    return np.concatenate(parts), counts


@dataclass(frozen=True)
class _Texts:
    """Plain documents."""

    texts: list[str]

    def __len__(self) -> int:
        return len(self.texts)


def _chunks(conversations: Iterable[Conversation]) -> Iterator[tuple[list[str], "list[Messages] | _Texts"]]:
    """Names and what they name, in the order given: runs of conversations, and of plain documents."""
    names: list[str] = []
    chats: list[Messages] = []
    texts: list[str] = []
    for number, conversation in enumerate(conversations):
        messages = conversation if isinstance(conversation, Sequence) else conversation.messages
        if names and ((messages is None) != bool(texts) or len(names) == _BATCH):
            yield names, _Texts(texts) if texts else chats
            names, chats, texts = [], [], []
        names.append(str(number) if isinstance(conversation, Sequence) else conversation.uid)
        if messages is not None:
            chats.append(messages)
        elif not isinstance(conversation, Sequence):
            texts.append(conversation.text)
    if names:
        yield names, _Texts(texts) if texts else chats
