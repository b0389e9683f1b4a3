"""What every verb shares: the four common options, one form of output, errors as one line and an exit code.

A verb is a plain function that takes a ``Call`` and its own options, and returns an ``Answer``. It parses, calls, and returns;
printing is done here.
"""

import functools
import inspect
import json
import os
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from gptwright.core import launch
from gptwright.core.errors import GptwrightError, UserError
from gptwright.core.files import disk_full, says_disk_is_full
from gptwright.core.progress import say, set_quiet

if TYPE_CHECKING:
    from gptwright.project.project import Project


@dataclass(frozen=True)
class Call:
    """The common options of one invocation."""

    directory: Path | None
    json: bool
    quiet: bool
    overrides: tuple[str, ...]

    def project(self) -> "Project":
        """The project that the verb is about."""
        from gptwright.project.project import Project

        return Project.open(self.directory, overrides=self.overrides)


@dataclass(frozen=True)
class Answer:
    """A verb's result: data for ``--json``, text for a person, and the exit code."""

    data: Any
    text: str = ""
    code: int = 0


_COMMON: tuple[tuple[str, Any, Any], ...] = (
    (
        "project",
        Annotated[Path | None, typer.Option("--project", metavar="DIR", help="Project folder [nearest upward].")],
        None,
    ),
    ("json", Annotated[bool, typer.Option("--json", help="Machine-readable result on stdout.")], False),
    ("quiet", Annotated[bool, typer.Option("--quiet", help="No progress or messages.")], False),
    ("set", Annotated[list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Override a setting.")], None),
)

Verb = Callable[..., Answer]
_TOGETHER = ("run", "pretrain", "finetune")  # verbs for several processes


def verb(app: typer.Typer, name: str, examples: Sequence[str], **settings: Any) -> Callable[[Verb], Verb]:
    """Register a function as a verb of ``app``.

    Args:
        name: as it is typed.
        examples: two runnable command lines for the end of ``--help``.
    """

    def register(function: Verb) -> Verb:
        own = list(inspect.signature(function).parameters.values())[1:]
        common = [
            inspect.Parameter(n, inspect.Parameter.KEYWORD_ONLY, annotation=annotation, default=default)
            for n, annotation, default in _COMMON
        ]

        @functools.wraps(function)
        def entry(*args: Any, **kwargs: Any) -> None:
            call = Call(kwargs.pop("project"), kwargs.pop("json"), kwargs.pop("quiet"), tuple(kwargs.pop("set") or ()))
            set_quiet(call.quiet or not launch.is_main())
            if launch.size() > 1 and name not in _TOGETHER:
                raise typer.Exit(run_verb(call, functools.partial(_alone, name)))
            raise typer.Exit(run_verb(call, lambda: function(call, *args, **kwargs)))

        hints = {p.name: p.annotation for p in own}
        entry.__signature__ = inspect.Signature([*own, *common])  # type: ignore[attr-defined]
        entry.__annotations__ = {**hints, **{n: annotation for n, annotation, _ in _COMMON}}
        epilog = _examples(examples)
        # Given, it wraps in a list of verbs; taken from the docstring, it would be cut.
        settings.setdefault(
            "short_help", (function.__doc__ or "").partition("\n")[0].partition(". ")[0].rstrip(".") + "."
        )
        app.command(name, epilog=epilog, **settings)(entry)
        return function

    return register


def run_verb(call: Call, function: Callable[[], Answer]) -> int:
    """Run a verb and print what came of it. Returns the exit code."""
    try:
        answer = function()
        if not launch.is_main():
            return answer.code
        if call.json:
            print(json.dumps(answer.data, ensure_ascii=False, indent=2, default=str))
        elif answer.text:
            print(answer.text.rstrip("\n"))
        sys.stdout.flush()
        return answer.code
    except GptwrightError as error:
        return _fail(call, str(error), error.exit_code)
    except KeyboardInterrupt:
        return _fail(call, "Interrupted. Run the same command again to continue", 130)
    except BrokenPipeError:
        # The reader (head, less) has gone; Python would complain once more when it closes stdout.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        if os.environ.get("GPTWRIGHT_TRACEBACK"):
            raise
        if says_disk_is_full(error):
            return _fail(call, str(disk_full()), 2)
        return _fail(
            call,
            f"{type(error).__name__}: {error}\nThis is our fault. GPTWRIGHT_TRACEBACK=1 shows where it happened.",
            1,
        )


def _alone(name: str) -> Answer:
    raise UserError(f"{name} is the work of one process", fix="Run it without torchrun")


def _fail(call: Call, message: str, code: int) -> int:
    if not launch.is_main():
        message = f"process {launch.rank()}: {message}"
    elif call.json:
        print_error(message, code)
    print(f"gptwright: {message}", file=sys.stderr, flush=True)
    return code


def print_error(message: str, code: int) -> None:
    """An error as the one JSON value that ``--json`` promises."""
    print(json.dumps({"error": {"message": message, "exit_code": code}}, ensure_ascii=False))


def group(help: str, examples: Sequence[str] = ()) -> typer.Typer:
    """A group of verbs, such as ``data``."""
    epilog = _examples(examples) if examples else None
    return typer.Typer(help=help, no_args_is_help=True, rich_markup_mode=None, add_completion=False, epilog=epilog)


def _examples(lines: Sequence[str]) -> str:
    return "\b\nExamples:\n" + "\n".join(f"  {line}" for line in lines)


def shorten(text: str, width: int) -> str:
    """A text that is too wide for its column, with its end cut off and marked."""
    return text if len(text) <= width else text[: width - 1] + "…"


@dataclass
class Table:
    """A table for people: columns as wide as their content, numbers to the right."""

    heads: Sequence[str]
    rows: list[Sequence[Any]] = field(default_factory=list)

    def add(self, *cells: Any) -> None:
        """Add a row; None prints as nothing."""
        self.rows.append(cells)

    def __str__(self) -> str:
        cells = [[("" if c is None else str(c)) for c in row] for row in [self.heads, *self.rows]]
        widths = [max(len(row[i]) for row in cells) for i in range(len(self.heads))]
        right = [
            bool(self.rows) and all(isinstance(row[i], int | float) for row in self.rows)
            for i in range(len(self.heads))
        ]
        lines = [
            "  ".join(c.rjust(w) if r else c.ljust(w) for c, w, r in zip(row, widths, right, strict=True)).rstrip()
            for row in cells
        ]
        return "\n".join(lines)


__all__ = ["Answer", "Call", "Table", "group", "print_error", "run_verb", "say", "shorten", "verb"]
