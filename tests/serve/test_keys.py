"""Keys, and who may call at all."""

import logging
from pathlib import Path
from typing import Any

import httpx
import pytest
import sqlalchemy as sa
from fastapi.routing import APIRoute

from gptwright.core.control import ApiKey, ControlStore, Feedback, Usage
from gptwright.core.errors import Refused, UserError
from gptwright.serve.config import ServeConfig
from gptwright.serve.edge import OPEN_PATHS
from gptwright.serve.keys import create_key, find_key, list_keys, revoke_key
from gptwright.serve.run import check_door

CHAT = "/v1/chat/completions"
BODY = {"model": "production", "messages": [{"role": "user", "content": "a secret question"}]}


def bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


def test_create_key_when_made_then_only_its_hash_is_kept_and_it_is_found(control: ControlStore) -> None:
    key, info = create_key(control, "laptop")
    found = find_key(control, key)
    assert found is not None
    assert (found.id, found.scopes) == (info.id, {"api"})
    assert find_key(control, key + "x") is None
    with control.session() as session:
        row = session.scalars(sa.select(ApiKey)).one()
        kept = f"{row.name} {row.hash} {row.prefix} {row.scopes}"
    assert key not in kept
    assert key[8:] not in kept
    assert len(key) > 40


def test_revoke_key_when_revoked_or_expired_then_it_opens_nothing(control: ControlStore) -> None:
    key, info = create_key(control, "laptop")
    brief, _ = create_key(control, "brief", lifetime_s=-1)
    assert revoke_key(control, "laptop").state == "revoked"
    assert (find_key(control, key), find_key(control, brief)) == (None, None)
    assert [entry.state for entry in list_keys(control)] == ["revoked", "expired"]
    with pytest.raises(UserError, match="no active key"):
        revoke_key(control, str(info.id))


def test_revoke_key_when_a_name_is_ambiguous_then_nothing_is_revoked(control: ControlStore) -> None:
    create_key(control, "same")
    create_key(control, "same")
    with pytest.raises(UserError, match="2 active keys"):
        revoke_key(control, "same")
    assert {entry.state for entry in list_keys(control)} == {"active"}


def test_every_endpoint_when_a_key_is_required_then_only_health_and_readiness_are_open(
    start: Any, control: ControlStore
) -> None:
    key, _ = create_key(control, "test")
    url, app = start(config=ServeConfig(require_key=True), control=control)
    routes = [route for route in app.routes if isinstance(route, APIRoute)]
    paths = {(method, route.path) for route in routes for method in route.methods} | {("GET", "/openapi.json")}
    assert len(paths) > 10
    for method, path in paths:
        status = httpx.request(
            method, url + path.replace("{model_id:path}", "x").replace("{path:path}", "y")
        ).status_code
        assert (status == 401) == (path not in OPEN_PATHS), (method, path, status)
    assert httpx.post(url + CHAT, json=BODY, headers=bearer(key)).status_code == 200


@pytest.mark.parametrize("header", ["Bearer", "Basic abc", "Bearer wrong", "bearer gw-\u00e9"])
def test_chat_when_the_key_is_wrong_then_401_in_openais_shape(start: Any, control: ControlStore, header: str) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    response = httpx.post(url + CHAT, json=BODY, headers={"Authorization": header.encode("latin-1")})
    assert response.status_code == 401
    assert response.headers["www-authenticate"] == "Bearer"
    assert response.json()["error"].keys() == {"message", "type", "param", "code"}


def test_chat_when_a_key_is_revoked_then_the_next_request_is_refused(start: Any, control: ControlStore) -> None:
    key, _ = create_key(control, "test")
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    assert httpx.post(url + CHAT, json=BODY, headers=bearer(key)).status_code == 200
    revoke_key(control, "test")
    assert httpx.post(url + CHAT, json=BODY, headers=bearer(key)).status_code == 401


