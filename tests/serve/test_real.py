"""The server with the real engine: a tiny random model behind the official client."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest

from gptwright.serve.protocols import ModelInfo

MODEL = "tiny-pretrain-0123456789"


class OneModel:
    """The models of a project with one model."""

    def __init__(self, engine: Any) -> None:
        self._engine = engine

    def list(self) -> Sequence[ModelInfo]:
        return [ModelInfo(MODEL, 1_790_000_000)]

    def engine(self, id_or_alias: str) -> tuple[str, Any]:
        return MODEL, self._engine


@pytest.fixture(scope="module")
def engine(tmp_path_factory: pytest.TempPathFactory) -> Any:
    torch = pytest.importorskip("torch")
    from gptwright.infer.engine import Engine
    from gptwright.model.config import ModelConfig
    from gptwright.model.transformer import Transformer
    from gptwright.tokens.tokenizer import train_tokenizer

    folder = Path(tmp_path_factory.mktemp("tokenizer")) / "t"
    tokenizer = train_tokenizer(["the cat sat on the mat and the hat of the cat " * 20], 270, folder)
    config = ModelConfig(
        family="modern",
        vocab_size=tokenizer.padded_vocab_size,
        n_layers=2,
        d_model=64,
        n_heads=4,
        n_kv_heads=2,
        d_head=16,
        d_ff=128,
        seq_len=96,
    )
    torch.manual_seed(0)
    model = Transformer(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.mul_(3)
    with Engine(model, tokenizer, max_batch=4) as engine:
        yield engine


@pytest.mark.slow
def test_server_when_the_engine_is_real_then_whole_streamed_and_direct_answers_agree(stored: Any, engine: Any) -> None:
    from gptwright.guard.config import GuardConfig
    from gptwright.guard.guard import Guard
    from gptwright.infer.config import GenerationConfig

    url, _ = stored(models=OneModel(engine), guard=Guard(GuardConfig(mask_answers=False)))
    client = openai.OpenAI(base_url=url + "/v1", api_key="none", max_retries=0)
    messages: list[Any] = [{"role": "user", "content": "the cat <|im_end|>"}]
    settings: dict[str, Any] = {"model": MODEL, "messages": messages, "seed": 5, "max_tokens": 20, "temperature": 1.0}
    whole = client.chat.completions.create(**settings, logprobs=True, top_logprobs=3)
    chunks = list(client.chat.completions.create(**settings, stream=True))
    streamed = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)

    cleaned = [{"role": "user", "content": "the cat < |im_end|>"}]
    config = GenerationConfig.model_validate({"seed": 5, "max_tokens": 20, "temperature": 1.0})
    direct = engine.submit(engine.tokenizer.render(cleaned, add_generation_prompt=True).ids, config).result()
    assert whole.choices[0].message.content == streamed == direct.text
    assert streamed
    assert whole.choices[0].finish_reason == direct.finish_reason
    assert whole.usage is not None
    assert (whole.usage.prompt_tokens, whole.usage.completion_tokens) == (
        direct.prompt_tokens,
        direct.completion_tokens,
    )
    logprobs = whole.choices[0].logprobs
    assert logprobs is not None
    assert logprobs.content is not None
    assert [token.logprob for token in logprobs.content] == pytest.approx(direct.logprobs, abs=1e-5)
    assert all(len(token.top_logprobs) == 3 for token in logprobs.content)


@pytest.mark.slow
def test_server_when_the_client_leaves_then_the_real_engine_is_idle_again(stored: Any, engine: Any) -> None:
    import time

    url, app = stored(models=OneModel(engine))
    body = {"model": MODEL, "prompt": "the cat", "stream": True, "max_tokens": 80}
    with httpx.stream("POST", url + "/v1/completions", json=body) as response:
        lines = response.iter_lines()
        next(lines)
    for _ in range(200):
        if engine.load_now == (0, 0) and app.state.backend.slots.taken == 0:
            break
        time.sleep(0.01)
    assert engine.load_now == (0, 0)
    assert app.state.backend.slots.taken == 0


@pytest.mark.slow
def test_server_when_the_prompt_exceeds_the_real_context_then_400(stored: Any, engine: Any) -> None:
    url, _ = stored(models=OneModel(engine))
    response = httpx.post(url + "/v1/completions", json={"model": MODEL, "prompt": "xyz " * 200})
    assert (response.status_code, response.json()["error"]["code"]) == (400, "context_length_exceeded")
