"""Boilerplate and repeated spans: what is taken out, what stays, and that no word is lost."""

import itertools
import tempfile
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.edits import write_edits
from gptwright.corpus.dedup.features import write_features
from gptwright.corpus.dedup.find import find
from gptwright.corpus.dedup.layout import PartFiles
from gptwright.corpus.dedup.priority import Priority

from .corpora import docs_table, make_part, prose

SPANS = DedupConfig(near=False, lines=False)
LINES = DedupConfig(near=False, spans=False, line_documents=5, line_share_least=4)


def edited(
    lists: Sequence[Sequence[str]], folder: Path, config: DedupConfig, kept: Sequence[bool] | None = None,
    priority: Priority | None = None, sources: Sequence[str] = (),
) -> tuple[list[str], list[pa.Table]]:  # fmt: skip
    """All texts after their edits, and the edits."""
    made = [
        make_part(folder, f"p{i}", texts, config, sources[i] if sources else "own", rows=3)
        for i, texts in enumerate(lists)
    ]
    found = find(made, config, folder / "index", folder / "work")
    keep = np.ones(found.layout.rows, bool) if kept is None else np.array(kept)
    tables = [pq.read_table(path) for path in write_edits(found, keep, folder / "edits", priority)]
    out = []
    for texts, table in zip(lists, tables, strict=True):
        rows = table.to_pylist()
        assert rows == sorted(rows, key=lambda row: (row["doc_row"], row["start"]))
        for i, text in enumerate(texts):
            mine = [row for row in rows if row["doc_row"] == i]
            assert all(a["end"] <= b["start"] for a, b in itertools.pairwise(mine)), "edits are apart"
            for row in reversed(mine):
                assert 0 <= row["start"] < row["end"] <= len(text)
                text = text[: row["start"]] + row["replacement"] + text[row["end"] :]
            out.append(text)
    return out, tables


def test_spans_when_a_passage_recurs_then_all_but_the_first_go(tmp_path: Path) -> None:
    passage = " ".join(prose(1, 60))
    texts = [f"First {passage} end.", f"Ünd «{passage}» so wéiter.", "Short: " + " ".join(passage.split()[:49])]
    after, tables = edited([texts[:1], texts[1:]], tmp_path, SPANS)
    assert after == [texts[0], "Ünd «» so wéiter.", texts[2]]
    assert tables[1]["kind"].to_pylist() == ["SPAN"]


def test_spans_when_another_document_is_preferred_then_it_keeps_the_passage(tmp_path: Path) -> None:
    passage = " ".join(prose(1, 60))
    texts = [f"a {passage} b", f"c {passage} d", f"e {passage} f"]
    priority = Priority(np.array([5, 3, 1], np.uint64), np.zeros(3, np.uint64))
    after, _ = edited([texts], tmp_path, SPANS, [True, True, False], priority)
    assert after == ["a b", texts[1], texts[2]]


def test_spans_when_letters_differ_then_nothing_goes(tmp_path: Path) -> None:
    passage = " ".join(prose(1, 70))
    texts = [passage, passage.upper()]
    assert edited([texts], tmp_path, SPANS)[0] == texts


PIECES = [" ".join(f"w{p}q{'abcdefghijklmnopqrstuvwxyz'[i // 26]}{'abcdefghijklmnopqrstuvwxyz'[i % 26]}ö" for i in range(n))
          for p, n in enumerate((50, 51, 64, 90, 200))]  # fmt: skip


