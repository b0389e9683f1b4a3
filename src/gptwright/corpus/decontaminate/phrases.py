"""A set of word sequences that can be looked for in text: a hash table whose hits are verified on the words themselves.

A small bit map stands before the table, so that a sequence which is not in the set (nearly all are not) costs one read from the cache.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt

from gptwright.corpus.decontaminate import words as w

_MOST = 64  # words in the longest sequence
_EMPTY = -1


@dataclass(frozen=True)
class Phrases:
    """Distinct sequences of words, and whom each belongs to.

    Args:
        norm: all words' code points with spaces, (code points,) int32.
        first, last: where each phrase stands in norm, (phrases,) int64.
        size: its words, (phrases,) int32.
        hashes: of each phrase, (phrases,) uint64.
        sizes: the sizes that occur, ascending, (sizes,) int64.
        keys, slots: the hash table, a power of two; slots are phrases or -1.
        bits: the bit map, (words of 64 bits,) uint64.
        owner_at, owners: owners of phrase i are ``owners[owner_at[i]:owner_at[i + 1]]``, int64 and int32.
    """

    norm: w.I32
    first: w.I64
    last: w.I64
    size: w.I32
    hashes: w.U64
    sizes: w.I64
    keys: w.U64
    slots: w.I32
    bits: w.U64
    owner_at: w.I64
    owners: w.I32

    def __len__(self) -> int:
        return len(self.first)

    def text(self, phrase: int) -> str:
        """The words of a phrase."""
        return "".join(map(chr, self.norm[self.first[phrase] : self.last[phrase]].tolist()))

    def arrays(self) -> dict[str, npt.NDArray[Any]]:
        """For saving."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}


