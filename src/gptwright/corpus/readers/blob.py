"""Bytes to read, wherever they stand: a file, a member of an archive, what unpacking gives. Nothing is written under a name.

A blob can be opened as often as needed, each time from its beginning; memory holds a block of it, unless a reader asks for more. All
that comes out of one file on disk shares a budget, so that a small file cannot grow without bound.
"""

import bz2
import gzip
import io
import lzma
import tempfile
import zipfile
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, cast

import zstandard

from gptwright.corpus import text as t
from gptwright.corpus.text import Bomb, Broken, NotText

MOST_RATIO = 200  # text packs to a tenth, very repetitive text to a fiftieth
FREE_BYTES = 64 << 20  # what may be unpacked whatever the ratio
MOST_BYTES = 1 << 40  # that come out of one file
MOST_MEMBERS = 200_000
MOST_DEPTH = 4  # archives within archives
MEMORY_BYTES = 16 << 20  # larger members that can be read once only wait in an unnamed temporary file
WHOLE_BYTES = 256 << 20  # of a file that is opened at any place (PDF, office documents)


@dataclass
class Budget:
    """What may still come out of a file on disk."""

    packed: int
    taken: int = 0
    members: int = 0

    def take(self, size: int) -> None:
        """Account for unpacked bytes.

        Raises:
            Bomb: there are too many.
        """
        self.taken += size
        if self.taken > max(FREE_BYTES, MOST_RATIO * self.packed) or self.taken > MOST_BYTES:
            raise Bomb(
                f"it unpacks to more than {self.taken >> 20} MB from {_size(self.packed)}, as only an archive made to do harm does. "
                "Unpack it yourself if you trust it"
            )

    def member(self) -> None:
        """Account for a member of an archive."""
        self.members += 1
        if self.members > MOST_MEMBERS:
            raise Bomb(f"more than {MOST_MEMBERS:,} members. Unpack it, or pack it as several archives")


def _size(size: int) -> str:
    return f"{size / 1e6:.1f} MB" if size >= 100_000 else f"{size:,} bytes"


@dataclass
class Blob:
    """Bytes with a name.

    Args:
        name: what they are called where they stand (POSIX; its suffix counts).
        opener: gives a new stream from the start.
        size: bytes, when known without reading.
        path: the file that these bytes are, when they are one.
        depth: how many archives they stand in.
    """

    name: str
    opener: Callable[[], IO[bytes]]
    size: int | None
    budget: Budget
    path: Path | None = None
    depth: int = 0
    fault: str | None = None  # why it must not be read: the outcome of a member without content
    note: str | None = None
    _head: bytes | None = field(default=None, repr=False)

    def open(self, mode: str = "rb") -> IO[bytes]:
        """A stream from the start; ``mode`` is there so that a blob opens like a path."""
        return self.opener()

    @property
    def suffix(self) -> str:
        """The last suffix of the name, in lower case."""
        base = self.name.rpartition("/")[2].lstrip(".")
        return "." + base.rpartition(".")[2].lower() if "." in base else ""

    def head(self) -> bytes:
        """The first bytes."""
        if self._head is None:
            with self.open() as file:
                self._head = read_up_to(file, t.SNIFF_BYTES)
        return self._head

    def whole(self, most: int, what: str) -> bytes:
        """All bytes.

        Raises:
            NotText: there are more than ``most``.
        """
        with self.open() as file:
            data = read_up_to(file, most + 1)
        if len(data) > most:
            raise NotText(f"larger than {most >> 20} MB, which is too much for one {what}. Split it")
        return data

    def seekable(self, most: int = WHOLE_BYTES) -> IO[bytes]:
        """A stream that can be read at any place.

        Raises:
            NotText: it must be unpacked for that and is larger than ``most``.
        """
        if self.path is not None:
            return open(self.path, "rb")
        spool = tempfile.SpooledTemporaryFile(MEMORY_BYTES)
        with self.open() as file:
            copy(file, cast(IO[bytes], spool), most)
        spool.seek(0)
        return cast(IO[bytes], spool)


def of(path: Path) -> Blob:
    """A file."""
    size = path.stat().st_size
    return Blob(path.name, lambda: open(path, "rb"), size, Budget(size), path)


def of_bytes(name: str, data: bytes, parent: Blob) -> Blob:
    """Bytes that were in another blob, such as an attachment."""
    return Blob(name, lambda: io.BytesIO(data), len(data), parent.budget, None, parent.depth + 1)


def member(name: str, opener: Callable[[], IO[bytes]], size: int | None, parent: Blob) -> Blob:
    """A member of an archive, which can be opened again and again; its bytes count once."""
    return Blob(name, metered(opener, parent.budget), size, parent.budget, None, parent.depth + 1)


