"""Compiled loops of deduplication: shingles, MinHash signatures and their bands, line hashes, anchors of spans, sorted sets.

MinHash, format 1: value k of a text is the least of ``(high half of shingle hash ^ FLIPS[k]) * FACTORS[k]`` modulo 2^32 over its
shingles (Broder 1997, with multiply-shift hashing after Dietzfelbinger et al. 1997). All K permutations run: K 32-bit products a
shingle are a handful of vector instructions, faster than one permutation with densification and without its loss on short texts.
"""

from functools import cache
from typing import Any

import numba as nb
import numpy as np

from gptwright.corpus.dedup.words import BYTES, HASHES, INTS, LONGS, Array, mix, split_words

FORMAT = 1
SHINGLE = 5  # words, or characters of short texts
BASE = np.uint64(0x9E3779B97F4A7C15)  # odd, so that polynomials modulo 2^64 lose nothing
_SHORT = np.uint64(0x5348_4F52_5400_0001)  # told apart: short texts meet short ones only
_TOP = np.uint32(0xFFFFFFFF)
_HIGH = np.uint64(32)
_ZERO = np.uint64(0)
WORDS32 = nb.types.Array(nb.uint32, 1, "C", readonly=True)


@cache
def constants(values: int) -> tuple[Array, Array]:
    """FLIPS and FACTORS (odd) of so many MinHash values, uint32: SplitMix64 of 1, 2, 3, ..."""
    state = np.array([mix(np.uint64(i * int(BASE) % 2**64)) for i in range(1, 2 * values + 1)], np.uint64)
    high = (state >> _HIGH).astype(np.uint32)
    return high[:values].copy(), high[values:] | np.uint32(1)


