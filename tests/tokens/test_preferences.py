"""Preference and task files: every shape is read to the same pairs, every broken row is named."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gptwright.core.errors import UserError
from gptwright.tokens.answers import Answers, JudgedPlan, PairPlan
from gptwright.tokens.plan import IGNORE
from gptwright.tokens.preferences import Judged, Pair, read_judged, read_pairs, read_tasks
from gptwright.tokens.tokenizer import Tokenizer

ASK = [{"role": "user", "content": "two and two?"}]
FOUR, FIVE = [{"role": "assistant", "content": "four"}], [{"role": "assistant", "content": "five"}]
SHAPES = {
    "texts": {"prompt": "two and two?", "chosen": "four", "rejected": "five"},
    "messages": {"prompt": ASK, "chosen": FOUR, "rejected": FIVE},
    "shared beginning": {"chosen": ASK + FOUR, "rejected": ASK + FIVE},
    "openai": {"input": {"messages": ASK}, "preferred_output": FOUR, "non_preferred_output": FIVE},
}


def lines(path: Path, *rows: object) -> Path:
    path.write_text("\n".join(row if isinstance(row, str) else json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize("shape", SHAPES)
def test_read_pairs_when_any_shape_then_gives_the_same_pair(shape: str, tmp_path: Path) -> None:
    found = read_pairs(lines(tmp_path / "p.jsonl", SHAPES[shape]))
    assert found.rows == [Pair("p.jsonl:1", ASK, FOUR, FIVE)]
    assert found.faults == []


def test_read_pairs_when_a_json_list_with_bom_then_is_read(tmp_path: Path) -> None:
    path = tmp_path / "p.json"
    path.write_text("\ufeff" + json.dumps([SHAPES["texts"]]), encoding="utf-8")
    assert len(read_pairs(path).rows) == 1


def test_read_pairs_when_rows_are_broken_then_each_is_named(tmp_path: Path) -> None:
    bad = [
        "{",
        [1],
        {"prompt": "a", "chosen": "b"},
        {"prompt": "", "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": "b", "rejected": "b"},
        {"prompt": ASK + FOUR, "chosen": "b", "rejected": "c"},
        {"prompt": "a", "chosen": ASK, "rejected": "c"},
        {"prompt": [{"content": "x"}], "chosen": "b", "rejected": "c"},
    ]
    found = read_pairs(lines(tmp_path / "p.jsonl", SHAPES["texts"], *bad))
    assert len(found.rows) == 1
    assert [fault.split(":")[1] for fault in found.faults] == [str(n) for n in range(2, 2 + len(bad))]
    with pytest.raises(UserError, match=r"no row can be used; the first fault: q.jsonl:1: not valid JSON"):
        read_pairs(lines(tmp_path / "q.jsonl", "{"))


@pytest.mark.parametrize(
    ("read", "shape"), [(read_pairs, "chosen"), (read_judged, "label"), (read_tasks, '"prompt", "answer"')]
)
def test_rows_when_none_can_be_used_then_the_shape_that_this_method_takes_is_told(
    read: Any, shape: str, tmp_path: Path
) -> None:
    with pytest.raises(UserError) as caught:
        read(lines(tmp_path / "q.jsonl", "{"))
    assert shape in str(caught.value.fix)


def test_read_judged_when_labels_or_pairs_then_gives_good_and_bad_answers(tmp_path: Path) -> None:
    rows = [
        SHAPES["texts"],
        {"prompt": ASK, "completion": FOUR, "label": True},
        {"prompt": "x", "completion": "y", "label": "no"},
    ]
    found = read_judged(lines(tmp_path / "p.jsonl", *rows))
    assert found.rows == [
        Judged("p.jsonl:1", ASK, FOUR, True),
        Judged("p.jsonl:1", ASK, FIVE, False),
        Judged("p.jsonl:2", ASK, FOUR, True),
    ]
    assert "p.jsonl:3: label is 'no'" in found.faults[0]


def test_read_tasks_when_an_answer_is_missing_or_a_number_then_is_none_or_text(tmp_path: Path) -> None:
    found = read_tasks(lines(tmp_path / "t.jsonl", {"prompt": "a", "answer": 4, "level": 2}, {"prompt": "b"}))
    assert [(task.answer, task.row.get("level")) for task in found.rows] == [("4", 2), (None, None)]


def pairs(count: int) -> list[Pair]:
    def say(text: str) -> list[dict]:
        return [{"role": "assistant", "content": text}]

    return [
        Pair(f"f:{n}", [{"role": "user", "content": f"count to {n}"}], say("1 2 3 " * n), say("no"))
        for n in range(1, count + 1)
    ]


def test_pair_plan_when_batched_then_pairs_stay_together_and_only_answers_are_targets(tokenizer: Tokenizer) -> None:
    plan = PairPlan(pairs(7), tokenizer, 256, 3)
    seen: list[int] = []
    for step in range(7):
        batch = plan.batch(step)
        answer = batch.extra["answer"]
        assert (answer[1::2] == answer[::2] + 1).all()
        assert (answer[::2] % 2 == 0).all()
        assert batch.tokens.shape[1] % 16 == 0
        seen += (answer[::2] // 2).tolist()
        for row, number in enumerate(answer.tolist()):
            learnt = batch.targets[row][batch.targets[row] != IGNORE]
            text = "1 2 3 " * (number // 2 + 1) if number % 2 == 0 else "no"
            assert tokenizer.decode(learnt[:-1].tolist()).strip() == text.strip()
            assert learnt[-1] == tokenizer.im_end_id
    assert sorted(seen) == sorted(list(range(7)) * 3)
    assert (plan.batch(4).tokens == PairPlan(pairs(7), tokenizer, 256, 3).batch(4).tokens).all()


def test_judged_plan_when_batched_then_a_mismatch_has_the_same_prompt_and_another_answer(tokenizer: Tokenizer) -> None:
    judged = [Judged(pair.uid, pair.prompt, pair.chosen, n % 2 == 0) for n, pair in enumerate(pairs(6))]
    plan = JudgedPlan(judged, tokenizer, 256, 4)
    partners = []
    for number in range(6):
        own, other = plan.answers(number, number + 1), plan.answers(6 + number, 7 + number)
        first = int((own.targets[0] != IGNORE).argmax())
        assert (own.tokens[0, :first] == other.tokens[0, :first]).all()
        texts = [tokenizer.decode(b.targets[0][b.targets[0] != IGNORE][:-1].tolist()) for b in (own, other)]
        assert texts[0] != texts[1]
        partners.append(texts[1])
    assert len(set(partners)) == 6
    batch = plan.batch(0)
    assert (batch.mismatched.extra["answer"] == batch.extra["answer"] + 6).all()
    assert (batch.extra["good"] == np.array([n % 2 == 0 for n in batch.extra["answer"]])).all()


def test_answers_when_longer_than_a_row_then_the_prompt_loses_its_beginning_and_the_answer_its_end(
    tokenizer: Tokenizer,
) -> None:
    prompt = [{"role": "user", "content": "word " * 200 + "END"}]
    short, long = [{"role": "assistant", "content": "yes"}], [{"role": "assistant", "content": "no " * 300}]
    made = Answers([prompt, prompt], [short, long], ["a", "b"], tokenizer, 64)
    assert [len(ids) for ids in made.ids] == [65, 65]
    assert made.learn[0].sum() == len(tokenizer.encode("yes")) + 1
    assert made.learn[1].sum() == 32
    assert made.report.cut_answers == 1
    assert made.report.cut_prompts == 2
    assert "END" in tokenizer.decode(made.ids[0].tolist())
