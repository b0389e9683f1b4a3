"""Slots keep what they hold when they grow and when rows move, and chunked reading equals reading at once."""

from collections.abc import Callable

import pytest
import torch

from gptwright.infer.cache import SlotCache
from gptwright.infer.engine import fast_dtype
from gptwright.infer.runner import Runner, fast_linear
from gptwright.model.transformer import Transformer


def test_cache_when_it_grows_keeps_its_content(make_model: Callable[..., Transformer]) -> None:
    cache = SlotCache(make_model().config, torch.float32)
    for tensor in cache.layers:
        tensor.copy_(torch.randn(tensor.shape))
    before = [t.clone() for t in cache.layers]
    cache.reserve(3, 90)
    assert (cache.rows, cache.tokens) == (4, 96)  # powers of two, but never past the context
    assert all(torch.equal(new[:1, :, :64], old) for new, old in zip(cache.layers, before, strict=True))
    assert all(new[1:].abs().sum() == 0 for new in cache.layers)
    size = cache.size_bytes
    assert cache.bytes_for(4, 96) == size
    cache.reserve(1, 1)
    assert cache.size_bytes == size


def test_move_when_rows_change_places_copies_what_is_stored(make_model: Callable[..., Transformer]) -> None:
    cache = SlotCache(make_model().config, torch.float32)
    cache.reserve(3, 64)
    cache.layers[0][2, :, :10] = 7
    cache.move(2, 0, 10)
    assert (cache.layers[0][0, :, :10] == 7).all()
    assert (cache.layers[0][0, :, 10:] == 0).all()


@pytest.mark.parametrize("family", ["modern", "llama", "gpt2"])
@pytest.mark.parametrize("chunks", [(40,), (1, 39), (16, 16, 8), (7, 1, 1, 31)])
@torch.inference_mode()
def test_logits_when_read_in_chunks_and_steps_equal_one_pass_of_the_transformer(
    family: str, chunks: tuple[int, ...], make_model: Callable[..., Transformer]
) -> None:
    model = make_model(family)
    runner = Runner(model, 264)
    ids = torch.randint(0, 264, (1, 50), generator=torch.Generator().manual_seed(3))
    whole = model.logits(model(ids))[0, :, :264]
    cache = SlotCache(model.config, torch.float32)
    cache.reserve(4, 64)
    for tensor in cache.layers:
        tensor.fill_(1e4)  # an unmasked position would be seen at once
    tokens, at = ids[0].tolist(), 0
    for length in chunks:
        logits = runner.prefill(cache, tokens[at : at + length], row=2, start=at)
        at += length
        assert (logits[0] - whole[at - 1]).abs().max() < 1e-3
    cache.move(2, 0, at)
    cache.move(2, 1, 20)  # a second row, shorter
    for step in range(at, 50):
        logits = runner.decode(cache, [tokens[step], tokens[20]], [step, 20])
        assert (logits[0] - whole[step]).abs().max() < 1e-3
        assert (logits[1] - whole[20]).abs().max() < 1e-3


@pytest.mark.parametrize("bias", [True, False])
@torch.inference_mode()
def test_packed_linear_when_in_bf16_equals_the_plain_one(bias: bool) -> None:
    layer = torch.nn.Linear(96, 160, bias=bias).bfloat16()
    fast = fast_linear(layer)
    for rows in (1, 2, 8, 33):
        x = torch.randn(rows, 1, 96).bfloat16()
        exact = torch.nn.functional.linear(x.float(), layer.weight.float(), layer.bias.float() if bias else None)
        assert (fast(x).float() - exact).abs().max() < 0.02


@pytest.mark.skipif(
    fast_dtype() != torch.bfloat16 or torch.cpu._is_amx_tile_supported(), reason="measured on AVX512-BF16 only"
)
@pytest.mark.parametrize("width", [576, 1536, 2048])
@torch.inference_mode()
def test_packed_linear_when_rows_are_together_gives_the_bits_of_each_alone(width: int) -> None:
    fast = fast_linear(torch.nn.Linear(width, 384, bias=False).bfloat16())
    x = torch.randn(64, 1, width, generator=torch.Generator().manual_seed(0)).bfloat16()
    alone = torch.cat([fast(row[None]) for row in x])
    for rows in (2, 3, 8, 32):
        assert all(torch.equal(fast(x[i : i + rows]), alone[i : i + rows]) for i in range(0, 64 - rows, rows))
