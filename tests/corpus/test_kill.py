"""A build that is killed at any moment and started again ends as if nothing had happened."""

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
from gptwright.corpus.view import documents

if TYPE_CHECKING:
    from conftest import Project

SCRIPT = """
import sys
from pathlib import Path
from gptwright.core.ledger import Ledger
from gptwright.corpus import extract
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig

extract.GROUP_BYTES = 20_000
root = Path(sys.argv[1])
print("ready", flush=True)
with Ledger.open(root / "work" / "ledger.sqlite") as ledger:
    config = CorpusConfig.model_validate({"sources": {"own": {"uri": "data"}}})
    print(build_corpus(config, root=root, out=root / "work" / "corpus", ledger=ledger, workers=1).hash)
"""


def start(root: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(root)], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
    )


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="needs SIGKILL")
def test_build_when_killed_at_random_moments_then_the_result_is_that_of_an_undisturbed_one(
    project: "Project", tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for i in range(120):
        project.write(f"{i:03d}.txt", project.prose(i, 400) + " Mail a@b.org, please.")
    chats = [
        {"messages": [{"role": "user", "content": project.prose(i)}, {"role": "assistant", "content": "Yes."}]}
        for i in range(50)
    ]
    project.write("chats.jsonl", "\n".join(map(json.dumps, chats)))
    monkeypatch.setattr(extract, "GROUP_BYTES", 20_000)
    before = time.monotonic()
    undisturbed = project.build(workers=1)
    took = time.monotonic() - before
    other = tmp_path / "killed"
    other.mkdir()
    os.symlink(project.data, other / "data")
    chance = random.Random(7)
    killed = 0
    for _ in range(8):
        process = start(other)
        assert process.stdout is not None
        process.stdout.readline()
        time.sleep(chance.uniform(0, 1.5 * took))
        if process.poll() is None:
            process.send_signal(signal.SIGKILL)
            killed += 1
        process.communicate()
    assert killed >= 3, "the kills came too late to prove anything"
    last, _ = start(other).communicate()
    assert last.split()[-1] == undisturbed.hash
    with Ledger.open(other / "work" / "ledger.sqlite") as ledger:
        assert [vars(row) for row in ledger.files()] == [vars(row) for row in project.ledger.files()]
    assert list(documents(other / "work" / "corpus")) == list(documents(project.out))
    for table in ("docs", "signals", "edits", "decisions"):
        names = sorted(path.name for path in (project.out / table).iterdir())
        assert sorted(path.name for path in (other / "work" / "corpus" / table).iterdir()) == names
        for name in names:
            assert (other / "work" / "corpus" / table / name).read_bytes() == (project.out / table / name).read_bytes()
    assert not list((other / "work").rglob(".tmp-*"))
