"""Own questions: reading, marking, faults by row."""

import json

import pytest

from gptwright.core.errors import UserError
from gptwright.core.ledger import Ledger
from gptwright.evaluate.questions import Question, compare_questions, mark, own_questions, read_questions
from gptwright.evaluate.record import record_questions

ROWS = [
    {"question": "Capital of France?", "answer": "Paris"},
    {"question": "2+2?", "answer": 4, "kind": "exact"},
    {"question": "A year?", "answer": r"\b(19|20)\d\d\b", "kind": "regex"},
    {"question": "Which barks?", "choices": ["cat", "dog"], "answer": "B"},
]


def write(tmp_path, rows, name="q.jsonl"):
    path = tmp_path / name
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return path


@pytest.mark.parametrize(
    ("kind", "answer", "reply", "right"),
    [
        ("contains", "Paris", "It is paris, of course.", True),
        ("contains", "Paris", "Comparison", False),
        ("contains", "50%", "About 50% of it.", True),
        ("contains", "c", "The letter c.", True),
        ("contains", "New York", "new\n york!", True),
        ("exact", "4", " 4. ", True),
        ("exact", "4", "It is 4", False),
        ("exact", "Straße", "STRASSE", True),
        ("regex", r"^\d+$", "42", True),
        ("regex", r"(?i)yes", "No", False),
    ],
)
def test_mark_for_each_kind_then_judges_as_a_person_would(kind, answer, reply, right):
    assert mark(Question("1", "?", (answer,), kind), reply) is right


@pytest.mark.parametrize(
    ("reply", "right"),
    [
        ("B", True),
        ("b", True),
        ("(B) dog", True),
        ("B. dog", True),
        ("The answer is B", True),
        ("Answer: B", True),
        ("A", False),
        ("A dog barks.", True),
        ("It is the dog.", True),
        ("cat or dog", False),
        ("", False),
        ("I think the dog", True),
        ("a", False),
    ],
)
def test_mark_choice_for_many_phrasings_then_finds_the_choice(reply, right):
    assert mark(Question("1", "Which barks?", ("dog",), "choice", ("cat", "dog")), reply) is right


def test_mark_choice_when_one_choice_contains_another_then_the_longer_wins():
    question = Question("1", "?", ("ice cream",), "choice", ("ice", "ice cream"))
    assert mark(question, "I would say ice cream")
    assert not mark(question, "I would say ice")


def test_own_questions_with_known_replies_then_reports_share_and_kinds(tmp_path):
    asked = []

    def generate(conversations):
        asked.extend(conversations)
        return ["Paris", "5", "in 1999", "dog"]

    report = own_questions(write(tmp_path, ROWS), generate)
    assert (report.accuracy.successes, report.accuracy.n) == (3, 4)
    assert report.by_kind["exact"].value == 0
    assert report.chance == 0.5
    assert asked[3][0]["content"] == "Which barks?\nA. cat\nB. dog\nAnswer with the letter."
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        record_questions(ledger, "m", "b2:1", report)
        row = ledger.evaluations("m", "questions")[0]
        assert (row.value, row.n, row.detail["items"][1]["reply"]) == (0.75, 4, "5")


def test_read_questions_with_faults_then_lists_every_row(tmp_path):
    path = tmp_path / "q.jsonl"
    path.write_text(
        '{"question": "ok", "answer": "x"}\n{"question": "no answer"}\nnot json\n{"question": "q", "answer": "(", "kind": "regex"}\n'
        '{"question": "q", "answer": "z", "choices": ["a", "b"]}\n{"question": "q", "anwser": "z"}\n["list"]\n'
        '{"question":"q","answer":"a","kind":"best"}\n',
        encoding="utf-8",
    )
    with pytest.raises(UserError) as caught:
        read_questions(path)
    text = str(caught.value)
    assert "7 faulty rows" in text
    for part in (
        "line 2: no answer",
        "line 3: not JSON",
        "line 4: not a regular",
        "line 5: the answer 'z'",
        "line 6: unknown field anwser",
        "line 7: not an object",
        "line 8: kind 'best'",
    ):
        assert part in text


def test_read_questions_from_csv_and_toml_then_equal_jsonl(tmp_path):
    csv_path = tmp_path / "q.csv"
    csv_path.write_text(
        'question,answers,kind,choices\n"Capital, of France?",Paris|Lutetia,,\nWhich barks?,dog,choice,cat|dog\n',
        encoding="utf-8",
    )
    toml_path = tmp_path / "q.toml"
    toml_path.write_text(
        '[[questions]]\nquestion = "Capital, of France?"\nanswers = ["Paris", "Lutetia"]\n'
        '[[questions]]\nquestion = "Which barks?"\nanswer = "dog"\nchoices = ["cat", "dog"]\n',
        encoding="utf-8",
    )
    assert read_questions(csv_path) == read_questions(toml_path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("q.txt", b"", "not read"),
        ("q.jsonl", b"", "no questions"),
        ("q.jsonl", b"\xff\xfe\x00", "not UTF-8"),
        ("q.toml", b"a = ", "not valid TOML"),
        ("q.toml", b"a = 1", "no \\[\\[questions"),
        ("q.csv", b'question,answer\n"a,b\n', "not valid CSV"),
        ("q.csv", b"question,answer\na,b,c\n", "more cells"),
    ],
)
def test_read_questions_from_a_bad_file_then_user_error(tmp_path, name, content, message):
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=message):
        read_questions(tmp_path / name)


def test_compare_questions_of_two_models_then_pairs_by_question(tmp_path):
    path = write(tmp_path, [{"question": f"{i}?", "answer": f"yes {i}"} for i in range(40)])
    a = own_questions(path, lambda q: [f"yes {i}" for i in range(40)])
    b = own_questions(path, lambda q: [f"yes {i}" if i < 28 else "no" for i in range(40)])
    result = compare_questions(a, b)
    assert result.delta == pytest.approx(0.3)
    assert result.p_value == pytest.approx(2 / 2**12)
    other = own_questions(write(tmp_path, ROWS, "r.jsonl"), lambda q: [""] * 4)
    with pytest.raises(UserError, match="different files"):
        compare_questions(a, other)
