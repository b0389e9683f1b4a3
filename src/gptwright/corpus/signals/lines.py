"""Signals of lines and paragraphs: their shapes, the phrases in them, and those that come more than once."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.

import numpy as np

from gptwright.corpus.signals.arrays import get_cp, get_fl, get_line, get_list, get_lower, get_page, get_para, get_run
from gptwright.corpus.signals.chars import ALNUM, BULLET, SPACE, TERMINAL
from gptwright.corpus.signals.jit import ZERO, inlined, part
from gptwright.corpus.signals.marks import LOREM, POLICY, READ_MORE, SCRIPT, says
from gptwright.corpus.signals.repeats import repeated_spans


@inlined
def over(a, b):
    return a / b if b else 0.0


@inlined
def strip(fl, s, e):
    while s < e and fl[s] & SPACE:
        s += 1
    while e > s and fl[e - 1] & SPACE:
        e -= 1
    return s, e


@part
def split(room, n):
    """Lines and paragraphs. Returns how many of each, line ends, and paragraphs as ``str.split("\\n\\n")`` counts them."""
    cp, fl, line, para = get_cp(room), get_fl(room), get_line(room), get_para(room)
    lines, start = ZERO, ZERO
    for i in range(n + 1):
        if i == n or cp[i] == 10:
            line[0, lines], line[1, lines] = start, i
            line[2, lines], line[3, lines] = strip(fl, start, i)
            lines += 1
            start = i + 1
    splits = 1
    i = 0
    while i < n:
        if cp[i] == 10:
            j = i
            while j < n and cp[j] == 10:
                j += 1
            splits += (j - i) // 2
            i = j
        i += 1
    a, b = strip(fl, ZERO, n)
    paragraphs = ZERO
    start, i = a, a
    while i < b:
        if cp[i] == 10 and cp[i + 1] == 10:
            para[0, paragraphs], para[1, paragraphs] = start, i
            paragraphs += 1
            while cp[i] == 10:
                i += 1
            start = i
        else:
            i += 1
    if b > a:
        para[0, paragraphs], para[1, paragraphs] = start, b
        paragraphs += 1
    return lines, paragraphs, lines - 1, splits


@part
def _ends_in_dots(cp, s, e, spaced):
    """Whether a text ends in ... or …, or, when asked, in . . ."""
    if e <= s:
        return False
    if cp[e - 1] == 0x2026:
        return True
    if e - s >= 3 and cp[e - 1] == 46 and cp[e - 2] == 46 and cp[e - 3] == 46:
        return True
    return (
        spaced
        and e - s >= 5
        and cp[e - 1] == 46
        and cp[e - 2] == 32
        and cp[e - 3] == 46
        and cp[e - 4] == 32
        and cp[e - 5] == 46
    )


@part
def _curator_ellipsis(room, s, e):
    """Whether a line ends in one of NeMo Curator's ellipsis marks."""
    cp, lower = get_cp(room), get_lower(room)
    if _ends_in_dots(cp, s, e, False):
        return True
    if e - s >= 2 and cp[e - 2] == 45 and cp[e - 1] == 0xBB:
        return True
    if e - s >= 3 and (cp[e - 1] == 93 or cp[e - 1] == 41):
        opening = 91 if cp[e - 1] == 93 else 40
        if cp[e - 2] == 0x2026 and cp[e - 3] == 91 and opening == 91:
            return True
        if e - s >= 5 and cp[e - 5] == opening and _ends_in_dots(cp, s, e - 1, False) and cp[e - 2] == 46:
            return True
    end = e - 2 if e - s >= 2 and cp[e - 1] == 46 and cp[e - 2] == 46 else e
    return end - 9 >= s and says(cp, lower, end - 9, end, READ_MORE)


