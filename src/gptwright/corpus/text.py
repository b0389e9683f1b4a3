"""Bytes to clean text: charset, normal form, repair of texts that were decoded wrongly before, and bounded pieces.

Nothing here holds more of a file in memory than one block, one line up to a cap, or one part.
"""

import codecs
import io
import re
import unicodedata
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Protocol

BLOCK_BYTES = 1 << 20
SNIFF_BYTES = 1 << 16
PART_CHARS = 1 << 16  # documents longer than 1.5 times this are cut into parts at paragraphs
ROW_CHARS = 32 << 20  # a longer line of a JSONL or CSV file is refused

_BOMS = (
    (codecs.BOM_UTF8, "utf-8-sig"),
    (codecs.BOM_UTF32_LE, "utf-32"),
    (codecs.BOM_UTF32_BE, "utf-32"),
    (codecs.BOM_UTF16_LE, "utf-16"),
    (codecs.BOM_UTF16_BE, "utf-16"),
)
_CONTROL = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ufeff]")
_CONTROL_ASCII = bytes(c for c in (*range(32), 127) if c not in (9, 10, 13))
_CONTROL_BYTES = bytes(c for c in range(32) if c not in (9, 10, 11, 12, 13, 27))
_BEYOND_ASCII = re.compile(r"[^\x00-\x7f\ufffd]+")
_BEYOND_ASCII_BYTES = re.compile(rb"[\x00-\x7f]+")
_NO_CHARSETS = frozenset(
    {"idna", "punycode", "utf-7", "unicode-escape", "raw-unicode-escape", "unicode_escape", "raw_unicode_escape"}
)
_EAST_ASIAN = frozenset(
    ("cp949", "euc_kr", "johab", "gb18030", "gbk", "gb2312", "big5", "big5hkscs", "cp950", "cp932", "shift_jis", "euc_jp", "euc_jis_2004")
)  # fmt: skip
_WINDOWS = {
    "iso8859-2": "cp1250", "iso8859-5": "cp1251", "iso8859-6": "cp1256", "iso8859-7": "cp1253", "iso8859-8": "cp1255", "iso8859-9": "cp1254",
    "iso8859-11": "cp874", "iso8859-13": "cp1257",
}  # fmt: skip
# UTF-8 that was read as Windows-1252 or Latin-1, in UTF-8: a sign that stands for a first byte (Â to ô), then one for a further byte
# (U+0080 to U+00BF, or what Windows-1252 has in their place). Bytes, as a search for one byte is fast. Then the same by way of
# Windows-1251, where Р and С stand for the first bytes of nearly every Cyrillic letter.
_MOJIBAKE = re.compile(rb"\xc3[\x82-\xb4](?:\xc2[\x80-\xbf]|\xe2[\x80\x82\x84]|[\xc5\xc6\xcb])")
_MOJIBAKE_CYRILLIC = re.compile(
    rb"(?:\xd0[\xa0\xa1](?:\xc2[\x80-\xbf]|\xd0[\x80-\x8f]|\xd1[\x91-\x9f]|\xe2[\x80\x82\x84]|\xd2[\x90\x91])){2}"
)


class NotText(Exception):
    """A file that holds no text; the message says what it is."""


class Broken(NotText):
    """Packed data that cannot be unpacked, or ends too early."""


class Bomb(NotText):
    """A file out of which comes more than an honest one holds."""


@dataclass(frozen=True)
class Charset:
    """How to decode a file: Python codec, error handler, and a note when it is a guess."""

    codec: str
    errors: str = "strict"
    note: str | None = None


class Source(Protocol):
    """What can be opened as often as needed: a path, or a blob."""

    def open(self, mode: str, /) -> IO[bytes]:
        """A stream from the start."""
        ...


