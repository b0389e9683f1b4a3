"""What an HTML page says of itself: title, canonical URL, date, author, licence, opt-outs; and its links.

Most pages say little, so the page is searched for telling words first and its tree is asked only for what they promise.
"""

import email.utils
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from gptwright.corpus.licences.names import normalise
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.sources.consent import facts_of, meta_signals
from gptwright.corpus.sources.urls import canonical, host_of

MOST_LINKS = 10_000
_MOST_TAGS = 500  # metas and links that are read of one page
_CC = re.compile(r"(?:https?:)?//(?:www\.)?creativecommons\.org/(?:licenses|publicdomain)/[a-z+0-9./-]+", re.IGNORECASE)
_HINT = re.compile(r"ld\+json|creativecommons\.org|rel=[\"']?[^\"'>]*license|<time\b|itemprop", re.IGNORECASE)
# Where a licence is for the text and not for a picture or a programme that the page shows.
_WORKS = re.compile(
    r"(CreativeWork|.*Article|.*Posting|.*Page|Book|Chapter|Dataset|Report|Thesis|Review|Recipe|Course|HowTo|"
    r"LearningResource|Legislation|Poem|ShortStory|Quotation|Conversation|Question|Answer|Comment|WebSite)"
)
_DATES = (
    "article:published_time",
    "datepublished",
    "citation_publication_date",
    "citation_date",
    "dcterms.created",
    "dcterms.issued",
    "dcterms.date",
    "dc.date.issued",
    "dc.date.created",
    "dc.date",
    "date",
    "pubdate",
    "parsely-pub-date",
    "sailthru.date",
)
_AUTHORS = ("author", "dc.creator", "dcterms.creator", "citation_author", "article:author", "parsely-author", "byl")
_SITES = ("og:site_name", "application-name", "dc.publisher", "dcterms.publisher")
_RIGHTS = (
    "dc.rights.license",
    "dcterms.license",
    "dc.rights",
    "dcterms.rights",
    "dc.license",
    "license",
    "copyright-license",
)
_LD_CONF, _REL_CONF, _META_CONF, _CC_FOOTER_CONF, _CC_CONF = 0.8, 0.8, 0.7, 0.6, 0.5
_PER_EXTRA = 0.7  # the confidence that is left for each further licence statement of the same kind


@dataclass
class _Page:
    """A page under examination."""

    tree: Any
    html: str
    url: str | None
    metas: list[tuple[str, str]]
    things: list[dict[str, Any]]

    def meta(self, names: tuple[str, ...]) -> str | None:
        for name in names:
            for key, content in self.metas:
                if key.lower() == name and content.strip():
                    return " ".join(content.split())[:300]
        return None


def page_facts(html: str, url: str | None = None, tree: Any = None, at: datetime | None = None) -> Facts:
    """What a page says of itself.

    Args:
        html: the page.
        url: where it stood, when known; relative links in it are made absolute by it.
        tree: its ``resiliparse`` tree, when it was parsed already.
        at: when it was asked for, which its opt-outs are dated with.

    Returns:
        Title, canonical URL (else ``url``), date of publication, licence with its source ("page-metadata" for JSON-LD, rel=license
        and metas; "cc-link" for a mere link) and confidence, attribution (author and site), opt-out metas with evidence.
    """
    page = _look(html, url, tree)
    site = page.meta(_SITES) or _name(_first(page.things, "publisher"))
    author = _author(page)
    signals = meta_signals(page.metas, url, at)
    licence, source, confidence = _licence(page)
    title = page.meta(("og:title", "citation_title", "dc.title")) or _text(page.tree.title)
    own = facts_of(signals)
    return Facts(
        url=_canonical(page) or url,
        title=_text(page.tree.title) or title,
        published_at=_published(page),
        license_id=licence,
        license_source=source,
        license_conf=confidence,
        attribution=", ".join(dict.fromkeys(part for part in (author, site) if part)) or None,
        optout=own.optout,
        consent=own.consent,
    )


def links(html: str, url: str, tree: Any = None) -> list[str]:
    """The pages that a page links to and lets follow: canonical, each once, in order, ``MOST_LINKS`` at most.

    ``rel=nofollow`` on a link and ``nofollow`` or ``none`` in a robots meta are respected.
    """
    page = _look(html, url, tree)
    for name, content in page.metas:
        if name.lower() in ("robots", "gptwright") and re.search(r"\b(nofollow|none)\b", content.lower()):
            return []
    base = page.tree.document.query_selector("base[href]")
    start = (canonical(base.getattr("href") or "", url) if base is not None else None) or url
    found: dict[str, None] = {}
    # A slice is a plain tuple; to iterate over the collection itself asks the tree anew for each element.
    for link in page.tree.document.query_selector_all("a[href], area[href]")[:]:
        if "nofollow" in (link.getattr("rel") or "").lower().split():
            continue
        href = (link.getattr("href") or "").strip()
        if not href or href.startswith(("#", "javascript:", "mailto:", "tel:", "data:")):
            continue
        onward = canonical(href, start)
        if onward is not None:
            found[onward] = None
            if len(found) >= MOST_LINKS:
                break
    return list(found)


