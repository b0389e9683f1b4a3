"""Which tokens stand in which batch: a pure function of data set, shape, seed and step. It can start at any step.

All documents, each closed by its end token, form one ring. An epoch cuts the ring into n_tokens // seq_len windows from a
random phase and takes them in a random order. So an epoch drops fewer than seq_len tokens, different ones each time, and
a conversation is cut at different places in every epoch: nothing is always at a window's edge. Slots (step, row) are what
the plan is keyed by, not contents and not processes: with the same shape a data set with erased documents keeps its plan.
"""

import functools
from collections.abc import Iterator
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.tokens.goldfish import CONTEXT, goldfish
from gptwright.tokens.permute import Permutation, draw
from gptwright.tokens.shards import TokenDataset

IGNORE = -100


@dataclass(frozen=True)
class Batch:
    """One optimizer step's data.

    Args:
        tokens: (B, T) int64.
        targets: (B, T) int64; targets[b, t] follows tokens[b, t]; -100 carries no loss.
        docs: ids of the documents in it, in order, each once.
        segments: (B, T) int64, which of the row's documents each token belongs to; None: not known.
        row_docs: of each row; empty: not known.
    """

    tokens: npt.NDArray[np.int64]
    targets: npt.NDArray[np.int64]
    docs: list[str] = field(default_factory=list)
    segments: npt.NDArray[np.int64] | None = None
    row_docs: list[list[str]] = field(default_factory=list)

    def part(self, rank: int, world: int) -> "Batch":
        """The rows of one of several processes; together they are the whole batch, whatever their number."""
        segments = None if self.segments is None else self.segments[rank::world]
        return Batch(
            self.tokens[rank::world], self.targets[rank::world], self.docs, segments, self.row_docs[rank::world]
        )


