"""What surrounds the main text of pages, beyond what resiliparse knows: rules for it, and for lists that it takes for menus.

Each rule is there because benchmarks/html_main_content.py showed its worth; mean F1 over 30 labelled pages, after each:
resiliparse as it comes 0.913; lists without links kept 0.940; comments left out 0.948; rows of links left out 0.952; surroundings left
out by their names 0.977. The pages and the rules have one author, so pages of others will come out lower.
"""

import re
from collections.abc import Iterator

# Names by which sites call what is not their text. Whole names, as "with-sidebar" is what the page's own frame is called.
_EXACT = """
ad advert advertisement ad-slot ads author-bio author-box bottom breadcrumb breadcrumbs catlinks colophon comment-list
comments cookie-banner cookie-consent copyright entry-meta foot footer header-ad hot jump main-nav masthead menu
menu-bar meta nav navbar navigation newsletter newsletter-signup pager pagination popular post-meta promo promo-bar
pullquote readmore recommendations related related-articles related-posts publicidad anzeige werbung publicite respond
share share-buttons sharing sidebar sidebar-widget site-footer site-header skip-link social sticky-footer subnav
subscribe-box tag-list tags toc top-menu topbar votes widget widget-area who-is-online mw-editsection headerlink
""".split()  # noqa: SIM905 - a list of words is read more easily as words
_IDS = (
    "sidebar",
    "secondary",
    "footer",
    "header-ad",
    "comments",
    "respond",
    "toc",
    "breadcrumbs",
    "cookie-consent",
    "masthead",
    "colophon",
    "catlinks",
)
# Each selector is tried on each element, which is most of the time that a page takes: so there are few of them, and no wildcards.
SURROUNDINGS = [
    "nav",
    "aside",
    "footer",
    "button",
    "form",
    "select",
    *(f".{name}" for name in _EXACT),
    *(f"#{name}" for name in _IDS),
]
_LIST = re.compile(r"<([uo])l\b[^<>]*>((?:(?!</?[uo]l\b|<a\b).)*)</\1l\s*>", re.IGNORECASE | re.DOTALL)
_ITEM = re.compile(r"<li\b[^<>]*>", re.IGNORECASE)
_ITEM_END = re.compile(r"</li\s*>", re.IGNORECASE)
_LINK = r"<a\b[^<>]*>(?:(?!</?a\b).){0,120}</a>"
_BETWEEN = r"(?:\s|&nbsp;|[|·•›»/]|<br\b[^<>]*>|</?(?:li|span|b|strong)\b[^<>]*>){0,20}"
_LINK_ROW = re.compile(f"(?:{_LINK}{_BETWEEN}){{3,}}", re.IGNORECASE | re.DOTALL)
_INNER_TAG = re.compile(r"</?(?!br\b|a\b)([a-z0-9]+)\b[^<>]*>", re.IGNORECASE)


def keep_lists(page: str) -> str:
    """Write lists without links as paragraphs with marks; resiliparse takes many of them for menus and drops them."""
    return _LIST.sub(_as_paragraphs, page)


def _as_paragraphs(found: re.Match[str]) -> str:
    items = _ITEM.split(found[2])
    if len(items) < 2:
        return found[0]
    return items[0] + "".join(
        f"<p>{mark} {_ITEM_END.sub('', item)}</p>" for mark, item in zip(_marks(found[1]), items[1:], strict=False)
    )


def _marks(kind: str) -> Iterator[str]:
    number = 0
    while True:
        number += 1
        yield f"{number}." if kind in "oO" else "•"


def drop_link_rows(page: str) -> str:
    """Leave out three and more links with nothing but signs between them; in a sentence there are words or commas between."""
    return _LINK_ROW.sub(lambda found: "".join(tag[0] for tag in _INNER_TAG.finditer(found[0])), page)
