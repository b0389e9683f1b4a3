"""Moderation in OpenAI's shape, and the watermark found over HTTP."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gptwright.core.control import ControlStore
from gptwright.guard.moderation import Moderator
from gptwright.infer.watermark import Watermark
from gptwright.serve.checks import OPENAI_CATEGORIES
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key

MARK = Watermark(bytes(range(32)))
Start = Callable[..., tuple[str, Any]]


def test_moderation_when_asked_by_the_official_client_names_what_was_found_and_what_was_judged(
    stored: Start, check: Callable[[str, Any], None]
) -> None:
    url, _ = stored()
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    texts = ["The cat sat.", "Call +1 650 253 0000 or write to bob.smith@example.org."]
    answer = client.moderations.create(input=texts)
    assert [result.flagged for result in answer.results] == [False, True]
    raw = answer.model_dump(by_alias=True)
    check("CreateModerationResponse", raw)
    second = raw["results"][1]
    assert {name for name, found in second["categories"].items() if found} == {"personal-data"}
    assert second["personal_data"] == {"EMAIL": 1, "PHONE": 1}
    assert second["judged"] == ["personal-data", "forged-markers", "hidden-characters"]
    # What nothing looked at is no finding, and says so.
    for name in OPENAI_CATEGORIES:
        assert second["category_scores"][name] == 0
        assert second["category_applied_input_types"][name] == []
    assert second["category_applied_input_types"]["personal-data"] == ["text"]
    assert raw["model"] == "gptwright-guard"


def test_moderation_when_the_server_has_judges_of_its_own_reports_their_scores(stored: Start) -> None:
    url, _ = stored(moderator=Moderator(lambda text: 0.75, lambda text: 0.0))
    result = httpx.post(url + "/v1/moderations", json={"input": "you"}).json()["results"][0]
    assert (result["flagged"], result["categories"]["toxicity"], result["category_scores"]["toxicity"]) == (
        True,
        True,
        0.75,
    )
    assert result["categories"]["flagged-words"] is False
    assert "flagged-words" in result["judged"]


def test_moderation_when_parts_of_one_input_come_judges_them_together(stored: Start) -> None:
    url, _ = stored()
    parts = [{"type": "text", "text": "hello"}, {"type": "text", "text": "a@example.org"}]
    results = httpx.post(url + "/v1/moderations", json={"input": parts}).json()["results"]
    assert [result["flagged"] for result in results] == [True]


@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({}, 400, "input"),
        ({"input": []}, 400, "input"),
        ({"input": "a", "model": "omni-moderation-latest"}, 404, "model"),
        ({"input": "a", "user": "b"}, 400, "user"),
        (
            {"input": [{"type": "image_url", "image_url": {"url": "data:image/png;base64,AA=="}}]},
            400,
            "input[0].type",
        ),
        ({"input": "a" * 100_001}, 400, "input"),
        ({"input": ["a", "a" * 100_001]}, 400, "input[1]"),
    ],
)
def test_moderation_when_it_cannot_be_done_names_the_field(
    stored: Start, body: dict[str, Any], status: int, param: str
) -> None:
    url, _ = stored()
    answer = httpx.post(url + "/v1/moderations", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (status, param), answer.text


class OneModel:
    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def list(self) -> Any:
        from gptwright.serve.protocols import ModelInfo

        return [ModelInfo("tiny-pretrain-0123456789", 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        return "tiny-pretrain-0123456789", self._engine


def test_answer_when_marked_is_found_over_http_and_a_persons_text_is_not(stored: Start, tmp_path: Path) -> None:
    import torch

    from gptwright.infer.engine import Engine
    from gptwright.model.config import ModelConfig
    from gptwright.model.transformer import Transformer
    from gptwright.tokens.tokenizer import train_tokenizer

    tokenizer = train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 265, tmp_path / "t")
    shape = {"n_layers": 2, "d_model": 64, "n_heads": 4, "n_kv_heads": 2, "d_head": 16, "d_ff": 128, "seq_len": 256}
    model = Transformer(ModelConfig(family="modern", vocab_size=tokenizer.padded_vocab_size, **shape))
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.2)
    with Engine(model, tokenizer, max_batch=4) as engine:
        engine.watermark(MARK)
        url, _ = stored(models=OneModel(engine), watermark=MARK)
        body = {
            "model": "tiny-pretrain-0123456789",
            "messages": [{"role": "user", "content": "the cat"}],
            "max_tokens": 160,
            "temperature": 1.0,
            "seed": 5,
            "n": 2,
            # A random model writes broken bytes; letters can be read back as the tokens that they were.
            "response_format": {"type": "regex", "regex": "[a-z ]{160}"},
        }
        texts = [
            choice["message"]["content"]
            for choice in httpx.post(url + "/v1/chat/completions", json=body, timeout=60).json()["choices"]
        ]
        assert texts[0] != texts[1]
        for text in texts:
            found = httpx.post(url + "/v1/detect", json={"input": text}).json()
            assert found["verdict"] == "marked", found
            assert found["p_value"] < 1e-6
            assert found["scored_tokens"] > 100
            assert found["max_false_positive_rate"] == 0.001
        person = "people wrote this long before any machine could and nobody marked a single word of it so it is clean"
        person += " and whoever reads it may be as sure of that as one can be of anything"
        found = httpx.post(url + "/v1/detect", json={"input": person, "max_false_positive_rate": 0.0001}).json()
        assert (found["verdict"], found["object"]) == ("not_found", "detection")
        assert httpx.post(url + "/v1/detect", json={"input": "cat"}).json()["verdict"] == "too_short"


def test_detect_when_nothing_was_ever_marked_or_a_value_is_wrong_says_so(stored: Start) -> None:
    url, _ = stored()
    answer = httpx.post(url + "/v1/detect", json={"input": "a"})
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "no_watermark")
    url, _ = stored(watermark=MARK)
    for body, param in (
        ({}, "input"),
        ({"input": "a", "max_false_positive_rate": 0}, "max_false_positive_rate"),
        ({"input": "a", "model": "nobody"}, "model"),
    ):
        assert httpx.post(url + "/v1/detect", json=body).json()["error"]["param"] == param


def test_key_when_it_is_for_detection_alone_opens_nothing_else(start: Start, control: ControlStore) -> None:
    key, _ = create_key(control, "public", scopes=("detect",))
    url, _ = start(watermark=MARK, control=control, config=ServeConfig(require_key=True))
    headers = {"Authorization": f"Bearer {key}"}
    assert httpx.post(url + "/v1/detect", json={"input": "a"}, headers=headers).status_code == 200
    assert httpx.post(url + "/v1/moderations", json={"input": "a"}, headers=headers).status_code == 403