def find_charset(source: "Source | Path", declared: str | None = None) -> Charset:
    """Decide how to decode a text by reading all of it once, in blocks.

    Args:
        source: a file.
        declared: the encoding that the text, or who sent it, names. It is believed when the bytes are not UTF-8 and fit it.

    Returns:
        UTF-8 when it is that (also with some bytes of another encoding, which are then read as Windows-1252 one by one);
        UTF-16/32 by their mark; the declared one; else a guess from the bytes, with a note.

    Raises:
        NotText: control bytes say that it is binary.
    """
    with source.open("rb") as file:
        head = file.read(SNIFF_BYTES)
        for mark, codec in _BOMS:
            if head.startswith(mark):
                return Charset(codec, _lenient(codec))
        if head and _control_share(head) > 0.01:
            if wide_codec := _unmarked_utf16(head):
                return Charset(wide_codec, "replace", f"read as {wide_codec}: no byte order mark")
            raise NotText("binary data, not text")
        utf8 = codecs.getincrementaldecoder("utf-8")("strict")
        size = control = 0
        valid = True
        for block in _blocks(file, head):
            size += len(block)
            control += len(block) - len(block.translate(None, _CONTROL_BYTES))
            if valid and not (block.isascii() and not utf8.getstate()[0]):
                try:
                    utf8.decode(block)
                except UnicodeDecodeError:
                    valid = False
        valid = valid and not utf8.getstate()[0]
    if control > size * 0.01:
        raise NotText("binary data, not text")
    if valid:
        return Charset("utf-8")
    return _not_utf8(source, declared)


def _not_utf8(source: "Source | Path", declared: str | None) -> Charset:
    """The charset of a text that is not, or not all, UTF-8."""
    bad, wide, single = _count_broken(source)
    if wide > 10 * bad:
        are = "1 byte that is" if bad == 1 else f"{bad} bytes that are"
        return Charset("utf-8", MIXED, f"{are} not UTF-8 read as Windows-1252 or replaced")
    if declared and (codec := _known_codec(declared)) and _decodes(source, codec):
        return Charset(codec)
    for codec in (*_guesses(source), "cp1252" if single else "latin-1"):
        if _decodes(source, codec):
            return Charset(codec, "strict", f"read as {codec}: not valid UTF-8")
    return Charset("latin-1", "strict", "read as latin-1: not valid UTF-8")


def _count_broken(source: "Source | Path") -> tuple[int, int, bool]:
    """Broken places of a text as UTF-8, its whole characters beyond ASCII, and whether all its bytes mean something in cp1252."""
    utf8 = codecs.getincrementaldecoder("utf-8")("replace")
    bad = wide = 0
    single = True
    with source.open("rb") as file:
        for block in _blocks(file, b""):
            if block.isascii():
                bad += bool(utf8.getstate()[0])
                utf8.reset()
                continue
            text = utf8.decode(block)
            bad += text.count("\ufffd") - block.count(b"\xef\xbf\xbd")
            wide += sum(map(len, _BEYOND_ASCII.findall(text)))
            single = single and not re.search(rb"[\x81\x8d\x8f\x90\x9d]", block)
    return bad + bool(utf8.getstate()[0]), wide, single


def _guesses(source: "Source | Path") -> Iterator[str]:
    """Encodings that the bytes look like, the likeliest first.

    Resiliparse's detector names the right one in 20 of 21 legacy encodings of one sentence each; charset-normalizer in 17, but it knows
    Korean, which the other takes for UTF-8 (the list is in tests/corpus/test_repair.py).
    """
    sample = b""
    with source.open("rb") as file:
        for block in _blocks(file, b""):
            lines = [line for line in block.split(b"\n") if not line.isascii()] if len(block) > 4096 else [block]
            sample += b"\n".join(lines)
            if len(sample) >= SNIFF_BYTES:
                break
    sample = sample[:SNIFF_BYTES]
    if len(_BEYOND_ASCII_BYTES.sub(b"", sample)) < 4:  # too few to tell by
        return
    from resiliparse.parse.encoding import detect_encoding

    found = _known_codec(detect_encoding(sample, from_html_meta=False) or "")
    if found is not None and found not in ("utf-8", "ascii"):
        # What ISO has there are control characters, which no text holds; Windows has letters and quotes.
        yield _WINDOWS.get(found, found) if re.search(rb"[\x80-\x9f]", sample) else found
    from charset_normalizer import from_bytes

    best = from_bytes(sample[: 1 << 14]).best()
    if best is not None and best.encoding in _EAST_ASIAN:  # of the others its guesses are worse than none
        yield best.encoding


def _known_codec(name: str) -> str | None:
    """Python's name of an encoding that pages declare; ISO-8859-1 is read as Windows-1252, as browsers do."""
    try:
        codec = codecs.lookup(name.strip()).name
        b"a".decode(codec)  # fails for what is no text encoding, such as rot13
    except (LookupError, ValueError):
        return None
    if codec in ("iso8859-1", "ascii"):
        return "cp1252"
    return None if codec in _NO_CHARSETS else {"shift_jis": "cp932", "euc_kr": "cp949"}.get(codec, codec)


