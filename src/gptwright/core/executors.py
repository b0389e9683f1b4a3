"""Where pure file-to-file tasks run: in this process, in a pool of spawned ones, or on a Ray cluster. Same results in the same order.

A task is a module-level function of one picklable job. It reads files, writes files atomically under names that its job decides, and
returns a small value; so it may be run anywhere, twice, or again after its worker was killed, and the result is the same.
"""

import concurrent.futures
import contextlib
import multiprocessing
import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Protocol, TypeVar

from gptwright.core.errors import UserError, require
from gptwright.core.staging import Movable, Staging

A = TypeVar("A")
B = TypeVar("B")
_AHEAD = 4  # tasks in flight for each worker: enough to keep it busy, few enough to stop soon


class Executor(Protocol):
    """Runs tasks and yields their results in the order of their jobs."""

    def map(self, task: Callable[[A], B], jobs: Iterable[A]) -> Iterator[B]:
        """Apply a task to each job."""
        ...


def usable_cores() -> int:
    """Cores this process may run on, not those the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_tasks(task: Callable[[A], B], items: Iterable[A], workers: int = 1) -> Iterator[B]:
    """Apply a task to each item on this machine and yield results in order.

    Args:
        task: a module-level function; it must be importable, since workers are spawned.
        items: its arguments, picklable.
        workers: processes; 1 runs here.
    """
    yield from Local(workers).map(task, items)


class Local:
    """This machine.

    Args:
        workers: processes; 1 runs in this one.
    """

    def __init__(self, workers: int = 1) -> None:
        self.workers = workers

    def map(self, task: Callable[[A], B], jobs: Iterable[A]) -> Iterator[B]:
        """Apply a task to each job."""
        if self.workers <= 1:
            yield from map(task, jobs)
            return
        context = multiprocessing.get_context("spawn")
        with concurrent.futures.ProcessPoolExecutor(self.workers, mp_context=context) as pool:
            waiting: deque[concurrent.futures.Future[B]] = deque()
            try:
                for job in jobs:
                    waiting.append(pool.submit(task, job))
                    if len(waiting) >= _AHEAD * self.workers:
                        yield waiting.popleft().result()
                while waiting:
                    yield waiting.popleft().result()
            finally:
                for future in waiting:
                    future.cancel()


class Ray:
    """A Ray cluster, or one that is started here when no address is given.

    Ray only schedules: results lie in files. Nodes that do not share a file system need ``storage``.

    Args:
        address: of the cluster; None takes RAY_ADDRESS, and without it starts Ray on this machine.
        storage: fsspec URL that every node reaches, such as ``s3://bucket/work``; None when they share this file system.

    Raises:
        UserError: Ray is not installed, or the cluster does not answer.
    """

    def __init__(self, address: str | None = None, storage: str | None = None) -> None:
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # no call home
        os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
        self._ray = require("ray", "ray")
        self._staging = Staging(storage) if storage else None
        address = address or os.environ.get("RAY_ADDRESS")
        if not self._ray.is_initialized():
            try:
                self._ray.init(
                    address=address,
                    log_to_driver=False,
                    logging_level="ERROR",
                    include_dashboard=None if address else False,
                )
            except (ConnectionError, RuntimeError, ValueError) as error:
                raise UserError(
                    f"the Ray cluster does not answer: {str(error).splitlines()[0]}",
                    where=address or "ray",
                    fix="Start it with: ray start --head, and set RAY_ADDRESS",
                ) from error

    def map(self, task: Callable[[A], B], jobs: Iterable[A]) -> Iterator[B]:
        """Apply a task to each job; a job whose worker dies is run again elsewhere."""
        remote = self._ray.remote(num_cpus=1, max_retries=5)(_run)
        ahead = _AHEAD * max(1, int(self._ray.cluster_resources().get("CPU", 1)))
        waiting: deque[tuple[A, object]] = deque()
        staging: Staging | None = None

        def next_result() -> B:
            job, reference = waiting.popleft()
            try:
                result: B = self._ray.get(reference)
            except self._ray.exceptions.RayTaskError as error:
                raise error.cause from error
            if staging is not None and isinstance(job, Movable):
                staging.pull(job)
            return result

        try:
            for job in jobs:
                if self._staging is not None and isinstance(job, Movable):
                    if staging is None:
                        staging = self._staging.of(job)
                        staging.clear()  # what a killed run left
                    staging.push(job)
                waiting.append((job, remote.remote(task, job, staging, _name(job))))
                if len(waiting) >= ahead:
                    yield next_result()
            while waiting:
                yield next_result()
        finally:
            for _, reference in waiting:
                with contextlib.suppress(Exception):  # cancelling what has finished already is no fault
                    self._ray.cancel(reference)
            if staging is not None:
                staging.clear()


def _name(job: object) -> str | None:
    return job.name if isinstance(job, Movable) else None


def _run(task: Callable[[A], B], job: A, staging: Staging | None, name: str | None) -> B:
    """On a worker: do the task, in a scratch folder when files must be brought and taken away."""
    if _name(job) != name:  # names hold the code's version
        raise UserError(
            "a node of the Ray cluster runs another version of gptwright, or of a library that decides results",
            fix="Install the same versions on all nodes, and start the cluster anew",
        )
    if staging is not None and isinstance(job, Movable):
        return staging.run(task, job)
    return task(job)


def executor(kind: str, *, workers: int = 1, storage: str | None = None) -> Executor:
    """The executor of a name.

    Args:
        kind: "local" or "ray".
        workers: processes, for local.
        storage: fsspec URL that all of Ray's nodes reach.

    Raises:
        UserError: there is none of this name, or what it needs is missing.
    """
    if kind == "ray":
        return Ray(storage=storage)
    if kind != "local":
        raise UserError(f"no executor is called {kind!r}", fix="Choose local or ray")
    return Local(workers)
