"""The user's own questions: read from JSONL, CSV or TOML, asked, and marked right or wrong with an interval.

A question has ``question``, ``answer`` (or ``answers``), ``kind`` (exact, contains, regex, choice) and, for choice, ``choices``.
"""

import csv
import json
import re
import tomllib
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_file
from gptwright.evaluate.statistics import Comparison, Share, compare_correct, mde_correct, wilson

Messages = list[dict[str, str]]
Generate = Callable[[Sequence[Messages]], Sequence[str]]
"""Conversations in, one reply each out, in order. The caller decides on batching and sampling (greedy, so that a rerun agrees)."""

KINDS = ("exact", "contains", "regex", "choice")
_FIELDS = {"id", "question", "answer", "answers", "kind", "choices"}
_LETTERS = "ABCDEFGHIJ"
_SHOWN_FAULTS = 20
_REPLY_LIMIT = 10_000  # characters looked at: bounds the time of a user's regular expression


@dataclass(frozen=True)
class Question:
    """One question. ``answers`` are alternatives; any of them is right."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str
    choices: tuple[str, ...] = ()

    @property
    def prompt(self) -> str:
        """What the model is asked; choices are lettered."""
        if not self.choices:
            return self.question
        options = "\n".join(f"{letter}. {choice}" for letter, choice in zip(_LETTERS, self.choices, strict=False))
        return f"{self.question}\n{options}\nAnswer with the letter."


@dataclass(frozen=True)
class Answered:
    """A question, the reply, and whether it was right."""

    id: str
    question: str
    answers: tuple[str, ...]
    kind: str
    reply: str
    correct: bool


@dataclass(frozen=True)
class QuestionReport:
    """All answers to a file of questions. ``mde`` is the smallest difference between two models that this file could show."""

    path: str
    hash: str
    items: tuple[Answered, ...]
    accuracy: Share
    by_kind: dict[str, Share]
    chance: float | None
    mde: float

    def to_detail(self) -> dict[str, Any]:
        """For ``ledger.add_evaluation(detail=...)``."""
        return {**asdict(self), "items": [asdict(item) for item in self.items]}


def own_questions(path: str | Path, generate: Generate) -> QuestionReport:
    """Ask every question of a file and mark the replies.

    Args:
        path: the user's ``.jsonl``, ``.csv`` or ``.toml`` file.
        generate: conversations to replies.

    Raises:
        UserError: the file has faults; all of them are listed with their line.
    """
    questions = read_questions(path)
    replies = generate([[{"role": "user", "content": question.prompt}] for question in questions])
    if len(replies) != len(questions):
        raise ValueError(f"{len(questions)} questions got {len(replies)} replies")
    items = tuple(
        Answered(q.id, q.question, q.answers, q.kind, reply, mark(q, reply))
        for q, reply in zip(questions, replies, strict=True)
    )
    by_kind = {
        kind: _share([item for item in items if item.kind == kind])
        for kind in KINDS
        if any(q.kind == kind for q in questions)
    }
    choices = [1 / len(q.choices) for q in questions if q.choices]
    # Two models usually disagree on a good part of the questions; three in ten is taken for the forecast.
    return QuestionReport(
        str(path), b2_file(path), items, _share(items), by_kind, sum(choices) / len(choices) if choices else None, mde_correct(len(items), 0.3)
    )  # fmt: skip


def compare_questions(a: QuestionReport, b: QuestionReport, *, seed: int = 0) -> Comparison:
    """Exact McNemar test of two models on the same file of questions.

    Raises:
        UserError: the files differ.
    """
    if a.hash != b.hash:
        raise UserError(
            "the two models answered different files of questions", where=a.path, fix="Evaluate both on the same file"
        )
    return compare_correct([item.correct for item in a.items], [item.correct for item in b.items], seed=seed)


def mark(question: Question, reply: str) -> bool:
    """Whether a reply answers the question."""
    reply = reply[:_REPLY_LIMIT]
    if question.kind == "regex":
        return any(re.search(answer, reply) for answer in question.answers)
    said = _plain(reply)
    if question.kind == "exact":
        return any(said == _plain(answer) for answer in question.answers)
    if question.kind == "choice":
        return _chosen(question, reply) in question.answers
    return any(_within(_plain(answer), said) for answer in question.answers)


def read_questions(path: str | Path) -> list[Question]:
    """Read and check a file of questions.

    Raises:
        UserError: it is missing, of an unknown type, empty, or has faulty rows; every fault names its row.
    """
    file = Path(path)
    readers = {".jsonl": _jsonl, ".ndjson": _jsonl, ".csv": _csv, ".toml": _toml}
    reader = readers.get(file.suffix.lower())
    if reader is None:
        raise UserError(
            f"questions in {file.suffix or 'a file without an ending'} are not read",
            where=str(file),
            fix="Use .jsonl, .csv or .toml",
        )
    try:
        text = file.read_text(encoding="utf-8-sig")
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(file)) from error
    except UnicodeDecodeError as error:
        raise UserError(f"not UTF-8 at byte {error.start}", where=str(file), fix="Save it as UTF-8") from error
    faults: list[str] = []
    questions: list[Question] = []
    seen: set[str] = set()
    for where, row in reader(text, faults, str(file)):
        found = _question(row, len(questions) + 1)
        if isinstance(found, str):
            faults.append(f"{where}: {found}")
        elif found.id in seen:
            faults.append(f"{where}: the id {found.id} was used before")
        else:
            seen.add(found.id)
            questions.append(found)
    if faults:
        more = f"\n  and {len(faults) - _SHOWN_FAULTS} more" if len(faults) > _SHOWN_FAULTS else ""
        count = f"{len(faults)} faulty row" + ("s" if len(faults) > 1 else "")
        raise UserError(f"{count}:\n  " + "\n  ".join(faults[:_SHOWN_FAULTS]) + more, where=str(file))
    if not questions:
        raise UserError(
            "no questions in it",
            where=str(file),
            fix='A line looks like {"question": "Capital of France?", "answer": "Paris"}',
        )
    return questions


Rows = list[tuple[str, Any]]


def _jsonl(text: str, faults: list[str], _where: str) -> Rows:
    rows: Rows = []
    for number, line in enumerate(text.split("\n"), 1):
        if line.strip():
            try:
                rows.append((f"line {number}", json.loads(line)))
            except json.JSONDecodeError as error:
                faults.append(f"line {number}: not JSON ({error.msg} at column {error.colno})")
    return rows


def _csv(text: str, faults: list[str], where: str) -> Rows:
    reader = csv.DictReader(text.splitlines(keepends=True), strict=True)
    rows: Rows = []
    try:
        for row in reader:
            if None in row:
                faults.append(f"line {reader.line_num}: more cells than the header has")
                continue
            filled: dict[str, Any] = {key: value for key, value in row.items() if value not in (None, "")}
            for key in ("answers", "choices"):  # several values stand in one cell, between bars
                if key in filled:
                    filled[key] = [part.strip() for part in str(filled[key]).split("|")]
            rows.append((f"line {reader.line_num}", filled))
    except csv.Error as error:
        raise UserError(f"not valid CSV: {error}", where=f"{where}:{reader.line_num}") from error
    return rows


def _toml(text: str, faults: list[str], where: str) -> Rows:
    try:
        data = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise UserError(f"not valid TOML: {error}", where=where) from error
    rows = data.get("questions")
    if not isinstance(rows, list):
        raise UserError("no [[questions]] in it", where=where, fix="Write each question as a [[questions]] table")
    return [(f"question {number}", row) for number, row in enumerate(rows, 1)]


def _question(row: Any, number: int) -> Question | str:
    """A question, or what is wrong with the row."""
    if not isinstance(row, Mapping):
        return "not an object with question and answer"
    if unknown := sorted(set(row) - _FIELDS):
        return f"unknown field {unknown[0]}; known are {', '.join(sorted(_FIELDS))}"
    text = row.get("question")
    if not isinstance(text, str) or not text.strip():
        return "no question"
    if "answer" in row and "answers" in row:
        return "both answer and answers"
    given = row.get("answers", row.get("answer"))
    answers = list(given) if isinstance(given, list | tuple) else [given]
    answers = [str(a) if isinstance(a, int | float) and not isinstance(a, bool) else a for a in answers]
    if not answers or not all(isinstance(a, str) and a.strip() for a in answers):
        return "no answer"
    choices = row.get("choices", ())
    kind = row.get("kind", "choice" if choices else "contains")
    if kind not in KINDS:
        return f"kind {kind!r} is not one of {', '.join(KINDS)}"
    if (kind == "choice") != bool(choices):
        return "choice needs choices" if kind == "choice" else f"choices are given, but the kind is {kind}"
    if kind == "choice":
        if (
            not isinstance(choices, list)
            or not all(isinstance(c, str) for c in choices)
            or not 2 <= len(choices) <= len(_LETTERS)
        ):
            return f"choices must be 2 to {len(_LETTERS)} texts"
        letters = dict(zip(_LETTERS, choices, strict=False))
        answers = [a if a in choices else letters.get(a.strip().upper(), a) for a in answers]
        if wrong := [a for a in answers if a not in choices]:
            return f"the answer {wrong[0]!r} is not among the choices"
    if kind == "regex":
        for answer in answers:
            try:
                re.compile(answer)
            except re.error as error:
                return f"not a regular expression: {answer!r} ({error})"
    elif any(not _plain(a) for a in answers) and kind != "choice":
        return "an answer without a letter or digit; use kind regex for it"
    return Question(str(row.get("id", number)), text, tuple(answers), kind, tuple(choices))


def _plain(text: str) -> str:
    """Case, accents' encoding, outer punctuation and spacing do not matter."""
    folded = " ".join(unicodedata.normalize("NFKC", text).casefold().split())
    return re.sub(r"^[^\w]+|[^\w%]+$", "", folded)


def _within(needle: str, text: str) -> bool:
    return re.search(rf"(?<!\w){re.escape(needle)}(?!\w)", text) is not None


def _chosen(question: Question, reply: str) -> str | None:
    """The choice that a reply names: by its letter first, else the only choice whose text is in it."""
    letters = _LETTERS[: len(question.choices)]
    text = reply.strip()
    if len(_plain(text)) == 1 and _plain(text).upper() in letters:
        return question.choices[letters.index(_plain(text).upper())]
    # A capital that opens the reply, unless a small word follows: "A dog barks" and "I think so" name no letter.
    if found := re.match(rf"(?:\W*(?i:the answer is|answer|option)\W+)?\W*([{letters}])(?![\w'’])(?! [a-z])", text):
        return question.choices[letters.index(found[1])]
    said = _plain(reply)
    named = [choice for choice in question.choices if _plain(choice) and _within(_plain(choice), said)]
    longest = [c for c in named if not any(c != other and _within(_plain(c), _plain(other)) for other in named)]
    return longest[0] if len(longest) == 1 else None


def _share(items: Sequence[Answered]) -> Share:
    return wilson(sum(item.correct for item in items), len(items))
