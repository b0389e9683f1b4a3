"""Pages of keys and values: leased, shared by what they hold, given back."""

import random
import subprocess
import sys

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.peak import PEAK

from gptwright.infer.cache import PAGE, Lease, PagedCache, pages_for
from gptwright.model.config import ModelConfig

CONFIG = ModelConfig(n_layers=2, n_heads=4, n_kv_heads=2, d_head=16, d_model=64, seq_len=512)
TEXT = list(range(400))


def make(pages: int = 20) -> PagedCache:
    cache = PagedCache(CONFIG, torch.float32, size_bytes=0)
    return PagedCache(CONFIG, torch.float32, size_bytes=pages * cache.page_bytes)


def test_memory_when_counted_holds_to_its_limit_but_one_full_request_always_fits() -> None:
    assert make(20).n_pages == 20
    assert make(0).n_pages == pages_for(CONFIG.seq_len)
    cache = make(20)
    assert [layer.shape for layer in cache.layers] == [(4, 20 * PAGE, 16)] * 2
    assert cache.page_bytes * 20 == sum(layer.nbytes for layer in cache.layers)


def test_prefix_when_stored_before_is_reused_by_whole_pages() -> None:
    cache = make()
    first = cache.open(TEXT[:200], 250)
    assert first is not None
    assert first.reused == 0
    cache.share(first, TEXT[:200])
    second = cache.open(TEXT[:190], 250)  # the first still runs
    assert second is not None
    assert second.reused == 128
    assert second.pages[:2] == first.pages[:2]
    assert set(second.pages[2:]).isdisjoint(first.pages)
    cache.check_integrity([first, second])
    cache.close(first)
    cache.close(second)
    third = cache.open([*TEXT[:64], 9, *TEXT[65:200]], 250)
    assert third is not None
    assert third.reused == 64


def test_prefix_when_it_is_the_whole_prompt_leaves_one_token_to_compute() -> None:
    cache = make()
    first = cache.open(TEXT[:128], 200)
    assert first is not None
    cache.share(first, TEXT[:128])
    again = cache.open(TEXT[:128], 200)
    assert again is not None
    assert again.reused == 64


def test_prefix_when_of_another_root_or_unit_is_not_reused() -> None:
    cache = make()
    first = cache.open(TEXT[:200], 250)
    assert first is not None
    cache.share(first, TEXT[:200])
    other = cache.open(TEXT[:200], 250, root=1)
    assert other is not None
    assert other.reused == 0
    coarse = cache.open(TEXT[:200], 250, unit=128)
    assert coarse is not None
    assert coarse.reused == 128
    coarser = cache.open(TEXT[:200], 250, unit=256)
    assert coarser is not None
    assert coarser.reused == 0


def test_same_beginning_when_stored_twice_is_known_once_and_goes_on_for_both() -> None:
    cache = make()
    a, b = cache.open(TEXT[:200], 250), cache.open(TEXT[:200], 250)
    assert a is not None
    assert b is not None
    cache.share(a, TEXT[:128])
    cache.share(b, TEXT[:192])  # its first two pages hold what a's hold, the third is new
    cache.close(a)
    cache.close(b)
    cache.check_integrity([])
    c = cache.open(TEXT[:200], 250)
    assert c is not None
    assert c.reused == 192


def test_pages_when_none_is_left_are_refused_and_kept_ones_are_taken_oldest_first() -> None:
    cache = make(8)
    old = cache.open(TEXT[:64], 65)
    assert old is not None
    cache.share(old, TEXT[:64])
    cache.close(old)
    new = cache.open(TEXT[100:164], 65)
    assert new is not None
    cache.share(new, TEXT[100:164])
    cache.close(new)
    assert (cache.used_pages, cache.kept_pages) == (0, 2)
    big = cache.open([7] * 10, 7 * PAGE)
    assert big is not None
    assert cache.open([7] * 10, 2 * PAGE) is None
    cache.close(big)
    assert cache.open(TEXT[:100], 128).reused == 0  # type: ignore[union-attr]
    assert cache.open(TEXT[100:200], 128).reused == 64  # type: ignore[union-attr]


@settings(max_examples=40, deadline=None)
@given(st.integers(0, 10_000))
def test_invariants_when_requests_come_and_go_at_random_hold(seed: int) -> None:
    rng = random.Random(seed)
    cache = make(16)
    running: list[tuple[Lease, list[int]]] = []
    for _ in range(60):
        if running and rng.random() < 0.5:
            lease, ids = running.pop(rng.randrange(len(running)))
            if rng.random() < 0.8:
                cache.share(lease, ids[: rng.randint(0, len(ids))])
            cache.close(lease)
        else:
            ids = [rng.randrange(2)] * 64 + [rng.randrange(2)] * rng.randint(1, 200)
            found = cache.open(ids, len(ids) + 10, root=rng.randrange(2))
            if found is None:
                continue
            running.append((found, ids))
        cache.check_integrity([lease for lease, _ in running])
    for lease, _ in running:
        cache.close(lease)
    assert cache.used_pages == 0
    cache.clear()
    assert cache.kept_pages == 0
    cache.check_integrity([])


@pytest.mark.skipif(sys.platform == "win32", reason="needs resource.getrusage")
def test_cache_when_made_takes_memory_only_as_it_is_written() -> None:
    script = f"""{PEAK}
import torch
from gptwright.infer.cache import PagedCache
from gptwright.model.config import ModelConfig
config = ModelConfig.model_validate({CONFIG.model_copy(update={"seq_len": 2**17}).model_dump()!r})
before = peak_mb()
big = PagedCache(config, torch.float32, size_bytes=2**30)
print(sum(layer.nbytes for layer in big.layers), peak_mb() - before)
"""
    made = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    size_bytes, grown_mb = map(float, made.stdout.split())
    assert size_bytes > 5e8
    assert grown_mb < 100
