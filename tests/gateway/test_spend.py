"""Limits of a day's spending: kept over restarts, over many requests at once, and in OpenAI's error shape."""

import datetime
import threading
from typing import Any

import httpx
import pytest

import gptwright.gateway.spend as spend_room
from gptwright.core.control import ControlStore, Usage, utc_now
from gptwright.gateway.config import GatewayConfig, ProviderConfig
from gptwright.gateway.faults import UpstreamError
from gptwright.gateway.provider import ChatSettings
from gptwright.gateway.resolve import providers
from gptwright.gateway.spend import Spend, rates

HELLO = [{"role": "user", "content": "hello"}]
# The fake provider counts 1,000 tokens of prompt and 500 of answer: 1 x 1,000 + 2 x 500 millionths, 0.002 dollars.
DEAR = {"prices": {"*": {"input": 1.0, "output": 2.0}}}
COST = 0.002


def config(fake: Any, **extra: Any) -> ProviderConfig:
    return ProviderConfig.model_validate({"base_url": fake.url, "max_retries": 0, **DEAR, **extra})


def test_rates_when_a_dated_name_answers_then_the_longest_beginning_counts() -> None:
    own = {"prices": {"m": {"input": 1, "output": 2}, "m-large": {"input": 3, "output": 4}}}
    found = ProviderConfig.model_validate({"base_url": "http://127.0.0.1:1/v1", **own})
    price = rates(found, "m-large-2026-01-01")
    assert price is not None
    assert (price.input, price.usd(1_000_000, 500_000)) == (3, 5.0)
    assert rates(found, "other") is None


def test_chat_when_the_days_money_is_spent_then_429_until_midnight(fake: Any) -> None:
    up = providers({"up": config(fake, usd_per_day=3 * COST)})["up"]
    settings = ChatSettings(max_tokens=500)
    for _ in range(2):
        up.complete("m", HELLO, settings)
    assert up.spend.spent("up") == pytest.approx(2 * COST)
    with pytest.raises(UpstreamError) as caught:
        up.complete("m", HELLO, ChatSettings(max_tokens=1500))
    error = caught.value
    assert (error.status, error.code) == (429, "spending_limit_reached")
    assert 0 < int(error.headers["Retry-After"]) <= 86400
    assert "0.0020 of 0.006 US dollars" in str(error)
    assert len(fake.bodies) == 2
    up.complete("m", HELLO, settings)  # what still fits is asked


def test_chat_when_a_request_fails_or_is_left_then_what_was_set_aside_comes_back(fake: Any) -> None:
    up = providers({"up": config(fake, usd_per_day=0.01)})["up"]
    fake.plan = ["500", "ok"]
    with pytest.raises(UpstreamError):
        up.complete("m", HELLO)
    assert up.spend.spent("up") == 0
    stream = up.chat("m", HELLO)
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    assert 0 < up.spend.spent("up") < COST  # estimated: the provider has not counted yet
    assert up.spend._held == {"up": 0.0}


def test_chat_when_no_limit_of_tokens_is_named_then_a_limited_provider_gets_one(fake: Any) -> None:
    providers({"up": config(fake, usd_per_day=1, answer_tokens=700)})["up"].complete("m", HELLO)
    providers({"up": config(fake)})["up"].complete("m", HELLO)
    assert [body.get("max_tokens") for body in fake.bodies] == [700, None]


def test_begin_when_many_ask_at_once_then_together_they_keep_the_limit() -> None:
    known = {"up": ProviderConfig.model_validate({"base_url": "http://127.0.0.1:1/v1", "usd_per_day": 0.01, **DEAR})}
    spend = Spend(known)
    begun: list[Any] = []

    def ask() -> None:
        try:
            begun.append(spend.begin("up", "m", 0, 500))  # 0.001 dollars
        except UpstreamError:
            begun.append(None)

    threads = [threading.Thread(target=ask) for _ in range(40)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sum(charge is not None for charge in begun) == 10


def test_begin_when_all_providers_share_a_limit_then_one_spends_it_for_the_other(fake: Any) -> None:
    known = providers({"a": config(fake), "b": config(fake)}, GatewayConfig(usd_per_day=1.5 * COST))
    settings = ChatSettings(max_tokens=500)
    known["a"].complete("m", HELLO, settings)
    with pytest.raises(UpstreamError, match=r"\[gateway\] usd_per_day"):
        known["b"].complete("m", HELLO, settings)


def test_begin_when_the_price_is_not_known_then_402_says_where_to_put_it(fake: Any) -> None:
    pytest.importorskip("genai_prices")
    known = {"up": ProviderConfig(base_url="https://api.example.com/v1", usd_per_day=1)}
    with pytest.raises(UpstreamError) as caught:
        Spend(known).begin("up", "m", 10, 10)
    assert (caught.value.status, caught.value.code) == (402, "price_unknown")
    assert '[providers.up.prices."m"]' in str(caught.value)
    # Servers of this machine cost nothing by the token, so a limit for all does not stop them.
    local = {"up": ProviderConfig(base_url=fake.url)}
    assert Spend(local, usd_per_day=1).begin("up", "m", 10, 10).amount == 0


def test_spend_when_the_server_starts_again_then_the_day_goes_on(control: ControlStore, fake: Any) -> None:
    known = {"up": config(fake, usd_per_day=1)}
    providers(known, control=control, writes=True)["up"].complete("m", HELLO)
    with control.session() as session:
        row = session.query(Usage).one()
        assert (row.model, row.prompt_tokens, row.completion_tokens) == ("up:fake-1-2026-01-01", 1000, 500)
        session.add(_row("up:fake-1-2026-01-01", utc_now() - datetime.timedelta(days=1)))
        session.add(_row("production", utc_now()))
        session.add(_row("other:m", utc_now()))
    assert Spend(known, control).spent("up") == pytest.approx(COST)


def test_spend_when_another_server_spends_too_then_it_is_seen_after_a_while(
    control: ControlStore, fake: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(spend_room, "REREAD_S", 0.0)
    spend = Spend({"up": config(fake, usd_per_day=1)}, control)
    assert spend.spent("up") == 0
    with control.session() as session:
        session.add(_row("up:m", utc_now()))
    assert spend.spent("up") == pytest.approx(COST)


def _row(model: str, at: datetime.datetime) -> Usage:
    return Usage(key_id=None, at=at, model=model, prompt_tokens=1000, completion_tokens=500, end_user=None)


@pytest.mark.parametrize("stream", [False, True])
def test_server_when_the_limit_is_reached_then_openais_error_and_usage_is_kept_once(
    start: Any, fake: Any, control: ControlStore, stream: bool
) -> None:
    known = {"up": config(fake, usd_per_day=1.5 * COST)}
    url, _ = start(providers=providers(known, control=control), control=control)
    body = {"model": "up:m", "messages": HELLO, "stream": stream, "max_tokens": 500}
    httpx.post(url + "/v1/chat/completions", json=body).raise_for_status()
    response = httpx.post(url + "/v1/chat/completions", json=body)
    error = response.json()["error"]
    assert (response.status_code, error["type"], error["code"]) == (429, "rate_limit_error", "spending_limit_reached")
    assert error.keys() == {"message", "type", "param", "code"}
    assert int(response.headers["retry-after"]) > 0
    start.stop(url)  # waits until usage is written
    with control.session() as session:
        assert sorted(row.prompt_tokens + row.completion_tokens for row in session.query(Usage).all()) == [0, 1500]
