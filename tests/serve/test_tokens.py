"""Vectors, tokens, and the served description beside OpenAI's."""

import base64
import struct
from typing import Any

import httpx
import openai
import pytest

OURS = {
    # Of other protocols, or our own.
    "/v1/detect",
    "/v1/messages",
    "/v1/messages/count_tokens",
    "/v1/feedback",
    "/v1/feedback/{feedback_id}",
}


@pytest.fixture(scope="module")
def client(shared: tuple[str, Any]) -> openai.OpenAI:
    return openai.OpenAI(base_url=shared[0] + "/v1", api_key="none", max_retries=0)


@pytest.mark.parametrize("form", ["float", "base64", None])
def test_embeddings_when_asked_with_the_client_then_each_text_has_its_vector(client: openai.OpenAI, form: Any) -> None:
    extra = {"encoding_format": form} if form else {}  # the client asks for base64 by itself and decodes it
    answer = client.embeddings.create(model="production", input=["aab", "c"], **extra)
    vectors = [entry.embedding for entry in answer.data]
    if form == "base64":
        vectors = [list(struct.unpack("<8f", base64.b64decode(str(vector)))) for vector in vectors]
    assert [entry.index for entry in answer.data] == [0, 1]
    assert vectors[0] == pytest.approx([3 / 14**0.5, 2 / 14**0.5, 1 / 14**0.5, 0, 0, 0, 0, 0], abs=1e-6)
    assert vectors[1] == pytest.approx([1 / 2**0.5, 0, 0, 1 / 2**0.5, 0, 0, 0, 0], abs=1e-6)
    assert answer.usage.prompt_tokens == answer.usage.total_tokens == 4


def test_embeddings_when_given_token_ids_then_they_are_those_of_the_text(client: openai.OpenAI) -> None:
    ids = [8 + byte for byte in b"abc"]
    one, two = (client.embeddings.create(model="production", input=given).data[0].embedding for given in (ids, "abc"))
    assert one == two


@pytest.mark.parametrize(
    ("extra", "param"),
    [
        ({"dimensions": 4}, "dimensions"),
        ({"input": ""}, "input"),
        ({"input": []}, "input"),
        ({"input": "\u200b"}, "input"),
        ({"input": ["a", ""]}, "input"),
        ({"input": [99999]}, "input[0]"),
        ({"input": "a" * 5000}, "input"),
        ({"encoding_format": "hex"}, "encoding_format"),
    ],
)
def test_embeddings_when_a_value_is_wrong_then_400_names_the_field(
    shared: tuple[str, Any], extra: dict[str, Any], param: str
) -> None:
    response = httpx.post(shared[0] + "/v1/embeddings", json={"model": "production", "input": "x", **extra})
    assert response.status_code == 400, response.text
    assert str(response.json()["error"]["param"]).startswith(param)


def test_answers_when_compared_with_openais_description_then_they_are_valid(
    shared: tuple[str, Any], check: Any
) -> None:
    asked = {"model": "production", "input": ["a", "b"]}
    check("CreateEmbeddingResponse", httpx.post(shared[0] + "/v1/embeddings", json=asked).json())
    # Not with an echo: there the first token has no log probability, which OpenAI's API and all tools write as a null that its
    # description does not know.
    many = {"model": "production", "prompt": "ab", "n": 2, "logprobs": 2}
    check("CreateCompletionResponse", httpx.post(shared[0] + "/v1/completions", json=many).json())


def test_tokenizer_when_no_model_is_named_then_production_answers(shared: tuple[str, Any]) -> None:
    info = httpx.get(shared[0] + "/tokenizer_info").json()
    assert (info["model"], info["vocab_size"], info["model_max_length"]) == ("demo-finetune-0123456789", 264, 4000)
    tokens = httpx.post(shared[0] + "/tokenize", json={"prompt": "hi", "add_special_tokens": False}).json()["tokens"]
    assert httpx.post(shared[0] + "/detokenize", json={"tokens": tokens}).json()["prompt"] == "hi"


def test_description_when_laid_beside_openais_then_paths_and_methods_are_its_own(
    shared: tuple[str, Any], reference: dict[str, Any]
) -> None:
    served = httpx.get(shared[0] + "/openapi.json", timeout=120).json()["paths"]
    found = 0
    for path, operations in served.items():
        if not path.startswith("/v1/") or path in OURS:
            continue
        # Names of what stands in a path differ; the rest must not.
        theirs = {_bare(name): value for name, value in reference["paths"].items() if "?" not in name}
        known = theirs.get(_bare(path.removeprefix("/v1")))
        assert known is not None, f"OpenAI has no {path}"
        for method, operation in operations.items():
            assert method in known, (method, path)
            wanted = {code for code in known[method]["responses"] if code.startswith("2")}
            assert wanted <= operation["responses"].keys() | {"201"}, (method, path)
            assert ("requestBody" in known[method]) == ("requestBody" in operation), (method, path)
            found += 1
    assert found >= 28


def _bare(path: str) -> str:
    return "/".join("{}" if part.startswith("{") else part for part in path.split("/"))
