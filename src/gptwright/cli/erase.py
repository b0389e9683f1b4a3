"""Verbs about what became of texts, and taking them back: data trace, data forget."""

from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, verb

Selector = Annotated[
    str,
    typer.Argument(
        metavar="SELECTOR",
        help="id:HEX, path:GLOB, url:GLOB, source:NAME, license:SPDX, text:FILE or email:ADDRESS.",
    ),
]


def register(data: typer.Typer) -> None:
    """Add these verbs to the group ``data``."""
    verb(data, "trace", ["gptwright data trace path:letters/anna.txt", "gptwright data trace email:anna@example.org"])(
        trace
    )
    verb(
        data,
        "forget",
        [
            'gptwright data forget path:letters/anna.txt --basis "GDPR Art. 17, request of 3 May" --dry-run',
            'gptwright data forget license:CC-BY-NC-4.0 --basis "licence does not allow it"',
        ],
    )(forget)


def trace(call: Call, selector: Selector) -> Answer:
    """Show which data sets, runs, steps, checkpoints, models and releases saw documents."""
    from gptwright.project.erasing import trace as follow

    found = follow(call.project(), selector)
    return Answer(found.data(), "\n".join(found.lines()))


def forget(
    call: Call,
    selector: Selector,
    basis: Annotated[str, typer.Option(help="The ground, in words; it goes into the certificate.")],
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only show what would go.")] = False,
    promote_next: Annotated[
        bool,
        typer.Option("--promote-next", help="Leave copies that stand elsewhere, for a licence that was withdrawn."),
    ] = False,
) -> Answer:
    """Erase documents with all their copies from everything that can be changed, and certify it."""
    from gptwright.project.erasing import certificate_text
    from gptwright.project.erasing import forget as erase

    certificate = erase(call.project(), selector, basis, dry_run=dry_run, promote_next=promote_next)
    return Answer(certificate, certificate_text(certificate))
