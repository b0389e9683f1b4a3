"""Personal data is masked, or the request refused, before anything leaves."""

import json
from typing import Any

import httpx
import pytest

from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.faults import UpstreamError
from gptwright.gateway.outgoing import may_leave
from gptwright.gateway.provider import Provider

MAIL, IBAN = "bob.smith@example.org", "DE89 3704 0044 0532 0130 00"
CALL = {"id": "c", "type": "function", "function": {"name": "send", "arguments": json.dumps({"to": MAIL})}}
CHAT: list[dict[str, Any]] = [
    {"role": "user", "content": f"Write to {MAIL} about {IBAN}."},
    {"role": "assistant", "content": "", "tool_calls": [CALL]},
]


@pytest.mark.parametrize(
    ("url", "action"),
    [
        ("http://127.0.0.1:1/v1", "send"),
        ("http://localhost/v1", "send"),
        ("http://[::1]:1/v1", "send"),
        ("http://10.0.0.5:8000/v1", "mask"),
        ("http://vllm:8000/v1", "mask"),
        ("https://localhost.example.com/v1", "mask"),
    ],
)
def test_config_when_nothing_is_said_then_only_this_machine_sees_personal_data(url: str, action: str) -> None:
    assert ProviderConfig(base_url=url).on_personal_data == action
    assert ProviderConfig(base_url=url, personal_data="refuse").on_personal_data == "refuse"


def test_may_leave_when_masking_then_texts_and_arguments_of_calls_hold_placeholders() -> None:
    masked = json.dumps(may_leave(CHAT, "mask", "up"))
    assert MAIL not in masked
    assert "3704" not in masked
    assert masked.count("[EMAIL]") == 2
    assert MAIL in CHAT[0]["content"]  # the caller's own messages stay as they are


def test_may_leave_when_refusing_then_the_error_names_kinds_and_place_but_not_the_data() -> None:
    with pytest.raises(UpstreamError) as caught:
        may_leave([{"role": "user", "content": "hello"}, *CHAT], "refuse", "up")
    assert (caught.value.status, caught.value.code, caught.value.param) == (400, "personal_data", "messages[1].content")
    assert "EMAIL (1)" in str(caught.value)
    assert MAIL not in str(caught.value)
    assert may_leave([{"role": "user", "content": "hello"}], "refuse", "up") == [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("stream", [False, True])
def test_server_when_personal_data_is_refused_then_400_and_the_provider_hears_nothing(
    start: Any, fake: Any, stream: bool
) -> None:
    config = ProviderConfig(base_url=fake.url, personal_data="refuse")
    url, _ = start(providers={"up": Provider("up", config)})
    body = {"model": "up:m", "messages": CHAT[:1], "stream": stream}
    response = httpx.post(url + "/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["code"], error["param"]) == (400, "personal_data", "messages[0].content")
    assert fake.bodies == []


def test_server_when_personal_data_is_masked_then_the_provider_sees_placeholders(start: Any, fake: Any) -> None:
    config = ProviderConfig(base_url=fake.url, personal_data="mask")
    url, _ = start(providers={"up": Provider("up", config)})
    httpx.post(url + "/v1/chat/completions", json={"model": "up:m", "messages": CHAT[:1]}).raise_for_status()
    assert fake.bodies[0]["messages"][0]["content"] == "Write to [EMAIL] about [IBAN]."