def build(
    texts: Sequence[str], owners: Sequence[int], *, words: int, least: int, narrow: bool
) -> tuple[Phrases, w.I32]:
    """Phrases of texts: every sequence of ``words`` words, or the whole text when it has fewer.

    Args:
        texts: what to cut into phrases; lines and paragraphs in them do not count.
        owners: whom each text belongs to, (texts,).
        words: of a sequence.
        least: texts of fewer words give none.
        narrow: see ``words.split_words``.

    Returns:
        The phrases, and the number of words of each text (texts,) int32.
    """
    if not 1 <= words <= _MOST:
        raise ValueError(f"{words} words in a sequence; 1 to {_MOST} are possible")
    data, offsets = w.buffers(w.as_text(list(texts)))
    room = max(int(offsets[-1] - offsets[0]), 1) + 2
    capacity = 1 << max(4, (2 * room - 1).bit_length())
    keys, slots = np.zeros(capacity, np.uint64), np.full(capacity, _EMPTY, np.int32)
    norm = np.empty(2 * room + len(texts), np.int32)
    first, last, size = np.empty(room, np.int64), np.empty(room, np.int64), np.empty(room, np.int32)
    hashes, pairs = np.empty(room, np.uint64), np.empty((room, 2), np.int32)
    counts = np.zeros(len(texts), np.int32)
    longest = int(np.diff(offsets).max(initial=0))
    used, n, n_pairs = _fill(
        data, offsets, *w.tables(), narrow, words, least, *w.scratch(longest), norm, first, last, size, hashes, keys, slots, pairs, counts
    )  # fmt: skip
    # The table was sized by bytes, for want of the number of phrases; the one that is kept has at most half of its slots taken.
    first, last, size, hashes = first[:n].copy(), last[:n].copy(), size[:n].copy(), hashes[:n].copy()
    capacity = 1 << max(4, (2 * max(n, 1) - 1).bit_length())
    keys, slots = np.zeros(capacity, np.uint64), np.full(capacity, _EMPTY, np.int32)
    bits = np.zeros(max(1, capacity * 8 // 64), np.uint64)
    _place(hashes, keys, slots, bits)
    whose = np.asarray(owners, np.int32)[pairs[:n_pairs, 1]]
    belongs = (
        np.unique(np.stack([pairs[:n_pairs, 0], whose]).astype(np.int64), axis=1) if n else np.empty((2, 0), np.int64)
    )
    owner_at = np.searchsorted(belongs[0], np.arange(n + 1)).astype(np.int64)
    sizes = np.unique(size).astype(np.int64)
    return (
        Phrases(norm[:used].copy(), first, last, size, hashes, sizes, keys, slots, bits, owner_at, belongs[1].astype(np.int32)),
        counts,
    )  # fmt: skip


@nb.njit(nb.uint64(nb.uint64[::1], nb.int64, nb.int64, nb.uint64), cache=True, nogil=True, inline="always")  # type: ignore[untyped-decorator]
def sequence_hash(prefix: Any, low: Any, high: Any, power: Any) -> Any:
    """Hash of the words low to high, from the hashes of all before them; ``power`` is BASE to the number of words."""
    return w.mix(prefix[high] - prefix[low] * power + nb.uint64(high - low))


@nb.njit(
    nb.int64(
        nb.uint64, nb.int32[::1], nb.int64, nb.int64,
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.uint64[::1], nb.int32[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def find(key: Any, text: Any, low: Any, high: Any, norm: Any, first: Any, last: Any, keys: Any, slots: Any) -> Any:
    """The phrase that is the words ``text[low:high]``, or -(the free slot) - 1."""
    mask = len(keys) - 1
    slot = nb.int64(key) & mask
    while slots[slot] >= 0:
        if keys[slot] == key:
            phrase = slots[slot]
            if last[phrase] - first[phrase] == high - low:
                same = True
                for i in range(high - low):
                    if norm[first[phrase] + i] != text[low + i]:
                        same = False
                        break
                if same:
                    return nb.int64(phrase)
        slot = (slot + 1) & mask
    return -slot - 1


@nb.njit(nb.void(nb.uint64[::1], nb.uint64[::1], nb.int32[::1], nb.uint64[::1]), cache=True, nogil=True)  # type: ignore[untyped-decorator]
def _place(hashes: Any, keys: Any, slots: Any, bits: Any) -> None:
    """Fill the table and the bit map with distinct phrases."""
    mask = len(keys) - 1
    bit_mask = nb.uint64(len(bits) * 64 - 1)
    for phrase in range(len(hashes)):
        key = hashes[phrase]
        slot = nb.int64(key) & mask
        while slots[slot] >= 0:
            slot = (slot + 1) & mask
        keys[slot] = key
        slots[slot] = phrase
        bit = (key >> nb.uint64(32)) & bit_mask
        bits[bit >> nb.uint64(6)] |= nb.uint64(1) << (bit & nb.uint64(63))


@nb.njit(
    nb.types.UniTuple(nb.int64, 3)(
        nb.uint8[::1], nb.int64[::1], nb.uint8[::1], nb.int32[::1], nb.boolean, nb.int64, nb.int64,
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int64[::1], nb.uint8[::1], nb.uint64[::1],
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int32[::1], nb.uint64[::1], nb.uint64[::1], nb.int32[::1],
        nb.int32[:, ::1], nb.int32[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _fill(
    data: Any, offsets: Any, kinds: Any, lower: Any, narrow: Any, words: Any, least: Any,
    own: Any, at: Any, starts: Any, ends: Any, breaks: Any, prefix: Any,
    norm: Any, first: Any, last: Any, size: Any, hashes: Any, keys: Any, slots: Any, pairs: Any, counts: Any,
) -> Any:  # fmt: skip
    """Add the phrases of each text. Returns code points, phrases and (phrase, text) pairs used."""
    used, n, n_pairs = 0, 0, 0
    for text in range(len(offsets) - 1):
        count = w.split_words(
            data, offsets[text], offsets[text + 1], kinds, lower, narrow, own, at, starts, ends, breaks, prefix
        )
        counts[text] = count
        if count < least:
            continue
        for i in range(at[count]):
            norm[used + i] = own[i]
        many = min(words, count)
        power = nb.uint64(1)
        for _ in range(many):
            power *= w.BASE
        for i in range(count - many + 1):
            key = sequence_hash(prefix, i, i + many, power)
            low, high = at[i], at[i + many] - 1
            phrase = find(key, own, low, high, norm, first, last, keys, slots)
            if phrase < 0:
                slot = -phrase - 1
                keys[slot] = key
                slots[slot] = n
                first[n], last[n], size[n], hashes[n] = used + low, used + high, many, key
                phrase = n
                n += 1
            pairs[n_pairs, 0] = phrase
            pairs[n_pairs, 1] = text
            n_pairs += 1
        used += at[count]
    return used, n, n_pairs
