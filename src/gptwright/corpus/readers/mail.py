"""E-mail: a message as a person sees it, with subject, sender and date above its text; quoted replies stay; attachments are members.

A mailbox is an archive of messages.
"""

import email
import email.policy
import io
from collections.abc import Iterator
from datetime import datetime
from email.message import EmailMessage, Message
from typing import IO

from gptwright.corpus import text as t
from gptwright.corpus.readers import blob as blobs
from gptwright.corpus.readers.archives import clean_name
from gptwright.corpus.readers.base import Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.html import decode_page, whole_text
from gptwright.corpus.readers.xmlparts import records_of
from gptwright.corpus.sources.base import Facts

MOST_BYTES = 64 << 20  # of a message with its attachments
_MOST_PARTS = 1000
_DEEPEST = 50
_SHOWN = ("Subject", "From", "Date")


def mbox_members(blob: Blob, reading: Reading) -> Iterator[Blob]:
    """The messages of a mailbox, in its order; a line "From ..." after an empty line begins the next.

    Source: RFC 4155; lines that were marked by ">" lose one mark, as the variant mboxrd says.
    """
    lines: list[bytes] = []
    number, size, blank = 0, 0, True
    with blob.open() as file:
        for line in _lines(file):
            if blank and line.startswith(b"From "):
                if number:
                    yield _message(number, lines, size, blob)
                number, lines, size = number + 1, [], 0
            else:
                size += len(line)
                if size <= MOST_BYTES:
                    lines.append(line[1:] if line.startswith(b">") and line.lstrip(b">").startswith(b"From ") else line)
            blank = not line.strip()
    if number:
        yield _message(number, lines, size, blob)


def _lines(file: IO[bytes]) -> Iterator[bytes]:
    while line := file.readline(t.BLOCK_BYTES):
        yield line


def _message(number: int, lines: list[bytes], size: int, blob: Blob) -> Blob:
    found = blobs.of_bytes(f"{number}.eml", b"".join(lines), blob)
    if size > MOST_BYTES:
        found.fault = f"a message larger than {MOST_BYTES >> 20} MB"
    return found


def read_mail(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document; what is attached becomes the reading's members.

    Source: RFC 5322, RFC 2045 to 2049.
    """
    data = blob.whole(MOST_BYTES, "message")
    if data.count(b"oundary=") > _MOST_PARTS:
        raise t.NotText(f"more than {_MOST_PARTS} parts within parts, as no honest message has")
    message = email.message_from_bytes(data, policy=email.policy.default)
    attached: list[Blob] = []
    body = _text(message, attached, blob, 0) if isinstance(message, EmailMessage) else ""
    shown = [f"{name}: {value}" for name in _SHOWN if (value := _header(message, name))]
    reading.members = iter(attached)
    text = "\n".join(shown) + "\n\n" + body if body.strip() else ""
    facts = Facts(published_at=_date(message))
    for record in records_of([("", text)], title=_header(message, "Subject")):
        yield Record(record.suffix, record.text, None, record.title, part=record.part, facts=facts)


def _text(part: EmailMessage, attached: list[Blob], blob: Blob, depth: int) -> str:
    """The text of a part; of alternatives the plainest that says something."""
    if depth > _DEEPEST or len(attached) > _MOST_PARTS:
        return ""
    kind = part.get_content_type()
    if kind == "multipart/alternative":
        found = [(one.get_content_type(), _text(one, attached, blob, depth + 1)) for one in _children(part)]
        plain = next((text for mime, text in found if mime == "text/plain" and text.strip()), "")
        return plain or next((text for _, text in reversed(found) if text.strip()), "")
    if part.is_multipart() and kind != "message/rfc822":
        return "\n\n".join(text for one in _children(part) if (text := _text(one, attached, blob, depth + 1)).strip())
    name = part.get_filename()
    if part.get_content_disposition() == "attachment" or name or kind == "message/rfc822":
        attached.append(_attachment(part, name, kind, blob, len(attached) + 1))
        return ""
    if kind == "text/html":
        page, _ = decode_page(_payload(part), part.get_content_charset())
        return whole_text(page)
    if kind.startswith("text/"):
        data = _payload(part)
        charset = t.find_charset(_Bytes(data), part.get_content_charset())
        return data.decode(charset.codec, charset.errors)
    return ""


def _children(part: EmailMessage) -> list[EmailMessage]:
    return [one for one in part.iter_parts() if isinstance(one, EmailMessage)]


def _payload(part: EmailMessage) -> bytes:
    data = part.get_payload(decode=True)
    return data if isinstance(data, bytes) else b""


def _attachment(part: EmailMessage, name: str | None, kind: str, blob: Blob, number: int) -> Blob:
    if kind == "message/rfc822":
        inner = part.get_payload()
        data = inner[0].as_bytes() if isinstance(inner, list) and inner and isinstance(inner[0], Message) else b""
        return blobs.of_bytes(f"{number}.eml", data, blob)
    clean, odd = clean_name(name or f"{number}")
    found = blobs.of_bytes(f"{number}/{clean}", _payload(part), blob)
    found.note = odd
    return found


class _Bytes:
    """Bytes that open like a file."""

    def __init__(self, data: bytes) -> None:
        self._data = data

    def open(self, mode: str = "rb", /) -> IO[bytes]:
        return io.BytesIO(self._data)


def _header(message: object, name: str) -> str | None:
    try:
        value = message[name]  # type: ignore[index]
    except (
        ValueError,
        IndexError,
        LookupError,
        AttributeError,
        TypeError,
    ):  # headers that the parser of addresses falls over
        return None
    return " ".join(t.normalise(str(value)).split())[:1000] or None if value is not None else None


def _date(message: object) -> datetime | None:
    from gptwright.corpus.sources.page import parse_date

    return parse_date(_header(message, "Date"))
