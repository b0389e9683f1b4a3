"""Working memory of the kernels: one set of arrays for any number of documents, sized by the longest of them."""

# mypy: disable-error-code="no-untyped-def"

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from gptwright.corpus.signals import chars, exceptions
from gptwright.corpus.signals.runs import MOST_RUNS

I4 = npt.NDArray[np.int32]
I8 = npt.NDArray[np.int64]
U8 = npt.NDArray[np.uint64]


class Room(NamedTuple):
    """What the kernels read and write; a *run* is what stands between white space, a *line* what stands between line ends.

    Tables are open addressing with stamps: entries of an earlier use count as empty, so nothing is ever cleared.
    """

    flags: npt.NDArray[np.uint32]  # by code point
    lower: I4
    classes: npt.NDArray[np.uint8]
    keys: U8  # exceptions.table()
    values: I8
    cp: I4  # code points of the document, then copies of lines without citations
    fl: npt.NDArray[np.uint32]
    wb: npt.NDArray[np.uint8]
    starts: I8
    text: I4  # code points of the runs that are known, their properties and classes
    text_fl: npt.NDArray[np.uint32]
    text_wb: npt.NDArray[np.uint8]
    # runs as they come: start, end, id, first spaCy word, first Unicode word, phrases found at it
    run: I4  # (6, n)
    # known runs: start, end, marks, how often they come here, first word in the pool, number of words, the same for Unicode words
    kind: I4  # (n, 8), so that all of a run stands in one line of the cache
    pool: I4  # (2, n) word ids of known runs
    stream: I4  # (2, n) word ids as they come: spaCy, Unicode
    word: I4  # (n, 4) known spaCy words: start, end, marks, how often
    uni: I4  # (n, 4) known Unicode words
    touched: I4  # (3, n) ids of the document's runs, spaCy words, Unicode words, each once
    line: I4  # (4, n) lines at "\n": start, end, and the same stripped
    page: I4  # (3, n) lines of str.splitlines: start, end, which rules remove it (bit 0 C4, 1 datatrove, 2 FineWeb)
    drop: npt.NDArray[np.uint8]  # (n,) lines at "\n" that RefinedWeb's rules remove
    para: I4  # (2, n) paragraphs: start, end
    list: I4  # (5, n) for n-grams and repeated lines
    once: I4  # (n, 3) different lines: start, end, how often
    size: I8  # (n,) characters before each word
    runs: U8  # (m,) tables: stamp and id
    words: U8
    unis: U8
    others: U8  # (m, 2) key, stamp and id
    copies: U8  # (m,)
    stamp: I8  # (1,)


def make_room(most_bytes: int) -> Room:
    """Memory for documents of at most so many UTF-8 bytes. What a document does not need is never touched."""
    n = most_bytes + 16
    known = MOST_RUNS + n
    text = 16 * MOST_RUNS + 2 * n
    cells = 1 << (2 * (known + MOST_RUNS)).bit_length()

    def ints(rows: int, columns: int) -> I4:
        return np.empty((rows, columns), np.int32)

    def table() -> U8:
        return np.zeros(cells, np.uint64)

    keys, values = exceptions.table()
    return Room(
        flags=chars.flags(), lower=chars.lower(), classes=chars.word_classes(), keys=keys, values=values,
        cp=np.empty(2 * n, np.int32), fl=np.empty(2 * n, np.uint32), wb=np.empty(2 * n, np.uint8), starts=np.empty(n + 8, np.int64),
        text=np.empty(text, np.int32), text_fl=np.empty(text, np.uint32), text_wb=np.empty(text, np.uint8),
        run=ints(6, n), kind=ints(known, 8), pool=ints(2, text), stream=ints(2, n), word=ints(text, 4), uni=ints(text, 4), touched=ints(3, n),
        line=ints(4, n), page=ints(3, n), drop=np.empty(n, np.uint8), para=ints(2, n // 2 + 16), list=ints(5, n), once=ints(n, 3),
        size=np.empty(n, np.int64),
        runs=table(), words=table(), unis=table(), others=np.zeros((cells, 2), np.uint64), copies=table(), stamp=np.zeros(1, np.int64),
    )  # fmt: skip


def addresses(room: Room) -> I8:
    """Where each array is, with its rows and columns, for the getters of ``arrays``: (fields, 3)."""
    return np.array([(a.ctypes.data, a.shape[0], a.shape[-1]) for a in room], np.int64)
