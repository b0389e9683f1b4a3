"""Every field of OpenAI's requests is honoured or refused by name; the fields are read from OpenAI's own description."""

import json
from typing import Any

import httpx
import pytest

from gptwright.infer.config import GenerationConfig

TOOL = {"type": "function", "function": {"name": "f", "parameters": {"type": "object"}}}

ASKED: dict[str, dict[str, Any]] = {
    "CreateChatCompletionRequest": {
        "url": "/v1/chat/completions",
        "base": {"model": "production", "messages": [{"role": "user", "content": "hello"}]},
        "honoured": {
            "messages": [{"role": "user", "content": "x"}],
            "model": "demo-finetune-0123456789",
            "max_completion_tokens": 3,
            "max_tokens": 3,
            "n": 2,
            "logprobs": True,
            "parallel_tool_calls": False,
            "prompt_cache_key": "k",
            "safety_identifier": "someone",
            "seed": 3,
            "stop": ["z"],
            "store": True,
            "stream": True,
            "temperature": 0.5,
            "tool_choice": "none",
            "top_p": 0.5,
            "user": "someone",
        },
        "together": {
            "metadata": {"store": True, "metadata": {"a": "b"}},
            "top_logprobs": {"logprobs": True, "top_logprobs": 2},
            "stream_options": {"stream": True, "stream_options": {"include_usage": True}},
        },
        "refused": {
            "audio": {"voice": "alloy", "format": "mp3"},
            "function_call": {"name": "f"},
            "functions": [{"name": "f"}],
            "modalities": ["text", "audio"],
            "moderation": {"model": "x"},
            "prediction": {"type": "content", "content": "x"},
            "prompt_cache_options": {"mode": "explicit"},
            "prompt_cache_retention": "24h",
            "reasoning_effort": "low",
            "service_tier": "flex",
            "verbosity": "low",
            "web_search_options": {},
        },
        "engine": {
            "frequency_penalty": 0.5,
            "presence_penalty": 0.5,
            "logit_bias": {"70": 5},
            "response_format": {"type": "json_object"},
            "tools": [TOOL],
        },
    },
    "CreateCompletionRequest": {
        "url": "/v1/completions",
        "base": {"model": "production", "prompt": "hello"},
        "honoured": {
            "model": "demo-finetune-0123456789",
            "prompt": [70, 71],
            "best_of": 2,
            "echo": True,
            "logprobs": 2,
            "max_tokens": 3,
            "n": 2,
            "seed": 3,
            "stop": "z",
            "stream": True,
            "temperature": 0.5,
            "top_p": 0.5,
            "user": "someone",
        },
        "together": {"stream_options": {"stream": True, "stream_options": {"include_usage": True}}},
        "refused": {"suffix": "end"},
        "engine": {"frequency_penalty": 0.5, "presence_penalty": 0.5, "logit_bias": {"70": 5}},
    },
    "CreateResponse": {
        "url": "/v1/responses",
        "base": {"model": "production", "input": "hello"},
        "honoured": {
            "model": "demo-finetune-0123456789",
            "input": [{"role": "user", "content": "x"}],
            "background": True,
            "include": ["message.output_text.logprobs"],
            "instructions": "brief",
            "max_output_tokens": 3,
            "metadata": {"a": "b"},
            "parallel_tool_calls": False,
            "prompt_cache_key": "k",
            "safety_identifier": "someone",
            "store": False,
            "stream": True,
            "temperature": 0.5,
            "text": {"format": {"type": "text"}},
            "tool_choice": "none",
            "top_logprobs": 2,
            "top_p": 0.5,
            "truncation": "auto",
            "user": "someone",
        },
        "together": {"stream_options": {"stream": True, "stream_options": {"include_obfuscation": False}}},
        "refused": {
            "context_management": [{"type": "compaction"}],
            "max_tool_calls": 3,
            "moderation": {"model": "x"},
            "prompt": {"id": "p"},
            "prompt_cache_options": {"mode": "explicit"},
            "prompt_cache_retention": "24h",
            "reasoning": {"effort": "low"},
            "service_tier": "flex",
            # They name something that must be there; test_responses has those that are.
            "conversation": "conv_none",
            "previous_response_id": "resp_none",
        },
        "engine": {"tools": [{"type": "function", "name": "f", "parameters": {}}]},
    },
    "CreateEmbeddingRequest": {
        "url": "/v1/embeddings",
        "base": {"model": "production", "input": "hello"},
        "honoured": {
            "model": "demo-finetune-0123456789",
            "input": ["a", "b"],
            "encoding_format": "base64",
            "user": "someone",
        },
        "together": {},
        "refused": {"dimensions": 8},
        "engine": {},
    },
    "CreateModerationRequest": {
        "url": "/v1/moderations",
        "base": {"input": "hello"},
        "honoured": {"input": ["a", "b"], "model": "gptwright-guard"},
        "together": {},
        "refused": {},
        "engine": {},
    },
}


@pytest.mark.parametrize("name", ASKED)
def test_table_when_compared_with_openais_description_then_no_field_is_missing_in_it(
    reference: dict[str, Any], name: str
) -> None:
    schemas = reference["components"]["schemas"]

    def walk(schema: Any) -> set[str]:
        found = set(schema.get("properties", {}))
        if "$ref" in schema:
            found |= walk(schemas[schema["$ref"].rsplit("/", 1)[-1]])
        for part in schema.get("allOf", ()):
            found |= walk(part)
        return found

    listed = {field for kind in ("honoured", "together", "refused", "engine") for field in ASKED[name][kind]}
    assert walk(schemas[name]) - listed == set()


@pytest.mark.parametrize(
    ("name", "field"), [(n, f) for n, c in ASKED.items() for f in (*c["honoured"], *c["together"])]
)
def test_field_when_it_is_honoured_then_it_is_taken(shared: tuple[str, Any], name: str, field: str) -> None:
    case = ASKED[name]
    extra = case["together"].get(field) or {field: case["honoured"][field]}
    response = httpx.post(shared[0] + case["url"], json={**case["base"], **extra})
    assert response.status_code == 200, response.text


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, c in ASKED.items() for f in c["refused"]])
def test_field_when_it_is_not_honoured_then_400_names_it(shared: tuple[str, Any], name: str, field: str) -> None:
    case = ASKED[name]
    response = httpx.post(shared[0] + case["url"], json={**case["base"], field: case["refused"][field]})
    assert response.status_code in (400, 404), response.text
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert str(error["param"]).startswith(field)


@pytest.mark.parametrize(("name", "field"), [(n, f) for n, c in ASKED.items() for f in c["engine"]])
def test_field_when_only_an_engine_can_do_it_then_it_is_honoured_or_400_names_it(
    shared: tuple[str, Any], name: str, field: str
) -> None:
    case = ASKED[name]
    response = httpx.post(shared[0] + case["url"], json={**case["base"], field: case["engine"][field]})
    if response.status_code == 200:
        told = json.loads(shared[1].requests[-1].config.model_dump_json(exclude_defaults=True))
        assert set(told) - {"max_tokens", "logprobs"}, "the engine was told nothing of it"
        assert field in GenerationConfig.model_fields or field in ("tools", "response_format")
    else:
        assert response.status_code == 400, response.text
        assert str(response.json()["error"]["param"]).startswith(field)


@pytest.mark.parametrize("name", ASKED)
def test_field_when_nobody_knows_it_then_400_names_it(shared: tuple[str, Any], name: str) -> None:
    case = ASKED[name]
    response = httpx.post(shared[0] + case["url"], json={**case["base"], "surprise": 1})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "unknown_parameter")
    assert response.json()["error"]["param"] == "surprise"
