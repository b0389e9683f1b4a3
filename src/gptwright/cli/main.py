"""The gptwright command. Verbs are spread over one file a group; this one puts them together."""

import sys
from typing import Annotated

import typer

import gptwright
from gptwright.cli import care, data, judge, make, train, use

app = typer.Typer(
    name="gptwright",
    help="Make your own GPT, all the way: texts in, a served, tested and documented model out.",
    no_args_is_help=True,
    rich_markup_mode=None,
    add_completion=False,
    pretty_exceptions_enable=False,
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


for part in (make, data, train, use, judge, care):
    part.register(app)


def main() -> None:
    """Entry point of the console script."""
    # A pipe on Windows or in a C locale may not be UTF-8, and models write every script there is.
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(encoding="utf-8", errors="replace")
    app(prog_name="gptwright")
