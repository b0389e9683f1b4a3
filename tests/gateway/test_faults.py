"""What a provider may do wrong, and when it is asked again."""

import email.utils
import time
from typing import Any

import httpx
import pytest

from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.faults import UpstreamError, retry_after
from gptwright.gateway.provider import ChatSettings, Provider
from gptwright.gateway.retry import wait_before_retry

HELLO = [{"role": "user", "content": "hello"}]


def provider(fake: Any, **extra: Any) -> Provider:
    return Provider("up", ProviderConfig(base_url=fake.url, **{"max_retries": 0, **extra}))


@pytest.mark.parametrize(
    ("item", "code"),
    [
        ("truncated", "upstream_broke_off"),
        ("garbage", "upstream_error"),
        ("wrong", "upstream_broke_off"),
        ("number", "upstream_error"),
        ("html", "upstream_broke_off"),
        ("error", "upstream_error"),
    ],
)
def test_chat_when_what_comes_is_no_whole_answer_then_it_is_an_upstream_error(fake: Any, item: str, code: str) -> None:
    fake.plan = [item]
    with pytest.raises(UpstreamError) as caught:
        list(provider(fake).chat("m", HELLO))
    assert (caught.value.status, caught.value.code) == (502, code)


def test_chat_when_the_provider_hangs_then_the_wait_ends(fake: Any) -> None:
    fake.plan = ["hang"]
    began = time.monotonic()
    with pytest.raises(UpstreamError) as caught:
        list(provider(fake, timeout=0.3, max_retries=3).chat("m", HELLO))
    assert (caught.value.status, caught.value.code) == (504, "upstream_timeout")
    assert time.monotonic() - began < 15
    assert len(fake.bodies) == 1  # what took too long once is not begun again behind the client's back


@pytest.mark.parametrize("status", ["429@0.4", "503@0.4"])
def test_chat_when_told_to_wait_then_it_waits_that_long_and_asks_again(fake: Any, status: str) -> None:
    fake.plan = [status, "ok"]
    began = time.monotonic()
    assert provider(fake, max_retries=1).complete("m", HELLO) == "Hello."
    assert len(fake.bodies) == 2
    assert time.monotonic() - began >= 0.4


def test_chat_when_told_to_wait_too_long_then_it_fails_at_once_and_says_how_long(fake: Any) -> None:
    fake.plan = ["429@90"]
    with pytest.raises(UpstreamError) as caught:
        provider(fake, max_retries=5, retry_wait=10).complete("m", HELLO)
    assert (caught.value.status, caught.value.headers) == (429, {"Retry-After": "90"})
    assert len(fake.bodies) == 1


@pytest.mark.parametrize(("status", "asked"), [("500", 3), ("409", 3), ("400", 1), ("404", 1), ("401", 1), ("501", 1)])
def test_chat_when_it_is_refused_then_only_what_may_pass_is_asked_again(fake: Any, status: str, asked: int) -> None:
    fake.plan = [status]
    with pytest.raises(UpstreamError):
        provider(fake, max_retries=2, retry_wait=0.01).complete("m", HELLO)
    assert len(fake.bodies) == asked


def test_wait_when_nothing_is_said_then_it_doubles_up_to_the_longest() -> None:
    error = UpstreamError("x", provider="up", again=True)
    waits = [wait_before_retry(error, tried, 10, 4.0) or 0.0 for tried in range(6)]
    for tried, wait in enumerate(waits):
        assert min(4.0, 0.5 * 2**tried * 0.75) <= wait <= min(4.0, 0.5 * 2**tried * 1.25)
    assert wait_before_retry(error, 10, 10, 4.0) is None
    assert wait_before_retry(UpstreamError("x", provider="up"), 0, 10, 4.0) is None


def test_retry_after_when_it_is_a_date_then_seconds_until_then() -> None:
    later = email.utils.formatdate(time.time() + 60, usegmt=True)
    assert 55 < (retry_after({"retry-after": later}) or 0) <= 60
    assert retry_after({"retry-after": "soon"}) is None
    assert retry_after({"retry-after": "nan"}) is None
    assert retry_after({}) is None


def test_error_when_the_provider_repeats_the_key_then_ours_does_not(fake: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("UP_KEY", "sk-very-secret-1")
    fake.plan = ["key"]
    with pytest.raises(UpstreamError) as caught:
        provider(fake, api_key_env="UP_KEY").complete("m", HELLO)
    assert fake.headers[-1]["authorization"] == "Bearer sk-very-secret-1"
    assert "secret" not in str(caught.value)
    assert "[key]" in str(caught.value)


@pytest.mark.parametrize("stream", [False, True])
def test_server_when_the_provider_sends_it_elsewhere_then_it_does_not_go(start: Any, fake: Any, stream: bool) -> None:
    elsewhere, _ = start()
    fake.plan = [elsewhere + "/v1/chat/completions"]
    url, _ = start(providers={"up": provider(fake)})
    body = {"model": "up:production", "messages": HELLO, "stream": stream}
    response = httpx.post(url + "/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (502, "upstream_error")


@pytest.mark.parametrize("key", ["with\nnewline", "schlüssel"])
def test_key_when_no_header_can_carry_it_then_the_error_names_the_variable_alone(
    fake: Any, monkeypatch: pytest.MonkeyPatch, key: str
) -> None:
    monkeypatch.setenv("UP_KEY", key)
    with pytest.raises(UpstreamError, match="UP_KEY") as caught:
        provider(fake, api_key_env="UP_KEY").complete("m", HELLO)
    assert key not in str(caught.value)
    assert not fake.bodies


def test_chat_when_it_calls_a_tool_then_the_pieces_come_through(fake: Any) -> None:
    fake.plan = ["tool"]
    tool = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}
    deltas = list(provider(fake).chat("m", HELLO, ChatSettings(tools=(tool,), tool_choice="required")))
    calls = [call for delta in deltas for call in delta.calls]
    assert (calls[0].id, calls[0].name) == ("call_1", "weather")
    assert "".join(call.arguments for call in calls) == '{"city": "Rome"}'
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["tool_calls"]
    assert (fake.bodies[0]["tools"], fake.bodies[0]["tool_choice"]) == ([tool], "required")


def test_chat_when_the_provider_does_not_count_then_tokens_are_estimated(fake: Any) -> None:
    fake.plan = ["uncounted"]
    last = list(provider(fake).chat("m", HELLO))[-1]
    assert last.completion_tokens == 2  # six bytes
    assert last.prompt_tokens is not None
    assert last.prompt_tokens > 0


def test_chat_when_only_some_models_may_be_asked_then_others_are_not(fake: Any) -> None:
    some = provider(fake, models=["a"])
    assert some.models() == ["a"]
    with pytest.raises(UpstreamError) as caught:
        some.complete("b", HELLO)
    assert (caught.value.status, caught.value.param, fake.bodies) == (404, "model", [])
