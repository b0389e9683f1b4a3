"""Progress goes to stderr, plainly where there is no terminal."""

import pytest

from gptwright.core.progress import clock, progress, say, set_quiet, short


def test_progress_when_not_a_terminal_then_one_closing_line_with_rate_goes_to_stderr(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with progress("tokens", total=10, unit="tokens") as bar:
        bar.note("4.2 bytes a token")
        bar.advance(10)
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("tokens: 100%")
    assert "tokens/s" in err
    assert "4.2 bytes a token" in err


def test_say_when_quiet_then_nothing_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    set_quiet(True)
    try:
        say("hello")
    finally:
        set_quiet(False)
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(("value", "text"), [(1234567, "1.23M"), (950, "950"), (0.5, "0.5"), (2.3e12, "2.3T")])
def test_short_when_given_numbers_then_they_are_readable(value: float, text: str) -> None:
    assert short(value) == text


def test_clock_when_over_an_hour_then_hours_are_shown() -> None:
    assert clock(3700) == "1:01:40"
    assert clock(75) == "1:15"
