"""The stage lock: one process at a time changes ``work/``. The operating system drops it when the process dies."""

import contextlib
import os
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from gptwright.core.errors import UserError


@contextlib.contextmanager
def stage_lock(work: Path, purpose: str) -> Iterator[None]:
    """Hold the lock while the block runs.

    Args:
        work: the project's work folder.
        purpose: what for, shown to whoever comes second.

    Raises:
        UserError: another process holds it; the message names the process and what it does. Or the folder cannot be written to.
    """
    try:
        work.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(work / "lock", os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise UserError(
            f"cannot be written to: {error.strerror}", where=str(work), fix="Check the folder and its permissions"
        ) from error
    try:
        if not _lock_soon(descriptor):
            holder = _holder(descriptor)
            raise UserError(
                f"this project is already being worked on{f' ({holder})' if holder else ''}",
                where=str(work.parent),
                fix="Wait for it, or stop it with Ctrl-C: it continues where it stopped",
            )
        # Byte 0 is what Windows locks; the message starts behind it.
        os.ftruncate(descriptor, 0)
        os.write(descriptor, f" process {os.getpid()}: {purpose}".encode())
        yield
    finally:
        os.close(descriptor)


def is_locked(work: Path) -> bool:
    """Whether a process is changing ``work/`` at this moment."""
    try:
        descriptor = os.open(work / "lock", os.O_RDWR)
    except OSError:
        return False
    try:
        return not _try_lock(descriptor)
    finally:
        os.close(descriptor)


def _lock_soon(descriptor: int) -> bool:
    # `is_locked` holds the lock for an instant; a run that starts in that instant must not be turned away.
    for _ in range(5):
        if _try_lock(descriptor):
            return True
        time.sleep(0.02)
    return False


def _holder(descriptor: int) -> str:
    return os.pread(descriptor, 200, 1).decode(errors="replace").strip() if hasattr(os, "pread") else ""


if sys.platform == "win32":

    def _try_lock(descriptor: int) -> bool:
        import msvcrt

        try:
            msvcrt.locking(descriptor, msvcrt.LK_NBLCK, 1)
        except OSError:
            return False
        return True

else:

    def _try_lock(descriptor: int) -> bool:
        import fcntl

        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return False
        return True
