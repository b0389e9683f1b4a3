"""Sitemaps and feeds: lists of pages. No entity is expanded, no DTD and no network is read, and what does not end is cut.

Source: sitemaps.org protocol 0.9; RSS 2.0 (rssboard.org), RSS 1.0 (RDF) with its content module, Atom (RFC 4287).
"""

import io
import re
import zlib
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from gptwright.corpus.sources.page import parse_date
from gptwright.corpus.sources.urls import canonical

MOST_BYTES = 64 << 20  # of a sitemap, unpacked; the protocol's own limit is 50 MB
MOST_ENTRIES = 50_000
_FULL_CHARS = 500  # of text in an entry; a shorter one is a teaser, and its page is asked for
_CONTENT = "{http://purl.org/rss/1.0/modules/content/}encoded"
_ATOM = "{http://www.w3.org/2005/Atom}"
_RIGHTS = ("license", "rights", "copyright")


class NotAList(Exception):
    """The document is neither a sitemap nor a feed; the message says what is wrong."""


@dataclass(frozen=True)
class Entry:
    """A page that a list names. ``html`` is its full text, where the list carries it; ``licence`` a URL or name as it stands there."""

    url: str
    changed: str | None = None
    title: str | None = None
    author: str | None = None
    published: datetime | None = None
    html: str | None = None
    licence: str | None = None


@dataclass
class Pages:
    """A list of pages: of the pages themselves, or of further lists."""

    kind: str  # sitemap | index | feed
    entries: list[Entry] = field(default_factory=list)
    title: str | None = None
    licence: str | None = None
    cut: bool = False


def unpack(data: bytes) -> bytes:
    """A gzip file's bytes, others as they are; at most ``MOST_BYTES``.

    Raises:
        NotAList: it is larger, or damaged.
    """
    if data.startswith(b"\x1f\x8b"):
        try:
            inflate = zlib.decompressobj(47)
            data = inflate.decompress(data, MOST_BYTES + 1)
        except zlib.error as error:
            raise NotAList(f"damaged gzip ({error})") from error
    if len(data) > MOST_BYTES:
        raise NotAList(f"larger than {MOST_BYTES >> 20} MB")
    return data


def read_list(data: bytes, url: str) -> Pages:
    """Read a sitemap, a sitemap index, an RSS or Atom feed, or a plain list of URLs.

    Args:
        data: the document, perhaps packed.
        url: where it stands, for links that are relative.

    Raises:
        NotAList: it is none of them.
    """
    data = unpack(data)
    head = data[:2000].lstrip(b"\xef\xbb\xbf \t\r\n")
    if not head.startswith(b"<"):
        found = [one for line in data.decode("utf-8", "replace").split() if (one := canonical(line))]
        if not found:
            raise NotAList("neither a sitemap, nor a feed, nor a list of URLs")
        return _within(Pages("sitemap", [Entry(one) for one in dict.fromkeys(found)]))
    from lxml import etree

    try:
        steps = etree.iterparse(
            io.BytesIO(data),
            events=("start", "end"),
            resolve_entities=False,
            no_network=True,
            load_dtd=False,
            huge_tree=False,
            recover=True,
        )
        _, root = next(steps)
        name = _local(root)
        if name in ("urlset", "sitemapindex"):
            return _within(_sitemap(name, steps, url))
        if name in ("rss", "rdf", "feed"):
            for _ in steps:
                pass
            return _within(_feed(root, url))
    except (etree.XMLSyntaxError, StopIteration) as error:
        raise NotAList(f"not readable as XML ({error or 'empty'})") from error
    raise NotAList(f"a <{name}>, which is neither a sitemap nor a feed")


def _within(found: Pages) -> Pages:
    if len(found.entries) > MOST_ENTRIES:
        found.entries, found.cut = found.entries[:MOST_ENTRIES], True
    return found