def _decodes(source: "Source | Path", codec: str) -> bool:
    try:
        decoder = codecs.getincrementaldecoder(codec)("strict")
        with source.open("rb") as file:
            for block in _blocks(file, b""):
                decoder.decode(block)
            decoder.decode(b"", True)
    except (LookupError, UnicodeDecodeError):
        return False
    return True


def _lenient(codec: str) -> str:
    return MIXED if codec == "utf-8-sig" else "replace"


def _blocks(file: IO[bytes], head: bytes) -> Iterator[bytes]:
    """All of a stream, of which ``head`` was read; it may break off after it gave something."""
    block = head or file.read(BLOCK_BYTES)
    while block:
        yield block
        try:
            block = file.read(BLOCK_BYTES)
        except Broken:  # packed data: what came before can be read, and the reading will say so
            return


def _read_mixed(error: UnicodeError) -> tuple[str, int]:
    """Error handler of UTF-8 with bytes of another encoding in it: what Windows-1252 says, but U+FFFD for a character cut in half."""
    if not isinstance(error, UnicodeDecodeError):
        raise error
    raw = error.object[error.start : error.end]
    if len(raw) > 1 or error.reason == "unexpected end of data":
        return "\ufffd", error.end
    return raw.decode("cp1252", "replace"), error.end


MIXED = "gptwright-mixed"
codecs.register_error(MIXED, _read_mixed)


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


def open_text(source: "Source | Path", charset: Charset) -> IO[str]:
    """Open for reading with universal line ends."""
    return io.TextIOWrapper(source.open("rb"), encoding=charset.codec, errors=charset.errors, newline=None)


def normalise(text: str) -> str:
    """The form in which text is stored and hashed: NFC, "\\n" line ends, no control characters, no blank edges."""
    if "\r" in text:
        text = text.replace("\r\n", "\n").replace("\r", "\n")
    if not text.isascii():
        try:
            text = unicodedata.normalize("NFC", text)
            raw = text.encode()
        except UnicodeEncodeError:  # halves of a surrogate pair, as broken JSON escapes give them
            text = unicodedata.normalize("NFC", text.encode("utf-16", "surrogatepass").decode("utf-16", "replace"))
            raw = text.encode()
        controls = "\ufeff" in text
    else:
        raw, controls = text.encode("ascii"), False
    # Bytes are searched ten times faster than characters, and nearly all texts hold none.
    if controls or len(raw.translate(None, _CONTROL_ASCII)) != len(raw):
        text = unicodedata.normalize("NFC", _CONTROL.sub("", text))
    return text.strip("\n").rstrip()


def repair(text: str) -> str | None:
    """A text that was UTF-8, was read as a one-byte encoding and stored so ("cafÃ©"), as it was meant; None when it needs no repair.

    A cheap test for such pairs of characters comes first; only what it flags is given to ftfy, which decides by how odd the text is.
    """
    if text.isascii():
        return None
    raw = text.encode("utf-8", "replace")
    if not _MOJIBAKE.search(raw) and not (b"\xd0" in raw and _MOJIBAKE_CYRILLIC.search(raw)):
        return None
    import ftfy

    # Windows' line ends and the like are not ftfy's to change here: encodings alone.
    repaired = normalise(ftfy.fix_encoding(text))
    # A lone "Â " may be a space that was read wrongly, and as well a letter before a space: alone it proves nothing.
    if repaired.replace("\xa0", " ") == text.replace("Â ", " "):
        return None
    return repaired if repaired != text and repaired else None


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
    return (text for _, text in placed_parts(pieces))


def placed_parts(pieces: Iterable[str]) -> Iterator[tuple[int, str]]:
    """``parts``, each with the place in the stream where it begins, in characters."""
    size, buffer, gone = PART_CHARS, "", 0
    for piece in pieces:
        buffer += piece
        start = 0
        while len(buffer) - start > size + size // 2:
            cut = _cut(buffer, start, size)
            if text := normalise(buffer[start:cut]):
                yield gone + start, text
            start = cut
        buffer, gone = buffer[start:], gone + start
    if text := normalise(buffer):
        yield gone, text


def _cut(text: str, start: int, size: int) -> int:
    low, high = start + size // 2, start + size
    for mark in ("\n\n", "\n", ". ", " "):
        if (found := text.rfind(mark, low, high)) >= 0:
            return found + len(mark)
    return high
