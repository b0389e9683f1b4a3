"""One file to records: its kind told by content and suffix, then text, HTML, JSON, JSONL, CSV, YAML or parquet is read.

A reader yields ``Record``; it notes rows that it cannot read and raises ``NotText`` or ``Skip`` for a file that gives nothing.
"""

import csv
import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from gptwright.corpus import text as t
from gptwright.corpus.shapes import (
    PROMPT_KEYS,
    REPLY_KEYS,
    TEXT_KEYS,
    Chat,
    Fault,
    Message,
    Plain,
    read_record,
    readable,
    records,
)

_TEXT_SUFFIXES = (
    ".txt",
    ".md",
    ".markdown",
    ".rst",
    ".text",
    ".html",
    ".htm",
    ".xhtml",
    ".jsonl",
    ".ndjson",
    ".json",
    ".csv",
    ".tsv",
    ".yml",
    ".yaml",
)
# A comment ends at its first "-->": were it allowed to run on to a later one, a thousand comments would be tried in 2^1000 ways.
_HTML = re.compile(
    rb"\s*(?:<\?xml[^>]*>\s*)?(?:<!--(?:(?!-->).)*-->\s*)*<(?:!doctype\s+html|html)[\s>]", re.IGNORECASE | re.DOTALL
)
MOST_FAULTS = 1000
EXTRACTOR = "gptwright.readers"


class Skip(Exception):
    """A file that is not meant to be read as text; the message says why."""


@dataclass(frozen=True)
class RowFault:
    """A row that was not read: its place inside the file, its line where lines have numbers, what is wrong and what to do."""

    place: str
    line: int | None
    what: str


@dataclass(frozen=True)
class Record:
    """A document before it has ids: text, or messages; ``suffix`` is its place inside the file."""

    suffix: str
    text: str = ""
    messages: list[Message] | None = None
    title: str | None = None
    url: str | None = None
    lang: str | None = None
    part: int = 1
    line: int | None = None


@dataclass
class Reading:
    """A file being read: what it is, and what is noted on the way."""

    kind: str
    mime: str
    charset: str | None
    records: Iterator[Record]
    notes: list[str] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)  # the first MOST_FAULTS of them
    n_faults: int = 0
    n_blank: int = 0  # rows that hold no text at all

    def fault(self, place: str, line: int | None, error: object) -> None:
        self.n_faults += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(RowFault(place, line, str(error)))


def read_file(path: Path) -> Reading:
    """Open a file whatever it is.

    Raises:
        NotText: it should be text by its name and is not.
        Skip: it is not text, by name and content, or of a kind that cannot be read.
        OSError: it cannot be opened.
    """
    with open(path, "rb") as file:
        head = file.read(t.SNIFF_BYTES)
    suffix = path.suffix.lower()
    kind = t.magic(head)
    if kind == "parquet":
        return _start(
            Reading("parquet", "application/vnd.apache.parquet", None, iter(())), lambda r: _read_parquet(path, r)
        )
    if kind is not None:
        if suffix in _TEXT_SUFFIXES:
            raise t.NotText(f"named {suffix} but it is {kind}")
        raise Skip(f"{kind}: not a kind of file that can be read yet")
    try:
        charset = t.find_charset(path)
    except t.NotText as error:
        if suffix in (*_TEXT_SUFFIXES, ".parquet"):
            raise t.NotText(f"named {suffix} but it holds {error}") from error
        raise Skip(str(error)) from error
    kind = _text_kind(head, suffix, charset)
    mime, reader = _READERS[kind]
    reading = Reading(kind, mime, charset.codec, iter(()))
    if charset.note:
        reading.notes.append(charset.note)
    if kind in ("html", "json", "yaml") and path.stat().st_size > t.WHOLE_BYTES:
        raise Skip(
            f"larger than {t.WHOLE_BYTES >> 20} MB, which is too much for one {kind} file. Split it, or write JSONL"
        )
    return _start(reading, lambda r: reader(path, charset, r))


def _start(reading: Reading, reader: Callable[[Reading], Iterator[Record]]) -> Reading:
    reading.records = _cut_long(reader(reading))
    return reading


