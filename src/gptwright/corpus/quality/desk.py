"""A sitting at which a person labels documents: which one is next, what they said, and how to take it back. Terminal and page share it."""

import heapq
from collections.abc import Sequence
from dataclasses import dataclass, replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.control import ControlStore
from gptwright.corpus.decontaminate.words import as_text
from gptwright.corpus.quality import labels
from gptwright.corpus.quality.model import Model
from gptwright.corpus.tables import part_path
from gptwright.corpus.view import manifest

TARGET = 200
_POOL = 2_000  # documents among which the most uncertain are looked for


@dataclass(frozen=True)
class Sheet:
    """A document to be labelled. ``score`` is what a model thinks of it so far, None where it was picked by chance."""

    doc_uid: str
    content_id: str
    source: str
    locator: str
    text: str
    score: float | None = None


def pick(
    corpus_dir: Path, n: int = TARGET, *, done: Sequence[str] = (), model: Model | None = None, seed: int = 0
) -> list[Sheet]:
    """Documents that are worth a label: by chance, and with a model every second one where it is least sure.

    Chance keeps the labels honest about the whole corpus; doubt makes each of them teach more (Lewis and Gale 1994).

    Args:
        corpus_dir: work/corpus.
        n: how many.
        done: content_ids that have a label.
        model: a classifier of the same task.
        seed: another seed, other documents.

    Raises:
        UserError: the corpus is not built.
    """
    known = {bytes.fromhex(key) for key in done}
    size = max(n, _POOL) if model is not None else n
    pool: list[tuple[bytes, int, int]] = []  # order, part, row
    paths = [part_path(corpus_dir, "docs", number) for number in range(manifest(corpus_dir)["parts"])]
    salt = seed.to_bytes(8, "big", signed=True)
    for number, path in enumerate(paths):
        ids = pq.read_table(path, columns=["content_id"])["content_id"].to_pylist()
        fresh = (
            (blake2b(key + salt, digest_size=8).digest(), number, row)
            for row, key in enumerate(ids)
            if key not in known
        )
        best: dict[bytes, tuple[bytes, int, int]] = {}
        for place in [*pool, *heapq.nsmallest(2 * size, fresh)]:
            best.setdefault(place[0], place)  # copies of a text have the same order and are asked about once
        pool = heapq.nsmallest(size, best.values())
    sheets = {}
    for number, path in enumerate(paths):
        rows = sorted(row for _, part, row in pool if part == number)
        for row, sheet in zip(rows, _sheets(path, rows), strict=True):
            sheets[number, row] = sheet
    by_chance = [sheets[part, row] for _, part, row in pool]
    if model is None or len(by_chance) < 2:
        return by_chance[:n]
    scores = model.score(as_text([sheet.text for sheet in by_chance]))
    unsure = [by_chance[i] for i in np.argsort(np.abs(scores - 0.5), kind="stable").tolist()]
    score_of = {sheet.content_id: float(score) for sheet, score in zip(by_chance, scores, strict=True)}
    chosen: dict[str, Sheet] = {}
    for chance, doubt in zip(by_chance, unsure, strict=True):
        chosen.setdefault(doubt.content_id, replace(doubt, score=score_of[doubt.content_id]))
        chosen.setdefault(chance.content_id, chance)
    return list(chosen.values())[:n]


def _sheets(path: Path, rows: list[int]) -> list[Sheet]:
    found: list[Sheet] = []
    start = 0
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["doc_uid", "content_id", "source", "locator", "text"]):
            wanted = [row - start for row in rows if start <= row < start + batch.num_rows]
            for one in batch.take(pa.array(wanted, pa.int64())).to_pylist() if wanted else []:
                found.append(
                    Sheet(one["doc_uid"].hex(), one["content_id"].hex(), one["source"], one["locator"], one["text"])
                )
            start += batch.num_rows
    return found


class Desk:
    """One person's sitting.

    Args:
        store: where labels are kept, at once and for good.
        documents: what to label; those that have a label are passed over, so a sitting resumes where the last one ended.
        task: quality or toxicity.
        target: labels to reach.
        who: who labels.
    """

    def __init__(
        self,
        store: ControlStore,
        documents: Sequence[Sheet],
        *,
        task: str = "quality",
        target: int = TARGET,
        who: str | None = None,
    ) -> None:
        self.store, self.task, self.target, self.who = store, task, target, who
        self.positive, self.negative = labels.classes(task)
        done = labels.latest(store, task)
        self._documents = [sheet for sheet in documents if sheet.content_id not in done]
        self._given: list[int] = []  # ids of this sitting's labels, one a document

    @property
    def current(self) -> Sheet | None:
        """The document to be judged; None when there is no more."""
        return self._documents[len(self._given)] if len(self._given) < len(self._documents) else None

    def mark(self, value: str) -> None:
        """Label the current document, or ``skip`` it, and go on to the next."""
        if (sheet := self.current) is not None:
            self._given.append(labels.add(self.store, self.task, sheet.doc_uid, sheet.content_id, value, self.who))

    def undo(self) -> bool:
        """Take this sitting's last label back and return to its document. False when there is none."""
        if not self._given:
            return False
        labels.remove(self.store, self._given.pop())
        return True

    def counts(self) -> tuple[int, int]:
        """Texts of the positive and of the negative class so far, of all sittings."""
        found = labels.counts(self.store, self.task)
        return found.get(self.positive, 0), found.get(self.negative, 0)

    def progress(self) -> str:
        """Where we are, in words."""
        good, bad = self.counts()
        return f"{good + bad} of {self.target} ({good} {self.positive}, {bad} {self.negative})"
