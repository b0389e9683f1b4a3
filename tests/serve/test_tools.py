"""Structured output and tool calls over HTTP with the real engine: the official client, whole and streamed, and OpenAI's own schema."""

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal

import httpx
import openai
import pydantic
import pytest

from gptwright.serve.protocols import ModelInfo

pytest.importorskip("llguidance")
MODEL = "tiny-pretrain-0123456789"
CHAT = "/v1/chat/completions"
ASK: Any = [{"role": "user", "content": "the cat"}]


class Person(pydantic.BaseModel):
    name: Literal["Ann", "Bob é€"]
    age: Literal[1, 22]


WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "parameters": {
            "type": "object",
            "properties": {"city": {"enum": ["Köln", 'q"}{']}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
CLOCK: Any = {"type": "function", "function": {"name": "clock"}}


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    torch = pytest.importorskip("torch")
    from gptwright.infer.engine import Engine
    from gptwright.model.config import ModelConfig
    from gptwright.model.transformer import Transformer
    from gptwright.tokens.tokenizer import train_tokenizer

    folder = Path(tmp_path_factory.mktemp("tokenizer")) / "t"
    tokenizer = train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 270, folder)
    sizes = {"n_layers": 1, "d_model": 32, "n_heads": 2, "n_kv_heads": 1, "d_head": 16, "d_ff": 64, "seq_len": 900}
    torch.manual_seed(0)
    model = Transformer(ModelConfig(family="modern", vocab_size=tokenizer.padded_vocab_size, **sizes))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    with Engine(model, tokenizer, max_batch=4) as engine:
        yield engine


class OneModel:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def list(self) -> Sequence[ModelInfo]:
        return [ModelInfo(MODEL, 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        return MODEL, self._engine


@pytest.fixture
def url(stored: Any, engine: Any) -> str:
    found: str = stored(models=OneModel(engine))[0]
    return found


@pytest.fixture
def client(url: str) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0) as client:
        yield client


def test_schema_when_the_official_client_parses_the_answer_it_fits(client: openai.OpenAI) -> None:
    answer = client.chat.completions.parse(
        model=MODEL, messages=ASK, response_format=Person, n=3, seed=1, max_tokens=200, temperature=1
    )
    for choice in answer.choices:
        assert choice.finish_reason == "stop"
        assert isinstance(choice.message.parsed, Person)
    with client.chat.completions.stream(
        model=MODEL, messages=ASK, response_format=Person, seed=1, max_tokens=200, temperature=1
    ) as stream:
        final = stream.get_final_completion()
    assert final.choices[0].message.parsed == answer.choices[0].message.parsed


def test_form_when_it_is_an_object_a_regex_or_a_grammar_is_kept(url: str) -> None:
    def said(**shape: Any) -> str:
        body = {
            "model": MODEL,
            "messages": ASK,
            "max_tokens": 300,
            "temperature": 1,
            "seed": 2,
            "response_format": shape,
        }
        response = httpx.post(url + CHAT, json=body)
        assert response.status_code == 200, response.text
        return str(response.json()["choices"][0]["message"]["content"])

    assert said(type="regex", regex="(yes|no)!") in ("yes!", "no!")
    assert said(type="grammar", grammar='start: "<" ("a" | "b") ">"') in ("<a>", "<b>")
    assert said(type="json_object").lstrip()[:1] == "{"


@pytest.mark.parametrize("choice", ["required", {"type": "function", "function": {"name": "weather"}}])
@pytest.mark.parametrize("parallel", [True, False])
def test_tools_when_one_must_be_called_then_whole_and_streamed_calls_are_the_same(
    client: openai.OpenAI, choice: Any, parallel: bool, check: Any
) -> None:
    asked: Any = {"model": MODEL, "messages": ASK, "tools": [WEATHER, CLOCK], "tool_choice": choice, "seed": 5}
    asked |= {"max_tokens": 200, "parallel_tool_calls": parallel, "temperature": 1}
    whole = client.chat.completions.with_raw_response.create(**asked)
    check("CreateChatCompletionResponse", json.loads(whole.text))
    choice_made = whole.parse().choices[0]
    assert choice_made.finish_reason in (("tool_calls", "length") if parallel else ("tool_calls",))
    calls = choice_made.message.tool_calls
    assert choice_made.message.content is None
    assert calls
    assert parallel or len(calls) == 1
    for call in calls[:-1] if choice_made.finish_reason == "length" else calls:
        assert call.id.startswith("call_")
        value = json.loads(call.function.arguments)
        assert value == {} if call.function.name == "clock" else value["city"] in ("Köln", 'q"}{')
        assert choice == "required" or call.function.name == "weather"
    assert len({call.id for call in calls}) == len(calls)
    pieces: dict[int, list[str]] = {}
    for chunk in client.chat.completions.create(**asked, stream=True):
        for part in chunk.choices[0].delta.tool_calls or ():
            if part.id is not None:
                pieces[part.index] = [part.function.name, ""]
            pieces[part.index][1] += part.function.arguments or ""
        finish = chunk.choices[0].finish_reason
    assert finish == choice_made.finish_reason
    assert [tuple(piece) for piece in pieces.values()] == [(c.function.name, c.function.arguments) for c in calls]


def test_tools_when_none_or_auto_then_the_answer_may_be_text_and_history_goes_on(client: openai.OpenAI) -> None:
    asked: Any = {"model": MODEL, "tools": [WEATHER], "max_tokens": 40, "seed": 1, "temperature": 1}
    none = client.chat.completions.create(messages=ASK, **asked, tool_choice="none")
    assert none.choices[0].message.tool_calls is None
    plain = client.chat.completions.create(messages=ASK, **{**asked, "tools": openai.NOT_GIVEN})
    assert none.choices[0].message.content == plain.choices[0].message.content
    call = client.chat.completions.create(messages=ASK, **{**asked, "max_tokens": 200}, tool_choice="required")
    made = call.choices[0].message.tool_calls
    assert made
    history = [*ASK, call.choices[0].message, {"role": "tool", "tool_call_id": made[0].id, "content": "rain"}]
    after = client.chat.completions.create(messages=history, **asked)
    assert after.usage is not None
    assert none.usage is not None
    assert after.usage.prompt_tokens > none.usage.prompt_tokens


def test_responses_and_messages_when_tools_must_be_called_then_they_call(client: openai.OpenAI, url: str) -> None:
    function = WEATHER["function"]
    response = client.responses.create(
        model=MODEL,
        input="the cat",
        tools=[{"type": "function", "strict": True, **function}],
        tool_choice="required",
        parallel_tool_calls=False,
        store=False,
    )
    made = [item for item in response.output if item.type == "function_call"]
    assert [item.name for item in made] == ["weather"]
    assert json.loads(made[0].arguments)["city"] in ("Köln", 'q"}{')
    tool = {"name": "weather", "input_schema": function["parameters"]}
    chosen = {"type": "any", "disable_parallel_tool_use": True}
    body = {"model": MODEL, "messages": ASK, "max_tokens": 200, "tools": [tool], "tool_choice": chosen}
    message = httpx.post(url + "/v1/messages", json=body).json()
    assert message["stop_reason"] == "tool_use"
    assert message["content"][0]["input"]["city"] in ("Köln", 'q"}{')
    formed = client.responses.parse(model=MODEL, input="the cat", text_format=Person, store=False)
    assert isinstance(formed.output_parsed, Person)


BOMBS = [
    {"type": "array", "uniqueItems": True},
    {"$ref": "file:///etc/passwd"},
    {"type": "string", "pattern": "(?=a)b"},
    {"type": "string", "pattern": "(" * 300},
    {"type": "nonsense"},
]


@pytest.mark.parametrize("stream", [False, True])
@pytest.mark.parametrize("schema", BOMBS, ids=lambda schema: json.dumps(schema)[:30])
def test_form_when_it_cannot_be_kept_then_400_names_the_field(url: str, schema: Any, stream: bool) -> None:
    shape = {"type": "json_schema", "json_schema": {"name": "x", "strict": True, "schema": schema}}
    inside = {"type": "object", "properties": {"a": schema}, "required": ["a"]}
    tool = {"type": "function", "function": {"name": "x", "strict": True, "parameters": inside}}
    for field, extra in (("response_format", {"response_format": shape}), ("tools", {"tools": [tool]})):
        body = {"model": MODEL, "messages": ASK, "max_tokens": 9, "stream": stream, "tool_choice": None, **extra}
        if field == "tools":
            body["tool_choice"] = "required"
        response = httpx.post(url + CHAT, json=body)
        assert response.status_code == 400, response.text
        error = response.json()["error"]
        assert (error["param"], error["code"]) == (field, "invalid_value")
        assert "root:" not in error["message"]  # no file was read


def test_arguments_when_they_hold_personal_data_are_masked_like_text(stored: Any, engine: Any) -> None:
    from gptwright.guard.config import GuardConfig
    from gptwright.guard.guard import Guard

    url, _ = stored(models=OneModel(engine), guard=Guard(GuardConfig(mask_answers=True)))
    parameters = {"type": "object", "properties": {"to": {"const": "bob.smith@example.org"}}, "required": ["to"]}
    tool = {
        "type": "function",
        "function": {"name": "mail", "parameters": {**parameters, "additionalProperties": False}},
    }
    body = {"model": MODEL, "messages": ASK, "max_tokens": 90, "tools": [tool], "tool_choice": "required", "seed": 1}
    body["parallel_tool_calls"] = False
    message = httpx.post(url + CHAT, json=body).json()["choices"][0]["message"]
    arguments = message["tool_calls"][0]["function"]["arguments"]
    assert "bob.smith" not in arguments
    assert list(json.loads(arguments)) == ["to"]
    streamed = httpx.post(url + CHAT, json={**body, "stream": True}).text
    assert "bob" not in streamed