def _local(element: Any) -> str:
    tag = element.tag
    return tag.rpartition("}")[2].lower() if isinstance(tag, str) else ""


def _sitemap(name: str, steps: Iterator[tuple[str, Any]], url: str) -> Pages:
    found = Pages("index" if name == "sitemapindex" else "sitemap")
    item = "sitemap" if name == "sitemapindex" else "url"
    for event, element in steps:
        if event != "end" or _local(element) != item:
            continue
        values = {_local(child): (child.text or "").strip() for child in element}
        place = canonical(values.get("loc", ""), url)
        if place is not None:
            found.entries.append(Entry(place, values.get("lastmod") or None))
            if len(found.entries) > MOST_ENTRIES:
                break
        element.clear()
        while element.getprevious() is not None:  # what was read need not stay in memory
            del element.getparent()[0]
    return found


def _feed(root: Any, url: str) -> Pages:
    found = Pages("feed")
    head = next((child for child in root.iter() if _local(child) == "channel"), root)
    for child in head:
        if _local(child) == "title" and not found.title:
            found.title = _plain(child)
        if _local(child) in _RIGHTS and not found.licence:
            found.licence = _plain(child) or next(iter(child.attrib.values()), None)
        if _is_licence_link(child):
            found.licence = child.get("href")
    seen = set()
    for element in root.iter():
        if _local(element) in ("item", "entry"):
            entry = _entry(element, url)
            if entry is not None and entry.url not in seen:
                seen.add(entry.url)
                found.entries.append(entry)
                if len(found.entries) > MOST_ENTRIES:
                    break
    return found


def _entry(element: Any, url: str) -> Entry | None:
    parts: dict[str, str] = {}
    link = html = licence = None
    for child in element:
        name, text = _local(child), _plain(child)
        if name == "link":
            kind, href = (child.get("rel") or "alternate").lower(), child.get("href")
            if _is_licence_link(child):
                licence = href
            elif href and kind == "alternate" and not link:
                link = href
            elif not href and text and not link:
                link = text
        elif child.tag == _CONTENT or child.tag == f"{_ATOM}content":
            html = _content(child)
        elif name == "author":
            names = [_plain(one) for one in child if _local(one) == "name"]
            parts.setdefault("author", names[0] if names and names[0] else text)
        elif name in _RIGHTS:
            licence = licence or text or next(iter(child.attrib.values()), None)
        elif text:
            parts.setdefault(name, text)
    if link is None and element.find("guid") is not None and element.find("guid").get("isPermaLink") != "false":
        link = parts.get("guid")
    place = canonical(link, url) if link else None
    if place is None:
        return None
    stated = next((parts[key] for key in ("pubdate", "published", "date", "issued", "updated") if key in parts), None)
    changed = next((parts[key] for key in ("updated", "modified", "pubdate", "date") if key in parts), None)
    author = parts.get("author") or parts.get("creator")
    if html is not None and len(re.sub(r"<[^>]*>|\s", "", html[:100_000])) < _FULL_CHARS:
        html = None
    return Entry(place, changed, parts.get("title"), author, parse_date(stated), html, licence)


def _content(element: Any) -> str | None:
    """An entry's text as HTML. XHTML content stands in it as elements, the others as text."""
    from lxml import etree

    kind = (element.get("type") or "html").lower()
    if kind == "xhtml":
        return "".join(etree.tostring(child, encoding="unicode", method="html") for child in element) or None
    if element.get("src") or kind not in ("html", "text/html", "text"):
        return None
    text = "".join(element.itertext())
    if kind == "text":
        import html as escaping

        text = f"<pre>{escaping.escape(text)}</pre>"
    return text.strip() or None


def _is_licence_link(element: Any) -> bool:
    return _local(element) == "link" and (element.get("rel") or "").lower() == "license"


def _plain(element: Any) -> str:
    text = "".join(element.itertext()) if isinstance(element.tag, str) else ""
    return " ".join(text.split())[:2000]