@nb.njit(nb.int64(HASHES, nb.int64, nb.uint64[::1]), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def word_shingles(words: Any, n: Any, out: Any) -> Any:
    """Hashes of all runs of SHINGLE words; returns how many."""
    for i in range(n - SHINGLE + 1):
        h = words[i]
        for j in range(1, SHINGLE):
            h = h * BASE + words[i + j]
        out[i] = mix(h)
    return max(n - SHINGLE + 1, 0)


@nb.njit(nb.int64(INTS, nb.int64, nb.uint64[::1]), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def char_shingles(norm: Any, n: Any, out: Any) -> Any:
    """Hashes of all runs of SHINGLE code points; returns how many."""
    for i in range(n - SHINGLE + 1):
        h = _SHORT
        for j in range(SHINGLE):
            h = h * BASE + nb.uint64(norm[i + j])
        out[i] = mix(h)
    return max(n - SHINGLE + 1, 0)


@nb.njit(
    nb.void(HASHES, nb.int64, WORDS32, WORDS32, nb.uint32[::1]), cache=True, nogil=True
)  # type: ignore[untyped-decorator]  # fmt: skip
def signature(shingles: Any, n: Any, flips: Any, factors: Any, out: Any) -> Any:
    """MinHash values of a set, which may hold elements several times."""
    for k in range(len(out)):
        out[k] = _TOP
    for i in range(n):
        x = np.uint32(shingles[i] >> _HIGH)
        for k in range(len(out)):
            out[k] = min(out[k], np.uint32(np.uint32(x ^ flips[k]) * factors[k]))


@nb.njit(
    nb.int64(
        HASHES, LONGS, nb.int64, nb.int64, nb.int64, nb.uint64[::1], nb.int32[::1], nb.int32[::1], nb.int64
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def find_units(
    words: Any, line_words: Any, lines: Any, least: Any, row: Any, units: Any, rows: Any, spans: Any, n: Any
) -> Any:
    """Hashes of lines, and of paragraphs of several lines; a paragraph is the same however its lines are broken.

    Args:
        words: (words,) hashes.
        line_words: (lines,) words up to the end of each line.
        lines: how many.
        least: words of a unit.
        row: of the text.
        units, rows, spans: out: hash, row, and how many lines it has, each (units,); spans are followed by the last line's number
            at the same place plus half of their room.
        n: units so far.

    Returns:
        Units now.
    """
    half = len(spans) // 2
    first, paragraph, inside = 0, _ZERO, 0  # word the paragraph begins with, its hash, its lines
    begin = 0
    for line in range(lines + 1):
        end = line_words[line] if line < lines else begin
        if end > begin:
            if inside == 0:
                first, paragraph = begin, _ZERO
            h = _ZERO
            for i in range(begin, end):
                h = h * BASE + words[i]
                paragraph = paragraph * BASE + words[i]
            inside += 1
            if end - begin >= least:
                units[n], rows[n], spans[n], spans[half + n] = mix(h), row, 1, line
                n += 1
        else:
            if inside > 1 and begin - first >= least:
                units[n], rows[n], spans[n], spans[half + n] = mix(paragraph), row, inside, line - 1
                n += 1
            inside = 0
        begin = end
    return n


@nb.njit(
    nb.int64(
        HASHES, nb.int64, nb.int64, nb.int64, LONGS, nb.int64, nb.int64, nb.uint64[::1],
        nb.uint64[::1], nb.int32[::1], nb.int64[::1], nb.int64,
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _anchors(
    words: Any, n: Any, gram: Any, window: Any, starts: Any, low: Any, row: Any, hashes: Any,
    anchors: Any, rows: Any, places: Any, found: Any,
) -> Any:  # fmt: skip
    """The least gram of every window of grams (winnowing: Schleimer, Wilkerson and Aiken 2003).

    Two texts that share gram + window - 1 words share an anchor in them.
    """
    power = nb.uint64(1)
    h = _ZERO
    for i in range(gram):
        h = h * BASE + words[i]
        if i < gram - 1:
            power *= BASE
    grams = n - gram + 1
    hashes[0] = mix(h)
    for i in range(1, grams):
        h = (h - words[i - 1] * power) * BASE + words[i + gram - 1]
        hashes[i] = mix(h)
    best, taken = -1, -1
    for last in range(grams):
        first = last - window + 1
        if best < first:
            best = max(first, 0)
            for i in range(best + 1, last + 1):
                if hashes[i] <= hashes[best]:
                    best = i
        elif best < 0 or hashes[last] <= hashes[best]:
            best = last
        if (first >= 0 or last == grams - 1) and best != taken:
            anchors[found], rows[found], places[found] = hashes[best], row, starts[best] - low
            found += 1
            taken = best
    return found


@nb.njit(
    nb.types.UniTuple(nb.int64, 2)(
        BYTES, LONGS, nb.types.Array(nb.boolean, 1, "C", readonly=True), BYTES, INTS, INTS,
        nb.uint64[::1], nb.uint64[::1], nb.int64[::1], nb.int64[::1], nb.int32[::1], nb.int64[::1], nb.int64[::1],
        WORDS32, WORDS32, nb.uint32[::1], nb.uint64[::1], LONGS,
        nb.int32[:, ::1], nb.uint64[:, ::1],
        nb.uint64[::1], nb.int32[::1], nb.int32[::1], nb.uint64[::1], nb.int32[::1], nb.int64[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def describe(
    data: Any, offsets: Any, editable: Any, kinds: Any, single: Any, more: Any,
    coarse: Any, fine: Any, starts: Any, ends: Any, norm: Any, line_ends: Any, line_words: Any,
    flips: Any, factors: Any, values: Any, shingles: Any, settings: Any,
    sizes: Any, keys: Any,
    units: Any, unit_rows: Any, unit_spans: Any, anchors: Any, anchor_rows: Any, anchor_starts: Any,
) -> Any:  # fmt: skip
    """All that deduplication knows of some texts.

    Args:
        data, offsets: UTF-8 and the bounds of texts in it.
        editable: (texts,): lines and spans may be taken out of it.
        kinds, single, more: ``words.tables()``.
        coarse .. line_words: scratch, see ``split_words``.
        flips, factors: ``constants(K)``.
        values: scratch, (K,).
        shingles: scratch, (2 * longest + 2,).
        settings: short_words, line_words, words of a gram, grams of a window (0: no spans).
        sizes: out, (texts, 2): words, shingles.
        keys: out, (texts, bands); meaningless when there are no shingles.
        units, unit_rows, unit_spans: out: lines and paragraphs, see ``find_units``.
        anchors, anchor_rows, anchor_starts: out: hashes of grams that stand for the spans about them, and their byte in the text.

    Returns:
        Numbers of units and of anchors.
    """
    bands = keys.shape[1]
    per_band = len(values) // bands
    n_units, n_anchors = 0, 0
    for row in range(len(offsets) - 1):
        low = offsets[row]
        n, n_norm, n_lines = split_words(
            data, low, offsets[row + 1], kinds, single, more, coarse, fine, starts, ends, norm, line_ends, line_words
        )
        short = n < settings[0]
        count = char_shingles(norm, n_norm - 1, shingles) if short else word_shingles(coarse, n, shingles)
        sizes[row, 0], sizes[row, 1] = n, count
        if count > 0:
            signature(shingles, count, flips, factors, values)
            for band in range(bands):
                h = nb.uint64(FORMAT * 1000 + band)
                if short:
                    h ^= _SHORT
                for k in range(band * per_band, (band + 1) * per_band):
                    h = mix(h * BASE + nb.uint64(values[k]))
                keys[row, band] = h
        if editable[row]:
            if settings[1] > 0:
                n_units = find_units(fine, line_words, n_lines, settings[1], row, units, unit_rows, unit_spans, n_units)
            if settings[3] > 0 and n >= settings[2]:
                n_anchors = _anchors(
                    fine, n, settings[2], settings[3], starts, low, row, shingles, anchors, anchor_rows, anchor_starts,
                    n_anchors,
                )  # fmt: skip
    return n_units, n_anchors


@nb.njit(
    nb.types.UniTuple(nb.int64, 2)(BYTES, nb.int64, BYTES, nb.int64), cache=True, nogil=True
)  # type: ignore[untyped-decorator]  # fmt: skip
def extend(text: Any, at: Any, other: Any, other_at: Any) -> Any:
    """How many bytes before two places, and from them on, are equal."""
    before, after = 0, 0
    while before < min(at, other_at) and text[at - 1 - before] == other[other_at - 1 - before]:
        before += 1
    while at + after < len(text) and other_at + after < len(other) and text[at + after] == other[other_at + after]:
        after += 1
    return before, after


@nb.njit(nb.int64(nb.uint64[::1], nb.int64), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def drop_repeats(values: Any, n: Any) -> Any:
    """Move distinct values of a sorted array to its front; returns how many."""
    kept = 0
    for i in range(n):
        if i == 0 or values[i] != values[kept - 1]:
            values[kept] = values[i]
            kept += 1
    return kept


@nb.njit(nb.void(HASHES, LONGS, LONGS, LONGS, nb.int32[::1]), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def count_common(sets: Any, bounds: Any, left: Any, right: Any, common: Any) -> Any:
    """How many elements pairs of sets share.

    Args:
        sets: elements of all sets, each ascending without repeats.
        bounds: (sets + 1,).
        left, right: (pairs,): numbers of sets.
        common: out, (pairs,).
    """
    for pair in range(len(left)):
        i, i_end = bounds[left[pair]], bounds[left[pair] + 1]
        j, j_end = bounds[right[pair]], bounds[right[pair] + 1]
        found = 0
        while i < i_end and j < j_end:
            x, y = sets[i], sets[j]
            found += x == y
            i += x <= y
            j += y <= x
        common[pair] = found


@nb.njit(
    nb.types.UniTuple(nb.int64, 3)(
        HASHES, HASHES, nb.types.Array(nb.boolean, 1, "C", readonly=True), nb.int64, nb.int64, nb.int64, nb.int64,
        nb.uint64[:, ::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def pairs_in_buckets(keys: Any, texts: Any, new: Any, bucket: Any, at: Any, hub: Any, few: Any, out: Any) -> Any:
    """Pairs of texts with one key, until there are no more or the room is used up.

    In a bucket of more than ``hub`` members each is paired with its first ``few`` only.

    Args:
        keys, texts: (records,), ascending by key, then text.
        new: (records,) bool: pairs without any are left out.
        bucket, at: where to go on: first record of the bucket, and the record in it; at the beginning 0 and 0.
        hub, few: see above.
        out: (room, 2) pairs, the smaller text first; room must be at least max(hub, few).

    Returns:
        Where to go on (bucket, at), and the number of pairs; at the end ``at`` is the number of records.
    """
    n, found = len(keys), 0
    end = bucket
    while at < n:
        if at >= end or keys[at] != keys[bucket]:
            if keys[at] != keys[bucket]:
                bucket = at
            end = at
            while end < n and keys[end] == keys[bucket]:
                end += 1
        limit = min(at - bucket, few) if end - bucket > hub else at - bucket
        if found + limit > len(out):
            return bucket, at, found
        for other in range(bucket, bucket + limit):
            if (new[at] or new[other]) and texts[at] != texts[other]:
                out[found, 0] = min(texts[at], texts[other])
                out[found, 1] = max(texts[at], texts[other])
                found += 1
        at += 1
    return bucket, at, found
