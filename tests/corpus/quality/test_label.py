"""Labelling: what is asked about, what is kept, how it resumes, and how labels become a classifier and a column."""

import io
import json
import os
import pty
import threading
from pathlib import Path
from types import SimpleNamespace

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.core.hashing import content_id, doc_uid, norm_id
from gptwright.corpus import quality
from gptwright.corpus.quality import desk as desk_module
from gptwright.corpus.quality import flagged, labels, score
from gptwright.corpus.quality.desk import Desk, Sheet, pick
from gptwright.corpus.quality.terminal import label_terminal


@pytest.fixture
def store(control: ControlStore) -> ControlStore:
    return control


def text_of(number: int) -> str:
    kind = "calm river stones under slow water" if number % 2 == 0 else "BUY NOW!!! click click $$$ cheap"
    return f"{kind} number {number:03d} " + " ".join(f"w{number % 7}{i}" for i in range(5))


def corpus(folder: Path, n: int = 60, parts: int = 3) -> Path:
    """The docs files of a corpus; even numbers are good and of the source "books", odd ones bad and of "spam"."""
    (folder / "docs").mkdir(parents=True)
    for part in range(parts):
        rows = [
            {
                "doc_uid": bytes.fromhex(doc_uid("own", str(i))), "content_id": bytes.fromhex(content_id(text_of(i))),
                "norm_id": bytes.fromhex(norm_id(text_of(i))), "source": "spam" if i % 2 else "books",
                "locator": f"{i}.txt", "text": text_of(i), "lang_declared": "en",
            }
            for i in range(n) if i % parts == part
        ]  # fmt: skip
        ids = [(name, pa.binary(16)) for name in ("doc_uid", "content_id", "norm_id")]
        schema = pa.schema(
            [
                *ids,
                ("source", pa.string()),
                ("locator", pa.string()),
                ("text", pa.large_string()),
                ("lang_declared", pa.string()),
            ]
        )
        pq.write_table(pa.Table.from_pylist(rows, schema), folder / "docs" / f"part-{part:05d}.parquet")
    (folder / "corpus.json").write_text(json.dumps({"format": 1, "hash": "x", "parts": parts, "meta": {}}))
    return folder


def sheets(n: int) -> list[Sheet]:
    return [Sheet(f"{i:032x}", f"{i + 99:032x}", "own", f"{i}.txt", f"text {i}") for i in range(n)]


def sit(desk: Desk, typed: str) -> tuple[str, SimpleNamespace]:
    out = io.StringIO()
    result = label_terminal(desk, keys=io.StringIO(typed), out=out)
    return out.getvalue(), SimpleNamespace(**vars(result))


def test_terminal_when_keys_are_piped_then_labels_are_kept_and_counted(store: ControlStore) -> None:
    shown, result = sit(Desk(store, sheets(6), who="ann"), "g b\ns\nx g q g")
    assert (result.added, result.positive, result.negative, result.finished) == (3, 2, 1, False)
    assert labels.counts(store, "quality") == {"good": 2, "bad": 1, "skip": 1}
    assert "1 of 200 (1 good, 0 bad) · own/1.txt" in shown


def test_terminal_when_begun_again_then_it_resumes_after_what_is_labelled(store: ControlStore) -> None:
    sit(Desk(store, sheets(3)), "gs")
    shown, result = sit(Desk(store, sheets(3)), "b")
    assert "text 2" in shown
    assert "text 0" not in shown
    assert "text 1" not in shown
    assert result.finished


def test_terminal_when_undone_then_the_document_comes_back_and_nothing_of_others_is_taken(store: ControlStore) -> None:
    sit(Desk(store, sheets(4)), "g")
    shown, result = sit(Desk(store, sheets(4)), "ubusuug")
    # Nothing to undo; bad; undone; skipped; undone; nothing more to undo; good.
    assert shown.count("Nothing of this sitting to undo.") == 2
    assert (result.added, result.positive, result.negative) == (1, 2, 0)


def test_terminal_when_the_target_is_reached_then_it_ends(store: ControlStore) -> None:
    _, result = sit(Desk(store, sheets(9), target=3), "gbgbgbgb")
    assert (result.total, result.finished) == (3, True)


def test_terminal_when_a_document_holds_escapes_then_they_are_not_sent(store: ControlStore) -> None:
    bad = [Sheet("0" * 32, "1" * 32, "own", "a\x1b[2J.txt", "x\x1b]0;owned\x07 \x9b2J \u202egnp.exe\rz")]
    shown, _ = sit(Desk(store, bad), "q")
    assert not {"\x1b", "\x07", "\x9b", "\u202e", "\r"} & set(shown)


@pytest.mark.skipif(not hasattr(os, "openpty"), reason="no terminals here")
def test_terminal_when_it_is_one_then_single_keys_work_and_arrows_mark_nothing(store: ControlStore) -> None:
    master, slave = pty.openpty()
    out = io.StringIO()
    results = []

    def run() -> None:
        with os.fdopen(slave, "r") as keys:
            results.append(label_terminal(Desk(store, sheets(5)), keys=keys, out=out))

    thread = threading.Thread(target=run)
    thread.start()
    for shown, typed in enumerate((b"g", b"\x1b[B", b"b", b"q"), 1):
        for _ in range(500):
            if out.getvalue().count("q quit") >= shown:
                break
            thread.join(0.01)
        os.write(master, typed)
    thread.join(10)
    os.close(master)
    assert (results[0].positive, results[0].negative) == (1, 1)


