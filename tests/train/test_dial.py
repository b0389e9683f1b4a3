"""The dial: exact where it was fitted, even in between, silent where the user has spoken; GPT-3's sizes bring their paper's columns."""

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.model.presets import GPT3_SIZES, gpt2, modern, named
from gptwright.train.config import TrainConfig
from gptwright.train.dial import DIALLED, RATES, batch_for, decay_for, dial, note, proxy_shape, settings_for


def starter(depth: int = 3) -> ModelConfig:
    return modern(depth=depth, vocab_size=4096, seq_len=256)


def config(**given: Any) -> TrainConfig:
    return TrainConfig.model_validate({"max_steps": 100, **given})


@pytest.mark.parametrize(
    ("depth", "matrix", "embedding"), [(1, 0.018, 0.0398), (2, 0.0119, 0.0282), (3, 0.0093, 0.023)]
)
def test_dial_when_at_the_fitted_sizes_then_has_the_values_of_the_log(
    depth: int, matrix: float, embedding: float
) -> None:
    found = dial(starter(depth), batch_tokens=4096)
    assert found.lr_matrix == matrix
    assert found.lr_embedding == embedding


def test_dial_when_width_grows_then_no_rate_does_and_the_batch_never_falls() -> None:
    dials = [dial(starter(depth), batch_tokens=4096) for depth in range(1, 25)]
    for smaller, larger in itertools.pairwise(dials):
        for name in RATES:
            assert getattr(larger, name) <= getattr(smaller, name)
    batches = [dial(starter(depth)).batch_tokens for depth in range(1, 25)]
    assert batches == sorted(batches)


@given(st.floats(1e3, 1e12), st.floats(1e3, 1e12), st.sampled_from([32, 256, 2048]))
def test_batch_when_the_run_has_more_tokens_then_is_no_smaller_and_holds_whole_rows(a: float, b: float, t: int) -> None:
    shape = modern(depth=2, vocab_size=4096, seq_len=t)
    few, many = (batch_for(shape, tokens) for tokens in sorted((a, b)))
    assert few <= many
    rows = many // t
    assert rows * t == many
    assert rows & (rows - 1) == 0


@given(st.integers(1, 10**7))
def test_batch_when_steps_are_known_then_agrees_with_the_tokens_that_they_make(steps: int) -> None:
    batch = batch_for(starter(), steps=steps)
    again = batch_for(starter(), tokens=steps * batch)
    assert 0.5 <= again / batch <= 2  # powers of two: at most one notch apart


@given(st.integers(0, 6))
def test_rates_when_the_batch_is_doubled_then_grow_by_its_root(doublings: int) -> None:
    small, large = dial(starter(), batch_tokens=4096), dial(starter(), batch_tokens=4096 * 4**doublings)
    for name in RATES:
        assert getattr(large, name) == pytest.approx(2**doublings * getattr(small, name), rel=0.01)


@pytest.mark.parametrize("name", DIALLED)
def test_settings_when_set_by_hand_then_stay_and_the_rest_is_dialled(name: str) -> None:
    value = 2048 if name == "batch_tokens" else 0.123
    found = settings_for(starter(), config(**{name: value}))
    assert getattr(found, name) == value
    rest = dial(starter(), batch_tokens=found.batch_tokens)
    for other in DIALLED:
        if other != name:
            assert getattr(found, other) == getattr(rest, other)


def test_settings_when_set_by_hand_to_the_very_default_then_still_stay() -> None:
    usual = TrainConfig(max_steps=1)
    found = settings_for(starter(8), config(lr_matrix=usual.lr_matrix, batch_tokens=usual.batch_tokens))
    assert (found.lr_matrix, found.batch_tokens) == (usual.lr_matrix, usual.batch_tokens)


@pytest.mark.parametrize(
    ("passes", "fed", "decay"),
    [
        (1, 1.04, 0.0), (2, 1.04, 0.0), (4, 0.19, 0.0), (7.3, 1.04, 0.342), (7.3, 0.55, 0.89), (7.3, 0.19, 2.0),
        (8, 20, 0.0049), (14.6, 1.04, 0.83), (100, 1.04, 0.83), (100, 1e-3, 2.0),
    ],
)  # fmt: skip
def test_decay_when_the_text_is_read_again_then_is_what_the_ablations_found(
    passes: float, fed: float, decay: float
) -> None:
    assert decay_for(passes, fed) == pytest.approx(decay, rel=0.01)


