"""Bad requests: each is answered in OpenAI's shape, with the field at fault, and never by a 5xx."""

from typing import Any

import httpx
import openai
import pytest

from gptwright.guard.config import GuardConfig
from gptwright.guard.guard import Guard
from gptwright.serve.config import ServeConfig

CHAT = "/v1/chat/completions"


@pytest.fixture(scope="module")
def http(shared: tuple[str, Any]) -> httpx.Client:
    return httpx.Client(base_url=shared[0])


def body(**extra: Any) -> dict[str, Any]:
    return {"model": "production", "messages": [{"role": "user", "content": "hi"}], **extra}


def error(response: httpx.Response) -> dict[str, Any]:
    found = response.json()["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    assert isinstance(found["message"], str)
    assert isinstance(found["type"], str)
    return dict(found)


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("service_tier", "flex"),
        ("reasoning_effort", "low"),
        ("modalities", ["text", "audio"]),
        ("prediction", {"type": "content", "content": "x"}),
        ("verbosity", "low"),
        ("functions", [{"name": "f"}]),
    ],
)
def test_chat_when_a_field_is_not_supported_then_400_names_it(http: httpx.Client, field: str, value: Any) -> None:
    response = http.post(CHAT, json=body(**{field: value}))
    assert response.status_code == 400
    assert (error(response)["param"], error(response)["code"]) == (field, "unsupported_parameter")


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("n", 1),
        ("frequency_penalty", 0),
        ("presence_penalty", 0.0),
        ("logit_bias", {}),
        ("tools", []),
        ("tools", None),
        ("tool_choice", "auto"),
        ("response_format", {"type": "text"}),
        ("user", None),
        ("user", "someone"),
        ("reasoning_effort", "none"),
        ("prompt_cache_key", "mine"),
        ("tool_choice", "none"),
        ("store", False),
        ("service_tier", "auto"),
        ("stop", None),
        ("temperature", None),
    ],
)
def test_chat_when_a_field_asks_for_nothing_then_it_is_taken(http: httpx.Client, field: str, value: Any) -> None:
    assert http.post(CHAT, json=body(**{field: value})).status_code == 200


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"model": None}, "model"),
        ({"model": ""}, "model"),
        ({"messages": []}, "messages"),
        ({"messages": "hi"}, "messages"),
        ({"messages": [{"role": "user"}]}, "messages[0].content"),
        ({"messages": [{"role": "king", "content": "x"}]}, "messages[0].role"),
        ({"messages": [{"role": "user", "content": "x", "surname": "y"}]}, "messages[0].surname"),
        (
            {"messages": [{"role": "assistant", "content": "x", "tool_calls": [{"id": "1"}]}]},
            "messages[0].tool_calls[0].function",
        ),
        ({"messages": [{"role": "assistant", "content": None}]}, "messages[0].content"),
        ({"messages": [{"role": "user", "content": [{"type": "image_url"}]}]}, "messages[0].content"),
        ({"messages": [{"role": "tool", "content": "x"}]}, "messages[0].tool_call_id"),
        ({"messages": [{"role": "user", "content": "x", "tool_call_id": "c"}]}, "messages[0].tool_call_id"),
        ({"n": True}, "n"),
        ({"n": 0}, "n"),
        ({"n": 129}, "n"),
        ({"tool_choice": "required"}, "tool_choice"),
        ({"response_format": {"type": "json_schema"}}, "response_format.json_schema"),
        ({"tools": [{"type": "function", "function": {"name": "no spaces"}}]}, "tools[0].function.name"),
        ({"user": ""}, "user"),
        ({"temperature": 3}, "temperature"),
        ({"temperature": "hot"}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"repetition_penalty": 1e-40}, "repetition_penalty"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 5, "max_completion_tokens": 6}, "max_tokens"),
        ({"seed": 2**70}, "seed"),
        ({"stop": ["a", "b", "c", "d", "e"]}, "stop"),
        ({"top_logprobs": 3}, "top_logprobs"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"stream": True, "stream_options": {"color": 1}}, "stream_options.color"),
        ({"temprature": 1}, "temprature"),
    ],
)
def test_chat_when_a_value_is_wrong_then_400_names_the_field(
    http: httpx.Client, extra: dict[str, Any], param: str
) -> None:
    response = http.post(CHAT, json=body(**extra))
    assert response.status_code == 400, response.text
    assert str(error(response)["param"]).startswith(param)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"nonsense",
        b"[]",
        b"null",
        b'"text"',
        b"\xff\xfe\x00",
        b"[" * 60_000,
        b'{"model": NaN}',
        b'{"a": 1' + b"0" * 6000 + b"}",
    ],
)
def test_chat_when_the_body_is_malformed_then_400(http: httpx.Client, content: bytes) -> None:
    response = http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error(response)["type"] == "invalid_request_error"


def test_chat_when_text_holds_half_a_surrogate_then_400_names_it(http: httpx.Client) -> None:
    raw = b'{"model": "production", "messages": [{"role": "user", "content": "\\ud800"}]}'
    response = http.post(CHAT, content=raw, headers={"content-type": "application/json"})
    assert response.status_code == 400
    assert error(response)["param"].startswith("messages[0].content")


def test_chat_when_the_type_is_not_json_then_it_is_refused(http: httpx.Client) -> None:
    response = http.post(CHAT, content=b'{"model": "production"}', headers={"content-type": "text/plain"})
    assert response.status_code in (400, 415)
    error(response)


