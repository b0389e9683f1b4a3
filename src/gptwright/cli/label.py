"""The verb ``data label``: a person's judgement of documents, and the classifier that learns from it."""

import textwrap
from pathlib import Path
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, say, verb
from gptwright.core.errors import UserError


def register(data: typer.Typer) -> None:
    """Add the verb to the group ``data``."""
    verb(data, "label", ["gptwright data label", "gptwright data label --good encyclopedia --bad forum"])(label)


def label(
    call: Call,
    task: Annotated[str, typer.Option(help="quality or toxicity.")] = "quality",
    target: Annotated[int, typer.Option("-n", help="Labels that are wanted.")] = 200,
    page: Annotated[bool, typer.Option("--page", help="In the browser instead of here.")] = False,
    examples: Annotated[
        Path | None, typer.Option("--from", help="A file of labelled texts, instead of asking.")
    ] = None,
    good: Annotated[str | None, typer.Option(help="A source of good texts, instead of asking.")] = None,
    bad: Annotated[str | None, typer.Option(help="A source of bad texts.")] = None,
) -> Answer:
    """Label documents as good or bad; a classifier is trained from them and becomes a signal."""
    from gptwright.project.curating import desk, train_classifier

    if (good is None) != (bad is None):
        raise UserError("name a good and a bad source", where="--good, --bad", fix="Give both")
    project = call.project()
    sources = (good, bad) if good is not None and bad is not None else None
    if examples is None and sources is None:
        if page:
            from gptwright.studio.label import serve_label

            serve_label(lambda: desk(project, task, target), on_start=lambda url: say(f"Label at {url} (Ctrl-C ends)"))
        else:
            from gptwright.corpus.quality.terminal import label_terminal

            label_terminal(desk(project, task, target))
    done = train_classifier(project, task, examples=examples, sources=sources)
    return Answer(done, "\n".join(textwrap.fill(line, 100, subsequent_indent="  ") for line in done["lines"]))
