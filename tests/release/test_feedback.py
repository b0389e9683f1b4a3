"""Judgements that people agreed to become files that fine-tuning reads; nothing else leaves the store."""

import json
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.control import ControlStore, Feedback
from gptwright.release.feedback import Shape, rows
from gptwright.tokens.preferences import read_judged, read_pairs

ASKED = {"role": "user", "content": "Who are you?"}


def said(text: str) -> dict[str, str]:
    return {"role": "assistant", "content": text}


def judge(control: ControlStore, kind: str, messages: list[Any], value: dict[str, Any], consent: bool = True) -> None:
    with control.session() as session:
        session.add(Feedback(model="m", messages=messages, kind=kind, value=value, consent=consent))


def write(control: ControlStore, shape: Shape, file: Path) -> Path:
    file.write_text("".join(json.dumps(row) + "\n" for row in rows(control, shape)), encoding="utf-8")
    return file


def test_rows_when_people_judged_in_every_way_then_fine_tuning_reads_them(
    control: ControlStore, tmp_path: Path
) -> None:
    judge(control, "edit", [ASKED, said("I am no one.")], {"text": "I am your own model."})
    judge(control, "vote", [ASKED], {"vote": "a", "chosen": "A helper.", "rejected": "A boat."})
    judge(control, "thumb", [ASKED, said("Yes.")], {"up": False})
    judge(control, "thumb", [ASKED, said("A small model.")], {"up": True})
    pairs = read_pairs(write(control, "pairs", tmp_path / "pairs.jsonl"))
    assert pairs.faults == []
    assert [(pair.chosen[0]["content"], pair.rejected[0]["content"]) for pair in pairs.rows] == [
        ("I am your own model.", "I am no one."),
        ("A helper.", "A boat."),
        ("A small model.", "Yes."),
    ]
    assert all(pair.prompt == [ASKED] for pair in pairs.rows)
    judged = read_judged(write(control, "judged", tmp_path / "judged.jsonl"))
    assert judged.faults == []
    assert [(one.answer[0]["content"], one.good) for one in judged.rows] == [
        ("I am your own model.", True),
        ("I am no one.", False),
        ("A helper.", True),
        ("A boat.", False),
        ("Yes.", False),
        ("A small model.", True),
    ]


@pytest.mark.parametrize(
    ("kind", "messages", "value", "consent"),
    [
        ("thumb", [ASKED, said("x")], {"up": True}, False),
        ("edit", [ASKED, said("x")], {"text": "y"}, False),
        ("vote", [ASKED], {"chosen": "x", "rejected": "y"}, False),
        ("thumb", [], {"up": True}, True),
        ("thumb", [ASKED, said("x")], {"stars": 3}, True),
        ("edit", [ASKED, said("x")], {"text": "x"}, True),
        ("edit", [ASKED, said("x")], {"text": "  "}, True),
        ("edit", [said("x")], {"text": "y"}, True),
        ("vote", [ASKED], {"vote": "tie"}, True),
        ("vote", [said("x")], {"chosen": "x", "rejected": "y"}, True),
        ("comment", [ASKED, said("x")], {"text": "y"}, True),
    ],
)
def test_rows_when_nobody_agreed_or_a_part_is_missing_then_it_is_left_out(
    control: ControlStore, kind: str, messages: list[Any], value: dict[str, Any], consent: bool
) -> None:
    judge(control, kind, messages, value, consent)
    assert list(rows(control, "pairs")) == list(rows(control, "judged")) == []


def test_export_when_called_then_the_file_says_how_to_train_on_it(gptwright: Any, copy: Path, tmp_path: Path) -> None:
    store = ControlStore.open(copy / "state" / "control.sqlite")
    judge(store, "edit", [ASKED, said("No.")], {"text": "Yes, ä."})
    store.close()
    file = tmp_path / "pairs.jsonl"
    shown = gptwright("feedback", "export", str(file), cwd=copy).ok()
    assert "finetune --method dpo" in shown.out
    assert len(read_pairs(file).rows) == 1
    assert gptwright("feedback", "export", str(file), "--as", "judged", "--json", cwd=copy).ok().json["rows"] == 2
