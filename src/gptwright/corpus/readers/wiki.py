"""A MediaWiki dump to documents: each article as plain text, with its address, its time, and the licence that the dump states."""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

from gptwright.corpus import text as t
from gptwright.corpus.licences import normalise
from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.sources.base import Facts
from gptwright.corpus.wikidump import NotADump, Page, Site, pages
from gptwright.corpus.wikitext import plain_text

if TYPE_CHECKING:
    from gptwright.corpus.readers.blob import Blob

_WIKIMEDIA = tuple(
    f"{name}.org"
    for name in (
        "wikipedia",
        "wiktionary",
        "wikibooks",
        "wikiversity",
        "wikivoyage",
        "wikisource",
        "wikiquote",
        "wikinews",
    )
)


def read(source: "Path | Blob", reading: Reading) -> Iterator[Record]:
    """Read the articles of a dump.

    Redirects, other namespaces and pages that are no wikitext are counted in a note, pages without text as blank.

    Args:
        source: the dump, packed or not.
        reading: gets the notes.

    Raises:
        NotText: it is no dump, or breaks off.
    """
    site = Site()
    left: Counter[str] = Counter()
    facts: Facts | None = None
    budget = getattr(source, "budget", None)
    try:
        for page in pages(source, site, budget.take if budget is not None else lambda size: None):
            if facts is None:
                facts = _facts(site, reading)
            if (why := _left_out(page)) is not None:
                left[why] += 1
            elif page.text is None:
                reading.fault(f"page {page.id}", None, "longer than 16 M characters")
            elif body := t.normalise(plain_text(page.text, site.hidden_prefixes())):
                own = Facts(**{**vars(facts), "published_at": page.timestamp})
                yield Record(
                    f"page={page.id}",
                    body,
                    title=page.title or None,
                    url=site.url(page.title),
                    lang=site.lang,
                    facts=own,
                )
            else:
                reading.n_blank += 1
    except NotADump as error:
        raise NotText(str(error)) from error
    finally:
        if left:
            reading.notes.append("left out: " + ", ".join(f"{count:,} {what}" for what, count in sorted(left.items())))


def _left_out(page: Page) -> str | None:
    if page.namespace != 0:
        return "pages of other namespaces"
    if page.redirect or (page.text or "")[:200].lstrip().lower().startswith("#redirect"):
        return "redirects"
    return "pages that are no wikitext" if page.model != "wikitext" else None


def _facts(site: Site, reading: Reading) -> Facts:
    """What the dump says of all its pages; a note where it states no licence, as most do not."""
    identity = normalise(site.rights)
    credit = f"{site.name} contributors" if site.name else None
    if identity is None:
        host = urlsplit(site.base or "").hostname or ""
        hint = 'license = "CC-BY-SA-4.0", as Wikimedia\'s texts are' if host.endswith(_WIKIMEDIA) else 'license = "..."'
        reading.notes.append(f"the dump states no licence. Say it in the source's section: {hint}")
        return Facts(attribution=credit)
    return Facts(license_id=identity, license_source="page-metadata", license_conf=0.9, attribution=credit)
