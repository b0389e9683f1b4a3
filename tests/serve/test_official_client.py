"""Every endpoint through the official ``openai`` client (``anthropic`` for its shape); an endpoint without a case here fails."""

import io
import json
import time
from collections.abc import Callable
from typing import Any

import anthropic
import httpx
import openai
import pytest

MODEL = "demo-finetune-0123456789"
ASK: list[Any] = [{"role": "user", "content": "hello"}]
SAID = "You said: hello"
TOOL: list[Any] = [{"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}]

OUTSIDE = {
    "GET /health": "for orchestrators",
    "GET /ready": "for orchestrators",
    "GET /metrics": "for Prometheus",
}
"""What no client of OpenAI's asks for."""

Case = Callable[[openai.OpenAI], None]
CASES: dict[str, Case] = {}


def case(*endpoints: str) -> Callable[[Case], Case]:
    """What proves that the client gets along with these endpoints."""

    def add(work: Case) -> Case:
        CASES.update(dict.fromkeys(endpoints, work))
        return work

    return add


def raw(client: openai.OpenAI, method: str, path: str, **sent: Any) -> dict[str, Any]:
    """An endpoint that is not OpenAI's, through its client all the same: its key, its errors, its retries."""
    asks = {"GET": client.get, "POST": client.post, "DELETE": client.delete}
    ask: Any = asks[method]
    base = str(client.base_url).removesuffix("v1/")
    response: httpx.Response = ask(base.rstrip("/") + path, cast_to=httpx.Response, **sent)
    return dict(response.json())


@case("GET /v1/models", "GET /v1/models/{model_id}")
def _models(client: openai.OpenAI) -> None:
    assert MODEL in [model.id for model in client.models.list()]
    assert client.models.retrieve("production").object == "model"
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")


@case("POST /v1/chat/completions")
def _chat(client: openai.OpenAI) -> None:
    whole = client.chat.completions.create(model="production", messages=ASK, logprobs=True, top_logprobs=2, n=2)
    assert [choice.message.content for choice in whole.choices] == [SAID, SAID]
    assert whole.choices[0].logprobs is not None
    assert whole.usage is not None
    streamed, usage = "", None
    options: Any = {"include_usage": True}
    for chunk in client.chat.completions.create(
        model="production", messages=ASK, stream=True, stream_options=options, tools=TOOL, tool_choice="none"
    ):
        streamed += (chunk.choices[0].delta.content or "") if chunk.choices else ""
        usage = chunk.usage or usage
    assert streamed == SAID
    assert usage is not None
    assert usage.completion_tokens * 2 == whole.usage.completion_tokens
    with client.chat.completions.stream(model="production", messages=ASK) as helper:
        assert helper.get_final_completion().choices[0].message.content == SAID
    raw_answer = client.chat.completions.with_raw_response.create(model="production", messages=ASK)
    assert raw_answer.headers["x-request-id"] == raw_answer.parse()._request_id


@case(
    "GET /v1/chat/completions",
    "GET /v1/chat/completions/{completion_id}",
    "POST /v1/chat/completions/{completion_id}",
    "DELETE /v1/chat/completions/{completion_id}",
    "GET /v1/chat/completions/{completion_id}/messages",
)
def _stored_chats(client: openai.OpenAI) -> None:
    made = client.chat.completions.create(model="production", messages=ASK, store=True, metadata={"a": "b"})
    assert made.id in [one.id for one in client.chat.completions.list(model="production", metadata={"a": "b"})]
    assert client.chat.completions.retrieve(made.id).choices[0].message.content == SAID
    assert [message.content for message in client.chat.completions.messages.list(made.id)] == ["hello"]
    assert client.chat.completions.update(made.id, metadata={"c": "d"}).id == made.id
    assert client.chat.completions.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.chat.completions.retrieve(made.id)


@case("POST /v1/completions")
def _completions(client: openai.OpenAI) -> None:
    many = client.completions.create(model="production", prompt=["a", "b"], echo=True, logprobs=1, max_tokens=3)
    assert [choice.text[0] for choice in many.choices] == ["a", "b"]
    ids = raw(client, "POST", "/tokenize", body={"model": "production", "prompt": "hello"})["tokens"]
    assert client.completions.create(model="production", prompt=ids).choices[0].text == SAID
    stream = client.completions.create(model="production", prompt="hello", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream if chunk.choices) == SAID


@case("POST /v1/embeddings")
def _embeddings(client: openai.OpenAI) -> None:
    plain = client.embeddings.create(model="production", input=["abc", "bcd"], encoding_format="float")
    packed = client.embeddings.create(model="production", input=["abc", "bcd"])  # the client asks for base64
    for one, other in zip(plain.data, packed.data, strict=True):
        assert one.embedding == pytest.approx(other.embedding, abs=1e-6)


@case("POST /v1/moderations")
def _moderations(client: openai.OpenAI) -> None:
    found = client.moderations.create(input=["hello", "mail bob@example.org"])
    assert len(found.results) == 2
    assert isinstance(found.results[0].flagged, bool)


@case(
    "POST /v1/responses",
    "GET /v1/responses/{response_id}",
    "DELETE /v1/responses/{response_id}",
    "GET /v1/responses/{response_id}/input_items",
    "POST /v1/responses/input_tokens",
    "POST /v1/responses/{response_id}/cancel",
)
def _responses(client: openai.OpenAI) -> None:
    made = client.responses.create(model="production", input="hello")
    assert made.output_text == SAID
    assert client.responses.retrieve(made.id).output_text == SAID
    assert [item.type for item in client.responses.input_items.list(made.id)] == ["message"]
    follows = client.responses.create(model="production", input="hello", previous_response_id=made.id)
    assert follows.previous_response_id == made.id
    with client.responses.stream(model="production", input="hello", store=False) as stream:
        assert [event.type for event in stream][-1] == "response.completed"
    assert client.responses.input_tokens.count(model="production", input="hello").input_tokens > 0
    with pytest.raises(openai.BadRequestError):  # only what runs in the background can be cancelled
        client.responses.cancel(made.id)
    client.responses.delete(made.id)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)


@case(
    "POST /v1/conversations",
    "GET /v1/conversations/{conversation_id}",
    "POST /v1/conversations/{conversation_id}",
    "DELETE /v1/conversations/{conversation_id}",
    "GET /v1/conversations/{conversation_id}/items",
    "POST /v1/conversations/{conversation_id}/items",
    "GET /v1/conversations/{conversation_id}/items/{item_id}",
    "DELETE /v1/conversations/{conversation_id}/items/{item_id}",
)
def _conversations(client: openai.OpenAI) -> None:
    made = client.conversations.create(metadata={"a": "b"})
    client.responses.create(model="production", input="hello", conversation=made.id)
    items: list[Any] = [{"type": "message", "role": "user", "content": "more"}]
    added = client.conversations.items.create(made.id, items=items)
    assert len(client.conversations.items.list(made.id, limit=10).data) == 3
    assert client.conversations.items.retrieve(added.data[0].id, conversation_id=made.id).type == "message"
    client.conversations.items.delete(added.data[0].id, conversation_id=made.id)
    assert client.conversations.update(made.id, metadata={"c": "d"}).metadata == {"c": "d"}
    assert client.conversations.retrieve(made.id).metadata == {"c": "d"}
    assert client.conversations.delete(made.id).deleted
    with pytest.raises(openai.NotFoundError):
        client.conversations.retrieve(made.id)


@case(
    "POST /v1/files",
    "GET /v1/files",
    "GET /v1/files/{file_id}",
    "GET /v1/files/{file_id}/content",
    "DELETE /v1/files/{file_id}",
    "POST /v1/batches",
    "GET /v1/batches",
    "GET /v1/batches/{batch_id}",
    "POST /v1/batches/{batch_id}/cancel",
)
def _files_and_batches(client: openai.OpenAI) -> None:
    body = {"model": "production", "messages": ASK}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
    sent = client.files.create(file=("in.jsonl", io.BytesIO(line.encode())), purpose="batch")
    assert sent.id in [file.id for file in client.files.list()]
    assert client.files.retrieve(sent.id).bytes == len(line)
    assert client.files.content(sent.id).text == line
    settings: dict[str, Any] = {"endpoint": "/v1/chat/completions", "completion_window": "24h"}
    batch = client.batches.create(input_file_id=sent.id, **settings)
    end = time.monotonic() + 60
    while (found := client.batches.retrieve(batch.id)).status not in ("completed", "failed"):
        assert time.monotonic() < end, found
        time.sleep(0.05)
    assert found.output_file_id is not None
    answer = json.loads(client.files.content(found.output_file_id).text)
    assert answer["response"]["body"]["choices"][0]["message"]["content"] == SAID
    assert batch.id in [one.id for one in client.batches.list(limit=5)]
    slow = line.replace("hello", "slow")  # 10 s, which nobody waits for
    other = client.files.create(file=("slow.jsonl", io.BytesIO(slow.encode())), purpose="batch")
    running = client.batches.create(input_file_id=other.id, **settings)
    assert client.batches.cancel(running.id).status in ("cancelling", "cancelled")
    assert client.files.delete(sent.id).deleted


@case("POST /v1/messages", "POST /v1/messages/count_tokens")
def _messages(client: openai.OpenAI) -> None:
    base = str(client.base_url).removesuffix("/v1/")
    theirs = anthropic.Anthropic(base_url=base, api_key="none", max_retries=0)
    made = theirs.messages.create(model="production", max_tokens=50, messages=ASK)
    assert getattr(made.content[0], "text", None) == SAID
    with theirs.messages.stream(model="production", max_tokens=50, messages=ASK) as stream:
        assert "".join(stream.text_stream) == SAID
    counted = theirs.messages.count_tokens(model="production", messages=ASK)
    assert counted.input_tokens == made.usage.input_tokens


@case("POST /tokenize", "POST /detokenize", "GET /tokenizer_info")
def _tokens(client: openai.OpenAI) -> None:
    found = raw(client, "POST", "/tokenize", body={"model": "production", "prompt": "Grüße"})
    back = raw(client, "POST", "/detokenize", body={"model": "production", "tokens": found["tokens"]})
    assert back["prompt"] == "Grüße"
    assert raw(client, "GET", "/tokenizer_info")


@case("POST /v1/feedback", "DELETE /v1/feedback", "DELETE /v1/feedback/{feedback_id}")
def _feedback(client: openai.OpenAI) -> None:
    judged = {"model": MODEL, "messages": ASK, "kind": "thumb", "value": {"up": True}, "consent": True, "user": "me"}
    made = raw(client, "POST", "/v1/feedback", body=judged)
    assert raw(client, "DELETE", f"/v1/feedback/{made['id']}")["deleted"] == 1
    raw(client, "POST", "/v1/feedback", body=judged)
    assert raw(client, "DELETE", "/v1/feedback?user=me")["deleted"] == 1


@case("POST /v1/detect")
def _detect(client: openai.OpenAI) -> None:
    with pytest.raises(openai.BadRequestError):
        raw(client, "POST", "/v1/detect", body={})


def served(url: str) -> set[str]:
    """Methods and paths of the served schema."""
    paths = httpx.get(url + "/openapi.json").json()["paths"]
    return {f"{method.upper()} {path}" for path, operations in paths.items() for method in operations}


def test_endpoints_when_listed_then_each_has_a_case(shared: tuple[str, Any]) -> None:
    assert served(shared[0]) - CASES.keys() == OUTSIDE.keys()


@pytest.mark.parametrize("work", sorted(set(CASES.values()), key=lambda work: work.__name__), ids=lambda w: w.__name__)
def test_official_client_when_it_uses_an_endpoint_then_they_get_along(shared: tuple[str, Any], work: Case) -> None:
    endpoints = {name for name, found in CASES.items() if found is work}
    if missing := endpoints - served(shared[0]):
        pytest.skip(f"not served: {', '.join(sorted(missing))}")
    work(openai.OpenAI(base_url=shared[0] + "/v1", api_key="none", max_retries=0))
