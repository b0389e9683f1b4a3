"""One document after another through all measurements; what is written where is the order of ``schema.COLUMNS``."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.

import numpy as np

from gptwright.corpus.signals import schema
from gptwright.corpus.signals.arrays import (
    get_cp,
    get_drop,
    get_fl,
    get_kind,
    get_line,
    get_page,
    get_size,
    get_stream,
    get_touched,
    get_uni,
    get_word,
)
from gptwright.corpus.signals.chars import (
    ALNUM,
    BASIC,
    BLANK,
    BRACKET,
    DECIMAL,
    PUNCT,
    SPACE,
    UPPER,
)
from gptwright.corpus.signals.jit import ZERO, kernel, part, version
from gptwright.corpus.signals.lines import copies, line_shapes, over, phrases, split, stretches
from gptwright.corpus.signals.marks import (
    HAS_ALPHA,
    IS_CAPS,
    IS_STOP,
    IS_STOP_ANY,
    IS_SYMBOL,
    NO_SYMBOL,
    WORD_ALPHA,
    WORD_STOP,
)
from gptwright.corpus.signals.pages import c4_lines, count_sentences, refinedweb_lines, split_lines
from gptwright.corpus.signals.repeats import sequences
from gptwright.corpus.signals.runs import (
    ALL_UNIS,
    ALL_WORDS,
    DIFFERENT_RUNS,
    DIFFERENT_WORDS,
    N_COUNTS,
    add_runs,
    clear,
    decode,
)

_CHARS = 0
_WORDS = _CHARS + len(schema.CHARS)
_TOKENS = _WORDS + len(schema.WORDS)
_LINES = _TOKENS + len(schema.TOKENS)
_REPEATS = _LINES + len(schema.LINES)
_PAGES = _REPEATS + len(schema.REPEATS)
N_COLUMNS = _PAGES + len(schema.PAGES)
REFINEDWEB = 8
_LONG = 1023  # lengths from here on are one for the median


@part
def _chars(room, n, n_bytes, out):
    """Signals of characters."""
    cp, fl = get_cp(room), get_fl(room)
    upper, decimal, punct, space, alnum, basic, blank, bracket, plain = 0, 0, 0, 0, 0, 0, 0, 0, 0
    for i in range(n):  # sums of bits alone, which the compiler turns into vector instructions
        f = fl[i]
        upper += np.int32(f & UPPER != 0)
        decimal += np.int32(f & DECIMAL != 0)
        punct += np.int32(f & PUNCT != 0)
        space += np.int32(f & SPACE != 0)
        alnum += np.int32(f & ALNUM != 0)
        basic += np.int32(f & BASIC != 0)
        blank += np.int32(f & BLANK != 0)
        bracket += np.int32(f & BRACKET != 0)
        plain += np.int32(f & (ALNUM | DECIMAL) == ALNUM)
    curly = 0
    for i in range(n):
        curly += np.int32((cp[i] == 123) | (cp[i] == 125))
    out[0] = n_bytes
    out[1] = n
    out[2] = over(plain, n - space)
    out[3] = over(upper, n)
    out[4] = over(decimal, n)
    out[5] = over(punct, n)
    out[6] = over(space, n)
    out[7] = over(alnum, n)
    out[8] = over(curly, n)
    out[9] = (n - basic) / n if n else 1.0
    out[10] = blank / n if n else 1.0
    out[11] = bracket / n if n else 1.0
    out[12] = _urls(cp, n) / n if n else 1.0


@part
def _hex(c):
    return 48 <= c <= 57 or 65 <= c <= 70 or 97 <= c <= 102


@part
def _urls(cp, n):
    """Characters that NeMo Curator's pattern for addresses takes."""
    total = 0
    i = 0
    while i < n - 7:
        if cp[i] != 104 or cp[i + 1] != 116 or cp[i + 2] != 116 or cp[i + 3] != 112:
            i += 1
            continue
        j = i + 4
        if cp[j] == 115:
            j += 1
        if j + 3 > n or cp[j] != 58 or cp[j + 1] != 47 or cp[j + 2] != 47:
            i += 1
            continue
        j += 3
        start = j
        while j < n:
            c = cp[j]
            if (
                48 <= c <= 57
                or 64 <= c <= 90
                or 97 <= c <= 122
                or c in (36, 45, 95, 46, 38, 43, 33, 42, 92, 40, 41, 44)
            ):
                j += 1
            elif c == 37 and j + 2 < n and _hex(cp[j + 1]) and _hex(cp[j + 2]):
                j += 3
            else:
                break
        if j > start:
            total += j - i
            i = j
        else:
            i += 1
    return total


