"""Rules that look at lines: C4 in three settings, RefinedWeb as DCLM does it. A line is kept or removed whole; some lines drop the page."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.
# ruff: noqa: SIM110

import numpy as np

from gptwright.corpus.signals.arrays import (
    get_cp,
    get_drop,
    get_fl,
    get_kind,
    get_line,
    get_lower,
    get_page,
    get_pool,
    get_run,
    get_wb,
    get_word,
)
from gptwright.corpus.signals.chars import ALNUM, BREAK, DECIMAL, DIGIT, SPACE, UPPER
from gptwright.corpus.signals.jit import ZERO, part
from gptwright.corpus.signals.marks import (
    EDIT,
    ENDS_SENTENCE,
    FOLLOWERS,
    HAS_CURLY,
    HAS_SQUARE,
    IN_CART,
    LIKES,
    LOREM,
    NEEDED,
    POLICY,
    QUOTES,
    READ_ON,
    RETWEETS,
    SCRIPT,
    SIGN_IN,
    STARTS_LOWER,
    UPVOTES,
    VIEWS,
    WORD_END,
    WORD_PUNCT,
    says,
)
from gptwright.corpus.signals.runs import add_runs

MODES = 3  # C4 as its authors wrote it, datatrove's defaults, and those with FineWeb's setting
_LONGEST_WORD = 1000


@part
def split_lines(room, n):
    """Lines as ``str.splitlines`` gives them, into ``room.page``. Returns how many."""
    cp, fl, page = get_cp(room), get_fl(room), get_page(room)
    total, start, i = 0, 0, 0
    while i < n:
        if fl[i] & BREAK:
            page[0, total], page[1, total] = start, i
            total += 1
            if cp[i] == 13 and i + 1 < n and cp[i + 1] == 10:
                i += 1
            start = i + 1
        i += 1
    if start < n:
        page[0, total], page[1, total] = start, n
        total += 1
    return total


@part
def count_sentences(room, first, last, s, e):
    """Sentences as spaCy's sentencizer counts them: one starts at the first word after an end mark that is no punctuation.

    Args:
        first, last: rows of ``room.run``.
        s, e: the text they stand in; white space of more than one blank is a word of its own.
    """
    if s >= e:
        return 0
    run, kind, pool, words = get_run(room), get_kind(room), get_pool(room)[0], get_word(room)
    total, ended = 1, False
    end = s
    for k in range(first, last):
        gap = run[0, k] - end
        if gap and ended and (end == s or gap > 1 or get_cp(room)[end] != 32):
            total += 1
            ended = False
        one = run[2, k]
        for at in range(kind[one, 4], kind[one, 4] + kind[one, 5]):
            mark = words[pool[at], 2]
            if mark & WORD_END:
                ended = True
            elif ended and not mark & WORD_PUNCT:
                total += 1
                ended = False
        end = run[1, k]
    if ended and e - end > 0 and (e - end > 1 or get_cp(room)[end] != 32):
        total += 1
    return total


@part
def _prose_sentences(room, first, last):
    """Sentences of a line in the place of nltk's trained model: an end mark, no abbreviation before it, no small letter after it."""
    run, kind = get_run(room), get_kind(room)
    total = 1 if last > first else 0
    for k in range(first, last - 1):
        if kind[run[2, k], 2] & ENDS_SENTENCE and not kind[run[2, k + 1], 2] & STARTS_LOWER:
            total += 1
    return total


@part
def _citation(room, i, e):
    """Length of a citation mark of Wikipedia at i: [12], [], [edit], [citation needed]."""
    cp = get_cp(room)
    j = i + 1
    while j < e and get_fl(room)[j] & DECIMAL:
        j += 1
    if j < e and cp[j] == 93:
        return j + 1 - i
    for phrase in range(EDIT, NEEDED + 1):
        size = 5 if phrase == EDIT else 16
        if says(cp, get_lower(room), i + 1, e, phrase):
            for k in range(i + 1, i + 1 + size):
                if get_fl(room)[k] & UPPER:
                    return 0
            return size + 1
    return 0