@part
def line_shapes(room, n, lines, pages, out):
    """Signals of the shapes of lines; those of repeated ones and of phrases are put in elsewhere."""
    cp, fl, line, page = get_cp(room), get_fl(room), get_line(room), get_page(room)
    full, chars, ended, short, long_ = 0, 0, 0, 0, 0
    bullets, dots, bullets_curator, dots_curator, unended = 0, 0, 0, 0, 0
    for k in range(lines):
        s, e = line[0, k], line[1, k]
        long_ += np.int64(e - s >= 200)
        a, b = np.int64(line[2, k]), np.int64(line[3, k])
        if a == b:
            continue
        full += 1
        chars += e - s
        ended += np.int64(fl[e - 1] & TERMINAL != 0)
        short += np.int64(e - s <= 30)
        c, last = cp[a], cp[b - 1]
        bullets += np.int64(c == 0x25CF or c == 0x2022 or c == 42 or c == 45)
        dots += np.int64(_ends_in_dots(cp, a, b, True))
        bullets_curator += np.int64(fl[a] & BULLET != 0)
        dots_curator += np.int64(_curator_ellipsis(room, a, b))
        unended += np.int64(not (last == 46 or last == 63 or last == 33 or last == 34 or last == 39))
    out[0] = full
    out[4] = over(chars, full)
    bullets_page, dots_page = 0, 0
    for k in range(pages):
        a, b = strip(fl, np.int64(page[0, k]), np.int64(page[1, k]))
        if a < b:
            bullets_page += np.int64(cp[a] == 0x2022 or cp[a] == 45)
            dots_page += np.int64(_ends_in_dots(cp, a, b, False))
    out[5], out[6] = over(bullets_page, pages), over(dots_page, pages)
    out[7], out[8] = over(bullets, full), over(dots, full)
    out[9], out[10], out[11] = over(bullets_curator, full), over(dots_curator, full), over(unended, full)
    out[12], out[13] = over(ended, full), over(short, full)
    out[16] = long_


@part
def stretches(room, n):
    """Stretches between . ! and ? that hold a word character."""
    cp, fl = get_cp(room), get_fl(room)
    total, word = 0, False
    for i in range(n):
        c = cp[i]
        if c == 46 or c == 33 or c == 63:
            total += np.int64(word)
            word = False
        elif fl[i] & ALNUM or c == 95:
            word = True
    return total + np.int64(word)


@part
def phrases(room, runs, lines, paragraphs, splits, out):
    """Lines and paragraphs with phrases of notices."""
    run, line, para = get_run(room), get_line(room), get_para(room)
    lorem, policy_lines, script_lines, policy_paragraphs = 0, 0, 0, 0
    in_line, in_para = 0, 0
    last_policy, last_script, last_para = -1, -1, -1
    for k in range(runs):
        found = run[5, k]
        if not found:
            continue
        at = run[0, k]
        while in_line < lines - 1 and line[1, in_line] < at:
            in_line += 1
        while in_para < paragraphs - 1 and para[1, in_para] <= at:
            in_para += 1
        if found & LOREM:
            lorem += 1
        if found & SCRIPT and last_script != in_line:
            script_lines += 1
            last_script = in_line
        if found & POLICY:
            if last_policy != in_line:
                policy_lines += 1
                last_policy = in_line
            if last_para != in_para:
                policy_paragraphs += 1
                last_para = in_para
    out[17] = 1.0 if lorem else policy_paragraphs / splits
    out[18] = policy_lines
    out[19] = script_lines
    out[20] = lorem


@part
def copies(room, n, lines, paragraphs, spans, out, line_out):
    """Repeated lines and paragraphs, both readings, and FineWeb's.

    Args:
        out: (26,) of ``schema.REPEATS``: places 0-3 and 13-16 are filled.
        line_out: of ``schema.LINES``: place 14 is filled.
    """
    cp, line, para = get_cp(room), get_line(room), get_para(room)
    blank, edges, full = ZERO, ZERO, ZERO
    for k in range(lines):
        s, e, a, b = line[0, k], line[1, k], line[2, k], line[3, k]
        if a == b:
            blank += np.int64(s < e)
            continue
        edges += np.int64(a != s or b != e)
        get_list(room)[3, full], get_list(room)[4, full] = s, e
        full += 1
    repeated_spans(room, line[0], line[1], lines, spans)
    first = np.int64(n > 0 and cp[0] == 10)
    last = np.int64(n > 0 and cp[n - 1] == 10)
    out[0] = over(spans[2] + (first & last), spans[0] + first + last)
    out[2] = over(spans[3], n)
    if blank:
        repeated_spans(room, get_list(room)[3], get_list(room)[4], full, spans)
    line_out[14] = over(spans[3], n - (lines - 1))
    if edges or blank:
        repeated_spans(room, line[2], line[3], lines, spans)
    if spans[0] > 1:
        out[13] = spans[4] / spans[0]
        out[15] = spans[5] / spans[1]
    repeated_spans(room, para[0], para[1], paragraphs, spans)
    out[1] = over(spans[2], spans[0])
    out[3] = over(spans[3], n)
    changed = False
    for k in range(paragraphs):
        a, b = strip(get_fl(room), np.int64(para[0, k]), np.int64(para[1, k]))
        changed = changed or a != para[0, k] or b != para[1, k]
        para[0, k], para[1, k] = a, b
    if changed:
        repeated_spans(room, para[0], para[1], paragraphs, spans)
    if spans[0] > 1:
        out[14] = spans[4] / spans[0]
        out[16] = spans[5] / spans[1]
