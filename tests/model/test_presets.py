"""Presets are sane shapes, and the cost model counts what a real instance has."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.presets import GPT2_SIZES, GPT3_SIZES, gpt2, gpt3, modern, named, names
from gptwright.model.transformer import Transformer


def counted(config: ModelConfig) -> int:
    with torch.device("meta"):
        return sum(p.numel() for p in Transformer(config).parameters())


@pytest.mark.parametrize(
    ("size", "millions"),
    [("gpt2", 124_439_808), ("gpt2-medium", 354_823_168), ("gpt2-large", 774_030_080), ("gpt2-xl", 1_557_611_200)],
)
def test_gpt2_when_counted_has_the_published_parameters(size: str, millions: int) -> None:
    assert cost.params(gpt2(size)) == millions


# Table 2.1 of the paper gives the sizes rounded; the exact numbers follow from GPT-2's block at those shapes.
GPT3_PARAMS = {
    "gpt3-125m": 125_226_240,
    "gpt3-350m": 355_871_744,
    "gpt3-760m": 760_300_032,
    "gpt3-1.3b": 1_315_723_264,
    "gpt3-2.7b": 2_651_553_280,
    "gpt3-6.7b": 6_658_404_352,
    "gpt3-13b": 12_853_386_240,
    "gpt3-175b": 174_604_259_328,
}


@pytest.mark.parametrize("size", list(GPT3_SIZES))
def test_gpt3_when_built_on_meta_has_the_papers_parameters_and_context(size: str) -> None:
    config = named(size)
    assert counted(config) == cost.params(config) == GPT3_PARAMS[size]
    printed = float(size[5:-1]) * {"m": 1e6, "b": 1e9}[size[-1]]
    assert abs(GPT3_PARAMS[size] / printed - 1) < 0.02
    assert config.seq_len == 2048
    assert config.d_head * config.n_heads == config.d_model
    assert config.d_ff == 4 * config.d_model


def test_gpt3_table_when_read_has_rates_and_batches_that_go_with_size() -> None:
    rows = list(GPT3_SIZES.values())
    assert [row.lr for row in rows] == [6e-4, 3e-4, 2.5e-4, 2e-4, 1.6e-4, 1.2e-4, 1e-4, 0.6e-4]
    assert [row.batch_tokens / 1e6 for row in rows] == [0.5, 0.5, 0.5, 1, 1, 2, 2, 3.2]
    assert [name for name, row in GPT3_SIZES.items() if row.misprint] == ["gpt3-1.3b", "gpt3-13b"]


# Published counts (model cards, or the sum over the files' headers; a tied head counts once).
OPEN_PARAMS = {
    "smollm2-135m": 134_515_008,
    "smollm2-360m": 361_821_120,
    "smollm2-1.7b": 1_711_376_384,
    "tinyllama-1.1b": 1_100_048_384,
    "llama2-7b": 6_738_415_616,
    "llama3.1-8b": 8_030_261_248,
    "llama3.2-1b": 1_235_814_400,
    "llama3.2-3b": 3_212_749_824,
    "mistral-7b": 7_241_732_096,
    "qwen2.5-0.5b": 494_032_768,
    "qwen2.5-1.5b": 1_543_714_304,
    "qwen2.5-7b": 7_615_616_512,
    "qwen3-0.6b": 596_049_920,
    "qwen3-1.7b": 1_720_574_976,
    "qwen3-4b": 4_022_468_096,
    "qwen3-8b": 8_190_735_360,
}


@pytest.mark.parametrize("name", list(OPEN_PARAMS))
def test_open_shape_when_built_on_meta_has_the_published_parameters(name: str) -> None:
    assert counted(named(name)) == cost.params(named(name)) == OPEN_PARAMS[name]


def test_names_when_listed_are_all_built_and_others_refused_with_near_ones() -> None:
    assert set(OPEN_PARAMS) | set(GPT3_PARAMS) | set(GPT2_SIZES) == set(names())
    assert named("GPT2-124M") == gpt2("124m") == named("gpt2")
    assert named("qwen3-0.6b", vocab_size=4096, seq_len=512).vocab_size == 4096
    assert gpt3("125m") == named("gpt3-125m")
    with pytest.raises(UserError, match=r"no such preset: qwen3-0\.7b\. Choose modern, gpt2, or one of qwen3-"):
        named("qwen3-0.7b")


@pytest.mark.parametrize("size", list(GPT2_SIZES))
def test_params_of_gpt2_when_built_on_meta_agree(size: str) -> None:
    config = gpt2(size)
    assert cost.params(config) == counted(config)


@given(st.integers(1, 14), st.integers(100, 20000), st.booleans())
def test_params_of_modern_when_built_on_meta_agree(depth: int, vocab_size: int, tied: bool) -> None:
    config = modern(depth=depth, vocab_size=vocab_size, tie_embeddings=tied)
    assert config.vocab_size % 64 == 0
    assert config.vocab_size >= vocab_size
    assert config.d_ff % 64 == 0
    assert config.d_model == config.n_heads * config.d_head
    assert cost.params(config) == counted(config)
    assert cost.params(config.model_copy(update={"family": "llama"})) == counted(
        config.model_copy(update={"family": "llama"})
    )


@pytest.mark.parametrize("target", [int(x) for x in (1.5e6, 4e6, 15e6, 60e6, 124e6, 350e6, 1.5e9, 7e9, 70e9, 175e9)])
def test_modern_when_asked_for_a_size_comes_near_it(target: int) -> None:
    config = modern(params=target, vocab_size=4096)
    assert abs(math.log(cost.params(config) / target)) < 0.12
    assert config.d_model / config.n_layers <= 256


def test_modern_when_too_small_for_its_vocabulary_says_so() -> None:
    with pytest.raises(UserError, match="too few"):
        modern(params=100_000, vocab_size=8192)
    with pytest.raises(UserError, match="more than a shape is known for"):
        modern(params=10**13)
    with pytest.raises(ValueError, match="exactly one"):
        modern()
    with pytest.raises(UserError, match="no GPT-2 of size"):
        gpt2("7b")


@pytest.mark.parametrize(
    "config", [modern(depth=2, vocab_size=512), gpt2("gpt2-1m", vocab_size=512)], ids=["modern", "gpt2"]
)
def test_flops_when_counted_by_torch_agree(config: ModelConfig) -> None:
    from torch.utils.flop_counter import FlopCounterMode

    t = 64
    model = Transformer(config)
    model.init_weights(0)
    with FlopCounterMode(display=False) as counter:
        loss = model.logits(model(torch.zeros(1, t, dtype=torch.long))).float().logsumexp(-1).sum()
    # torch counts the whole square of attention, the model only its causal half
    full = t * (
        cost.forward_flops_per_token(config, t) + config.n_layers * 4 * config.n_heads * config.d_head * (t - 1) // 2
    )
    forward = counter.get_total_flops()
    if forward < full:  # this build does not count the fused CPU attention: compare the matrix products alone
        full -= t * config.n_layers * 4 * config.n_heads * config.d_head * t
    assert forward == pytest.approx(full, rel=0.01)
    with FlopCounterMode(display=False) as counter:
        loss.backward()
    assert counter.get_total_flops() == pytest.approx(2 * forward, rel=0.25)


def test_kv_bytes_when_a_cache_is_built_agree() -> None:
    from gptwright.infer.cache import PagedCache

    config = modern(depth=4, vocab_size=512, seq_len=256)
    cache = PagedCache(config, torch.bfloat16, size_bytes=0, max_batch=1)
    assert cache.page_bytes * 16 == cost.kv_cache_bytes(config, 4 * 256, 2)
