"""From bytes to runs and words: the first pass over a document. Each different run is cut and looked at once, however often it comes."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.

import numpy as np

from gptwright.corpus.signals.arrays import (
    get_classes,
    get_cp,
    get_fl,
    get_flags,
    get_keys,
    get_kind,
    get_pool,
    get_run,
    get_runs,
    get_stamp,
    get_starts,
    get_stream,
    get_text,
    get_text_fl,
    get_text_wb,
    get_touched,
    get_uni,
    get_unis,
    get_values,
    get_wb,
    get_word,
    get_words,
)
from gptwright.corpus.signals.chars import (
    ALNUM,
    SPACE,
)
from gptwright.corpus.signals.jit import ZERO, inlined, part
from gptwright.corpus.signals.marks import HAS_SCRIPT, MAY_PHRASE, marks_of_run, marks_of_word, phrase_at
from gptwright.corpus.signals.tokens import exception_of, spacy_words, span_hash, unicode_word

# Places of the scratch that all kernels share: what is known of runs, then counts of the document
(
    _STAMP,
    _MASK,
    _RUNS,
    _WORDS,
    _UNIS,
    _POOL,
    _POOL_UNIS,
    _TEXT_USED,
    DIFFERENT_RUNS,
    DIFFERENT_WORDS,
    DIFFERENT_UNIS,
    ALL_WORDS,
    ALL_UNIS,
) = range(13)
N_COUNTS = 13
MOST_RUNS = 1 << 14  # known at a time, beside those of the document: their tables stay in the processor's cache


@part
def decode(data, start, end, room):
    """UTF-8 to code points, their properties and their classes. Returns how many."""
    cp, fl, wb = get_cp(room), get_fl(room), get_wb(room)
    flags, classes = get_flags(room), get_classes(room)
    n = 0
    i = start
    while i < end:
        b = np.int32(data[i])
        if b < 0x80:
            i += 1
        elif b < 0xE0:
            b = (b & 0x1F) << 6 | np.int32(data[i + 1] & 0x3F)
            i += 2
        elif b < 0xF0:
            b = (b & 0x0F) << 12 | np.int32(data[i + 1] & 0x3F) << 6 | np.int32(data[i + 2] & 0x3F)
            i += 3
        else:
            b = (
                (b & 0x07) << 18
                | np.int32(data[i + 1] & 0x3F) << 12
                | np.int32(data[i + 2] & 0x3F) << 6
                | np.int32(data[i + 3] & 0x3F)
            )
            i += 4
        cp[n] = b
        fl[n] = flags[b]
        wb[n] = classes[b]
        n += 1
    return n


@inlined
def enter(table, mask, stamp, key, cp, s, e, text, spans, n):
    """The id of a span of text in a table; a new one gets the next id, n, and is told apart from all others by its characters.

    Args:
        table: (m,) stamp and id in one number, so that eight stand in a line of the cache; ``mask`` of its cells are used.
        text, spans: where the spans stand, by id: start and end first. The caller puts a new one in.
    """
    at = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(mask))
    mark = np.uint64(stamp) << np.uint64(32)
    while True:
        entry = table[at]
        if entry & np.uint64(0xFFFFFFFF00000000) != mark:
            table[at] = mark | np.uint64(n)
            return n
        one = np.int64(entry & np.uint64(0xFFFFFFFF))
        first = np.int64(spans[one, 0])
        if spans[one, 1] - first == e - s:
            k = ZERO
            while k < e - s and text[first + k] == cp[s + k]:
                k += 1
            if k == e - s:
                return one
        at = (at + 1) & mask


@inlined
def _new_run(room, counts, n, s, e):
    """Keep the text of a new run, mark it and cut it into words of both kinds.

    Args:
        counts: (5,) int64: different runs, spaCy words and Unicode words so far, used places in the pools, and in the text.
        n: the run's id.
        s, e: where it stands in the document.
    """
    kind, pool, starts, stamp, mask = get_kind(room), get_pool(room), get_starts(room), counts[_STAMP], counts[_MASK]
    text, fl, wb = get_text(room), get_text_fl(room), get_text_wb(room)
    base = counts[_TEXT_USED]
    for i in range(s, e):
        text[base + i - s], fl[base + i - s], wb[base + i - s] = get_cp(room)[i], get_fl(room)[i], get_wb(room)[i]
    s, e = base, base + e - s
    counts[_TEXT_USED] = e
    kind[n, 0], kind[n, 1] = s, e
    kind[n, 2] = marks_of_run(room, s, e, exception_of(text, s, e, get_keys(room), get_values(room)))
    kind[n, 3] = 0
    total = spacy_words(text, fl, s, e, get_keys(room), get_values(room), starts)
    at = counts[_POOL]
    kind[n, 4], kind[n, 5] = at, total
    for i in range(total):
        a, b = starts[i], starts[i + 1]
        known = counts[_WORDS]
        word = enter(
            get_words(room),
            mask,
            stamp,
            span_hash(text, a, b),
            text,
            a,
            b,
            text,
            get_word(room),
            known,
        )
        if word == known:
            counts[_WORDS] = known + 1
            get_word(room)[word, 0], get_word(room)[word, 1] = a, b
            get_word(room)[word, 2] = marks_of_word(room, a, b)
            get_word(room)[word, 3] = 0
        pool[0, at + i] = word
    counts[_POOL] = at + total
    at = counts[_POOL_UNIS]
    total = 0
    a = s
    while a < e:
        b = unicode_word(text, wb, a, e)
        if fl[a] & ALNUM:
            known = counts[_UNIS]
            word = enter(
                get_unis(room),
                mask,
                stamp,
                span_hash(text, a, b),
                text,
                a,
                b,
                text,
                get_uni(room),
                known,
            )
            if word == known:
                counts[_UNIS] = known + 1
                get_uni(room)[word, 0], get_uni(room)[word, 1] = a, b
                get_uni(room)[word, 3] = 0
            pool[1, at + total] = word
            total += 1
        a = b
    kind[n, 6], kind[n, 7] = at, total
    counts[_POOL_UNIS] = at + total


@part
def clear(room, counts, n):
    """Make ready for a document of n characters: forget the counts of the last one, and all known runs when room gets short.

    Runs are known from document to document, since most of them come again. What is known changes no result, only the time it takes.
    """
    for i in range(counts[DIFFERENT_RUNS]):
        get_kind(room)[get_touched(room)[0, i], 3] = 0
    for i in range(counts[DIFFERENT_WORDS]):
        get_word(room)[get_touched(room)[1, i], 3] = 0
    for i in range(counts[DIFFERENT_UNIS]):
        get_uni(room)[get_touched(room)[2, i], 3] = 0
    counts[DIFFERENT_RUNS:] = 0
    most = max(counts[_RUNS], counts[_WORDS], counts[_UNIS]) + n
    if 2 * most > counts[_MASK] or counts[_TEXT_USED] + 2 * n > len(get_text(room)) - 16 or counts[_RUNS] > MOST_RUNS:
        counts[:] = 0
        get_stamp(room)[0] += 1
        counts[_STAMP] = get_stamp(room)[0]
        counts[_MASK] = table_mask(get_runs(room), 2 * MOST_RUNS + n)


@part
def table_mask(table, items):
    """How much of a table to use for so many items: the fewer, the more of it stays in the cache."""
    cells = 1024
    while cells < 2 * items and cells < len(table):
        cells *= 2
    return cells - 1


@part
def add_runs(room, counts, s, e, first, count):
    """Find the runs between two places and write them from row ``first`` on.

    Args:
        count: 1 when they count as words of the document (0 for those of a changed copy of a line).

    Returns:
        The row after the last.
    """
    cp, fl, run, kind, pool, stream = (
        get_cp(room),
        get_fl(room),
        get_run(room),
        get_kind(room),
        get_pool(room),
        get_stream(room),
    )
    table, mask, stamp, text = get_runs(room), counts[_MASK], counts[_STAMP], get_text(room)
    at = first
    i = s
    tok, uni = counts[ALL_WORDS], counts[ALL_UNIS]
    while i < e:
        if fl[i] & SPACE:
            i += 1
            continue
        j = i + 1
        while j < e and not fl[j] & SPACE:
            j += 1
        n = counts[_RUNS]
        one = enter(table, mask, stamp, span_hash(cp, i, j), cp, i, j, text, kind, n)
        if one == n:
            counts[_RUNS] = n + 1
            _new_run(room, counts, n, i, j)
        run[0, at], run[1, at], run[2, at] = i, j, one
        run[3, at], run[4, at] = tok, uni
        run[5, at] = (
            phrase_at(room, i, j, s, e, np.int64(kind[one, 2])) if kind[one, 2] & (MAY_PHRASE | HAS_SCRIPT) else 0
        )
        if count != 0:
            if kind[one, 3] == 0:
                get_touched(room)[0, counts[DIFFERENT_RUNS]] = one
                counts[DIFFERENT_RUNS] += 1
            kind[one, 3] += 1
            source = kind[one, 4]
            for k in range(kind[one, 5]):
                stream[0, tok + k] = pool[0, source + k]
            tok += kind[one, 5]
            source = kind[one, 6]
            for k in range(kind[one, 7]):
                stream[1, uni + k] = pool[1, source + k]
            uni += kind[one, 7]
        at += 1
        i = j
    if count != 0:
        counts[ALL_WORDS], counts[ALL_UNIS] = tok, uni
        _count_words(room, counts, pool[0], np.int64(4), get_word(room), np.int64(1))
        _count_words(room, counts, pool[1], np.int64(6), get_uni(room), np.int64(2))
    return at


@inlined
def _count_words(room, counts, pool, column, words, which):
    """How often each word comes, from how often each run does. ``which``: 1 for spaCy words, 2 for Unicode words."""
    found, kind = ZERO, get_kind(room)
    touched = get_touched(room)[which]
    for i in range(counts[DIFFERENT_RUNS]):
        one = get_touched(room)[0, i]
        often = kind[one, 3]
        for at in range(kind[one, column], kind[one, column] + kind[one, column + 1]):
            word = pool[at]
            if words[word, 3] == 0:
                touched[found] = word
                found += 1
            words[word, 3] += often
    counts[DIFFERENT_RUNS + which] = found
