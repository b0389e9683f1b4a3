"""Folders and files of the person's own: every regular file below, hidden ones and links that lead back named with their reason."""

import errno
import os
import stat
from dataclasses import replace
from pathlib import Path

from gptwright.core.errors import UserError
from gptwright.corpus.sources.base import Listing, Request, SourceFile


def listing(request: Request) -> Listing:
    """List a folder or file.

    Raises:
        UserError: it is not there, or the folder holds nothing.
    """
    return list_path(request.name, request.root / Path(request.rest).expanduser())


def list_path(name: str, path: Path, kind: str | None = None) -> Listing:
    """List a folder or file; ``kind`` forces the reader of its files."""
    where = f"corpus.sources.{name}"
    if path.is_file():
        found = Listing(name, "file")
        info = path.stat()
        found.files.append(SourceFile(path.name, path, info.st_size, info.st_mtime_ns, kind=kind))
        return found
    if not path.is_dir():
        raise UserError(f"no such folder or file: {path}", where=where, fix="Make it, or correct uri")
    found = Listing(name, "folder")
    _walk(found, path, "", (os.path.realpath(path),))
    if kind is not None:
        found.files = [replace(file, kind=kind) for file in found.files]
    if not found.files:
        inside = f" but {len(found.set_aside)} that cannot be used" if found.set_aside else ""
        raise UserError(f"no files in the folder {path}{inside}", where=where, fix="Put texts into it, or correct uri")
    return found


def _walk(listing: Listing, folder: Path, prefix: str, chain: tuple[str, ...]) -> None:
    """Depth first by name. Links to folders are followed, unless they lead back into a folder that is being read."""
    try:
        entries = sorted(os.scandir(folder), key=lambda entry: entry.name)
    except OSError as error:
        listing.put_aside(prefix or ".", "unreadable", f"the folder cannot be opened: {error.strerror}")
        return
    for entry in entries:
        locator = prefix + entry.name
        if entry.name.startswith("."):
            listing.put_aside(locator, "skipped", "hidden (its name starts with a dot)")
            continue
        try:
            info = entry.stat()
        except OSError as error:
            loop = (
                "symbolic link loop"
                if error.errno == errno.ELOOP
                else "broken link"
                if entry.is_symlink()
                else error.strerror
            )
            listing.put_aside(locator, "unreadable", str(loop))
            continue
        if stat.S_ISDIR(info.st_mode):
            deeper = chain
            if entry.is_symlink():
                real = os.path.realpath(entry.path)
                if any(real == seen or seen.startswith(real + os.sep) for seen in chain) or real.startswith(
                    chain[0] + os.sep
                ):
                    listing.put_aside(locator, "skipped", "symbolic link into this same source; read there once")
                    continue
                deeper = (*chain, real)
            _walk(listing, Path(entry.path), locator + "/", deeper)
        elif stat.S_ISREG(info.st_mode):
            listing.files.append(SourceFile(locator, Path(entry.path), info.st_size, info.st_mtime_ns))
        else:
            listing.put_aside(locator, "skipped", "not a regular file")
