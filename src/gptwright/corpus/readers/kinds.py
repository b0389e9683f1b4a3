"""What a file is: by its bytes first, by its name second. Neither decides for the files around it."""

import json
import re
import tarfile
import zipfile
from pathlib import PurePosixPath

from gptwright.corpus import text as t
from gptwright.corpus.readers.base import Skip
from gptwright.corpus.readers.blob import MOST_MEMBERS, Blob
from gptwright.corpus.readers.languages import language_of
from gptwright.corpus.text import NotText

PACKED = ("gz", "bz2", "xz", "zst")
# Kinds whose readers take bytes; all others are texts of some charset.
BINARY = ("parquet", "pdf", "docx", "odt", "epub", "zip", "tar", "mail", "mbox")

_MAGIC = (
    (b"PAR1", "parquet"),
    (b"\x1f\x8b", "gz"),
    (b"\x28\xb5\x2f\xfd", "zst"),
    (b"BZh", "bz2"),
    (b"\xfd7zXZ\0", "xz"),
    (b"PK\x03\x04", "zip"),
    (b"PK\x05\x06", "zip"),
    (b"{\\rtf", "rtf"),
)
_FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"GIF8", "a GIF image"),
    (b"7z\xbc\xaf", "a 7z archive"),
    (b"Rar!\x1a\x07", "a RAR archive"),
    (
        b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1",
        "an old Office document (doc, xls, ppt or msg); save it as docx, csv, pdf or eml",
    ),
    (b"\x7fELF", "a program"),
    (b"\xca\xfe\xba\xbe", "a compiled program"),
    (b"\0asm", "a WebAssembly program"),
    (b"SQLite format 3", "an SQLite database; name it as sql:sqlite:///FILE#QUERY"),
    (b"GGUF", "a GGUF model"),
    (b"ID3", "an MP3 file"),
    (b"OggS", "an Ogg file"),
    (b"fLaC", "a FLAC file"),
    (b"\x00\x01\x00\x00\x00", "a font"),
    (b"wOFF", "a font"),
    (b"wOF2", "a font"),
    (b"\x1aE\xdf\xa3", "a Matroska video"),
)
_OPEN_DOCUMENTS = {
    "application/epub+zip": "epub",
    "application/vnd.oasis.opendocument.text": "odt",
    "application/vnd.oasis.opendocument.text-template": "odt",
}
# What a name promises: bytes that say otherwise are a fault of the file and not a file to pass over.
_PROMISES = {
    ".pdf": "pdf", ".docx": "docx", ".odt": "odt", ".epub": "epub", ".zip": "zip", ".tar": "tar", ".gz": "gz", ".tgz": "gz", ".bz2": "bz2",
    ".xz": "xz", ".zst": "zst", ".parquet": "parquet", ".rtf": "rtf", ".txt": "text", ".text": "text", ".md": "markdown",
    ".markdown": "markdown", ".rst": "text", ".html": "html", ".htm": "html", ".xhtml": "html", ".jsonl": "jsonl", ".ndjson": "jsonl",
    ".json": "json", ".csv": "csv", ".tsv": "csv", ".yml": "yaml", ".yaml": "yaml", ".eml": "mail", ".mbox": "mbox", ".ipynb": "notebook",
    ".warc": "warc",
}  # fmt: skip
# A comment ends at its first "-->": were it allowed to run on to a later one, a thousand comments would be tried in 2^1000 ways.
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
_HEADER = re.compile(
    rb"^(from|to|cc|date|subject|received|return-path|message-id|mime-version|delivered-to|reply-to|sender|content-type|x-[\w-]+): ?",
    re.IGNORECASE,
)
_MBOX = re.compile(rb"From \S+ .*\d{4}\r?\n[A-Za-z-]+:")
_NOTEBOOK = re.compile(rb'\A\s*\{\s*"(cells|metadata|nbformat|nbformat_minor)"\s*:')


