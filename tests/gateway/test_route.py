"""Routes: who answers when a model is full, away, too small, or unsure."""

import math
import time
from typing import Any

import httpx
import openai
import pydantic
import pytest

from gptwright.core.config import build_config
from gptwright.core.errors import UserError
from gptwright.gateway.config import GatewayConfig, ProviderConfig, RouteConfig
from gptwright.gateway.provider import Provider
from gptwright.gateway.route import is_unsure, passes_on
from gptwright.project.settings import Settings
from gptwright.serve.config import ServeConfig

MODEL = "demo-finetune-0123456789"
HELLO: list[Any] = [{"role": "user", "content": "hello"}]


def gateway(*models: str, **extra: Any) -> GatewayConfig:
    return GatewayConfig(routes={"best": RouteConfig(models=list(models), **extra)})


def up(fake: Any, **extra: Any) -> dict[str, Provider]:
    return {"up": Provider("up", ProviderConfig.model_validate({"base_url": fake.url, **extra}))}


def ask(url: str, content: str = "hello", **more: Any) -> tuple[str, str]:
    """Who answered, and what."""
    body = {"model": "best", "messages": [{"role": "user", "content": content}], **more}
    response = httpx.post(url + "/v1/chat/completions", json=body, timeout=30)
    response.raise_for_status()
    answer = response.json()
    assert response.headers["x-gptwright-model"] == answer["model"]
    return answer["model"], answer["choices"][0]["message"]["content"]


def all_free(app: Any) -> bool:
    """Whether every slot is given back, in a moment: an engine's thread tells of it."""
    slots = app.state.backend.slots
    for _ in range(500):
        if (slots.taken, slots.hosted, slots.flows) == (0, 0, set()):
            return True
        time.sleep(0.01)
    return False


def test_is_unsure_when_tokens_are_unlikely_in_the_mean_then_yes() -> None:
    route = RouteConfig(models=["a", "b"], unsure_below=0.5)
    assert is_unsure([math.log(0.4)] * 3, route)
    assert not is_unsure([math.log(0.9), math.log(0.3)], route)  # 0.52
    assert not is_unsure([], route)
    assert not is_unsure([-9.0], RouteConfig(models=["a"]))


def test_passes_on_when_the_keys_own_limit_or_the_request_is_at_fault_then_not() -> None:
    assert passes_on("server_busy")
    assert passes_on("upstream_timeout")
    assert not any(map(passes_on, ("rate_limit_exceeded", "insufficient_quota", "invalid_value", "stopping", None)))


@pytest.mark.parametrize("name", ["a:b", "", "a/b", "x" * 65])
def test_config_when_a_routes_name_could_be_taken_for_something_else_then_it_is_refused(name: str) -> None:
    with pytest.raises(pydantic.ValidationError):
        GatewayConfig(routes={name: RouteConfig(models=["a"])})


def test_route_when_all_is_well_then_the_first_answers_and_the_second_hears_nothing(start: Any, fake: Any) -> None:
    url, _ = start(providers=up(fake), gateway=gateway("production", "up:m"))
    assert ask(url) == (MODEL, "You said: hello")
    assert fake.bodies == []
    assert "best" in [model["id"] for model in httpx.get(url + "/v1/models").json()["data"]]


@pytest.mark.parametrize(
    "bad",
    ["429@30", "500", "401", "hang", "garbage", "truncated", "html", "404"],
    ids=lambda item: item.partition("@")[0],
)
def test_route_when_the_hosted_model_is_away_then_ours_answers_without_retries(start: Any, fake: Any, bad: str) -> None:
    fake.plan = [bad]
    config = {"timeout": 0.3, "max_retries": 5}
    url, _ = start(providers=up(fake, **config), gateway=gateway("up:m", "production"))
    assert ask(url) == (MODEL, "You said: hello")
    assert len(fake.bodies) == 1


def test_route_when_ours_cannot_be_loaded_then_the_hosted_one_answers(start: Any, fake: Any) -> None:
    url, _ = start(providers=up(fake), gateway=gateway("demo-broken-9999999999", "up:m"))
    assert ask(url) == ("up:fake-1-2026-01-01", "Hello.")