def _text_kind(head: bytes, suffix: str, charset: t.Charset) -> str:
    """Kind of a text file: what its name says, corrected by how it begins."""
    if _HTML.match(head) and suffix not in (".md", ".markdown", ".rst"):
        return "html"
    start = head.decode(charset.codec, "replace").lstrip("\ufeff \t\r\n")
    lines = [line for line in start.splitlines() if line.strip()][:3]
    json_lines = len(lines) > 1 and all(
        _is_json_object(line) for line in lines[: len(lines) - (len(head) == t.SNIFF_BYTES)]
    )
    if suffix in (".jsonl", ".ndjson") or json_lines:
        whole = suffix in (".jsonl", ".ndjson") and start[:1] == "[" and not _is_json(lines[0] if lines else "")
        return "json" if whole else "jsonl"
    if suffix == ".json":
        return "json"
    if suffix in (".csv", ".tsv"):
        return "csv"
    if suffix in (".yml", ".yaml"):
        return "yaml"
    if suffix in (".html", ".htm", ".xhtml"):
        return "html" if "<" in start[:2000] else "text"
    return "markdown" if suffix in (".md", ".markdown") else "text"


def _is_json(line: str) -> bool:
    try:
        json.loads(line)
    except (ValueError, RecursionError):
        return False
    return True


def _is_json_object(line: str) -> bool:
    return line.lstrip().startswith("{") and _is_json(line)


def _cut_long(found: Iterator[Record]) -> Iterator[Record]:
    """Documents of a text longer than a part become several records; conversations stay whole."""
    for record in found:
        if record.messages is not None or len(record.text) <= t.PART_CHARS + t.PART_CHARS // 2:
            yield record
            continue
        for number, piece in enumerate(t.parts([record.text]), 1):
            yield Record(record.suffix, piece, None, record.title, record.url, record.lang, number)


