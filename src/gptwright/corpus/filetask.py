"""One file of a task to documents: it is read, and what is in it when it is an archive; everything in it ends in one outcome."""

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

from gptwright.corpus import readers
from gptwright.corpus.docwriter import DocWriter, Shared
from gptwright.corpus.licences.headers import own_licence
from gptwright.corpus.licences.review import for_document
from gptwright.corpus.readers import Blob, Reading, Record
from gptwright.corpus.readers import blob as blobs
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.text import Bomb, NotText

Outcome = tuple[str, str | None]
HEADER_CHARS = 8192


class Input(NamedTuple):
    """A file of a task. Its place, bytes, reader and facts name what is read from it; path, size and time only find it."""

    locator: str
    path: str
    raw_hash: str
    size_bytes: int
    mtime_ns: int
    kind: str | None = None
    facts: str = "{}"  # JSON of Facts

    @property
    def identity(self) -> list[Any]:
        """What decides the rows that it gives."""
        return [self.locator, self.raw_hash, self.kind, self.facts]

    def at(self, path: str) -> "Input":
        """The same file, copied to another path."""
        try:
            info = Path(path).stat()
        except OSError:
            return self._replace(path=path)  # reading it will say that it is gone
        return self._replace(path=path, size_bytes=info.st_size, mtime_ns=info.st_mtime_ns)


class FileTask:
    """A file being read into rows.

    Args:
        terms: columns that every document of the source shares.
        file: what to read.
        writer: gets the documents.
    """

    def __init__(self, terms: dict[str, Any], file: Input, writer: DocWriter) -> None:
        self._file = file
        self._writer = writer
        # Of two licences the more trusted; the person's own word is the most.
        own = Facts(**{key: value for key, value in terms.items() if key not in ("pii_policy", "reviews")})
        self._facts = own | Facts.from_json(json.loads(file.facts))
        self._reviews = terms.get("reviews", ())
        self._inner: list[list[Any]] = []

    def run(self) -> tuple[str, str | None, list[list[Any]]]:
        """Read the file.

        Returns:
            Its outcome and reason; and for each thing in it that has an outcome of its own, a member of an archive or what a reader put
            aside: locator, outcome, reason, bytes, documents.
        """
        try:
            if Path(self._file.path).stat().st_size == 0:
                return "empty", None, []
            blob = blobs.of(Path(self._file.path))
        except OSError as error:
            return "unreadable", error.strerror or str(error), []
        outcome, reason = self._read(blob, self._file.locator, self._file.kind)
        return outcome, reason, self._inner

    def _read(self, blob: Blob, locator: str, kind: str | None = None) -> Outcome:
        """Read a blob and all that is in it."""
        before = self._writer.total
        first = len(self._inner)
        reading = None
        fault: str | None = None
        try:
            reading = readers.read_blob(blob, kind, self._facts.url)
            self._records(reading, locator)
            if reading.members is not None:
                for member in reading.members:
                    self._member(member, locator)
        except readers.Skip as error:
            if self._writer.total == before:
                return "skipped", str(error)
            fault = str(error)
        except Bomb as error:
            if blob.depth and reading is None:
                raise  # the whole file is at fault, and nothing more is taken from it
            fault = str(error)
        except NotText as error:
            fault = str(error)
        except OSError as error:
            fault = error.strerror or str(error)
        except UnicodeDecodeError as error:
            fault = f"not {error.encoding} at byte {error.start}"
        except RecursionError:
            fault = "it is nested too deep"
        except (LookupError, ArithmeticError, AttributeError, TypeError, ValueError) as error:
            # One odd file among a million must not end a build; that its reader has a fault is said, so that it can be mended.
            fault = f"its reader has a fault ({type(error).__name__}: {error}). Please report it"
        if reading is not None:
            for aside in reading.aside:
                self._inner.append([f"{locator}#{aside.place}", aside.outcome, aside.reason, aside.size_bytes, 0])
        return self._outcome(reading, fault, self._writer.total - before, len(self._inner) - first)

    def _outcome(self, reading: Reading | None, fault: str | None, documents: int, inner: int) -> Outcome:
        if fault is not None:
            return (
                ("ok", f"read in part ({documents} documents), then: {fault}") if documents else ("unreadable", fault)
            )
        said = readers.summary(reading) if reading is not None else None
        if documents:
            return "ok", said
        if reading is not None and reading.n_faults:
            return "unreadable", said
        return "empty", said or ("nothing in it gave text" if inner else "no text in it")

    def _member(self, member: Blob, locator: str) -> None:
        place = f"{locator}!/{member.name}"
        before = self._writer.total
        if member.fault is None and member.size == 0:
            outcome: Outcome = ("empty", None)
        else:
            outcome = self._read(member, place)
        self._inner.append([place, *outcome, member.size or 0, self._writer.total - before])

    def _records(self, reading: Reading, locator: str) -> None:
        shared = self._shared(reading, None)
        add = self._writer.add
        for record in reading.records:
            messages = None
            text = record.text
            if record.messages is not None:
                text = "\n".join(message["content"] for message in record.messages)
                messages = json.dumps(record.messages, ensure_ascii=False)
            if not text:
                reading.n_blank += 1
                continue
            place = record.suffix
            if record.part > 1:
                place = f"{place}&part={record.part}" if place else f"part={record.part}"
            if reading.kind == "code" and record.part == 1 and record.facts is None:
                record = self._with_header(record, text)
            common = record.facts is None and record.mime is None and record.charset is None
            common &= not (self._reviews and record.url)
            add(
                f"{locator}#{place}" if place else locator,
                text,
                messages,
                record.title,
                record.url,
                record.lang,
                record.part,
                shared if common else self._shared(reading, record),
            )

    @staticmethod
    def _with_header(record: Record, text: str) -> Record:
        """Program text says its licence and its authors at its beginning, or nowhere."""
        said = own_licence(text[:HEADER_CHARS])
        if said.id is None and not said.attribution:
            return record
        facts = Facts(
            license_id=said.id,
            license_source=said.source if said.id else "none",
            license_conf=said.confidence,
            attribution=said.attribution,
        )
        return replace(record, facts=facts)

    def _shared(self, reading: Reading, record: Record | None) -> Shared:
        facts = self._facts
        mime, charset = reading.mime, reading.charset
        if record is not None:
            mime, charset = record.mime or mime, record.charset or charset
            if (own := record.facts) is not None:
                # What is known of the document itself is nearer to it than what is known of its file.
                nearer = {
                    name: getattr(own, name)
                    for name in ("url", "title", "fetched_at", "published_at")
                    if getattr(own, name) is not None
                }
                facts = replace(facts | own, **nearer)
        if self._reviews:
            facts = for_document(facts, self._reviews, record.url if record is not None and record.url else facts.url)
        return Shared(self._file.raw_hash, mime, charset, f"{readers.EXTRACTOR}.{reading.kind}", facts)
