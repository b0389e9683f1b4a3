"""``/v1/messages`` in Anthropic's shape, with its official client where that is installed."""

import json
from typing import Any

import httpx
import pytest

from gptwright.core.control import ControlStore
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key

MODEL = "demo-finetune-0123456789"
BODY: dict[str, Any] = {"model": "production", "max_tokens": 300, "messages": [{"role": "user", "content": "hello"}]}


def post(url: str, **extra: Any) -> httpx.Response:
    return httpx.post(url + "/v1/messages", json={**BODY, **extra})


def events(response: httpx.Response) -> list[tuple[str, Any]]:
    blocks = [block.split("\n") for block in response.text.strip().split("\n\n")]
    return [(lines[0].removeprefix("event: "), json.loads(lines[1].removeprefix("data: "))) for lines in blocks]


@pytest.fixture(scope="module")
def client(shared: tuple[str, Any]) -> Any:
    anthropic = pytest.importorskip("anthropic")
    return anthropic.Anthropic(base_url=shared[0], api_key="none", max_retries=0)


@pytest.mark.slow
def test_client_when_it_asks_then_it_reads_text_and_usage(client: Any) -> None:
    message = client.messages.create(**BODY)
    assert (message.content[0].text, message.stop_reason, message.model) == ("You said: hello", "end_turn", MODEL)
    assert message.usage.output_tokens == len("You said: hello") + 1


@pytest.mark.slow
def test_client_when_it_streams_then_the_pieces_make_the_whole(client: Any) -> None:
    with client.messages.stream(**{**BODY, "messages": [{"role": "user", "content": "unicode"}]}) as stream:
        said = "".join(stream.text_stream)
        final = stream.get_final_message()
    assert said == final.content[0].text == "Grüße 🙂 日本"
    assert final.usage.output_tokens == len(said.encode()) + 1


@pytest.mark.slow
def test_client_when_refused_then_it_raises_its_own_errors(client: Any) -> None:
    anthropic = pytest.importorskip("anthropic")
    with pytest.raises(anthropic.NotFoundError):
        client.messages.create(**{**BODY, "model": "nope"})
    with pytest.raises(anthropic.BadRequestError):
        client.messages.create(**BODY, thinking={"type": "enabled", "budget_tokens": 2000})
    assert client.messages.count_tokens(model="production", messages=BODY["messages"]).input_tokens == 23


def test_messages_when_asked_then_the_answer_has_the_shape(shared: tuple[str, Any]) -> None:
    answer = post(shared[0], system=[{"type": "text", "text": "brief", "cache_control": {"type": "ephemeral"}}]).json()
    assert answer.keys() == {"id", "type", "role", "model", "content", "stop_reason", "stop_sequence", "usage"}
    assert answer["content"] == [{"type": "text", "text": "You said: hello"}]
    assert "system\nbrief" in shared[1].prompts[-1]


def test_messages_when_streamed_then_the_events_come_in_their_order(shared: tuple[str, Any]) -> None:
    found = events(post(shared[0], stream=True))
    names = [name for name, _ in found]
    assert names[:3] == ["message_start", "ping", "content_block_start"]
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]
    assert all(name == data["type"] for name, data in found)
    assert "".join(data["delta"]["text"] for name, data in found if name == "content_block_delta") == "You said: hello"


@pytest.mark.parametrize("stream", [False, True])
def test_messages_when_a_stop_text_comes_then_the_answer_says_which(shared: tuple[str, Any], stream: bool) -> None:
    asked = [{"role": "user", "content": "one two three"}]
    response = post(shared[0], messages=asked, stop_sequences=["three", "two"], stream=stream)
    answer = events(response)[-2][1]["delta"] if stream else response.json()
    assert (answer["stop_reason"], answer["stop_sequence"]) == ("stop_sequence", "two")
    short = post(shared[0], max_tokens=3).json()
    assert (short["stop_reason"], short["content"][0]["text"]) == ("max_tokens", "You")


def test_messages_when_tools_were_used_then_the_history_is_rendered(shared: tuple[str, Any]) -> None:
    use = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": "42", "is_error": True}
    asked = [*BODY["messages"], {"role": "assistant", "content": [use]}, {"role": "user", "content": [result]}]
    assert post(shared[0], messages=asked).status_code == 200
    assert "<tool_response>\nError: 42" in shared[1].prompts[-1]  # the fake model has no template that knows tools


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"max_tokens": None}, "max_tokens"),
        ({"messages": []}, "messages"),
        ({"messages": [{"role": "user", "content": [{"type": "image", "source": {}}]}]}, "messages[0].content[0]"),
        ({"thinking": {"type": "enabled", "budget_tokens": 2000}}, "thinking"),
        ({"mcp_servers": [{"url": "x"}]}, "mcp_servers"),
        ({"container": "c"}, "container"),
        ({"service_tier": "priority"}, "service_tier"),
        ({"stop_sequences": list("abcde")}, "stop_sequences"),
        ({"temperature": 1.5}, "temperature"),
        ({"surprise": 1}, "surprise"),
        ({"messages": [{"role": "user", "content": "x" * 200_000}]}, "messages"),
    ],
)
def test_messages_when_a_field_is_wrong_then_the_error_has_both_shapes(
    shared: tuple[str, Any], extra: dict[str, Any], param: str
) -> None:
    response = post(shared[0], **extra)
    assert response.status_code == 400, response.text
    body = response.json()
    assert body["type"] == "error"
    assert body["error"].keys() == {"message", "type", "param", "code"}
    assert str(body["error"]["param"]).startswith(param)
    assert body["request_id"] == response.headers["x-request-id"]


def test_messages_when_the_engine_breaks_then_the_stream_ends_with_an_error(shared: tuple[str, Any]) -> None:
    asked = [{"role": "user", "content": "fail"}]
    name, data = events(post(shared[0], messages=asked, stream=True))[-1]
    assert (name, data["error"]["type"]) == ("error", "api_error")
    assert "broke" not in json.dumps(data)


def test_messages_when_a_key_comes_in_anthropics_header_then_it_opens(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    key, _ = create_key(control, "test")
    assert httpx.post(url + "/v1/messages", json=BODY, headers={"x-api-key": key}).status_code == 200
    refused = httpx.post(url + "/v1/messages", json=BODY, headers={"x-api-key": "wrong"})
    assert (refused.status_code, refused.json()["error"]["type"]) == (401, "authentication_error")