def test_route_when_ours_is_full_then_the_hosted_one_answers(start: Any, fake: Any) -> None:
    url, app = start(providers=up(fake), gateway=gateway("production", "up:m"), config=ServeConfig(max_concurrent=1))
    body = {"model": "production", "messages": [{"role": "user", "content": "slow"}], "stream": True}
    with httpx.stream("POST", url + "/v1/chat/completions", json=body) as running:
        lines = running.iter_lines()
        next(lines)
        assert app.state.backend.slots.taken == 1
        assert ask(url) == ("up:fake-1-2026-01-01", "Hello.")
        assert app.state.backend.slots.hosted == 0
        next(lines)
    assert len(fake.bodies) == 1


def test_route_when_the_hosted_one_breaks_off_in_a_stream_then_it_is_not_exchanged(start: Any, fake: Any) -> None:
    fake.plan = ["long"]
    url, _ = start(providers=up(fake), gateway=gateway("up:m", "production"))
    body = {"model": "best", "messages": HELLO, "stream": True}
    lines = httpx.post(url + "/v1/chat/completions", json=body).text
    assert "many words" in lines
    assert "upstream_broke_off" in lines
    assert "You said" not in lines
    assert "[DONE]" not in lines


def test_route_when_the_conversation_is_too_long_for_ours_then_the_hosted_one_answers(start: Any, fake: Any) -> None:
    url, _ = start(providers=up(fake), gateway=gateway("production", "up:m"))
    assert ask(url, "word " * 2000)[1] == "Hello."


def test_route_when_ours_is_sure_then_it_answers_whole_and_streamed(start: Any, fake: Any) -> None:
    url, app = start(providers=up(fake), gateway=gateway("production", "up:m", unsure_below=0.5))
    assert ask(url) == (MODEL, "You said: hello")  # the fake engine's tokens have exp(-0.5), 0.61
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    chunks = list(client.chat.completions.create(model="best", messages=HELLO, stream=True))
    assert "".join(c.choices[0].delta.content or "" for c in chunks if c.choices) == "You said: hello"
    assert fake.bodies == []
    assert all_free(app)


@pytest.mark.parametrize("stream", [False, True])
def test_route_when_ours_is_unsure_then_the_hosted_one_answers_and_ours_stops(
    start: Any, fake: Any, stream: bool
) -> None:
    url, app = start(providers=up(fake), gateway=gateway("production", "up:m", unsure_below=0.7, unsure_after=3))
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "slow"}]
    if stream:
        chunks = list(client.chat.completions.create(model="best", messages=messages, stream=True))
        text, who = "".join(c.choices[0].delta.content or "" for c in chunks if c.choices), chunks[-1].model
    else:
        answer = client.chat.completions.create(model="best", messages=messages)
        text, who = answer.choices[0].message.content or "", answer.model
    assert (text, who) == ("Hello.", "up:fake-1-2026-01-01")
    request = app.state.backend.models.fake.requests[-1]
    for _ in range(200):
        if request.finish_reason:
            break
        time.sleep(0.01)
    assert request.finish_reason == "cancelled"
    assert all_free(app)


@pytest.mark.parametrize("bad", ["500", "hang", "401", "truncated"])
def test_route_when_ours_is_unsure_and_nobody_else_answers_then_ours_stands(start: Any, fake: Any, bad: str) -> None:
    fake.plan = [bad]
    url, app = start(
        providers=up(fake, timeout=0.3), gateway=gateway("production", "up:m", unsure_below=0.7, unsure_after=3)
    )
    assert ask(url, "a longer question than three tokens") == (MODEL, "You said: a longer question than three tokens")
    assert all_free(app)


def test_route_when_personal_data_must_stay_then_ours_answers(start: Any, fake: Any) -> None:
    url, _ = start(providers=up(fake, personal_data="refuse"), gateway=gateway("up:m", "production"))
    assert ask(url, "I am bob.smith@example.org")[0] == MODEL
    assert ask(url, "hello")[1] == "Hello."
    assert len(fake.bodies) == 1


def test_route_when_the_request_itself_is_wrong_then_nobody_else_is_asked(start: Any, fake: Any) -> None:
    url, _ = start(providers=up(fake), gateway=gateway("production", "up:m"))
    body = {"model": "best", "messages": [{"role": "user", "content": "x" * 100_001}]}
    response = httpx.post(url + "/v1/chat/completions", json=body)
    assert (response.status_code, response.json()["error"]["code"]) == (400, "message_too_long")
    assert fake.bodies == []


