"""Tasks on machines that share no file system: their inputs are brought by way of a storage that all reach, their outputs taken back.

Object stores have no rename and no hard links, which atomic writing rests on; so a task still works in a local folder, and whole files
move. Names are content addresses: what is there already is not moved again.
"""

import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, TypeVar, runtime_checkable

from gptwright.core.errors import require
from gptwright.core.files import TEMPORARY
from gptwright.core.hashing import b2

B = TypeVar("B")


@runtime_checkable
class Movable(Protocol):
    """A job that can be done in another folder: it knows its inputs, and its outputs begin with its name."""

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
    """A storage between machines.

    Args:
        url: fsspec URL of a folder in it.
    """

    url: str

    def _open(self) -> tuple[Any, str]:
        fsspec = require("fsspec", "ray")
        fs, root = fsspec.core.url_to_fs(self.url)
        return fs, str(root).rstrip("/")

    @staticmethod
    def _key(path: str) -> str:
        """Names an input by its place and state, as seen by the machine that has it."""
        info = Path(path).stat()
        return "in/" + b2(f"{path}\0{info.st_size}\0{info.st_mtime_ns}").removeprefix("b2:")[:40] + Path(path).suffix

    def push(self, job: Movable) -> None:
        """Bring a job's inputs into the storage, with a note of which is which."""
        fs, root = self._open()
        lines = []
        for path in job.inputs():
            key = self._key(path)
            if not fs.exists(f"{root}/{key}"):
                fs.makedirs(f"{root}/in", exist_ok=True)
                fs.put_file(path, f"{root}/{key}.part")
                fs.mv(f"{root}/{key}.part", f"{root}/{key}")
            lines.append(f"{key}\t{path}")
        fs.makedirs(f"{root}/jobs", exist_ok=True)
        fs.pipe_file(f"{root}/jobs/{job.name}", "\n".join(lines).encode())

    def run(self, task: Callable[[Any], B], job: Movable) -> B:
        """On a worker: fetch the inputs, do the task in a scratch folder, bring the outputs into the storage."""
        fs, root = self._open()
        with tempfile.TemporaryDirectory(prefix=TEMPORARY) as scratch:
            inputs, outputs = Path(scratch, "in"), Path(scratch, "out")
            inputs.mkdir()
            outputs.mkdir()
            places = {}
            for line in fs.cat_file(f"{root}/jobs/{job.name}").decode().splitlines():
                key, _, path = line.partition("\t")
                local = inputs / Path(key).name
                if not local.exists():
                    fs.get_file(f"{root}/{key}", str(local))
                places[path] = str(local)
            result = task(job.moved(str(outputs), places))
            fs.makedirs(f"{root}/out", exist_ok=True)
            for path in sorted(outputs.iterdir()):
                fs.put_file(str(path), f"{root}/out/{path.name}")
        return result

    def pull(self, job: Movable) -> None:
        """Take a job's outputs into its folder."""
        fs, root = self._open()
        for remote in sorted(fs.glob(f"{root}/out/{job.name}*"), key=lambda p: (p.endswith(".json"), p)):
            target = Path(job.folder) / Path(remote).name
            if not target.exists():
                draft = target.with_name(TEMPORARY + target.name)
                fs.get_file(remote, str(draft))
                draft.replace(target)