def decode(body: bytes, content_type: str | None = None) -> tuple[str, str]:
    """Text of an HTML or plain text body and the name of its encoding: byte order mark, then the header, then the page's meta, then a guess.

    Source: WHATWG HTML, section 13.2.3.2, with UTF-8 tried before any guess.
    """
    from resiliparse.parse.encoding import detect_encoding

    for mark, name in ((b"\xef\xbb\xbf", "utf-8"), (b"\xff\xfe", "utf-16-le"), (b"\xfe\xff", "utf-16-be")):
        if body.startswith(mark):
            return body[len(mark) :].decode(name, "replace"), name
    stated = re.search(r"charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", content_type or "", re.IGNORECASE)
    if stated and (text := _as(body, stated[1])) is not None:
        return text, stated[1].lower()
    meta = re.search(rb"<meta[^>]+charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]+)", body[:4096], re.IGNORECASE)
    if meta and (text := _as(body, meta[1].decode())) is not None:
        return text, meta[1].decode().lower()
    if (text := _as(body, "utf-8")) is not None:
        return text, "utf-8"
    name = detect_encoding(body, from_html_meta=False) or "cp1252"
    try:
        return body.decode(name, "replace"), name
    except LookupError:
        return body.decode("cp1252", "replace"), "cp1252"


def parse(html: str) -> Any:
    """The page's tree."""
    from resiliparse.parse.html import HTMLTree

    return HTMLTree.parse(html)


def _as(body: bytes, charset: str) -> str | None:
    # Browsers read these names as Windows-1252, which holds what such pages really contain.
    name = "cp1252" if charset.lower() in ("iso-8859-1", "latin1", "latin-1", "ascii", "us-ascii") else charset
    try:
        return body.decode(name)
    except (LookupError, UnicodeDecodeError, ValueError):
        return None


def _look(html: str, url: str | None, tree: Any) -> _Page:
    tree = parse(html) if tree is None else tree
    metas = [
        (name, meta.getattr("content") or "")
        for meta in tree.document.query_selector_all("meta[content]")[:_MOST_TAGS]
        if (name := meta.getattr("name") or meta.getattr("property") or meta.getattr("itemprop"))
    ]
    return _Page(tree, html, url, metas, list(_things(tree)) if "ld+json" in html else [])


def _things(tree: Any) -> Iterator[dict[str, Any]]:
    """The works that JSON-LD describes: not the pictures, videos and programmes beside them."""
    for script in tree.document.query_selector_all('script[type="application/ld+json"]')[:20]:
        try:
            value = json.loads(script.text or "")
        except (ValueError, RecursionError):
            continue
        waiting = [value]
        for _ in range(200):
            if not waiting:
                break
            one = waiting.pop(0)
            if isinstance(one, list):
                waiting += one[:100]
            elif isinstance(one, dict):
                waiting += [one[key] for key in ("@graph", "mainEntity", "mainEntityOfPage") if key in one]
                kinds = one.get("@type", "CreativeWork")
                if any(_WORKS.fullmatch(str(kind)) for kind in (kinds if isinstance(kinds, list) else [kinds])):
                    yield one


def _first(things: list[dict[str, Any]], key: str) -> Any:
    return next((thing[key] for thing in things if thing.get(key)), None)


def _name(value: Any) -> str | None:
    """The name in JSON-LD: a text, a thing with a name, or several of them."""
    if isinstance(value, list):
        found = [name for one in value[:10] if (name := _name(one))]
        return ", ".join(dict.fromkeys(found)) or None
    if isinstance(value, dict):
        value = value.get("name")
    return _text(value)


def _text(value: Any) -> str | None:
    return (" ".join(value.split())[:300] or None) if isinstance(value, str) else None


def _author(page: _Page) -> str | None:
    if name := _name(_first(page.things, "author") or _first(page.things, "creator")):
        return name
    stated = page.meta(_AUTHORS)
    return stated if stated and "://" not in stated else None


