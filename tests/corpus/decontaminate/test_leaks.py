"""Evaluation items that stand in documents: found by a plain reference too, planted at known shares, and not where text is merely common."""

import random
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptwright.core.hashing import norm_id
from gptwright.corpus.decontaminate import evals, scan
from gptwright.corpus.decontaminate import words as w
from gptwright.corpus.decontaminate.config import DecontaminateConfig
from gptwright.corpus.decontaminate.items import Item, ItemSet
from gptwright.corpus.decontaminate.settle import Settled, settle

from . import strategies as plain

LICENCE = (
    "Permission is hereby granted to any person obtaining a copy of these sample notes to deal in them without restriction,"
    " subject to the condition that this notice shall be included in all copies or substantial portions of the notes."
)


def docs_file(folder: Path, number: int, docs: list[str]) -> Path:
    ids = pa.array([bytes.fromhex(norm_id(d)) for d in docs], pa.binary(16))
    path = folder / f"docs-{number}.parquet"
    pq.write_table(pa.table({"text": pa.array(docs, pa.large_string()), "norm_id": ids}), path)
    return path


def find(
    folder: Path, items: dict[str, list[str]], parts: list[list[str]], **options: object
) -> tuple[Settled, list[dict]]:
    config = DecontaminateConfig.model_validate(options)
    sets = [ItemSet("set", "", tuple(Item(f"set#{name}", tuple(texts)) for name, texts in items.items()), ())]
    known = evals.make(sets, folder / "tasks", words=config.words, shortest=config.shortest)
    jobs = [
        scan.Job(
            str(folder / "tasks"), str(docs_file(folder, n, docs)), str(evals.index_path(folder / "tasks", known.name))
        )
        for n, docs in enumerate(parts)
    ]
    for job in jobs:
        assert scan.run(job) == job.name
    settled = settle([job.path for job in jobs], known, config)
    return settled, [row | {"part": n} for n in range(len(parts)) for row in settled.part(n).to_pylist()]


def made_up(rng: random.Random, n: int) -> str:
    return " ".join("".join(rng.choices("abcdefghijklmnop", k=rng.randint(4, 9))) for _ in range(n))


@given(plain.TEXTS)
def test_split_words_when_text_is_anything_then_it_equals_the_reference(text: str) -> None:
    data, offsets = w.buffers(w.as_text([text]))
    norm, at, starts, ends, breaks, prefix = room = w.scratch(len(text.encode()))
    n = w.split_words(data, 0, offsets[1], *w.tables(), False, *room)
    got = [
        ("".join(map(chr, norm[at[i] : at[i + 1] - 1])), int(starts[i]), int(ends[i]), int(breaks[i])) for i in range(n)
    ]
    want = [
        (word.text, word.start, word.end, (2 if number == 0 else 1) if i == 0 else 0)
        for p in plain.paragraphs(text)
        for number, line in enumerate(p)
        for i, word in enumerate(line)
    ]
    assert got == want
    assert len({int(p) for p in prefix[: n + 1]}) == n + 1


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    docs=st.lists(plain.TEXTS, min_size=1, max_size=8),
    items=st.lists(plain.TEXTS, min_size=1, max_size=4),
    common=st.integers(2, 4),
)
def test_overlap_when_documents_are_anything_then_it_equals_the_reference(
    tmp_path_factory: pytest.TempPathFactory, docs: list[str], items: list[str], common: int
) -> None:
    docs = [*docs, items[0], "a b " + items[-1]]
    half = len(docs) // 2
    _, rows = find(
        tmp_path_factory.mktemp("leaks"), {str(i): [t] for i, t in enumerate(items)}, [docs[:half], docs[half:]],
        words=4, shortest=2, common_least=common, common_share=0.0,
    )  # fmt: skip
    got = np.zeros(len(docs))
    for row in rows:
        got[row["part"] * half + row["doc_row"]] = row["overlap"]
    want = plain.overlaps(docs, items, 4, 2, 0.0, common)
    np.testing.assert_allclose(got, want, atol=1e-6)
    assert all(row["contaminated"] == (row["overlap"] >= 0.5) for row in rows)


