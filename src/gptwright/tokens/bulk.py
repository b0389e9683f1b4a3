"""Ids of many texts, faster than the general encoder: words are cut and merged in a compiled kernel, and each word is merged once.

Only vocabularies of our own kind qualify (see `BulkEncoder.of`); the ids are those of ``Tokenizer.encode`` (tests hold that).
"""

import json
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import version
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit, types
from tokenizers import Regex, pre_tokenizers

from gptwright.core.arrays import kept_arrays
from gptwright.tokens.bpe import mend_surrogates, pre_tokenizer, split_text

_OTHER, _LETTER, _NUMBER, _SPACE, _BREAK = range(5)  # what a character is; a break is "\r" or "\n"
_LONGEST = 4096
"""Bytes of the longest word that is merged here: the time grows with its square. A text with a longer one goes to the general encoder."""

_WORDS, _WORD_BYTES = 1 << 18, 1 << 23
"""Slots and bytes for words that were merged before; when they are used up all are forgotten."""

_UNIT_CHARS = 1 << 20
_Ids = npt.NDArray[np.int32]


def _classes() -> tuple[npt.NDArray[np.uint8], ...]:
    """What each code point is (1,114,112, uint8), as the library's own regular expressions see it."""
    points = [point for point in range(0x110000) if not 0xD800 <= point < 0xE000]
    everything, of_point = "".join(map(chr, points)), np.array(points)
    table = np.zeros(0x110000, np.uint8)
    for name, value in ((r"\p{L}+", _LETTER), (r"\p{N}+", _NUMBER), (r"\s+", _SPACE)):
        found = pre_tokenizers.Split(Regex(name), "removed", invert=True).pre_tokenize_str(everything)
        for _, (start, end) in found:
            table[of_point[start:end]] = value
    table[[10, 13]] = _BREAK
    return (table,)


class BulkEncoder:
    """Encodes texts into arrays of ids. It keeps words that it has seen, so one belongs to one thread.

    Args:
        vocabulary: token, in the letters that stand for bytes, to id.
        merges: pairs of tokens, in order of rank.
        encode: the general encoder, for what the kernel leaves to it.
    """

    def __init__(
        self, vocabulary: Mapping[str, int], merges: Sequence[Sequence[str]], encode: Callable[[str], list[int]]
    ) -> None:
        self._encode = encode
        (self._classes,) = kept_arrays(__name__, _classes, version("tokenizers"))
        self._bytes = np.array([vocabulary[letter] for letter in _byte_letters()], np.int32)
        size = 1 << (4 * len(merges) + 16).bit_length()
        self._pairs, self._merged = np.zeros(size, np.int64), np.zeros((size, 2), np.int32)
        left = np.array([vocabulary[a] for a, _ in merges], np.int64)
        right = np.array([vocabulary[b] for _, b in merges], np.int64)
        made = np.array([vocabulary[a + b] for a, b in merges], np.int32)
        _fill(self._pairs, self._merged, left, right, made)
        self._hashes = np.zeros(_WORDS, np.uint64)
        self._words = np.zeros((_WORDS, 4), np.int32)  # of a slot: place and length in bytes, place and number of ids
        self._text, self._ids = np.zeros(_WORD_BYTES, np.uint8), np.zeros(_WORD_BYTES, np.int32)
        self._used = np.zeros(2, np.int64)  # words, bytes

    @classmethod
    def of(cls, raw: Mapping[str, Any], encode: Callable[[str], list[int]]) -> "BulkEncoder | None":
        """An encoder for a vocabulary, or None where only the general one is right.

        Args:
            raw: tokenizer.json. Byte-level BPE with the pattern of our own tokenizers and no token but control tokens added.
            encode: the general encoder.
        """
        model, added = raw["model"], raw.get("added_tokens") or ()
        plain = (
            model["type"] == "BPE"
            and not any(model.get(key) for key in ("dropout", "unk_token", "byte_fallback", "ignore_merges"))
            and not any(model.get(key) for key in ("continuing_subword_prefix", "end_of_word_suffix"))
            and raw.get("normalizer") is None
            and all(token.get("special") for token in added)
            and raw.get("pre_tokenizer") == json.loads(pre_tokenizer().__getstate__())
            and all(letter in model["vocab"] for letter in _byte_letters())
        )
        if not plain:
            return None
        pairs = [pair if isinstance(pair, list) else pair.split(" ") for pair in model["merges"]]
        return cls(model["vocab"], pairs, encode)

    def __call__(self, texts: Sequence[str]) -> list[_Ids]:
        """Ids of each text, int32."""
        units: list[bytes] = []
        firsts = [0]
        for text in texts:
            for piece in split_text(text, _UNIT_CHARS):
                try:
                    units.append(piece.encode())
                except UnicodeEncodeError:  # lone surrogates
                    units.append(mend_surrogates(piece).encode())
            firsts.append(len(units))
        data = np.frombuffer(b"".join(units), np.uint8)
        edges = np.cumsum([0, *map(len, units)])
        out, ends = np.empty(len(data), np.int32), np.zeros(len(units) + 1, np.int64)
        good = np.ones(len(units), np.bool_)
        _encode(
            data, edges, self._classes, self._bytes, self._pairs, self._merged,
            self._hashes, self._words, self._text, self._ids, self._used, out, ends, good,
        )  # fmt: skip
        rows = []
        for text, first, last in zip(texts, firsts, firsts[1:], strict=False):
            whole = bool(good[first:last].all())
            rows.append(out[ends[first] : ends[last]] if whole else np.array(self._encode(text), np.int32))
        return rows


