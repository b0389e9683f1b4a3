"""What is looked up in each document once: signals, personal data, tidying. A pure task: one docs file in, signals and edits out."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptwright.core.hashing import b2, b2_json
from gptwright.core.stages import code_version
from gptwright.corpus import privacy, signals, tables
from gptwright.corpus.dedup.features import text_batches
from gptwright.corpus.edits import Edit, apply_edits, turns
from gptwright.corpus.privacy.bulk import scan
from gptwright.corpus.privacy.policy import Policy
from gptwright.corpus.tidy import tidy_edits

CODE = (
    *(f"gptwright.corpus.{m}" for m in ("look", "edits", "tidy", "tables")),
    *(f"gptwright.corpus.signals.{m}" for m in ("measure", "kernel", "language", "schema")),
    *privacy.CODE,
)
_UNEDITED = blake2b(b"", digest_size=16).digest()


@dataclass(frozen=True)
class Job:
    """A task: the signals and edits of one docs file under a source's policy.

    Args:
        folder: where the results go.
        docs: path of the docs file, which is named by its content.
        policy: JSON of what ``privacy.policy.Policy.of`` takes.
        tidy: write chat turns as sentences.
        key: of the project, when something is pseudonymized.
        names: find names of people too, with the extra ``presidio``.
    """

    folder: str
    docs: str
    policy: str
    tidy: bool
    key: bytes | None = None
    names: bool = False

    @property
    def name(self) -> str:
        asked = [self.policy, self.tidy, b2(self.key) if self.key else None, self.names]
        return "signals-" + b2_json([code(), Path(self.docs).name, asked]).removeprefix("b2:")[:32]

    @property
    def signals(self) -> Path:
        return Path(self.folder) / f"{self.name}.parquet"

    @property
    def edits(self) -> Path:
        return Path(self.folder) / f"{self.name}-edits.parquet"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.signals.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        return [self.docs]

    def moved(self, folder: str, places: Mapping[str, str]) -> Self:
        """The same job elsewhere."""
        return replace(self, folder=folder, docs=places[self.docs])


@cache
def code() -> str:
    """Version of what decides a task's result: code, and the libraries that know phone numbers, ids and languages."""
    import importlib.metadata

    libraries = ("phonenumbers", "python-stdnum", "py3langid")
    return b2_json([code_version(CODE), [importlib.metadata.version(name) for name in libraries]])


def run(job: Job) -> str:
    """Do a task unless it is done. Returns its name."""
    if job.signals.exists():
        return job.name
    policy = Policy.of(json.loads(job.policy))
    finder = _names() if job.names else None
    looked: list[pa.Table] = []
    edited: list[pa.Table] = [tables.EDITS.empty_table()]
    for first, batch in text_batches(Path(job.docs), ["text", "messages", "lang_declared", "split_id"]):
        text, messages = batch["text"], batch["messages"]
        numbers = signals.measure(text, batch["lang_declared"])
        counts, masks = scan(text, messages, policy, job.key, scope=batch["split_id"], names=finder)
        edits = _tidied(text, messages, masks) if job.tidy else masks
        rows = edits["doc_row"].to_numpy()
        looked.append(_with_edits(numbers, counts, policy, text, messages, edits))
        moved = edits.set_column(0, "doc_row", pa.array(rows + first, pa.int32()))
        edited.append(moved.select(tables.EDITS.names).cast(tables.EDITS))
    tables.write_table(job.edits, pa.concat_tables(edited))
    tables.write_table(job.signals, pa.concat_tables(looked) if looked else _empty(finder is not None))
    return job.name


def _names() -> Any:
    from gptwright.corpus.privacy.names import PresidioNames

    return PresidioNames()


def _empty(names: bool) -> pa.Table:
    kinds = (*privacy.KINDS, *privacy.NAME_KINDS) if names else privacy.KINDS
    counts = pa.table({f"pii_{kind.lower()}": pa.array([], pa.int32()) for kind in kinds})
    none = pa.array([], pa.large_string())
    return _with_edits(signals.SCHEMA.empty_table(), counts, Policy(), none, none, tables.EDITS.empty_table())


def _tidied(text: pa.Array, messages: pa.Array, masks: pa.Table) -> pa.Table:
    """The masks with the edits that write conversations as sentences, in order and apart."""
    fixed = by_row(masks)
    rows: list[int] = []
    found: list[Edit] = []
    for row, raw in enumerate(messages.to_pylist()):
        edits = list(fixed.get(row, []))
        for start, turn in turns(json.loads(raw)) if raw is not None else []:
            own = [
                Edit(e.start - start, e.end - start, e.kind, e.replacement)
                for e in fixed.get(row, [])
                if start <= e.start and e.end <= start + len(turn)
            ]
            edits += [Edit(e.start + start, e.end + start, e.kind, e.replacement) for e in tidy_edits(turn, own)]
        edits.sort(key=lambda edit: (edit.start, edit.end))
        rows += [row] * len(edits)
        found += edits
    columns = [rows, *([getattr(edit, name) for edit in found] for name in ("start", "end", "kind", "replacement"))]
    return pa.table(
        [pa.array(column, field.type) for column, field in zip(columns, tables.EDITS, strict=True)], schema=tables.EDITS
    )


def by_row(edits: pa.Table) -> dict[int, list[Edit]]:
    """Edits of a table by the row of their document, in their order."""
    found: dict[int, list[Edit]] = {}
    columns = (edits[name].to_pylist() for name in ("doc_row", "start", "end", "kind", "replacement"))
    for row, start, end, kind, replacement in zip(*columns, strict=True):
        found.setdefault(row, []).append(Edit(start, end, kind, replacement))
    return found


def _with_edits(
    numbers: pa.Table, counts: pa.Table, policy: Policy, text: pa.Array, messages: pa.Array, edits: pa.Table
) -> pa.Table:
    """Signals with what depends on edits: the final size, the id of the final text, and whether the policy drops it."""
    size, ids = final_texts(text, messages, by_row(edits), numbers["n_bytes"].to_numpy())
    columns = {
        "n_bytes_edited": pa.array(size, pa.int64()),
        "n_turns": _turns(messages),
        "edit_id": pa.array(ids, tables.ID),
        "pii_drop": pa.array(policy.drops(counts)),
        **{name: counts[name] for name in counts.column_names},
    }
    for name, column in columns.items():
        numbers = numbers.append_column(name, column)
    return numbers


def final_texts(
    text: pa.Array, messages: pa.Array, edits: Mapping[int, Sequence[Edit]], size: Any
) -> tuple[Any, list[bytes]]:
    """Bytes of texts with their edits made, and the ids that, beside ``content_id``, name the result.

    Args:
        text: (documents,) as they came.
        messages: JSON of their turns, null for plain texts.
        edits: by row.
        size: (documents,) int64, bytes as they came.
    """
    sizes = np.array(size, np.int64)
    ids = [_UNEDITED] * len(text)
    for row in np.flatnonzero(~np.asarray(pc.is_null(messages))).tolist():
        ids[row] = blake2b(messages[row].as_buffer(), digest_size=16).digest()
    for row, own in edits.items():
        sizes[row] = len(apply_edits(text[row].as_py(), own).encode())
        ids[row] = blake2b(
            ids[row] + json.dumps([list(vars(e).values()) for e in own]).encode(), digest_size=16
        ).digest()
    return sizes, ids


def _turns(messages: pa.Array) -> pa.Array:
    """How many turns conversations have; null for plain texts."""
    return pa.array([len(json.loads(raw)) if raw is not None else None for raw in messages.to_pylist()], pa.int32())
