"""Providers: names, keys, errors, and a second gptwright as the upstream of the first."""

import logging
import time
from typing import Any

import httpx
import openai
import pydantic
import pytest

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.provider import ChatSettings, Provider, UpstreamError
from gptwright.gateway.resolve import is_remote, providers, resolve
from gptwright.project.settings import Settings

MODEL = "demo-finetune-0123456789"
HELLO = [{"role": "user", "content": "hello"}]


def provider(url: str, **extra: Any) -> Provider:
    return Provider("up", ProviderConfig(base_url=url, max_retries=0, **extra))


@pytest.mark.parametrize("url", ["example.com/v1", "ftp://x/v1", "https://user:pw@x/v1", ""])
def test_config_when_the_url_is_no_plain_http_url_then_it_is_refused(url: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        ProviderConfig(base_url=url)


def test_config_when_a_key_is_pasted_instead_of_a_name_then_it_is_refused() -> None:
    with pytest.raises(pydantic.ValidationError, match="never the key itself"):
        ProviderConfig(base_url="https://x/v1", api_key_env="sk-abc123-very-secret")


@pytest.mark.parametrize(
    "section",
    [
        {"base_url": "https://x/v1", "api_key_env": "sk-very-secret"},
        {"base_url": "https://x/v1?key=sk-very-secret"},
        {"base_url": "https://me:sk-very-secret@x/v1"},
    ],
)
def test_settings_when_a_key_is_pasted_then_the_error_does_not_repeat_it(section: dict[str, str]) -> None:
    with pytest.raises(UserError, match=r"providers\.up\.(base_url|api_key_env)") as caught:
        build_config(Settings, {"providers": {"up": section}})
    assert "secret" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "remote"),
    [("up:tiny", True), ("up:org/model:v2", True), ("production", False), ("C:\\models", False), ("up:", False)],
)
def test_is_remote_when_given_a_name_then_only_provider_colon_model_counts(name: str, remote: bool) -> None:
    assert is_remote(name) is remote


def test_resolve_when_known_then_only_the_first_colon_divides_and_unknown_ones_are_named() -> None:
    known = providers({"up": ProviderConfig(base_url="http://127.0.0.1:9/v1")})
    found, model = resolve("up:org/model:v2", known)
    assert (found.name, model) == ("up", "org/model:v2")
    with pytest.raises(UserError, match=r"no provider named other \(known: up\)"):
        resolve("other:x", known)


def test_chat_when_the_upstream_is_a_gptwright_then_pieces_models_and_counts_come_through(start: Any) -> None:
    url, app = start()
    upstream = provider(url + "/v1")
    deltas = list(upstream.chat("production", HELLO, ChatSettings(max_tokens=50, temperature=0.5, stop=["zz"], seed=3)))
    assert "".join(delta.text for delta in deltas) == "You said: hello"
    assert {delta.model for delta in deltas} == {MODEL}
    assert [delta.finish_reason for delta in deltas if delta.finish_reason] == ["stop"]
    assert deltas[-1].completion_tokens == len("You said: hello") + 1
    got = app.state.backend.models.fake.requests[-1].config.model_dump(exclude_defaults=True)
    assert got == {"max_tokens": 50, "temperature": 0.5, "stop": ("zz",), "seed": 3, "logprobs": False}
    assert upstream.models() == sorted([MODEL, "production", "demo-broken-9999999999"])
    assert upstream.complete("production", HELLO) == "You said: hello"


def test_chat_when_the_iterator_is_closed_then_the_work_upstream_is_cancelled(start: Any) -> None:
    url, app = start()
    stream = provider(url + "/v1").chat("production", [{"role": "user", "content": "slow"}])
    for _ in range(4):
        next(stream)
    stream.close()  # type: ignore[attr-defined]
    request = app.state.backend.models.fake.requests[-1]
    for _ in range(200):
        if request.finish_reason:
            break
        time.sleep(0.01)
    assert request.finish_reason == "cancelled"


@pytest.mark.parametrize(
    ("what", "status", "says"),
    [
        ("500", 502, "it failed: upstream says 500"),
        ("503", 502, "it failed"),
        ("401", 502, "does not accept our key"),
        ("403", 502, "does not accept our key"),
        ("429", 429, "rate limit"),
        ("400", 400, "it refused: upstream says 400"),
        ("404", 404, "it refused"),
        ("418", 502, "it refused"),
        ("close", 502, "cannot be reached"),
        ("sleep", 504, "no answer"),
        ("cut", 502, "cannot be reached"),
    ],
)
def test_chat_when_the_upstream_misbehaves_then_the_error_says_which_and_what(
    rude: Any, what: str, status: int, says: str
) -> None:
    with pytest.raises(UpstreamError, match=says) as caught:
        list(provider(rude[0], timeout=0.5).chat(what, HELLO))
    assert caught.value.status == status
    assert "providers.up" in str(caught.value)