def _byte_letters() -> list[str]:
    """The letters that stand for bytes 0 to 255 in a byte-level vocabulary (GPT-2's): visible ones for themselves, the rest from U+0100."""
    visible = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    rest = iter(range(0x100, 0x200))
    return [chr(byte) if byte in visible else chr(next(rest)) for byte in range(256)]


@njit(cache=True)
def _fill(pairs, merged, left, right, made):  # type: ignore[no-untyped-def]
    """Put the merges into an open table: key, then rank and the token that is made."""
    for rank in range(left.size):
        key = ((left[rank] << 32) | right[rank]) + 1
        at = _slot(key, pairs.size)
        while pairs[at] != 0:
            if pairs[at] == key:  # the first rank holds
                break
            at = (at + 1) & (pairs.size - 1)
        if pairs[at] == 0:
            pairs[at], merged[at, 0], merged[at, 1] = key, rank, made[rank]


@njit(cache=True)
def _slot(key, size):  # type: ignore[no-untyped-def]
    mixed = types.uint64(key) * types.uint64(0x9E3779B97F4A7C15)
    return types.int64(mixed >> types.uint64(40)) & (size - 1)


@njit(cache=True)
def _find(pairs, left, right):  # type: ignore[no-untyped-def]
    """The slot of a merge, -1 for none."""
    key = ((types.int64(left) << 32) | types.int64(right)) + 1
    at = _slot(key, pairs.size)
    while pairs[at] != 0:
        if pairs[at] == key:
            return at
        at = (at + 1) & (pairs.size - 1)
    return -1


@njit(cache=True)
def _encode(data, edges, classes, byte_ids, pairs, merged, hashes, words, text, ids, used, out, ends, good):  # type: ignore[no-untyped-def]
    """Encode units of ``data`` into ``out``; ``ends`` says where each ends, ``good`` is False for one with too long a word."""
    n = 0
    slots = np.empty(_LONGEST, np.int64)
    mask = types.uint64(hashes.size - 1)
    for unit in range(edges.size - 1):
        at, end, first = edges[unit], edges[unit + 1], n
        while at < end:
            stop = _word_end(data, at, end, classes)
            size = stop - at
            if size > _LONGEST:
                good[unit], n = False, first
                break
            value = types.uint64(14695981039346656037)
            for i in range(at, stop):
                value = (value ^ types.uint64(data[i])) * types.uint64(1099511628211)
            value ^= value >> types.uint64(29)
            slot = value & mask
            known = False
            while hashes[slot] != 0:
                if hashes[slot] == value and words[slot, 1] == size:
                    place, known = words[slot, 0], True
                    for i in range(size):
                        if text[place + i] != data[at + i]:
                            known = False
                            break
                    if known:
                        break
                slot = (slot + types.uint64(1)) & mask
            if known:
                place, count = words[slot, 2], words[slot, 3]
                for i in range(count):
                    out[n + i] = ids[place + i]
                n += count
            else:
                count = _merge(data, at, stop, byte_ids, pairs, merged, slots, out, n)
                if used[0] * 2 >= hashes.size or used[1] + size > text.size:
                    hashes[:] = 0
                    used[:] = 0
                    slot = value & mask
                if value != 0:
                    place = used[1]
                    hashes[slot] = value
                    words[slot, 0], words[slot, 1], words[slot, 2], words[slot, 3] = place, size, place, count
                    for i in range(size):
                        text[place + i] = data[at + i]
                    for i in range(count):
                        ids[place + i] = out[n + i]
                    used[0] += 1
                    used[1] += size
                n += count
            at = stop
        ends[unit + 1] = n