def metered(opener: Callable[[], IO[bytes]], budget: Budget) -> Callable[[], IO[bytes]]:
    """Openings of one thing whose bytes are taken from a budget the first time they come."""
    furthest = [0]
    return lambda: cast(IO[bytes], io.BufferedReader(_Metered(opener, budget, furthest), t.BLOCK_BYTES))


def copy(source: IO[bytes], target: IO[bytes], most: int) -> int:
    """Copy a stream; returns its size. Raises NotText when there are more than ``most`` bytes."""
    size = 0
    while block := source.read(t.BLOCK_BYTES):
        size += len(block)
        if size > most:
            raise NotText(f"larger than {most >> 20} MB, which is too much for one file of its kind inside an archive")
        target.write(block)
    return size


def read_up_to(file: IO[bytes], size: int) -> bytes:
    """So many bytes, or all there are; a plain ``read`` of a stream may give fewer. What precedes a break still comes."""
    pieces: list[bytes] = []
    while size > 0:
        try:
            piece = file.read(min(size, t.BLOCK_BYTES))
        except Broken:
            if not pieces:
                raise
            break
        if not piece:
            break
        pieces.append(piece)
        size -= len(piece)
    return b"".join(pieces)


# What the unpackers raise for broken data; encrypted and unknown methods come as RuntimeError and NotImplementedError.
_FAULTS = (
    EOFError,
    zlib.error,
    lzma.LZMAError,
    zstandard.ZstdError,
    zipfile.BadZipFile,
    gzip.BadGzipFile,
    NotImplementedError,
    RuntimeError,
    ValueError,
)


class _Metered(io.RawIOBase):
    """A stream that takes what it gives from a budget, and says in words why it cannot go on."""

    def __init__(self, opener: Callable[[], IO[bytes]], budget: Budget, furthest: list[int]) -> None:
        self._budget, self._furthest, self._at = budget, furthest, 0
        try:
            self._file = opener()
        except (*_FAULTS, OSError) as error:
            raise Broken(_why(error)) from error

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        try:
            data = self._file.read(min(len(buffer), t.BLOCK_BYTES))
        except NotText:
            raise
        except (*_FAULTS, OSError) as error:
            raise Broken(_why(error)) from error
        self._at += len(data)
        if self._at > self._furthest[0]:
            self._budget.take(self._at - self._furthest[0])
            self._furthest[0] = self._at
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed and hasattr(self, "_file"):
            self._file.close()
        super().close()


def _why(error: Exception) -> str:
    said = str(error).rstrip(".") or type(error).__name__
    if isinstance(error, EOFError):
        return "its packed data ends too early: it was cut off"
    if "password" in said or "encrypted" in said:
        return "encrypted: it needs a password. Unpack it first"
    return f"its packed data is broken ({said})"


UNPACKERS: dict[str, Callable[[IO[bytes]], IO[bytes]]] = {
    "gz": lambda file: cast(IO[bytes], gzip.GzipFile(fileobj=file)),
    "bz2": lambda file: cast(IO[bytes], bz2.BZ2File(file)),
    "xz": lambda file: cast(IO[bytes], lzma.LZMAFile(file)),
    # A frame may ask for as much memory as it likes; 128 MB is what --long gives.
    "zst": lambda file: zstandard.ZstdDecompressor(max_window_size=1 << 27).stream_reader(
        file, read_across_frames=True, closefd=True
    ),
}
_PACKED_SUFFIXES = {
    "gz": {".gz": "", ".tgz": ".tar", ".svgz": ".svg"},
    "bz2": {".bz2": "", ".tbz": ".tar", ".tbz2": ".tar"},
    "xz": {".xz": "", ".txz": ".tar", ".lzma": ""},
    "zst": {".zst": "", ".zstd": "", ".tzst": ".tar"},
}


def unpack(blob: Blob, kind: str) -> Blob:
    """What a packed file holds, under the name that it has without the packing.

    Raises:
        NotText: it is packed too many times over.
    """
    if blob.depth >= MOST_DEPTH:
        raise Bomb(f"packed more than {MOST_DEPTH} times over. Unpack it first")
    name = blob.name
    for suffix, inner in _PACKED_SUFFIXES[kind].items():
        if name.lower().endswith(suffix):
            name = name[: -len(suffix)] + inner
            break
    opener = metered(lambda: _closing(UNPACKERS[kind], blob.open()), blob.budget)
    return Blob(name, opener, None, blob.budget, None, blob.depth + 1)


def _closing(unpacker: Callable[[IO[bytes]], IO[bytes]], file: IO[bytes]) -> IO[bytes]:
    """An unpacking stream that closes what it unpacks, which the ones of the standard library leave open."""
    stream = unpacker(file)
    close = stream.close

    def both() -> None:
        close()
        file.close()

    if not isinstance(stream, zstandard.ZstdDecompressionReader):
        stream.close = both  # type: ignore[method-assign]
    return stream
