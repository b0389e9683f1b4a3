"""Evaluation sets in the shapes people keep them in."""

import json
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.decontaminate.items import find_sets, read_set, read_sets


@pytest.mark.parametrize(
    ("record", "texts"),
    [
        ({"question": "Who?", "answer": "She"}, ["Who?", "Who? She"]),
        ({"question": "Who?", "answers": ["She", "He"], "kind": "exact"}, ["Who?", "Who? She", "Who? He"]),
        ({"question": "Who?", "choices": ["She", "He"], "answer": 1}, ["Who?", "Who? He"]),
        ({"question": "Who?", "choices": ["She", "He"], "answer": "A"}, ["Who?", "Who? She"]),
        ({"question": "Who?", "choices": {"text": ["She", "He"], "label": ["1", "2"]}, "answerKey": "2"}, ["Who?", "Who? He"]),
        ({"context": "A page.", "question": "Who?", "answers": {"text": ["She"], "answer_start": [0]}}, ["Who?", "Who? She"]),
        ({"question": {"stem": "Who?", "choices": [{"text": "She", "label": "A"}]}, "answerKey": "A"}, ["Who?", "Who? She"]),
        ({"ctx": "A man sits", "endings": ["down", "up"], "label": "0"}, ["A man sits", "A man sits down"]),
        ({"instruction": "Add.", "input": "1 and 2", "output": "three"}, ["Add. 1 and 2", "Add. 1 and 2 three"]),
        ({"messages": [{"role": "user", "content": "Hi"}, {"role": "assistant", "content": "Yo"}]}, ["Hi", "Yo", "Hi Yo"]),
        ({"text": "Only a text."}, ["Only a text."]),
    ],
)  # fmt: skip
def test_item_when_a_record_has_a_known_shape_then_question_and_answers_are_looked_for(
    record: dict[str, Any], texts: list[str], tmp_path: Path
) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(record) + "\n")
    found = read_set(path)
    assert [(item.id, list(item.texts)) for item in found.items] == [("set#row=1", texts)]


def test_set_when_written_in_any_format_then_the_items_are_the_same(tmp_path: Path) -> None:
    rows = [{"id": "a", "question": "Who came?", "answer": "She"}, {"id": "b", "question": "Who left?", "answer": "He"}]
    (tmp_path / "a.jsonl").write_text("\n".join(map(json.dumps, rows)))
    (tmp_path / "b.json").write_text(json.dumps({"data": rows}))
    (tmp_path / "c.csv").write_text("id,question,answer\na,Who came?,She\nb,Who left?,He\n")
    (tmp_path / "d.tsv").write_text("id\tquestion\tanswer\na\tWho came?\tShe\nb\tWho left?\tHe\n")
    pq.write_table(pa.Table.from_pylist(rows), tmp_path / "e.parquet")
    (tmp_path / "f.toml").write_text(
        "\n".join(
            f'[[questions]]\nid = "{r["id"]}"\nquestion = "{r["question"]}"\nanswer = "{r["answer"]}"' for r in rows
        )
    )
    sets = read_sets(find_sets(["*"], tmp_path))
    assert [s.name for s in sets] == list("abcdef")
    assert [[(i.id.partition("#")[2], i.texts) for i in s.items] for s in sets] == [
        [("a", ("Who came?", "Who came? She")), ("b", ("Who left?", "Who left? He"))]
    ] * 6


def test_set_when_it_is_text_then_each_paragraph_is_an_item(tmp_path: Path) -> None:
    (tmp_path / "s.txt").write_text("One item\nin two lines\n  \nAnother item\n")
    assert [(i.id, i.texts) for i in read_set(tmp_path / "s.txt").items] == [
        ("s#row=1", ("One item\nin two lines",)), ("s#row=2", ("Another item",)),
    ]  # fmt: skip


def test_set_when_fields_are_named_then_they_alone_count(tmp_path: Path) -> None:
    (tmp_path / "s.jsonl").write_text('{"premise": "It rains.", "hypothesis": "It is wet.", "label": 1}\n{"x": 1}\n')
    found = read_set(tmp_path / "s.jsonl", fields=["premise", "hypothesis"])
    assert [i.texts for i in found.items] == [("It rains. It is wet.",)]
    assert found.faults == ("row=2: none of the keys premise, hypothesis in it",)


@pytest.mark.parametrize(
    ("name", "content", "fault"),
    [
        ("s.jsonl", "{broken", "cannot be read"),
        ("s.jsonl", '{"x": 1}', "no evaluation item in it"),
        ("s.bin", "x", "is not read"),
        ("s.csv", "", "no evaluation item"),
    ],
)
def test_set_when_it_cannot_be_read_then_the_error_names_the_file(
    name: str, content: str, fault: str, tmp_path: Path
) -> None:
    (tmp_path / name).write_text(content)
    with pytest.raises(UserError, match=fault) as caught:
        read_set(tmp_path / name)
    assert name in str(caught.value)


def test_sets_when_a_pattern_names_nothing_then_it_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no evaluation set"):
        find_sets(["evals/*.jsonl"], tmp_path)
