"""The choice of who is kept, against a plain reference over random evidence."""

import tempfile
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.copies import Copies, ExactCopies
from gptwright.corpus.dedup import star
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.found import Found, resolve
from gptwright.corpus.dedup.layout import Layout
from gptwright.corpus.dedup.priority import Priority, scores
from gptwright.corpus.dedup.store import save, text_keys
from gptwright.corpus.dedup.verify import EVIDENCE


@dataclass
class Case:
    """Documents by the text they hold, and evidence of pairs of texts."""

    texts: list[int]  # of each row
    pairs: list[tuple[int, int, int, int, int]]  # texts a and b; common, sizes
    alive: list[bool]
    heldout: list[bool]  # of each text
    score: list[int]


@st.composite
def cases(draw: st.DrawFn) -> Case:
    texts = draw(st.lists(st.integers(0, 7), min_size=1, max_size=14))
    n = len(texts)
    pairs = {}
    for a, b in draw(st.lists(st.tuples(st.integers(0, 7), st.integers(0, 7)), max_size=16)):
        if a < b:
            size_a, size_b = draw(st.sampled_from([40, 50])), draw(st.sampled_from([40, 50, 100]))
            pairs[a, b] = (a, b, draw(st.sampled_from([20, 36, 39, 40])), size_a, size_b)
    booleans = st.lists(st.booleans(), min_size=n, max_size=n)
    heldout = draw(st.lists(st.booleans(), min_size=8, max_size=8))
    score = draw(st.lists(st.integers(0, 3), min_size=n, max_size=n))
    return Case(texts, list(pairs.values()), draw(booleans), heldout, score)


def store(case: Case, folder: Path) -> Found:
    """A case as ``find`` would leave it."""
    ids = np.zeros((len(case.texts), 16), np.uint8)
    ids[:, 0], ids[:, 1] = case.texts, 7
    keys = text_keys(ids)
    known, first = np.unique(keys, return_index=True)
    save(folder / "norm.ids", ids)
    save(folder / "contents.u64", keys)
    save(folder / "texts.key", known)
    save(folder / "texts.row", first.astype(np.int64))
    layout = Layout(folder, [], np.array([0, len(case.texts)]))
    evidence = np.zeros(len(case.pairs), EVIDENCE)
    of_text = {text: int(text_keys(np.array([[text, 7, *[0] * 14]], np.uint8))[0]) for text in range(8)}
    rows = [
        (of_text[a], of_text[b], common, sa, sb, 0) for a, b, common, sa, sb in case.pairs if {a, b} <= set(case.texts)
    ]
    evidence = np.array(rows, EVIDENCE)
    save(folder / "evidence.bin", evidence)
    return Found(layout, ExactCopies.find(layout.norm_ids, folder / "exact"), [folder / "evidence.bin"], DedupConfig())


def reference(case: Case) -> list[int]:
    """Greedy, over rows in their order of priority."""
    rank = {row: (not case.heldout[text], case.score[row], row) for row, text in enumerate(case.texts)}
    standing: dict[int, int] = {}  # text -> row that stands for it
    kept_of = [-1] * len(case.texts)
    for row in sorted(rank, key=rank.__getitem__):
        if case.alive[row]:
            if case.texts[row] in standing:
                kept_of[row] = standing[case.texts[row]]
            else:
                standing[case.texts[row]] = row
    evidence = {(a, b): (c, sa, sb) for a, b, c, sa, sb in case.pairs} | {
        (b, a): (c, sb, sa) for a, b, c, sa, sb in case.pairs
    }
    kept: list[int] = []
    for row in sorted(standing.values(), key=rank.__getitem__):
        for keeper in kept:
            common, size, other = evidence.get((case.texts[row], case.texts[keeper]), (0, 1, 1))
            near = common / (size + other - common) >= 0.8
            held = common >= 0.95 * min(size, other) and (size <= other or case.heldout[case.texts[keeper]])
            if near or held:
                kept_of[row] = keeper
                break
        else:
            kept.append(row)
    for row, keeper in enumerate(kept_of):
        if keeper >= 0 and kept_of[keeper] >= 0:
            kept_of[row] = kept_of[keeper]
    return kept_of


