"""The batched sampler does what a plain loop over one row does, and a row does not see its neighbours."""

import math
import random

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.infer.config import GenerationConfig
from gptwright.infer.history import History, Past
from gptwright.infer.sampling import Sampler, SamplerRows, process_logits, sample

configs = st.builds(
    GenerationConfig,
    temperature=st.sampled_from([0.0, 0.3, 0.8, 1.0, 2.0]),
    top_k=st.sampled_from([0, 0, 1, 3, 40, 500]),
    top_p=st.sampled_from([1.0, 1.0, 0.999, 0.9, 0.5, 0.05]),
    min_p=st.sampled_from([0.0, 0.0, 0.02, 0.5]),
    typical_p=st.sampled_from([1.0, 1.0, 0.95, 0.6, 0.1]),
    repetition_penalty=st.sampled_from([1.0, 1.0, 1.3, 0.7]),
    frequency_penalty=st.sampled_from([0.0, 0.0, 0.5, -1.0]),
    presence_penalty=st.sampled_from([0.0, 0.0, 1.5, -0.5]),
    logit_bias=st.dictionaries(st.integers(0, 6), st.sampled_from([-100.0, -2.0, 1.0, 100.0]), max_size=3),
)
Used = tuple[list[int], list[int]]
"""A prompt and what was generated after it."""


def plain(logits: list[float], c: GenerationConfig, used: Used) -> list[float]:
    """The definition, one number at a time. Returns the probabilities."""
    x = list(logits)
    prompt, generated = used
    for i, bias in c.logit_bias.items():
        x[i] += bias
    for i in {*prompt, *generated}:
        x[i] = x[i] / c.repetition_penalty if x[i] > 0 else x[i] * c.repetition_penalty
    for i in set(generated):
        x[i] -= c.frequency_penalty * generated.count(i) + c.presence_penalty
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
    if c.typical_p < 1:
        p = probabilities()
        entropy = -sum(v * math.log(v) for v in p.values() if v)
        distance = {i: abs(-math.log(v) - entropy) if v else math.inf for i, v in p.items()}
        mass, last = 0.0, 0.0
        for i in sorted(kept, key=distance.__getitem__):
            last = distance[i]
            mass += p[i]
            if mass >= c.typical_p:
                break
        kept = {i for i in kept if distance[i] <= last}
    p = probabilities()
    return [p.get(i, 0.0) for i in range(len(x))]


def random_past(choices: list[GenerationConfig], seed: int, vocab: int) -> tuple[list[Used], list[History | None]]:
    """Prompts and answers so far, and the tables that the sampler keeps of them."""
    rng = random.Random(seed)
    used, histories = [], []
    for config in choices:
        prompt, generated = ([rng.randrange(vocab) for _ in range(rng.randrange(1, 80))] for _ in range(2))
        history = History.wanted(config, [*prompt, vocab + 5], vocab)  # an id beyond what can be sampled
        for token in generated:
            if history is not None:
                history.add(token)
        used.append((prompt, generated))
        histories.append(history)
    return used, histories


def random_logits(seed: int, rows: int, vocab: int) -> torch.Tensor:
    return 3 * torch.randn(rows, vocab, generator=torch.Generator().manual_seed(seed))


@settings(max_examples=80, deadline=None)
@given(st.lists(configs, min_size=1, max_size=5), st.integers(0, 10**6), st.sampled_from([7, 120, 700, 2000]))
def test_filters_when_batched_equal_the_plain_reference(choices: list[GenerationConfig], seed: int, vocab: int) -> None:
    logits = random_logits(seed, len(choices), vocab)
    given_logits = logits.clone()
    used, histories = random_past(choices, seed, vocab)
    rows = SamplerRows.build(choices, vocab)
    processed = process_logits(logits, rows, Past.of(histories))
    assert torch.equal(logits, given_logits)  # log-probabilities of the model itself are read from it afterwards
    for row, config in enumerate(choices):
        expected = torch.tensor(plain(logits[row].tolist(), config, used[row]))
        if config.temperature == 0:
            assert processed[row].argmax() == expected.argmax()
        else:
            ours = torch.softmax(processed[row], -1)
            differing = (ours - expected).abs() > 1e-4
            # a token exactly at a filter's border may fall either way in fp32, and then all others share its weight
            if differing.any():
                assert ((ours > 0) != (expected > 0)).sum() <= 1, (ours, expected)


