"""The same corpus from one process, two, and a Ray cluster of two nodes, with a shared file system and without; and when a worker dies."""

import json
import os
import random
import shutil
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gptwright.core.executors import Executor, Ray
from gptwright.core.ledger import Ledger
from gptwright.corpus import extract, quality
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig

if TYPE_CHECKING:
    from conftest import Project

pytestmark = [pytest.mark.slow, pytest.mark.skipif(os.name == "nt", reason="needs Ray and SIGKILL")]
KEY = b"k" * 32
TABLES = ("docs", "signals", "edits", "decisions")


@dataclass
class Corpus:
    """Sources of all kinds with a configuration that asks for every task there is."""

    root: Path
    config: CorpusConfig

    def build(
        self, executor: Executor | None = None, workers: int = 1, again: bool = False
    ) -> tuple[str, dict[str, bytes]]:
        """The hash, and every published file with its bytes; in a new work folder unless ``again``."""
        work = self.root / "work"
        if not again:
            shutil.rmtree(work, ignore_errors=True)
        with Ledger.open(work / "ledger.sqlite") as ledger:
            result = build_corpus(
                self.config,
                root=self.root,
                out=work / "corpus",
                ledger=ledger,
                workers=workers,
                executor=executor,
                key=KEY,
            )
        files = [path for table in TABLES for path in sorted((work / "corpus" / table).iterdir())]
        return result.hash, {str(path.relative_to(work)): path.read_bytes() for path in files}


def prepare(project: "Project") -> Corpus:
    """Files of many kinds, with copies, boilerplate, personal data and evaluation items; a classifier and a list of words."""
    write, prose, root = project.write, project.prose, project.root
    question = (
        "Which river flows through the three old towns that the bridge song of the valley names in its second verse"
    )
    for i in range(60):
        footer = "\nAll pages of this collection end with the same long line about nothing in particular."
        write(f"{i % 3}/{i:03d}.txt", prose(i, 260) + f"\nWrite to someone{i}@mail.example.org, please." + footer)
    write("near.md", prose(4, 260) + "\nThis copy has a few words more.")
    write("leak.txt", prose(900, 120) + f"\n\n{question}?\n\n" + prose(901, 120))
    write(
        "program.py",
        "# SPDX-License-Identifier: MIT\n" + "".join(f"def f{i}(x):\n    return x + {i}\n" for i in range(40)),
    )
    write("Makefile", "all:\n\techo " + prose(5, 30))
    write("page.html", f"<html><body><main><p>{prose(6, 200)}</p></main></body></html>")
    write("rows.csv", "text\n" + "\n".join(f'"{prose(i, 80)}"' for i in range(200, 215)))
    talks = [
        {"messages": [{"role": "user", "content": prose(i)}, {"role": "assistant", "content": "i agree with that lol"}]}
        for i in range(300, 330)
    ]
    write("chats.jsonl", "\n".join(map(json.dumps, talks)))
    archive = shutil.make_archive(str(root / "packed"), "gztar", project.data / "1")
    shutil.move(archive, project.data / "packed.tar.gz")
    (root / "evals").mkdir()
    (root / "evals" / "river.jsonl").write_text(json.dumps({"question": question + "?", "answer": "The Ver"}) + "\n")
    (root / "lists").mkdir()
    (root / "lists" / "en.txt").write_text("banks\noldver\n")
    good, bad = (
        [prose(i, 120) for i in range(1000, 1060)],
        [" ".join(random.Random(i).choices(("lol", "ok", "yes", "u"), k=60)) for i in range(60)],
    )
    quality.train(good + bad, [True] * 60 + [False] * 60, out=root / "models" / "calm")
    config = {
        "sources": {"own": {"uri": "data", "tidy": True, "pii": {"default": "mask", "email": "pseudonymize"}}},
        "quality": {"models": {"calm": "models/calm"}, "lists": ["lists"]},
        "decontaminate": {"sets": ["evals/*.jsonl"]},
    }
    return Corpus(root, CorpusConfig.model_validate(config))


@pytest.fixture
def corpus(project: "Project", monkeypatch: pytest.MonkeyPatch) -> Corpus:
    monkeypatch.setattr(extract, "GROUP_BYTES", 20_000)
    return prepare(project)


@pytest.fixture(scope="module")
def cluster() -> Iterator[str]:
    ray = pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    one = Cluster(initialize_head=True, head_node_args={"num_cpus": 1, "include_dashboard": False})
    one.add_node(num_cpus=1)
    yield one.address
    ray.shutdown()
    one.shutdown()


def test_build_when_tasks_run_anywhere_then_every_file_is_the_same(
    corpus: Corpus, cluster: str, tmp_path: Path
) -> None:
    one = corpus.build(workers=1)
    assert one[1]
    assert corpus.build(workers=2) == one
    assert corpus.build(Ray(cluster)) == one
    bucket = tmp_path / "bucket"
    assert corpus.build(Ray(cluster, storage=f"file://{bucket}")) == one
    assert not [path for path in bucket.rglob("*") if path.is_file()], "the storage keeps no text"


def test_build_when_a_ray_worker_dies_in_the_middle_of_tasks_then_every_file_is_the_same(
    corpus: Corpus, cluster: str, tmp_path: Path
) -> None:
    one = corpus.build(workers=1)
    for storage in (None, f"file://{tmp_path}/bucket"):
        runner = Ray(cluster, storage=storage)
        with Killing(_ray_workers, every_s=0.02) as killed:
            found = corpus.build(runner)
        assert found == one
        assert killed, "no worker was killed, which proves nothing"


def test_build_when_a_text_is_added_then_a_cluster_reads_only_what_is_new(
    corpus: Corpus, cluster: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    added = corpus.root / "data" / "zz.txt"
    text = "A new text about bridges and the people who walk over them. " * 3
    corpus.build(workers=1)
    added.write_text(text)
    alone = corpus.build(workers=1, again=True)
    added.unlink()

    runner = Ray(cluster, storage=f"file://{tmp_path}/bucket")
    corpus.build(runner)
    moved: list[str] = []
    real = runner.map
    monkeypatch.setattr(runner, "map", lambda task, jobs: real(task, [moved.append(job.name) or job for job in jobs]))
    corpus.build(runner, again=True)
    assert moved == []
    added.write_text(text)
    assert corpus.build(runner, again=True) == alone
    assert 0 < len(moved) <= 12, "two groups, in six kinds of tasks"


class Killing:
    """Kills one of some processes every so often, with SIGKILL, until it is left; gives the list of those that were killed."""

    def __init__(self, victims: Callable[[], list[int]], every_s: float, most: int = 3) -> None:
        self._victims, self._every, self._most = victims, every_s, most
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self.killed: list[int] = []

    def _run(self) -> None:
        while len(self.killed) < self._most and not self._stop.wait(self._every):
            for pid in self._victims()[:1]:
                os.kill(pid, signal.SIGKILL)
                self.killed.append(pid)

    def __enter__(self) -> list[int]:
        self._thread.start()
        return self.killed

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def _ray_workers() -> list[int]:
    """Workers of this test's cluster that are in the middle of one of our tasks."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            try:
                if b"ray::_run" in (folder / "cmdline").read_bytes() and _descends(int(folder.name)):
                    found.append(int(folder.name))
            except OSError:
                continue
    return found


def _descends(pid: int) -> bool:
    while pid > 1:
        if pid == os.getpid():
            return True
        pid = int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])
    return False
