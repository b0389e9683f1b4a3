"""Rows to records: JSONL, JSON, YAML, CSV and parquet. A row that cannot be read is a fault of its own; the others are read."""

import csv
import json
import re
from collections.abc import Iterator
from hashlib import blake2b
from typing import IO, Any
from urllib.parse import quote

from gptwright.corpus import text as t
from gptwright.corpus.readers.base import Reading, Record, Skip
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.rowfacts import row_facts
from gptwright.corpus.shapes import (
    PROMPT_KEYS,
    REPLY_KEYS,
    TEXT_KEYS,
    Chat,
    Fault,
    is_of_use,
    read_record,
    readable,
    records,
)

KEY_METADATA = (
    b"gptwright.key"  # in a parquet file's schema: the column whose values name its rows, as a query's key does
)
MOST_WHOLE = 48 << 20  # characters of a JSON file that is read whole; a list, or a map of objects, may be of any length
MOST_YAML = 8 << 20  # characters of a YAML file; its parser needs fifty times as much memory
_DEPTH = 200
_COLON = re.compile(r"\s*:\s*")
_BETWEEN = re.compile(r"[\s,]*")
_BRACKET = re.compile(r"[\[\]{}]")
_MANY_MARKS = re.compile(rf"^[ ]*(?:[-?:] ){{{_DEPTH}}}", re.MULTILINE)
_MANY_SPACES = re.compile(rf"^ {{{2 * _DEPTH},}}[^ \n]", re.MULTILINE)