class BatchPlan:
    """Batches of the pretraining objective.

    Args:
        dataset: open shards.
        seq_len: T, tokens in a row.
        batch_size: B, rows in a step.
        seed: another seed, another order.
        goldfish: leave one target in this many out (see ``goldfish.py``); 0: none.

    Raises:
        UserError: the corpus is too small for one batch; says how many tokens are missing.

    Attributes:
        key: names data, shape and seed; a run may be resumed under the same key only.
        windows: rows in an epoch.
    """

    def __init__(
        self, dataset: TokenDataset, seq_len: int, batch_size: int, seed: int = 0, *, goldfish: int = 0
    ) -> None:
        if seq_len < 1 or batch_size < 1:
            raise UserError(f"seq_len ({seq_len}) and batch_size ({batch_size}) must be at least 1")
        self.dataset, self.seq_len, self.batch_size, self.seed = dataset, seq_len, batch_size, seed
        self.goldfish = goldfish
        self.windows = dataset.n_tokens // seq_len
        needed = batch_size * seq_len
        if dataset.n_tokens < needed:
            fits = dataset.n_tokens // seq_len
            smaller = f"set batch_tokens to at most {fits * seq_len}" if fits else "use a shorter seq_len"
            raise UserError(
                f"the corpus has {dataset.n_tokens:,} tokens; one batch of {batch_size} x {seq_len} needs {needed:,}: "
                f"{needed - dataset.n_tokens:,} are missing",
                where=str(dataset.folder),
                fix=f"Add about {_text_size(dataset, needed - dataset.n_tokens)} of text, or {smaller}",
            )

    @functools.cached_property
    def key(self) -> str:
        """Hash of everything that decides the order."""
        parts = ["ring", self.dataset.origin, self.seq_len, self.batch_size, self.seed]
        return b2_json([*parts, "goldfish", self.goldfish] if self.goldfish else parts)

    @property
    def steps_per_epoch(self) -> float:
        """Steps until every window was seen once."""
        return self.windows / self.batch_size

    def starts(self, step: int) -> npt.NDArray[np.int64]:
        """Where the rows of a step start in the ring, (B,) int64."""
        slots = np.arange(step * self.batch_size, (step + 1) * self.batch_size, dtype=np.int64)
        epochs = slots // self.windows
        out = np.empty(self.batch_size, dtype=np.int64)
        for epoch in np.unique(epochs):
            rows = epochs == epoch
            window = self._order(int(epoch))(slots[rows] % self.windows)
            out[rows] = (window * self.seq_len + self._phase(int(epoch))) % self.dataset.n_tokens
        return out

    def batch(self, step: int) -> Batch:
        """The batch of a step (from 0), in time that does not depend on the step."""
        tokens = np.empty((self.batch_size, self.seq_len), dtype=np.int64)
        targets, segments = np.empty_like(tokens), np.empty_like(tokens)
        row_docs: list[list[str]] = []
        for row, start in enumerate(self.starts(step).tolist()):
            window = self.dataset.read(start, self.seq_len + 1)
            tokens[row] = window[:-1]
            learns = self.dataset.learns(start + 1, self.seq_len)
            if self.goldfish:
                learns &= ~self._left_out(start + 1)
            targets[row] = np.where(learns, window[1:], IGNORE)
            segments[row] = np.cumsum(self.dataset.begins(start, self.seq_len))
            row_docs.append([self.dataset.uid(index) for index in self.dataset.docs_in(start, self.seq_len + 1)])
        docs = list(dict.fromkeys(uid for uids in row_docs for uid in uids))
        return Batch(tokens, targets, docs, segments, row_docs)

    def _left_out(self, start: int) -> npt.NDArray[np.bool_]:
        """Targets that the goldfish forgets, (seq_len,): hashed over what stands before them, also before the row."""
        first = (start - CONTEXT) % self.dataset.n_tokens
        ids = self.dataset.read(first, CONTEXT + self.seq_len)
        return goldfish(ids, self.dataset.begins(first, len(ids)), self.goldfish)[CONTEXT:]

    def steps_of(self, uid: str, n_steps: int) -> list[int]:
        """Steps below n_steps whose batches hold tokens of a document: what `data trace` asks. No batch is read."""
        found: set[int] = set()
        n, length = self.dataset.n_tokens, self.seq_len
        for index in self.dataset.find(uid):
            low, high = int(self.dataset.starts[index]), int(self.dataset.starts[index + 1])
            for epoch in range(-(-n_steps * self.batch_size // self.windows)):
                # A window reaches one token beyond its length: its last target.
                offset = (low - self._phase(epoch)) % n
                reach = np.arange((offset - 1) // length, (offset + high - low - 1) // length + 1)
                wrapped = np.concatenate((reach, reach + n // length, reach - n // length, [0, self.windows - 1]))
                for window in np.unique(wrapped[(wrapped >= 0) & (wrapped < self.windows)]).tolist():
                    start = (window * length + self._phase(epoch)) % n
                    if index in self.dataset.docs_in(start, length + 1):
                        slot = epoch * self.windows + int(self._order(epoch).place(window)[0])
                        found.add(slot // self.batch_size)
        return sorted(step for step in found if step < n_steps)

    def _order(self, epoch: int) -> Permutation:
        return Permutation(self.windows, "windows", self.seed, epoch)

    def _phase(self, epoch: int) -> int:
        return draw(self.dataset.n_tokens, "phase", self.seed, epoch)


def sequential(dataset: TokenDataset, seq_len: int, batch_size: int, max_tokens: int | None = None) -> Iterator[Batch]:
    """A data set from front to back in windows, every token but the first a target once: for held-out measurement.

    Args:
        dataset: open shards.
        seq_len: T.
        batch_size: rows at most; the last batch has fewer, and its last row is padded (no loss there).
        max_tokens: stop after about this many; None for all.
    """
    total = dataset.n_tokens - 1 if max_tokens is None else min(dataset.n_tokens - 1, max_tokens)
    starts = range(0, total, seq_len)
    for first in range(0, len(starts), batch_size):
        rows = starts[first : first + batch_size]
        tokens = np.full((len(rows), seq_len), dataset.eos_id, dtype=np.int64)
        targets = np.full((len(rows), seq_len), IGNORE, dtype=np.int64)
        docs: dict[int, None] = {}
        for row, start in enumerate(rows):
            length = min(seq_len, total - start)
            window = dataset.read(start, length + 1)
            tokens[row, :length] = window[:-1]
            targets[row, :length] = np.where(dataset.learns(start + 1, length), window[1:], IGNORE)
            docs.update(dict.fromkeys(dataset.docs_in(start, length + 1)))
        yield Batch(tokens, targets, [dataset.uid(index) for index in docs])


def _text_size(dataset: TokenDataset, tokens: int) -> str:
    size = tokens * dataset.size_bytes / max(dataset.n_tokens, 1)
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{max(size, 1) / 1e3:.1f} KB"
