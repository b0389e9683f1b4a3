"""A WARC file to documents: the main text of its pages, its plain texts, and the documents (PDF and others) among its bodies.

Each document brings what its record and page say: URL, time, licence, author, opt-outs. Pictures and the like are counted by their kind.
"""

import io
from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import TYPE_CHECKING

from gptwright.corpus import text as t
from gptwright.corpus.readers import html
from gptwright.corpus.readers.base import NotText, Reading, Record, Skip
from gptwright.corpus.sources import consent, page
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.sources.warcrecords import Body, Found, bodies

if TYPE_CHECKING:
    from gptwright.corpus.readers.blob import Blob


def read(source: "Path | Blob", reading: Reading) -> Iterator[Record]:
    """Read the texts in a WARC file.

    Args:
        source: the file, plain, gzip or zstd.
        reading: gets the notes.

    Raises:
        NotText: it is damaged before its first text.
    """
    found = Found()
    file = open(source, "rb") if isinstance(source, Path) else source.seekable()
    try:
        for body in bodies(file, found):
            # A file that holds one place of a source goes by the place's own name.
            suffix = "" if body.own and found.read == 1 else f"offset={body.offset}"
            yield from _documents(body, suffix, found, reading)
    finally:
        file.close()
        reading.notes += found.notes()
    if not found.read and found.damage:
        raise NotText(found.damage[0])


def _documents(body: Body, suffix: str, found: Found, reading: Reading) -> Iterator[Record]:
    if body.kind == "html":
        try:
            yield _page(body, suffix)
        except NotText as error:
            reading.put_aside(suffix or body.url or "", "unreadable", str(error), len(body.data))
    elif body.kind == "text":
        text, charset = page.decode(body.data, body.content_type)
        yield Record(suffix, t.normalise(text), url=body.url, facts=_facts(body), mime=body.mime, charset=charset)
    else:
        yield from _file(body, suffix, found, reading)


def _page(body: Body, suffix: str) -> Record:
    text, charset = page.decode(body.data, body.content_type)
    tree = html.parse(text)
    known = page.page_facts(text, body.url, tree, body.at)
    own = _facts(body)
    said = [*consent.header_signals(body.headers, body.url, body.at), *consent.from_page(known.consent)]
    seen = consent.facts_of(said)
    facts = replace(known, fetched_at=own.fetched_at, optout=seen.optout, consent=seen.consent)
    root = tree.document.query_selector("html")
    lang = root.getattr("lang") if root is not None else None
    return Record(
        suffix,
        t.normalise(html.main_text(tree)),
        title=known.title,
        url=known.url or body.url,
        lang=lang or None,
        facts=facts,
        mime="text/html",
        charset=charset,
    )


def _file(body: Body, suffix: str, found: Found, reading: Reading) -> Iterator[Record]:
    """A document of another kind, by the reader of its kind."""
    from gptwright.corpus.readers import read_blob
    from gptwright.corpus.readers.blob import Blob, Budget

    name = (body.url or "").partition("?")[0].rpartition("/")[2] or "document"
    named = name if name.lower().endswith(body.suffix) else name + body.suffix
    data = body.data
    try:
        inner = read_blob(Blob(named, lambda: io.BytesIO(data), len(data), Budget(len(data))), url=body.url)
        if inner.members is not None:
            found.passed["archives"] += 1
            return
        for record in inner.records:
            place = "&".join(part for part in (suffix, record.suffix) if part)
            facts = _facts(body)
            yield replace(
                record,
                suffix=place,
                url=record.url or body.url,
                facts=record.facts | facts if record.facts is not None else facts,
                mime=record.mime or inner.mime,
                charset=record.charset or inner.charset,
            )
    except (Skip, NotText, UnicodeDecodeError) as error:
        reading.put_aside(suffix or body.url or "", "unreadable", f"{body.mime}: {error}", len(body.data))


def _facts(body: Body) -> Facts:
    """What the record itself says."""
    at: datetime | None = body.at
    own = consent.facts_of(consent.header_signals(body.headers, body.url, at))
    return replace(own, url=body.url, fetched_at=at)