def test_usage_when_requests_were_answered_then_their_tokens_are_kept_for_the_key(
    start: Any, control: ControlStore
) -> None:
    key, info = create_key(control, "test")
    url, app = start(config=ServeConfig(require_key=True), control=control)
    for stream in (False, True):
        httpx.post(url + CHAT, json={**BODY, "stream": stream}, headers=bearer(key))
    for _ in range(100):
        if not app.state.backend._records:
            break
        httpx.get(url + "/health")
    with control.session() as session:
        rows = session.scalars(sa.select(Usage)).all()
    assert [(row.key_id, row.model) for row in rows] == [(info.id, "demo-finetune-0123456789")] * 2
    assert {row.completion_tokens for row in rows} == {len("You said: a secret question") + 1}


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.168.1.5", "gpt.example.com"])
def test_check_door_when_others_could_reach_it_without_a_key_then_it_is_refused(
    host: str, control: ControlStore
) -> None:
    with pytest.raises(Refused, match="keys create"):
        check_door(ServeConfig(host=host), control)
    with pytest.raises(Refused):
        check_door(ServeConfig(host=host), None)
    create_key(control, "someone")
    check_door(ServeConfig(host=host), control)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", "127.9.9.9"])
def test_check_door_when_only_this_machine_can_reach_it_then_no_key_is_needed(host: str) -> None:
    check_door(ServeConfig(host=host), None)


def test_check_door_when_the_only_key_is_revoked_then_it_is_refused(control: ControlStore) -> None:
    create_key(control, "gone")
    revoke_key(control, "gone")
    with pytest.raises(Refused):
        check_door(ServeConfig(host="0.0.0.0"), control)


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://["}, 403),
        ({"Origin": "http://[1.2]:80"}, 403),
        ({"Origin": ""}, 403),
        ({"Host": "[1.2]"}, 403),
        ({"Host": "evil.example"}, 403),
        ({"Host": "evil.example:8000"}, 403),
        ({"Host": "localhost"}, 200),
        ({"Host": "127.0.0.1:1", "Origin": "http://127.0.0.1:1"}, 200),
        ({"Host": "gpt.example.com"}, 200),
    ],
)
def test_chat_when_a_page_of_another_site_or_a_foreign_name_calls_then_it_is_refused(
    stored: Any, headers: dict[str, str], status: int
) -> None:
    url, _ = stored(config=ServeConfig(allowed_hosts=["gpt.example.com"]))
    response = httpx.post(url + CHAT, json=BODY, headers=headers)
    assert response.status_code == status
    assert "access-control-allow-origin" not in response.headers


def test_log_when_requests_come_then_no_text_and_no_key_is_in_it(
    start: Any, control: ControlStore, caplog: pytest.LogCaptureFixture
) -> None:
    key, _ = create_key(control, "test")
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    with caplog.at_level(logging.DEBUG):
        httpx.post(url + CHAT + "?q=hidden", json=BODY, headers=bearer(key))
        httpx.post(url + CHAT, json={**BODY, "n": 500}, headers=bearer(key))
    ours = "\n".join(
        record.getMessage() for record in caplog.records if record.name.startswith(("gptwright", "uvicorn"))
    )
    assert f"POST {CHAT} 200" in ours
    assert f"POST {CHAT} 400" in ours
    assert not any(secret in ours for secret in ("secret", "hidden", key))


def test_feedback_when_consent_is_given_then_it_is_kept_masked_and_otherwise_only_the_judgement(
    start: Any, control: ControlStore
) -> None:
    url, _ = start(control=control)
    messages = [{"role": "user", "content": "I am bob@example.org"}, {"role": "assistant", "content": "Hello"}]
    common = {"model": "demo-finetune-0123456789", "kind": "thumb", "messages": messages}
    first = httpx.post(url + "/v1/feedback", json={**common, "value": {"up": True}, "consent": True})
    second = httpx.post(url + "/v1/feedback", json={**common, "value": {"text": "call +1 650 253 0000"}})
    assert (first.status_code, first.json()["messages_kept"], second.json()["messages_kept"]) == (201, 2, 0)
    with control.session() as session:
        rows = session.scalars(sa.select(Feedback).order_by(Feedback.id)).all()
    assert [row.messages for row in rows] == [[{"role": "user", "content": "I am [EMAIL]"}, messages[1]], []]
    assert [row.value for row in rows] == [{"up": True}, {"text": "call [PHONE]"}]