@settings(max_examples=40, deadline=None)
@given(st.lists(configs, min_size=2, max_size=6), st.integers(0, 10**6), st.booleans())
def test_row_when_others_stand_beside_it_draws_the_same_token(
    choices: list[GenerationConfig], seed: int, formed: bool
) -> None:
    logits = (random_logits(seed, len(choices), 600) * 4).round() / 4  # many ties, as bf16 makes them
    _, histories = random_past(choices, seed, 600)
    uniforms = torch.rand(len(choices), generator=torch.Generator().manual_seed(seed)).tolist()
    some = torch.arange(600) % 3 == 0
    allowed = [some if formed and row % 2 else None for row in range(len(choices))]
    together = Sampler(choices, 600)(logits, uniforms, histories, allowed)
    grouped = Sampler(choices * 30, 600)(logits.repeat(30, 1), uniforms * 30, histories * 30, allowed * 30)
    assert len(Sampler(choices * 60, 600).groups) > 1
    assert grouped.ids == together.ids * 30
    for row in range(len(choices)):
        one = slice(row, row + 1)
        alone = Sampler(choices[one], 600)(logits[one], uniforms[one], histories[one], allowed[one])
        assert alone.ids[0] == together.ids[row]
        assert alone.logprobs[0] == pytest.approx(together.logprobs[row], abs=1e-5)
        assert allowed[row] is None or alone.ids[0] % 3 == 0


@given(st.lists(st.integers(0, 40), max_size=200), st.lists(st.integers(0, 40), max_size=200))
def test_history_when_tokens_are_added_counts_each(prompt: list[int], generated: list[int]) -> None:
    history = History(prompt)
    for token in generated:
        history.add(token)
    table = dict(zip(*history.table.tolist(), strict=True))
    assert table == {token: generated.count(token) for token in {*prompt, *generated}}


def test_logprobs_when_rows_are_penalised_biased_and_formed_are_the_models_own() -> None:
    logits = random_logits(3, 2, 90)
    config = GenerationConfig(
        temperature=0.5, top_k=2, frequency_penalty=2, logit_bias={5: 100.0}, repetition_penalty=2, top_logprobs=4
    )
    history = History()
    history.add(int(logits[0].argmax()))
    drawn = Sampler([config, GenerationConfig()], 90)(logits, [0.5, 0.5], [history, None], [torch.arange(90) < 6, None])
    own = torch.log_softmax(logits, -1)
    assert drawn.ids[0] == 5
    assert drawn.logprobs == pytest.approx([own[0, 5].item(), own[1, drawn.ids[1]].item()], abs=1e-5)
    assert [token for token, _ in drawn.top[0]] == own[0].topk(4).indices.tolist()
    assert [value for _, value in drawn.top[0]] == pytest.approx(own[0].topk(4).values.tolist(), abs=1e-5)
    assert drawn.top[1] == ()


def test_bias_when_it_is_extreme_forces_or_forbids_a_token() -> None:
    logits = random_logits(4, 1, 50)
    best = int(logits.argmax())
    for temperature in (0.0, 1.0):
        forced = GenerationConfig(temperature=temperature, logit_bias={7: 100.0})
        banned = GenerationConfig(temperature=temperature, logit_bias={best: -100.0, 49_000: 1.0})
        for u in (1e-9, 0.5, 0.99):
            assert Sampler([forced], 50)(logits, [u]).ids == [7]
            assert Sampler([banned], 50)(logits, [u]).ids != [best]


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
    expected = torch.tensor(plain(logits[0].tolist(), config, ([], [])))
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


@pytest.mark.parametrize("typical", [0.2, 0.9])
def test_filters_when_compared_with_transformers_processors_agree(typical: float) -> None:
    t = pytest.importorskip("transformers")
    logits = random_logits(5, 4, 1000)
    prompt = torch.randint(0, 1000, (4, 30), generator=torch.Generator().manual_seed(0))
    bias = {17: 3.0, 400: -100.0}
    chain = t.LogitsProcessorList(
        [
            t.SequenceBiasLogitsProcessor({(token,): value for token, value in bias.items()}),
            t.RepetitionPenaltyLogitsProcessor(1.2),
            t.TemperatureLogitsWarper(0.8),
            t.TopKLogitsWarper(200),
            t.TopPLogitsWarper(0.95),
            t.MinPLogitsWarper(0.01),
            t.TypicalLogitsWarper(typical),
        ]
    )
    expected = chain(prompt, logits.clone())
    config = GenerationConfig(
        temperature=0.8, top_k=200, top_p=0.95, min_p=0.01, typical_p=typical, repetition_penalty=1.2, logit_bias=bias
    )
    past = Past.of([History.wanted(config, row, 1000) for row in prompt.tolist()])
    ours = process_logits(logits, SamplerRows.build([config] * 4, 1000), past)
    assert torch.allclose(torch.softmax(ours, -1), torch.softmax(expected, -1), atol=1e-6)
