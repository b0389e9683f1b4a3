"""Limits of keys: buckets, answers at once, budgets, scopes, and the headers that tell of them."""

import datetime
import time
from typing import Any

import httpx
import openai
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key, record_usage, scope_of
from gptwright.serve.limits import Account, Bucket, Limits, duration

CHAT = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "production", "messages": [{"role": "user", "content": "hi"}], "max_tokens": 10}
HEADERS = {f"x-ratelimit-{what}-{of}" for what in ("limit", "remaining", "reset") for of in ("requests", "tokens")}


def bearer(control: ControlStore, **options: Any) -> dict[str, str]:
    return {"Authorization": f"Bearer {create_key(control, 'test', **options)[0]}"}


def test_bucket_when_emptied_then_it_refills_evenly_and_never_beyond_its_size() -> None:
    now = [0.0]
    bucket = Bucket(60, clock=lambda: now[0])
    assert bucket.take(60) == 0
    assert bucket.take(1) == pytest.approx(1)
    now[0] = 1.0
    assert bucket.take(1) == 0
    now[0] = 1000.0
    assert bucket.remaining == 60
    bucket.take(30)
    assert bucket.reset_s == pytest.approx(30)
    bucket.give_back(-100)  # an answer grew longer than was thought
    assert bucket.remaining == 0
    assert bucket.take(1) == pytest.approx(71)


@given(st.lists(st.tuples(st.floats(0, 30), st.integers(0, 50)), max_size=50), st.integers(1, 100))
def test_bucket_when_used_in_any_order_then_no_minute_holds_more_than_two_fillings(
    steps: list[tuple[float, int]], capacity: int
) -> None:
    now = [0.0]
    bucket = Bucket(capacity, clock=lambda: now[0])
    taken: list[tuple[float, int]] = []
    for wait, amount in steps:
        now[0] += wait
        if amount <= capacity and bucket.take(amount) == 0:
            taken.append((now[0], amount))
        assert 0 <= bucket.remaining <= capacity
    for start, _ in taken:
        assert sum(amount for at, amount in taken if start <= at <= start + 60) <= 2 * capacity + 1


def test_reservation_when_settled_twice_then_it_counts_once() -> None:
    account = Account(Limits(tokens_per_minute=1000, max_concurrent=1))
    reservation = account.begin(500)
    assert account.tokens is not None
    assert (account.tokens.remaining, account.running) == (500, 1)
    reservation.settle(100)
    reservation.settle(100)
    assert (account.tokens.remaining, account.running, account.spent) == (900, 0, 100)


