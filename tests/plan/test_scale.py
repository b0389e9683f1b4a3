"""Forecasts for graphics cards: arithmetic that adds up, and published runs inside their intervals."""

import itertools

import pytest

from gptwright.core.errors import UserError
from gptwright.model.cost import matrix_params, params
from gptwright.model.presets import modern, named
from gptwright.plan.devices import devices
from gptwright.plan.scale import LABEL, as_table, forecast_table, row

H100, A100_40 = devices()["h100"], devices()["a100-40gb"]


def test_forecast_table_when_asked_for_three_numbers_then_a_labelled_row_each():
    rows = forecast_table(["gpt2", "gpt3-1.3b"])
    assert [(one.model, one.gpus) for one in rows] == [(m, g) for m in ("gpt2", "gpt3-1.3b") for g in (1, 8, 64)]
    for one in rows:
        assert one.label == LABEL
        assert one.low < one.tokens_per_s < one.high
        assert 0 < one.mfu < 0.6
        assert one.memory_total == sum(one.memory.values())
        assert one.usd_per_billion_tokens == pytest.approx(one.usd_per_hour / 3600 / one.tokens_per_s * 1e9)
    # More cards are faster in all, and never by more than their number; on a single one nothing is divided.
    for few, many in itertools.pairwise(rows):
        if few.model == many.model:
            assert few.tokens_per_s < many.tokens_per_s <= 1.05 * many.gpus / few.gpus * few.tokens_per_s
    assert rows[0].strategy == "one"


# Published: torchtitan's benchmark of December 2024 (FSDP, compiled; 8 and 128 cards), nanoGPT's README (300e9 tokens in about 4 days).
@pytest.mark.parametrize(
    ("name", "device", "gpus", "way", "seq_len", "batch", "published"),
    [
        ("llama3.1-8b", H100, 8, "fsdp", 8192, 16 * 8192, 6667),
        ("llama3.1-8b", H100, 128, "fsdp", 8192, 256 * 8192, 6514),
        ("gpt2", A100_40, 8, "ddp", 1024, 491_520, 300e9 / 4 / 86400 / 8),
    ],
)
def test_row_when_a_run_was_published_then_it_lies_within_a_quarter_of_the_forecast(
    name, device, gpus, way, seq_len, batch, published
):
    one = row(name, named(name, seq_len=seq_len), device, gpus, way, batch_tokens=batch)
    assert one.tokens_per_s / gpus == pytest.approx(published, rel=0.25)
    assert one.low < published * gpus < one.high


def test_row_when_divided_over_cards_then_weights_gradients_and_moments_shrink_and_activations_do_not():
    shape = named("gpt3-1.3b", seq_len=2048)
    whole, parts = row("x", shape, H100, 8, "ddp"), row("x", shape, H100, 8, "fsdp")
    n, matrices = params(shape), matrix_params(shape)
    assert whole.memory["weights"] == 6 * n  # fp32 masters and a bf16 copy
    assert whole.memory["gradients"] == 6 * n
    assert whole.memory["optimizer"] == 4 * matrices + 8 * (n - matrices)
    assert parts.memory["optimizer"] == whole.memory["optimizer"] // 8
    assert parts.memory["weights"] < whole.memory["weights"] / 4
    assert parts.memory["activations"] == whole.memory["activations"]


def test_row_when_activations_are_computed_again_then_less_memory_and_more_time():
    shape = named("llama3.1-8b", seq_len=2048)
    plain, again = row("x", shape, H100, 8, "fsdp"), row("x", shape, H100, 8, "fsdp", checkpointed=True)
    assert again.memory["activations"] < plain.memory["activations"] / 5
    assert again.tokens_per_s < plain.tokens_per_s
    assert not plain.fits
    assert again.fits


def test_forecast_table_when_a_model_does_not_fit_then_it_says_so_and_promises_no_speed():
    (one,) = forecast_table(["llama3.1-8b"], "l4", (1,))
    assert not one.fits
    text = as_table([one])
    assert "does not fit" in text
    assert "tokens/s" in text
    assert text.splitlines()[-1].count("| - ") == 3


def test_forecast_table_when_the_model_is_a_shape_or_narrow_then_narrow_ones_use_less_of_the_peak():
    small, large = forecast_table([modern(depth=4, vocab_size=4096, seq_len=512), "gpt3-6.7b"], gpus=(8,))
    assert small.mfu < large.mfu


def test_forecast_table_when_the_name_is_wrong_then_user_error():
    with pytest.raises(UserError):
        forecast_table(["gpt9"])
    with pytest.raises(UserError, match="h100"):
        forecast_table(["gpt2"], "h9000")
