"""Rewards that can be checked: the exact answer, a regular expression, or the user's own Python function in a process of its own.

The process of a function is limited in time and memory, may write no file, starts no other process, and has no network where the system
lets an ordinary user take it away (Linux with user namespaces). It guards against accidents of answers that are run, and against a
function that hangs; it is no jail for hostile code.
"""

import json
import re
import select
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Literal

from gptwright.core.errors import UserError
from gptwright.core.progress import say
from gptwright.tokens.preferences import Task

RewardKind = Literal["exact", "regex", "python"]
_CHILD = Path(__file__).with_name("reward_child.py")


def exact(tasks: Sequence[Task], answers: Sequence[str]) -> list[float]:
    """1 where an answer is the task's, letters' case and spaces aside; else 0."""
    return [float(_flat(answer) == _flat(task.answer or "")) for task, answer in zip(tasks, answers, strict=True)]


def regex(pattern: str | None = None) -> Callable[[Sequence[Task], Sequence[str]], list[float]]:
    """1 where a pattern is found in an answer; else 0.

    Args:
        pattern: for all tasks; if it has a group, what the group caught must be the task's answer. None: each task's ``answer`` is one.

    Raises:
        UserError: it is no regular expression.
    """
    try:
        compiled = None if pattern is None else re.compile(pattern)
    except re.error as error:
        raise UserError(f"no regular expression: {error}", where="[finetune] reward_pattern") from error

    def judge(task: Task, answer: str) -> float:
        try:
            found = (compiled or re.compile(task.answer or "$^")).search(answer)
        except re.error as error:
            raise UserError(f"the answer is no regular expression: {error}", where=task.uid) from error
        if found is None:
            return 0.0
        return (
            float(_flat(found[1] or "") == _flat(task.answer or ""))
            if compiled is not None and compiled.groups
            else 1.0
        )

    return lambda tasks, answers: [judge(task, answer) for task, answer in zip(tasks, answers, strict=True)]


class PythonReward:
    """``score(prompt, answer, row) -> float`` of a file of the user's, called in a process of its own.

    Args:
        file: Python source that defines ``score``: prompt is the list of messages, answer the drawn text, row the task's whole row.
        timeout_s: for one answer; after it the answer gets 0 and the process is begun anew.
        memory_bytes: that the process may map.

    Use it as a context manager, or ``close`` it.

    Raises:
        UserError: there is no such file.
    """

    def __init__(self, file: Path, timeout_s: float = 5.0, memory_bytes: int = 1 << 30) -> None:
        if not file.is_file():
            raise UserError("no such file", where=str(file), fix="Write score(prompt, answer, row) into it")
        self.file, self.timeout_s, self.memory_bytes = file.resolve(), timeout_s, memory_bytes
        self._child: subprocess.Popen[bytes] | None = None
        self.network: bool | None = None  # whether the process has one; None: not known yet

    def __call__(self, tasks: Sequence[Task], answers: Sequence[str]) -> list[float]:
        """Rewards in order; an answer whose score fails, hangs or is no number gets 0, and it is said.

        Raises:
            UserError: the file cannot be loaded or has no ``score``.
        """
        return [self._score(task, answer) for task, answer in zip(tasks, answers, strict=True)]

    def _score(self, task: Task, answer: str) -> float:
        child = self._child or self._begin()
        assert child.stdin is not None
        try:
            line = json.dumps({"prompt": task.prompt, "answer": answer, "row": task.row}) + "\n"
            child.stdin.write(line.encode())
            child.stdin.flush()
            reply = self._reply(child, self.timeout_s)
        except OSError:
            reply = None
        if reply is None:
            self.close()
            say(f"reward: {task.uid}: no score within {self.timeout_s:g} s, or its process ended; it counts as 0")
            return 0.0
        if "error" in reply:
            say(f"reward: {task.uid}: {reply['error']}; it counts as 0")
            return 0.0
        return float(reply["score"])

    def _begin(self) -> "subprocess.Popen[bytes]":
        # -I: nothing of the environment or the working directory is imported. Time for the start is not the answer's.
        command = [sys.executable, "-I", str(_CHILD), str(self.file), str(self.memory_bytes)]
        child = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, env={}, start_new_session=True)
        self._child = child
        ready = self._reply(child, 30.0)
        if ready is None or "error" in ready:
            self.close()
            raise UserError(
                f"the reward cannot be loaded: {ready['error'] if ready else 'its process ended'}",
                where=str(self.file),
                fix="It needs a function score(prompt, answer, row)",
            )
        if self.network is None and ready["network"]:
            say("reward: this system does not let the network be taken from the function's process")
        self.network = bool(ready["network"])
        return child

    @staticmethod
    def _reply(child: "subprocess.Popen[bytes]", timeout_s: float) -> dict[str, Any] | None:
        assert child.stdout is not None
        # The child writes a reply in one piece, and nothing else: what the function prints goes nowhere.
        if not select.select([child.stdout], [], [], timeout_s)[0]:
            return None
        line = child.stdout.readline()
        return json.loads(line) if line.endswith(b"\n") else None

    def close(self) -> None:
        """End the process."""
        child, self._child = self._child, None
        if child is not None:
            child.kill()
            child.wait()
            for pipe in (child.stdin, child.stdout):
                if pipe is not None:
                    pipe.close()

    def __enter__(self) -> "PythonReward":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _flat(text: str) -> str:
    return " ".join(text.casefold().split())
