"""Verbs about judgements of answers: take them out for training."""

import json
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, group, verb


class Shape(StrEnum):
    """What the file is for."""

    pairs = "pairs"
    judged = "judged"


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    feedback = group("Judgements of answers: thumbs, corrections, votes.")
    verb(
        feedback,
        "export",
        ["gptwright feedback export pairs.jsonl", "gptwright feedback export judged.jsonl --as judged"],
    )(export)
    app.add_typer(feedback, name="feedback")


def export(
    call: Call,
    file: Annotated[Path, typer.Argument(help="File to write (JSON Lines).")],
    shape: Annotated[
        Shape, typer.Option("--as", help="pairs for dpo and ipo; judged, good or bad answers, for kto.")
    ] = Shape.pairs,
) -> Answer:
    """Write the judgements that people agreed to be trained on, as finetune reads them."""
    from gptwright.core.files import atomic_write
    from gptwright.release.feedback import rows

    found = list(rows(call.project().control, shape.value))
    with atomic_write(file) as out:
        out.write("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in found).encode())
    method = "dpo" if shape is Shape.pairs else "kto"
    text = f"{file}: {len(found)} rows\nTrain on them: gptwright finetune --method {method} --data {file}"
    return Answer(
        {"file": str(file), "rows": len(found), "shape": shape.value}, text if found else f"{file}: no rows yet"
    )
