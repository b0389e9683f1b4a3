"""Stored chat completions with the official client, and as OpenAI's description of its API wants them."""

import json
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore
from gptwright.core.serving_tables import StoredChat
from gptwright.guard.config import GuardConfig
from gptwright.guard.guard import Guard
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key

MODEL, OTHER = "demo-finetune-0123456789", "demo-broken-9999999999"
CHATS = "/v1/chat/completions"
BODY: dict[str, Any] = {"model": "production", "messages": [{"role": "user", "content": "hello"}], "store": True}


@pytest.fixture(scope="module")
def client(shared: tuple[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=shared[0] + "/v1", api_key="none", max_retries=0)


def ask(client: openai.OpenAI, text: str, **more: Any) -> Any:
    messages: Any = [{"role": "system", "content": "be brief"}, {"role": "user", "content": text}]
    return client.chat.completions.create(model="production", messages=messages, store=True, **more)


def test_chat_when_stored_then_the_client_reads_labels_lists_and_deletes_it(client: openai.OpenAI) -> None:
    made = ask(client, "hello", metadata={"topic": "one"}, temperature=0.5, seed=3)
    found = client.chat.completions.retrieve(made.id)
    assert (found.choices[0].message.content, found.model) == ("You said: hello", MODEL)
    assert found.usage == made.usage
    assert found.model_extra is not None
    assert (found.model_extra["temperature"], found.model_extra["seed"]) == (0.5, 3)
    assert found.metadata == {"topic": "one"}  # type: ignore[attr-defined]
    said = client.chat.completions.messages.list(made.id)
    assert [(message.role, message.content) for message in said.data] == [("system", "be brief"), ("user", "hello")]
    changed = client.chat.completions.update(made.id, metadata={"topic": "two", "é\"'": "🙂"})
    assert changed.metadata == {"topic": "two", "é\"'": "🙂"}  # type: ignore[attr-defined]
    listed = client.chat.completions.list(metadata={"topic": "two", "é\"'": "🙂"})
    assert [chat.id for chat in listed.data] == [made.id]
    assert client.chat.completions.list(metadata={"topic": "one"}).data == []
    assert client.chat.completions.delete(made.id).deleted
    for gone in (
        client.chat.completions.retrieve,
        client.chat.completions.delete,
        client.chat.completions.messages.list,
        lambda chat_id: client.chat.completions.update(chat_id, metadata=None),
    ):
        with pytest.raises(openai.NotFoundError):
            gone(made.id)


def test_chats_when_listed_by_pages_then_every_one_comes_once_in_both_orders(client: openai.OpenAI) -> None:
    made = [ask(client, f"number {i}", metadata={"set": "pages"}).id for i in range(7)]
    ask(client, "not one of them")
    assert client.chat.completions.list(model=OTHER).data == []
    for model in ("production", MODEL):
        chats = client.chat.completions.list(model=model, metadata={"set": "pages"}, limit=3)
        assert [chat.id for chat in chats] == made  # the client asks for the next page by itself
    back = client.chat.completions.list(model=MODEL, metadata={"set": "pages"}, limit=2, order="desc")
    assert [chat.id for chat in back] == made[::-1]
    messages = client.chat.completions.messages.list(made[0], limit=1, order="desc")
    assert [message.content for message in messages] == ["number 0", "be brief"]


@pytest.mark.parametrize("text", ["hello", "unicode"])
def test_chat_when_streamed_and_stored_then_it_is_there_at_the_end_and_whole(client: openai.OpenAI, text: str) -> None:
    said, chat_id = "", ""
    for chunk in ask(client, text, stream=True, n=2, logprobs=True, metadata={"a": "b"}):
        chat_id = chunk.id
        said += "".join(choice.delta.content or "" for choice in chunk.choices if choice.index == 1)
    found = client.chat.completions.retrieve(chat_id)
    assert [choice.message.content for choice in found.choices] == [said, said]
    assert all(choice.logprobs is not None and choice.logprobs.content for choice in found.choices)
    assert found.metadata == {"a": "b"}  # type: ignore[attr-defined]


def test_answers_when_compared_with_openais_description_then_they_are_valid(
    shared: tuple[str, Any], check: Any
) -> None:
    url = shared[0] + CHATS
    parts = [{"type": "text", "text": "hel"}, {"type": "text", "text": "lo"}]
    tool = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}
    asked = {**BODY, "messages": [{"role": "user", "content": parts}], "logprobs": True, "metadata": {"shape": "1"}}
    made = httpx.post(url, json={**asked, "tools": [tool], "tool_choice": "none"}).json()
    check("CreateChatCompletionResponse", made)
    found = httpx.get(f"{url}/{made['id']}").json()
    check("CreateChatCompletionResponse", found)
    assert {**found, **made} == found
    assert (found["tools"], found["tool_choice"]) == ([tool], "none")
    check("ChatCompletionList", httpx.get(url, params={"metadata[shape]": "1"}).json())
    check("ChatCompletionList", httpx.get(url, params={"metadata[shape]": "none"}).json())
    messages = httpx.get(f"{url}/{made['id']}/messages").json()
    assert messages["data"][0]["content_parts"] == parts
    assert messages["data"][0]["content"] == "hello"
    # OpenAI's schema knows assistants only; its own example has a user.
    check("ChatCompletionMessageList", {**messages, "data": [{**row, "role": "assistant"} for row in messages["data"]]})
    check("CreateChatCompletionResponse", httpx.post(f"{url}/{made['id']}", json={"metadata": None}).json())
    check("ChatCompletionDeleted", httpx.delete(f"{url}/{made['id']}").json())
    check("ErrorResponse", httpx.get(f"{url}/{made['id']}").json())