@part
def _symbols(cp, n):
    """Hash signs, "...", "…", ". . ." as ``str.count`` counts them."""
    hashes, dots, ellipses, spaced = 0, 0, 0, 0
    after, after_spaced = 0, 0
    for i in range(n):
        c = cp[i]
        if c == 35:
            hashes += 1
        elif c == 0x2026:
            ellipses += 1
        elif c == 46:
            if i >= after and i + 2 < n and cp[i + 1] == 46 and cp[i + 2] == 46:
                dots += 1
                after = i + 3
            if (
                i >= after_spaced
                and i + 4 < n
                and cp[i + 1] == 32
                and cp[i + 2] == 46
                and cp[i + 3] == 32
                and cp[i + 4] == 46
            ):
                spaced += 1
                after_spaced = i + 5
    return hashes, dots, ellipses, spaced


@part
def _words(room, runs, different, symbols, lengths, out):
    """Signals of words, from the different ones and how often each comes.

    Args:
        symbols: hash signs and ellipses.
        lengths: (1024,) zeros, and zeros again afterwards.
    """
    kind = get_kind(room)
    chars, longest = 0, 0
    alpha, caps, stop, stop_any, symbol = 0, 0, 0, 0, 0
    entropy = 0.0
    for i in range(different):
        k = get_touched(room)[0, i]
        times = kind[k, 3]
        size = kind[k, 1] - kind[k, 0]
        marks = kind[k, 2]
        chars += times * size
        longest = max(longest, size)
        lengths[min(size, _LONG)] += times
        alpha += times if marks & HAS_ALPHA else 0
        caps += times if marks & IS_CAPS else 0
        stop += times if marks & IS_STOP else 0
        stop_any += times if marks & IS_STOP_ANY else 0
        symbol += times if marks & IS_SYMBOL else 0
        entropy += times * np.log(times)
    seen, low, high = 0, -1, -1
    for size in range(1, min(longest, _LONG) + 1):
        seen += lengths[size]
        lengths[size] = 0
        if low < 0 and seen > (runs - 1) // 2:
            low = size
        if high < 0 and seen > runs // 2:
            high = size
    out[0] = runs
    out[1] = different
    out[2] = over(chars, runs)
    out[3] = (low + high) / 2 if runs else 0.0
    out[4] = longest
    out[5] = over(alpha, runs)
    out[6] = over(runs - alpha, runs)
    out[7] = over(caps, runs)
    out[8] = stop_any
    out[9] = stop
    out[10] = over(stop_any, runs)
    out[11] = np.log(runs) - entropy / runs if runs else 0.0
    out[12] = over(symbol, runs)
    out[13] = symbols / runs if runs else 1.0


@part
def _tokens(room, different, total, hashes, ellipses, unis, out):
    """Signals of datatrove's words."""
    word = get_word(room)
    real, chars, alpha, stops = 0, 0, 0, 0
    for i in range(different):
        k = get_touched(room)[1, i]
        times, marks = word[k, 3], word[k, 2]
        if marks & NO_SYMBOL:
            real += times
            chars += times * (word[k, 1] - word[k, 0])
        if marks & WORD_ALPHA:
            alpha += times
        if marks & WORD_STOP:
            stops += 1
    out[0] = real
    out[1] = over(chars, real)
    out[2] = over(hashes, total)
    out[3] = over(ellipses, total)
    out[4] = over(alpha, total)
    out[5] = stops
    out[6] = unis


@part
def _lengths(room, ids, words, n):
    """Fill ``room.size`` with the characters before each word."""
    total = 0
    size = get_size(room)
    for i in range(n):
        size[i] = total
        total += words[ids[i], 1] - words[ids[i], 0]
    size[n] = total
    return total