def run(case: Case, folder: Path) -> Copies:
    found = store(case, folder)
    heldout = np.array([case.heldout[text] for text in case.texts])
    priority = Priority(np.array(case.score, np.uint64), np.zeros(len(case.texts), np.uint64))
    return resolve(found, np.array(case.alive), heldout, priority)


@settings(max_examples=250, deadline=None)
@given(cases())
def test_resolve_equals_the_plain_greedy_choice(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder:
        copies = run(case, Path(folder))
    assert copies.kept_of.tolist() == reference(case)
    for row in np.flatnonzero(copies.kept_of >= 0):
        assert case.alive[copies.kept_of[row]]
        assert copies.kept_of[copies.kept_of[row]] < 0


@settings(max_examples=60, deadline=None)
@given(cases())
def test_resolve_when_edges_need_several_partitions_then_the_choice_is_the_same(case: Case) -> None:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(star, "PARTITION_RECORDS", 4)
        patch.setattr(star, "CHUNK_RECORDS", 3)
        assert run(case, Path(folder)).kept_of.tolist() == reference(case)


def test_resolve_when_texts_form_a_chain_then_both_ends_are_kept(tmp_path: Path) -> None:
    alike = 47  # of 50 and 50: Jaccard 0.89
    chain = Case([0, 1, 2], [(0, 1, alike, 50, 50), (1, 2, alike, 50, 50)], [True] * 3, [False] * 8, [0, 0, 0])
    copies = run(chain, tmp_path)
    assert copies.kept_of.tolist() == [-1, 0, -1]
    assert copies.jaccard is not None
    assert copies.jaccard[1] == pytest.approx(47 / 53)


def test_resolve_when_the_preferred_text_is_part_of_a_longer_one_then_nothing_is_lost(tmp_path: Path) -> None:
    part = Case([0, 1], [(0, 1, 40, 40, 100)], [True] * 2, [False] * 8, [0, 1])
    (tmp_path / "1").mkdir()
    assert run(part, tmp_path / "1").kept_of.tolist() == [-1, -1]
    part.score = [1, 0]
    (tmp_path / "2").mkdir()
    copies = run(part, tmp_path / "2")
    assert copies.kept_of.tolist() == [1, -1]
    assert copies.containment is not None
    assert copies.containment[0] == 1.0


def test_resolve_when_a_longer_text_holds_held_out_text_then_it_is_not_trained_on(tmp_path: Path) -> None:
    part = Case([0, 1], [(0, 1, 40, 40, 100)], [True] * 2, [True] + [False] * 7, [1, 0])
    assert run(part, tmp_path).kept_of.tolist() == [-1, 0]


def test_scores_put_openness_first_then_source_quality_length_and_date() -> None:
    rows = [
        {"openness": 0, "source": 9, "quality": 0.1, "length": 5, "date": 20000},
        {"openness": 1, "source": 0, "quality": 0.9, "length": 9000, "date": 1},
        {"openness": 1, "source": 0, "quality": 0.9, "length": 9000, "date": 2},
        {"openness": 1, "source": 0, "quality": 0.9, "length": 9000, "date": -1},
        {"openness": 1, "source": 0, "quality": 0.9, "length": 8990, "date": 1},
        {"openness": 1, "source": 0, "quality": 0.8, "length": 10**9, "date": 1},
        {"openness": 1, "source": 1, "quality": 1.0, "length": 10**9, "date": 1},
    ]
    packed = scores(**{name: np.array([row[name] for row in rows]) for name in rows[0]})
    assert packed.tolist() == sorted(packed.tolist())
    assert len(set(packed.tolist())) == len(rows)
    assert packed.max() < 2**63
