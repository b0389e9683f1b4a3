"""Pages of a MediaWiki XML dump (plain, bz2 also multistream, gz, zst), one after the other; memory holds one page."""

import bz2
import gzip
import io
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import IO, Any
from urllib.parse import quote
from xml.parsers import expat

import zstandard

BLOCK_BYTES = 1 << 18
LONGEST_PAGE = 16 << 20  # characters; MediaWiki's own limit is 2 MB


class NotADump(Exception):
    """The file is no XML dump, or breaks off; the message says where."""


@dataclass
class Site:
    """What a dump says of its wiki. Namespaces: number -> name in the wiki's language."""

    name: str | None = None
    base: str | None = None
    rights: str | None = None
    lang: str | None = None
    namespaces: dict[int, str] = field(default_factory=dict)

    def url(self, title: str) -> str | None:
        """The address of a page: the main page's, with another title."""
        if not self.base or "/" not in self.base:
            return None
        return self.base.rpartition("/")[0] + "/" + quote(title.replace(" ", "_"), safe="/:@!$&'()*,;=~.-_")

    def hidden_prefixes(self) -> frozenset[str]:
        """Namespaces whose links show no text: files and categories, in English and the wiki's language."""
        own = {self.namespaces[number].lower() for number in (6, 14) if self.namespaces.get(number)}
        return frozenset({"file", "image", "media", "category"} | own)


@dataclass
class Page:
    """The newest revision of a page. ``text`` is None when it was too long."""

    id: str = ""
    title: str = ""
    namespace: int = 0
    redirect: bool = False
    model: str = "wikitext"
    timestamp: datetime | None = None
    text: str | None = ""


@contextmanager
def open_dump(source: Any) -> Iterator[IO[bytes]]:
    """Open a dump, unpacking by what its first bytes say."""
    with source.open("rb") as file:
        magic = file.read(6)
    with source.open("rb") as file:
        if magic.startswith(b"BZh"):
            yield bz2.open(file, "rb")  # also of many streams, one after the other
        elif magic.startswith(b"\x1f\x8b"):
            yield io.BufferedReader(gzip.GzipFile(fileobj=file), BLOCK_BYTES)
        elif magic.startswith(b"\x28\xb5\x2f\xfd"):
            stream = zstandard.ZstdDecompressor().stream_reader(file, read_across_frames=True)
            yield io.BufferedReader(stream, BLOCK_BYTES)
        elif magic.startswith(b"7z\xbc\xaf"):
            raise NotADump("a 7z archive. Unpack it, or take the .bz2")
        else:
            yield file


def pages(source: Any, site: Site, count: Callable[[int], None] = lambda size: None) -> Iterator[Page]:
    """Read a dump's pages in their order; of a page with several revisions the last.

    Args:
        source: the dump: a path, or bytes that open like one.
        site: filled with what stands before the first page.
        count: told of unpacked bytes; may raise to end the reading.

    Raises:
        NotADump: it is not XML, has a document type (which could be made to grow without bound), or breaks off.
    """
    handler = _Handler(site)
    parser = expat.ParserCreate()
    parser.buffer_text = True
    parser.buffer_size = 1 << 16
    parser.StartElementHandler = handler.start
    parser.EndElementHandler = handler.end
    parser.CharacterDataHandler = handler.characters
    parser.StartDoctypeDeclHandler = handler.doctype
    try:
        with open_dump(source) as file:
            while block := file.read(BLOCK_BYTES):
                count(len(block))
                parser.Parse(block, False)
                yield from handler.take()
            parser.Parse(b"", True)
            yield from handler.take()
    except expat.ExpatError as error:
        yield from handler.take()
        raise NotADump(f"not well-formed XML at line {error.lineno} ({expat.ErrorString(error.code)})") from error
    except (OSError, EOFError, zstandard.ZstdError) as error:
        yield from handler.take()
        raise NotADump(f"cannot be unpacked to its end ({error})") from error
    if not handler.is_dump:
        raise NotADump("XML, but no MediaWiki dump")


class _Handler:
    """Collects pages from the events of the XML parser."""

    _WANTED = frozenset(
        ("title", "ns", "id", "timestamp", "model", "text", "sitename", "base", "namespace", "rights", "license")
    )

    def __init__(self, site: Site) -> None:
        self.site = site
        self.is_dump = False
        self._depth = 0
        self._done: list[Page] = []
        self._page: Page | None = None
        self._in_contributor = self._in_revision = False
        self._namespace = 0
        self._parts: list[str] | None = None
        self._length = 0

    def take(self) -> list[Page]:
        done, self._done = self._done, []
        return done

    def doctype(self, *_: Any) -> None:
        raise NotADump("it declares a document type, which dumps do not")

    def start(self, name: str, attributes: dict[str, str]) -> None:
        self._depth += 1
        if self._depth == 1:
            self.is_dump = name == "mediawiki"
            self.site.lang = attributes.get("xml:lang")
            if not self.is_dump:
                raise NotADump("XML, but no MediaWiki dump")
        elif self._depth > 8:
            raise NotADump("XML that is nested deeper than a dump is")
        if name == "page":
            self._page, self._in_revision = Page(), False
        elif name == "redirect" and self._page is not None:
            self._page.redirect = True
        elif name == "revision":
            self._in_revision = True
        elif name == "contributor":
            self._in_contributor = True
        elif name == "rights" and "href" in attributes:
            self.site.rights = attributes["href"]
        if name == "namespace":
            key = attributes.get("key", "")
            self._namespace = int(key) if re.fullmatch(r"-?\d{1,6}", key) else 0
        if name in self._WANTED and not self._in_contributor:
            self._parts, self._length = [], 0

    def characters(self, data: str) -> None:
        if self._parts is not None:
            self._length += len(data)
            if self._length <= LONGEST_PAGE:
                self._parts.append(data)

    def end(self, name: str) -> None:
        self._depth -= 1
        if name == "contributor":
            self._in_contributor = False
            return
        if name == "page" and self._page is not None:
            self._done.append(self._page)
            self._page = None
            return
        if self._parts is None:
            return
        value = "".join(self._parts) if self._length <= LONGEST_PAGE else None
        self._parts = None
        if self._page is None:
            self._site(name, (value or "").strip())
        else:
            self._of_page(self._page, name, value)

    def _of_page(self, page: Page, name: str, value: str | None) -> None:
        if name == "text":
            page.text = value
        elif value is None:
            return
        elif name == "title":
            page.title = value.strip()
        elif name == "ns":
            page.namespace = int(value) if re.fullmatch(r"-?\d{1,6}", value.strip()) else -1
        elif name == "id" and not self._in_revision:
            page.id = value.strip()
        elif name == "model":
            page.model = value.strip()
        elif name == "timestamp":
            page.timestamp = _time(value.strip())

    def _site(self, name: str, value: str) -> None:
        if name == "sitename":
            self.site.name = value
        elif name == "base":
            self.site.base = value
        elif name == "namespace":
            self.site.namespaces[self._namespace] = value
        elif name in ("rights", "license") and value:
            self.site.rights = self.site.rights or value


def _time(value: str) -> datetime | None:
    try:
        found = datetime.fromisoformat(value)
    except ValueError:
        return None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
