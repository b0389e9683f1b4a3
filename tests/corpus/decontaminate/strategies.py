"""A plain reference for what decontamination should find, and small texts to try it on."""

import unicodedata
from collections import Counter
from dataclasses import dataclass

from hypothesis import strategies as st

from gptwright.corpus.decontaminate.words import tables


@dataclass(frozen=True)
class Word:
    text: str
    start: int
    end: int


def _letter(char: str) -> bool:
    return unicodedata.category(char)[0] in "LM"


def _alone(char: str) -> bool:
    kinds, _ = tables()
    return ord(char) >= 0x20000 or kinds[ord(char)] == 4


def _low(char: str) -> str:
    return "σ" if char == "ς" else char.lower()[0]


def paragraphs(text: str) -> list[list[list[Word]]]:
    """Paragraphs, their lines, their words; word by word, character by character."""
    done: list[list[list[Word]]] = [[]]
    at = 0
    for line in text.split("\n"):
        if not line.strip():
            done.append([])
        found: list[Word] = []
        word, start, end = "", 0, 0
        for i, char in enumerate(line + " "):
            if (char.isspace() or (_letter(char) and _alone(char))) and word:
                found.append(Word(word, at + start, at + end))
                word = ""
            if i < len(line) and _letter(char):
                if _alone(char):
                    found.append(Word(_low(char), at + i, at + i + 1))
                else:
                    start = start if word else i
                    word += _low(char)
                    end = i + 1
        if found:
            done[-1].append(found)
        at += len(line) + 1
    return [p for p in done if p]


def units(text: str) -> list[list[str]]:
    """Paragraphs, and lines of those with several."""
    result = []
    for lines in paragraphs(text):
        result.append([word.text for line in lines for word in line])
        if len(lines) > 1:
            result += [[word.text for word in line] for line in lines]
    return result


def words(text: str) -> list[str]:
    return [word.text for lines in paragraphs(text) for line in lines for word in line]


def features(item: str, n: int, least: int) -> set[tuple[str, ...]]:
    own = words(item)
    if len(own) < least:
        return set()
    size = min(n, len(own))
    return {tuple(own[i : i + size]) for i in range(len(own) - size + 1)}


def overlaps(docs: list[str], items: list[str], n: int, least: int, share: float, common_least: int) -> list[float]:
    """The highest share of each document's units, common sequences left out."""
    wanted = set().union(*(features(item, n, least) for item in items))
    bar = max(common_least, int(share * len(docs)) + 1)

    def sequences(unit: list[str], size: int) -> list[tuple[str, ...]]:
        return [tuple(unit[i : i + size]) for i in range(len(unit) - size + 1)]

    sizes = sorted({len(f) for f in wanted})
    distinct = {" ".join(d.casefold().split()): units(d) for d in reversed(docs)}
    seen: Counter[tuple[str, ...]] = Counter()
    for mine in distinct.values():
        seen.update({s for unit in mine for size in sizes for s in sequences(unit, size) if s in wanted})
    common = {s for s, count in seen.items() if count >= bar}
    others: Counter[tuple[str, ...]] = Counter()
    for mine in distinct.values():
        touched = [u for u in mine if any(s in wanted and s not in common for s in sequences(u, n))]
        others.update({s for unit in touched for s in sequences(unit, n) if s not in wanted})
    common |= {s for s, count in others.items() if count >= bar}
    result = []
    for doc in docs:
        best = 0.0
        for unit in units(doc):
            long = sequences(unit, n)
            hits = sum(s in wanted and s not in common for s in long)
            if hits:
                best = max(best, hits / sum(s not in common for s in long))
            covered = set()
            for size in sizes:
                if size < n:
                    for i, s in enumerate(sequences(unit, size)):
                        if s in wanted and s not in common:
                            covered |= set(range(i, i + size))
            if unit:
                best = max(best, len(covered) / len(unit))
        result.append(best)
    return result


_WORDS = st.sampled_from(
    ["a", "b", "C,", "(d)", "é", "Σίσυφος", "x1y", "7", "--", "中文", "ก็", "हिन्दी", "İ", "𠀀", "\u00a0"]
)
_SPACES = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "\n \n", "\t"])
TEXTS = st.lists(st.tuples(_WORDS, _SPACES), max_size=24).map(lambda parts: "".join(a + b for a, b in parts))
