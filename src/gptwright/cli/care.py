"""Verbs that care for what is there: backup and restore of what cannot be made again."""

from pathlib import Path
from typing import Annotated

import typer

from gptwright.cli.verb import Answer, Call, verb


def register(app: typer.Typer) -> None:
    """Add these verbs to the command."""
    verb(app, "backup", ["gptwright backup backup.tar.gz", "gptwright backup /mnt/safe/my-gpt.tar.gz"])(backup)
    verb(app, "restore", ["gptwright restore backup.tar.gz", "gptwright restore backup.tar.gz --force"])(restore)


def backup(call: Call, file: Annotated[Path, typer.Argument(help="Archive to write (.tar.gz).")]) -> Answer:
    """Save state/ (releases, keys, conversations, feedback) and the configuration."""
    from gptwright.project.backup import backup as save

    names = save(call.project(), file)
    return Answer({"file": str(file), "members": names}, f"{file}: {', '.join(names)}")


def restore(
    call: Call,
    file: Annotated[Path, typer.Argument(help="Archive that backup wrote.")],
    force: Annotated[bool, typer.Option("--force", help="Replace what is in state/.")] = False,
) -> Answer:
    """Bring state/ back from a backup."""
    from gptwright.project.backup import restore as bring_back

    names = bring_back(call.project(), file, force)
    return Answer({"file": str(file), "members": names}, f"restored {', '.join(names)}")
