"""Running pure file-to-file tasks: in this process, or in a pool of spawned ones. Same results in the same order either way."""

import concurrent.futures
import multiprocessing
import os
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

A = TypeVar("A")
B = TypeVar("B")


def usable_cores() -> int:
    """Cores this process may run on, not those the machine has."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def map_tasks(task: Callable[[A], B], items: Iterable[A], workers: int = 1) -> Iterator[B]:
    """Apply a task to each item and yield results in order.

    Args:
        task: a module-level function; it must be importable, since workers are spawned.
        items: its arguments, picklable.
        workers: processes; 1 runs here.
    """
    if workers <= 1:
        yield from map(task, items)
        return
    context = multiprocessing.get_context("spawn")
    with concurrent.futures.ProcessPoolExecutor(workers, mp_context=context) as pool:
        yield from pool.map(task, items)
