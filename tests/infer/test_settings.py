"""Same seed, same text: whatever else is in the batch, with every setting there is, in forms and out of them."""

import random
from typing import Any

import pytest

from gptwright.infer.config import Form, GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.tokens.tokenizer import Tokenizer

pytest.importorskip("llguidance")
FORMS = [
    None,
    None,
    Form(kind="regex", text="[a-f é]{5,30}"),
    Form(kind="json_schema", text='{"enum": ["the cat", "the hat", 7, null]}'),
    Form(kind="lark", text='start: ("the" | "cat" | " "){3,9}'),
]


def any_settings(rng: random.Random, seed: int) -> GenerationConfig:
    chosen: dict[str, Any] = {
        "temperature": rng.choice([0.0, 0.7, 1.0, 1.5]),
        "top_k": rng.choice([0, 0, 5, 40]),
        "top_p": rng.choice([1.0, 0.9, 0.5]),
        "min_p": rng.choice([0.0, 0.1]),
        "typical_p": rng.choice([1.0, 1.0, 0.8]),
        "repetition_penalty": rng.choice([1.0, 1.0, 1.3]),
        "frequency_penalty": rng.choice([0.0, 0.0, 0.7, -0.7]),
        "presence_penalty": rng.choice([0.0, 0.0, 1.0]),
        "logit_bias": rng.choice([{}, {}, {70: 3.0, 105: -100.0}]),
        "top_logprobs": rng.choice([0, 0, 3]),
        "stop": rng.choice([(), ("at",), ("e", "xyz")]),
        "form": rng.choice(FORMS),
    }
    return GenerationConfig(seed=seed, max_tokens=rng.randrange(3, 20), **chosen)


def test_answers_when_settings_are_mixed_at_random_equal_those_alone(engine: Engine, tokenizer: Tokenizer) -> None:
    rng = random.Random(5)
    configs = [any_settings(rng, seed) for seed in range(24)]
    prompts = [tokenizer.encode("the cat sat on the hat"[: rng.randrange(3, 22)]) for _ in configs]
    together = [engine.submit(prompt, config) for prompt, config in zip(prompts, configs, strict=True)]
    results = [request.result(60) for request in together]
    assert {result.finish_reason for result in results} == {"stop", "length"}
    for prompt, config, result in zip(prompts, configs, results, strict=True):
        alone = engine.submit(prompt, config).result(60)
        assert (alone.text, alone.ids, alone.finish_reason) == (result.text, result.ids, result.finish_reason), config
        assert not any(stop in result.text for stop in config.stop)
        assert 105 not in result.ids or 105 not in config.logit_bias


def test_penalty_when_it_is_strong_keeps_an_answer_from_repeating(engine: Engine, tokenizer: Tokenizer) -> None:
    prompt = tokenizer.encode("the cat")
    config = GenerationConfig(temperature=0.0, max_tokens=24, ignore_eos=True)
    plain = engine.submit(prompt, config).result()
    assert len(set(plain.ids)) < len(plain.ids)
    several = {"frequency_penalty": 2.0, "presence_penalty": 2.0}
    spread = engine.submit(prompt, config.model_copy(update=several)).result()
    assert max(spread.ids.count(token) for token in spread.ids) < max(plain.ids.count(token) for token in plain.ids)