def find_kind(blob: Blob) -> str:
    """The kind of a file: a key of ``readers.READERS``, or one of PACKED.

    Raises:
        NotText: it is not what its name says.
        Skip: it is of a kind that holds no text, or none that can be read.
    """
    head = blob.head()
    promised = _PROMISES.get(blob.suffix)
    foreign = next((kind for mark, kind in _FOREIGN if head.startswith(mark)), None)
    if foreign is None and head[4:8] == b"ftyp":
        foreign = "an MPEG video or image"
    if foreign is None and head[:4] == b"RIFF" and head[8:12] in (b"WAVE", b"AVI ", b"WEBP"):
        foreign = "a sound, video or image"
    if foreign is not None:
        if promised is not None:
            raise NotText(f"named {blob.suffix} but it is {foreign}")
        raise Skip(f"{foreign}: not a kind of file that can be read")
    kind = next((kind for mark, kind in _MAGIC if head.startswith(mark)), None)
    if kind is None and b"%PDF-" in head[:1024]:
        kind = "pdf"
    if kind is None and _is_tar(head):
        kind = "tar"
    if kind == "zip":
        kind = _zip_kind(blob)
    if kind is not None:
        _check_promise(blob, promised, kind)
        return kind
    if promised in ("parquet", "pdf", "docx", "odt", "epub", "zip", "tar", *PACKED):
        raise NotText(f"named {blob.suffix} but it is {_words(head)}")
    return ""


def _check_promise(blob: Blob, promised: str | None, kind: str) -> None:
    """A text by its name that is something binary is a mistake; a .zip that is a docx is only a careless name."""
    texts = ("text", "markdown", "html", "jsonl", "json", "csv", "yaml", "notebook")
    if promised in texts and kind != "rtf" and kind not in PACKED:
        raise NotText(f"named {blob.suffix} but it is {_NAMES.get(kind, kind)}")


_NAMES = {
    "pdf": "a PDF", "zip": "a zip archive", "docx": "a Word document", "odt": "an OpenDocument text", "epub": "an EPUB book",
    "tar": "a tar archive", "parquet": "a parquet file",
}  # fmt: skip


def _words(head: bytes) -> str:
    if not head.strip(b"\0"):
        return "nothing but zero bytes" if head else "empty"
    try:
        head[:1024].decode("utf-8")
    except UnicodeDecodeError:
        return "none, by its first bytes. It may be damaged, or cut off at its start"
    return "a text" if b"\0" not in head[:1024] else "none, by its first bytes"


def _is_tar(head: bytes) -> bool:
    if len(head) < 512 or not head[0]:
        return False
    if head[257:262] == b"ustar":
        return True
    try:
        tarfile.TarInfo.frombuf(
            head[:512], "utf-8", "replace"
        )  # checks the header's sum, which plain text does not have
    except tarfile.HeaderError:
        return False
    return True


def _zip_kind(blob: Blob) -> str:
    """A zip archive, or one of the documents that are zip archives inside."""
    head = blob.head()
    if head[30:38] == b"mimetype":
        mime = head[38:120].split(b"PK", 1)[0].decode("ascii", "replace").strip()
        for known, kind in _OPEN_DOCUMENTS.items():
            if mime == known:
                return kind
        if mime.startswith("application/vnd.oasis.opendocument"):
            raise Skip(
                f"an OpenDocument file of the kind {mime.rpartition('.')[2]}: only texts can be read. Save it as csv or pdf"
            )
    if (
        blob.suffix not in (".zip", ".docx", ".docm", ".dotx", ".xlsx", ".xlsm", ".pptx", ".epub", ".odt")
        and b"[Content_Types].xml" not in head
    ):
        return "zip"
    try:
        with blob.seekable() as file:
            check_directory(file, blob)
            with zipfile.ZipFile(file) as archive:
                names = set(archive.namelist())
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        if blob.suffix in (".docx", ".odt", ".epub"):
            raise NotText(f"a damaged {blob.suffix} file ({str(error).rstrip('.')})") from error
        return "zip"
    if "word/document.xml" in names:
        return "docx"
    if "xl/workbook.xml" in names:
        raise Skip("a spreadsheet: save each sheet with texts as CSV")
    if "ppt/presentation.xml" in names:
        raise Skip("slides: save them as PDF")
    if "META-INF/container.xml" in names and (blob.suffix == ".epub" or any(name.endswith(".opf") for name in names)):
        return "epub"
    if "content.xml" in names and blob.suffix == ".odt":
        return "odt"
    if blob.suffix in (".docx", ".odt", ".epub"):
        raise NotText(f"named {blob.suffix} but it is a zip archive without such a document in it")
    return "zip"


