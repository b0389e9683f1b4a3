"""Slots keep what they hold when they grow and when rows move, and chunked reading equals reading at once."""

from collections.abc import Callable

import pytest
import torch

from gptwright.infer.cache import DecodeView, PrefillView, SlotCache
from gptwright.model.transformer import Transformer


def test_cache_when_it_grows_keeps_its_content(make_model: Callable[..., Transformer]) -> None:
    cache = SlotCache(make_model().config, torch.float32)
    for tensor in (*cache.keys, *cache.values):
        tensor.copy_(torch.randn(tensor.shape))
    before = [t.clone() for t in cache.keys]
    cache.reserve(3, 90)
    assert (cache.rows, cache.tokens) == (4, 96)  # powers of two, but never past the context
    assert all(torch.equal(new[:1, :, :64], old) for new, old in zip(cache.keys, before, strict=True))
    assert all(new[1:].abs().sum() == 0 for new in cache.keys)
    size = cache.size_bytes
    assert cache.bytes_for(4, 96) == size
    cache.reserve(1, 1)
    assert cache.size_bytes == size


def test_move_when_rows_change_places_copies_what_is_stored(make_model: Callable[..., Transformer]) -> None:
    cache = SlotCache(make_model().config, torch.float32)
    cache.reserve(3, 64)
    cache.keys[0][2, :, :10] = 7
    cache.move(2, 0, 10)
    assert (cache.keys[0][0, :, :10] == 7).all()
    assert (cache.keys[0][0, :, 10:] == 0).all()


@pytest.mark.parametrize("family", ["modern", "llama", "gpt2"])
@pytest.mark.parametrize("chunks", [(40,), (1, 39), (16, 16, 8), (7, 1, 1, 31)])
@torch.no_grad()
def test_hidden_states_when_read_in_chunks_and_steps_equal_one_pass(
    family: str, chunks: tuple[int, ...], make_model: Callable[..., Transformer]
) -> None:
    model = make_model(family)
    ids = torch.randint(0, 264, (1, 50), generator=torch.Generator().manual_seed(3))
    whole = model(ids)
    cache = SlotCache(model.config, torch.float32)
    cache.reserve(4, 64)
    for tensor in (*cache.keys, *cache.values):
        tensor.fill_(1e4)  # an unmasked position would be seen at once
    parts, at = [], 0
    for length in chunks:
        view = PrefillView(cache, 2, at, length)
        parts.append(model(ids[:, at : at + length], view, torch.arange(at, at + length)[None]))
        at += length
    cache.move(2, 0, at)
    cache.move(2, 1, 20)  # a second row, shorter
    for step in range(at, 50):
        positions = torch.tensor([step, 20])
        hidden = model(ids[0, [step, 20]][:, None], DecodeView(cache, positions, step), positions[:, None])
        parts.append(hidden[:1])
        assert (hidden[1] - whole[0, 20]).abs().max() < 1e-4
    assert (torch.cat(parts, 1) - whole).abs().max() < 1e-4
