"""Plain text, Markdown and source code: what stands there, in parts when it is long."""

from collections.abc import Iterator

from gptwright.corpus import text as t
from gptwright.corpus.readers.base import Reading, Record
from gptwright.corpus.readers.blob import Blob


def read_text(blob: Blob, reading: Reading) -> Iterator[Record]:
    """A document, cut into parts at paragraphs when it is long."""
    with t.open_text(blob, reading.charset_found) as file:
        for number, piece in enumerate(t.parts(t.blocks(file)), 1):
            yield Record("", piece, part=number)
