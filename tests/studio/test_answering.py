"""Taking in an answer, and the words of one: whatever happens, what came is kept and nothing of it is logged."""

import asyncio
import logging
from collections.abc import AsyncGenerator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.studio import words
from gptwright.studio.answering import Outcome, receive
from gptwright.studio.api import ApiFailure, Event, Model, with_system
from gptwright.studio.settings import CONTROLS, Settings
from gptwright.studio.words import Word

RAW = st.sampled_from([b"a", b" b", b"\n", b"<b>", b"", "é".encode()[:1], "é".encode()[1:], "🙂".encode(), b"  "])
P = st.floats(0, 1)
WORDS = st.lists(st.builds(Word, RAW, P, st.lists(st.tuples(RAW, P), max_size=3).map(tuple)), max_size=6)


async def broken(text: str, error: BaseException) -> AsyncGenerator[Event, None]:
    if text:
        yield Event(text, "m-1")
    raise error


def take(events: AsyncGenerator[Event, None], **more: Any) -> Outcome:
    # In a thread of its own: a browser test that ran before may have left a loop running in this one.
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(asyncio.run, receive(events, "m", lambda text: None, **more)).result()


@pytest.mark.parametrize("text", ["", "Once upon"])
@pytest.mark.parametrize("error", [KeyError("my secret"), ApiFailure("the server is gone")])
def test_answer_when_it_fails_in_any_way_then_what_came_stays_and_nothing_is_logged(
    text: str, error: Exception, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        out = take(broken(text, error))
    assert out.text == text
    assert out.ended == "failed"
    assert str(out.failure) == ("The answer broke off (KeyError)." if isinstance(error, KeyError) else str(error))
    assert "secret" not in caplog.text


def test_answer_when_it_is_stopped_then_the_source_is_closed_and_the_text_stays() -> None:
    closed = []

    async def endless() -> AsyncGenerator[Event, None]:
        try:
            while True:
                yield Event("tick ", "m", words=[Word(b"tick ", 0.5)])
                await asyncio.sleep(0.001)
        finally:
            closed.append(True)

    async def main() -> Outcome:
        task = asyncio.ensure_future(
            receive(endless(), "m", lambda text: None, begun="Tock ", words=[Word(b"Tock ", 1)])
        )
        await asyncio.sleep(0.05)
        task.cancel()
        return await task

    with ThreadPoolExecutor(1) as pool:
        out = pool.submit(asyncio.run, main()).result()
    assert (out.ended, out.failure, closed) == ("stopped", None, [True])
    assert out.text.startswith("Tock tick tick")
    assert b"".join(w.raw for w in words.unpacked(out.info()["words"])).decode() == out.text


def test_info_when_a_guard_changed_the_text_then_no_probabilities_are_kept() -> None:
    said = [Word(b"call ", 0.5), Word(b"555", 0.5)]
    assert "words" in Outcome("call 555", "m", "stop", words=said).info()
    assert "words" not in Outcome("call [PHONE]", "m", "stop", words=said).info()


@settings(deadline=None)
@given(WORDS)
def test_words_when_packed_then_they_come_back_and_their_html_holds_nothing_of_theirs(said: list[Word]) -> None:
    again = words.unpacked(words.packed(said))
    assert [(w.raw, [raw for raw, _ in w.others]) for w in again] == [
        (w.raw, [raw for raw, _ in w.others]) for w in said
    ]
    for page in (words.to_html(said), *(words.choices_html(said, i, True) for i in range(len(said)))):
        assert "<b>" not in page
    for index, word in enumerate(said):
        for choice, (raw, _) in enumerate(word.choices):
            begun = words.begin_with(said, index, choice)
            whole = b"".join(w.raw for w in said[:index]) + raw
            try:
                assert begun is not None
                assert begun[0].encode() == whole
                assert b"".join(w.raw for w in begun[1]) == whole
            except AssertionError:
                with pytest.raises(UnicodeDecodeError):
                    whole.decode()
                assert begun is None
    assert words.begin_with(said, len(said), 0) is None
    assert words.begin_with(said, 0, 99) is None


def test_words_when_they_come_from_either_api_then_they_are_the_same() -> None:
    import math

    p = math.log(0.5)
    chat = [
        {"token": "�", "logprob": p, "bytes": [0xC3], "top_logprobs": [{"token": "", "logprob": p, "bytes": []}]},
        {"token": "x", "logprob": p, "bytes": [120], "top_logprobs": []},
    ]
    text = {
        "tokens": ["bytes:\\xc3", "x"],
        "token_logprobs": [p, p],
        "top_logprobs": [{"<|im_end|>": p, "bytes:\\xc3": p}, {"x": p}],
    }
    one, other = words.of_chat(chat), words.of_text(text)
    assert [w.raw for w in one] == [w.raw for w in other] == [b"\xc3", b"x"]
    assert one[0].choices == other[0].choices
    assert [words.shown(w.raw) for w in one] == ["‹c3›", "x"]


@given(
    st.dictionaries(
        st.sampled_from([*(c.field for c in CONTROLS), "seed", "system", "other"]),
        st.none() | st.text(max_size=5) | st.floats() | st.integers(),
    )
)
def test_settings_when_kept_values_are_anything_then_they_are_within_their_limits(data: dict[str, Any]) -> None:
    found = Settings.of(data)
    for control in CONTROLS:
        assert control.low <= getattr(found, control.field) <= control.high
    assert found.seed is None or -(2**63) <= found.seed < 2**63
    assert Settings.of(found.data) == found


def test_settings_when_off_then_they_are_not_sent_and_a_provider_gets_what_it_takes() -> None:
    found = Settings.of({"top_k": 40, "min_p": 0.1, "top_p": 0.9, "seed": 7, "system": "Be brief."})
    assert Settings().body(False) == {"temperature": 0.7, "max_tokens": 512}
    assert found.body(True) == {"temperature": 0.7, "max_tokens": 512, "top_p": 0.9, "seed": 7}
    assert found.unused(True) == ["Top-k", "Min-p"]
    assert with_system(found, [])[0] == {"role": "system", "content": "Be brief."}
    assert with_system(Settings(system=" "), []) == []


def test_model_when_grouped_then_it_is_own_open_or_hosted() -> None:
    models = [
        Model("a", "a"),
        Model("b", "b", "import"),
        Model("openai:x", "openai:x", "openai"),
        Model("r", "r", "gateway"),
    ]
    assert [model.group for model in models] == ["Own", "Open", "Hosted", "Hosted"]
