"""Sizing of serving: memory to the byte, decoding bound by the memory's bandwidth, loads that fit and that do not."""

import pytest

from gptwright.model.cost import kv_cache_bytes, params
from gptwright.model.presets import named
from gptwright.plan.constants import CONSTANTS
from gptwright.plan.devices import devices
from gptwright.plan.serving import Load, sizing, sizing_table

EIGHT = named("llama3.1-8b")


def test_sizing_when_a_model_fits_then_memory_and_decoding_follow_from_bandwidth():
    (row,) = sizing("llama3.1-8b", ["h100"])
    assert row.weights == 2 * params(EIGHT)
    assert row.kv_per_token == kv_cache_bytes(EIGHT, 1) == 2 * 32 * 8 * 128 * 2
    read = row.weights + 600 * row.kv_per_token  # a prompt of 500, half of an answer of 200
    assert 1 / row.decode_one == pytest.approx(CONSTANTS.serve_step_s + read / (0.6 * devices()["h100"].bandwidth))
    assert row.decode_one < row.decode_all <= row.most_answers * row.decode_one
    assert row.most_answers == CONSTANTS.serve_batch
    assert row.usd_per_month == pytest.approx(730 * devices()["h100"].price.usd)


def test_sizing_when_weights_are_smaller_then_faster_and_less_memory():
    wide, narrow = (sizing("llama3.1-8b", ["l4"], dtype=dtype)[0] for dtype in ("bfloat16", "q4_0"))
    assert narrow.weights == int(params(EIGHT) * 18 / 32)
    assert narrow.decode_one > 2.5 * wide.decode_one


def test_sizing_when_memory_is_short_then_fewer_answers_and_at_last_none():
    long = Load(prompt_tokens=30_000, answer_tokens=1000)
    (few,) = sizing("llama3.1-8b", ["l4"], long)
    assert few.most_answers == int((0.9 * 24e9 - few.weights) // (few.kv_per_token * 31_000))
    (none,) = sizing("llama3.1-8b", ["t4"])
    assert not none.fits
    assert (none.decode_one, none.decode_all, none.requests_per_day) == (0, 0, 0)
    assert not none.answers_load
    assert "does not fit" in sizing_table([none])


def test_sizing_when_the_load_grows_then_it_is_no_longer_answered():
    (row,) = sizing("llama3.1-8b", ["l4"])
    assert row.answers_load
    beyond = Load(requests_per_day=1.01 * row.requests_per_day)
    assert not sizing("llama3.1-8b", ["l4"], beyond)[0].answers_load
    within = Load(requests_per_day=0.99 * row.requests_per_day)
    assert sizing("llama3.1-8b", ["l4"], within)[0].answers_load


def test_sizing_table_when_printed_then_says_which_numbers_are_forecasts():
    text = sizing_table(sizing("smollm2-135m", ["l4", "h100"]))
    assert text.count("(forecast)") == 2
    assert text.splitlines()[0].count("|") == text.splitlines()[2].count("|")
