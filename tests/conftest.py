"""A project so small that the whole way takes seconds, made once a session; and the command, in this process or in its own."""

import contextlib
import io
import json
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

# A process that a test spawns imports the test's module by its name, which begins at the repository's root.
sys.path.append(str(Path(__file__).parents[1]))

from tests import databases

postgres, migrated, control = databases.postgres, databases.migrated, databases.control

SUBJECTS = [
    "the cat",
    "a dog",
    "my aunt",
    "the baker",
    "our teacher",
    "a small bird",
    "the old man",
    "her brother",
    "the river",
    "a farmer",
    "the captain",
]
VERBS = [
    "looked at",
    "walked to",
    "painted",
    "liked",
    "carried",
    "forgot",
    "bought",
    "repaired",
    "remembered",
    "lost",
    "found",
    "described",
]
OBJECTS = [
    "the green house",
    "a warm bread",
    "the long road",
    "an old clock",
    "the blue boat",
    "a letter",
    "the market",
    "some apples",
    "a new song",
]
TIMES = [
    "in the morning",
    "after lunch",
    "on Sunday",
    "last winter",
    "before the rain",
    "at night",
    "every day",
    "in silence",
]

TOML = """\
# A tiny project.
[project]
name = "tiny"

[corpus.sources.mine]
uri = "data"
license = "LicenseRef-own"

[tokenizer]
vocab_size = 300

[model]
depth = 1
seq_len = 64

[pretrain]
max_steps = 6
batch_tokens = 256
checkpoint_every = 2
compile = "off"
dtype = "float32"

[finetune]
max_steps = 3
batch_tokens = 256
compile = "off"
dtype = "float32"

[evaluate]
samples = ["What happened to the cat?"]

[refresh]
max_steps = 6
"""


def sentence(draw: random.Random) -> str:
    """A readable sentence of few words, so that a tiny vocabulary can hold them."""
    return f"{draw.choice(SUBJECTS)} {draw.choice(VERBS)} {draw.choice(OBJECTS)} {draw.choice(TIMES)}.".capitalize()


def note(seed: int, sentences: int = 12) -> str:
    """A short document for a number."""
    draw = random.Random(seed)
    return f"Note {seed}. " + " ".join(sentence(draw) for _ in range(sentences)) + "\n"


def chat(seed: int, turns: int = 2) -> dict[str, Any]:
    """A conversation for a number, as OpenAI messages."""
    draw = random.Random(10_000 + seed)
    messages = []
    for _ in range(turns):
        messages += [
            {"role": "user", "content": f"What happened to {draw.choice(SUBJECTS)}?"},
            {"role": "assistant", "content": sentence(draw)},
        ]
    return {"messages": messages}


def write_chats(path: Path, seeds: Sequence[int]) -> None:
    """Conversations as JSON lines."""
    path.write_text("".join(json.dumps(chat(seed)) + "\n" for seed in seeds), encoding="utf-8")


@dataclass(frozen=True)
class Tiny:
    """The tiny project's parts, for tests that build their own."""

    toml: str = TOML
    note: Callable[..., str] = note
    chat: Callable[..., dict[str, Any]] = chat
    write_chats: Callable[[Path, Sequence[int]], None] = write_chats

    @staticmethod
    def make(root: Path, *, notes: int = 60, chats: int = 40, toml: str = TOML) -> Path:
        """A project folder with generated texts and nothing made of them."""
        data = root / "data"
        data.mkdir(parents=True)
        for seed in range(notes):
            (data / f"note-{seed:02}.txt").write_text(note(seed), encoding="utf-8")
        if chats:
            write_chats(data / "chats.jsonl", range(chats))
        (root / "gptwright.toml").write_text(toml, encoding="utf-8")
        return root


@dataclass(frozen=True)
class Outcome:
    """What a command did."""

    code: int
    out: str
    err: str
    arguments: tuple[str, ...] = field(default=())

    def ok(self) -> "Outcome":
        """Itself, if it ended well."""
        assert self.code == 0, f"gptwright {' '.join(self.arguments)} ended with {self.code}\n{self.out}\n{self.err}"
        return self

    @property
    def json(self) -> Any:
        """The one JSON value on stdout."""
        return json.loads(self.out)


def run_here(*arguments: str, stdin: str = "", cwd: Path | None = None) -> Outcome:
    """``gptwright ARGUMENTS`` in this process: fast, since torch is loaded once."""
    from gptwright.cli.main import main
    from gptwright.core.progress import set_quiet

    out, err, former = io.StringIO(), io.StringIO(), (sys.stdin, Path.cwd())
    sys.stdin = io.StringIO(stdin)
    try:
        if cwd is not None:
            os.chdir(cwd)
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            code = main(list(arguments))
    finally:
        sys.stdin = former[0]
        os.chdir(former[1])
        set_quiet(False)
    return Outcome(code, out.getvalue(), err.getvalue(), arguments)


def environment(**more: str) -> dict[str, str]:
    """For a process of its own: two threads, no buffering, no colours."""
    return {**os.environ, "OMP_NUM_THREADS": "2", "PYTHONUNBUFFERED": "1", "NO_COLOR": "1", **more}


def _hear_ctrl_c() -> None:
    """A suite that runs in the background ignores SIGINT, and its children would too."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


def start(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, **options: Any
) -> "subprocess.Popen[str]":
    """``gptwright ARGUMENTS`` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, "-m", "gptwright", *arguments],
        cwd=cwd,
        env=dict(env or environment()),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        encoding="utf-8",
        preexec_fn=_hear_ctrl_c if os.name == "posix" else None,
        **options,
    )


class Command:
    """The ``gptwright`` command: called, it runs here; ``alone`` and ``start`` take a process of its own."""

    @staticmethod
    def alone(*arguments: str, timeout: float = 120, **options: Any) -> Outcome:
        """In a process of its own, to its end."""
        with start(*arguments, **options) as process:
            out, err = process.communicate(timeout=timeout)
        return Outcome(process.returncode, out, err, arguments)

    @staticmethod
    def start(*arguments: str, **options: Any) -> "subprocess.Popen[str]":
        """In a process of its own, not waited for."""
        return start(*arguments, **options)

    @staticmethod
    def environment(**more: str) -> dict[str, str]:
        """Variables for such a process."""
        return environment(**more)

    def __call__(self, *arguments: str, stdin: str = "", cwd: Path | None = None) -> Outcome:
        return run_here(*arguments, stdin=stdin, cwd=cwd)


@pytest.fixture(autouse=True)
def _threads_stay() -> Iterator[None]:
    """Bits depend on the number of threads; a test that changes it must not change the next one's."""
    torch = sys.modules.get("torch")
    before = torch.get_num_threads() if torch else None
    yield
    if before is not None:
        sys.modules["torch"].set_num_threads(before)


@pytest.fixture(scope="session")
def tiny() -> Tiny:
    """How to make a tiny project."""
    return Tiny()


@pytest.fixture(scope="session")
def gptwright() -> Command:
    """How to call the command."""
    return Command()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory, gptwright: Command) -> Path:
    """A tiny project that ran the whole way, its model promoted. Shared: look, do not touch."""
    root = Tiny.make(tmp_path_factory.mktemp("finished") / "tiny")
    place = ("--project", str(root), "--json")
    gptwright("run", *place).ok()
    gptwright("release", "promote", gptwright("release", "list", *place).json["releases"][0]["model"], *place).ok()
    return root


@pytest.fixture
def copy(finished: Path, tmp_path: Path) -> Path:
    """A copy of the finished project, to change at will."""
    target = tmp_path / "tiny"
    shutil.copytree(finished, target)
    return target
