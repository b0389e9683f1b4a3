"""From Arrow text to the table of signals, in blocks of bounded size; and the lines that a rule set would remove, as spans."""

import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.corpus.signals.schema import COLUMNS, SCHEMA

BLOCK_BYTES = 8 << 20
SPANS = pa.schema([("doc_row", pa.int64()), ("start", pa.int64()), ("end", pa.int64())])  # characters
_C4 = {"c4@reference": 1, "c4@datatrove": 2, "c4@fineweb": 4}
_REFINEDWEB = "refinedweb@dclm"

Buffers = tuple[npt.NDArray[np.uint8], npt.NDArray[np.int64]]


def measure(text: pa.Array | pa.ChunkedArray, lang_declared: pa.Array | pa.ChunkedArray | None = None) -> pa.Table:
    """Every signal of every text.

    Args:
        text: strings (string or large_string); null counts as empty.
        lang_declared: what a source says of the language (BCP 47), or null; taken where the text is too little to tell.

    Returns:
        One row a text, columns of ``SCHEMA``.
    """
    from gptwright.corpus.signals.kernel import N_COLUMNS, look_at_all
    from gptwright.corpus.signals.language import languages
    from gptwright.corpus.signals.room import addresses, make_room

    tables = []
    for data, offsets in buffers(text):
        rows = len(offsets) - 1
        out = np.empty((rows, N_COLUMNS))
        if rows:
            room = make_room(int(np.diff(offsets).max()))
            look_at_all(data, offsets, addresses(room), out)
        columns = [pa.array(out[:, i].astype(column.kind.to_pandas_dtype())) for i, column in enumerate(COLUMNS)]
        columns.append(pa.array(_compress_ratio(data, offsets)))
        columns += languages(data, offsets)
        tables.append(pa.table(columns, schema=SCHEMA))
    table = pa.concat_tables(tables).combine_chunks() if tables else SCHEMA.empty_table()
    return _declared(table, lang_declared) if lang_declared is not None else table


def buffers(text: pa.Array | pa.ChunkedArray) -> Iterator[Buffers]:
    """UTF-8 and offsets of texts, in blocks of about BLOCK_BYTES: (b,) uint8, (d + 1,) int64."""
    for chunk in text.chunks if isinstance(text, pa.ChunkedArray) else [text]:
        if chunk.null_count:
            chunk = chunk.fill_null("")
        chunk = chunk.cast(pa.large_string())
        if not len(chunk):
            continue
        _, raw_offsets, raw = chunk.buffers()
        offsets = np.frombuffer(raw_offsets, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1]
        data = np.frombuffer(raw, np.uint8) if raw is not None and raw.size else np.zeros(1, np.uint8)
        first = 0
        while first < len(chunk):
            last = int(np.searchsorted(offsets, offsets[first] + BLOCK_BYTES, "right"))
            last = min(max(last - 1, first + 1), len(chunk))
            yield data, offsets[first : last + 1]
            first = last


def _compress_ratio(data: npt.NDArray[np.uint8], offsets: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    view = data.data
    sizes = np.diff(offsets)
    ratio = np.ones(len(sizes), np.float32)
    for row in np.flatnonzero(sizes):
        ratio[row] = len(zlib.compress(view[offsets[row] : offsets[row + 1]], 1)) / sizes[row]
    return ratio


def _declared(table: pa.Table, declared: pa.Array | pa.ChunkedArray) -> pa.Table:
    import pyarrow.compute as pc

    first = pc.utf8_lower(pc.list_element(pc.split_pattern_regex(declared.cast(pa.string()), "[-_]"), 0))
    unsure = pc.and_(
        pc.equal(table["lang"], "und"), pc.fill_null(pc.match_substring_regex(first, "^[a-z]{2,3}$"), False)
    )
    at = table.schema.get_field_index("lang")
    return table.set_column(at, SCHEMA.field("lang"), pc.if_else(unsure, first, table["lang"]))


def removed_spans(text: pa.Array | pa.ChunkedArray, rules: str) -> pa.Table:
    """The lines that a set of line rules removes, so that a recipe can make them edits.

    A span runs from a line's start to the start of the next line; where the last line goes, the line end before it goes too.

    Args:
        text: strings; null counts as empty.
        rules: ``c4@reference``, ``c4@datatrove``, ``c4@fineweb`` or ``refinedweb@dclm``.

    Returns:
        ``doc_row``, ``start``, ``end``: characters of the text, in order and apart.

    Raises:
        UserError: no line rules have that name.
    """
    from gptwright.corpus.signals.kernel import N_COLUMNS, look_at_all
    from gptwright.corpus.signals.room import addresses, make_room

    if rules not in _C4 and rules != _REFINEDWEB:
        raise UserError(
            f"{rules!r} removes no lines", where="recipe", fix=f"Use one of {', '.join([*_C4, _REFINEDWEB])}"
        )
    rows, starts, ends = [], [], []
    base = 0
    out = np.empty((1, N_COLUMNS))
    for data, offsets in buffers(text):
        room = make_room(int(np.diff(offsets).max()))
        at = addresses(room)
        for row in range(len(offsets) - 1):
            n, lines, pages = look_at_all(data, offsets[row : row + 2], at, out)
            if rules == _REFINEDWEB:
                begins, gone = room.line[0, :lines], room.drop[:lines] != 0
            else:
                begins, gone = room.page[0, :pages], room.page[2, :pages] & _C4[rules] != 0
            for start, end in _spans(begins, gone, n, room.cp):
                rows.append(base + row)
                starts.append(start)
                ends.append(end)
        base += len(offsets) - 1
    return pa.table([rows, starts, ends], schema=SPANS)


def _spans(
    begins: npt.NDArray[np.int32], gone: npt.NDArray[np.bool_], n: int, cp: npt.NDArray[np.int32]
) -> Iterator[tuple[int, int]]:
    """Spans of neighbouring lines that go."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], gone, [False]]).astype(np.int8)))
    for first, after in zip(edges[::2], edges[1::2], strict=True):
        start = int(begins[first])
        if after == len(gone) and start:
            start -= 2 if start > 1 and cp[start - 1] == 10 and cp[start - 2] == 13 else 1
        end = int(begins[after]) if after < len(gone) else n
        if start < end:
            yield start, end
