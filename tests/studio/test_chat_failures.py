"""The chat page when something fails that nobody foresaw, without a browser."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from unittest.mock import MagicMock

import pytest

from gptwright.studio.api import ApiFailure, Event
from gptwright.studio.chat import ChatPage

QUESTION = {"role": "user", "content": "my secret"}


class BrokenApi:
    """An API whose answer ends in an error."""

    def __init__(self, words: str, error: BaseException) -> None:
        self.words, self.error = words, error

    async def chat(self, *_: Any) -> AsyncGenerator[Event, None]:
        if self.words:
            yield Event(self.words)
        raise self.error


def stream(page: ChatPage, finish: MagicMock) -> None:
    """Run an answer on a page of stand-ins; ``finish`` is called to show its end."""
    page.roots, page.messages = {"m": "m"}, [QUESTION]
    page.model = MagicMock(value="m")
    for name in ("send_button", "stop_button", "thread", "status"):
        setattr(page, name, MagicMock(is_deleted=False))
    page._say = MagicMock()  # type: ignore[method-assign]
    page._finish = finish  # type: ignore[method-assign]
    page.task = MagicMock()
    # In a thread of its own: a browser test that ran before may have left a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        pool.submit(asyncio.run, page._stream(MagicMock(is_deleted=False), MagicMock(), MagicMock())).result()


@pytest.mark.parametrize("words", ["", "Once upon"])
@pytest.mark.parametrize("error", [KeyError("my secret"), ApiFailure("the server is gone")])
def test_answer_when_it_fails_in_any_way_then_the_failure_is_shown_and_the_page_is_free_again(
    words: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    page = ChatPage("http://127.0.0.1:1")
    page.api = BrokenApi(words, error)  # type: ignore[assignment]
    finish = MagicMock()
    with caplog.at_level(logging.DEBUG):
        stream(page, finish)
    text, *_, failure = finish.call_args.args
    assert text == words
    assert str(failure) == ("The answer broke off (KeyError)." if isinstance(error, KeyError) else str(error))
    assert "secret" not in caplog.text
    assert page.messages == ([QUESTION, {"role": "assistant", "content": words}] if words else [])
    assert page.task is None
    page.stop_button.set_visibility.assert_called_once_with(False)


def test_answer_when_showing_its_end_fails_then_the_page_is_free_again() -> None:
    page = ChatPage("http://127.0.0.1:1")
    page.api = BrokenApi("words", ApiFailure("gone"))  # type: ignore[assignment]
    with pytest.raises(RuntimeError, match="deleted"):
        stream(page, MagicMock(side_effect=RuntimeError("the tab was deleted")))
    assert page.task is None
    page.send_button.set_visibility.assert_called_once_with(True)