def test_chat_when_nobody_listens_then_the_error_names_the_url() -> None:
    with pytest.raises(UpstreamError, match=r"http://127.0.0.1:9/v1 cannot be reached"):
        provider("http://127.0.0.1:9/v1").complete("m", HELLO)


def test_key_when_it_is_in_the_environment_then_it_is_sent_and_shown_nowhere(
    rude: Any, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url, seen = rude
    monkeypatch.setenv("UP_KEY", "secret-key-value")
    monkeypatch.setenv("OPENAI_API_KEY", "another-key")
    monkeypatch.setenv("OPENAI_ORG_ID", "my-organisation")
    upstream = provider(url, api_key_env="UP_KEY")
    with caplog.at_level(logging.DEBUG), pytest.raises(UpstreamError) as caught:
        upstream.complete("401", HELLO)
    assert seen[-1]["authorization"] == "Bearer secret-key-value"
    assert not any("another-key" in value or "my-organisation" in value for value in seen[-1].values())
    assert "secret-key-value" not in str(caught.value) + repr(upstream.__dict__) + caplog.text
    with pytest.raises(UpstreamError):
        provider(url).complete("500", HELLO)
    assert "another-key" not in seen[-1]["authorization"]


def test_key_when_the_variable_is_missing_then_the_error_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("UP_KEY", raising=False)
    with pytest.raises(UpstreamError, match="UP_KEY is not set"):
        provider("http://127.0.0.1:9/v1", api_key_env="UP_KEY").complete("m", HELLO)


def test_retries_when_the_upstream_is_busy_then_it_is_asked_again(rude: Any) -> None:
    url, seen = rude
    with pytest.raises(UpstreamError):
        Provider("up", ProviderConfig(base_url=url, max_retries=1)).complete("500", HELLO)
    assert len(seen) == 2


def test_two_servers_when_the_first_asks_the_second_then_whole_and_streamed_answers_come_through(start: Any) -> None:
    second, _ = start()
    first, _ = start(providers={"up": provider(second + "/v1")})
    client = openai.OpenAI(base_url=first + "/v1", api_key="none", max_retries=0)
    messages: list[Any] = HELLO
    answer = client.chat.completions.create(model="up:production", messages=messages)
    assert answer.choices[0].message.content == "You said: hello"
    assert answer.model == f"up:{MODEL}"
    assert answer.usage is not None
    assert answer.usage.completion_tokens == len("You said: hello") + 1
    stream = client.chat.completions.create(
        model="up:production", messages=messages, stream=True, stream_options={"include_usage": True}
    )
    chunks = list(stream)
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: hello"
    assert {chunk.model for chunk in chunks} == {f"up:{MODEL}"}
    assert chunks[-1].usage is not None
    assert f"up:{MODEL}" in [model.id for model in client.models.list()]


def test_two_servers_when_the_client_leaves_then_the_second_ones_engine_stops(start: Any) -> None:
    second, app = start()
    first, _ = start(providers={"up": provider(second + "/v1")})
    body = {"model": "up:production", "messages": [{"role": "user", "content": "slow"}], "stream": True}
    with httpx.stream("POST", first + "/v1/chat/completions", json=body) as response:
        lines = response.iter_lines()
        for _ in range(4):
            next(lines)
    request = app.state.backend.models.fake.requests[-1]
    for _ in range(200):
        if request.finish_reason:
            break
        time.sleep(0.01)
    assert request.finish_reason == "cancelled"


@pytest.mark.parametrize("stream", [False, True])
def test_server_when_its_upstream_fails_then_the_client_gets_that_status(rude: Any, start: Any, stream: bool) -> None:
    url, _ = start(providers={"up": provider(rude[0])})
    for what, status in (("500", 502), ("429", 429), ("404", 404), ("close", 502)):
        body = {"model": f"up:{what}", "messages": HELLO, "stream": stream}
        response = httpx.post(url + "/v1/chat/completions", json=body)
        assert response.status_code == status
        assert response.json()["error"].keys() == {"message", "type", "param", "code"}


def test_server_when_a_field_is_not_for_providers_then_400_names_it(start: Any) -> None:
    url, _ = start(providers={"up": provider("http://127.0.0.1:9/v1")})
    response = httpx.post(url + "/v1/chat/completions", json={"model": "up:x", "messages": HELLO, "top_k": 5})
    assert (response.status_code, response.json()["error"]["param"]) == (400, "top_k")


def test_models_when_a_provider_is_down_then_our_own_are_still_listed(start: Any) -> None:
    url, _ = start(providers={"up": provider("http://127.0.0.1:9/v1")})
    assert len(httpx.get(url + "/v1/models").json()["data"]) == 3
