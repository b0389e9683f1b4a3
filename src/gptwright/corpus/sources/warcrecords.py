"""The texts in WARC files, plain, gzip or zstd (with a dictionary too): bodies of responses, resources and conversions, one after the other.

What is no text is counted and not read; what is damaged or cut is said, and reading goes on behind it where that can be found.
Bodies are unpacked as their headers say, to a limit.
"""

import io
import re
import zlib
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any

from gptwright.corpus.sources.fetch import Headers, header_of
from gptwright.corpus.sources.warcfile import PLACE

MOST_BODY = 32 << 20  # bytes of one body, packed and unpacked
_MAGIC = ((b"\x1f\x8b", b"\x1f\x8b\x08"), (b"\x28\xb5\x2f\xfd", b"\x28\xb5\x2f\xfd"), (b"WARC/", b"WARC/1."))
_MOST_TRIES = 2000  # places where reading may go on after damage
_SUFFIX_MIMES = {
    "application/pdf": ".pdf",
    "application/epub+zip": ".epub",
    "application/vnd.openxmlformats-officedocument.wordprocessingml.document": ".docx",
    "application/rtf": ".rtf",
    "text/rtf": ".rtf",
    "application/json": ".json",
    "application/ld+json": ".json",
    "text/csv": ".csv",
    "text/markdown": ".md",
    "message/rfc822": ".eml",
}
_TEXTS = ("text/plain", "text/x-rst", "text/vtt", "text/troff")
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--.{0,2000}?-->\s*)?<(?:!doctype\s+html|html|head|body)\b", re.I | re.S
)


@dataclass(frozen=True)
class Body:
    """A body with what its record says. ``kind``: html, text, or file (read by its ``suffix``); ``offset`` of the record in the file."""

    offset: int
    kind: str
    data: bytes
    mime: str
    content_type: str
    url: str | None
    at: datetime | None
    headers: Headers = ()
    suffix: str = ""
    own: bool = False  # one that gptwright wrote for a place of a source


@dataclass
class Found:
    """What is noted while a file is read."""

    read: int = 0
    passed: Counter[str] = field(default_factory=Counter)  # what was not read, by what it is
    damage: list[str] = field(default_factory=list)

    def notes(self) -> list[str]:
        """What to say of it."""
        said = list(self.damage[:20])
        if len(self.damage) > 20:
            said.append(f"{len(self.damage) - 20} more damaged places")
        if self.passed:
            said.append("not read: " + ", ".join(f"{count:,} {what}" for what, count in self.passed.most_common(12)))
        return said


def bodies(file: IO[bytes], found: Found) -> Iterator[Body]:
    """Read a WARC file's bodies.

    Args:
        file: opened for reading at any place; closed by the caller.
        found: takes notes.

    Source: WARC 1.1 (IIPC); "WARC-Zstandard" draft of IIPC for .zst with a dictionary.
    """
    from fastwarc.warc import ArchiveIterator

    head = file.read(8)
    mark = next((magic for start, magic in _MAGIC if head.startswith(start)), None)
    base, last, tries = 0, 0, 0
    while True:
        file.seek(base)
        try:
            # What went before is read from behind it, so offsets count from there.
            source: Any = file if base == 0 else _Rest(file, base)
            for record in ArchiveIterator(source, parse_http=False, fsspec_args=False):
                last = base + record.stream_pos
                tries = 0
                yield from _body(record, last, found)
            return
        except (OSError, ValueError) as error:
            onward = _next_start(file, max(last, base) + 1, mark) if mark else None
            if tries == 0:
                rest = "" if onward else "; what comes after was not read"
                found.damage.append(f"damaged after byte {last:,} ({_first_line(error)}){rest}")
            tries += 1
            if onward is None or tries > _MOST_TRIES:
                return
            base = last = onward


class _Rest(io.RawIOBase):
    """A file from a place on, as if it began there."""

    def __init__(self, file: Any, base: int) -> None:
        self._file, self._base = file, base

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        return bytes(self._file.read(size))

    def tell(self) -> int:
        return int(self._file.tell()) - self._base

    def seek(self, offset: int, whence: int = 0) -> int:
        if whence == 0:
            self._file.seek(self._base + offset)
        else:
            self._file.seek(offset, whence)
        return self.tell()

    def seekable(self) -> bool:
        return True


def _next_start(file: Any, start: int, mark: bytes) -> int | None:
    """Where a record may begin at or after a place."""
    file.seek(start)
    before = b""
    while block := file.read(1 << 20):
        at = (before + block).find(mark)
        if at >= 0:
            return int(start - len(before) + at)
        start += len(block)
        before = block[-len(mark) + 1 :]
    return None


