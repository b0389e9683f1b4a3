"""Schemathesis sends what the served schema allows, and what it does not; no answer may be a 5xx."""

import itertools
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from tests.databases import fresh_store

from gptwright.core.control import ControlStore


@pytest.mark.slow
@pytest.mark.parametrize(
    ("mode", "database"), [("positive", "sqlite"), ("positive", "postgresql"), ("negative", "sqlite")]
)
def test_api_when_fed_by_its_schema_then_no_answer_is_a_5xx_and_each_error_has_the_shape(
    mode: str, database: str, request: pytest.FixtureRequest, tmp_path: Path
) -> None:
    with fresh_store(database, request, tmp_path) as control:
        feed(mode, control)


def feed(mode: str, control: ControlStore) -> None:
    schemathesis = pytest.importorskip("schemathesis")
    import gw_fakes  # registered by conftest
    from schemathesis.generation import GenerationMode

    from gptwright.infer.watermark import Watermark
    from gptwright.serve.app import create_app

    models = gw_fakes.Models()
    models.list = lambda: gw_fakes.Models.list(models)[:2]  # without the one that cannot be loaded: it is a 503
    app = create_app(models, control=control, watermark=Watermark(b"k" * 32))
    host = {"Host": "127.0.0.1"}
    schema = schemathesis.openapi.from_asgi("/openapi.json", app, headers=host)
    seen: dict[str, set[int]] = {}
    turn = itertools.count()
    for result in schema.get_all_operations():
        operation = result.ok()
        posted = operation.method == "post" and not operation.path.endswith("/cancel")
        if mode == "negative" and not posted:
            continue  # any text is a valid path, so nothing can be wrong

        @given(case=operation.as_strategy(generation_mode=GenerationMode(mode)))
        @settings(
            max_examples=30 if posted else 4,
            deadline=None,
            derandomize=True,
            database=None,
            phases=(Phase.generate,),
            suppress_health_check=list(HealthCheck),
        )
        def check(case: Any) -> None:
            model = case.body.get("model") if isinstance(case.body, dict) else None
            if mode == "positive" and isinstance(model, str):
                case.body["model"] = "production"  # any text is a valid name; only this one gets further
                if next(turn) % 2:  # and fields that only go together rarely come together by chance
                    case.body = {name: value for name, value in case.body.items() if name not in TOGETHER}
                    for name, value in SIMPLE.items():
                        case.body |= {name: value} if name in case.body else {}
            response = case.call(headers=host)
            seen.setdefault(case.operation.label, set()).add(response.status_code)
            assert response.status_code < 500, (response.status_code, response.text)
            if response.status_code >= 400:
                assert response.json()["error"].keys() == {"message", "type", "param", "code"}
            elif response.headers["content-type"][0].startswith("application/json"):
                case.validate_response(response, checks=[schemathesis.checks.response_schema_conformance])

        check()
    posts = {label: codes for label, codes in seen.items() if label.startswith("POST") and "{" not in label}
    assert posts.keys() >= {
        f"POST /v1/{name}"
        for name in ("chat/completions", "responses", "messages", "embeddings", "moderations", "detect")
    }
    wanted = {200, 201} if mode == "positive" else {400}
    found = {label for label, codes in posts.items() if not codes & wanted}
    # A batch needs a file that there is, and a file is no JSON.
    assert found <= ({"POST /v1/batches", "POST /v1/files"} if mode == "positive" else set()), posts


TOGETHER = frozenset(
    {"tools", "tool_choice", "response_format", "text", "logit_bias", "frequency_penalty", "presence_penalty", "n"}
    | {"max_tokens", "max_completion_tokens", "top_logprobs", "best_of", "stream_options", "previous_response_id"}
    | {"conversation", "system", "encoding_format", "background", "store", "metadata"}
)
SIMPLE = {"messages": [{"role": "user", "content": "hello"}], "input": "hello", "prompt": "hello", "max_tokens": 9}
