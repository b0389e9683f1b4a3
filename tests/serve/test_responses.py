"""Responses and conversations with the official client, and as OpenAI's description of its API wants them."""

import json
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore
from gptwright.core.serving_tables import StoredResponse
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key

MODEL = "demo-finetune-0123456789"
EVENTS = {
    "response.created": "ResponseCreatedEvent",
    "response.in_progress": "ResponseInProgressEvent",
    "response.output_item.added": "ResponseOutputItemAddedEvent",
    "response.content_part.added": "ResponseContentPartAddedEvent",
    "response.output_text.delta": "ResponseTextDeltaEvent",
    "response.output_text.done": "ResponseTextDoneEvent",
    "response.content_part.done": "ResponseContentPartDoneEvent",
    "response.output_item.done": "ResponseOutputItemDoneEvent",
    "response.completed": "ResponseCompletedEvent",
    "response.incomplete": "ResponseIncompleteEvent",
    "response.failed": "ResponseFailedEvent",
}


@pytest.fixture(scope="module")
def client(shared: tuple[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=shared[0] + "/v1", api_key="none", max_retries=0)


def events(response: httpx.Response) -> list[Any]:
    assert response.status_code == 200, response.text
    return [json.loads(line[6:]) for line in response.text.splitlines() if line.startswith("data: ")]


def test_response_when_created_then_the_client_reads_it_and_finds_it_again(client: openai.OpenAI) -> None:
    made = client.responses.create(model="production", input="hello", metadata={"a": "b"})
    assert (made.output_text, made.status, made.model) == ("You said: hello", "completed", MODEL)
    assert made.usage is not None
    assert made.usage.output_tokens == len("You said: hello") + 1
    found = client.responses.retrieve(made.id)
    assert found.output_text == made.output_text
    assert found.metadata == {"a": "b"}
    items = client.responses.input_items.list(made.id).data
    assert [item.content[0].text for item in items] == ["hello"]  # type: ignore[union-attr]
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


def test_response_when_it_follows_others_then_the_model_sees_the_whole_chain(
    client: openai.OpenAI, shared: tuple[str, Any]
) -> None:
    first = client.responses.create(model="production", input="one", instructions="secret order")
    second = client.responses.create(model="production", input="two", previous_response_id=first.id)
    client.responses.create(model="production", input="three", previous_response_id=second.id, instructions="be brief")
    seen = shared[1].prompts[-1]
    turns = ["system\nbe brief", "user\none", "assistant\nYou said: one", "user\ntwo", "assistant\nYou said: two"]
    assert [seen.index(turn) for turn in [*turns, "user\nthree"]] == sorted(
        seen.index(t) for t in [*turns, "user\nthree"]
    )
    assert "secret order" not in seen  # instructions hold for one response
    with pytest.raises(openai.NotFoundError) as caught:
        client.responses.create(model="production", input="x", previous_response_id="resp_gone")
    assert (caught.value.param, caught.value.code) == ("previous_response_id", "previous_response_not_found")


@pytest.mark.parametrize("text", ["hello", "unicode"])
def test_response_when_streamed_then_the_clients_events_make_the_same_text(client: openai.OpenAI, text: str) -> None:
    whole = client.responses.create(model="production", input=text).output_text
    with client.responses.stream(model="production", input=text) as stream:
        said = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
        final = stream.get_final_response()
    assert said == whole == final.output_text
    assert client.responses.retrieve(final.id).output_text == whole


def test_response_when_the_limit_is_reached_then_it_is_incomplete(client: openai.OpenAI) -> None:
    made = client.responses.create(model="production", input="hello", max_output_tokens=3)
    assert (made.output_text, made.status) == ("You", "incomplete")
    assert made.incomplete_details is not None
    assert made.incomplete_details.reason == "max_output_tokens"


def test_answers_when_compared_with_openais_description_then_they_are_valid(
    shared: tuple[str, Any], check: Any
) -> None:
    url = shared[0] + "/v1/responses"
    body = {"model": "production", "input": "hello", "include": ["message.output_text.logprobs"], "top_logprobs": 2}
    made = httpx.post(url, json=body).json()
    check("Response", made)
    assert len(made["output"][0]["content"][0]["logprobs"][0]["top_logprobs"]) == 2
    check("Response", httpx.get(f"{url}/{made['id']}").json())
    check("ResponseItemList", httpx.get(f"{url}/{made['id']}/input_items").json())
    for extra in ({}, {"max_output_tokens": 3}, {"input": "fail"}):
        found = events(httpx.post(url, json={**body, "stream": True, **extra}))
        for event in found:
            check(EVENTS[event["type"]], event)
        assert [event["sequence_number"] for event in found] == list(range(len(found)))
    assert found[-1]["type"] == "response.failed"
    assert "broke" not in json.dumps(found)
    check("TokenCountsResource", httpx.post(f"{url}/input_tokens", json=body).json())
    conversation = httpx.post(shared[0] + "/v1/conversations", json={"metadata": {"a": "b"}}).json()
    check("ConversationResource", conversation)
    check("ErrorResponse", httpx.get(f"{url}/resp_none").json())


def test_conversation_when_responses_go_on_with_it_then_it_holds_every_turn(
    client: openai.OpenAI, shared: tuple[str, Any]
) -> None:
    start: list[Any] = [{"type": "message", "role": "user", "content": "my name is Ada"}]
    conversation = client.conversations.create(items=start, metadata={"topic": "names"})
    for text in ("one", "two"):
        made = client.responses.create(model="production", input=text, conversation=conversation.id)
        assert made.conversation is not None
    assert "my name is Ada" in shared[1].prompts[-1]
    assert "You said: one" in shared[1].prompts[-1]
    items = client.conversations.items.list(conversation.id, order="asc").data
    said = [item.content[0].text for item in items]  # type: ignore[union-attr]
    assert said == ["my name is Ada", "one", "You said: one", "two", "You said: two"]
    page = client.conversations.items.list(conversation.id, limit=2)
    assert [item.id for item in page.data] == [items[-1].id, items[-2].id]
    assert page.has_more
    client.conversations.items.delete(str(items[0].id), conversation_id=conversation.id)
    assert client.conversations.update(conversation.id, metadata={"topic": "x"}).metadata == {"topic": "x"}
    assert len(client.conversations.items.list(conversation.id).data) == 4
    client.conversations.delete(conversation.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.create(model="production", input="x", conversation=conversation.id)


def test_response_when_it_is_not_to_be_stored_then_nothing_is_kept(start: Any, control: ControlStore) -> None:
    url, _ = start(control=control)
    made = httpx.post(url + "/v1/responses", json={"model": "production", "input": "hello", "store": False}).json()
    assert made["store"] is False
    assert httpx.get(f"{url}/v1/responses/{made['id']}").status_code == 404
    with control.session() as session:
        assert session.scalars(sa.select(StoredResponse)).all() == []


def test_response_when_kept_then_personal_data_is_masked_and_so_are_its_log_probabilities(
    start: Any, control: ControlStore
) -> None:
    from gptwright.guard.config import GuardConfig
    from gptwright.guard.guard import Guard

    url, _ = start(control=control, guard=Guard(GuardConfig(mask_answers=False)))
    body = {"model": "production", "input": "I am bob@example.org", "instructions": "Call +1 650 253 0000"}
    made = httpx.post(url + "/v1/responses", json={**body, "include": ["message.output_text.logprobs"]}).json()
    assert "bob@example.org" in made["output"][0]["content"][0]["text"]
    with control.session() as session:
        row = session.scalars(sa.select(StoredResponse)).one()
        kept = json.dumps([row.body, row.items])
    assert "[EMAIL]" in kept
    assert "[PHONE]" in kept
    assert "bob" not in kept
    assert row.body["output"][0]["content"][0]["logprobs"] == []


def test_response_when_another_key_asks_then_there_is_none(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    mine, theirs = ({"Authorization": f"Bearer {create_key(control, name)[0]}"} for name in ("mine", "theirs"))
    body = {"model": "production", "input": "hello"}
    made = httpx.post(url + "/v1/responses", json=body, headers=mine).json()["id"]
    talk = httpx.post(url + "/v1/conversations", json={}, headers=mine).json()["id"]
    for path in (f"/v1/responses/{made}", f"/v1/responses/{made}/input_items", f"/v1/conversations/{talk}"):
        assert httpx.get(url + path, headers=mine).status_code == 200
        assert httpx.get(url + path, headers=theirs).status_code == 404
    for extra in ({"previous_response_id": made}, {"conversation": talk}):
        assert httpx.post(url + "/v1/responses", json={**body, **extra}, headers=theirs).status_code == 404
        assert httpx.post(url + "/v1/responses", json={**body, **extra}, headers=mine).status_code == 200
    assert httpx.delete(f"{url}/v1/responses/{made}", headers=theirs).status_code == 404


def test_response_when_its_time_is_over_then_it_is_gone(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(responses_kept=0.001), control=control)
    made = httpx.post(url + "/v1/responses", json={"model": "production", "input": "hello"}).json()
    assert httpx.get(f"{url}/v1/responses/{made['id']}").status_code == 404


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"input": []}, "input"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"input": [{"role": "user", "content": [{"type": "input_image"}]}]}, "input[0].content"),
        ({"input": "x" * 200_000}, "input"),
        ({"include": ["file_search_call.results"]}, "include[0]"),
        ({"previous_response_id": "a", "conversation": "b"}, "previous_response_id"),
        ({"text": {"format": {"type": "json_schema"}}}, "text.format.schema"),
        ({"metadata": {"a": 1}}, "metadata"),
        ({"stream_options": {}}, "stream_options"),
    ],
)
def test_response_when_a_value_is_wrong_then_400_names_the_field(
    shared: tuple[str, Any], extra: dict[str, Any], param: str
) -> None:
    response = httpx.post(shared[0] + "/v1/responses", json={"model": "production", "input": "hello", **extra})
    assert response.status_code == 400, response.text
    assert str(response.json()["error"]["param"]).startswith(param)
