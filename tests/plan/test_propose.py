"""Plans: sizes that the time and the text can feed, honest warnings, arithmetic that adds up."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.cost import embedding_params, flops_per_token, params
from gptwright.model.presets import modern
from gptwright.plan.constants import CONSTANTS
from gptwright.plan.probe import Machine, TrainRate
from gptwright.plan.propose import Budget, forecast, load_runs, propose

MACHINE = Machine(
    cpu="test", cores=2, memory_bytes=16 * 10**9, memory_free_bytes=12 * 10**9, disk_free_bytes=10**11, device="cpu", device_name="test",
    dtype="bfloat16", bf16="amx", matmul_fp32=2e11, matmul_bf16=2e12, bandwidth=2e10,
    rates=(TrainRate(128, 1e11, 2e10), TrainRate(256, 2e11, 5e10), TrainRate(512, 4e11, 1e11)), probe_s=5.0,
)  # fmt: skip


@pytest.mark.parametrize(
    ("text", "budget"),
    [
        ("30m", Budget(seconds=1800)),
        ("45s", Budget(seconds=45)),
        ("20usd", Budget(usd=20)),
        ("1e15", Budget(flop=1e15)),
        ("2.5e+12flop", Budget(flop=2.5e12)),
    ],
)
def test_budget_parse_of_each_kind_then_understood(text, budget):
    assert Budget.parse(text) == budget


@pytest.mark.parametrize("text", ["", "soon", "-3m", "0s", "usd", "1e999", "0e5"])
def test_budget_parse_of_nonsense_then_user_error(text):
    with pytest.raises(UserError, match="budget"):
        Budget.parse(text)


def test_propose_with_more_time_then_a_larger_model_and_more_tokens():
    plans = [propose(MACHINE, 10**9, Budget(seconds=s)) for s in (300, 3600, 36_000)]
    assert plans[0].params < plans[1].params < plans[2].params
    assert plans[0].tokens < plans[1].tokens < plans[2].tokens
    assert all(CONSTANTS.least_tokens_per_param <= plan.tokens / plan.params for plan in plans)


@settings(max_examples=60, deadline=None)
@given(corpus=st.integers(10_000, 10**10), seconds=st.floats(30, 10**6), speed=st.floats(0.02, 50))
def test_propose_for_any_case_then_keeps_time_epochs_and_shapes(corpus, seconds, speed):
    machine = replace(
        MACHINE, rates=tuple(TrainRate(r.d_model, r.flops * speed, r.update * speed) for r in MACHINE.rates)
    )
    plan = propose(machine, corpus, Budget(seconds=seconds))
    one_step = plan.batch_tokens / plan.tokens_per_s
    assert plan.seconds <= max(seconds * 1.001, CONSTANTS.setup_s + 1.1 * one_step)
    assert plan.epochs <= CONSTANTS.max_epochs * 1.001 or plan.steps == 1
    assert plan.model.d_model % 64 == 0
    assert plan.batch_tokens % plan.seq_len == 0
    assert plan.tokens == plan.steps * plan.batch_tokens
    assert plan.params == params(plan.model)
    assert plan.flop == pytest.approx(plan.tokens * flops_per_token(plan.model, plan.seq_len))
    assert json.loads(json.dumps(plan.to_json()))["minutes"] == plan.minutes


def test_propose_with_much_text_and_little_time_then_the_vocabulary_stays_small():
    short, long = (propose(MACHINE, 10**10, Budget(seconds=s)) for s in (300, 10**6))
    assert short.model.vocab_size < long.model.vocab_size
    assert embedding_params(short.model) <= CONSTANTS.embedding_share * short.params


def test_propose_when_the_text_is_tiny_and_the_time_long_then_advises_an_open_model():
    plan = propose(MACHINE, 300_000, Budget(seconds=36_000))
    assert plan.epochs <= CONSTANTS.max_epochs
    assert plan.seconds < 3600
    assert "fine-tune an open model instead" in plan.warnings[0]
    assert "your 0.3 MB" in plan.warnings[0]
    assert not propose(MACHINE, 10**10, Budget(seconds=3600)).warnings


def test_propose_when_the_time_is_a_few_seconds_then_says_too_small():
    warnings = " ".join(propose(MACHINE, 10**8, Budget(seconds=12)).warnings)
    assert "budget is too small" in warnings
    assert "starting up" in warnings


def test_propose_when_memory_is_short_then_a_smaller_model_and_when_none_fits_then_says_so():
    rich = propose(MACHINE, 10**12, Budget(seconds=10**8))
    poor = propose(replace(MACHINE, memory_free_bytes=10**9), 10**12, Budget(seconds=10**8))
    assert poor.params < rich.params
    assert sum(poor.memory.values()) <= 0.8 * 10**9
    none = propose(replace(MACHINE, memory_free_bytes=10**8), 10**9, Budget(seconds=3600))
    assert "GB of memory" in " ".join(none.warnings)


def test_propose_for_a_chosen_shape_then_only_schedules_it():
    shape = modern(depth=12, vocab_size=8192, seq_len=256)
    plan = propose(MACHINE, 10**8, Budget(seconds=3000), shape=shape, batch_tokens=8192)
    assert isinstance(plan.model, ModelConfig)
    assert plan.model == shape
    assert plan.batch_tokens == 8192
    assert any("tokens for each parameter" in warning for warning in plan.warnings)


def test_propose_with_flop_or_money_then_agrees_with_time():
    by_flop = propose(MACHINE, 10**9, Budget(flop=1e14))
    assert by_flop.flop <= 1e14
    assert by_flop.flop >= 0.9e14
    money = propose(MACHINE, 10**9, Budget(usd=2), usd_per_hour=4)
    assert money == replace(propose(MACHINE, 10**9, Budget(seconds=1800), usd_per_hour=4))
    assert money.usd == pytest.approx(2, rel=0.1)
    with pytest.raises(UserError, match="price"):
        propose(MACHINE, 10**9, Budget(usd=2))


def test_propose_with_a_tokenizer_then_its_figures_are_used():
    plan = propose(MACHINE, 10**8, Budget(seconds=600), vocab_size=2048, bytes_per_token=2.0)
    assert plan.model.vocab_size == 2048
    assert plan.epochs == pytest.approx(plan.tokens / (10**8 / 2.0))


def test_propose_without_text_then_user_error():
    with pytest.raises(UserError, match="no training text"):
        propose(MACHINE, 0, Budget(seconds=60))


def test_forecast_with_too_few_runs_then_none_and_with_enough_then_their_range():
    rows = [{"params": 10**6, "tokens": 10**7 * f, "bits_per_byte": 1.5 + f / 10, "corpus": "chats"} for f in (1, 2)]
    assert forecast(10**6, 10**7, rows) is None
    rows += [
        {"params": 2 * 10**6, "tokens": 10**7, "bits_per_byte": 1.4, "corpus": "wiki"},
        {"params": 10**9, "tokens": 10**7, "bits_per_byte": 9.0, "corpus": "x"},
    ]
    found = forecast(10**6, 10**7, rows)
    assert found is not None
    assert (found.n, found.low, found.high, found.corpora) == (3, 1.4, 1.7, ("chats", "wiki"))


def test_load_runs_then_every_row_has_what_a_forecast_needs():
    for row in load_runs():
        assert {"params", "tokens", "bits_per_byte", "corpus", "date"} <= set(row)
    plan = propose(MACHINE, 10**12, Budget(seconds=10**8))
    assert "no forecast" in plan.forecast_note


def test_machine_between_measured_widths_then_interpolates_and_never_extrapolates():
    assert MACHINE.train_flops(256) == pytest.approx(2e11)
    assert 2e11 < MACHINE.train_flops(384) < 4e11
    assert MACHINE.train_flops(64) == pytest.approx(1e11)
    assert MACHINE.train_flops(4096) == pytest.approx(4e11)
    assert Machine.from_json(json.loads(json.dumps(MACHINE.to_json()))) == MACHINE
