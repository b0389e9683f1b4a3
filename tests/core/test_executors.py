"""The same tasks anywhere: one process, a pool, a Ray cluster of two nodes, with and without a shared file system."""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import UserError
from gptwright.core.executors import Executor, Local, Ray, executor
from gptwright.core.files import atomic_write


@dataclass(frozen=True)
class Copy:
    """Writes a file in capitals; ``die`` names a file: whoever creates it dies in the middle of the first try."""

    folder: str
    source: str
    die: str | None = None

    @property
    def name(self) -> str:
        return "copy-" + Path(self.source).stem

    def inputs(self) -> Sequence[str]:
        return [self.source]

    def moved(self, folder: str, places: Mapping[str, str]) -> "Copy":
        return replace(self, folder=folder, source=places[self.source])


def capitals(job: Copy) -> int:
    text = Path(job.source).read_text()
    if job.die and not Path(job.die).exists():
        Path(job.die).touch()
        os._exit(9)
    # The name was fixed when the job was made: a moved input has another stem.
    with atomic_write(Path(job.folder) / f"copy-{text.split()[0]}.txt", "w") as file:
        file.write(text.upper())
    return len(text)


def fail(job: Copy) -> int:
    raise UserError("this job cannot be done", where=job.source, fix="Give another")


@pytest.fixture
def jobs(tmp_path: Path) -> list[Copy]:
    (tmp_path / "out").mkdir()
    found = []
    for number in range(7):
        path = tmp_path / f"n{number}.txt"
        path.write_text(f"n{number} " + "some words " * number)
        found.append(Copy(str(tmp_path / "out"), str(path)))
    return found


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    one.add_node(num_cpus=1)
    yield one.address
    ray.shutdown()
    one.shutdown()


def check(runner: Executor, jobs: list[Copy]) -> None:
    sizes = list(runner.map(capitals, jobs))
    assert sizes == [len(Path(job.source).read_text()) for job in jobs]
    for job in jobs:
        made = Path(job.folder) / f"{job.name}.txt"
        assert made.read_text() == Path(job.source).read_text().upper()


@pytest.mark.parametrize("workers", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_local_when_any_number_of_processes_then_results_come_in_order(jobs: list[Copy], workers: int) -> None:
    check(Local(workers), jobs)


@pytest.mark.slow
def test_ray_when_two_nodes_then_results_and_files_are_the_same(jobs: list[Copy], cluster: str) -> None:
    check(Ray(cluster), jobs)


@pytest.mark.slow
def test_ray_when_a_worker_dies_then_its_task_is_done_by_another(
    jobs: list[Copy], cluster: str, tmp_path: Path
) -> None:
    jobs[3] = replace(jobs[3], die=str(tmp_path / "died"))
    check(Ray(cluster), jobs)
    assert (tmp_path / "died").exists()


@pytest.mark.slow
def test_ray_when_nodes_share_only_a_storage_then_files_are_brought_and_taken_back(
    jobs: list[Copy], cluster: str, tmp_path: Path
) -> None:
    left = tmp_path / "bucket" / "left"
    left.mkdir(parents=True)
    check(Ray(cluster, storage=f"file://{tmp_path}/bucket"), jobs)
    assert list((tmp_path / "bucket").iterdir()) == [left], "the storage keeps nothing of what was moved"


@pytest.mark.slow
def test_ray_when_a_task_refuses_then_its_own_error_arrives(jobs: list[Copy], cluster: str) -> None:
    with pytest.raises(UserError, match="this job cannot be done"):
        list(Ray(cluster).map(fail, jobs[:1]))


def test_executor_when_the_name_is_unknown_then_the_error_names_the_choices() -> None:
    with pytest.raises(UserError, match="Choose local or ray"):
        executor("slurm")


def test_executor_when_ray_is_not_installed_then_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    import builtins

    real = builtins.__import__

    def without(name: str, *args: Any, **keywords: Any) -> Any:
        if name == "ray":
            raise ModuleNotFoundError("No module named 'ray'", name="ray")
        return real(name, *args, **keywords)

    monkeypatch.setattr(builtins, "__import__", without)
    import importlib

    monkeypatch.setattr(importlib, "import_module", lambda name, *a: without(name) if name == "ray" else None)
    with pytest.raises(UserError, match=r"gptwright\[ray\]"):
        Ray()
