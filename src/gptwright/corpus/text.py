"""Bytes to clean text: what a file is (by content first, suffix second), its charset, normal form, and bounded pieces.

Nothing here holds more of a file in memory than one block, one line up to a cap, or one part.
"""

import codecs
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO

BLOCK_BYTES = 1 << 20
SNIFF_BYTES = 1 << 16
PART_CHARS = 1 << 16  # documents longer than 1.5 times this are cut into parts at paragraphs
ROW_CHARS = 32 << 20  # a longer line of a JSONL or CSV file is refused
WHOLE_BYTES = 512 << 20  # a longer file of a kind that must be read whole (JSON, YAML, HTML) is refused

_MAGIC = (
    (b"PAR1", "parquet"),
    (b"%PDF-", "a PDF"),
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"PK\x03\x04", "a zip archive or office document"),
    (b"\x1f\x8b", "a gzip archive"),
    (b"\x28\xb5\x2f\xfd", "a zstd archive"),
    (b"BZh", "a bzip2 archive"),
    (b"\xfd7zXZ", "an xz archive"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"\x7fELF", "a program"),
    (b"SQLite format 3", "an SQLite database"),
    (b"GGUF", "a GGUF model"),
    (b"ID3", "an MP3 file"),
    (b"OggS", "an Ogg file"),
)
_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
_CONTROL_BYTES = bytes(c for c in range(32) if c not in (9, 10, 11, 12, 13, 27))
_SURROGATE = re.compile(r"[\ud800-\udfff]")


class NotText(Exception):
    """A file that holds no text; the message says what it is."""


@dataclass(frozen=True)
class Charset:
    """How to decode a file: Python codec, error handler, and a note when it is a guess."""

    codec: str
    errors: str = "strict"
    note: str | None = None


def magic(head: bytes) -> str | None:
    """What the first bytes say a file is, when they say it ("parquet", or words for a person)."""
    return next((kind for mark, kind in _MAGIC if head.startswith(mark)), None)


def find_charset(path: Path) -> Charset:
    """Decide how to decode a file by reading all of it once, in blocks.

    Returns:
        UTF-8 when it is that (also with a few broken bytes); UTF-16/32 by their mark; else cp1252, else latin-1, with a note.

    Raises:
        NotText: control bytes say that it is binary.
    """
    with open(path, "rb") as file:
        head = file.read(SNIFF_BYTES)
        for mark, codec in _BOMS:
            if head.startswith(mark):
                return Charset(codec)
        if head and _control_share(head) > 0.01:
            if wide_codec := _unmarked_utf16(head):
                return Charset(wide_codec, "replace", f"read as {wide_codec}: no byte order mark")
            raise NotText("binary data, not text")
        utf8 = codecs.getincrementaldecoder("utf-8")("replace")
        size = bad = wide = control = 0
        cp1252 = True
        block = head
        while block:
            size += len(block)
            control += len(block) - len(block.translate(None, _CONTROL_BYTES))
            if not block.isascii():
                text = utf8.decode(block)
                bad += text.count("\ufffd") - block.count(b"\xef\xbf\xbd")
                wide += sum(map(len, re.findall(r"[^\x00-\x7f\ufffd]+", text)))
                cp1252 = cp1252 and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", block)
            elif utf8.getstate()[0]:
                utf8.decode(block)
                bad += 1
            block = file.read(BLOCK_BYTES)
        if utf8.getstate()[0]:
            bad += 1  # the file ends inside a character
    if control > size * 0.01:
        raise NotText("binary data, not text")
    if bad <= 0:
        return Charset("utf-8")
    if wide > 10 * bad:
        return Charset("utf-8", "replace", f"{bad} broken UTF-8 characters replaced")
    codec = "cp1252" if cp1252 else "latin-1"
    return Charset(codec, "strict", f"read as {codec}: not valid UTF-8")


def _control_share(data: bytes) -> float:
    return (len(data) - len(data.translate(None, _CONTROL_BYTES))) / len(data)


def _unmarked_utf16(head: bytes) -> str | None:
    """UTF-16 of mostly ASCII text has a zero in every second byte."""
    even, odd = head[0::2].count(0), head[1::2].count(0)
    half = max(1, len(head) // 2)
    if odd > 0.8 * half and even < 0.05 * half:
        return "utf-16-le"
    if even > 0.8 * half and odd < 0.05 * half:
        return "utf-16-be"
    return None


def open_text(path: Path, charset: Charset) -> IO[str]:
    """Open for reading with universal line ends."""
    return open(path, encoding=charset.codec, errors=charset.errors, newline=None)


def normalise(text: str) -> str:
    """The form in which text is stored and hashed: NFC, "\\n" line ends, no control characters, no blank edges."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        if _SURROGATE.search(text):  # halves of a pair, as broken JSON escapes give them
            text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        text = unicodedata.normalize("NFC", text)
    return _CONTROL.sub("", text).strip("\n").rstrip()


def bounded_lines(file: IO[str], cap: int | None = None) -> Iterator[str | None]:
    """Lines of a file with their ends; None in the place of one longer than ``cap`` characters, which is skipped unread."""
    cap = ROW_CHARS if cap is None else cap
    while line := file.readline(cap + 1):
        if len(line) <= cap or line.endswith("\n"):
            yield line
            continue
        while line and not line.endswith("\n"):
            line = file.readline(BLOCK_BYTES)
        yield None


def blocks(file: IO[str]) -> Iterator[str]:
    """A text file in blocks."""
    while block := file.read(BLOCK_BYTES):
        yield block


def parts(pieces: Iterable[str]) -> Iterator[str]:
    """Cut a stream of text into normalised parts of about PART_CHARS, at paragraphs where there are any.

    The cuts depend on the text alone, not on how it arrives, and stay where they are when text is appended.
    """
    size, buffer = PART_CHARS, ""
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start > size + size // 2:
            cut = _cut(buffer, start, size)
            if text := normalise(buffer[start:cut]):
                yield text
            start = cut
        buffer = buffer[start:]
    if text := normalise(buffer):
        yield text


def _cut(text: str, start: int, size: int) -> int:
    low, high = start + size // 2, start + size
    for mark in ("\n\n", "\n", ". ", " "):
        if (found := text.rfind(mark, low, high)) >= 0:
            return found + len(mark)
    return high
