"""EPUB books: their chapters in the order of the spine, each an XHTML page; the table of contents is not read."""

import posixpath
from collections.abc import Iterator
from urllib.parse import unquote

from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.html import decode_page, whole_text
from gptwright.corpus.readers.xmlparts import Package, records_of, walk
from gptwright.corpus.sources.base import Facts

_RIGHTS_CONF = 0.6  # free words of the publisher
_PAGES = ("application/xhtml+xml", "text/html", "application/x-dtbook+xml")


def read_epub(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document, in parts that are placed by the chapter that they begin in.

    Source: EPUB 3.3, sections 4 to 5; OPF 2.0.
    """
    with Package(blob) as package:
        if "META-INF/encryption.xml" in package.names and "META-INF/rights.xml" in package.names:
            raise NotText("protected by digital rights management; its text cannot be read")
        book = _Book(_root(package), package)
        facts = book.facts()
        for record in records_of(_chapters(package, book, reading), title=book.title, lang=book.language):
            yield Record(
                record.suffix,
                record.text,
                None,
                record.title,
                None,
                record.lang,
                record.part,
                None,
                facts if facts != Facts() else None,
            )


def _chapters(package: Package, book: "_Book", reading: Reading) -> Iterator[tuple[str, str]]:
    for number, name in enumerate(book.spine, 1):
        try:
            page, _ = decode_page(package.read(name))
        except NotText as error:
            reading.fault(f"chapter {number}", None, error)
            continue
        if text := whole_text(page).strip():
            yield f"chapter={number}", text + "\n\n"


class _Book:
    """What a package document says."""

    def __init__(self, opf: str, package: Package) -> None:
        self.items: dict[str, tuple[str, str, str]] = {}
        self.order: list[str] = []
        self.meta: dict[str, list[str]] = {}
        self._open = ""
        with package.open(opf) as file:
            walk(file, self._start, self._end, self._text)
        base = posixpath.dirname(opf)
        self.spine: list[str] = []
        for key in self.order:
            href, media, properties = self.items.get(key, ("", "", ""))
            name = posixpath.normpath(posixpath.join(base, unquote(href).partition("#")[0]))
            if media in _PAGES and "nav" not in properties.split() and name in package.names and name not in self.spine:
                self.spine.append(name)
        if not self.spine:
            raise NotText("its spine names no chapter that is there")

    def _start(self, space: str, name: str, attributes: dict[str, str]) -> None:
        self._open = name if "purl.org/dc" in space else ""
        if self._open:
            self.meta.setdefault(name, []).append("")
        if name == "item":
            self.items[attributes.get("id", "")] = tuple(
                attributes.get(k, "") for k in ("href", "media-type", "properties")
            )  # type: ignore[assignment]
        elif name == "itemref" and attributes.get("linear") != "no":
            self.order.append(attributes.get("idref", ""))

    def _end(self, space: str, name: str) -> None:
        self._open = ""

    def _text(self, text: str) -> None:
        if self._open:
            self.meta[self._open][-1] += text

    def _one(self, name: str) -> str | None:
        return " ".join(self.meta[name][0].split())[:300] or None if self.meta.get(name) else None

    @property
    def title(self) -> str | None:
        return self._one("title")

    @property
    def language(self) -> str | None:
        return self._one("language")

    def facts(self) -> Facts:
        """Author, date and rights."""
        from gptwright.corpus.licences.names import normalise
        from gptwright.corpus.sources.page import parse_date

        rights = self._one("rights")
        licence = normalise(rights) if rights else None
        return Facts(
            attribution=self._one("creator"),
            published_at=parse_date(self._one("date")),
            license_id=licence,
            license_source="page-metadata" if licence else "none",
            license_conf=_RIGHTS_CONF if licence else 0.0,
        )


def _root(package: Package) -> str:
    found: list[str] = []

    def start(space: str, name: str, attributes: dict[str, str]) -> None:
        if name == "rootfile" and attributes.get("full-path"):
            found.append(attributes["full-path"])

    with package.open("META-INF/container.xml") as file:
        walk(file, start, lambda *_: None, lambda *_: None)
    if not found:
        raise NotText("its container names no package document")
    return found[0]
