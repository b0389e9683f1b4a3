"""One file to records: its kind told by content and name, then read by the reader of that kind. An archive gives members instead.

``read_file`` opens a path, ``read_blob`` anything else. Readers are modules of this package, imported when a file of their kind comes.
"""

import importlib
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from gptwright.corpus import text as t
from gptwright.corpus.readers import blob as blobs
from gptwright.corpus.readers.base import (
    EXTRACTOR,
    MOST_FAULTS,
    Aside,
    Read,
    Reading,
    Record,
    RowFault,
    Skip,
    summary,
)
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.kinds import BINARY, PACKED, find_kind, find_text_kind, promises
from gptwright.corpus.text import NotText

__all__ = [
    "EXTRACTOR",
    "MOST_FAULTS",
    "READERS",
    "Aside",
    "Blob",
    "NotText",
    "Reading",
    "Record",
    "RowFault",
    "Skip",
    "check_columns",
    "read_blob",
    "read_file",
    "summary",
]

# Kind -> media type, module of this package, function in it.
READERS: dict[str, tuple[str, str, str]] = {
    "text": ("text/plain", "plain", "read_text"),
    "markdown": ("text/markdown", "plain", "read_text"),
    "code": ("text/plain", "plain", "read_text"),
    "html": ("text/html", "html", "read_html"),
    "jsonl": ("application/jsonl", "rows", "read_jsonl"),
    "json": ("application/json", "rows", "read_json"),
    "csv": ("text/csv", "rows", "read_csv"),
    "yaml": ("application/yaml", "rows", "read_yaml"),
    "parquet": ("application/vnd.apache.parquet", "rows", "read_parquet"),
    "pdf": ("application/pdf", "pdf", "read_pdf"),
    "docx": ("application/vnd.openxmlformats-officedocument.wordprocessingml.document", "docx", "read_docx"),
    "odt": ("application/vnd.oasis.opendocument.text", "odt", "read_odt"),
    "epub": ("application/epub+zip", "epub", "read_epub"),
    "rtf": ("application/rtf", "rtf", "read_rtf"),
    "mail": ("message/rfc822", "mail", "read_mail"),
    "mbox": ("application/mbox", "mail", "mbox_members"),
    "notebook": ("application/x-ipynb+json", "notebook", "read_notebook"),
    "zip": ("application/zip", "archives", "zip_members"),
    "tar": ("application/x-tar", "archives", "tar_members"),
}
# Readers that open a file of their own accord, packed or not: ``read(path, reading) -> Iterator[Record]``.
BY_PATH = {"warc": "application/warc", "wiki": "application/xml"}
_CONTAINERS = ("zip", "tar", "mbox")


def read_file(path: Path, kind: str | None = None, url: str | None = None) -> Reading:
    """Open a file whatever it is.

    Args:
        path: the file.
        kind: the reader to use, where the source knows better than the file's content; a key of READERS or BY_PATH.
        url: where the file stood, when known; pages' links are read by it.

    Raises:
        NotText: it should be text by its name and is not, or it is damaged.
        Skip: it is not text, by name and content, or of a kind that cannot be read.
        OSError: it cannot be opened.
    """
    return read_blob(blobs.of(path), kind, url)


def read_blob(blob: Blob, kind: str | None = None, url: str | None = None) -> Reading:
    """Open bytes whatever they are; as ``read_file``."""
    if blob.fault is not None:
        raise Skip(blob.fault)
    if kind in BY_PATH:
        return _by_path(blob, kind, url)
    packed = blob
    if kind is None or kind in PACKED:
        kind = find_kind(blob)
        while kind in PACKED:
            blob = blobs.unpack(blob, kind)
            kind = find_kind(blob)
    kind = kind or None
    if kind in BINARY or kind == "rtf":
        return _start(Reading(kind, "", None, iter(()), url=url), blob)
    try:
        charset = t.find_charset(blob)
    except t.Bomb:
        raise
    except NotText as error:
        if promises(blob):
            raise NotText(f"named {blob.suffix or blob.name} but it holds {error}") from error
        raise Skip(str(error)) from error
    kind = kind or find_text_kind(blob, charset)
    if kind in BY_PATH:
        return _by_path(packed, kind, url)
    kind, _, language = kind.partition(":")
    reading = Reading(kind, "", charset.codec, iter(()), url=url)
    if charset.note and kind not in BINARY:
        reading.notes.append(charset.note)
    reading.charset_found = charset
    if language:
        reading.mime = f"text/x-{language}"
    return _start(reading, blob)


def _by_path(blob: Blob, kind: str, url: str | None) -> Reading:
    if blob.path is None and kind != "warc":
        raise Skip(f"a {kind} file inside an archive: unpack it, or name it as a source of its own")
    module = importlib.import_module(f"gptwright.corpus.readers.{kind}")
    reading = Reading(kind, BY_PATH[kind], None, iter(()), url=url)
    reading.records = _finish(module.read(blob if blob.path is None else blob.path, reading), reading)
    return reading


def _start(reading: Reading, blob: Blob) -> Reading:
    mime, module, function = READERS[reading.kind]
    reading.mime = reading.mime or mime
    if blob.note:
        reading.notes.append(blob.note)
    call = getattr(importlib.import_module(f"gptwright.corpus.readers.{module}"), function)
    if reading.kind in _CONTAINERS:
        reading.members = call(blob, reading)
    else:
        read: Read = call
        reading.records = _finish(read(blob, reading), reading)
    return reading


def _finish(found: Iterator[Record], reading: Reading) -> Iterator[Record]:
    """Texts that were decoded wrongly before are repaired; those longer than a part become several records; chats stay whole."""
    for record in found:
        if reading.kind == "code":  # what looks wrong there is likely to be about encodings
            yield record
            continue
        if record.messages is not None:
            mended = [t.repair(message["content"]) for message in record.messages]
            if any(one is not None for one in mended):
                reading.n_repaired += 1
                record = replace(
                    record,
                    messages=[
                        m | {"content": one or m["content"]} for m, one in zip(record.messages, mended, strict=True)
                    ],
                )
            yield record
            continue
        if (text := t.repair(record.text)) is not None:
            reading.n_repaired += 1
            record = replace(record, text=text)
        if len(record.text) <= t.PART_CHARS + t.PART_CHARS // 2:
            yield record
            continue
        for number, piece in enumerate(t.parts([record.text]), 1):
            yield replace(record, text=piece, part=number)


def check_columns(names: list[str]) -> None:
    """Raise Skip unless a table's columns hold texts or conversations."""
    from gptwright.corpus.readers.rows import check_columns as check

    check(names)
