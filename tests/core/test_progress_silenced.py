"""What runs inside a silenced block says nothing; a bar begun before it goes on."""

import pytest

from gptwright.core import progress as shown


def test_silenced_when_a_bar_was_begun_before_then_only_that_bar_speaks(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shown, "_PLAIN_EVERY_S", -1.0)
    with shown.progress("outer", 2, "runs") as bar, shown.silenced():
        shown.say("a message")
        with shown.progress("inner", 1) as inner:
            inner.advance()
        bar.advance()
    shown.say("again")
    printed = capsys.readouterr().err
    assert "message" not in printed
    assert "inner" not in printed
    assert "outer:  50%" in printed
    assert printed.endswith("again\n")


def test_silenced_when_the_block_fails_then_speaks_again(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(RuntimeError), shown.silenced():
        raise RuntimeError
    shown.say("here")
    assert capsys.readouterr().err == "here\n"