def test_label_when_given_again_then_the_later_counts(store: ControlStore) -> None:
    for value in ("good", "bad"):
        labels.add(store, "quality", "0" * 32, "1" * 32, value)
    labels.add(store, "toxicity", "0" * 32, "1" * 32, "ok")
    assert labels.latest(store, "quality") == {"1" * 32: "bad"}
    with pytest.raises(ValueError, match="no label of toxicity"):
        labels.add(store, "toxicity", "0" * 32, "1" * 32, "good")
    with pytest.raises(UserError, match="quality or toxicity"):
        labels.counts(store, "x") or labels.classes("x")


def test_pick_when_nothing_is_known_then_it_is_chance_the_same_for_a_seed(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus")
    first = [s.doc_uid for s in pick(folder, 20)]
    assert len(set(first)) == 20
    assert first == [s.doc_uid for s in pick(folder, 20)]
    assert first != [s.doc_uid for s in pick(folder, 20, seed=1)]
    known = [s.content_id for s in pick(folder, 20)]
    assert not {s.content_id for s in pick(folder, 60, done=known)} & set(known)
    assert len(pick(folder, 500)) == 60


def test_pick_when_a_model_exists_then_every_second_is_where_it_doubts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = corpus(tmp_path / "corpus")
    texts = [text_of(i) for i in range(40)]
    model = quality.train(texts, [i % 2 == 0 for i in range(40)])
    chosen = pick(folder, 20, model=model)
    doubted = [sheet for sheet in chosen if sheet.score is not None]
    assert len(chosen) == len({s.content_id for s in chosen}) == 20
    assert 8 <= len(doubted) <= 16
    every = model.score(pa.array([text_of(i) for i in range(60)], pa.large_string()))
    worst = sorted(abs(every - 0.5))[: len(doubted)]
    assert [abs(s.score - 0.5) for s in doubted if s.score is not None] == pytest.approx(worst, abs=1e-6)
    assert desk_module.TARGET == 200


def test_examples_when_labels_were_given_then_they_train_a_model_whose_column_is_made(
    store: ControlStore, tmp_path: Path
) -> None:
    folder = corpus(tmp_path / "corpus")
    desk = Desk(store, pick(folder, 50), target=50)
    while (sheet := desk.current) is not None:
        desk.mark("good" if sheet.source == "books" else "bad")
    labels.add(store, "quality", "0" * 32, "1" * 32, "good")  # of a text that is gone
    found = labels.labelled(store, folder, "quality")
    assert (len(found.texts), found.missing) == (50, 1)
    model = quality.train(
        found.texts, found.labels, groups=found.groups, out=tmp_path / "model", measured_on=found.measured_on
    )
    assert model.report.auc > 0.95
    (tmp_path / "en.txt").write_text("cheap\n")
    lists = (str(tmp_path / "en.txt"),)
    job = score.Job(
        str(tmp_path), str(folder / "docs" / "part-00001.parquet"), (("quality", str(tmp_path / "model"), model.hash),),
        lists, flagged.load(lists).hash,
    )  # fmt: skip
    assert score.run(job) == job.name
    table = pq.read_table(job.path)
    docs = pq.read_table(job.docs)
    assert table.schema.names == ["quality", "flagged_words"]
    assert table["quality"].to_pylist() == pytest.approx(model.score(docs["text"].combine_chunks()).tolist())
    assert [(value > 0) for value in table["flagged_words"].to_pylist()] == [
        s == "spam" for s in docs["source"].to_pylist()
    ]


def test_examples_when_two_sources_are_named_then_each_is_a_class(tmp_path: Path) -> None:
    folder = corpus(tmp_path / "corpus")
    found = labels.of_sources(folder, "books", "spam", most=25)
    assert (found.labels.count(True), found.labels.count(False)) == (25, 25)
    assert found.texts == labels.of_sources(folder, "books", "spam", most=25).texts
    assert quality.train(found.texts, found.labels, groups=found.groups).report.auc > 0.95
    with pytest.raises(UserError, match="no document of a source 'news'.*books, spam"):
        labels.of_sources(folder, "books", "news")


def test_examples_when_a_file_has_them_then_labels_may_be_words_or_truth_values(tmp_path: Path) -> None:
    path = tmp_path / "labels.jsonl"
    path.write_text("\n".join(json.dumps({"text": f"t{v}", "label": v}) for v in ("Good", "bad", True, 0, "skip")))
    found = labels.read_examples(path)
    assert list(zip(found.texts, found.labels, strict=True)) == [
        ("tGood", True),
        ("tbad", False),
        ("tTrue", True),
        ("t0", False),
    ]
    path.write_text('{"text": "a", "label": "good"}\n{"text": "a", "label": "great"}\n')
    with pytest.raises(UserError, match=r"labels.jsonl:2: not a text with a label good or bad"):
        labels.read_examples(path)