@pytest.mark.parametrize("share", [0.1, 0.3, 0.45, 0.55, 0.7, 1.0])
def test_leak_when_planted_at_a_share_then_half_is_the_bar_and_the_item_is_named(share: float, tmp_path: Path) -> None:
    rng = random.Random(5)
    items = {str(i): [made_up(rng, 60)] for i in range(20)}
    docs = [made_up(rng, 300) for _ in range(40)]
    place = rng.randrange(40)
    # 48 sequences of 13 words are the item's; so many others stand in the paragraph that they are the given share.
    others = round(48 / share) - 48
    before, after = made_up(rng, others // 2), made_up(rng, others - others // 2)
    leaked = f"{before} {items['7'][0].title()}! {after}".strip()
    docs[place] = f"{made_up(rng, 100)}\n\n{leaked}\n\n{made_up(rng, 100)}"
    _, rows = find(tmp_path, items, [docs[:15], docs[15:]])
    assert [(row["part"] * 15 + row["doc_row"], row["items"], row["contaminated"]) for row in rows] == [
        (place, ["set#7"], share > 0.5)
    ]
    assert rows[0]["overlap"] == pytest.approx(share, abs=0.02)
    assert rows[0]["item_share"] == 1.0
    assert docs[place][rows[0]["starts"][0] : rows[0]["ends"][0]].lower() == items["7"][0]


def test_leak_when_the_question_is_a_line_of_a_long_list_or_chat_then_it_is_found(tmp_path: Path) -> None:
    rng = random.Random(6)
    question = made_up(rng, 25)
    docs = ["\n".join([*(made_up(rng, 30) for _ in range(50)), f"12) {question}?", made_up(rng, 30)])]
    _, rows = find(tmp_path, {"q": [question]}, [docs])
    assert [row["contaminated"] for row in rows] == [True]


def test_leak_when_the_item_is_short_then_only_its_exact_words_count(tmp_path: Path) -> None:
    items = {
        "short": ["Which metal melts at body warmth?", "Which metal melts at body warmth? Gallium"],
        "tiny": ["Why so?"],
    }
    docs = [
        "Notes.\n\n3. Which METAL melts at body warmth?\nGallium.",
        "Which metal melts at body heat?",
        "People often ask which metal melts at body warmth when they first hold a piece of it in their hands, and laugh.",
        "Why so?",
    ]
    settled, rows = find(tmp_path, items, [docs])
    assert [(row["doc_row"], row["contaminated"]) for row in rows] == [(0, True), (2, False)]
    assert settled.evals.ignored == ("set#tiny",)


def test_leak_when_the_words_are_a_common_licence_then_nobody_is_condemned(tmp_path: Path) -> None:
    rng = random.Random(7)
    items = {"licence": [LICENCE], "real": [made_up(rng, 30)]}
    docs = [f"{made_up(rng, 80)}\n\n{LICENCE}" for _ in range(15)]
    docs[3] += "\n\n" + items["real"][0]
    settled, rows = find(tmp_path, items, [docs[:9], docs[9:]])
    assert [(row["part"], row["doc_row"], row["items"]) for row in rows] == [(0, 3, ["set#real"])]
    assert settled.unchecked == ["set#licence"]
    # Nine documents are too few to call anything common.
    _, rows = find(tmp_path / "few", items, [docs[:9]]) if (tmp_path / "few").mkdir() is None else (None, [])
    assert sum(row["contaminated"] for row in rows) == 9


def test_leak_when_copies_of_one_page_hold_it_then_it_does_not_become_common(tmp_path: Path) -> None:
    rng = random.Random(8)
    question = made_up(rng, 30)
    page = f"{made_up(rng, 50)}\n\n{question}"
    _, rows = find(tmp_path, {"q": [question]}, [[page, *[page.upper()] * 14, made_up(rng, 50)]])
    assert [row["contaminated"] for row in rows] == [True] * 15


def test_leak_when_a_common_frame_surrounds_the_question_then_the_frame_does_not_dilute_it(tmp_path: Path) -> None:
    rng = random.Random(9)
    frame = made_up(rng, 60)
    items = {str(i): [made_up(rng, 30)] for i in range(12)}
    docs = [f"{frame} {items[str(i)][0]}" for i in range(12)]
    _, rows = find(tmp_path, items, [docs])
    # 18 sequences are the item's and 12 cross over from the frame: 0.6 without the frame's own 48, 0.23 with them.
    assert [row["overlap"] for row in rows] == [pytest.approx(0.6)] * 12


def test_scan_when_run_again_then_nothing_is_done_and_another_index_makes_another_task(tmp_path: Path) -> None:
    rng = random.Random(10)
    docs = docs_file(tmp_path, 0, [made_up(rng, 30)])
    names = set()
    for text in ("one two three four", "one two three five"):
        known = evals.make([ItemSet("s", "", (Item("s#1", (text,)),), ())], tmp_path)
        job = scan.Job(str(tmp_path), str(docs), str(evals.index_path(tmp_path, known.name)))
        names.add(scan.run(job))
        before = job.path.stat().st_mtime_ns
        assert scan.run(job.moved(str(tmp_path), {p: p for p in job.inputs()})) == job.name
        assert job.path.stat().st_mtime_ns == before
    assert len(names) == 2


def test_common_when_pairs_exceed_memory_then_passes_give_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rng = random.Random(11)
    frame = made_up(rng, 60)
    items = {str(i): [made_up(rng, 30)] for i in range(12)}
    docs = [f"{frame} {items[str(i)][0]}" for i in range(12)]
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    one, _ = find(tmp_path / "a", items, [docs])
    monkeypatch.setattr("gptwright.corpus.decontaminate.settle.PASS_PAIRS", 100)
    many, rows = find(tmp_path / "b", items, [docs])
    assert len(one.common_other) == 48
    np.testing.assert_array_equal(one.common_other, many.common_other)
    assert [row["overlap"] for row in rows] == [pytest.approx(0.6)] * 12
