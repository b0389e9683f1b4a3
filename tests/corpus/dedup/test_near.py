"""Near duplicates end to end: what is found, what is never dropped, builds upon builds, and interrupted ones."""

import itertools
import os
import random
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptwright.corpus.copies import Copies
from gptwright.corpus.dedup import candidates, layout, verify
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.edits import write_edits
from gptwright.corpus.dedup.features import shingle_set
from gptwright.corpus.dedup.find import find
from gptwright.corpus.dedup.found import Found
from gptwright.corpus.dedup.layout import PartFiles
from gptwright.corpus.dedup.priority import Priority
from gptwright.corpus.dedup.verify import EVIDENCE

from .conftest import Maker
from .corpora import VOCABULARY, make_part, prose, similar

NO_EDITS = DedupConfig(lines=False, spans=False)


@pytest.fixture(autouse=True)
def _quick_disk(monkeypatch: pytest.MonkeyPatch) -> None:
    """Thousands of small files need not be safe from a power failure here."""
    monkeypatch.setattr(os, "fsync", lambda _: None)


def look(made: Sequence[PartFiles], folder: Path, config: DedupConfig = NO_EDITS) -> Found:
    return find(made, config, folder / "index", folder / "work")


def choose(found: Found) -> Copies:
    rows = found.layout.rows
    return found.resolve(np.ones(rows, bool), np.zeros(rows, bool))


def evidence(found: Found) -> np.ndarray:
    return np.concatenate([np.fromfile(path, EVIDENCE) for path in found.evidence])


def true_jaccard(a: str, b: str) -> float:
    x, y = (set(shingle_set(text)[0].tolist()) for text in (a, b))
    return len(x & y) / len(x | y)


@pytest.mark.slow
def test_find_when_copies_are_planted_then_95_percent_are_found_at_08_and_none_below_is_dropped(
    parts: Maker, tmp_path: Path
) -> None:
    levels = [0.5, 0.6, 0.7, 0.75, 0.805, 0.85, 0.9, 0.95]
    each = 250
    texts, planted = [], {}
    for level, i in itertools.product(levels, range(each)):
        words = prose(len(texts), random.Random(i).randint(60, 500))
        copy = similar(words, level, i)
        planted[len(texts) + 1] = true_jaccard(" ".join(words), " ".join(copy))
        texts += [" ".join(words), " ".join(copy)]
    copies = choose(look(parts(texts[:1501], texts[1501:]), tmp_path))
    planted = {row: value for row, value in planted.items() if value < 1}
    found = {row: copies.kept_of[row] == row - 1 for row in planted}
    at_08 = [found[row] for row, value in planted.items() if 0.8 <= value < 0.83]
    assert len(at_08) > 100
    assert sum(at_08) / len(at_08) >= 0.95
    assert all(found[row] for row, value in planted.items() if value >= 0.93)
    assert not any(found[row] for row, value in planted.items() if value < 0.8)
    assert copies.jaccard is not None
    for row in set(np.flatnonzero(copies.kept_of >= 0).tolist()) & set(planted):
        assert copies.jaccard[row] == pytest.approx(planted[row])