def read_jsonl(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One JSON value a line."""
    loads = json.loads
    with t.open_text(blob, reading.charset_found) as file:
        for number, line in enumerate(t.bounded_lines(file), 1):
            if line is None:
                reading.fault(f"row {number}", number, f"longer than {t.ROW_CHARS >> 20} M characters. Split it")
            elif not line.isspace():
                try:
                    value = loads(line)
                except (ValueError, RecursionError) as error:
                    reading.fault(f"row {number}", number, f"not JSON ({error}). Write one JSON object a line")
                    continue
                yield from _record(value, f"row={number}", reading, number)


def read_json(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One JSON value; a list that is too long to be held is read element by element."""
    with t.open_text(blob, reading.charset_found) as file:
        text = file.read(MOST_WHOLE + 1)
        if len(text) > MOST_WHOLE and text.lstrip()[:1] in ("[", "{"):
            yield from _walk_long(text, file, reading)
            return
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise t.NotText(f"not valid JSON ({error})") from error
    yield from _walk(value, reading)


def _walk_long(text: str, file: IO[str], reading: Reading) -> Iterator[Record]:
    """The elements of a long list, or of an object that is a map of objects, of whose text the beginning was read."""
    decoder = json.JSONDecoder()
    at = len(text) - len(text.lstrip()) + 1
    closing = "]" if text[at - 1] == "[" else "}"
    number = 0
    while True:
        found = _BETWEEN.match(text, at)
        at = found.end() if found else at
        if text[at : at + 1] == closing:
            return
        try:
            key, value, end = _element(decoder, text, at, closing == "}")
        except RecursionError as error:
            reading.fault(f"row {number + 1}", None, f"{error}; the rows after it were not read")
            return
        except (ValueError, IndexError):
            key, value, end = None, None, len(text)
        if end < len(text):
            number += 1
            if key is not None and not isinstance(value, dict):
                raise Skip(
                    f"larger than {MOST_WHOLE >> 20} M characters, too much for one JSON object. Write JSONL, one object a line"
                )
            yield from _record(value, f"row={number}" if key is None else f"key={key}", reading)
            at = end
            continue
        waiting = len(text) - at  # an element that is cut off, or broken
        more = file.read(max(t.BLOCK_BYTES, waiting)) if waiting <= t.ROW_CHARS else ""
        if not more:
            reading.fault(f"row {number + 1}", None, "not valid JSON, or cut off; what comes after it was not read")
            return
        text, at = text[at:] + more, 0


def _element(decoder: json.JSONDecoder, text: str, at: int, keyed: bool) -> tuple[str | None, Any, int]:
    """The element at a place: key (of an object's), value, and where it ends."""
    key = None
    if keyed:
        key, at = decoder.raw_decode(text, at)
        colon = _COLON.match(text, at)
        if colon is None:
            raise ValueError("no colon after a key")
        at = colon.end()
    value, end = decoder.raw_decode(text, at)
    return key, value, end


def read_yaml(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One YAML document."""
    import yaml

    # The base loader makes no booleans of "yes" and no dates of dates: a text stays a text. It can build no objects either.
    loader = getattr(yaml, "CBaseLoader", yaml.BaseLoader)
    with t.open_text(blob, reading.charset_found) as file:
        text = file.read(MOST_YAML + 1)
    if len(text) > MOST_YAML:
        raise Skip(
            f"larger than {MOST_YAML >> 20} M characters, too much for one YAML file. Write JSONL, one object a line"
        )
    if _nests_deeply(text):
        raise t.NotText(f"nested more than {_DEPTH} levels deep, as no honest YAML is")
    try:
        value = yaml.load(text, Loader=loader)
    except (yaml.YAMLError, RecursionError) as error:
        raise t.NotText(f"not valid YAML ({' '.join(str(error).split())})") from error
    if _written_out(value, {}) > max(1_000_000, len(text)):
        raise t.NotText("its aliases stand for far more than the file holds, as only one made to do harm does")
    yield from _walk(value, reading)


def _nests_deeply(text: str) -> bool:
    """Whether brackets, list marks or indentation go deeper than honest data; the parser recurses in C and would fall over."""
    depth = deepest = 0
    for mark in _BRACKET.findall(text):
        depth += 1 if mark in "[{" else -1
        deepest = max(deepest, depth)
    return deepest > _DEPTH or _MANY_MARKS.search(text) is not None or _MANY_SPACES.search(text) is not None


def _written_out(value: Any, known: dict[int, int]) -> int:
    """Nodes of a value when what aliases point at is counted each time."""
    if not isinstance(value, list | dict):
        return 1
    if id(value) not in known:
        known[id(value)] = 1  # a value within itself
        inside = value.values() if isinstance(value, dict) else value
        known[id(value)] = 1 + sum(_written_out(one, known) for one in inside)
    return known[id(value)]


def _walk(value: Any, reading: Reading) -> Iterator[Record]:
    for suffix, record in records(value):
        yield from _record(record, suffix, reading)


def read_csv(blob: Blob, reading: Reading) -> Iterator[Record]:
    csv.field_size_limit(t.ROW_CHARS)
    with t.open_text(blob, reading.charset_found) as file:
        sample = file.read(8192)
    delimiter = max(",;\t|", key=(sample.splitlines() or [""])[0].count)
    with t.open_text(blob, reading.charset_found) as file:
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


def read_parquet(blob: Blob, reading: Reading) -> Iterator[Record]:
    """A row a record; only columns that may hold texts, conversations or facts about them are read."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    try:
        with blob.seekable() as stream, pq.ParquetFile(stream) as file:
            names = file.schema_arrow.names
            check_columns(names)
            key = ((file.schema_arrow.metadata or {}).get(KEY_METADATA) or b"").decode("utf-8", "replace")
            number = 0
            seen: set[int] = set()
            for batch in file.iter_batches(
                batch_size=256, columns=[name for name in names if name == key or is_of_use(name)]
            ):
                for row in batch.to_pylist():
                    number += 1
                    yield from _record(row, _row_place(row.get(key) if key else None, number, seen), reading)
    except (pa.ArrowException, OSError) as error:
        raise t.NotText(f"not a readable parquet file ({str(error).splitlines()[0]})") from error


def _row_place(key: Any, number: int, seen: set[int]) -> str:
    """A row by its key, when it has one that no row before it had; else by its number."""
    if key is None or key == "":
        return f"row={number}"
    short = int.from_bytes(blake2b(str(key).encode("utf-8", "replace"), digest_size=8).digest(), "big")
    if short in seen:
        return f"row={number}"
    seen.add(short)
    return f"key={quote(str(key), safe='/:@ ')}"


def _record(value: Any, suffix: str, reading: Reading, line: int | None = None) -> Iterator[Record]:
    try:
        found = read_record(value)
    except Fault as error:
        reading.fault(suffix.replace("=", " ") or "the file", line, error)
        return
    if isinstance(found, Chat):
        messages = [{"role": m["role"], "content": t.normalise(m["content"])} for m in found.messages]
        yield Record(suffix, messages=[m for m in messages if m["content"]], line=line, facts=row_facts(value))
    else:
        yield Record(
            suffix, t.normalise(found.text), None, found.title, found.url, found.lang, 1, line, row_facts(value)
        )
