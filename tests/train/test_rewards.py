"""Rewards: exact, regex, and a function in a limited process that may hang, crash, print, write or phone home."""

import sys
from pathlib import Path

import pytest

from gptwright.core.errors import UserError
from gptwright.tokens.preferences import Task
from gptwright.train.rewards import PythonReward, exact, regex

TASK = Task("t:1", [{"role": "user", "content": "2+2?"}], "4", {"prompt": "2+2?", "answer": "4", "level": 3})
unix = pytest.mark.skipif(sys.platform == "win32", reason="limits are of Unix")


def reward(tmp_path: Path, body: str, **settings: float) -> PythonReward:
    path = tmp_path / "reward.py"
    path.write_text(f"import os, sys, time, math\ndef score(prompt, answer, row):\n    {body}\n", encoding="utf-8")
    return PythonReward(path, **settings)


def test_exact_when_compared_then_case_and_spaces_do_not_count() -> None:
    task = Task("t", [], "New  York", {})
    assert exact([task] * 3, ["new york", " New York\n", "New York!"]) == [1.0, 1.0, 0.0]


def test_regex_when_it_has_a_group_then_the_group_must_be_the_answer() -> None:
    assert regex(r"answer: (\w+)")([TASK] * 3, ["the answer: 4.", "answer: 5", "4"]) == [1.0, 0.0, 0.0]
    assert regex(r"^\d+$")([TASK] * 2, ["12", "x"]) == [1.0, 0.0]
    assert regex()([Task("t", [], r"\bfour\b|4", {})] * 2, ["it is four", "fourteen"]) == [1.0, 0.0]
    with pytest.raises(UserError, match="no regular expression"):
        regex("(")
    with pytest.raises(UserError, match="t: the answer is no regular expression"):
        regex()([Task("t", [], "(", {})], ["x"])


def test_python_reward_when_it_scores_then_sees_prompt_answer_and_row(tmp_path: Path) -> None:
    body = "print('noise'); return len(answer) + row['level'] + len(prompt)"
    with reward(tmp_path, body) as judge:
        assert judge([TASK, TASK], ["ab", ""]) == [6.0, 4.0]


@unix
def test_python_reward_when_one_answer_hangs_then_it_alone_gets_0(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with reward(tmp_path, "time.sleep(30 if answer == 'hang' else 0); return 1", timeout_s=0.5) as judge:
        assert judge([TASK] * 3, ["a", "hang", "b"]) == [1.0, 0.0, 1.0]
    assert "t:1: no score within 0.5 s" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("body", "says"),
    [
        ("raise ValueError('odd')", "ValueError: odd"),
        ("return float('nan')", "the score is nan"),
        ("return 'much'", "ValueError"),
        ("sys.exit(3)", "SystemExit"),
    ],
)
def test_python_reward_when_a_score_fails_then_it_is_0_and_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], body: str, says: str
) -> None:
    with reward(tmp_path, f"if answer == 'bad': {body}\n    return 2") as judge:
        assert judge([TASK] * 3, ["a", "bad", "b"]) == [2.0, 0.0, 2.0]
    assert says in capsys.readouterr().err


@unix
@pytest.mark.parametrize(
    "body",
    [
        "return len(bytearray(1 << 31)) and 1",
        "f = open(row['file'], 'w'); f.write('x' * 10); f.flush(); return 1",
        "os._exit(1)",
        "return 1.0 if 'PATH' in os.environ or 'HOME' in os.environ else 0.0",
    ],
)
def test_python_reward_when_it_takes_what_it_may_not_then_gets_0_and_the_next_answer_is_judged(
    tmp_path: Path, body: str
) -> None:
    with reward(tmp_path, f"if answer == 'next': return 1\n    {body}", memory_bytes=1 << 29) as judge:
        task = Task("t:1", [], None, {"file": str(tmp_path / "written")})
        assert judge([task] * 2, ["x", "next"]) == [0.0, 1.0]


@unix
def test_python_reward_when_the_system_allows_then_has_no_network(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        body = f"import socket; socket.create_connection(('127.0.0.1', {port}), 1); return 1"
        with reward(tmp_path, body) as judge:
            found = judge([TASK], ["x"])
            assert found == [1.0 if judge.network else 0.0]


def test_python_reward_when_the_file_is_wrong_then_says_why(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="no such file"):
        PythonReward(tmp_path / "no.py")
    path = tmp_path / "r.py"
    for text, says in (("def other(): pass", "score"), ("1 +", "SyntaxError")):
        path.write_text(text)
        with pytest.raises(UserError, match=f"cannot be loaded: .*{says}"), PythonReward(path) as judge:
            judge([TASK], ["x"])
