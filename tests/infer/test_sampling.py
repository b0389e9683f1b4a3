"""The batched sampler does what a plain loop over one row does, and a row does not see its neighbours."""

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.infer.config import GenerationConfig
from gptwright.infer.sampling import Sampler, SamplerRows, process_logits, sample

configs = st.builds(
    GenerationConfig,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 3, 40, 500]),
    top_p=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.5]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.7]),
)


def plain(logits: list[float], c: GenerationConfig, seen: set[int]) -> list[float]:
    """The definition, one number at a time. Returns the probabilities."""
    x = list(logits)
    for i in seen:
        x[i] = x[i] / c.repetition_penalty if x[i] > 0 else x[i] * c.repetition_penalty
    if c.temperature == 0:
        return [float(i == max(range(len(x)), key=x.__getitem__)) for i in range(len(x))]
    x = [v / c.temperature for v in x]
    kept = set(range(len(x)))
    if c.top_k:
        kth = sorted(x, reverse=True)[min(c.top_k, len(x)) - 1]
        kept = {i for i in kept if x[i] >= kth}

    def probabilities() -> dict[int, float]:
        top = max(x[i] for i in kept)
        total = sum(math.exp(x[i] - top) for i in kept)
        return {i: math.exp(x[i] - top) / total for i in kept}

    if c.top_p < 1:
        p, mass, nucleus = probabilities(), 0.0, set()
        for i in sorted(kept, key=lambda i: -x[i]):
            if mass >= c.top_p:
                break
            nucleus.add(i)
            mass += p[i]
        kept = nucleus
    if c.min_p:
        p = probabilities()
        best = max(p.values())
        kept = {i for i in kept if p[i] >= c.min_p * best}
    p = probabilities()
    return [p.get(i, 0.0) for i in range(len(x))]


def random_logits(seed: int, rows: int, vocab: int) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=60, deadline=None)
@given(st.lists(configs, min_size=1, max_size=5), st.integers(0, 10**6), st.sampled_from([7, 120, 700]))
def test_filters_when_batched_equal_the_plain_reference(choices: list[GenerationConfig], seed: int, vocab: int) -> None:
    logits = random_logits(seed, len(choices), vocab)
    seen = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.2
    rows = SamplerRows.build(choices, vocab)
    processed = process_logits(logits, rows, seen)
    for row, config in enumerate(choices):
        expected = torch.tensor(plain(logits[row].tolist(), config, set(torch.nonzero(seen[row])[:, 0].tolist())))
        if config.temperature == 0:
            assert processed[row].argmax() == expected.argmax()
        else:
            ours = torch.softmax(processed[row], -1)
            differing = (ours - expected).abs() > 1e-4
            # a token exactly at a filter's border may fall either way in fp32
            assert differing.sum() == 0 or (expected[differing].max() - 1 / vocab < 1e-2 and differing.sum() <= 1), (
                ours,
                expected,
            )


@settings(max_examples=40, deadline=None)
@given(st.lists(configs, min_size=2, max_size=6), st.integers(0, 10**6))
def test_row_when_others_stand_beside_it_draws_the_same_token(choices: list[GenerationConfig], seed: int) -> None:
    logits = (random_logits(seed, len(choices), 600) * 4).round() / 4  # many ties, as bf16 makes them
    seen = torch.rand(logits.shape, generator=torch.Generator().manual_seed(seed)) < 0.1
    uniforms = torch.rand(len(choices), generator=torch.Generator().manual_seed(seed)).tolist()
    together = sample(logits, SamplerRows.build(choices, 600), uniforms, seen)
    grouped = Sampler(choices * 30, 600)(logits.repeat(30, 1), uniforms * 30, seen.repeat(30, 1))
    assert len(Sampler(choices * 60, 600).groups) > 1
    assert torch.equal(grouped[0], together[0].repeat(30))
    for row in range(len(choices)):
        one = slice(row, row + 1)
        alone = sample(logits[one], SamplerRows.build(choices[one], 600), uniforms[one], seen[one])
        assert alone[0][0] == together[0][row]
        assert torch.allclose(alone[1][0], together[1][row])


@pytest.mark.parametrize("coldest", [1e-40, 1e-9, 2e-4])
def test_row_when_another_is_nearly_at_zero_temperature_draws_the_same_token(coldest: float) -> None:
    usual = GenerationConfig(temperature=0.9, top_k=50, top_p=0.9, min_p=0.01)
    cold = GenerationConfig(temperature=coldest, top_k=50, top_p=0.9)
    logits = 50 * random_logits(7, 3, 600)
    for u in (0.0, 0.3, 0.999):
        together = sample(logits, SamplerRows.build([cold, usual, cold], 600), [u] * 3)
        alone = sample(logits[1:2], SamplerRows.build([usual], 600), [u])
        assert together[0].tolist() == [logits[0].argmax(), alone[0].item(), logits[2].argmax()]
        assert together[1].isfinite().all()


def test_draws_when_many_follow_the_distribution() -> None:
    config = GenerationConfig(temperature=0.7, top_k=5)
    logits = random_logits(1, 1, 30)
    expected = torch.tensor(plain(logits[0].tolist(), config, set()))
    n = 20_000
    uniforms = torch.rand(n, generator=torch.Generator().manual_seed(2)).tolist()
    ids, _ = sample(logits.expand(n, -1).contiguous(), SamplerRows.build([config] * n, 30), uniforms)
    counts = torch.bincount(ids, minlength=30) / n
    assert (counts - expected).abs().max() < 0.012  # about 3.5 standard deviations
    assert counts[expected == 0].sum() == 0


@pytest.mark.parametrize("u", [0.0, 0.5, math.nextafter(1.0, 0.0)])
def test_draw_at_the_ends_of_the_interval_is_a_kept_token(u: float) -> None:
    logits = torch.full((1, 50), -1e4)
    logits[0, [3, 44]] = 0.0
    ids, logprobs = sample(logits, SamplerRows.build([GenerationConfig(temperature=1.0)], 50), [u])
    assert ids.item() == (3 if u < 0.5 else 44)
    assert logprobs.item() == pytest.approx(math.log(0.5))


def test_filters_when_compared_with_transformers_processors_agree() -> None:
    t = pytest.importorskip("transformers")
    logits = random_logits(5, 4, 1000)
    prompt = torch.randint(0, 1000, (4, 30), generator=torch.Generator().manual_seed(0))
    chain = t.LogitsProcessorList(
        [
            t.RepetitionPenaltyLogitsProcessor(1.2),
            t.TemperatureLogitsWarper(0.8),
            t.TopKLogitsWarper(200),
            t.TopPLogitsWarper(0.95),
            t.MinPLogitsWarper(0.01),
        ]
    )
    expected = chain(prompt, logits.clone())
    config = GenerationConfig(temperature=0.8, top_k=200, top_p=0.95, min_p=0.01, repetition_penalty=1.2)
    seen = torch.zeros(4, 1000, dtype=torch.bool).scatter_(1, prompt, torch.tensor(True).expand(4, 30))
    ours = process_logits(logits, SamplerRows.build([config] * 4, 1000), seen)
    assert torch.allclose(torch.softmax(ours, -1), torch.softmax(expected, -1), atol=1e-6)