def test_route_when_all_fail_then_the_last_ones_refusal_is_told(start: Any, fake: Any) -> None:
    fake.plan = ["500", "429@30"]
    url, _ = start(providers=up(fake, max_retries=0), gateway=gateway("up:a", "up:b"))
    response = httpx.post(url + "/v1/chat/completions", json={"model": "best", "messages": HELLO})
    assert (response.status_code, response.headers["retry-after"]) == (429, "30")


def test_route_when_the_alias_itself_is_a_routes_name_then_it_does_not_go_round_in_circles(
    start: Any, fake: Any
) -> None:
    config = GatewayConfig(routes={"production": RouteConfig(models=["production", "up:m"])})
    url, _ = start(providers=up(fake), gateway=config)
    answer = httpx.post(url + "/v1/chat/completions", json={"model": "production", "messages": HELLO}).json()
    assert answer["model"] == MODEL
    listed = [model["id"] for model in httpx.get(url + "/v1/models").json()["data"]]
    assert listed.count("production") == 1


def test_route_when_the_client_leaves_while_it_is_decided_then_all_stops(start: Any, fake: Any) -> None:
    fake.plan = ["hang"]
    url, app = start(providers=up(fake), gateway=gateway("production", "up:m", unsure_below=0.7, unsure_after=3))
    body = {"model": "best", "messages": [{"role": "user", "content": "slow"}]}
    with pytest.raises(httpx.TimeoutException):
        httpx.post(url + "/v1/chat/completions", json=body, timeout=1.0)
    assert all_free(app)
    request = app.state.backend.models.fake.requests[-1]
    for _ in range(200):
        if request.finish_reason:
            break
        time.sleep(0.01)
    assert request.finish_reason == "cancelled"


def test_responses_and_messages_when_a_route_is_asked_then_it_answers_there_too(start: Any, fake: Any) -> None:
    fake.plan = ["500"]
    url, _ = start(providers=up(fake), gateway=gateway("up:m", "production"))
    answer = httpx.post(url + "/v1/responses", json={"model": "best", "input": "hello", "store": False}).json()
    assert (answer["model"], answer["output"][0]["content"][0]["text"]) == (MODEL, "You said: hello")
    body = {"model": "best", "max_tokens": 50, "messages": HELLO}
    said = httpx.post(url + "/v1/messages", json=body).json()
    assert (said["model"], said["content"][0]["text"]) == (MODEL, "You said: hello")


def test_tools_when_a_hosted_model_calls_one_then_the_client_gets_the_call(start: Any, fake: Any) -> None:
    fake.plan = ["tool"]
    url, _ = start(providers=up(fake))
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    tools: list[Any] = [{"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}]
    answer = client.chat.completions.create(model="up:m", messages=HELLO, tools=tools)
    choice = answer.choices[0]
    assert choice.finish_reason == "tool_calls"
    assert choice.message.tool_calls is not None
    call: Any = choice.message.tool_calls[0]
    assert (call.id, call.function.name, call.function.arguments) == ("call_1", "weather", '{"city": "Rome"}')
    back: list[Any] = [*HELLO, choice.message.model_dump(exclude_none=True)]
    back.append({"role": "tool", "tool_call_id": call.id, "content": "sunny"})
    fake.plan = ["ok"]
    client.chat.completions.create(model="up:m", messages=back, tools=tools)
    assert [turn["role"] for turn in fake.bodies[-1]["messages"]] == ["user", "assistant", "tool"]
    assert fake.bodies[-1]["messages"][2]["tool_call_id"] == "call_1"
    assert fake.bodies[-1]["messages"][1]["tool_calls"][0]["id"] == "call_1"


def test_settings_when_a_route_leads_to_no_provider_then_the_section_that_is_missing_is_named() -> None:
    routes = {"routes": {"best": {"models": ["production", "openai:gpt-5-mini"]}}}
    with pytest.raises(
        UserError, match=r"gateway\.routes\.best: openai:gpt-5-mini needs a section \[providers\.openai\]"
    ):
        build_config(Settings, {"gateway": routes})
    build_config(Settings, {"gateway": routes, "providers": {"openai": {"vendor": "openai"}}})
