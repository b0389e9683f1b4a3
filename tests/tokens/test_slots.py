"""What a run saw when, asked of its folder after the plan is gone."""

import json
from pathlib import Path
from typing import Any

from gptwright.tokens.answers import JudgedPlan, PairPlan
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.preferences import Task, read_judged, read_pairs
from gptwright.tokens.sft import SftPlan
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.slots import recall_slots, record_slots
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.grpo import TaskPlan

from .conftest import Doc


def seen(plan: Any, n_steps: int) -> dict[str, list[int]]:
    found: dict[str, list[int]] = {}
    for step in range(n_steps):
        for uid in plan.batch(step).docs:
            found.setdefault(uid, []).append(step)
    return found


def talk(*turns: str) -> list[dict[str, str]]:
    return [{"role": "user" if i % 2 == 0 else "assistant", "content": turn} for i, turn in enumerate(turns)]


def test_slots_of_fine_tuning_say_the_steps_of_every_conversation(tokenizer: Tokenizer, tmp_path: Path) -> None:
    docs = [Doc(f"{i:032x}", "", talk(f"say {i}", f"number {i} " * (i % 9 + 1))) for i in range(60)]
    plan = SftPlan.of(docs, tokenizer, 64, 2, seed=3, overlong="split")
    record_slots(plan, tmp_path / "run", tmp_path)
    slots = recall_slots(tmp_path / "run", tmp_path)
    assert slots is not None
    expected = seen(plan, 70)
    assert len(expected) == 60
    assert {uid: slots.steps_of(uid, 70) for uid in expected} == expected
    assert slots.steps_of("f" * 32, 70) == []


def test_slots_of_pretraining_are_found_until_the_data_set_is_written_anew(
    tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path
) -> None:
    write_tokens(docs, tokenizer, tmp_path / "work" / "set")
    plan = BatchPlan(TokenDataset.open(tmp_path / "work" / "set"), 64, 2, seed=9)
    record_slots(plan, tmp_path / "run", tmp_path)
    slots = recall_slots(tmp_path / "run", tmp_path)
    assert slots is not None
    expected = seen(plan, 40)
    assert {uid: slots.steps_of(uid, 40) for uid in expected} == expected
    write_tokens(docs[1:], tokenizer, tmp_path / "work" / "set")
    assert recall_slots(tmp_path / "run", tmp_path) is None


def test_slots_of_a_run_that_left_none_are_unknown(tmp_path: Path) -> None:
    record_slots(object(), tmp_path / "run", tmp_path)
    assert recall_slots(tmp_path / "run", tmp_path) is None


QUESTIONS = [f"What is number {n}?" for n in range(11)]


def rows_of_preferences(path: Path) -> Path:
    rows = [{"prompt": q, "chosen": f"It is {q[-2]}.", "rejected": "no"} for q in QUESTIONS]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_slots_of_pairs_and_judged_answers_say_the_steps_of_every_row(tokenizer: Tokenizer, tmp_path: Path) -> None:
    path = rows_of_preferences(tmp_path / "pairs.jsonl")
    pairs = PairPlan(read_pairs(path).rows, tokenizer, 64, 3, seed=2)
    record_slots(pairs, tmp_path / "dpo", tmp_path, {"pairs.jsonl:4": ["a" * 32], "pairs.jsonl:9": ["a" * 32]})
    slots = recall_slots(tmp_path / "dpo", tmp_path)
    assert slots is not None
    expected = seen(pairs, 20)
    assert len(expected) == len(QUESTIONS)
    assert {uid: slots.steps_of(uid, 20) for uid in expected} == expected
    assert slots.steps_of("a" * 32, 20) == sorted({*expected["pairs.jsonl:4"], *expected["pairs.jsonl:9"]})

    judged = JudgedPlan(read_judged(path).rows, tokenizer, 64, 3, seed=2)
    record_slots(judged, tmp_path / "kto", tmp_path)
    slots = recall_slots(tmp_path / "kto", tmp_path)
    assert slots is not None
    for uid in expected:  # a mismatched answer is seen too: the loss depends on it
        own = [
            step
            for step in range(20)
            for numbers in [judged.batch(step).extra["answer"].tolist()]
            if uid in {judged.rendered.uids[n] for i in numbers for n in (i, int(judged.partner[i]))}
        ]
        assert slots.steps_of(uid, 20) == own


def test_slots_of_tasks_say_the_steps_of_every_task(tmp_path: Path) -> None:
    tasks = [Task(f"tasks.jsonl:{n}", [], "a", {}) for n in range(7)]
    plan = TaskPlan(tasks, [[1, 2]] * 7, 2, 3, seed=5)
    record_slots(plan, tmp_path / "grpo", tmp_path)
    slots = recall_slots(tmp_path / "grpo", tmp_path)
    assert slots is not None
    expected = seen(plan, 15)
    assert {uid: slots.steps_of(uid, 15) for uid in expected} == expected
