"""Vendors by name: where they are, and how requests to them differ. Nobody outside this machine is asked."""

from typing import Any

import pytest

from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.faults import UpstreamError
from gptwright.gateway.provider import ChatSettings, Provider
from gptwright.gateway.spend import rates
from gptwright.gateway.vendors import VENDORS

HELLO = [{"role": "user", "content": "hello"}]


@pytest.mark.parametrize("name", sorted(VENDORS))
def test_config_when_a_vendor_is_named_then_address_and_variable_follow(name: str) -> None:
    config = ProviderConfig.model_validate({"vendor": name})
    assert config.base_url.startswith("https://")
    assert (config.api_key_env or "").endswith("_API_KEY")
    assert config.on_personal_data == "mask"
    assert not config.is_local


def test_config_when_a_vendor_is_reached_elsewhere_then_its_key_is_not_sent_there() -> None:
    config = ProviderConfig.model_validate({"vendor": "openai", "base_url": "http://127.0.0.1:1/v1"})
    assert config.api_key_env is None


@pytest.mark.parametrize(
    ("vendor", "model"),
    [
        ("openai", "gpt-5-mini-2025-08-07"),
        ("google", "gemini-2.5-flash-lite"),
        ("anthropic", "claude-haiku-4-5"),
        ("mistral", "mistral-small-latest"),
        ("openrouter", "openai/gpt-5-mini"),
    ],
)
def test_rates_when_a_vendor_is_named_then_the_price_list_knows_it(vendor: str, model: str) -> None:
    pytest.importorskip("genai_prices")
    found = rates(ProviderConfig.model_validate({"vendor": vendor}), model)
    assert found is not None
    assert 0 < found.input <= found.output < 1000


def at(fake: Any, vendor: str, **more: Any) -> Provider:
    config = {"vendor": vendor, "base_url": fake.url, "max_retries": 0, **more}
    return Provider(vendor, ProviderConfig.model_validate(config))


@pytest.mark.parametrize(
    ("vendor", "sent"),
    [
        ("openai", {"max_completion_tokens": 9, "seed": 3, "stream_options": {"include_usage": True}}),
        ("google", {"max_tokens": 9, "seed": 3, "stream_options": {"include_usage": True}}),
        ("mistral", {"max_tokens": 9, "random_seed": 3}),
        ("openrouter", {"max_tokens": 9, "seed": 3, "stream_options": {"include_usage": True}}),
    ],
)
def test_request_when_a_vendor_names_a_field_otherwise_then_it_is_sent_so(
    fake: Any, vendor: str, sent: dict[str, Any]
) -> None:
    at(fake, vendor).complete("m", HELLO, ChatSettings(max_tokens=9, seed=3))
    assert fake.bodies[0] == {"model": "m", "messages": HELLO, "stream": True, **sent}


@pytest.mark.parametrize(
    ("vendor", "chosen", "param"),
    [
        ("anthropic", {"seed": 1}, "seed"),
        ("anthropic", {"response_format": {"type": "json_object"}}, "response_format"),
        ("anthropic", {"temperature": 1.5}, "temperature"),
        ("mistral", {"logit_bias": {"1": 2.0}}, "logit_bias"),
    ],
)
def test_request_when_a_vendor_would_ignore_a_field_then_nothing_is_sent(
    fake: Any, vendor: str, chosen: dict[str, Any], param: str
) -> None:
    with pytest.raises(UpstreamError) as caught:
        at(fake, vendor).complete("m", HELLO, ChatSettings(**chosen))
    assert (caught.value.status, caught.value.param, fake.bodies) == (400, param, [])


def test_models_when_the_vendor_is_anthropic_then_its_own_header_carries_the_key(
    fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("UP_KEY", "sk-1")
    assert at(fake, "anthropic", api_key_env="UP_KEY").models() == ["a", "b"]
    seen = fake.headers[-1]
    assert (seen["x-api-key"], seen["anthropic-version"], "authorization" in seen) == ("sk-1", "2023-06-01", False)
    assert fake.paths[-1] == "/v1/models?limit=1000"