@part
def c4_lines(room, pages, runs, counts, tail, out):
    """The rules of C4 for every line.

    Args:
        pages: lines in ``room.page``, whose third row gets the bits of the modes that remove the line.
        runs: runs of the document; rows after them hold those of lines without their citations.
        counts: the kernels' scratch.
        tail: where the buffer of code points is free.
        out: (3, 5) a mode: lines kept, their words, their sentences, whether a line says "lorem ipsum", whether one holds "{".
    """
    cp, fl, run, kind, page = get_cp(room), get_fl(room), get_run(room), get_kind(room), get_page(room)
    out[:] = 0
    at = ZERO
    for line in range(pages):
        s, e = np.int64(page[0, line]), np.int64(page[1, line])
        while at < runs and run[0, at] < s:
            at += 1
        first = at
        marks, phrases, longest = 0, 0, 0
        while at < runs and run[0, at] < e:
            marks |= kind[run[2, at], 2]
            phrases |= run[5, at]
            longest = max(longest, run[1, at] - run[0, at])
            at += 1
        last = at
        page[2, line] = (1 << MODES) - 1
        if longest > _LONGEST_WORD:
            continue
        before = last - first
        if last > first:
            s, e = np.int64(run[0, first]), np.int64(run[1, last - 1])
        else:
            e = s
        if marks & HAS_SQUARE:  # a copy without citations takes the line's place
            start, i, cut = tail, s, False
            while i < e:
                size = _citation(room, i, e) if cp[i] == 91 else 0
                if size:
                    i += size
                    cut = True
                    continue
                cp[tail], fl[tail], get_wb(room)[tail] = cp[i], fl[i], get_wb(room)[i]
                tail += 1
                i += 1
            if cut:
                s, e = start, tail
                first = runs
                last = add_runs(room, counts, s, e, first, ZERO)
                marks, phrases = 0, 0
                for k in range(first, last):
                    marks |= kind[run[2, k], 2]
                    phrases |= run[5, k]
            tail = start
        words = last - first
        ends = False
        if e > s:
            c = cp[e - 1]
            dots = e - s >= 3 and c == 46 and cp[e - 2] == 46 and cp[e - 3] == 46
            ends = (c == 46 or c == 63 or c == 33 or c == 34) and not dots
            ends_datatrove = ends or (c == 39 and not dots)
        else:
            ends_datatrove = False
        removed = 0
        sentences = -1
        for mode in range(MODES):
            if mode == 0:
                passes = ends and words >= 5
            elif mode == 1:
                passes = ends_datatrove and before >= 3
            else:
                passes = before >= 3
            if passes and phrases & LOREM:
                out[mode, 3] = 1
            elif passes and phrases & SCRIPT:
                passes = False
            elif passes and marks & HAS_CURLY:
                out[mode, 4] = 1
            elif passes and phrases & POLICY:
                passes = False
            if not passes:
                removed |= 1 << mode
                continue
            out[mode, 0] += 1
            out[mode, 1] += words
            if mode == 0:
                out[0, 2] += _prose_sentences(room, first, last)
            else:
                if sentences < 0:
                    sentences = count_sentences(room, first, last, s, e)
                out[mode, 2] += sentences
        page[2, line] = removed


@part
def _counter(room, s, e):
    """Whether a line is a counter of a social site: "3 likes", "1.2K views"."""
    cp, fl, lower = get_cp(room), get_fl(room), get_lower(room)
    i = s
    while i < e and not (fl[i] & ALNUM or cp[i] == 95):
        i += 1
    if i >= e or not fl[i] & DECIMAL:
        return False
    while i < e and (fl[i] & DECIMAL or cp[i] == 44 or cp[i] == 46):
        i += 1
    if i < e and lower[cp[i]] in (107, 109, 98):
        i += 1
    start = i
    while i < e and fl[i] & SPACE:
        i += 1
    if i == start:
        return False
    size = 0
    for phrase in range(LIKES, FOLLOWERS + 1):
        if says(cp, lower, i, e, phrase):
            size = (
                5
                if phrase <= VIEWS
                else 6
                if phrase <= QUOTES
                else 7
                if phrase <= UPVOTES
                else 8
                if phrase <= RETWEETS
                else 9
            )
            break
    if size == 0:
        return False
    for k in range(i + size, e):
        if fl[k] & ALNUM or cp[k] == 95:
            return False
    return True


@part
def refinedweb_lines(room, lines, runs, unis, out):
    """RefinedWeb's rules for every line at "\\n", which mark ``room.drop``.

    Args:
        runs, unis: runs and Unicode words of the document.
        out: (2,) lines removed; Unicode words removed, those of phrases that are cut out of short lines included.
    """
    cp, fl, run, line = get_cp(room), get_fl(room), get_run(room), get_line(room)
    out[:] = 0
    at = 0
    for k in range(lines):
        s, e = np.int64(line[0, k]), np.int64(line[1, k])
        get_drop(room)[k] = 0
        first = at
        while at < runs and run[0, at] < e:
            at += 1
        if s == e:
            continue
        words = (run[4, at] if at < runs else unis) - (run[4, first] if first < runs else unis)
        upper, digits = 0, 0
        for i in range(s, e):
            upper += np.int64(fl[i] & UPPER != 0)
            digits += np.int64(fl[i] & DIGIT != 0)
        if 2 * upper > e - s or digits == e - s or at - first < 2 or _counter(room, s, e):
            get_drop(room)[k] = 1
            out[0] += 1
            out[1] += words
        elif at - first <= 10:
            cut = 0
            if says(cp, get_lower(room), s, e, SIGN_IN):
                cut += 2
            if e - 12 >= s and says(cp, get_lower(room), e - 12, e, READ_ON):
                cut += 2
            for i in range(s, e - 12):
                if says(cp, get_lower(room), i, e, IN_CART):
                    cut += 3
            out[1] += min(cut, words)
