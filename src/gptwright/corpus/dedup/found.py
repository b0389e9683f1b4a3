"""What deduplication found in a corpus, on disk, and the choice of who is kept, which is made anew whenever decisions change.

Groups of equal texts and evidence of similar ones do not depend on recipes; the choice does, and reads no text (only where a bucket was
too large to be compared in full, some pairs are compared once the choice names a text to compare with).
"""

import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from gptwright.core.files import TEMPORARY
from gptwright.corpus.copies import METHODS, Bools, Copies, ExactCopies
from gptwright.corpus.dedup.candidates import PAIR, distinct_pairs
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.layout import Layout
from gptwright.corpus.dedup.priority import Priority
from gptwright.corpus.dedup.star import EDGE, walk
from gptwright.corpus.dedup.store import CHUNK_RECORDS, among, chunks, text_keys
from gptwright.corpus.dedup.verify import EVIDENCE, TextSets, alike, held_by, jaccard
from gptwright.corpus.dedup.words import Array

SAME_TEXT, SAME_WORDS, NEAR = (METHODS.index(name) for name in ("same text", "same words", "near"))
ROUNDS = 8  # of naming texts to compare with in large buckets; one or two do in practice
MAPPED_ROWS = 1 << 24
_LEAST_LAST = np.uint64(1) << np.uint64(63)


@dataclass
class Found:
    """Groups of equal texts and evidence of similar ones; ``copies.Duplicates`` for ``decide``.

    Attributes:
        layout: rows and texts.
        exact: groups of rows with one norm_id.
        evidence: files of EVIDENCE: all candidate pairs.
        config: from where on a pair counts.
        priority: who is kept; None: the first row. Set it before ``resolve``.
        whole: no bucket was too large to be compared in full.
        lines: files of STANDS a part: where boilerplate stands; none when it is not looked for.
        anchors: files of ANCHOR: where passages may be repeated.
    """

    layout: Layout
    exact: ExactCopies
    evidence: list[Path]
    config: DedupConfig
    priority: Priority | None = None
    whole: bool = True
    lines: list[Path] = field(default_factory=list)
    anchors: list[Path] = field(default_factory=list)

    def resolve(self, alive: Bools, heldout: Bools) -> Copies:
        """Choose who is kept. See ``resolve``."""
        return resolve(self, alive, heldout, self.priority)


def resolve(found: Found, alive: Bools, heldout: Bools, priority: Priority | None = None) -> Copies:
    """Choose for each copy the row that is kept in its stead.

    Args:
        found: what ``find`` returned.
        alive: (rows,) bool: rows that no rule dropped; others neither are copies nor have any.
        heldout: (rows,) bool: rows that are measured on; they are kept before all others, and what holds their text is dropped.
        priority: who is kept; None: the first row.

    Returns:
        Copies over rows. What ``kept_of`` points to is alive and kept, and verified against each row that points to it.
    """
    rows = found.layout.rows
    work = Path(tempfile.mkdtemp(prefix=f"{TEMPORARY}resolve-", dir=found.layout.folder))
    try:
        chooser = _Chooser(found, alive, heldout, priority, work)
        keeper_of_group = chooser.equal()
        extra = np.zeros(0, EVIDENCE)
        for _ in range(ROUNDS):
            kept_of = _column(work / "kept", rows, "<i8")
            kept_of[:] = -1
            near, containment = _column(work / "near", rows, "<f4"), _column(work / "held", rows, "<f4")
            walk(chooser.edges(keeper_of_group, extra), work / "edges", kept_of, near, containment)
            todo = chooser.unmet(keeper_of_group, kept_of, extra) if not found.whole else np.zeros(0, PAIR)
            if not len(todo):
                break
            extra = np.concatenate([extra, chooser.compare(todo)])
        method = _column(work / "method", rows, "|u1")
        for first in range(0, rows, CHUNK_RECORDS):
            method[first : first + CHUNK_RECORDS] = NEAR * (kept_of[first : first + CHUNK_RECORDS] >= 0)
        chooser.follow(keeper_of_group, kept_of, method, near, containment)
        limits = found.config.jaccard, _short(found, method), found.config.short_jaccard, found.config.containment
        return Copies(kept_of, method, near, containment, *limits)
    finally:
        shutil.rmtree(work, ignore_errors=True)


def _short(found: Found, method: Array) -> Bools:
    """(rows,) bool: near copies that were compared as short texts, by the number of their words as features count them."""
    short = np.zeros(found.layout.rows, bool)
    for number, part in enumerate(found.layout.parts):
        first, last = int(found.layout.bounds[number]), int(found.layout.bounds[number + 1])
        if (method[first:last] == NEAR).any():
            for batch in part.batches():
                words = np.asarray(batch["words"])
                here = slice(first, first + len(words))
                short[here] = (method[here] == NEAR) & (words < found.config.short_words)
                first += len(words)
    return short


