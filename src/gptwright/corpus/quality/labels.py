"""Labels that people give to documents, in the control store, and examples to train from: of the store, of a file, or of two sources."""

import heapq
import json
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import sqlalchemy as sa

from gptwright.core.control import ControlStore, Label
from gptwright.core.errors import UserError
from gptwright.corpus.tables import part_path
from gptwright.corpus.view import manifest

TASKS = {"quality": ("good", "bad"), "toxicity": ("toxic", "ok")}
"""The two classes of each task; a score is the probability of the first."""
SKIP = "skip"
_MOST = 5_000  # texts of each class from a source
_YES, _NO = (True, 1, "1", "true", "yes"), (False, 0, "0", "false", "no")


@dataclass(frozen=True)
class Examples:
    """Labelled texts for ``train``. ``missing`` labels are of texts that the corpus no longer holds."""

    texts: list[str] = field(default_factory=list)
    labels: list[bool] = field(default_factory=list)
    groups: list[str] = field(default_factory=list)
    missing: int = 0
    measured_on: str = "labelled texts"


def classes(task: str) -> tuple[str, str]:
    """The two classes of a task.

    Raises:
        UserError: there is no such task.
    """
    if task not in TASKS:
        raise UserError(f"no labels are known for {task!r}", fix=f"Choose {' or '.join(TASKS)}")
    return TASKS[task]


def add(store: ControlStore, task: str, doc_uid: str, content_id: str, value: str, who: str | None = None) -> int:
    """Keep a label. A later one of the same text replaces it.

    Args:
        store: the control store.
        task: quality or toxicity.
        doc_uid, content_id: of the document, hex.
        value: one of the task's classes, or ``skip``.
        who: who judged.

    Returns:
        Its id, for ``remove``.
    """
    if value not in (*classes(task), SKIP):
        raise ValueError(f"{value!r} is no label of {task}")
    with store.session() as session:
        label = Label(doc_uid=doc_uid, content_id=content_id, task=task, value=value, who=who)
        session.add(label)
        session.flush()
        return label.id


def remove(store: ControlStore, label_id: int) -> None:
    """Take a label back."""
    with store.session() as session:
        session.execute(sa.delete(Label).where(Label.id == label_id))


def latest(store: ControlStore, task: str) -> dict[str, str]:
    """The label that counts for each text: content_id -> value."""
    with store.session() as session:
        found = session.execute(sa.select(Label.content_id, Label.value).where(Label.task == task).order_by(Label.id))
        return {row.content_id: row.value for row in found}


def counts(store: ControlStore, task: str) -> dict[str, int]:
    """How many texts have each label."""
    return dict(Counter(latest(store, task).values()))


def labelled(store: ControlStore, corpus_dir: Path, task: str) -> Examples:
    """The labelled documents of a corpus, as they came, dropped ones too.

    Raises:
        UserError: the corpus is not built.
    """
    wanted = {key: value for key, value in latest(store, task).items() if value != SKIP}
    found = Examples(measured_on=f"{len(wanted)} labelled documents")
    seen: set[str] = set()
    ids = pa.array([bytes.fromhex(key) for key in wanted], pa.binary(16))
    for number in range(manifest(corpus_dir)["parts"] if wanted else 0):
        for row in _rows(part_path(corpus_dir, "docs", number), lambda batch: pc.is_in(batch["content_id"], ids)):
            key = row["content_id"].hex()
            if key not in seen:
                seen.add(key)
                _add(found, row, wanted[key] == classes(task)[0])
    return Examples(found.texts, found.labels, found.groups, len(wanted) - len(seen), found.measured_on)


def of_sources(corpus_dir: Path, good: str, bad: str, most: int = _MOST) -> Examples:
    """Documents of a source that is good and of one that is bad, at most so many of each, chosen by their ids.

    Raises:
        UserError: the corpus is not built, or has no such source.
    """
    found = Examples(measured_on=f"documents of {good} against {bad}: how well the two sources are told apart")
    parts = [part_path(corpus_dir, "docs", number) for number in range(manifest(corpus_dir)["parts"])]
    names: set[str] = set()
    for name in (good, bad):
        chosen: list[tuple[bytes, bytes]] = []
        for path in parts:
            table = pq.read_table(path, columns=["doc_uid", "source"])
            names |= set(pc.unique(table["source"]).to_pylist())
            uids = table.filter(pc.equal(table["source"], name))["doc_uid"].to_pylist()
            chosen = heapq.nsmallest(most, [*chosen, *((blake2b(uid, digest_size=8).digest(), uid) for uid in uids)])
        if not chosen:
            raise UserError(
                f"the corpus has no document of a source {name!r}", fix=f"Its sources: {', '.join(sorted(names))}"
            )
        ids = pa.array([uid for _, uid in chosen], pa.binary(16))
        for path in parts:
            for row in _rows(path, lambda batch, ids=ids: pc.is_in(batch["doc_uid"], ids)):
                _add(found, row, name == good)
    return found


def read_examples(path: Path, task: str = "quality") -> Examples:
    """Labelled texts of a JSONL file: ``{"text": ..., "label": ...}`` a line, the label a class of the task or true and false.

    Raises:
        UserError: it is missing or has faulty lines; the first is named.
    """
    positive, negative = classes(task)
    found = Examples(measured_on=f"the texts of {path.name}")
    try:
        lines = path.read_text(encoding="utf-8-sig").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise UserError(f"the labels cannot be read ({type(error).__name__})", where=str(path)) from error
    for number, line in enumerate(lines, 1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            text, label = row["text"], row["label"]
        except (ValueError, KeyError, TypeError):
            text = label = None
        label = label.strip().lower() if isinstance(label, str) else label
        if not isinstance(text, str) or label not in (positive, negative, SKIP, *_YES, *_NO):
            raise UserError(
                f"not a text with a label {positive} or {negative}",
                where=f"{path}:{number}",
                fix=f'Write {{"text": "...", "label": "{positive}"}}',
            )
        if label != SKIP:
            found.texts.append(text)
            found.labels.append(label == positive or label in _YES)
            found.groups.append(str(number))
    return found


def _add(found: Examples, row: dict[str, Any], label: bool) -> None:
    found.texts.append(row["text"])
    found.labels.append(label)
    found.groups.append(f"{row['source']}/{row['locator'].partition('&part=')[0]}")  # parts of one text stay together


def _rows(path: Path, choose: Any) -> Any:
    """Rows of a docs file that are wanted, a batch in memory at a time."""
    with pq.ParquetFile(path) as file:
        for batch in file.iter_batches(batch_size=1024, columns=["doc_uid", "content_id", "source", "locator", "text"]):
            chosen = choose(batch)
            if pc.any(chosen).as_py():
                yield from batch.filter(chosen).to_pylist()