@part
def look(data, start, end, room, counts, lengths, out):
    """All measurements of one document.

    Args:
        data: UTF-8, of which ``start`` to ``end`` is the document.
        counts: (N_COUNTS,) int64, zeros at first; lengths: (1024,) int64 zeros.
        out: (N_COLUMNS,) float64.

    Returns:
        Code points, lines at "\\n", lines of ``str.splitlines``: whose fates stand in ``room.drop`` and ``room.page``.
    """
    out[:] = 0
    spans = np.zeros(6, np.int64)
    grams = np.zeros(18, np.int64)
    c4 = np.zeros((3, 5), np.int64)
    n = decode(data, start, end, room)
    clear(room, counts, n)
    _chars(room, n, end - start, out[_CHARS:_WORDS])
    runs = add_runs(room, counts, ZERO, n, ZERO, np.int64(1))
    tokens, unis = counts[ALL_WORDS], counts[ALL_UNIS]
    hashes, dots, ellipses, spaced = _symbols(get_cp(room), n)
    _words(room, runs, counts[DIFFERENT_RUNS], hashes + dots + ellipses + spaced, lengths, out[_WORDS:_TOKENS])
    _tokens(room, counts[DIFFERENT_WORDS], tokens, hashes, dots + ellipses, unis, out[_TOKENS:_LINES])
    lines, paragraphs, ends, splits = split(room, n)
    pages = split_lines(room, n)
    line_out = out[_LINES:_REPEATS]
    repeat_out = out[_REPEATS:_PAGES]
    line_shapes(room, n, lines, pages, line_out)
    phrases(room, runs, lines, paragraphs, splits, line_out)
    line_out[1] = paragraphs
    line_out[2] = count_sentences(room, ZERO, runs, ZERO, n) if runs else 0
    line_out[3] = stretches(room, n)
    line_out[15] = over(ends, tokens)
    copies(room, n, lines, paragraphs, spans, repeat_out, line_out)
    _lengths(room, get_stream(room)[0], get_word(room), tokens)
    sequences(room, get_stream(room)[0], tokens, get_word(room), grams)
    for k in range(9):
        repeat_out[4 + k] = over(grams[k], n)
    total = _lengths(room, get_stream(room)[1], get_uni(room), unis)
    sequences(room, get_stream(room)[1], unis, get_uni(room), grams)
    for k in range(9):
        repeat_out[17 + k] = over(grams[9 + k], total)
    c4_lines(room, pages, runs, counts, n, c4)
    for mode in range(3):
        for k in range(5):
            out[_PAGES + 5 * mode + k] = c4[mode, k]
    refinedweb_lines(room, lines, runs, unis, spans)
    out[_PAGES + 15] = spans[0]
    out[_PAGES + 16] = over(spans[1], unis)
    return n, lines, pages


@part
def _removed(room, begins, line_rows, n, rules, row, spans, at):
    """Write down the stretches of neighbouring lines that rules remove, from one line's start to the start of the next that stays.

    Where the last line goes, the line end before it goes too. Returns the row after the last of ``spans``.
    """
    cp, drop, page = get_cp(room), get_drop(room), get_page(room)
    k = ZERO
    while k < line_rows:
        first = k
        while k < line_rows and (drop[k] != 0 if rules == REFINEDWEB else page[2, k] & rules != 0):
            k += 1
        if k == first:
            k += 1
            continue
        start, end = np.int64(begins[first]), np.int64(begins[k]) if k < line_rows else n
        if k == line_rows and start:
            start -= 2 if start > 1 and cp[start - 1] == 10 and cp[start - 2] == 13 else 1
        if start < end:
            spans[at, 0], spans[at, 1], spans[at, 2] = row, start, end
            at += 1
    return at


def _compile(made_of: int):
    @kernel
    def look_at_all(data, offsets, at, out, rules, spans):
        """Measure every document of an Arrow array, and find the lines that rules remove.

        Args:
            data: (b,) uint8.
            offsets: (d + 1,) int64.
            at: ``addresses`` of a room for the longest.
            out: (d, N_COLUMNS) float64; with a single row, all documents write into it.
            rules: bits of C4's rules as in ``room.page``, or REFINEDWEB, or 0 for none.
            spans: (s, 3) int64, filled with row, start and end in characters of what goes; s: a row for every two bytes and one a document.

        Returns:
            Rows of ``spans`` that were filled.
        """
        room = at
        counts = np.full(N_COUNTS, made_of * 0)
        lengths = np.zeros(1024, np.int64)
        found = ZERO
        for row in range(len(offsets) - 1):
            n, lines, pages = look(
                data, offsets[row], offsets[row + 1], room, counts, lengths, out[min(row, len(out) - 1)]
            )
            if rules == REFINEDWEB:
                found = _removed(room, get_line(room)[0], lines, n, rules, row, spans, found)
            elif rules != 0:
                found = _removed(room, get_page(room)[0], pages, n, rules, row, spans, found)
        return found

    return look_at_all


look_at_all = _compile(version())
