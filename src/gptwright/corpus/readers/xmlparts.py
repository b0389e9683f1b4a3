"""Documents that are zip archives of XML: their parts, read as events, with no entity ever expanded; and text made of paragraphs."""

import bisect
import zipfile
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import IO, Any
from xml.parsers import expat

from gptwright.corpus import text as t
from gptwright.corpus.readers import blob as blobs
from gptwright.corpus.readers.base import NotText, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.kinds import check_directory

Start = Callable[[str, str, dict[str, str]], None]  # namespace, name, attributes by their local names
End = Callable[[str, str], None]


class Package:
    """An open document of parts."""

    def __init__(self, blob: Blob) -> None:
        self._blob = blob
        self._file = blob.seekable()
        try:
            check_directory(self._file, blob)
            self._zip = zipfile.ZipFile(self._file)
        except (zipfile.BadZipFile, ValueError, NotImplementedError, OSError) as error:
            self._file.close()
            raise NotText(f"a damaged file ({str(error).rstrip('.')}), or one that was cut off") from error
        self.names = {entry.filename: entry for entry in self._zip.infolist()}

    def __enter__(self) -> "Package":
        return self

    def __exit__(self, *_: object) -> None:
        self._zip.close()
        self._file.close()

    def open(self, name: str) -> IO[bytes]:
        """A part as a stream.

        Raises:
            NotText: it is not there, or damaged.
        """
        entry = self.names.get(name)
        if entry is None:
            raise NotText(f"its part {name} is missing")
        return blobs.metered(lambda: self._zip.open(entry), self._blob.budget)()

    def read(self, name: str, most: int = 64 << 20) -> bytes:
        """A part's bytes, at most so many."""
        with self.open(name) as file:
            data = blobs.read_up_to(file, most + 1)
        if len(data) > most:
            raise NotText(f"its part {name} is larger than {most >> 20} MB")
        return data


class _Doctype(Exception):
    pass


def walk(file: IO[bytes], start: Start, end: End, text: Callable[[str], None]) -> None:
    """Read XML as events. A document type, with which entities could be made to grow without bound, ends it.

    Raises:
        NotText: it is not well formed, breaks off, or declares a document type with entities.
    """
    parser = expat.ParserCreate(namespace_separator=" ")
    parser.buffer_text = True

    def on_start(tag: str, attributes: dict[str, str]) -> None:
        space, _, name = tag.rpartition(" ")
        start(space, name, {key.rpartition(" ")[2]: value for key, value in attributes.items()})

    def on_end(tag: str) -> None:
        space, _, name = tag.rpartition(" ")
        end(space, name)

    def on_entity(*_: Any) -> None:
        raise _Doctype

    parser.StartElementHandler, parser.EndElementHandler, parser.CharacterDataHandler = on_start, on_end, text
    parser.EntityDeclHandler = on_entity
    try:
        while block := file.read(1 << 16):
            parser.Parse(block, False)
        parser.Parse(b"", True)
    except _Doctype:
        raise NotText("its XML declares entities, as no such document has to; they are not expanded") from None
    except expat.ExpatError as error:
        raise NotText(f"its XML is damaged ({error}), or was cut off") from error


@dataclass
class Prose:
    """Text as it grows by paragraphs, list items, tables and notes.

    Blocks stand apart by a blank line, items of a list and rows of a table by a line end; cells by " | ".
    """

    blocks: list[tuple[str, str]] = field(default_factory=list)  # (kind, text)
    notes: list[str] = field(default_factory=list)
    _now: list[str] = field(default_factory=list)
    _rows: list[list[str]] = field(default_factory=list)  # of the tables that are open, the inner last: cells so far
    _cells: list[list[str]] = field(default_factory=list)  # of the cells that are open: paragraphs so far

    def say(self, text: str) -> None:
        """Characters of the current paragraph."""
        self._now.append(text)

    def paragraph(self, kind: str = "p", mark: str = "") -> None:
        """End the current paragraph; ``kind`` "li" is an item of a list, with its mark."""
        text = "".join(self._now).strip("\n").rstrip()
        self._now = []
        if not text.strip():
            return
        if self._cells:
            self._cells[-1].append(" ".join(text.split()))
        else:
            self.blocks.append((kind, mark + text))

    def open_row(self) -> None:
        self._rows.append([])

    def open_cell(self) -> None:
        self.paragraph()
        self._cells.append([])

    def close_cell(self) -> None:
        self.paragraph()
        if self._cells and self._rows:
            self._rows[-1].append(" ".join(self._cells.pop()))

    def drop_cell(self) -> None:
        """Forget the open cell, which a row's end showed to be none."""
        self._now = []
        if self._cells:
            self._cells.pop()

    def close_row(self) -> None:
        """A row of a table; one of a table within a cell becomes text of that cell."""
        if not self._rows:
            return
        cells = self._rows.pop()
        if any(cells):
            row = " | ".join(cells)
            if self._cells:
                self._cells[-1].append(row)
            else:
                self.blocks.append(("tr", row))

    def text(self) -> str:
        """All of it; the notes follow at the end."""
        out: list[str] = []
        for at, (kind, text) in enumerate(self.blocks):
            if at:
                out.append("\n" if kind in ("li", "tr") and self.blocks[at - 1][0] == kind else "\n\n")
            out.append(text)
        for number, note in enumerate(self.notes, 1):
            out.append(("\n\n" if number == 1 else "\n") + f"[{number}] {' '.join(note.split())}")
        return "".join(out)


def records_of(
    pieces: Iterable[tuple[str, str]], title: str | None = None, lang: str | None = None
) -> Iterator[Record]:
    """One document of several pieces, in parts; a part after the first is placed by the piece that it begins in.

    Args:
        pieces: (place, text), such as ("page=3", "..."); they are joined by nothing.
    """
    starts: list[int] = []
    places: list[str] = []

    def stream() -> Iterator[str]:
        at = 0
        for place, text in pieces:
            starts.append(at)
            places.append(place)
            at += len(text)
            yield text

    for number, (start, text) in enumerate(t.placed_parts(stream()), 1):
        place = places[bisect.bisect_right(starts, start) - 1] if number > 1 else ""
        yield Record(place, text, title=title, lang=lang, part=number)
