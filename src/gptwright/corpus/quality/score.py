"""Scores of a docs file as columns: every trained classifier, and the share of flagged words. A pure task, named by its content."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Self

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.core.stages import code_version
from gptwright.corpus import tables
from gptwright.corpus.quality import flagged
from gptwright.corpus.quality.model import cached

CODE = (
    "gptwright.corpus.decontaminate.words", "gptwright.corpus.decontaminate.phrases",
    *(f"gptwright.corpus.quality.{m}" for m in ("features", "linear", "model", "flagged", "score")),
)  # fmt: skip
FLAGGED = "flagged_words"


@cache
def code() -> str:
    """Version of what decides a task's result."""
    return code_version(CODE)


@dataclass(frozen=True)
class Job:
    """A task: the scores of one docs file.

    Args:
        folder: where the result goes.
        docs: path of the docs file, which is named by its content.
        models: column, folder and hash of each classifier.
        lists: files and folders of flagged words; none for no such column.
        lists_hash: ``flagged.load(lists).hash``.
    """

    folder: str
    docs: str
    models: tuple[tuple[str, str, str], ...] = ()
    lists: tuple[str, ...] = ()
    lists_hash: str = ""

    @property
    def name(self) -> str:
        parts = [code(), Path(self.docs).name, [[column, hash_] for column, _, hash_ in self.models], self.lists_hash]
        return "scores-" + b2_json(parts).removeprefix("b2:")[:32]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.name}.parquet"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.path.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        files = [f"{folder}/{name}" for _, folder, _ in self.models for name in ("model.json", "weights.npz")]
        lists = [str(path) for place in self.lists for path in flagged.files(Path(place))]
        return (self.docs, *files, *lists)

    def moved(self, folder: str, places: Mapping[str, str]) -> Self:
        """The same job elsewhere. The files of a classifier must stand beside each other there."""
        models = tuple((name, str(Path(places[f"{at}/model.json"]).parent), hash_) for name, at, hash_ in self.models)
        lists = tuple(places[str(path)] for place in self.lists for path in flagged.files(Path(place)))
        return replace(self, folder=folder, docs=places[self.docs], models=models, lists=lists)


def run(job: Job) -> str:
    """Do a task unless it is done. Returns its name."""
    if job.path.exists():
        return job.name
    models = [(column, cached(folder, hash_)) for column, folder, hash_ in job.models]
    lists = flagged.load(job.lists) if job.lists else None
    if lists is not None and lists.hash != job.lists_hash:
        raise UserError(
            "the lists of flagged words were changed meanwhile", where=", ".join(job.lists), fix="Run it again"
        )
    names = [column for column, _ in models] + ([FLAGGED] if lists is not None else [])
    columns: dict[str, list[npt.NDArray[np.float32]]] = {name: [] for name in names}
    with pq.ParquetFile(job.docs) as file:
        declared = ["lang_declared"] if "lang_declared" in file.schema_arrow.names else []
        for batch in file.iter_batches(batch_size=1024, columns=["text", *declared]):
            for column, model in models:
                columns[column].append(model.score(batch["text"]))
            if lists is not None:
                columns[FLAGGED].append(lists.ratio(batch["text"], batch["lang_declared"] if declared else None))
    whole = {name: np.concatenate([np.zeros(0, np.float32), *values]) for name, values in columns.items()}
    tables.write_table(
        job.path, pa.table({name: pa.array(v, pa.float32(), from_pandas=True) for name, v in whole.items()})
    )
    return job.name
