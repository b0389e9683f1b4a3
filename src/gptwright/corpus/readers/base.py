"""What every reader speaks: documents before they have ids, a file being read with what is noted on the way, and what ends a reading."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from gptwright.corpus.shapes import Message
from gptwright.corpus.text import Charset, NotText

if TYPE_CHECKING:
    from gptwright.corpus.readers.blob import Blob
    from gptwright.corpus.sources.base import Facts

MOST_FAULTS = 1000
MOST_ASIDE = 200_000
EXTRACTOR = "gptwright.readers"

__all__ = ["EXTRACTOR", "MOST_FAULTS", "Aside", "NotText", "Read", "Reading", "Record", "RowFault", "Skip", "summary"]


class Skip(Exception):
    """A file that is not meant to be read as text; the message says why."""


@dataclass(frozen=True)
class RowFault:
    """A row that was not read: its place inside the file, its line where lines have numbers, what is wrong and what to do."""

    place: str
    line: int | None
    what: str


@dataclass(frozen=True)
class Aside:
    """A thing inside a file that gives no document: an outcome of its own, as files have them."""

    place: str
    outcome: str  # empty, skipped, unreadable
    reason: str
    size_bytes: int = 0


@dataclass(frozen=True)
class Record:
    """A document before it has ids: text, or messages; ``suffix`` is its place inside the file.

    ``facts`` are what is known of this document beyond what is known of its file; ``mime`` and ``charset`` where they differ from the file's.
    """

    suffix: str
    text: str = ""
    messages: list[Message] | None = None
    title: str | None = None
    url: str | None = None
    lang: str | None = None
    part: int = 1
    line: int | None = None
    facts: "Facts | None" = None
    mime: str | None = None
    charset: str | None = None


@dataclass
class Reading:
    """A file being read: what it is, and what is noted on the way. An archive has ``members`` instead of records."""

    kind: str
    mime: str
    charset: str | None
    records: Iterator[Record]
    notes: list[str] = field(default_factory=list)
    faults: list[RowFault] = field(default_factory=list)  # the first MOST_FAULTS of them
    n_faults: int = 0
    n_blank: int = 0  # rows that hold no text at all
    n_repaired: int = 0  # texts that had been decoded wrongly before they came here
    members: "Iterator[Blob] | None" = None
    aside: list[Aside] = field(default_factory=list)  # the first MOST_ASIDE of them
    n_aside: int = 0
    url: str | None = None  # where the file stood, when that is known
    charset_found: Charset = field(default_factory=lambda: Charset("utf-8"))  # how to decode it, when it is a text

    def fault(self, place: str, line: int | None, error: object) -> None:
        """Note a row that was not read."""
        self.n_faults += 1
        if len(self.faults) < MOST_FAULTS:
            self.faults.append(RowFault(place, line, str(error)))

    def put_aside(self, place: str, outcome: str, reason: str, size_bytes: int = 0) -> None:
        """Give a thing inside the file an outcome row of its own."""
        self.n_aside += 1
        if len(self.aside) < MOST_ASIDE:
            self.aside.append(Aside(place, outcome, reason, size_bytes))


class Read(Protocol):
    """A reader: yields a file's documents in order, and notes in ``reading`` what it could not read.

    Raises NotText (the file is broken, or holds no text) or Skip (it is not meant to be read).
    """

    def __call__(self, blob: "Blob", reading: Reading) -> Iterator[Record]: ...


def summary(reading: Reading) -> str | None:
    """What to say of a file that was read: notes, and how many rows were not."""
    said = list(reading.notes)
    if reading.n_repaired:
        said.append(f"{_count(reading.n_repaired, 'text')} repaired that had been decoded wrongly before")
    if reading.n_faults:
        first = reading.faults[0]
        said.append(f"{_count(reading.n_faults, 'row')} not read, the first: {first.place}: {first.what}")
    if reading.n_blank:
        said.append(f"{_count(reading.n_blank, 'row')} without text")
    if reading.n_aside > len(reading.aside):
        said.append(f"{reading.n_aside - len(reading.aside)} more things in it gave no document")
    return "; ".join(said) or None


def _count(number: int, noun: str) -> str:
    return f"{number} {noun}{'s' * (number > 1)}"