def _body(record: Any, offset: int, found: Found) -> Iterator[Body]:
    from fastwarc.warc import WarcRecordType as Kind

    kind, length = record.record_type, record.content_length
    if kind not in (Kind.response, Kind.resource, Kind.conversion):
        if kind == Kind.revisit:
            found.passed["revisits of pages kept elsewhere"] += 1
        return
    if length > MOST_BODY:
        found.passed[f"records over {MOST_BODY >> 20} MB"] += 1
        return
    block = record.reader.read(MOST_BODY + 1)
    url = (record.headers.get("WARC-Target-URI") or "").strip("<> ") or None
    if len(block) < length:
        found.damage.append(f"{url or 'a record'} at byte {offset:,} is cut: {len(block):,} of {length:,} bytes")
    if record.headers.get("WARC-Truncated"):
        found.passed["bodies that were cut when they were fetched (read as far as they go)"] += 1
    headers: Headers = ()
    content_type = record.headers.get("Content-Type") or ""
    if "application/http" in content_type or (kind == Kind.response and block.startswith(b"HTTP/")):
        status, headers, block = _http(block)
        if status != 200:
            found.passed[f"answers of status {status}"] += 1
            return
        content_type = header_of(headers, "content-type") or ""
        try:
            block = _unpacked(block, headers)
        except (zlib.error, OSError, ValueError) as error:
            found.damage.append(f"{url or 'a record'} at byte {offset:,}: {_first_line(error)}")
            return
    mime = content_type.partition(";")[0].strip().lower()
    how, suffix = _how(mime, record.headers.get("WARC-Identified-Payload-Type") or "", block)
    if not block.strip():
        found.passed["empty bodies"] += 1
    elif how is None:
        found.passed[mime or "bodies of no known type"] += 1
    else:
        found.read += 1
        own = record.headers.get(PLACE) is not None
        yield Body(offset, how, block, mime, content_type, url, _date(record), headers, suffix, own)


def _how(mime: str, identified: str, block: bytes) -> tuple[str | None, str]:
    """How a body is read: as HTML, as text, as a file of another kind, or not."""
    if mime in ("text/html", "application/xhtml+xml") or identified in ("text/html", "application/xhtml+xml"):
        return "html", ""
    if mime in ("", "application/octet-stream", "unknown/unknown", "*/*") and _HTML.match(block[:4096]):
        return "html", ""
    for known in (mime, identified):
        if known in _SUFFIX_MIMES:
            return "file", _SUFFIX_MIMES[known]
    if mime in _TEXTS:
        return ("html", "") if _HTML.match(block[:4096]) else ("text", "")
    if block.startswith(b"%PDF-"):
        return "file", ".pdf"
    return None, ""


def _http(block: bytes) -> tuple[int, Headers, bytes]:
    """Status, headers and body of an HTTP response as it stands in a record."""
    end = re.search(rb"\r?\n\r?\n", block[: 256 << 10])
    head, body = (block[: end.start()], block[end.end() :]) if end else (block[: 256 << 10], b"")
    lines = re.sub(r"\r?\n[ \t]+", " ", head.decode("latin-1")).splitlines()
    status = re.match(r"HTTP/\S+\s+(\d{3})", lines[0] if lines else "")
    headers = tuple((k.strip(), v.strip()) for k, mark, v in (line.partition(":") for line in lines[1:]) if mark)
    return int(status[1]) if status else 0, headers, body


def _unpacked(body: bytes, headers: Headers) -> bytes:
    """A body without its transfer and content coding, where it still has them: many archives unpack and keep the headers.

    Raises:
        ValueError: it unpacks to more than ``MOST_BODY``, or is damaged.
    """
    if "chunked" in (header_of(headers, "transfer-encoding") or "").lower():
        body = _unchunked(body)
    coding = (header_of(headers, "content-encoding") or "").lower().strip()
    if coding in ("gzip", "x-gzip") and body.startswith(b"\x1f\x8b"):
        return _inflate(zlib.decompressobj(47), body)
    if coding == "deflate" and not body.lstrip().startswith(b"<"):
        try:
            return _inflate(zlib.decompressobj(), body)
        except zlib.error:
            return _inflate(zlib.decompressobj(-15), body)
    if coding in ("br", "zstd") and not body.lstrip().startswith(b"<"):
        from fastwarc.stream_io import BrotliReader, ZstdReader

        reader = (BrotliReader if coding == "br" else ZstdReader)(io.BytesIO(body))
        return _limited(bytes(reader.read(MOST_BODY + 1)))
    return body


def _inflate(inflate: Any, body: bytes) -> bytes:
    return _limited(inflate.decompress(body, MOST_BODY + 1))


def _limited(body: bytes) -> bytes:
    if len(body) > MOST_BODY:
        raise ValueError(f"a body that unpacks to more than {MOST_BODY >> 20} MB")
    return body


def _unchunked(body: bytes) -> bytes:
    """A chunked body's content; a body that is not chunked after all as it is.

    Source: RFC 9112 section 7.1.
    """
    at = 0
    pieces: list[bytes] = []
    while match := re.compile(rb"([0-9A-Fa-f]{1,8})[ \t]*(?:;[^\r\n]*)?\r\n").match(body, at):
        size = int(match[1], 16)
        if size == 0:
            return b"".join(pieces)
        pieces.append(body[match.end() : match.end() + size])
        at = match.end() + size + 2
    return b"".join(pieces) if at >= len(body) and pieces else body


def _date(record: Any) -> datetime | None:
    try:
        date = record.record_date
    except (ValueError, OverflowError):
        return None
    return date.astimezone(UTC).replace(microsecond=0) if isinstance(date, datetime) else None


def _first_line(error: Exception) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0]
