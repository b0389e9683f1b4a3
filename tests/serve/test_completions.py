"""Plain completions as evaluation tools use them: token ids, lists, echo, log probabilities, many choices."""

import json
from typing import Any

import httpx
import openai
import pytest

from gptwright.serve.config import ServeConfig

BODY = {"model": "production"}


@pytest.fixture(scope="module")
def client(shared: tuple[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=shared[0] + "/v1", api_key="none", max_retries=0)


def ids(text: str) -> list[int]:
    return [8 + byte for byte in text.encode()]


def post(url: str, **body: Any) -> httpx.Response:
    return httpx.post(url + "/v1/completions", json={**BODY, **body})


def chunks(response: httpx.Response) -> list[Any]:
    lines = [line[6:] for line in response.text.split("\n\n") if line.startswith("data: ")]
    assert lines[-1] == "[DONE]"
    return [json.loads(line) for line in lines[:-1]]


@pytest.mark.parametrize("prompt", [["one", "two"], [ids("one"), ids("two")]])
def test_completions_when_there_are_many_prompts_then_choices_come_in_their_order(
    client: openai.OpenAI, prompt: Any
) -> None:
    answer = client.completions.create(model="production", prompt=prompt, n=2)
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert [choice.text for choice in answer.choices] == ["You said: one"] * 2 + ["You said: two"] * 2
    assert answer.usage is not None
    assert answer.usage.prompt_tokens == 6  # each prompt counts once, however many answers it gets
    assert answer.usage.completion_tokens == 4 * 14


def test_completions_when_streamed_then_every_choice_is_whole_under_its_index(shared: tuple[str, Any]) -> None:
    response = post(
        shared[0], prompt=["one", "two"], n=2, stream=True, echo=True, stream_options={"include_usage": True}
    )
    texts: dict[int, str] = {}
    for chunk in chunks(response):
        for choice in chunk["choices"]:
            texts[choice["index"]] = texts.get(choice["index"], "") + choice["text"]
    assert texts == {0: "oneYou said: one", 1: "oneYou said: one", 2: "twoYou said: two", 3: "twoYou said: two"}
    assert chunks(response)[-1]["usage"]["completion_tokens"] == 4 * 14


def test_completions_when_a_seed_is_given_then_choices_have_seeds_of_their_own(shared: tuple[str, Any]) -> None:
    before = len(shared[1].requests)
    post(shared[0], prompt="x", n=3, seed=5)
    assert [request.config.seed for request in shared[1].requests[before:]] == [5, 6, 7]


def test_completions_when_best_of_is_given_then_the_likeliest_are_chosen(stored: Any) -> None:
    url, app = stored()
    engine = app.state.backend.models.fake
    plain = engine._text
    numbers = iter(range(100))

    def one_of_many(asked: str, config: Any) -> str:
        return f"{plain(asked, config)} {next(numbers)}"

    engine._text = one_of_many
    engine.logprob = lambda text: -float(text[-1])  # answer 0 is the likeliest
    answer = post(url, prompt="x", best_of=4, n=2).json()
    assert [choice["text"][-1] for choice in answer["choices"]] == ["0", "1"]
    assert [choice["index"] for choice in answer["choices"]] == [0, 1]
    assert answer["usage"]["completion_tokens"] == 4 * len("You said: x 0 ")
    assert len(engine.requests) == 4


def test_completions_when_echoed_with_log_probabilities_then_there_is_one_entry_a_token(
    shared: tuple[str, Any],
) -> None:
    prompt = [*ids("ab"), 2, 8 + 0xC3]  # a control token, and half a character
    choice = post(shared[0], prompt=prompt, echo=True, logprobs=1, max_tokens=1).json()["choices"][0]
    logprobs = choice["logprobs"]
    assert logprobs["tokens"] == ["a", "b", "<|2|>", "bytes:\\xc3", "Y"]
    assert logprobs["token_logprobs"] == [None, -0.25, -0.25, -0.25, -0.5]
    assert logprobs["top_logprobs"][0] is None
    assert logprobs["top_logprobs"][1] == {"A": -1.0, "b": -0.25}
    assert len(logprobs["text_offset"]) == 5
    assert choice["text"] == "ab\ufffdY"


def test_completions_when_nothing_is_to_be_generated_then_the_prompt_alone_is_scored(shared: tuple[str, Any]) -> None:
    before = len(shared[1].requests)
    answer = post(shared[0], prompt=["abc", "d"], echo=True, logprobs=0, max_tokens=0).json()
    assert [choice["text"] for choice in answer["choices"]] == ["abc", "d"]
    assert [choice["finish_reason"] for choice in answer["choices"]] == ["length", "length"]
    assert answer["choices"][0]["logprobs"]["token_logprobs"] == [None, -0.25, -0.25]
    assert answer["usage"]["total_tokens"] == answer["usage"]["prompt_tokens"] == 4
    assert len(shared[1].requests) == before
    streamed = chunks(post(shared[0], prompt="abc", echo=True, logprobs=0, max_tokens=0, stream=True))
    assert [chunk["choices"][0]["text"] for chunk in streamed] == ["abc"]
    assert streamed[0]["choices"][0]["finish_reason"] == "length"


def test_completions_when_the_answer_is_masked_then_its_log_probabilities_are_kept_back(
    shared: tuple[str, Any],
) -> None:
    choice = post(shared[0], prompt="mail", logprobs=1).json()["choices"][0]
    assert "[EMAIL]" in choice["text"]
    assert choice["logprobs"] is None


def test_chat_when_several_answers_are_asked_for_then_each_is_whole(client: openai.OpenAI) -> None:
    messages: list[Any] = [{"role": "user", "content": "hello"}]
    answer = client.chat.completions.create(model="production", messages=messages, n=3, logprobs=True)
    assert [choice.message.content for choice in answer.choices] == ["You said: hello"] * 3
    assert [choice.index for choice in answer.choices] == [0, 1, 2]
    texts: dict[int, str] = {}
    finished = set()
    for chunk in client.chat.completions.create(model="production", messages=messages, n=3, stream=True):
        for choice in chunk.choices:
            texts[choice.index] = texts.get(choice.index, "") + (choice.delta.content or "")
            finished |= {choice.index} if choice.finish_reason else set()
    assert texts == dict.fromkeys(range(3), "You said: hello")
    assert finished == {0, 1, 2}


def test_slots_when_one_request_has_more_choices_than_there_are_then_it_runs_alone(stored: Any) -> None:
    url, app = stored(config=ServeConfig(max_concurrent=2))
    answer = post(url, prompt=["a", "b", "c", "d"])
    assert [choice["text"][-1] for choice in answer.json()["choices"]] == ["a", "b", "c", "d"]
    assert app.state.backend.slots.taken == 0


def test_tool_messages_when_in_the_history_then_the_renderer_gets_them(shared: tuple[str, Any]) -> None:
    call = {"id": "c1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    messages = [
        {"role": "user", "content": "hello"},
        {"role": "assistant", "content": None, "tool_calls": [call]},
        {"role": "tool", "tool_call_id": "c1", "content": "42"},
        {"role": "user", "content": "and?"},
    ]
    response = httpx.post(shared[0] + "/v1/chat/completions", json={**BODY, "messages": messages})
    assert response.json()["choices"][0]["message"]["content"] == "You said: and?"
    assert "<tool_response>\n42" in shared[1].prompts[-1]  # in words: the fake model has no template that knows tools