@pytest.mark.parametrize(
    "value",
    [
        {"more": {"mail": "bob@example.org"}},
        {"more": ["bob@example.org"]},
        {"more": None},
        {"bob@example.org": True},
        {"": 1},
        {"k" * 41: 1},
        {str(i): i for i in range(21)},
        ["up"],
    ],
)
def test_feedback_when_the_value_is_not_a_flat_list_of_short_names_then_400_and_nothing_is_kept(
    start: Any, control: ControlStore, value: Any
) -> None:
    url, _ = start(control=control)
    response = httpx.post(url + "/v1/feedback", json={"model": "m", "kind": "comment", "value": value})
    assert response.status_code == 400
    assert str(response.json()["error"]["param"]).startswith("value")
    with control.session() as session:
        assert session.scalars(sa.select(Feedback)).all() == []


def test_feedback_when_the_value_holds_every_kind_then_types_are_kept_and_all_texts_masked(
    start: Any, control: ControlStore
) -> None:
    url, _ = start(control=control)
    value = {"up": True, "stars": 4, "share": 0.5, "text": "to bob@example.org", "more": "bob@example.org"}
    posted = {"model": "m", "kind": "comment", "value": value}
    assert httpx.post(url + "/v1/feedback", json=posted).status_code == 201
    with control.session() as session:
        kept = session.scalars(sa.select(Feedback)).one().value
    assert kept == {**value, "text": "to [EMAIL]", "more": "[EMAIL]"}
    assert [type(item) for item in kept.values()] == [bool, int, float, str, str]


def test_keeping_when_there_is_no_store_then_it_says_so(start: Any) -> None:
    url, _ = start()
    response = httpx.post(url + "/v1/feedback", json={"model": "m", "kind": "thumb", "value": {}})
    assert (response.status_code, response.json()["error"]["code"]) == (501, "no_control_store")
    for path in (
        "/v1/responses/x",
        "/v1/chat/completions",
        "/v1/chat/completions/x",
        "/v1/files",
        "/v1/batches",
        "/v1/conversations/x",
    ):
        assert httpx.get(url + path).status_code == 501
    asked = {"model": "production", "input": "hello"}
    answer = httpx.post(url + "/v1/responses", json=asked)
    assert (answer.status_code, answer.json()["store"]) == (200, False)
    chat = {"model": "production", "messages": [{"role": "user", "content": "hello"}]}
    for path, body in (("/v1/responses", asked), ("/v1/chat/completions", chat)):
        refused = httpx.post(url + path, json={**body, "store": True})
        assert (refused.status_code, refused.json()["error"]["param"]) == (400, "store")


def test_feedback_when_taken_back_then_only_the_callers_own_goes_and_its_words_leave_the_file(
    start: Any, control: ControlStore
) -> None:
    url, _ = start(control=control)
    said = [{"role": "user", "content": "unmistakable"}, {"role": "assistant", "content": "Hello"}]
    posted = {"model": "m", "kind": "thumb", "value": {"up": True}, "messages": said, "consent": True, "user": "ann"}
    ids = [httpx.post(url + "/v1/feedback", json=posted).json()["id"] for _ in range(3)]
    other = httpx.post(url + "/v1/feedback", json={**posted, "user": "bob", "messages": []}).json()["id"]
    with control.session() as session:
        assert "ann" not in str([row.end_user for row in session.scalars(sa.select(Feedback))])
    assert httpx.delete(f"{url}/v1/feedback/{ids[0]}").json() == {"object": "feedback.deleted", "deleted": 1}
    assert httpx.delete(f"{url}/v1/feedback/{ids[0]}").status_code == 404
    assert httpx.delete(f"{url}/v1/feedback/{10**30}").status_code == 404
    assert httpx.delete(f"{url}/v1/feedback", params={"user": "ann"}).json()["deleted"] == 2
    assert httpx.delete(f"{url}/v1/feedback").status_code == 400
    with control.session() as session:
        assert [row.id for row in session.scalars(sa.select(Feedback))] == [other]
    if control.engine.dialect.name == "sqlite":
        file = Path(str(control.engine.url.database))
        for path in (file, file.with_name(file.name + "-wal")):
            assert not path.exists() or b"unmistakable" not in path.read_bytes()
