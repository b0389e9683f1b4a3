"""What cannot be made again goes into one archive, and comes back out of it."""

import io
import os
import sqlite3
import tarfile
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write

if TYPE_CHECKING:
    from gptwright.project.project import Project


def backup(project: "Project", file: Path) -> list[str]:
    """Write ``state/`` and ``gptwright.toml`` into a .tar.gz; gives the names inside.

    The SQLite store is copied through its own backup call, so that a server may go on writing meanwhile.
    """
    if project.settings.serve.database_url:
        raise UserError(
            "the control store is a database elsewhere",
            where="[serve] database_url",
            fix="Back it up with its own tools (pg_dump)",
        )
    names = []
    with (
        tempfile.TemporaryDirectory() as scratch,
        atomic_write(file) as out,
        tarfile.open(fileobj=out, mode="w:gz") as archive,
    ):
        for path in sorted(
            p for p in project.state.rglob("*") if p.is_file() and not p.name.endswith(("-wal", "-shm"))
        ):
            name = path.relative_to(project.root).as_posix()
            copy = path
            if path.suffix == ".sqlite":
                copy = Path(scratch) / path.name
                source, target = sqlite3.connect(path), sqlite3.connect(copy)
                source.backup(target)
                source.close()
                target.close()
            archive.add(copy, name)
            names.append(name)
        archive.add(project.root / "gptwright.toml", "gptwright.toml")
    return [*names, "gptwright.toml"]


def restore(project: "Project", file: Path, force: bool) -> list[str]:
    """Bring ``state/`` back. The configuration in the archive is left there: the one on disk may be newer.

    Raises:
        UserError: there is state already (without force), or the archive is not one of ours.
    """
    if project.settings.serve.database_url:
        raise UserError(
            "the control store is a database elsewhere",
            where="[serve] database_url",
            fix="Restore it with its own tools",
        )
    if any(project.state.glob("*")) and not force:
        raise UserError("there is state already", where=str(project.state), fix="Use --force to replace it")
    names = []
    try:
        with tarfile.open(file, "r:gz") as archive:
            members = [
                m
                for m in archive.getmembers()
                if m.isfile() and m.name.startswith("state/") and ".." not in Path(m.name).parts
            ]
            if not members:
                raise UserError("holds no state/", where=str(file), fix="Give an archive that gptwright backup wrote")
            for stale in project.state.glob("*.sqlite-*"):
                stale.unlink()
            for member in members:
                content = archive.extractfile(member) or io.BytesIO()
                with atomic_write(project.root / member.name) as out:
                    if not member.mode & 0o077:  # a key: it was its owner's alone, and is again
                        os.chmod(out.name, 0o600)
                    out.write(content.read())
                names.append(member.name)
    except (tarfile.TarError, FileNotFoundError, EOFError, OSError) as error:
        raise UserError(f"cannot be read: {error}", where=str(file)) from error
    return names
