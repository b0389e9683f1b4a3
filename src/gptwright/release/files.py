"""The files of a model directory as hashes: a release is these bytes and no others."""

from pathlib import Path

from gptwright.core.errors import Refused, UserError
from gptwright.core.files import TEMPORARY
from gptwright.core.hashing import b2_file, b2_json

# The card may be compiled anew as evaluations come in; it changes no answer.
_FREE = {"README.md"}
_PICKLES = (".bin", ".pt", ".pth", ".pkl", ".pickle", ".ckpt")


def fingerprint(directory: Path) -> dict[str, str]:
    """Hash of each file of a model directory by its relative POSIX path, the card left out.

    Raises:
        UserError: there is no such directory.
    """
    if not directory.is_dir():
        raise UserError("no such model directory", where=str(directory), fix="Run: gptwright run")
    files = sorted(file for file in directory.rglob("*") if file.is_file() and not file.name.startswith(TEMPORARY))
    return {name: b2_file(file) for file in files if (name := file.relative_to(directory).as_posix()) not in _FREE}


def directory_hash(directory: Path) -> str:
    """One hash for all files of a model directory."""
    return b2_json(fingerprint(directory))


def verify(directory: Path, files: dict[str, str], model_id: str) -> None:
    """Check that a model directory is what was registered.

    Raises:
        Refused: a file was changed, added or removed; it is named.
        UserError: the directory is gone.
    """
    now = fingerprint(directory)
    faults = [f"{name} is missing" for name in files if name not in now]
    faults += [f"{name} was changed" for name in files if name in now and now[name] != files[name]]
    faults += [f"{name} was added" for name in now if name not in files]
    if faults:
        raise Refused(
            f"{model_id} is not what was registered: {', '.join(faults)}",
            where=str(directory),
            fix="Restore the directory from a backup, or run again to make a new candidate",
        )


def pickled(directory: Path) -> list[str]:
    """Files that could run code when opened."""
    return [name for name in fingerprint(directory) if name.lower().endswith(_PICKLES)]
