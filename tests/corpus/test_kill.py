"""A build that is killed at any moment and started again ends as if nothing had happened.

Kills come in two ways: by the clock from outside, and from within at a chosen touch of the file system (an open, a rename, a link, a
removal), which also hits what takes no time, such as the renames of publishing. Each is SIGKILL: nothing is cleaned up.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from gptwright.core.ledger import Ledger
from gptwright.corpus import extract
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.view import documents

if TYPE_CHECKING:
    from conftest import Project

pytestmark = pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
PHASES = ("reading", "comparing", "looking", "duplicates", "evaluation items", "deciding", "cutting", "publishing")
CONFIG = {"sources": {"own": {"uri": "data"}}, "decontaminate": {"sets": ["evals/*.jsonl"]}}

# Arguments: project, phase, at which touch of the file system in it to die (0: never). Prints the phase it is in, touch by touch counted.
SCRIPT = """
import json, os, signal, sys
from pathlib import Path
from gptwright.core.ledger import Ledger
from gptwright.corpus import build, cut, extract, look, tasks
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.decontaminate import scan

extract.GROUP_BYTES = 20_000
root, wanted, at = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
phase, counts = "", {}

def wrap(module, name, label):
    real = getattr(module, name)
    def marked(*args, **named):
        global phase
        before, phase = phase, label
        try:
            return real(*args, **named)
        finally:
            phase = before
    setattr(module, name, marked)

for place in ((extract, "run", "reading"), (tasks, "make_features", "comparing"), (look, "run", "looking"),
              (build, "_compare", "duplicates"), (scan, "run", "evaluation items"), (build, "_decide", "deciding"),
              (cut.Cutter, "cut", "cutting"), (build, "_publish", "publishing")):
    wrap(*place)

inside = str(root / "work")

def touched(event, args):
    if event not in ("open", "os.rename", "os.link", "os.remove", "os.mkdir", "os.rmdir", "shutil.rmtree"):
        return
    if not phase or not args or not str(args[0]).startswith(inside):
        return
    counts[phase] = counts.get(phase, 0) + 1
    if at and phase == wanted and counts[phase] == at:
        os.write(1, ("died in " + phase).encode())
        os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(touched)
print("ready", flush=True)
with Ledger.open(root / "work" / "ledger.sqlite") as ledger:
    config = CorpusConfig.model_validate(json.loads(sys.argv[4]))
    result = build.build_corpus(config, root=root, out=root / "work" / "corpus", ledger=ledger, workers=1)
print(json.dumps(counts))
print(result.hash)
"""


def start(root: Path, phase: str = "", at: int = 0) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", SCRIPT, str(root), phase, str(at), json.dumps(CONFIG)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)


def finish(root: Path) -> tuple[str, dict[str, int]]:
    """Run to the end: the hash, and touches of the file system by phase."""
    said, _ = start(root).communicate()
    lines = said.splitlines()
    return lines[-1], json.loads(lines[-2])


class Undisturbed:
    """A project with files of several kinds and what its build gives; and twins of it, to be killed."""

    def __init__(self, project: "Project", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self.project, self.tmp_path = project, tmp_path
        question = (
            "Which river flows through the three old towns that the bridge song of the valley names in its second verse"
        )
        for i in range(60):
            footer = "\nAll pages of this collection end with the same long line about nothing in particular."
            project.write(f"{i:03d}.txt", project.prose(i, 400) + " Mail a@b.org, please." + footer)
        project.write("near.txt", project.prose(3, 400) + " A few words more.")
        project.write("leak.txt", project.prose(99, 200) + f"\n\n{question}?")
        chats = [
            {"messages": [{"role": "user", "content": project.prose(i)}, {"role": "assistant", "content": "Yes."}]}
            for i in range(50)
        ]
        project.write("chats.jsonl", "\n".join(map(json.dumps, chats)))
        (project.root / "evals").mkdir()
        (project.root / "evals" / "river.jsonl").write_text(json.dumps({"question": question + "?", "answer": "V"}))
        monkeypatch.setattr(extract, "GROUP_BYTES", 20_000)
        before = time.monotonic()
        self.hash = build_corpus(
            CorpusConfig.model_validate(CONFIG), root=project.root, out=project.out, ledger=project.ledger, workers=1
        ).hash
        self.took = time.monotonic() - before

    def twin(self, name: str) -> Path:
        other = self.tmp_path / name
        other.mkdir()
        for shared in ("data", "evals"):
            os.symlink(self.project.root / shared, other / shared)
        return other

    def check(self, other: Path) -> None:
        """A twin, run to its end, is the same to the last byte, and nothing is left lying about."""
        assert finish(other)[0] == self.hash
        with Ledger.open(other / "work" / "ledger.sqlite") as ledger:
            assert [vars(row) for row in ledger.files()] == [vars(row) for row in self.project.ledger.files()]
        assert list(documents(other / "work" / "corpus")) == list(documents(self.project.out))
        for table in ("docs", "signals", "edits", "decisions", "tasks"):
            mine = {path.name: path.read_bytes() for path in (self.project.out / table).iterdir()}
            assert {path.name: path.read_bytes() for path in (other / "work" / "corpus" / table).iterdir()} == mine
        assert not list((other / "work").rglob(".tmp-*"))


@pytest.fixture
def undisturbed(project: "Project", tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Undisturbed:
    return Undisturbed(project, tmp_path, monkeypatch)


def kill_within(root: Path, phase: str, at: int) -> bool:
    """Run until this touch of the file system in a phase; whether it came to that."""
    process = start(root, phase, at)
    said, _ = process.communicate()
    return process.returncode == -signal.SIGKILL and said.endswith(f"died in {phase}")


def kill_by_clock(root: Path, after_s: float) -> bool:
    """Kill so long after the start; whether it was still running."""
    process = start(root)
    assert process.stdout is not None
    process.stdout.readline()
    time.sleep(after_s)
    running = process.poll() is None
    process.kill()
    process.communicate()
    return running


@pytest.mark.slow
def test_build_when_killed_in_every_phase_then_the_result_is_that_of_an_undisturbed_one(
    undisturbed: Undisturbed,
) -> None:
    _, touches = finish(undisturbed.twin("counted"))
    assert set(touches) == set(PHASES)
    other, chance = undisturbed.twin("killed"), random.Random(11)
    for phase in PHASES:  # each run goes on where the one before died
        assert kill_within(other, phase, chance.randint(1, max(1, touches[phase] // 2))), phase
    undisturbed.check(other)


@pytest.mark.soak
def test_build_when_killed_fifty_times_then_each_result_is_that_of_an_undisturbed_one(undisturbed: Undisturbed) -> None:
    _, touches = finish(undisturbed.twin("counted"))
    chance, killed = random.Random(23), dict.fromkeys((*PHASES, "by the clock"), 0)
    turn = 0
    while sum(killed.values()) < 50:
        other = undisturbed.twin(f"killed{turn}")
        for phase in PHASES:
            killed[phase] += kill_within(other, phase, chance.randint(1, touches[phase]))
            if turn % 3 == 0 and phase in ("reading", "looking", "cutting"):
                killed["by the clock"] += kill_by_clock(other, chance.uniform(0, undisturbed.took))
        undisturbed.check(other)
        turn += 1
    print(killed)
    assert min(killed.values()) >= 3
