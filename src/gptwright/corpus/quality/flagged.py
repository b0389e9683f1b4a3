"""How much of a text is words from lists that the user names: a signal for rules, and the simplest measure of toxicity.

A list is a UTF-8 file with one word or phrase a line; empty lines and what follows ``#`` do not count. Its name says the language it is
for by a code (``en``, ``en.txt``, ``pt-br.txt``); any other name is for every language. A folder is all lists in it, so a folder in the
layout of LDNOOBW ("List of Dirty, Naughty, Obscene, and Otherwise Bad Words") can be named as it comes. No list is shipped: what may not
be said is for those who publish a model to decide. Words match whole and without regard to case; phrases match over any signs between.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numba as nb
import numpy as np
import numpy.typing as npt
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_json
from gptwright.corpus.decontaminate import phrases
from gptwright.corpus.decontaminate import words as w

_CODE = re.compile(r"([a-z]{2,3})(?:[-_](?:[A-Z]{2}|[a-z]{2}|[A-Z][a-z]{3}))?")
_NOT_LISTS = (".md", ".json", ".yml", ".yaml", ".py", ".lock")
_MOST_WORDS = 16
_ALL = (1 << 64) - 1


@dataclass(frozen=True)
class WordLists:
    """Lists by language, ready to be looked for. Made by ``load``.

    Args:
        languages: codes; the list "" is for every language.
        phrases: all words and phrases; owners are languages.
        masks: of each phrase the languages that have it, as bits, (phrases,) uint64.
        ignored: lines without a letter or digit, which cannot be looked for.
        hash: of all that a ratio depends on.
    """

    languages: tuple[str, ...]
    phrases: phrases.Phrases
    masks: w.U64
    ignored: int
    hash: str

    def ratio(
        self, text: pa.LargeStringArray, language: pa.Array | Sequence[str | None] | None = None
    ) -> npt.NDArray[np.float32]:
        """Share of each text's words that are listed, (texts,) float32.

        Args:
            text: documents.
            language: code of each; where unknown (or None) all lists count. A language without a list gives NaN: not measured.
        """
        data, offsets = w.buffers(text)
        codes = (
            [None] * len(text)
            if language is None
            else pa.array(language, pa.string()).to_pylist()
            if not isinstance(language, pa.Array)
            else language.to_pylist()
        )
        wanted = np.array([self._mask(code) for code in codes], np.uint64)
        out = np.zeros(len(text), np.float32)
        table = self.phrases
        _ratio(
            data, offsets, *w.tables(), *w.scratch(int(np.diff(offsets).max(initial=0))), table.sizes, table.norm, table.first,
            table.last, table.size, table.keys, table.slots, table.bits, self.masks, wanted, out,
        )  # fmt: skip
        out[wanted == 0] = np.nan
        return out

    def _mask(self, code: str | None) -> int:
        if code in (None, "", "und"):
            return _ALL
        assert code is not None
        own = code.lower().replace("_", "-").partition("-")[0]
        return sum(1 << i for i, name in enumerate(self.languages) if name in ("", own))


@lru_cache(maxsize=2)
def load(places: tuple[str, ...]) -> WordLists:
    """Read word lists.

    Args:
        places: files and folders.

    Raises:
        UserError: one is missing or not UTF-8, or no word is in them.
    """
    found: dict[str, set[str]] = {}
    for path in [p for place in places for p in files(Path(place))]:
        match = _CODE.fullmatch(path.stem)
        try:
            lines = path.read_text(encoding="utf-8-sig").splitlines()
        except UnicodeDecodeError as error:
            raise UserError(
                f"not UTF-8 at byte {error.start}", where=str(path), fix="Save the list as UTF-8"
            ) from error
        own = found.setdefault(match[1] if match else "", set())
        own.update(word for line in lines if (word := line.partition("#")[0].strip()))
    languages = tuple(sorted(found))
    if len(languages) > 64:
        raise UserError(
            f"lists for {len(languages)} languages; 64 are possible", where=", ".join(places), fix="Name fewer"
        )
    pairs = [(word, number) for number, name in enumerate(languages) for word in sorted(found[name])]
    if not pairs:
        raise UserError("no word in the lists", where=", ".join(places), fix="Write one word or phrase a line")
    table, counts = phrases.build([p[0] for p in pairs], [p[1] for p in pairs], words=_MOST_WORDS, least=1, narrow=True)
    masks = np.zeros(len(table), np.uint64)
    whose = np.repeat(np.arange(len(table)), np.diff(table.owner_at))
    np.bitwise_or.at(masks, whose, np.uint64(1) << table.owners.astype(np.uint64))
    return WordLists(languages, table, masks, int((counts == 0).sum()), b2_json([list(languages), pairs]))


def files(place: Path) -> list[Path]:
    """The lists at a place: the file, or those of a folder.

    Raises:
        UserError: there is nothing.
    """
    if place.is_dir():
        return sorted(
            p
            for p in place.iterdir()
            if p.is_file() and p.suffix not in _NOT_LISTS and not p.name.isupper() and p.name[0] != "."
        )
    if not place.is_file():
        raise UserError("no such word list", where=str(place))
    return [place]


@nb.njit(
    nb.void(
        nb.uint8[::1], nb.int64[::1], nb.uint8[::1], nb.int32[::1],
        nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int64[::1], nb.uint8[::1], nb.uint64[::1],
        nb.int64[::1], nb.int32[::1], nb.int64[::1], nb.int64[::1], nb.int32[::1], nb.uint64[::1], nb.int32[::1], nb.uint64[::1],
        nb.uint64[::1], nb.uint64[::1], nb.float32[::1],
    ),
    cache=True, nogil=True,
)  # type: ignore[untyped-decorator]  # fmt: skip
def _ratio(
    data: Any, offsets: Any, kinds: Any, lower: Any, text: Any, at: Any, starts: Any, ends: Any, breaks: Any, prefix: Any,
    sizes: Any, norm: Any, first: Any, last: Any, size: Any, keys: Any, slots: Any, bits: Any, masks: Any, wanted: Any, out: Any,
) -> None:  # fmt: skip
    powers = np.empty(len(sizes), np.uint64)
    for s in range(len(sizes)):
        powers[s] = nb.uint64(1)
        for _ in range(sizes[s]):
            powers[s] *= w.BASE
    bit_mask = nb.uint64(len(bits) * 64 - 1)
    for row in range(len(offsets) - 1):
        n = w.split_words(
            data, offsets[row], offsets[row + 1], kinds, lower, True, text, at, starts, ends, breaks, prefix
        )
        covered, until = 0, 0
        for i in range(n):
            for s in range(len(sizes) - 1, -1, -1):
                end = i + sizes[s]
                if end > n:
                    continue
                key = phrases.sequence_hash(prefix, i, end, powers[s])
                bit = (key >> nb.uint64(32)) & bit_mask
                if (bits[bit >> nb.uint64(6)] >> (bit & nb.uint64(63))) & nb.uint64(1):
                    which = phrases.find(key, text, at[i], at[end] - 1, norm, first, last, keys, slots)
                    if which >= 0 and masks[which] & wanted[row]:
                        covered += max(0, end - max(i, until))
                        until = max(until, end)
                        break
        out[row] = covered / max(n, 1)
