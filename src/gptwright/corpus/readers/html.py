"""HTML pages: their main text by resiliparse, with our own rules around it where it was measured to fail.

Measured by benchmarks/html_main_content.py on pages labelled by hand (tests/corpus/pages).
"""

import re
from collections.abc import Iterator
from typing import Any

from gptwright.corpus import text as t
from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.boilerplate import SURROUNDINGS, drop_link_rows, keep_lists

MOST_BYTES = 32 << 20  # the tree takes twenty times as much
MOST_DEPTH = 400  # of elements that must be closed; no honest page is so deep
SHORT_CHARS = 1500  # a longer text was not emptied by a rule that took the page's frame for surroundings
FEW_CHARS = 250  # a shorter text may be none
FEW_TAGS = 3000  # a page of fewer tags cannot be deep enough to take long
_META = re.compile(rb"<meta[^>]{0,500}charset\s*=\s*[\"']?\s*([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
_XML = re.compile(rb"\s*<\?xml[^>]{0,200}encoding\s*=\s*[\"']([A-Za-z0-9_.:-]{1,40})", re.IGNORECASE)
# Attributes end at the next "<" and quotes at 500 characters: else a page of open quotes would be searched to its end from each tag.
_TAG = re.compile(r"<(/?)([a-zA-Z][a-zA-Z0-9-]*)(?:[^<>\"']|\"[^\"]{0,500}\"|'[^']{0,500}')*>")
# Elements without content, and those that the next of their kind closes: none of them nests.
_FLAT = frozenset(
    [
        "area",
        "base",
        "br",
        "col",
        "embed",
        "hr",
        "img",
        "input",
        "link",
        "meta",
        "param",
        "source",
        "track",
        "wbr",
        "p",
        "li",
        "td",
        "th",
        "tr",
        "dt",
        "dd",
        "option",
        "thead",
        "tbody",
        "tfoot",
        "html",
        "head",
        "body",
    ]
)


def read_html(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document: the main text, and what the page says of itself as facts."""
    page, reading.charset, note = _decode(blob, reading)
    reading.notes = [note] if note else []
    tree = parse(page)
    text = main_text(tree)
    root = tree.document.query_selector("html") if tree.document is not None else None
    lang = root.getattr("lang") if root is not None else None
    facts = _facts(page, reading.url, tree)
    title = (tree.title or "").strip() or None
    yield Record("", t.normalise(text), title=title, url=facts.url if facts else None, lang=lang or None, facts=facts)


def _decode(blob: Blob, reading: Reading) -> tuple[str, str, str | None]:
    data = blob.whole(MOST_BYTES, "page")
    charset = reading.charset_found
    if charset.note:  # not UTF-8; the page may say what it is
        stated = declared(data)
        if stated and (found := t.find_charset(blob, stated)).note is None:
            charset = found
    return data.decode(charset.codec, charset.errors), charset.codec, charset.note


def declared(data: bytes) -> str | None:
    """The encoding that a page names at its head."""
    found = _META.search(data[:4096]) or _XML.match(data[:300])
    return found[1].decode() if found else None


def decode_page(data: bytes, stated: str | None = None) -> tuple[str, str]:
    """Text of a page's bytes, and its encoding: UTF-8 when it is that, then what is stated, then a guess.

    Raises:
        NotText: the bytes are no text.
    """
    from gptwright.corpus.readers.mail import _Bytes

    charset = t.find_charset(_Bytes(data), stated or declared(data))
    return data.decode(charset.codec, charset.errors), charset.codec


def _facts(page: str, url: str | None, tree: Any) -> Any:
    from gptwright.corpus.sources.page import page_facts

    return page_facts(page, url, tree)


def parse(page: str) -> Any:
    """A page's tree, of bounded depth, made ready for ``main_text``.

    Raises:
        NotText: it cannot be parsed.
    """
    return _tree(keep_lists(drop_link_rows(flatten(page))))


def _tree(page: str) -> Any:
    from resiliparse.parse.html import HTMLTree

    try:
        return HTMLTree.parse(page)
    except Exception as error:
        raise NotText(f"not a page that can be parsed ({error})") from error


def flatten(page: str) -> str:
    """A page without the elements that are nested deeper than MOST_DEPTH; nearly every page comes back as it is.

    Time to find the main text grows with the square of the depth: a page of 100,000 open <div> would take minutes.
    """
    if page.count("<") - page.count("</") < FEW_TAGS:
        return page
    depth, at, cut = 0, 0, False
    kept: list[str] = []
    for found in _TAG.finditer(page):
        name = found[2].lower()
        if name in _FLAT or found[0].endswith("/>"):
            continue
        if found[1]:
            drop = depth > MOST_DEPTH
            depth = max(0, depth - 1)
        else:
            depth += 1
            drop = depth > MOST_DEPTH
        if drop:
            kept.append(page[at : found.start()])
            at, cut = found.end(), True
    return "".join(kept) + page[at:] if cut else page


def main_text(tree: Any) -> str:
    """The main text of a page, with paragraphs, lists and tables on lines of their own.

    Names of surroundings may be those of the page's own frame somewhere: what gets implausibly short by a rule is taken without it.
    """
    strict = _extract(tree, main_content=True, comments=False, skip_elements=SURROUNDINGS)
    if len(strict) > SHORT_CHARS:
        return strict
    loose = _extract(tree, main_content=True)
    text = strict if len(strict) > 0.5 * len(loose) else loose
    if len(text) > FEW_CHARS:
        return text
    whole = _extract(tree, main_content=False)
    return text if len(text) > 0.1 * len(whole) else whole


def _extract(tree: Any, **options: Any) -> str:
    from resiliparse.extract.html2text import extract_plain_text

    return str(extract_plain_text(tree, alt_texts=False, preserve_formatting=True, **options))


def whole_text(page: str) -> str:
    """All visible text of a page that has no surroundings, such as a chapter of a book or a message."""
    return _extract(_tree(flatten(page)), main_content=False)