def test_chat_when_it_is_not_to_be_stored_or_fails_then_nothing_is_kept(start: Any, control: ControlStore) -> None:
    url, _ = start(control=control)
    for more in ({"store": False}, {"store": None}, {"messages": [{"role": "user", "content": "fail"}]}):
        for stream in (False, True):
            httpx.post(url + CHATS, json={**BODY, **more, "stream": stream})
    with control.session() as session:
        assert session.scalars(sa.select(StoredChat)).all() == []


def test_chat_when_kept_then_personal_data_is_masked_and_so_are_its_log_probabilities(
    start: Any, control: ControlStore
) -> None:
    url, _ = start(control=control, guard=Guard(GuardConfig(mask_answers=False)))
    call = {"id": "c1", "function": {"name": "mail", "arguments": '{"to": "ann@example.org"}'}}
    messages = [
        {"role": "system", "content": "Call +1 650 253 0000"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": [{"type": "text", "text": "sent to ann@example.org"}]},
        {"role": "user", "content": "I am bob@example.org"},
    ]
    made = httpx.post(url + CHATS, json={**BODY, "messages": messages, "logprobs": True}).json()
    assert "bob@example.org" in made["choices"][0]["message"]["content"]
    with control.session() as session:
        row = session.scalars(sa.select(StoredChat)).one()
        kept = json.dumps([row.body, row.messages])
    assert kept.count("[EMAIL]") == 5  # a text of parts is kept whole and in its parts
    assert "[PHONE]" in kept
    assert not any(word in kept for word in ("bob", "ann@", "650"))
    assert row.body["choices"][0]["logprobs"] == {"content": None, "refusal": None}
    assert httpx.get(f"{url}{CHATS}/{made['id']}/messages").json()["data"][2]["tool_call_id"] == "c1"


def test_chat_when_another_key_asks_then_there_is_none(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    mine, theirs = ({"Authorization": f"Bearer {create_key(control, name)[0]}"} for name in ("mine", "theirs"))
    made = httpx.post(url + CHATS, json=BODY, headers=mine).json()["id"]
    one = f"{url}{CHATS}/{made}"
    for path in (one, one + "/messages"):
        assert httpx.get(path, headers=mine).status_code == 200
        assert httpx.get(path, headers=theirs).status_code == 404
    assert httpx.post(one, json={"metadata": {}}, headers=theirs).status_code == 404
    assert httpx.delete(one, headers=theirs).status_code == 404
    assert httpx.get(url + CHATS, headers=theirs).json()["data"] == []
    assert httpx.get(url + CHATS, params={"after": made}, headers=theirs).status_code == 404
    assert [row["id"] for row in httpx.get(url + CHATS, headers=mine).json()["data"]] == [made]


def test_chat_when_its_time_is_over_then_it_is_gone_and_its_row_too(start: Any, control: ControlStore) -> None:
    url, app = start(config=ServeConfig(responses_kept=0.001), control=control)
    made = httpx.post(url + CHATS, json=BODY).json()
    assert httpx.get(f"{url}{CHATS}/{made['id']}").status_code == 404
    assert httpx.get(url + CHATS).json()["data"] == []
    app.state.batches._clean()
    with control.session() as session:
        assert session.scalars(sa.select(StoredChat)).all() == []


@pytest.mark.parametrize(
    ("method", "path", "more", "param"),
    [
        ("POST", CHATS, {"json": {**BODY, "store": False, "metadata": {"a": "b"}}}, "metadata"),
        ("POST", CHATS, {"json": {**BODY, "metadata": {"a": 1}}}, "metadata"),
        ("POST", CHATS, {"json": {**BODY, "metadata": {str(i): "" for i in range(17)}}}, "metadata"),
        ("POST", CHATS, {"json": {**BODY, "store": "yes please"}}, "store"),
        ("POST", CHATS + "/x", {"json": {}}, "metadata"),
        ("GET", CHATS, {"params": {"metadata": "x"}}, "metadata"),
        ("GET", CHATS, {"params": {"metadata[a][b]": "x", "metadata[": "x"}}, "metadata"),
        ("GET", CHATS, {"params": {f"metadata[{i}]": "x" for i in range(17)}}, "metadata"),
        ("GET", CHATS, {"params": {"limit": 0}}, "limit"),
        ("GET", CHATS, {"params": {"order": "up"}}, "order"),
        ("GET", CHATS, {"params": {"after": "chatcmpl-none"}}, "after"),
        ("GET", CHATS + "/chatcmpl-none", {}, "completion_id"),
    ],
)
def test_request_when_a_value_is_wrong_then_the_error_names_the_field(
    shared: tuple[str, Any], method: str, path: str, more: dict[str, Any], param: str
) -> None:
    response = httpx.request(method, shared[0] + path, **more)
    assert response.status_code in (400, 404), response.text
    assert str(response.json()["error"]["param"]).startswith(param)
