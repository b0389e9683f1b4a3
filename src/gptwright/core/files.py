"""Atomic writes: a reader sees the old file or the new one, never a half. A killed writer leaves only a temporary name."""

import contextlib
import errno
import json
import os
import shutil
import sqlite3
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from gptwright.core.errors import UserError

TEMPORARY = ".tmp-"
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ELSEWHERE = "Move it away, or choose another place"
# SQLite tells a full disk apart only where the system says ENOSPC; a file that may not grow is a failed write to it.
_NO_ROOM = ("SQLITE_FULL", "SQLITE_IOERR_WRITE", "SQLITE_IOERR_SHMSIZE", "SQLITE_IOERR_FSYNC", "SQLITE_IOERR_TRUNCATE")


@contextlib.contextmanager
def atomic_write(path: str | Path, mode: str = "wb") -> Iterator[IO[Any]]:
    """Open a temporary file beside ``path``; on a clean exit it is synced and renamed over ``path``.

    Args:
        path: the final name; missing parents are made.
        mode: "wb" or "w" (UTF-8, "\\n" line ends).

    Raises:
        UserError: the disk is full or may not be written to. ``path`` keeps its former content.
    """
    target = Path(path)
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{target.name}")
    text: dict[str, Any] = {} if "b" in mode else {"encoding": "utf-8", "newline": "\n"}
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with open(temporary, mode, **text) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise writing_error(error, target) from error
    finally:
        with contextlib.suppress(NotADirectoryError):  # no folder could be made, so there is nothing to clear
            temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_dir(path: str | Path) -> Iterator[Path]:
    """Build a directory under a temporary name; on a clean exit it takes the place of ``path``, old content and all."""
    target = Path(path)
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        for file in temporary.rglob("*"):
            if file.is_file():
                _sync_file(file)
        if target.exists():
            # Two renames, since a directory cannot be replaced in one: a crash between them leaves the old one under its
            # temporary name, and the caller's record (ledger) still lacks the new one, so the work is simply done again.
            doomed = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-old-{target.name}")
            os.replace(target, doomed)
            os.replace(temporary, target)
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            os.replace(temporary, target)
        sync_directory(target.parent)
    except OSError as error:
        raise writing_error(error, target) from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)


def remove_leftovers(folder: str | Path) -> int:
    """Delete temporary names that a killed process left in a folder. Returns how many; call it only under the stage lock."""
    found = list(Path(folder).rglob(f"{TEMPORARY}*")) if Path(folder).is_dir() else []
    for path in found:
        shutil.rmtree(path, ignore_errors=True) if path.is_dir() else path.unlink(missing_ok=True)
    return len(found)


def write_json(path: str | Path, value: Any) -> None:
    """Write JSON for people: indented, UTF-8, atomic."""
    with atomic_write(path, "w") as file:
        json.dump(value, file, indent=2, ensure_ascii=False)
        file.write("\n")


def read_json(path: str | Path) -> Any:
    """Read a JSON file.

    Raises:
        UserError: it is missing, or is not JSON (with line and column).
    """
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path)) from error
    except json.JSONDecodeError as error:
        raise UserError(f"not valid JSON: {error.msg}", where=f"{path}:{error.lineno}:{error.colno}") from error


def sync_directory(folder: Path) -> None:
    """Make a rename durable. Windows cannot open directories; there the rename itself is all we get."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _sync_file(path: Path) -> None:
    with open(path, "rb+") as file:
        os.fsync(file.fileno())


def writing_error(error: OSError, target: Path) -> Exception:
    """A full or read-only disk, and a file where a folder should be, are the user's to mend; anything else stays what it is."""
    if error.errno in _FULL:
        return disk_full(target)
    if error.errno in (errno.EACCES, errno.EPERM, errno.EROFS):
        return UserError("may not be written to", where=str(target), fix="Check the folder's permissions")
    if error.errno == errno.EISDIR:
        return UserError("is a folder, not a file", where=str(target), fix=_ELSEWHERE)
    if error.errno in (errno.ENOTDIR, errno.EEXIST):
        for place in target.parents:
            if place.exists() and not place.is_dir():
                return UserError("is a file, not a folder", where=str(place), fix=_ELSEWHERE)
    return error


def disk_full(target: Path | None = None) -> UserError:
    """What a person is told when there is no room."""
    return UserError(
        "the disk is full; nothing was changed",
        where=str(target) if target else None,
        fix="Free some space and run the same command again",
    )


def says_disk_is_full(error: BaseException | None) -> bool:
    """Whether this error, or what caused it, is a full disk: of the system, of SQLite, or of SQLite through SQLAlchemy."""
    while error is not None:
        if isinstance(error, OSError) and error.errno in _FULL:
            return True
        if isinstance(error, sqlite3.Error) and getattr(error, "sqlite_errorname", "") in _NO_ROOM:
            return True
        error = error.__cause__ or error.__context__
    return False


def cache_dir() -> Path | None:
    """The folder for what only saves time, GPTWRIGHT_CACHE or the user's cache folder; None when it cannot be made, or others could
    put something into it."""
    given, base = os.environ.get("GPTWRIGHT_CACHE"), os.environ.get("XDG_CACHE_HOME")
    try:
        folder = Path(given) if given else (Path(base) if base else Path.home() / ".cache") / "gptwright"
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        found = folder.stat()
    except (OSError, RuntimeError):  # RuntimeError: no home
        return None
    private = not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)
    return folder if private and os.access(folder, os.W_OK) else None
