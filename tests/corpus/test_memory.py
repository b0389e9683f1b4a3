"""A larger corpus takes longer and no more memory; and hostile files among good ones cost neither memory nor the good files."""

import json
import os
import random
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from tests.peak import PEAK

if TYPE_CHECKING:
    from conftest import Project

pytestmark = [pytest.mark.skipif(os.name == "nt", reason="needs resource.getrusage")]
LIMIT_MB = 2000
# Arguments: project, bytes to which buffers of text are bounded (0: as they are). Prints the peak of the process in MB and the hash.
SCRIPT = (
    PEAK
    + """
import json, sys
from pathlib import Path
from gptwright.core.ledger import Ledger
from gptwright.corpus import docwriter, extract
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig
from gptwright.corpus.dedup import features

root, bound = Path(sys.argv[1]), int(sys.argv[2])
if bound:
    docwriter.OUTPUT_BYTES = docwriter.PACK_BYTES = extract.GROUP_BYTES = features.BATCH_BYTES = bound
with Ledger.open(root / "work" / "ledger.sqlite") as ledger:
    config = CorpusConfig.model_validate({"sources": {"own": {"uri": "data"}}})
    result = build_corpus(config, root=root, out=root / "work" / "corpus", ledger=ledger, workers=1)
print(json.dumps([peak_mb(), result.documents]))
"""
)


def build(root: Path, bound: int) -> tuple[float, int]:
    """Peak memory of a build in a process of its own, in MB, and documents."""
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT, str(root), str(bound)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        check=True,
    )
    peak, documents = json.loads(done.stdout.splitlines()[-1])
    return peak, documents


def write(root: Path, size_bytes: int, each: int) -> None:
    """JSONL files of so many bytes in all: different texts, with copies and the lines of a footer among them."""
    (root / "data").mkdir(parents=True)
    chance = random.Random(size_bytes)
    words = ["".join(chance.choices("abcdefghijklmnopqrstuvwxyz", k=chance.randint(2, 9))) for _ in range(5000)]
    number = total = 0
    while total < size_bytes:
        with open(root / "data" / f"{number:04d}.jsonl", "w") as file:
            own = 0
            while own < each and total < size_bytes:
                lines = [" ".join(chance.choices(words, k=14)).capitalize() + "." for _ in range(20)]
                text = "\n".join([*lines, "This line stands at the foot of every page of this long collection."])
                for _ in range(2 if chance.random() < 0.1 else 1):
                    file.write(json.dumps({"text": text}) + "\n")
                    own += len(text)
                    total += len(text)
        number += 1


def grown(tmp_path: Path, small: int, bound: int) -> None:
    write(tmp_path / "small", small, max(bound, small // 4))
    write(tmp_path / "large", 20 * small, max(bound, small // 4))
    build(tmp_path / "small", bound)  # compiles loops, which takes memory of its own
    for left in (tmp_path / "small" / "work").rglob("*"):
        if left.is_file():
            left.unlink()
    before, few = build(tmp_path / "small", bound)
    after, many = build(tmp_path / "large", bound)
    print(f"{few} documents: {before:.0f} MB; {many} documents: {after:.0f} MB")
    assert many > 19 * few
    assert after < 1.2 * before
    assert after < LIMIT_MB


@pytest.mark.slow
def test_build_when_the_corpus_is_twenty_times_larger_then_memory_is_the_same(tmp_path: Path) -> None:
    grown(tmp_path, 2_000_000, 1 << 19)


@pytest.mark.soak
def test_build_when_two_gigabytes_are_read_then_memory_is_that_of_a_twentieth(tmp_path: Path) -> None:
    grown(tmp_path, 100_000_000, 0)


def _bomb(path: Path) -> None:
    with (
        zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive,
        archive.open("big.txt", "w", force_zip64=True) as out,
    ):
        for _ in range(400):
            out.write(b"\0" * (1 << 20))


def _encodings(project: "Project") -> None:
    text = "Grüße aus Köln: das Wetter bleibt schön, und die Brücke über den Fluss steht weiter offen. " * 3
    project.write("latin.txt", text.encode("cp1252"))
    project.write("sixteen.txt", text.encode("utf-16"))
    project.write("eight.txt", text.encode("utf-8-sig"))
    project.write("cyrillic.txt", ("Река течёт мимо старого города, и мост поёт под ветром. " * 4).encode("cp1251"))


@pytest.mark.slow
def test_build_when_hostile_files_lie_among_good_ones_then_each_has_its_outcome_and_memory_stays_bounded(
    project: "Project",
) -> None:
    for i in range(30):
        project.write(f"good/{i}.txt", project.prose(i, 120))
    (project.data / "empty").mkdir()
    for i in range(20_000):
        (project.data / "empty" / f"{i:05d}.txt").touch()
    (project.data / "loop").mkdir()
    os.symlink("..", project.data / "loop" / "up")
    os.symlink("self.txt", project.data / "self.txt")
    os.symlink("nowhere.txt", project.data / "broken.txt")
    _encodings(project)
    with open(project.data / "line.jsonl", "wb") as file:
        file.write(b'{"text": "')
        file.truncate(300 << 20)  # sparse: one line of zeros
    _bomb(project.data / "bomb.zip")
    locked = project.write("locked.txt", project.prose(99))
    locked.chmod(0)
    peak, documents = build(project.root, 0)
    rows = project.outcomes()
    counts: dict[str, int] = {}
    for outcome, _ in rows.values():
        counts[outcome] = counts.get(outcome, 0) + 1
    assert all(rows[f"good/{i}.txt"][0] == "ok" for i in range(30))
    assert all(rows[name][0] == "ok" for name in ("latin.txt", "sixteen.txt", "eight.txt", "cyrillic.txt"))
    assert counts["empty"] >= 20_000
    for name, said in (("line.jsonl", ""), ("bomb.zip", "unpack")):
        outcome, reason = rows[name]
        assert outcome in ("unreadable", "skipped", "empty"), (name, outcome)
        assert said in str(reason), (name, reason)
    assert rows["locked.txt"][0] == ("unreadable" if os.geteuid() else "ok")
    for name in ("self.txt", "broken.txt", "loop/up"):
        assert rows[name][0] in ("unreadable", "skipped"), (name, rows.get(name))
    assert not any(name.startswith("loop/up/") for name in rows)
    assert documents >= 33
    assert peak < LIMIT_MB


def test_build_when_a_folder_goes_while_it_is_listed_then_that_is_said_and_the_rest_is_read(
    project: "Project", monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    from gptwright.corpus import extract

    project.write("stays/a.txt", project.prose(1))
    project.write("goes/b.txt", project.prose(2))
    real = extract.hash_files

    def late(*args: Any) -> Any:
        shutil.rmtree(project.data / "goes", ignore_errors=True)
        return real(*args)

    monkeypatch.setattr(extract, "hash_files", late)
    result = project.build()
    assert result.documents == 1
    assert project.outcomes()["goes/b.txt"] == ("unreadable", "No such file or directory")
