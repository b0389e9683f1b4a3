"""Before and after: the tuned model beside its base on the same held-out text, watched text and questions, on the screen and on the page."""

import json
import math
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.view import documents
from gptwright.evaluate.bpb import bits_per_byte
from gptwright.evaluate.statistics import Comparison
from gptwright.model.io import load_model
from gptwright.project.adapting import WATCHED_BYTES, Change, base_of, table, watched
from gptwright.project.adaptpage import page
from gptwright.project.models import locate
from gptwright.project.project import Project
from gptwright.tokens.tokenizer import Tokenizer

QUESTIONS = [{"question": f"What happened to {name} <{n}>?", "answer": "market"} for n, name in enumerate("abcdef")]


@pytest.mark.slow
def test_adaptation_when_evaluated_then_base_and_model_are_measured_on_the_same_and_said(
    copy: Path, tiny: Any, gptwright: Any
) -> None:
    (copy / "questions.jsonl").write_text("".join(json.dumps(row) + "\n" for row in QUESTIONS))
    (copy / "other").mkdir()
    for n in range(4):
        (copy / "other" / f"{n}.txt").write_text(tiny.note(900 + n))
    settings = ("evaluate.suites=['heldout', 'questions.jsonl', 'adaptation']", "evaluate.watch='other'")
    words = [word for one in settings for word in ("--set", one)]
    done = gptwright("run", "evaluate", "--project", str(copy), *words).ok()
    project = Project.open(copy)
    with project.ledger() as ledger:
        tuned = ledger.latest_of_stage("finetune")
    assert tuned is not None
    model = locate(project, tuned.name)
    base = base_of(project, model)
    assert base is not None
    assert base.id.startswith("tiny-pretrain-")
    report = json.loads((copy / "work" / "reports" / f"adaptation-{model.id}.json").read_text())
    assert (report["model"], report["base"]) == (model.id, base.id)
    rows = {row["what"]: row for row in report["changes"]}
    assert set(rows) == {"mine", "watched: other", "questions.jsonl"}
    for name, place in (("before", base.path), ("after", model.path)):
        held = list(documents(copy / "work" / "corpus", "heldout"))
        found = bits_per_byte(load_model(place), Tokenizer.load(place), held, 64)
        assert rows["mine"][name] == pytest.approx(found.value, rel=5e-3)  # large models are scored in bf16
        assert rows["mine"]["n"] == len(found.uids)
    assert rows["watched: other"]["n"] == 4
    assert [row["question"] for row in report["questions"]["questions.jsonl"]] == [row["question"] for row in QUESTIONS]
    html = (copy / "work" / "reports" / f"adaptation-{model.id}.html").read_text()
    assert "What happened to a &lt;0&gt;?" in html
    assert "<0>" not in html
    said = done.out + done.err
    assert f"before ({base.id}) and after" in said
    assert all(len(line) <= 100 for line in said.splitlines() if "watched: other" in line)
    assert "[" in html.partition("watched: other")[2].partition("]")[0]  # each interval stands on the page


def compared(delta: float, low: float, high: float, p: float) -> Comparison:
    return Comparison(
        metric="bits per byte", unit="bits", a=2 + delta, b=2.0, delta=delta, low=low, high=high, lower_one_sided=low,
        upper_one_sided=high, p_value=p, test="paired t", n=9, mde=0.1, wins_a=0, wins_b=0, seed=0,
    )  # fmt: skip


BETTER, WORSE, UNSURE = (
    compared(-0.2, -0.3, -0.1, 1e-5),
    compared(0.2, 0.1, 0.3, 0.01),
    compared(-0.1, -0.3, 0.1, 0.4),
)
ROW = Change("notes", "heldout", 9, 2.0, 1.9, 2.1, 1.8, 1.7, 1.9, BETTER)


