"""Scores of classifiers and word lists beside the signals: a score is a task of its own, so that another classifier looks at nothing else anew."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.corpus import look, tables
from gptwright.corpus.config import QualityConfig


@dataclass(frozen=True)
class Join:
    """A task: signals with the columns of scores."""

    folder: str
    signals: str
    scores: str

    @property
    def name(self) -> str:
        names = [Path(self.signals).name, Path(self.scores).name]
        return "scored-" + b2_json(names).removeprefix("b2:")[:32]

    @property
    def path(self) -> Path:
        return Path(self.folder) / f"{self.name}.parquet"

    @property
    def done(self) -> bool:
        """Whether the result is there."""
        return self.path.exists()

    def inputs(self) -> Sequence[str]:
        """Files that are read."""
        return [self.signals, self.scores]

    def moved(self, folder: str, places: Mapping[str, str]) -> Self:
        """The same job elsewhere."""
        return replace(self, folder=folder, signals=places[self.signals], scores=places[self.scores])


def join(job: Join) -> str:
    """Do a task unless it is done. Returns its name."""
    if not job.path.exists():
        table, scores = pq.read_table(job.signals), pq.read_table(job.scores)
        for name in scores.column_names:
            table = table.append_column(name, scores[name])
        tables.write_table(job.path, table)
    return job.name


@dataclass(frozen=True)
class Scorer:
    """What a corpus's documents are scored by."""

    models: tuple[tuple[str, str, str], ...]  # signal, folder, hash
    lists: tuple[str, ...]
    lists_hash: str

    @classmethod
    def of(cls, config: QualityConfig, root: Path) -> "Scorer | None":
        """The scorer of a configuration, None when nothing is scored.

        Raises:
            UserError: a classifier or list is missing, or a signal has this name already.
        """
        if not config.models and not config.lists:
            return None
        from gptwright.corpus import quality, signals
        from gptwright.corpus.quality import flagged

        if taken := [name for name in config.models if name in signals.SCHEMA.names]:
            raise UserError(
                f"there is a signal {taken[0]!r} already", where="corpus.quality.models", fix="Choose another name"
            )
        folders = {name: str((root / Path(place).expanduser()).resolve()) for name, place in config.models.items()}
        models = tuple((name, folder, quality.load(folder).hash) for name, folder in folders.items())
        lists = tuple(str((root / Path(place).expanduser()).resolve()) for place in config.lists)
        return cls(models, lists, flagged.load(lists).hash if lists else "")

    def add(
        self, looks: Sequence[look.Job], folder: Path, run: Callable[[str, Callable[[Any], Any], Sequence[Any]], None]
    ) -> list[Path]:
        """Score the docs files of these jobs. Returns their signals with the scores."""
        from gptwright.corpus.quality import score

        jobs = [score.Job(str(folder), job.docs, self.models, self.lists, self.lists_hash) for job in looks]
        run("scoring", score.run, jobs)
        joins = [Join(str(folder), str(one.signals), str(scored.path)) for one, scored in zip(looks, jobs, strict=True)]
        run("scores", join, joins)
        return [job.path for job in joins]