def _canonical(page: _Page) -> str | None:
    link = page.tree.document.query_selector('link[rel="canonical"]')
    href = link.getattr("href") if link is not None else None
    found = canonical(href, page.url) if href and (page.url or "://" in href) else None
    # A page that calls a page of another host its original is a copy; where it was found is what can be shown.
    return found if found and (page.url is None or host_of(found) == host_of(page.url)) else None


def _published(page: _Page) -> datetime | None:
    stated = [_first(page.things, "datePublished"), page.meta(_DATES)]
    if "<time" in page.html or "itemprop" in page.html:
        for time in page.tree.document.query_selector_all("time[datetime], [itemprop=datePublished]")[:20]:
            if time.getattr("pubdate") is not None or time.getattr("itemprop") == "datePublished":
                stated.append(time.getattr("datetime") or time.getattr("content"))
        first = page.tree.document.query_selector("article time[datetime]")
        stated.append(first.getattr("datetime") if first is not None else None)
    return next((date for one in stated if (date := parse_date(one))), None)


def parse_date(value: Any) -> datetime | None:
    """A date as pages and feeds write them (ISO 8601, RFC 5322), in UTC; None when it is no date, or one that cannot be."""
    if not isinstance(value, str) or not value.strip():
        return None
    text = value.strip().replace("/", "-") if re.match(r"\d{4}/\d\d/\d\d", value.strip()) else value.strip()
    if re.fullmatch(r"\d{4}(-\d\d)?", text):
        text = f"{text}-01" if len(text) == 7 else f"{text}-01-01"
    try:
        date = datetime.fromisoformat(text)
    except ValueError:
        try:
            date = email.utils.parsedate_to_datetime(text)
        except (ValueError, TypeError, IndexError):
            return None
    date = date.replace(tzinfo=UTC) if date.tzinfo is None else date
    return date.astimezone(UTC).replace(microsecond=0) if 1400 < date.year < 2200 else None


def _licence(page: _Page) -> tuple[str | None, str, float]:
    """Licence, its source and how sure it is: what is stated for the page before what is linked on it."""
    if not (page.things or _HINT.search(page.html)) and page.meta(_RIGHTS) is None:
        return None, "none", 0.0
    stated = [one for thing in page.things for one in _values(thing.get("license"))]
    links_ = page.tree.document.query_selector_all("link[rel~=license], a[rel~=license]")[:50]
    rel = [link.getattr("href") for link in links_]
    metas = [content for name in _RIGHTS for key, content in page.metas if key.lower() == name]
    for found, confidence in ((stated, _LD_CONF), (rel, _REL_CONF), (metas, _META_CONF)):
        if known := _agree(found, confidence):
            return known[0], "page-metadata", known[1]
    anchors = page.tree.document.query_selector_all('a[href*="creativecommons.org/"]')[:50]
    linked = [(href, _place(link)) for link in anchors if _CC.match(href := link.getattr("href") or "")]
    in_text = [(href, place) for href, place in linked if place != "aside"]
    best = _CC_FOOTER_CONF if any(place == "footer" for _, place in in_text) else _CC_CONF
    if known := _agree([href for href, _ in in_text], best):
        return known[0], "cc-link", known[1]
    return None, "none", 0.0


def _values(value: Any) -> Iterator[str]:
    for one in value if isinstance(value, list) else [value]:
        text = one.get("url") or one.get("@id") or one.get("name") if isinstance(one, dict) else one
        if isinstance(text, str):
            yield text


def _agree(found: list[Any], confidence: float) -> tuple[str, float] | None:
    """One licence of several statements. Different ones all hold, as nobody knows which is for what; each makes the finding less sure."""
    known = [identity for one in found if isinstance(one, str) and (identity := normalise(_absolute(one)))]
    distinct = sorted(set(known))
    if not distinct or len(distinct) > 4:
        return None
    sure = confidence * _PER_EXTRA ** max(len(distinct) - 1, (len(known) - 1) // 2)
    return " AND ".join(f"({one})" if " OR " in one else one for one in distinct), round(sure, 3)


def _absolute(link: str) -> str:
    return f"https:{link}" if link.startswith("//") else link


def _place(node: Any) -> str:
    """Where a link stands: in the footer, the main text, or beside it (navigation, comments, a sidebar)."""
    for _ in range(60):
        node = node.parent
        if node is None or not hasattr(node, "tag"):
            break
        marks = f"{node.getattr('id') or ''} {node.getattr('class') or ''}".lower()
        if node.tag == "footer" or "footer" in marks:
            return "footer"
        if node.tag in ("nav", "aside") or re.search(r"\b(comments?|sidebar)\b", marks):
            return "aside"
        if node.tag in ("main", "article"):
            return "main"
    return "main"