@pytest.mark.parametrize(
    ("kind", "test", "verdict"),
    [
        ("heldout", BETTER, "better"), ("heldout", WORSE, "worse"), ("watched", WORSE, "worse"), ("heldout", UNSURE, "no difference shown"),
        ("questions", WORSE, "better"), ("questions", BETTER, "worse"), ("questions", UNSURE, "no difference shown"),
        ("heldout", None, "too little to test"),
    ],
)  # fmt: skip
def test_verdict_when_less_bits_or_more_right_answers_then_is_better(
    kind: str, test: Comparison | None, verdict: str
) -> None:
    assert replace(ROW, kind=kind, test=test).verdict() == verdict


def test_table_when_names_are_long_and_intervals_missing_then_fits_the_screen() -> None:
    asked = replace(
        ROW, what="questions/" + "x" * 60, kind="questions", before=0.1, before_low=math.nan, before_high=math.nan, after=0.3, test=None
    )  # fmt: skip
    long = replace(ROW, what="watched: package:" + "y" * 60, n=123_456, test=UNSURE)
    lines = table([ROW, asked, long], "b" * 80)
    assert all(len(line) <= 100 for line in lines), [len(line) for line in lines]
    assert "2.000  1.800" in lines[2]
    assert "-0.200 [-0.300 -0.100]  better, p < 0.001" in lines[2]
    assert "10%" in lines[3]
    assert "+20%  too little to test" in lines[3]
    assert "-0.200 [-0.300 +0.100]  no difference shown, p 0.4" in lines[4]
    assert "watched: yyy" in lines[4]


def test_table_when_it_may_be_wide_then_has_names_in_full_and_each_interval() -> None:
    (_, _, line) = table([replace(ROW, what="z" * 80)], "base", columns=None)
    assert "z" * 80 in line
    assert "2.000 [1.900 2.100]  1.800 [1.700 1.900]  -0.200 [-0.300 -0.100]  better" in line


def test_page_when_replies_hold_markup_then_it_is_text() -> None:
    row = {
        "question": "<b>?",
        "answers": ["<i>"],
        "before": "<script>",
        "before_right": False,
        "after": "&",
        "after_right": True,
    }
    made = page({"model": "m<", "base": "b", "questions": {"q": [row]}}, ["a < b"])
    assert "<script>" not in made
    assert made.count("&lt;script&gt;") == 1
    assert "class='wrong'>&lt;script&gt;" in made
    assert "class='right'>&amp;" in made


def test_watched_when_there_is_much_then_the_same_spread_part_of_it_and_when_none_then_says_so(
    finished: Path, tmp_path: Path, tiny: Any
) -> None:
    project = Project.open(finished)
    for n in range(200):
        (tmp_path / f"{n}.txt").write_text(tiny.note(n))
    first, again = ([text.uid for text in watched(project, str(tmp_path))] for _ in range(2))
    assert first == again == sorted(first)
    size = sum(len(text.text.encode()) for text in watched(project, str(tmp_path)))
    assert WATCHED_BYTES <= size < WATCHED_BYTES + 2_000
    (tmp_path / "empty").mkdir()
    (tmp_path / "empty" / "a.txt").write_text(" \n")
    with pytest.raises(UserError, match="no text in it"):
        list(watched(project, str(tmp_path / "empty")))


def test_base_when_it_changed_since_or_there_is_none_then_is_refused_or_none(copy: Path) -> None:
    project = Project.open(copy)
    with project.ledger() as ledger:
        tuned, first = ledger.latest_of_stage("finetune"), ledger.latest_of_stage("pretrain")
    assert tuned is not None
    assert first is not None
    assert base_of(project, locate(project, first.name)) is None
    model = locate(project, tuned.name)
    manifest = model.path / "manifest.json"
    told = json.loads(manifest.read_text())
    manifest.write_text(json.dumps(told | {"base": told["base"] | {"hash": "b2:other"}}))
    with pytest.raises(UserError, match="is not the model any more"):
        base_of(project, model)
