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
from gptwright.corpus.signals.jit import ZERO, part
from gptwright.corpus.signals.marks import HAS_SCRIPT, MAY_PHRASE, marks_of_run, marks_of_word, phrase_at
from gptwright.corpus.signals.tokens import exception_of, spacy_words, span_hash, unicode_word

# Places of the scratch that all kernels share: what is known of runs, then counts of the document
(
    _STAMP,
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
) = range(12)
N_COUNTS = 12
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


@part
def enter(table, mask, stamp, key, cp, s, e, text, starts, ends, n):
    """The id of a span of text in a table; a new one gets the next id, n, and is told apart from all others by its characters.

    Args:
        table: (m, 2); ``mask`` of its cells are used.
        text, starts, ends: the spans by id. The caller puts a new one in.
    """
    at = np.int64((key ^ (key >> np.uint64(32))) & np.uint64(mask))
    mark = np.uint64(stamp) << np.uint64(32)
    while True:
        entry = table[at, 1]
        if entry & np.uint64(0xFFFFFFFF00000000) != mark:
            table[at, 0] = key
            table[at, 1] = mark | np.uint64(n)
            return n
        if table[at, 0] == key:
            one = np.int64(entry & np.uint64(0xFFFFFFFF))
            first = np.int64(starts[one])
            if ends[one] - first == e - s:
                same = True
                for k in range(e - s):
                    if text[first + k] != cp[s + k]:
                        same = False
                        break
                if same:
                    return one
        at = (at + 1) & mask


@part
def _new_run(room, counts, n, s, e):
    """Keep the text of a new run, mark it and cut it into words of both kinds.

    Args:
        counts: (5,) int64: different runs, spaCy words and Unicode words so far, used places in the pools, and in the text.
        n: the run's id.
        s, e: where it stands in the document.
    """
    kind, pool, starts, stamp, mask = (
        get_kind(room),
        get_pool(room),
        get_starts(room),
        counts[_STAMP],
        len(get_runs(room)) - 1,
    )
    text, fl, wb = get_text(room), get_text_fl(room), get_text_wb(room)
    base = counts[_TEXT_USED]
    for i in range(s, e):
        text[base + i - s], fl[base + i - s], wb[base + i - s] = get_cp(room)[i], get_fl(room)[i], get_wb(room)[i]
    s, e = base, base + e - s
    counts[_TEXT_USED] = e
    kind[0, n], kind[1, n] = s, e
    kind[2, n] = marks_of_run(room, s, e, exception_of(text, s, e, get_keys(room), get_values(room)))
    kind[3, n] = 0
    total = spacy_words(text, fl, s, e, get_keys(room), get_values(room), starts)
    at = counts[_POOL]
    kind[4, n], kind[5, n] = at, total
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
            get_word(room)[0],
            get_word(room)[1],
            known,
        )
        if word == known:
            counts[_WORDS] = known + 1
            get_word(room)[0, word], get_word(room)[1, word] = a, b
            get_word(room)[2, word] = marks_of_word(room, a, b)
            get_word(room)[3, word] = 0
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
                get_uni(room)[0],
                get_uni(room)[1],
                known,
            )
            if word == known:
                counts[_UNIS] = known + 1
                get_uni(room)[0, word], get_uni(room)[1, word] = a, b
                get_uni(room)[3, word] = 0
            pool[1, at + total] = word
            total += 1
        a = b
    kind[6, n], kind[7, n] = at, total
    counts[_POOL_UNIS] = at + total


@part
def clear(room, counts, n):
    """Make ready for a document of n characters: forget the counts of the last one, and all known runs when room gets short.

    Runs are known from document to document, since most of them come again. What is known changes no result, only the time it takes.
    """
    for i in range(counts[DIFFERENT_RUNS]):
        get_kind(room)[3, get_touched(room)[0, i]] = 0
    for i in range(counts[DIFFERENT_WORDS]):
        get_word(room)[3, get_touched(room)[1, i]] = 0
    for i in range(counts[DIFFERENT_UNIS]):
        get_uni(room)[3, get_touched(room)[2, i]] = 0
    counts[DIFFERENT_RUNS:] = 0
    if counts[_STAMP] == 0 or counts[_TEXT_USED] + 2 * n > len(get_text(room)) - 16 or counts[_RUNS] > MOST_RUNS:
        counts[:] = 0
        get_stamp(room)[0] += 1
        counts[_STAMP] = get_stamp(room)[0]


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
    table, mask, stamp, text = get_runs(room), len(get_runs(room)) - 1, counts[_STAMP], get_text(room)
    begins, finishes = get_kind(room)[0], get_kind(room)[1]
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
        one = enter(table, mask, stamp, span_hash(cp, i, j), cp, i, j, text, begins, finishes, n)
        if one == n:
            counts[_RUNS] = n + 1
            _new_run(room, counts, n, i, j)
        run[0, at], run[1, at], run[2, at] = i, j, one
        run[3, at], run[4, at] = tok, uni
        run[5, at] = (
            phrase_at(room, i, j, s, e, np.int64(kind[2, one])) if kind[2, one] & (MAY_PHRASE | HAS_SCRIPT) else 0
        )
        if count != 0:
            if kind[3, one] == 0:
                get_touched(room)[0, counts[DIFFERENT_RUNS]] = one
                counts[DIFFERENT_RUNS] += 1
            kind[3, one] += 1
            source = kind[4, one]
            for k in range(kind[5, one]):
                stream[0, tok + k] = pool[0, source + k]
            tok += kind[5, one]
            source = kind[6, one]
            for k in range(kind[7, one]):
                stream[1, uni + k] = pool[1, source + k]
            uni += kind[7, one]
        at += 1
        i = j
    if count != 0:
        counts[ALL_WORDS], counts[ALL_UNIS] = tok, uni
        _count_words(room, counts, pool[0], kind[4], kind[5], get_word(room)[3], np.int64(1))
        _count_words(room, counts, pool[1], kind[6], kind[7], get_uni(room)[3], np.int64(2))
    return at


@part
def _count_words(room, counts, pool, starts, sizes, times, which):
    """How often each word comes, from how often each run does. ``which``: 1 for spaCy words, 2 for Unicode words."""
    found = ZERO
    touched = get_touched(room)[which]
    for i in range(counts[DIFFERENT_RUNS]):
        one = get_touched(room)[0, i]
        often = get_kind(room)[3, one]
        for at in range(starts[one], starts[one] + sizes[one]):
            word = pool[at]
            if times[word] == 0:
                touched[found] = word
                found += 1
            times[word] += often
    counts[DIFFERENT_RUNS + which] = found