@pytest.mark.parametrize(
    ("seconds", "text"), [(0.0, "0ms"), (0.0123, "13ms"), (1.5, "1.5s"), (59.9, "59.9s"), (60, "1m0s"), (185.2, "3m6s")]
)
def test_duration_when_written_then_it_is_as_openai_writes_it(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_headers_when_a_key_has_limits_then_all_six_tell_of_them(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    headers = bearer(control, limits=Limits(requests_per_minute=3, tokens_per_minute=1000))
    response = httpx.post(url + CHAT, json=BODY, headers=headers)
    assert response.headers.keys() >= HEADERS
    assert response.headers["x-ratelimit-limit-requests"] == "3"
    assert response.headers["x-ratelimit-remaining-requests"] == "2"
    used = response.json()["usage"]["total_tokens"]
    assert 1000 - used - 20 <= int(response.headers["x-ratelimit-remaining-tokens"]) <= 1000 - used + 20
    client = openai.OpenAI(base_url=url + "/v1", api_key=headers["Authorization"][7:], max_retries=0)
    raw = client.chat.completions.with_raw_response.create(**BODY)
    assert raw.headers["x-ratelimit-remaining-requests"] == "1"
    assert raw.request_id.startswith("req_")  # type: ignore[union-attr]
    other = httpx.get(url + "/v1/models", headers=bearer(control))
    assert not HEADERS & other.headers.keys()


def test_requests_when_there_are_too_many_then_429_says_when_to_come_back(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True, requests_per_minute=2), control=control)
    headers = bearer(control)
    codes = [httpx.get(url + "/v1/models", headers=headers).status_code for _ in range(3)]
    assert codes == [200, 200, 429]
    refused = httpx.get(url + "/v1/models", headers=headers)
    assert refused.json()["error"]["code"] == "rate_limit_exceeded"
    assert refused.json()["error"]["type"] == "rate_limit_error"
    assert 1 <= int(refused.headers["retry-after"]) <= 30
    assert httpx.get(url + "/v1/models", headers=bearer(control)).status_code == 200  # another key has its own


def test_tokens_when_too_many_are_asked_for_then_429_and_what_was_not_used_comes_back(
    start: Any, control: ControlStore
) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    headers = bearer(control, limits=Limits(tokens_per_minute=1000))
    ask = {**BODY, "max_tokens": 800}  # reserved 800 and more, used about 30
    codes = [httpx.post(url + CHAT, json=ask, headers=headers).status_code for _ in range(3)]
    assert codes == [200, 200, 200]
    with httpx.stream(
        "POST",
        url + CHAT,
        json={**ask, "stream": True, "messages": [{"role": "user", "content": "slow"}]},
        headers=headers,
    ) as first:
        lines = first.iter_lines()
        next(lines)
        refused = httpx.post(url + CHAT, json=ask, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "rate_limit_exceeded")


def test_answers_when_a_key_has_too_many_at_once_then_429(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    headers = bearer(control, limits=Limits(max_concurrent=1))
    slow = {**BODY, "max_tokens": 3000, "stream": True, "messages": [{"role": "user", "content": "slow"}]}
    with httpx.stream("POST", url + CHAT, json=slow, headers=headers) as first:
        lines = first.iter_lines()
        next(lines)
        refused = httpx.post(url + CHAT, json=BODY, headers=headers)
        assert (refused.status_code, refused.json()["error"]["code"]) == (429, "concurrency_limit_exceeded")
        assert httpx.post(url + CHAT, json=BODY, headers=bearer(control)).status_code == 200
    end = time.monotonic() + 20
    while (code := httpx.post(url + CHAT, json=BODY, headers=headers).status_code) == 429 and time.monotonic() < end:
        time.sleep(0.02)
    assert code == 200


def test_budget_when_spent_then_429_until_midnight_also_after_a_restart(start: Any, control: ControlStore) -> None:
    key, info = create_key(control, "small", limits=Limits(tokens_per_day=50))
    headers = {"Authorization": f"Bearer {key}"}
    record_usage(control, info.id, "m", 10, 15)
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    assert httpx.post(url + CHAT, json=BODY, headers=headers).status_code == 200
    refused = httpx.post(url + CHAT, json=BODY, headers=headers)
    assert (refused.status_code, refused.json()["error"]["code"]) == (429, "insufficient_quota")
    now = datetime.datetime.now(datetime.UTC)
    left = 86400 - (now.hour * 3600 + now.minute * 60 + now.second)
    assert abs(int(refused.headers["retry-after"]) - left) < 100
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    assert httpx.post(url + CHAT, json=BODY, headers=headers).status_code == 429


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [
        (("api",), {"chat", "embeddings", "models", "tokenize", "files", "metrics"}),
        (("chat",), {"chat"}),
        (("embeddings", "models"), {"embeddings", "models"}),
        (("metrics",), {"metrics"}),
    ],
)
def test_scopes_when_a_key_has_some_then_only_those_paths_open(
    start: Any, control: ControlStore, scopes: tuple[str, ...], allowed: set[str]
) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    headers = bearer(control, scopes=scopes)
    asked: dict[str, tuple[str, str, Any]] = {
        "chat": ("POST", CHAT, BODY),
        "embeddings": ("POST", "/v1/embeddings", {"model": "production", "input": "x"}),
        "models": ("GET", "/v1/models/production", None),
        "tokenize": ("POST", "/tokenize", {"prompt": "x"}),
        "files": ("GET", "/v1/files", None),
        "metrics": ("GET", "/metrics", None),
    }
    found = set()
    for scope, (method, path, body) in asked.items():
        response = httpx.request(method, url + path, json=body, headers=headers)
        assert response.status_code in (200, 403), response.text
        found |= {scope} if response.status_code == 200 else set()
        if response.status_code == 403:
            assert response.json()["error"]["code"] == "scope_missing"
    assert found == allowed
    assert httpx.get(url + "/openapi.json", headers=headers, timeout=120).status_code == 200


def test_scope_of_when_a_path_only_begins_alike_then_it_is_not_that_scope() -> None:
    assert (scope_of("/v1/models"), scope_of("/v1/models/x"), scope_of("/v1/modelsx")) == ("models", "models", "api")


@pytest.mark.parametrize("options", [{"scopes": ("root",)}, {"scopes": ()}, {"limits": Limits(tokens_per_day=0)}])
def test_create_key_when_scope_or_limit_is_no_use_then_it_says_so(
    control: ControlStore, options: dict[str, Any]
) -> None:
    with pytest.raises(UserError):
        create_key(control, "test", **options)