@njit(cache=True)
def _merge(data, at, stop, byte_ids, pairs, merged, slots, out, first):  # type: ignore[no-untyped-def]
    """Byte-pair encoding of one word into ``out[first:]``: the pair of the lowest rank first, of equal ones the leftmost. Returns the ids."""
    n = stop - at
    for i in range(n):
        out[first + i] = byte_ids[data[at + i]]
    for i in range(n - 1):
        slots[i] = _find(pairs, out[first + i], out[first + i + 1])
    while n > 1:
        best, rank = -1, types.int64(1) << 40
        for i in range(n - 1):
            if slots[i] >= 0 and merged[slots[i], 0] < rank:
                best, rank = i, types.int64(merged[slots[i], 0])
        if best < 0:
            break
        out[first + best] = merged[slots[best], 1]
        n -= 1
        for i in range(best + 1, n):
            out[first + i] = out[first + i + 1]
        for i in range(best, n - 1):
            slots[i] = slots[i + 1]
        if best > 0:
            slots[best - 1] = _find(pairs, out[first + best - 1], out[first + best])
        if best < n - 1:
            slots[best] = _find(pairs, out[first + best], out[first + best + 1])
    return n


@njit(cache=True)
def _point(data, at):  # type: ignore[no-untyped-def]
    """The code point at a byte, and its length in bytes."""
    byte = types.int64(data[at])
    if byte < 0x80:
        return byte, 1
    if byte < 0xE0:
        return ((byte & 31) << 6) | (types.int64(data[at + 1]) & 63), 2
    if byte < 0xF0:
        return ((byte & 15) << 12) | ((types.int64(data[at + 1]) & 63) << 6) | (types.int64(data[at + 2]) & 63), 3
    return (
        ((byte & 7) << 18)
        | ((types.int64(data[at + 1]) & 63) << 12)
        | ((types.int64(data[at + 2]) & 63) << 6)
        | (types.int64(data[at + 3]) & 63)
    ), 4


@njit(cache=True)
def _run(data, at, end, classes, kind):  # type: ignore[no-untyped-def]
    """The end of a run of characters of one class."""
    while at < end:
        point, size = _point(data, at)
        if classes[point] != kind:
            break
        at += size
    return at


@njit(cache=True)
def _word_end(data, at, end, classes):  # type: ignore[no-untyped-def]
    """The end of the word that begins here, by the alternatives of the pattern in their order."""
    point, size = _point(data, at)
    kind, then = classes[point], at + size
    if kind == _LETTER:
        return _run(data, then, end, classes, _LETTER)
    if kind == _NUMBER:
        return then
    if then < end:
        if point == 39:  # 's 't 'm 'd 're 've 'll
            one = data[then] | 32
            if one == 115 or one == 116 or one == 109 or one == 100:
                return then + 1
            if then + 1 < end:
                two = data[then + 1] | 32
                if (two == 101 and (one == 114 or one == 118)) or (one == 108 and two == 108):
                    return then + 2
        following = classes[_point(data, then)[0]]
        if kind != _BREAK and following == _LETTER:
            return _run(data, then, end, classes, _LETTER)
        if point == 32 and following == _OTHER:
            kind = _OTHER
    if kind == _OTHER:
        return _run(data, _run(data, then, end, classes, _OTHER), end, classes, _BREAK)
    # White space: up to its last line break, or all but the one before a word, or all.
    stop, last, broken = at, at, -1
    while stop < end:
        point, size = _point(data, stop)
        if classes[point] != _SPACE and classes[point] != _BREAK:
            break
        last, stop = stop, stop + size
        if classes[point] == _BREAK:
            broken = stop
    if broken >= 0:
        return broken
    return last if stop < end and last > at else stop
