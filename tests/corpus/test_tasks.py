"""Tasks that are stopped: what was done stays, and the person's wish is not forgotten."""

import os
import signal
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import Interrupted
from gptwright.core.executors import Local
from gptwright.corpus import tasks
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.tasks import Features


@dataclass
class Stopping(Local):
    """Does tasks here; Ctrl-C comes while one of them runs."""

    at: int = 0

    def map(self, function: Callable[[Any], Any], jobs: Sequence[Any]) -> Iterator[Any]:  # type: ignore[override]
        for number, job in enumerate(jobs):
            if number == self.at:
                os.kill(os.getpid(), signal.SIGINT)
            yield function(job)


@pytest.mark.parametrize("at", [0, 2])
def test_run_when_stopped_during_any_task_the_last_too_then_it_ends_after_it(tmp_path: Path, at: int) -> None:
    done: list[str] = []
    jobs = [Features(str(tmp_path), str(tmp_path / f"{n}.parquet"), DedupConfig()) for n in range(3)]
    with pytest.raises(Interrupted, match=f"after {at + 1} of 3 tasks; run again"):
        tasks.run("reading", lambda job: done.append(job.docs), jobs, Stopping(at=at))
    assert len(done) == at + 1
