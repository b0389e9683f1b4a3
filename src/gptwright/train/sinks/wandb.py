"""Weights & Biases: run files that stay here, until someone sends them with: wandb sync work/tracking/wandb/wandb/offline-run-*"""

import json
import os
import struct
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from gptwright.core.errors import require
from gptwright.train.callbacks import RunView
from gptwright.train.sinks.base import Row, make_folder, settings_of

_HEADER, _BLOCK, _RECORD = 7, 32768, 7  # bytes: of a file, of a block, of what stands before a record
_FULL, _FIRST, _MIDDLE, _LAST = 1, 2, 3, 4


class Wandb:
    """See ``Sink``.

    Args:
        folder: of the run files.
        project: of the runs.
        online: send them at once.
    """

    def __init__(self, folder: Path, project: str, online: bool) -> None:
        os.environ.setdefault("WANDB_ERROR_REPORTING", "false")  # crash reports to its makers
        self._wandb: Any = require("wandb", "tracking")
        self.folder, self.project, self.online = make_folder(folder), project, online
        self._run: Any = None

    def open(self, run: RunView) -> set[int]:
        """See ``Sink``."""
        there = steps_in(self.folder, run.id)
        settings = self._wandb.Settings(
            silent=True, console="off", disable_git=True, save_code=False, disable_code=True,
            x_disable_meta=True, x_disable_stats=True, x_disable_machine_info=True,
        )  # fmt: skip
        self._run = self._wandb.init(
            project=self.project, id=run.id, name=run.id, job_type=run.label, config=settings_of(run), dir=str(self.folder),
            mode="online" if self.online else "offline", resume="allow" if self.online else None, settings=settings,
        )  # fmt: skip
        return there

    def write(self, rows: Sequence[Row]) -> None:
        """See ``Sink``."""
        for row in rows:
            self._run.log({name: value for name, value in row.items() if name != "step"}, step=row["step"])

    def close(self, state: str) -> None:
        """See ``Sink``."""
        self._run.finish(exit_code=int(state == "failed"))


def steps_in(folder: Path, run_id: str) -> set[int]:
    """Steps that the files of a run hold already; it has one each time it was begun."""
    return {step for path in sorted(folder.rglob(f"run-{run_id}.wandb")) for step, _ in history(path)}


def history(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Steps and numbers of a .wandb file: records of LevelDB's log format, each a protocol buffer.

    Source: github.com/google/leveldb, doc/log_format.md; wandb.proto.wandb_internal_pb2 of the installed package.
    """
    messages = require("wandb.proto.wandb_internal_pb2", "tracking")
    for data in _records(path.read_bytes()):
        record = messages.Record()
        record.ParseFromString(data)
        if record.WhichOneof("record_type") != "history":
            continue
        values = {"/".join(item.nested_key) or item.key: json.loads(item.value_json) for item in record.history.item}
        step = record.history.step.num if record.history.HasField("step") else values.get("_step", 0)
        yield int(step), values


def _records(data: bytes) -> Iterator[bytes]:
    at, parts = _HEADER, b""
    while at + _RECORD <= len(data):
        left = _BLOCK - at % _BLOCK
        if left < _RECORD:  # the end of a block is padded
            at += left
            continue
        _, size, kind = struct.unpack_from("<IHB", data, at)
        at += _RECORD
        if kind == 0 or at + size > len(data):
            return  # torn by a kill
        parts = data[at : at + size] if kind in (_FULL, _FIRST) else parts + data[at : at + size]
        at += size
        if kind in (_FULL, _LAST):
            yield parts
