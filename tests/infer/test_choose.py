"""Which engine and which weights: chosen by measuring, said, and refused by name where something is missing."""

import importlib.util
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer import choose, native, openvino
from gptwright.infer.choose import choose_weights, open_engine, rounding_loss
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.scheduler import Scheduler
from gptwright.model.transformer import Transformer

needs_compiler = pytest.mark.skipif(native.instructions() < 1, reason="no compiled integer kernels")
needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino_genai") is None, reason="pip install 'gptwright[openvino]'"
)


@needs_compiler
def test_loss_when_measured_is_nothing_for_the_same_weights_and_grows_as_they_get_coarser(
    make_model: Callable[..., Transformer],
) -> None:
    model = make_model("llama").bfloat16()
    same, fine, coarse = (rounding_loss(model, 264, 0, kind) for kind in ("bf16", "int8", "int4"))
    assert same == pytest.approx(0, abs=1e-6)
    assert 0 < fine < coarse / 5


@needs_compiler
def test_weights_when_int8_costs_too_much_or_the_model_is_small_stay_as_they_are(
    make_model: Callable[..., Transformer], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    model = make_model("llama").bfloat16()
    assert choose_weights(model, 264, 0) == "as_is"  # small
    monkeypatch.setattr(choose, "_SMALL_BYTES", 0)
    assert choose_weights(model, 264, 0, max_loss=1.0) == "int8"
    assert "weights: int8" in capsys.readouterr().err
    assert choose_weights(model, 264, 0, max_loss=0.0) == "as_is"
    assert "more than 0.0 %" in capsys.readouterr().err


def test_engine_when_openvino_is_missing_is_built_in_or_refused_with_the_extra_to_install(
    model_dirs: dict[str, Path], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(openvino, "available", lambda: False)
    with open_engine(model_dirs["llama"]) as engine:
        assert isinstance(engine._scheduler, Scheduler)
    if not importlib.util.find_spec("openvino_genai"):
        with pytest.raises(UserError, match="not installed") as caught:
            open_engine(model_dirs["llama"], "openvino")
        assert "gptwright[openvino]" in str(caught.value)
    with pytest.raises(UserError, match="does not read gpt2"):
        open_engine(model_dirs["gpt2"], "openvino")


@pytest.mark.parametrize(("theirs", "winner"), [(200.0, "openvino"), (105.0, "builtin"), (50.0, "builtin")])
def test_engine_when_both_are_there_is_the_faster_by_a_margin_and_its_cost_is_said(
    model_dirs: dict[str, Path],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    theirs: float,
    winner: str,
) -> None:
    load, opened = Engine.load, {}

    def fake(folder: Path, weights: str = "as_is", backend: str = "builtin") -> Engine:
        opened[backend] = load(folder)
        return opened[backend]

    monkeypatch.setattr(openvino, "available", lambda: True)
    monkeypatch.setattr(Engine, "load", fake)
    monkeypatch.setattr(choose, "speed", lambda e: theirs if e is opened["openvino"] else 100.0)
    with open_engine(model_dirs["llama"]) as engine:
        assert engine is opened[winner]
        assert opened["builtin" if winner == "openvino" else "openvino"].closed
    said = capsys.readouterr().err
    assert "built-in 100" in said
    assert ("no adapters" in said) == (winner == "openvino")


@needs_openvino
@pytest.mark.slow
def test_openvino_when_it_runs_our_export_gives_the_same_greedy_answer(model_dirs: dict[str, Path]) -> None:
    config = GenerationConfig(max_tokens=8, temperature=0, ignore_eos=True)
    with Engine.load(model_dirs["llama"], torch.float32) as ours, Engine.load(model_dirs["llama"], backend="openvino") as other:  # fmt: skip
        assert other.generate([[5, 6, 7]], config)[0].ids[:4] == ours.generate([[5, 6, 7]], config)[0].ids[:4]
        with pytest.raises(UserError, match="min_p"):
            other.submit([1], GenerationConfig(min_p=0.1))
        cancelled = other.submit([1, 2], GenerationConfig(max_tokens=80, ignore_eos=True))
        cancelled.cancel()
        assert cancelled.result(30).finish_reason == "cancelled"