def _read_text(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    with t.open_text(path, charset) as file:
        for number, piece in enumerate(t.parts(t.blocks(file)), 1):
            yield Record("", piece, part=number)


def _read_html(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    from resiliparse.extract.html2text import extract_plain_text
    from resiliparse.parse.html import HTMLTree

    raw = path.read_bytes()
    declared = re.search(rb"<meta[^>]+charset=[\"']?([A-Za-z0-9_-]+)", raw[:4096], re.IGNORECASE)
    if charset.note and declared:  # not UTF-8, and the page says what it is
        try:
            page = raw.decode(declared[1].decode())
            reading.charset, reading.notes = declared[1].decode().lower(), []
        except (LookupError, UnicodeDecodeError):
            page = raw.decode(charset.codec, charset.errors)
    else:
        page = raw.decode(charset.codec, charset.errors)
    tree = HTMLTree.parse(page)
    text = extract_plain_text(tree, main_content=True, alt_texts=False, preserve_formatting=True)
    root = tree.document.query_selector("html") if tree.document is not None else None
    lang = root.getattr("lang") if root is not None else None
    yield Record("", text, title=(tree.title or "").strip() or None, lang=lang or None)


def _read_jsonl(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    with t.open_text(path, charset) as file:
        for number, line in enumerate(t.bounded_lines(file), 1):
            if line is None:
                reading.fault(f"row {number}", number, f"longer than {t.ROW_CHARS >> 20} M characters. Split it")
            elif line.strip():
                try:
                    value = json.loads(line)
                except (ValueError, RecursionError) as error:
                    reading.fault(f"row {number}", number, f"not JSON ({error}). Write one JSON object a line")
                    continue
                yield from _record(value, f"row={number}", reading, number)


def _read_json(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    with t.open_text(path, charset) as file:
        try:
            value = json.load(file)
        except (ValueError, RecursionError) as error:
            raise t.NotText(f"not valid JSON ({error})") from error
    yield from _walk(value, reading)


def _read_yaml(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    import yaml

    # The base loader makes no booleans of "yes" and no dates of dates: a text stays a text. It can build no objects either.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    with t.open_text(path, charset) as file:
        try:
            value = yaml.load(file, Loader=loader)
        except (yaml.YAMLError, RecursionError) as error:
            raise t.NotText(f"not valid YAML ({' '.join(str(error).split())})") from error
    yield from _walk(value, reading)


def _walk(value: Any, reading: Reading) -> Iterator[Record]:
    for suffix, record in records(value):
        yield from _record(record, suffix, reading)


def _read_csv(path: Path, charset: t.Charset, reading: Reading) -> Iterator[Record]:
    csv.field_size_limit(t.ROW_CHARS)
    with t.open_text(path, charset) as file:
        sample = file.read(8192)
    delimiter = max(",;\t|", key=(sample.splitlines() or [""])[0].count)
    with t.open_text(path, charset) as file:
        rows = csv.reader(_lines_for_csv(file), delimiter=delimiter)
        number = 0
        try:
            header = [name.strip() for name in next(rows, [])]
            check_columns(header)
            for number, row in enumerate(rows, 1):
                if any(cell.strip() for cell in row):
                    if len(row) != len(header):
                        reading.fault(
                            f"row {number}",
                            rows.line_num,
                            f"{len(row)} cells where the header has {len(header)}. Quote the texts",
                        )
                        continue
                    yield from _record(dict(zip(header, row, strict=True)), f"row={number}", reading, rows.line_num)
        except csv.Error as error:
            reading.fault(f"row {number + 1}", rows.line_num + 1, f"{error}; the rows after it were not read")


def _lines_for_csv(file: Any) -> Iterator[str]:
    for line in t.bounded_lines(file):
        if line is None:
            raise csv.Error(f"longer than {t.ROW_CHARS >> 20} M characters")
        yield line.replace("\0", "")


def check_columns(names: list[str]) -> None:
    """Raise Skip unless a table's columns hold texts or conversations."""
    if not readable(dict.fromkeys(names)):
        wanted = f"{TEXT_KEYS[0]}, messages, or {PROMPT_KEYS[0]} and {REPLY_KEYS[0]}"
        raise Skip(f"no column of texts among {', '.join(names[:8]) or 'none'}. Name one of them {wanted}")


def _read_parquet(path: Path, reading: Reading) -> Iterator[Record]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        file = pq.ParquetFile(path)
        check_columns(file.schema_arrow.names)
        number = 0
        for batch in file.iter_batches(batch_size=256):
            for row in batch.to_pylist():
                number += 1
                yield from _record(row, f"row={number}", reading)
    except (pa.ArrowException, OSError) as error:
        raise t.NotText(f"not a readable parquet file ({str(error).splitlines()[0]})") from error


def _record(value: Any, suffix: str, reading: Reading, line: int | None = None) -> Iterator[Record]:
    try:
        found = read_record(value)
    except Fault as error:
        reading.fault(suffix.replace("=", " ") or "the file", line, error)
        return
    if isinstance(found, Chat):
        messages = [{"role": m["role"], "content": t.normalise(m["content"])} for m in found.messages]
        yield Record(suffix, messages=[m for m in messages if m["content"]], line=line)
    elif isinstance(found, Plain):
        yield Record(suffix, t.normalise(found.text), title=found.title, url=found.url, line=line)


def summary(reading: Reading) -> str | None:
    """What to say of a file that was read: notes, and how many rows were not."""
    said = list(reading.notes)
    if reading.n_faults:
        first = reading.faults[0]
        said.append(
            f"{reading.n_faults} row{'s' * (reading.n_faults > 1)} not read, the first: {first.place}: {first.what}"
        )
    if reading.n_blank:
        said.append(f"{reading.n_blank} row{'s' * (reading.n_blank > 1)} without text")
    return "; ".join(said) or None


_READERS: dict[str, tuple[str, Callable[[Path, t.Charset, Reading], Iterator[Record]]]] = {
    "text": ("text/plain", _read_text),
    "markdown": ("text/markdown", _read_text),
    "html": ("text/html", _read_html),
    "jsonl": ("application/jsonl", _read_jsonl),
    "json": ("application/json", _read_json),
    "csv": ("text/csv", _read_csv),
    "yaml": ("application/yaml", _read_yaml),
}