def check_directory(file: "zipfile.IO[bytes]", blob: Blob) -> None:  # type: ignore[name-defined]
    """Refuse a zip archive of too many members before its table, which has no other bound, is read into memory.

    Raises:
        Bomb: there are too many.
    """
    size = file.seek(0, 2)
    file.seek(max(0, size - (1 << 16) - 22))
    tail = file.read()
    at = tail.rfind(b"PK\x05\x06")
    if at >= 0 and len(tail) - at >= 22:
        count = int.from_bytes(tail[at + 10 : at + 12], "little")
        length = int.from_bytes(tail[at + 12 : at + 16], "little")
        if count == 0xFFFF or length == 0xFFFFFFFF:
            wide = tail.rfind(b"PK\x06\x06")
            if wide >= 0 and len(tail) - wide >= 48:
                count = int.from_bytes(tail[wide + 32 : wide + 40], "little")
                length = int.from_bytes(tail[wide + 40 : wide + 48], "little")
        # An entry takes 46 bytes and its name; a table may claim fewer entries than it has.
        if max(count, length // 400) > MOST_MEMBERS:
            raise t.Bomb(
                f"{max(count, length // 400):,} members, more than {MOST_MEMBERS:,}. Unpack it, or pack it as several archives"
            )
    file.seek(0)


def find_text_kind(blob: Blob, charset: t.Charset) -> str:
    """Kind of a text file: what its name says, corrected by how it begins."""
    head, suffix = blob.head(), blob.suffix
    if charset.codec in ("utf-16", "utf-32", "utf-16-le", "utf-16-be"):
        head = head.decode(charset.codec, "replace").encode()
    bare = head[3:] if head.startswith(b"\xef\xbb\xbf") else head
    if bare.startswith((b"WARC/1.", b"WARC/0.")):
        return "warc"
    if b"<mediawiki" in bare[:4096] and bare.lstrip().startswith((b"<mediawiki", b"<?xml", b"<!--")):
        return "wiki"
    markup = suffix in (".md", ".markdown", ".rst")
    if _HTML.match(bare) and not markup and language_of(blob.name, b"") is None:
        return "html"
    if suffix in ("", ".txt", ".eml", ".mbox", ".mbx", ".mail", ".msg") and (mail := _mail_kind(bare, suffix)):
        return mail
    if language := language_of(blob.name, bare):
        return f"code:{language}"
    return _data_kind(bare, suffix, charset, len(head) >= t.SNIFF_BYTES)


def _mail_kind(head: bytes, suffix: str) -> str | None:
    if head.startswith(b"From ") and (_MBOX.match(head) or suffix in (".mbox", ".mbx")):
        return "mbox"
    lines = head.replace(b"\r\n", b"\n").split(b"\n\n", 1)[0].split(b"\n")
    fields = [line for line in lines if line[:1] not in (b" ", b"\t")]
    known = sum(bool(_HEADER.match(line)) for line in fields)
    if suffix in (".eml", ".mail", ".msg") and known:
        return "mail"
    named = {line.split(b":", 1)[0].lower() for line in fields}
    whole = known >= 3 and known > 0.7 * len(fields) and named >= {b"from", b"subject"}
    return "mail" if whole and named & {b"message-id", b"date", b"received"} else None


def _data_kind(head: bytes, suffix: str, charset: t.Charset, cut: bool) -> str:
    start = head.decode("utf-8" if charset.codec.startswith("utf") else charset.codec, "replace").lstrip(
        "\ufeff \t\r\n"
    )
    lines = [line for line in start.splitlines() if line.strip()][:3]
    json_lines = len(lines) > 1 and all(_is_json_object(line) for line in lines[: len(lines) - cut])
    if suffix == ".ipynb" or (_NOTEBOOK.match(head) and b'"nbformat"' in head):
        return "notebook"
    if suffix in (".jsonl", ".ndjson") or json_lines:
        whole = suffix in (".jsonl", ".ndjson") and start[:1] == "[" and not _is_json(lines[0] if lines else "")
        return "json" if whole else "jsonl"
    if suffix == ".json" or (suffix in ("", ".txt", ".csv") and _looks_json(start, cut)):
        return "json"
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix in (".yml", ".yaml"):
        return "yaml"
    if suffix in (".html", ".htm", ".xhtml"):
        return "html" if "<" in start[:2000] else "text"
    return "markdown" if suffix in (".md", ".markdown") else "text"


def _looks_json(start: str, cut: bool) -> bool:
    if not re.match(r"[\[{]\s*[\[{\"]", start):
        return False
    return bool(re.match(r"\[\s*\{\s*\"[^\"\n]{1,80}\"\s*:", start)) if cut else _is_json(start)


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_json_object(line: str) -> bool:
    return line.lstrip().startswith("{") and _is_json(line)


def promises(blob: Blob) -> bool:
    """Whether a file's name says that it holds text."""
    return blob.suffix in _PROMISES or language_of(PurePosixPath(blob.name).name, b"") is not None
