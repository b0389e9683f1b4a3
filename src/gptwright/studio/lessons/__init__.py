"""Lessons on the user's own model: tokens, attention, loss, sampling. Each computes on the weights that answer in chat.

A lesson shows one idea, then asks a question whose answer is measured on the same tensors. Importing this is light; a lesson loads the
model when it runs.
"""

import difflib
import importlib
import shlex
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError

if TYPE_CHECKING:
    from gptwright.project.project import Project


@dataclass(frozen=True)
class Lesson:
    """A lesson.

    Args:
        name: as it is typed.
        summary: what one sees, in a line.
        page: its page in the documentation.
    """

    name: str
    summary: str
    page: str


_LESSONS = (
    Lesson(
        "tokens",
        "how text becomes numbers: pieces, bytes, merges, what the vocabulary learnt",
        "docs/lessons/tokens.md",
    ),
    Lesson(
        "attention", "which earlier tokens each head looks at, and what kind of head it is", "docs/lessons/attention.md"
    ),
    Lesson("loss", "how surprised the model is by each token, in bits, beside simpler guesses", "docs/lessons/loss.md"),
    Lesson(
        "sampling",
        "the odds of the next token, and what temperature, top-k and top-p do to them",
        "docs/lessons/sampling.md",
    ),
)


def lessons() -> list[Lesson]:
    """All lessons, in the order to take them."""
    return list(_LESSONS)


def open_lesson(
    project: "Project | None", name: str, *, text: str | None = None, answer: float | None = None
) -> tuple[dict[str, Any], str]:
    """Work through a lesson on the project's model: production, else the newest.

    Args:
        project: whose model.
        name: tokens, attention, loss or sampling.
        text: the sentence to look at; None takes the lesson's own.
        answer: an answer to the lesson's question; then only the verdict comes back.

    Returns:
        What was computed, and the same as text for a terminal.

    Raises:
        UserError: no such lesson, or there is no model yet.
    """
    names = [lesson.name for lesson in _LESSONS]
    if name not in names:
        near = difflib.get_close_matches(name, names, n=2, cutoff=0.4)
        fix = f"The nearest: {', '.join(near)}" if near else f"Lessons are: {', '.join(names)}"
        raise UserError(f"no such lesson: {name}", fix=fix)
    if project is None:
        raise UserError(
            "a lesson looks at your own model, and there is no project here",
            fix="Give --project DIR, or make one: gptwright new my-gpt",
        )
    from gptwright.project.models import locate

    folder = locate(project, None).path
    module = importlib.import_module(f"gptwright.studio.lessons.{name}")
    sentence = module.TEXT if text is None else text
    if answer is not None:
        verdict = module.check(answer, folder, sentence)
        return {"lesson": name, "model": folder.name, **vars(verdict)}, verdict.text
    data, shown = module.run(folder, sentence)
    own = "" if text is None else f" --text {shlex.quote(text)}"
    command = f"gptwright learn {name}{own} --answer NUMBER"
    return {"lesson": name, "model": folder.name, **data}, f"{shown}\n\nCheck your answer:\n  {command}"
