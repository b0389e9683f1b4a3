"""How much of a document repeats: sequences of two to ten words, lines and paragraphs, by two readings of Gopher's table A1."""

# mypy: disable-error-code="no-untyped-def, assignment"
# numba finds the types; numpy's integers and Python's are one to it.

import numpy as np

from gptwright.corpus.signals.arrays import get_copies, get_cp, get_list, get_once, get_others, get_size, get_stamp
from gptwright.corpus.signals.jit import ZERO, inlined, part
from gptwright.corpus.signals.runs import enter, table_mask

_GOLD = np.uint64(0x9E3779B97F4A7C15)


@part
def new_stamp(room):
    """A stamp under which all tables are empty."""
    get_stamp(room)[0] += 1
    return get_stamp(room)[0]


@inlined
def sequences(room, ids, n, words, out):
    """Characters in repeated sequences of words. Only where both shorter sequences repeat can a longer one, so few are looked at.

    A sequence is known by the ids of its two parts, never by a hash: nothing is taken for something else.

    Args:
        ids: the words, by id: a row of ``room.stream``.
        n: words.
        words: what is known of words by id; the fourth column is how often each comes.
        out: (18,) for n = 2, 3, 4: characters of the most frequent sequence, spaces between words counted, times how often it comes
            (datatrove), then of the longest among the most frequent, without spaces, 0 when none repeats (DCLM); for n = 5 to 10:
            characters of repeats that do not overlap (datatrove), then of all words in repeated sequences (DCLM).
    """
    size = get_size(room)
    place, name, times, first = get_list(room)[0], get_list(room)[1], get_list(room)[2], get_list(room)[3]
    out[:] = 0
    found = ZERO
    for i in range(n):
        if words[ids[i], 3] > 1:
            place[found] = i
            name[found] = ids[i]
            found += 1
    for length in range(2, 11):
        if n < length:
            return
        stamp = np.uint64(new_stamp(room)) << np.uint64(32)
        mask = table_mask(get_others(room), found)
        table = get_others(room)
        kept, known = 0, 0
        for k in range(found - 1):
            i = place[k]
            if place[k + 1] != i + 1:
                continue
            key = np.uint64(name[k]) << np.uint64(32) | np.uint64(name[k + 1])
            mixed = key * _GOLD
            at = np.int64((mixed ^ (mixed >> np.uint64(29))) & np.uint64(mask))
            while True:
                entry = table[at, 1]
                if entry & np.uint64(0xFFFFFFFF00000000) != stamp:
                    table[at, 0] = key
                    table[at, 1] = stamp | np.uint64(known)
                    times[known] = 1
                    first[known] = i
                    one = known
                    known += 1
                    break
                if table[at, 0] == key:
                    one = np.int64(entry & np.uint64(0xFFFFFFFF))
                    times[one] += 1
                    break
                at = (at + 1) & mask
            place[kept] = i
            name[kept] = one
            kept += 1
        found = ZERO
        for k in range(kept):
            if times[name[k]] > 1:
                place[found] = place[k]
                name[found] = name[k]
                found += 1
        if length <= 4:
            most, best, chars = 1, -1, 0
            for one in range(known):
                if times[one] > most:
                    most, best, chars = times[one], one, 0
                if times[one] == most and most > 1:
                    chars = max(chars, size[first[one] + length] - size[first[one]])
            start = first[best] if best >= 0 else 0
            out[length - 2] = (size[start + length] - size[start] + length - 1) * most
            out[length + 7] = chars * most if best >= 0 else 0
        else:
            after, covered, greedy, full = 0, 0, 0, 0
            for k in range(found):
                i, one = place[k], name[k]
                begin = max(i, covered)
                full += size[i + length] - size[begin]
                covered = i + length
                if i >= after:
                    if times[one] < 0:
                        greedy += size[i + length] - size[i]
                        after = i + length
                    else:
                        times[one] = -1
            out[length - 2] = greedy
            out[length + 7] = full


@part
def repeated_spans(room, starts, ends, n, out):
    """Spans of text that come more than once; empty ones are left out.

    Args:
        starts, ends: (n,) spans.
        out: (6,) spans; their characters; those of second and later copies: spans, characters; those of all copies: spans, characters.
    """
    stamp = new_stamp(room)
    mask = table_mask(get_copies(room), n)
    cp, once = get_cp(room), get_once(room)
    out[:] = 0
    known = ZERO
    for k in range(n):
        s, e = np.int64(starts[k]), np.int64(ends[k])
        if s >= e:
            continue
        out[0] += 1
        out[1] += e - s
        one = enter(get_copies(room), mask, stamp, _line_hash(cp, s, e), cp, s, e, cp, once, known)
        if one == known:
            once[one, 0], once[one, 1], once[one, 2] = s, e, 1
            known += 1
            continue
        out[2] += 1
        out[3] += e - s
        once[one, 2] += 1
        if once[one, 2] == 2:
            out[4] += 1
            out[5] += e - s
        out[4] += 1
        out[5] += e - s


@inlined
def _line_hash(cp, s, e):
    """A hash of many code points: four at a time, so that products need not wait for each other."""
    a, b, c, d = np.uint64(e - s), np.uint64(1), np.uint64(2), np.uint64(3)
    i = s
    while i + 4 <= e:
        a = (a ^ np.uint64(cp[i])) * _GOLD
        b = (b ^ np.uint64(cp[i + 1])) * _GOLD
        c = (c ^ np.uint64(cp[i + 2])) * _GOLD
        d = (d ^ np.uint64(cp[i + 3])) * _GOLD
        a ^= a >> np.uint64(32)
        b ^= b >> np.uint64(32)
        c ^= c >> np.uint64(32)
        d ^= d >> np.uint64(32)
        i += 4
    while i < e:
        a = (a ^ np.uint64(cp[i])) * _GOLD
        a ^= a >> np.uint64(32)
        i += 1
    a = (a ^ (b << np.uint64(21) | b >> np.uint64(43))) * _GOLD
    a ^= a >> np.uint64(32)
    c = (c ^ (d << np.uint64(21) | d >> np.uint64(43))) * _GOLD
    return (a ^ (c >> np.uint64(17))) * _GOLD