def gutenberg_like(count: int, words: int, seed: int) -> list[str]:
    """Unrelated long texts as books are: common words are very common, phrases recur, and half of them share a licence's text."""
    chance = np.random.default_rng(seed)
    weights = 1 / np.arange(1, len(VOCABULARY) + 1)
    phrases = [" ".join(chance.choice(VOCABULARY, chance.integers(4, 13))) for _ in range(300)]
    licence = " ".join(prose(0, 250)) + ".\n\n"
    drawn = chance.choice(VOCABULARY, (count, words), p=weights / weights.sum())
    texts = []
    for i, row in enumerate(drawn):
        pieces = [
            " ".join(row[at : at + 40]) + ", " + phrases[pick] + ".\n"
            for at, pick in zip(range(0, words, 40), chance.integers(0, 300, words // 40 + 1), strict=False)
        ]
        texts.append((licence if i % 2 else "") + "".join(pieces))
    return texts


def test_find_when_long_texts_are_unrelated_then_none_is_dropped(parts: Maker, tmp_path: Path) -> None:
    texts = gutenberg_like(1500, 300, 1)
    assert (choose(look(parts(texts), tmp_path)).kept_of < 0).all()


@pytest.mark.slow
def test_find_when_20000_long_texts_are_unrelated_then_none_is_dropped(parts: Maker, tmp_path: Path) -> None:
    lists = [gutenberg_like(5000, 400, seed) for seed in range(4)]
    found = look(parts(*lists), tmp_path)
    assert found.layout.rows == 20_000
    assert len(evidence(found)) > 1000, "there were candidates, which a closure over unverified pairs would drop"
    assert (choose(found).kept_of < 0).all()


def test_find_when_two_texts_are_like_a_third_but_not_each_other_then_both_ends_stay(
    parts: Maker, tmp_path: Path
) -> None:
    middle = prose(1, 300)
    left, right = list(middle), list(middle)
    for at in range(10, 140, 30):
        left[at] = "leftword"
    for at in range(160, 290, 30):
        right[at] = "rightword"
    copies = choose(look(parts([" ".join(left), " ".join(middle), " ".join(right)]), tmp_path))
    assert true_jaccard(" ".join(left), " ".join(right)) < 0.8
    assert copies.kept_of.tolist() == [-1, 0, -1]


def test_find_when_one_template_fills_a_bucket_then_all_its_copies_are_dropped_for_one(
    parts: Maker, tmp_path: Path
) -> None:
    words = prose(5, 300)
    texts = []
    for i in range(60):
        copy = list(words)
        copy[150] = f"name{'abcdefghij'[i % 10]}{'abcdefghij'[i // 10]}"
        texts.append(" ".join(copy))
    config = NO_EDITS.model_copy(update={"hub": 10, "representatives": 3})
    found = look(parts(texts, config=config), tmp_path, config)
    assert len(evidence(found)) < 60 * 59 / 2 / 2, "a large bucket is not compared in full"
    for first in (0, 17, 59):
        alive = np.arange(60) >= first
        kept = found.resolve(alive, np.zeros(60, bool)).kept_of
        assert kept[first] == -1
        assert (kept[first + 1 :] == first).all()


@pytest.mark.parametrize(("differ", "kept"), [(True, [-1, -1, -1, -1]), (False, [-1, 0, -1, -1])])
def test_find_when_texts_differ_in_numbers_then_the_setting_decides_for_long_ones(
    parts: Maker, tmp_path: Path, differ: bool, kept: list[int]
) -> None:
    words = " ".join(f"{word} 1 and" for word in prose(1, 40))
    texts = [words, words.replace(" 1 ", " 2 "), "What is 3 + 4? It is 7.", "What is 5 + 1? It is 6."]
    config = NO_EDITS.model_copy(update={"numbers_differ": differ})
    assert choose(look(parts(texts, config=config), tmp_path, config)).kept_of.tolist() == kept


def test_find_when_short_texts_differ_by_a_letter_then_they_are_compared_by_characters(
    parts: Maker, tmp_path: Path
) -> None:
    base = "Thank you very much for your message, we shall answer it as soon as we possibly can; until then"
    texts = [base + " farewell", base + " farewells", base.replace("message", "parcel"), "Thank you", "Thank  YOU!"]
    copies = choose(look(parts(texts), tmp_path))
    assert copies.kept_of.tolist()[:3] == [-1, 0, -1]


def test_find_when_copies_are_exact_then_method_tells_texts_from_words(parts: Maker, tmp_path: Path) -> None:
    text = " ".join(prose(1))
    copies = choose(look(parts([text, text.upper()], [text, " ".join(prose(2))]), tmp_path))
    assert copies.kept_of.tolist() == [-1, 0, 0, -1]
    assert copies.method is not None
    assert copies.method.tolist() == [0, 2, 1, 0]


@pytest.fixture(scope="module")
def universe(tmp_path_factory: pytest.TempPathFactory) -> list[PartFiles]:
    """Small parts with near copies within and across them, so many that buckets are hubs."""
    folder = tmp_path_factory.mktemp("universe")
    config = SMALL
    bases = [prose(seed, 120) for seed in range(3)]
    texts = [" ".join(similar(bases[i % 3], 0.75 + 0.02 * (i % 11), i)) for i in range(33)]
    texts += [" ".join(bases[0]), " ".join(bases[0]).upper(), " ".join(prose(9))]
    random.Random(4).shuffle(texts)
    return [make_part(folder, f"p{i}", texts[i : i + 2], config) for i in range(0, len(texts), 2)]


SMALL = NO_EDITS.model_copy(update={"hub": 6, "representatives": 2})


def outcome(found: Found) -> tuple[bytes, list[int]]:
    pairs = evidence(found)
    return pairs[np.lexsort((pairs["b"], pairs["a"]))].tobytes(), choose(found).kept_of.tolist()


@pytest.mark.slow
@settings(max_examples=20, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(steps=st.lists(st.sets(st.integers(0, 17), min_size=1), min_size=2, max_size=4), small=st.booleans())
def test_find_when_documents_come_and_go_then_the_result_is_that_of_a_full_build(
    universe: list[PartFiles], tmp_path: Path, steps: list[set[int]], small: bool
) -> None:
    shutil.rmtree(tmp_path, ignore_errors=True)
    with pytest.MonkeyPatch.context() as patch:
        if small:  # several partitions, and so few records that runs are joined
            patch.setattr("gptwright.corpus.dedup.store.PARTITION_RECORDS", 64)
            patch.setattr("gptwright.corpus.dedup.near.PARTITION_RECORDS", 24)
            patch.setattr(candidates, "CHUNK_RECORDS", 16)
            patch.setattr(candidates, "MOST_RUNS", 1)
        for number, step in enumerate(steps):
            chosen = [universe[i] for i in sorted(step)]
            again = outcome(look(chosen, tmp_path / "kept", SMALL))
            assert again == outcome(look(chosen, tmp_path / f"new{number}", SMALL))


def test_find_when_buckets_are_hubs_then_each_dropped_text_is_verified_against_a_kept_one(
    universe: list[PartFiles], tmp_path: Path
) -> None:
    found = look(universe, tmp_path, SMALL)
    assert not found.whole
    texts = [text for part in universe for text in pq.read_table(part.docs)["text"].to_pylist()]
    for seed in range(6):
        chance = np.random.default_rng(seed)
        alive, heldout = chance.random(len(texts)) < 0.8, chance.random(len(texts)) < 0.1
        found.priority = Priority(chance.integers(0, 3, len(texts)).astype(np.uint64), np.zeros(len(texts), np.uint64))
        copies = found.resolve(alive, heldout)
        dropped = np.flatnonzero(copies.kept_of >= 0)
        assert len(dropped) > 3
        for row in dropped:
            keep = copies.kept_of[row]
            assert alive[row]
            assert alive[keep]
            assert copies.kept_of[keep] < 0
            assert heldout[keep] or not heldout[row]
            assert true_jaccard(texts[row], texts[keep]) >= 0.8


def test_find_when_there_is_nothing_then_nothing_is_found(parts: Maker, tmp_path: Path) -> None:
    for made in ([], parts([], ["", "", "!"])):
        rows = 3 if made else 0
        found = look(made, tmp_path, DedupConfig())
        copies = choose(found)
        assert copies.kept_of.tolist() == [-1, 0, -1][:rows]
        assert len(write_edits(found, copies.kept_of < 0, tmp_path / "edits")) == len(made)


def test_find_when_settings_change_then_all_is_compared_anew(parts: Maker, tmp_path: Path) -> None:
    texts = [" ".join(prose(1)), " ".join(similar(prose(1), 0.9, 1))]
    other = NO_EDITS.model_copy(update={"bands": 4, "rows": 2})
    (tmp_path / "1").mkdir()
    (tmp_path / "2").mkdir()
    for config, folder in ((NO_EDITS, "1"), (other, "2"), (NO_EDITS, "1")):
        made = [make_part(tmp_path / folder, "p", texts, config)]
        assert choose(look(made, tmp_path, config)).kept_of.tolist() == [-1, 0]


def test_find_when_a_document_is_gone_then_the_index_has_no_trace_of_it(
    universe: list[PartFiles], tmp_path: Path
) -> None:
    found = look(universe, tmp_path, SMALL)
    gone = found.layout.texts[-1:].tobytes()
    row = int(found.layout.first_rows[-1])
    rest = [part for i, part in enumerate(universe) if i != int(found.layout.part_of(np.array([row]))[0])]
    look(rest, tmp_path, SMALL)
    assert not [path for path in (tmp_path / "index").rglob("*") if path.is_file() and gone in path.read_bytes()]


def test_find_when_new_documents_come_then_only_pairs_with_them_are_compared(
    parts: Maker, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    old = [" ".join(similar(prose(seed), 0.9, i)) for seed in range(20) for i in range(3)]
    made = parts(old, [" ".join(similar(prose(3), 0.9, 7)), " ".join(prose(99))])
    look(made[:1], tmp_path)
    compared: list[int] = []
    verified = verify.TextSets.verify
    monkeypatch.setattr(
        verify.TextSets, "verify", lambda self, pairs: compared.append(len(pairs)) or verified(self, pairs)
    )
    copies = choose(look(made, tmp_path))
    assert sum(compared) == 3
    assert copies.kept_of[60] == 9, "evidence names the old document"


class Stop(Exception):
    """Raised between two pieces of work."""


@pytest.mark.slow
def test_find_when_stopped_anywhere_then_going_on_gives_the_same(
    universe: list[PartFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("gptwright.corpus.dedup.store.PARTITION_RECORDS", 128)
    before, after = universe[:12], universe[4:]
    expected = outcome(look(after, tmp_path / "whole", SMALL))
    look(before, tmp_path / "start", SMALL)
    stops = 0
    for stop_at in itertools.count(1):
        folder = tmp_path / f"stopped{stop_at}"
        shutil.copytree(tmp_path / "start" / "index", folder / "index")
        calls = itertools.count(1)

        def between(calls: "itertools.count[int]" = calls, stop_at: int = stop_at) -> None:
            if next(calls) == stop_at:
                raise Stop

        try:
            find(after, SMALL, folder / "index", folder / "work", between)
        except Stop:
            stops += 1
        else:
            break
        assert outcome(look(after, folder, SMALL)) == expected
    assert stops >= 10


KILLED = """
import os, signal, sys
from pathlib import Path
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.find import find
from gptwright.corpus.dedup.layout import PartFiles
folder, stop_at, *files = sys.argv[1:]
left = int(stop_at)
def between():
    global left
    left -= 1
    if left == 0:
        os.kill(os.getpid(), signal.SIGKILL)
parts = [PartFiles(Path(a), Path(b), "own") for a, b in zip(files[::2], files[1::2])]
config = DedupConfig(lines=False, spans=False, hub=6, representatives=2)
find(parts, config, Path(folder) / "index", Path(folder) / "work", between)
"""


@pytest.mark.slow
@pytest.mark.skipif(sys.platform == "win32", reason="needs SIGKILL")
def test_find_when_killed_then_going_on_gives_the_same(universe: list[PartFiles], tmp_path: Path) -> None:
    expected = outcome(look(universe, tmp_path / "whole", SMALL))
    files = [str(path) for part in universe for path in (part.docs, part.features)]
    for stop_at in (2, 20, 22, 24, 30):
        command = [sys.executable, "-c", KILLED, str(tmp_path / "killed"), str(stop_at), *files]
        code = subprocess.run(command, check=False).returncode
        assert code in (0, -signal.SIGKILL)
    assert outcome(look(universe, tmp_path / "killed", SMALL)) == expected


def test_lay_out_when_there_are_several_partitions_then_texts_ascend(
    universe: list[PartFiles], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = layout.lay_out(universe, tmp_path / "one")
    monkeypatch.setattr("gptwright.corpus.dedup.store.PARTITION_RECORDS", 4)
    several = layout.lay_out(universe, tmp_path / "several")
    assert several.texts.tolist() == one.texts.tolist() == sorted(one.texts.tolist())
    assert several.first_rows.tolist() == one.first_rows.tolist()
