"""Presets are sane shapes, and the cost model counts what a real instance has."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.presets import GPT2_SIZES, gpt2, modern
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


@pytest.mark.parametrize("target", [int(x) for x in (1.5e6, 4e6, 15e6, 60e6, 124e6, 350e6, 1.5e9)])
def test_modern_when_asked_for_a_size_comes_near_it(target: int) -> None:
    config = modern(params=target, vocab_size=4096)
    assert abs(math.log(cost.params(config) / target)) < 0.12
    assert config.d_model / config.n_layers <= 256


def test_modern_when_too_small_for_its_vocabulary_says_so() -> None:
    with pytest.raises(UserError, match="too few"):
        modern(params=100_000, vocab_size=8192)
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
    from gptwright.infer.cache import SlotCache

    config = modern(depth=4, vocab_size=512, seq_len=256)
    cache = SlotCache(config, dtype=torch.bfloat16)
    cache.reserve(rows=4, tokens=256)
    assert cache.size_bytes == cost.kv_cache_bytes(config, 4 * 256, 2)