@pytest.mark.parametrize("declared", [True, False])
def test_chat_when_the_body_is_too_large_then_413(http: httpx.Client, declared: bool) -> None:
    data = b'{"model": "' + b"x" * 5_000_000 + b'"}'
    content: Any = data if declared else iter([data[:1_000_000]] * 6)
    response = http.post(CHAT, content=content, headers={"content-type": "application/json"})
    assert response.status_code == 413
    assert "max_body" in error(response)["message"]


def test_chat_when_the_model_is_unknown_then_404_lists_those_there_are(http: httpx.Client) -> None:
    response = http.post(CHAT, json=body(model="gpt-5"))
    assert (response.status_code, error(response)["code"]) == (404, "model_not_found")
    assert "demo-finetune-0123456789" in error(response)["message"]


def test_chat_when_a_folder_is_asked_for_then_it_is_not_even_looked_at(stored: Any) -> None:
    url, app = stored()
    app.state.backend.models.engine = lambda name: pytest.fail(f"asked for {name}")
    assert httpx.post(url + CHAT, json=body(model="/etc")).status_code == 404


def test_chat_when_the_model_cannot_be_loaded_then_503(http: httpx.Client) -> None:
    response = http.post(CHAT, json=body(model="demo-broken-9999999999"))
    assert (response.status_code, error(response)["code"]) == (503, "model_not_ready")


def test_chat_when_the_conversation_exceeds_the_context_then_400_or_shortened_on_request(http: httpx.Client) -> None:
    turns = [{"role": "user", "content": f"{i} " + "word " * 200} for i in range(5)]
    turns[-1] = {"role": "user", "content": "the end"}
    refused = http.post(CHAT, json={"model": "production", "messages": turns})
    assert (refused.status_code, error(refused)["code"]) == (400, "context_length_exceeded")
    response = http.post(CHAT, json={"model": "production", "messages": turns, "truncation": "auto"})
    assert response.status_code == 200
    assert int(response.headers["x-gptwright-dropped-messages"]) >= 1


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", "/v1/nothing", 404),
        ("GET", "/v1/completions", 405),
        ("DELETE", "/v1/models", 405),
        ("GET", "/nothing", 404),
        ("POST", "/v1/models/%00", 405),
    ],
)
def test_any_when_path_or_method_is_wrong_then_the_error_has_the_shape(
    http: httpx.Client, method: str, path: str, status: int
) -> None:
    response = http.request(method, path)
    assert response.status_code == status
    error(response)


def test_client_when_refused_then_the_official_client_raises_its_own_errors(http: httpx.Client) -> None:
    client = openai.OpenAI(base_url=f"{http.base_url}/v1", api_key="none", max_retries=0)
    with pytest.raises(openai.BadRequestError) as caught:
        client.chat.completions.create(model="production", messages=[{"role": "user", "content": "x"}], verbosity="low")
    assert (caught.value.param, caught.value.code) == ("verbosity", "unsupported_parameter")
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.create(model="nope", messages=[{"role": "user", "content": "x"}])


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [1, "a"]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": [5, 99999]}, "prompt[1]"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "a" * 5000}, "prompt"),
        ({"prompt": "a", "suffix": "b"}, "suffix"),
        ({"prompt": "a", "logprobs": 21}, "logprobs"),
        ({"prompt": "a", "max_tokens": 0}, "max_tokens"),
        ({"prompt": "a", "best_of": 1, "n": 2}, "best_of"),
        ({"prompt": "a", "best_of": 2, "stream": True}, "best_of"),
    ],
)
def test_completions_when_a_value_is_wrong_then_400_names_the_field(
    http: httpx.Client, extra: dict[str, Any], param: str
) -> None:
    response = http.post("/v1/completions", json={"model": "production", **extra})
    assert response.status_code == 400, response.text
    assert str(error(response)["param"]).startswith(param)


def test_guard_when_a_limit_is_passed_then_400_names_the_message(stored: Any) -> None:
    url, _ = stored(guard=Guard(GuardConfig(max_message_chars=5)))
    response = httpx.post(url + CHAT, json=body(messages=[{"role": "user", "content": "too long"}]))
    assert response.status_code == 400
    assert (error(response)["param"], error(response)["code"]) == ("messages[0].content", "message_too_long")


def test_slots_when_all_are_taken_then_429_says_when_to_come_back(stored: Any) -> None:
    url, app = stored(config=ServeConfig(max_concurrent=1))
    hanging = body(messages=[{"role": "user", "content": "slow"}], stream=True)
    with httpx.stream("POST", url + CHAT, json=hanging) as first:
        lines = first.iter_lines()
        next(lines)
        response = httpx.post(url + CHAT, json=body())
        assert response.status_code == 429
        assert error(response)["type"] == "rate_limit_error"
        assert response.headers["retry-after"] == "1"
    for _ in range(200):
        if app.state.backend.slots.taken == 0:
            break
        httpx.get(url + "/health")
    assert httpx.post(url + CHAT, json=body()).status_code == 200


def test_deadline_when_an_answer_takes_too_long_then_504_and_the_work_is_cancelled(stored: Any) -> None:
    url, app = stored(config=ServeConfig(request_timeout=0.3))
    response = httpx.post(url + CHAT, json=body(messages=[{"role": "user", "content": "hang"}]))
    assert (response.status_code, error(response)["code"]) == (504, "timeout")
    assert app.state.backend.models.fake.requests[-1].ended_from_outside == "cancelled"
