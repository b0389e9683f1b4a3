"""PDF: text in reading order, without running heads and page numbers. Scans without a text layer and locked files end with that verdict.

The library that parses them runs in a process of its own (``guarded``): what a hostile file does to it, it does to that process.
"""

from collections.abc import Iterator

from gptwright.corpus.readers.base import NotText, Reading, Record
from gptwright.corpus.readers.blob import Blob
from gptwright.corpus.readers.guarded import ask
from gptwright.corpus.readers.xmlparts import records_of

MOST_BYTES = 1 << 30


def read_pdf(blob: Blob, reading: Reading) -> Iterator[Record]:
    """One document, in parts that are placed by the page that they begin on.

    Raises:
        NotText: no text layer, encrypted, damaged, or it took too long.
    """
    pages: list[tuple[str, str]] = []
    title = None
    for answer in ask("pdf", blob):
        if "note" in answer:
            reading.notes.append(answer["note"])
        elif "title" in answer:
            title = answer["title"]
        else:
            pages.append((f"page={answer['page']}", answer["text"]))
    if not pages:
        raise NotText("no text in it")
    yield from records_of(pages, title=title)
