"""Runs of training that can be killed, each a process of its own, at the price of one import of torch: a process that forks.

As a script it reads a line of JSON a run and answers with the child's process id, then with how it ended. Where there is no safe fork,
each run is a new process instead.
"""

import contextlib
import json
import os
import subprocess
import sys
from pathlib import Path
from types import TracebackType
from typing import Any, Self

HERE = Path(__file__).parent
FORKS = sys.platform.startswith("linux")


class Nursery:
    """Starts runs. Use as a context manager."""

    def __init__(self) -> None:
        self._parent: subprocess.Popen[str] | None = None
        self._alone: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        if FORKS:
            self._parent = subprocess.Popen(
                [sys.executable, str(HERE / "forked.py")], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
            )
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._parent is not None:
            assert self._parent.stdin is not None
            self._parent.stdin.close()
            self._parent.wait(60)

    def start(self, run: dict[str, Any]) -> int:
        """Begin a run (see ``take``). Returns its process id."""
        if self._parent is None:
            command = [sys.executable, str(HERE / "forked.py"), json.dumps(run)]
            self._alone = subprocess.Popen(command, stderr=subprocess.DEVNULL)
            return self._alone.pid
        assert self._parent.stdin is not None
        self._parent.stdin.write(json.dumps(run) + "\n")
        self._parent.stdin.flush()
        return int(self._line())

    def wait(self) -> int:
        """Until the run ended. Returns 0 when it came to its end by itself."""
        return int(self._line()) if self._alone is None else self._alone.wait()

    def _line(self) -> str:
        assert self._parent is not None
        assert self._parent.stdout is not None
        return self._parent.stdout.readline()


def take(run: dict[str, Any]) -> None:
    """One run.

    Args:
        run: folder; case and steps, or config (of the plain toy); pause_s, which a step lasts at least.
    """
    import time

    import torch
    from case_training import run as run_case
    from tiny_training import TinyPlan, tiny_config

    from gptwright.train.config import TrainConfig
    from gptwright.train.loop import train

    os.environ["TINY_PAUSE_S"] = str(run["pause_s"])
    if "case" in run:
        run_case(run["case"], Path(run["folder"]), run["steps"])
    else:
        torch.set_num_threads(1)
        wait = [lambda info: time.sleep(run["pause_s"])]
        train(tiny_config(), TinyPlan(), TrainConfig(**run["config"]), run_dir=Path(run["folder"]), callbacks=wait)


def main() -> None:
    sys.path.insert(0, str(HERE))
    import case_training  # noqa: F401 - what takes long, once

    if len(sys.argv) > 1:
        take(json.loads(sys.argv[1]))
        return
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
            os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
            code = 1
            with contextlib.suppress(BaseException):
                take(json.loads(line))
                code = 0
            os._exit(code)
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(status, flush=True)


if __name__ == "__main__":
    main()