@given(st.floats(0.01, 1e4), st.floats(1, 10), st.floats(1e-3, 1e3), st.floats(1, 10))
def test_decay_when_there_are_more_passes_or_less_text_then_never_falls(
    p: float, more: float, fed: float, less: float
) -> None:
    assert 0 <= decay_for(p, fed) <= decay_for(more * p, fed) <= 2
    assert decay_for(p, fed) <= decay_for(p, fed / less)


@pytest.mark.parametrize(("passes", "some"), [(1, False), (2, False), (4, False), (8, True), (100, True)])
def test_settings_when_the_text_is_read_so_often_then_have_the_rules_decay(passes: int, some: bool) -> None:
    shape, unique = starter(2), 512 * 4096.0
    by_steps = settings_for(shape, config(max_steps=512 * passes, batch_tokens=4096), unique=unique)
    by_tokens = settings_for(shape, config(batch_tokens=4096), tokens=passes * unique, unique=unique)
    assert by_steps.weight_decay == by_tokens.weight_decay == decay_for(passes, unique / params(shape))
    assert (by_steps.weight_decay > 0) == some
    assert by_steps.lr_matrix == settings_for(shape, config(batch_tokens=4096)).lr_matrix


def test_settings_when_nothing_is_known_of_the_text_or_nothing_was_tried_then_have_no_decay() -> None:
    assert settings_for(starter(), config(max_steps=10**6)).weight_decay == 0
    assert settings_for(starter(), config(max_steps=10**6, optimizer="adamw"), unique=1e6).weight_decay == 0
    assert settings_for(starter(), config(max_steps=10**6), unique=1e6).weight_decay > 0


@pytest.mark.parametrize("value", [0.0, 0.1, 3.0])
def test_settings_when_a_decay_is_set_by_hand_then_it_stays_however_often_the_text_is_read(value: float) -> None:
    for steps in (1, 10**6):
        assert settings_for(starter(), config(max_steps=steps, weight_decay=value), unique=1e5).weight_decay == value


def test_settings_when_adamw_then_the_matrices_rate_is_adamws() -> None:
    assert settings_for(starter(), config(optimizer="adamw")).lr_other < settings_for(starter(), config()).lr_other


@pytest.mark.parametrize("name", list(GPT3_SIZES))
def test_settings_when_a_size_of_gpt3_then_are_the_papers_columns(name: str) -> None:
    row = GPT3_SIZES[name]
    shape = ModelConfig.model_validate({**named("gpt3-125m").model_dump(), "n_layers": 1})
    found = settings_for(shape, config(), name)
    assert (found.optimizer, found.beta1, found.beta2, found.clip_norm) == ("adamw", 0.9, 0.95, 1.0)
    assert (found.lr_embedding, found.lr_other, found.weight_decay) == (row.lr, row.lr, 0.1)
    assert (found.decay, found.final_lr_share, found.warmup_share) == ("cosine", 0.1, 0.00125)
    assert row.batch_tokens - 2048 < found.batch_tokens <= row.batch_tokens
    assert "GPT-3's table 2.1" in note(shape, found, name)


def test_settings_when_a_size_of_gpt3_and_something_set_by_hand_then_that_stays() -> None:
    shape = named("gpt3-125m", seq_len=512)
    found = settings_for(shape, config(lr_other=0.001, batch_tokens=1024, decay="linear"), "GPT3-125M")
    assert (found.lr_other, found.lr_embedding, found.batch_tokens, found.decay) == (0.001, 6e-4, 1024, "linear")


def test_note_when_far_beyond_the_fitted_sizes_then_says_extrapolated() -> None:
    assert "extrapolated" not in note(starter(3), settings_for(starter(3), config()))
    large = modern(depth=12, vocab_size=32768)
    assert "extrapolated" in note(large, settings_for(large, config()))


@pytest.mark.parametrize(
    "shape", [starter(1), starter(2), starter(8), gpt2("gpt2-10m"), named("llama3.2-1b"), named("qwen2.5-0.5b")]
)
def test_proxy_when_made_then_is_small_and_of_the_same_family_and_tokens(shape: ModelConfig) -> None:
    proxy = proxy_shape(shape)
    assert params(proxy) <= params(shape)
    assert (proxy.family, proxy.vocab_size, proxy.seq_len) == (shape.family, shape.vocab_size, shape.seq_len)
    assert proxy.n_layers <= 4
    assert proxy.tie_embeddings == shape.tie_embeddings
