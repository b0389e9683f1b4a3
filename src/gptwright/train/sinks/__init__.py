"""Where curves are shown besides metrics.jsonl: TensorBoard, MLflow, Weights & Biases, trackio. All are optional, all write local files."""

import importlib.util
from collections.abc import Sequence
from functools import partial
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.train.sinks.base import Sending, Sink

NAMES = ("tensorboard", "mlflow", "wandb", "trackio")


def sinks(
    names: Sequence[str], folder: Path, project: str, *, mlflow_uri: str | None = None, wandb_online: bool = False
) -> list[Sending]:
    """The sinks asked for, as callbacks of a run.

    Args:
        names: of ``NAMES``.
        folder: their files go below it, each in a folder of its own.
        project: groups the runs of one project.
        mlflow_uri: of a tracking server or another store; None: an SQLite file in the folder.
        wandb_online: send to Weights & Biases; else its files stay here, until ``wandb sync``.

    Raises:
        UserError: a name is unknown, or its package is not installed.
    """
    made = []
    for name in dict.fromkeys(names):
        if name not in NAMES:
            raise UserError(f"no such sink: {name}", where="[tracking] sinks", fix=f"Choose of: {', '.join(NAMES)}")
        if importlib.util.find_spec(name) is None:
            raise UserError(
                f"this needs {name}, which is not installed",
                where="[tracking] sinks",
                fix='Run: pip install "gptwright[tracking]"',
            )
        made.append(Sending(name, partial(_open, name, folder / name, project, mlflow_uri, wandb_online)))
    return made


def _open(name: str, folder: Path, project: str, mlflow_uri: str | None, wandb_online: bool) -> Sink:
    """Import a sink's package, which may take seconds: in the sink's own thread."""
    if name == "tensorboard":
        from gptwright.train.sinks.tensorboard import TensorBoard

        return TensorBoard(folder)
    if name == "mlflow":
        from gptwright.train.sinks.mlflow import Mlflow

        return Mlflow(folder, project, mlflow_uri)
    if name == "wandb":
        from gptwright.train.sinks.wandb import Wandb

        return Wandb(folder, project, wandb_online)
    from gptwright.train.sinks.trackio import Trackio

    return Trackio(folder, project)
