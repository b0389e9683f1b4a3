"""Zip and tar archives: their members one after the other, each a file of its own. Nothing is unpacked to disk under a name.

A member's name decides nothing but how it is called. Links and devices have no content of their own, so they end as skipped.
"""

import io
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from typing import IO, cast

from gptwright.corpus.readers import blob as blobs
from gptwright.corpus.readers.base import NotText, Reading
from gptwright.corpus.readers.blob import MEMORY_BYTES, MOST_DEPTH, Blob
from gptwright.corpus.readers.kinds import check_directory
from gptwright.corpus.text import Bomb, Broken

LONGEST_NAME = 1000


def zip_members(blob: Blob, reading: Reading) -> Iterator[Blob]:
    """Members of a zip archive in its order.

    Raises:
        NotText: it is damaged, too deep inside others, or would unpack to far more than it is.
    """
    _check_depth(blob)
    with blob.seekable() as file:
        check_directory(file, blob)
        try:
            archive = zipfile.ZipFile(file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            raise NotText(f"a damaged zip archive ({str(error).rstrip('.')}), or one that was cut off") from error
        with archive:
            entries = archive.infolist()
            # Entries may share their packed bytes; what they promise together is what would come out.
            stated = sum(entry.file_size for entry in entries)
            if stated > max(blobs.FREE_BYTES, blobs.MOST_RATIO * blob.budget.packed):
                blob.budget.take(stated)
            names = _Names()
            for entry in entries:
                if entry.filename.endswith("/"):
                    continue
                blob.budget.member()

                def opener(entry: zipfile.ZipInfo = entry) -> IO[bytes]:
                    return archive.open(entry)

                yield _member(names, entry.filename, opener, entry.file_size, blob, _zip_fault(entry))


def _zip_fault(entry: zipfile.ZipInfo) -> str | None:
    kind = entry.external_attr >> 28  # the file type of Unix, where the packer noted it
    if entry.flag_bits & 1:
        return "encrypted: it needs a password. Unpack it first"
    return "a symbolic link" if kind == 0xA else None


def tar_members(blob: Blob, reading: Reading) -> Iterator[Blob]:
    """Members of a tar archive as they come; it is read once, from front to end.

    Raises:
        NotText: it is damaged, or too deep inside others.
    """
    _check_depth(blob)
    with blob.open() as file:
        try:
            archive = tarfile.open(fileobj=file, mode="r|", errorlevel=0, bufsize=1 << 18)
        except (tarfile.TarError, OSError, ValueError) as error:
            raise NotText(f"a damaged tar archive ({error})") from error
        names = _Names()
        while True:
            try:
                entry = archive.next()
            except (tarfile.TarError, EOFError, OSError, ValueError) as error:
                raise Broken(
                    f"the tar archive is damaged after {blob.budget.members} members ({error}), or was cut off"
                ) from error
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every header that it has passed
            if entry is None:
                return
            if entry.isdir():
                continue
            blob.budget.member()
            if not entry.isreg():
                yield _member(names, entry.name, io.BytesIO, 0, blob, _tar_fault(entry))
                continue
            with _hold(archive, entry) as held:
                yield _member(names, entry.name, held.opener, entry.size, blob, held.fault)


def _tar_fault(entry: tarfile.TarInfo) -> str:
    if entry.issym() or entry.islnk():
        return "a link"
    return "a device or pipe" if entry.ischr() or entry.isblk() or entry.isfifo() else "not a regular file"


class _hold:  # noqa: N801 - a context manager that is used like a function
    """The bytes of a member that passes once, for as long as it is read: in memory, or in a temporary file without a name."""

    def __init__(self, archive: tarfile.TarFile, entry: tarfile.TarInfo) -> None:
        self.fault: str | None = None
        self._spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)
        try:
            source = archive.extractfile(entry)
            if source is not None:
                size = blobs.copy(source, cast(IO[bytes], self._spool), blobs.MOST_BYTES)
                if size < entry.size:
                    self.fault = f"cut off: {size:,} of its {entry.size:,} bytes are there"
        except (tarfile.TarError, OSError, EOFError) as error:
            if isinstance(error, NotText):
                raise
            self.fault = f"damaged ({error})"

    def opener(self) -> IO[bytes]:
        return cast(IO[bytes], io.BufferedReader(_View(cast(IO[bytes], self._spool))))

    def __enter__(self) -> "_hold":
        return self

    def __exit__(self, *_: object) -> None:
        self._spool.close()


class _View(io.RawIOBase):
    """A reader of a shared file with a place of its own."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file, self._at = file, 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: "memoryview") -> int:  # type: ignore[override]
        self._file.seek(self._at)
        data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        self._at += len(data)
        return len(data)


def _check_depth(blob: Blob) -> None:
    if blob.depth >= MOST_DEPTH:
        raise Bomb(f"archives within archives, more than {MOST_DEPTH} deep. Unpack it first")


class _Names:
    """Names of members, each given once: an archive may hold several files of one name."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def take(self, name: str) -> str:
        count = self._seen.get(name, 0) + 1
        self._seen[name] = count
        return name if count == 1 else f"{name}~{count}"


def _member(
    names: _Names, name: str, opener: Callable[[], IO[bytes]], size: int, blob: Blob, fault: str | None
) -> Blob:
    clean, odd = clean_name(name)
    found = blobs.member(names.take(clean), opener, size, blob)
    found.note = odd
    hidden = next((part for part in clean.split("/") if part.startswith(".")), None)
    if fault is None and (hidden or clean.startswith("__MACOSX/")):
        fault = "hidden (its name starts with a dot)" if hidden else "what macOS adds to archives"
    found.fault = fault
    return found


def clean_name(name: str) -> tuple[str, str | None]:
    """A member's name as a place inside its archive, and what was odd about it.

    Roots, drives, "." and ".." go: nothing is ever written there, but a place must not look as if it were outside.
    """
    parts = name.replace("\\", "/").split("/")
    kept = [part for part in parts if part not in ("", ".", "..") and not (len(part) == 2 and part[1] == ":")]
    clean = "".join(c if c.isprintable() else "_" for c in "/".join(kept))[:LONGEST_NAME] or "unnamed"
    clean = clean.encode("utf-8", "replace").decode()
    outside = ".." in parts or name[:1] in ("/", "\\") or (len(parts[0]) == 2 and parts[0][1:] == ":")
    return clean, f"its name in the archive points outside of it ({name[:100]!r})" if outside else None
