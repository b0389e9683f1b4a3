"""Files of preferences and of tasks, as people and other tools write them: which answer is better, which is good, what is right.

JSON Lines, or a JSON list. Every row is read or named in a fault. Shapes, the prompt a text or a list of messages:

    {"prompt", "chosen", "rejected"}                      TRL; without "prompt" the two conversations share their beginning
    {"input": {"messages"}, "preferred_output", "non_preferred_output"}      OpenAI
    {"prompt", "completion", "label": true}               TRL's KTO; a pair counts as a good and a bad answer
    {"prompt", "answer"}                                  a task; "answer" may be missing when a function is to judge
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

from gptwright.core.errors import UserError

Message = dict[str, Any]
_MOST_FAULTS = 1000


@dataclass(frozen=True)
class Pair:
    """Messages of a prompt, and two continuations of it. ``uid`` is the file and the line."""

    uid: str
    prompt: list[Message]
    chosen: list[Message]
    rejected: list[Message]


@dataclass(frozen=True)
class Judged:
    """Messages of a prompt, one continuation, and whether it is good."""

    uid: str
    prompt: list[Message]
    answer: list[Message]
    good: bool


@dataclass(frozen=True)
class Task:
    """Messages of a prompt, the right answer if there is one, and the whole row for a function that judges."""

    uid: str
    prompt: list[Message]
    answer: str | None
    row: dict[str, Any]


T = TypeVar("T")


@dataclass(frozen=True)
class Found(Generic[T]):
    """What a file holds, and what is wrong with the rows that cannot be used ("file:line: what")."""

    rows: list[T] = field(default_factory=list)
    faults: list[str] = field(default_factory=list)


def read_pairs(path: str | Path) -> Found[Pair]:
    """Read pairs of a better and a worse answer.

    Raises:
        UserError: no such file, not JSON Lines, or no row can be used (the first fault is told).
    """
    return _read(Path(path), lambda row, uid: [_pair(row, uid)], '{"prompt", "chosen", "rejected"}')


def read_judged(path: str | Path) -> Found[Judged]:
    """Read answers that are good or bad; a pair is one of each.

    Raises:
        UserError: as ``read_pairs``.
    """

    def judged(row: dict[str, Any], uid: str) -> list[Judged]:
        if "label" not in row:
            pair = _pair(row, uid)
            return [Judged(uid, pair.prompt, pair.chosen, True), Judged(uid, pair.prompt, pair.rejected, False)]
        if not isinstance(row["label"], bool) and row["label"] not in (0, 1):
            raise ValueError(f"label is {row['label']!r}, not true or false")
        return [
            Judged(uid, _prompt(row.get("prompt")), _answer(row.get("completion"), "completion"), bool(row["label"]))
        ]

    return _read(Path(path), judged, '{"prompt", "completion", "label"}')


def read_tasks(path: str | Path) -> Found[Task]:
    """Read tasks whose answers can be checked.

    Raises:
        UserError: as ``read_pairs``.
    """

    def task(row: dict[str, Any], uid: str) -> list[Task]:
        answer = row.get("answer")
        text = answer if answer is None or isinstance(answer, str) else json.dumps(answer, ensure_ascii=False)
        return [Task(uid, _prompt(row.get("prompt")), text, row)]

    return _read(Path(path), task, '{"prompt", "answer"}')


def _pair(row: dict[str, Any], uid: str) -> Pair:
    if "preferred_output" in row:
        given = row.get("input")
        prompt = given.get("messages") if isinstance(given, Mapping) else None
        better, worse = row["preferred_output"], row.get("non_preferred_output")
    else:
        prompt, better, worse = row.get("prompt"), row.get("chosen"), row.get("rejected")
    if prompt is None and isinstance(better, list) and isinstance(worse, list):
        same = 0
        while same < min(len(better), len(worse)) and better[same] == worse[same]:
            same += 1
        prompt, better, worse = better[:same], better[same:], worse[same:]
    pair = Pair(uid, _prompt(prompt), _answer(better, "chosen"), _answer(worse, "rejected"))
    if pair.chosen == pair.rejected:
        raise ValueError("both answers are the same")
    return pair


def _prompt(value: Any) -> list[Message]:
    if isinstance(value, str) and value.strip():
        return [{"role": "user", "content": value}]
    messages = _messages(value, "prompt")
    if messages[-1].get("role") == "assistant":
        raise ValueError("the prompt ends with the assistant's words")
    return messages


def _answer(value: Any, name: str) -> list[Message]:
    if isinstance(value, str) and value.strip():
        return [{"role": "assistant", "content": value.strip()}]
    messages = _messages(value, name)
    if not any(message.get("role") == "assistant" for message in messages):
        raise ValueError(f"{name} has no turn of the assistant")
    return messages


def _messages(value: Any, name: str) -> list[Message]:
    if not isinstance(value, list) or not value:
        raise ValueError(f"{name} is missing, empty, or neither a text nor a list of messages")
    for message in value:
        if not isinstance(message, dict) or not isinstance(message.get("role"), str):
            raise ValueError(f"{name} has a message without a role")
    return value


def _read(path: Path, parse: Callable[[dict[str, Any], str], list[T]], shape: str) -> Found[T]:
    found: Found[T] = Found()
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="Name a JSON Lines file")
    for number, row in _rows(path):
        uid = f"{path.name}:{number}"
        try:
            if isinstance(row, ValueError):
                raise row
            if not isinstance(row, dict):
                raise ValueError("not an object")
            found.rows.extend(parse(row, uid))
        except ValueError as error:
            if len(found.faults) < _MOST_FAULTS:
                found.faults.append(f"{uid}: {error}")
    if not found.rows:
        first = f"; the first fault: {found.faults[0]}" if found.faults else ""
        raise UserError(f"no row can be used{first}", where=str(path), fix=f"Write {shape} a line")
    return found


def _rows(path: Path) -> list[tuple[int, Any]]:
    """Rows with their line numbers (of a JSON list: their places); a broken line is the error itself."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 ({error.reason})", where=str(path), fix="Save it as UTF-8") from error
    if text.lstrip().startswith("["):
        try:
            return list(enumerate(json.loads(text), start=1))
        except json.JSONDecodeError as error:
            raise UserError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}") from error
    rows: list[tuple[int, Any]] = []
    for number, line in enumerate(text.split("\n"), start=1):
        if line.strip():
            try:
                rows.append((number, json.loads(line)))
            except json.JSONDecodeError as error:
                rows.append((number, ValueError(f"not valid JSON: {error.msg}")))
    return rows
