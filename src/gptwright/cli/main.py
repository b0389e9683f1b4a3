"""The gptwright command. Verbs are spread over one file a group; this one puts them together."""

import sys
from collections.abc import Sequence
from typing import Annotated

import typer

import gptwright
from gptwright.cli import care, data, feedback, judge, make, train, use
from gptwright.cli.verb import print_error

app = typer.Typer(
    name="gptwright",
    help="Make your own GPT, all the way: texts in, a served, tested and documented model out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
    context_settings={"max_content_width": 100},
    epilog="\b\nExamples:\n  gptwright new my-gpt && cd my-gpt && gptwright run\n  gptwright chat",
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"gptwright {gptwright.__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Print the version.")
    ] = False,
) -> None:
    pass


for part in (make, data, train, use, judge, feedback, care):
    part.register(app)


def main(arguments: Sequence[str] | None = None) -> int:
    """Entry point of the console script.

    Args:
        arguments: those after the command's name; None takes them from the command line.

    Returns:
        The exit code.
    """
    # A pipe on Windows or in a C locale may not be UTF-8, and models write every script there is.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    given = list(sys.argv[1:] if arguments is None else arguments)
    try:
        return app(given, prog_name="gptwright", standalone_mode=False) or 0
    except (typer.Abort, KeyboardInterrupt):
        return 130
    except Exception as error:
        # The parser's complaints: Typer vendors Click since 0.20, so its exceptions have no public name to catch them by.
        show = getattr(error, "show", None)
        if show is None:
            raise
        if "--json" in given:
            print_error(error.format_message(), 2)  # type: ignore[attr-defined]
        show()
        return 2
