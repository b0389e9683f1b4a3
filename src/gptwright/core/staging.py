"""Tasks on machines that share no file system: their inputs are brought by way of a storage that all reach, their outputs taken back.

Object stores have no rename and no hard links, which atomic writing rests on; so a task still works in a local folder, and whole files
move. Names are content addresses: what is there already is not moved again.
"""

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from gptwright.core.errors import require
from gptwright.core.files import TEMPORARY, sync_directory
from gptwright.core.hashing import b2

B = TypeVar("B")


@runtime_checkable
class Movable(Protocol):
    """A job that can be done in another folder: it knows its inputs, and its outputs begin with its name. Of several outputs the one that
    says that the task is done is a ``.json``, or else comes last by its name."""

    @property
    def folder(self) -> str:
        """Where the outputs go."""
        ...

    @property
    def name(self) -> str:
        """What the outputs' names begin with."""
        ...

    def inputs(self) -> Sequence[str]:
        """Paths of the files that are read."""
        ...

    def moved(self, folder: str, places: Mapping[str, str]) -> Self:
        """The same job with another folder for outputs and other places for inputs."""
        ...


@dataclass(frozen=True)
class Staging:
    """A storage between machines. It holds files only while tasks run: what is erased here must not stay there.

    Args:
        url: fsspec URL of a folder in it.
    """

    url: str

    def of(self, job: Movable) -> "Staging":
        """The part of the storage that belongs to the folder of a job's outputs, so that two projects may share one."""
        return Staging(f"{self.url.rstrip('/')}/{_short(str(Path(job.folder).resolve()))}")

    def clear(self) -> None:
        """Delete everything in it."""
        fs, root = self._open()
        if fs.exists(root):
            fs.rm(root, recursive=True)

    def _open(self) -> tuple[Any, str]:
        fsspec = require("fsspec", "ray")
        fs, root = fsspec.core.url_to_fs(self.url)
        return fs, str(root).rstrip("/")

    @staticmethod
    def _key(path: str) -> str:
        """Names an input by its place and state, as seen by the machine that has it. Its own name stays: tasks go by it."""
        info = Path(path).stat()
        state = "\0".join((path, str(info.st_size), str(info.st_mtime_ns)))
        return f"in/{_short(state)}/{Path(path).name}"

    def push(self, job: Movable) -> None:
        """Bring a job's inputs into the storage, with a note of which is which."""
        fs, root = self._open()
        lines = []
        for path in job.inputs():
            try:
                key = self._key(path)
            except OSError:
                continue  # it is gone: the task finds no place for it and says so
            if not fs.exists(f"{root}/{key}"):
                fs.makedirs(f"{root}/{key}".rpartition("/")[0], exist_ok=True)
                fs.put_file(path, f"{root}/{key}.part")
                fs.mv(f"{root}/{key}.part", f"{root}/{key}")
            lines.append([key, path])
        fs.makedirs(f"{root}/jobs", exist_ok=True)
        fs.pipe_file(f"{root}/jobs/{job.name}", json.dumps(lines).encode())

    def run(self, task: Callable[[Any], B], job: Movable) -> B:
        """On a worker: fetch the inputs, do the task in a scratch folder, bring the outputs into the storage."""
        fs, root = self._open()
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as scratch:
            outputs = Path(scratch, "out")
            outputs.mkdir()
            places = {path: str(Path(scratch, "missing", Path(path).name)) for path in job.inputs()}
            for key, path in json.loads(fs.cat_file(f"{root}/jobs/{job.name}")):
                # What stands in one folder stands in one folder here too: some tasks read a folder by its files.
                local = Path(scratch, "in", _short(str(Path(path).parent)), Path(path).name)
                if not local.exists():
                    local.parent.mkdir(parents=True, exist_ok=True)
                    fs.get_file(f"{root}/{key}", str(local))
                places[path] = str(local)
            result = task(job.moved(str(outputs), places))
            fs.makedirs(f"{root}/out/{job.name}", exist_ok=True)
            for path in sorted(outputs.iterdir()):
                fs.put_file(str(path), f"{root}/out/{job.name}/{path.name}")
        return result

    def pull(self, job: Movable) -> None:
        """Take a job's outputs into its folder, the one that says that the task is done last."""
        fs, root = self._open()
        for remote in sorted(fs.ls(f"{root}/out/{job.name}", detail=False), key=lambda p: (p.endswith(".json"), p)):
            target = Path(job.folder) / Path(remote).name
            draft = target.with_name(TEMPORARY + target.name)
            fs.get_file(remote, str(draft))
            draft.replace(target)
        sync_directory(Path(job.folder))


def _short(value: str) -> str:
    return b2(value).removeprefix("b2:")[:32]