@settings(max_examples=60, deadline=None)
@given(
    st.lists(st.lists(st.integers(0, 4), max_size=5), min_size=1, max_size=7),
    st.lists(st.booleans(), min_size=7, max_size=7),
    st.lists(st.integers(0, 2), min_size=7, max_size=7),
)
def test_spans_when_texts_are_made_of_passages_then_each_word_stays_once(
    plans: list[list[int]], kept: list[bool], score: list[int]
) -> None:
    texts = [f"doc {i}: " + "; ".join(PIECES[p] for p in plan) for i, plan in enumerate(plans)]
    keep = kept[: len(texts)]
    priority = Priority(np.array(score[: len(texts)], np.uint64), np.zeros(len(texts), np.uint64))
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr("gptwright.corpus.dedup.features.BATCH_BYTES", 3000)
        patch.setattr("os.fsync", lambda _: None)
        after, _ = edited([texts[:2], texts[2:]], Path(folder), SPANS, keep, priority)
    words = Counter(word.strip(";") for text, k in zip(after, keep, strict=True) if k for word in text.split()[2:])
    expected = {word for plan, k in zip(plans, keep, strict=True) if k for p in plan for word in PIECES[p].split()}
    assert {word for word in words if word} == expected
    assert not [word for word in expected if words[word] != 1]
    assert all(text == before for text, before, k in zip(after, texts, keep, strict=True) if not k)


def test_lines_when_a_line_is_in_many_texts_then_all_but_one_lose_it(tmp_path: Path) -> None:
    notice = "Please subscribe to our newsletter today\n"
    texts = [f"{' '.join(prose(i, 30))}\n{notice}{' '.join(prose(i + 50, 30))}\n" for i in range(6)]
    after, tables = edited([texts[:3], texts[3:]], tmp_path, LINES)
    assert after == [texts[0], *(text.replace(notice, "") for text in texts[1:])]
    assert set(tables[1]["kind"].to_pylist()) == {"LINE"}


def test_lines_when_a_text_was_only_copied_then_its_lines_are_no_boilerplate(tmp_path: Path) -> None:
    texts = ["One line of words here\nand another line of words\n".upper()] * 3 + [
        "one line of words here\n and another line of words"
    ] * 9
    assert edited([texts], tmp_path, LINES)[0] == texts


def test_lines_when_a_line_is_common_in_one_source_only_then_it_is_boilerplate(tmp_path: Path) -> None:
    notice = "This page was printed from our archive"
    small = [f"{' '.join(prose(i, 30))}\n{notice}" for i in range(4)]
    large = [" ".join(prose(i, 30)) for i in range(100, 130)]
    after, _ = edited([large, small], tmp_path, LINES, sources=["large", "small"])
    assert sum(notice in text for text in after) == 1
    (tmp_path / "one").mkdir()
    after, _ = edited([large + small], tmp_path / "one", LINES)
    assert sum(notice in text for text in after) == 4


def test_lines_when_they_differ_in_numbers_or_are_few_words_then_they_stay(tmp_path: Path) -> None:
    texts = [f"{' '.join(prose(i, 30))}\nIt had {i} people living there\nRead more now" for i in range(8)]
    assert edited([texts], tmp_path, LINES)[0] == texts


def test_lines_when_a_paragraph_is_wrapped_otherwise_then_it_is_boilerplate_too(tmp_path: Path) -> None:
    words = prose(77, 12)
    texts = []
    for i in range(6):
        block = " ".join(words[: i + 2]) + "\n" + " ".join(words[i + 2 :])
        texts.append(f"{' '.join(prose(i, 30))}\n\n{block}\n\n{' '.join(prose(i + 50, 30))}\n")
    after, _ = edited([texts], tmp_path, LINES)
    assert after[0] == texts[0]
    assert all(words[0] not in text.split() and words[11] not in text.split() for text in after[1:])


def test_edits_when_documents_are_conversations_then_there_are_none(tmp_path: Path) -> None:
    texts = ["How can I help you today with this?\n" + " ".join(prose(1, 60))] * 9
    config = LINES.model_copy(update={"spans": True})
    pq.write_table(docs_table(texts, ["[]"] * 9), tmp_path / "d.parquet")
    part = PartFiles(
        tmp_path / "d.parquet", write_features(tmp_path / "d.parquet", tmp_path / "f.arrow", config), "own"
    )
    found = find([part], config, tmp_path / "index", tmp_path / "work")
    assert pq.read_metadata(write_edits(found, np.ones(9, bool), tmp_path / "edits")[0]).num_rows == 0