def _column(path: Path, rows: int, kind: str) -> Array:
    """Zeros for all rows: in memory, or for very many as a memory map of a file that its user outlives."""
    if rows <= MAPPED_ROWS:
        return np.zeros(rows, kind)
    path.unlink(missing_ok=True)  # a former round's stays as it was for those who hold it
    return np.memmap(path, kind, "w+", shape=(rows,))


def order_keys(rows: Array, heldout: Bools | None, priority: Priority | None) -> tuple[Array, Array]:
    """Priority of rows as two uint64; lower goes first, held-out rows before all others, and row numbers decide between equals."""
    last = np.full(len(rows), _LEAST_LAST) if heldout is None else np.where(heldout[rows], np.uint64(0), _LEAST_LAST)
    if priority is None:
        return last, np.zeros(len(rows), np.uint64)
    return last | np.asarray(priority.score[rows]), np.asarray(priority.tie[rows])


class _Chooser:
    """The choice in steps, over the rows of one call."""

    def __init__(self, found: Found, alive: Bools, heldout: Bools, priority: Priority | None, work: Path) -> None:
        self.found, self.alive, self.heldout, self.priority, self.work = found, alive, heldout, priority, work
        starts = np.asarray(found.exact.starts)
        self.starts = starts
        firsts = np.asarray(found.exact.rows)[starts[:-1]] if len(starts) > 1 else np.zeros(0, np.int64)
        self.by_first = np.argsort(firsts)  # groups in the order of their first rows, to find a text's group
        self.firsts = firsts[self.by_first].astype(np.uint64)

    def keys(self, rows: Array) -> tuple[Array, Array]:
        """Priority of rows as two numbers; lower goes first, and rows decide between equals."""
        return order_keys(rows, self.heldout, self.priority)

    def groups(self) -> Iterator[tuple[int, Array, Array]]:
        """Groups of equal texts, many at a time: number of the first, members that are alive, and their group among these."""
        first = 0
        while first < len(self.starts) - 1:
            last = max(first + 1, int(np.searchsorted(self.starts, self.starts[first] + CHUNK_RECORDS, "right")) - 1)
            members = np.asarray(self.found.exact.rows[self.starts[first] : self.starts[last]])
            group = np.repeat(np.arange(last - first), np.diff(self.starts[first : last + 1]))
            here = self.alive[members]
            yield first, members[here], group[here]
            first = last

    def equal(self) -> Array:
        """The kept row of each group of equal texts, -1 where all are dropped."""
        keeper = np.full(max(len(self.starts) - 1, 0), -1, np.int64)
        for first, members, group in self.groups():
            one, two = self.keys(members)
            order = np.lexsort((members, two, one, group))
            members, group = members[order], group[order]
            best = np.append(True, group[1:] != group[:-1]) if len(group) else np.zeros(0, bool)
            keeper[first + group[best]] = members[best]
        return keeper

    def rows_of(self, texts: Array, keeper_of_group: Array) -> Array:
        """The row that stands for each text: alive and not an exact copy; -1 when there is none."""
        rows = np.asarray(self.found.layout.first_rows[among(texts, self.found.layout.texts)[0]])
        at, grouped = among(rows.astype(np.uint64), self.firsts)
        out = np.where(self.alive[rows], rows, -1)
        if grouped.any():
            out[grouped] = keeper_of_group[self.by_first[at[grouped]]]
        return out

    def evidence(self, extra: Array) -> Iterator[Array]:
        """All evidence in pieces."""
        for path in self.found.evidence:
            yield from chunks(path, EVIDENCE)
        if len(extra):
            yield extra

    def edges(self, keeper_of_group: Array, extra: Array) -> Iterator[Array]:
        """Pairs of which one may be dropped for the other."""
        config = self.found.config
        for evidence in self.evidence(extra):
            near = alike(evidence, config)
            least = np.minimum(evidence["size_a"], evidence["size_b"])
            evidence = evidence[near | held_by(evidence["common"], least, least, evidence["short"], config)]
            if not len(evidence):
                continue
            a, b = (self.rows_of(np.ascontiguousarray(evidence[side]), keeper_of_group) for side in ("a", "b"))
            there = (a >= 0) & (b >= 0)
            evidence, a, b = evidence[there], a[there], b[there]
            (a1, a2), (b1, b2) = self.keys(a), self.keys(b)
            a_first = (a1 < b1) | ((a1 == b1) & ((a2 < b2) | ((a2 == b2) & (a < b))))
            edges = np.empty(len(evidence), EDGE)
            for name, of_a, of_b in (("first", a1, b1), ("second", a2, b2), ("row", a, b)):
                edges[name] = np.where(a_first, of_b, of_a)
            for name, of_a, of_b in (("keep_first", a1, b1), ("keep_second", a2, b2), ("keep", a, b)):
                edges[name] = np.where(a_first, of_a, of_b)
            size = np.where(a_first, evidence["size_b"], evidence["size_a"])
            other = np.where(a_first, evidence["size_a"], evidence["size_b"])
            edges["jaccard"] = jaccard(evidence)
            edges["containment"] = evidence["common"] / np.maximum(size, 1)
            # Held by another: only what is no larger than the kept one is dropped, or text would be lost. Text that is measured on
            # must not be trained on inside a larger one either.
            allowed = alike(evidence, config) | held_by(evidence["common"], size, other, evidence["short"], config)
            yield edges[allowed | self.heldout[edges["keep"]]]

    def unmet(self, keeper_of_group: Array, kept_of: Array, extra: Array) -> Array:
        """Pairs to compare: each text with the first by priority of those that its neighbours were dropped for.

        In a large bucket a text met a few others only. When these are dropped for one that it has not met, it is compared with that;
        texts that are dropped now too, since what they are dropped for may itself be dropped next.
        """
        layout, config = self.found.layout, self.found.config
        best = _column(self.work / "best", layout.rows, "<i8")
        best[:] = -1
        for evidence in self.evidence(extra):
            evidence = evidence[alike(evidence, config)]
            if not len(evidence):
                continue
            ends = [self.rows_of(np.ascontiguousarray(evidence[side]), keeper_of_group) for side in ("a", "b")]
            one, two = np.concatenate(ends), np.concatenate(ends[::-1])
            there = (one >= 0) & (two >= 0)
            one, keep = one[there], kept_of[two[there]]
            there = (keep >= 0) & (keep != one) & (keep != kept_of[one])
            one, keep = one[there], keep[there]
            first, second = self.keys(keep)
            order = np.lexsort((keep, second, first, one))
            one, keep, first, second = one[order], keep[order], first[order], second[order]
            new = np.append(True, one[1:] != one[:-1]) if len(one) else np.zeros(0, bool)
            one, keep, first, second = one[new], keep[new], first[new], second[new]
            former = best[one]
            old_first, old_second = self.keys(np.maximum(former, 0))
            sooner = (second < old_second) | ((second == old_second) & (keep < former))
            better = (former < 0) | (first < old_first) | ((first == old_first) & sooner)
            best[one[better]] = keep[better]
        wanted = [np.zeros(0, PAIR)]
        for start in range(0, layout.rows, CHUNK_RECORDS):
            keep = np.asarray(best[start : start + CHUNK_RECORDS])
            at = np.flatnonzero(keep >= 0)
            one_texts, met_texts = text_keys(layout.norm_ids[start + at]), text_keys(layout.norm_ids[keep[at]])
            pairs = np.empty(len(at), PAIR)
            pairs["a"], pairs["b"] = np.minimum(one_texts, met_texts), np.maximum(one_texts, met_texts)
            wanted.append(pairs)
        return self.unknown(distinct_pairs(np.concatenate(wanted)), extra)

    def unknown(self, pairs: Array, extra: Array) -> Array:
        """Pairs that have no evidence yet."""
        for evidence in self.evidence(extra):
            if not len(pairs):
                break
            a, b = np.concatenate([pairs["a"], evidence["a"]]), np.concatenate([pairs["b"], evidence["b"]])
            order = np.lexsort((np.arange(len(a)) >= len(pairs), b, a))
            same = (a[order][1:] == a[order][:-1]) & (b[order][1:] == b[order][:-1])
            have = np.zeros(len(a), bool)
            have[order[:-1][same]] = True
            pairs = pairs[~have[: len(pairs)]]
        return pairs

    def compare(self, pairs: Array) -> Array:
        """Evidence of pairs, from the texts."""
        layout = self.found.layout
        needed = np.zeros(len(layout.texts), bool)
        for side in ("a", "b"):
            needed[among(np.ascontiguousarray(pairs[side]), layout.texts)[0]] = True
        TextSets.write(layout, needed, self.work / "sets", self.found.config, lambda: None)
        made = TextSets(self.work / "sets", layout.texts).verify(pairs)
        shutil.rmtree(self.work / "sets")
        return made

    def follow(self, keeper_of_group: Array, kept_of: Array, method: Array, near: Array, containment: Array) -> None:
        """Exact copies go where the one that stands for them went, which was verified on the same words."""
        contents = self.found.layout.contents
        for first, members, group in self.groups():
            keeper = keeper_of_group[first + group]
            copy = members != keeper
            members, keeper = members[copy], keeper[copy]
            gone = kept_of[keeper] >= 0
            kept_of[members] = np.where(gone, kept_of[keeper], keeper)
            same = np.where(contents[members] == contents[keeper], SAME_TEXT, SAME_WORDS)
            method[members] = np.where(gone, NEAR, same)
            near[members], containment[members] = near[keeper], containment[keeper]
