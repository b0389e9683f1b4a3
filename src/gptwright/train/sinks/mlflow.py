"""MLflow: a run in an experiment named like the project, by default in an SQLite file.

Look with: mlflow ui --backend-store-uri sqlite:///work/tracking/mlflow/mlflow.db
"""

import logging
import os
import re
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from gptwright.core.errors import require
from gptwright.train.callbacks import RunView
from gptwright.train.sinks.base import Row, make_folder, settings_of

_TAG = "gptwright.run"
_STATES = {"done": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}
_METRICS_AT_ONCE, _PARAMS_AT_ONCE, _LONGEST_PARAM = 1000, 100, 500  # MLflow's limits of one call
_NOT_ALLOWED = re.compile(r"[^\w\-. /]")


class Mlflow:
    """See ``Sink``.

    Args:
        folder: of the store, when it is ours.
        project: name of the experiment.
        uri: of another store or a server.
    """

    def __init__(self, folder: Path, project: str, uri: str | None) -> None:
        # MLflow would report its use to its makers.
        os.environ["MLFLOW_DISABLE_TELEMETRY"] = os.environ["DO_NOT_TRACK"] = "true"
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        self._place = None if uri else make_folder(folder).resolve()
        self._client: Any = require("mlflow.tracking", "tracking").MlflowClient(
            uri or f"sqlite:///{folder.resolve().as_posix()}/mlflow.db"
        )
        self._entities: Any = require("mlflow.entities", "tracking")
        self.project, self._run = project, ""

    def open(self, run: RunView) -> set[int]:
        """See ``Sink``."""
        client = self._client
        experiment = client.get_experiment_by_name(self.project)
        if experiment is None:
            files = None if self._place is None else (self._place / "artifacts").as_uri()
            number = client.create_experiment(self.project, artifact_location=files)
        else:
            number = experiment.experiment_id
        known = client.search_runs([number], f"tags.`{_TAG}` = '{run.id}'", max_results=1)
        if known:
            self._run = known[0].info.run_id
            client.update_run(self._run, status="RUNNING")
            return {int(metric.step) for metric in client.get_metric_history(self._run, "tokens")}
        self._run = client.create_run(number, run_name=run.id, tags={_TAG: run.id, "stage": run.label}).info.run_id
        params = [
            self._entities.Param(_NOT_ALLOWED.sub("_", name), str(value)[:_LONGEST_PARAM])
            for name, value in settings_of(run).items()
        ]
        for first in range(0, len(params), _PARAMS_AT_ONCE):
            client.log_batch(self._run, params=params[first : first + _PARAMS_AT_ONCE])
        return set()

    def write(self, rows: Sequence[Row]) -> None:
        """See ``Sink``."""
        now = int(time.time() * 1000)
        batch: list[Any] = []
        for row in rows:  # a step's numbers stay in one call, so that a kill leaves whole steps
            new = [
                self._entities.Metric(_NOT_ALLOWED.sub("_", name), float(value), now, row["step"])
                for name, value in row.items()
                if name != "step"
            ]
            if len(batch) + len(new) > _METRICS_AT_ONCE:
                self._client.log_batch(self._run, metrics=batch)
                batch = []
            batch += new
        if batch:
            self._client.log_batch(self._run, metrics=batch[:_METRICS_AT_ONCE])

    def close(self, state: str) -> None:
        """See ``Sink``."""
        self._client.set_terminated(self._run, _STATES[state])
