"""From Arrow text to the table of signals, in blocks of bounded size; and the lines that a rule set would remove, as spans."""

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.corpus.signals.schema import COLUMNS, SCHEMA

BLOCK_BYTES = 8 << 20
SPANS = pa.schema([("doc_row", pa.int64()), ("start", pa.int64()), ("end", pa.int64())])  # characters
_C4 = {"c4@reference": 1, "c4@datatrove": 2, "c4@fineweb": 4}
_NO_SPANS = np.empty((0, 3), np.int64)

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
            look_at_all(data, offsets, addresses(room), out, 0, _NO_SPANS)
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
    codec = pa.Codec("zstd", compression_level=1)
    for row in np.flatnonzero(sizes):
        ratio[row] = codec.compress(view[offsets[row] : offsets[row + 1]], asbytes=False).size / sizes[row]
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
    from gptwright.corpus.signals.kernel import N_COLUMNS, REFINEDWEB, look_at_all
    from gptwright.corpus.signals.room import addresses, make_room

    bits = _C4 | {"refinedweb@dclm": REFINEDWEB}
    if rules not in bits:
        raise UserError(f"{rules!r} removes no lines", where="recipe", fix=f"Use one of {', '.join(bits)}")
    tables = []
    base = 0
    for data, offsets in buffers(text):
        room = make_room(int(np.diff(offsets).max()))
        spans = np.empty((int(offsets[-1] - offsets[0]) // 2 + len(offsets), 3), np.int64)
        found = look_at_all(data, offsets, addresses(room), np.empty((1, N_COLUMNS)), bits[rules], spans)
        tables.append(pa.table([pa.array(column) for column in np.add(spans[:found], (base, 0, 0)).T], schema=SPANS))
        base += len(offsets) - 1
    return pa.concat_tables(tables) if tables else SPANS.empty_table()
