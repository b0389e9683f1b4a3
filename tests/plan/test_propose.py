"""Plans: sizes that the time and the text can feed, honest warnings, arithmetic that adds up."""

import json
from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.cost import embedding_params, flops_per_token, matrix_params, params
from gptwright.model.presets import modern
from gptwright.plan.constants import CONSTANTS
from gptwright.plan.devices import rented
from gptwright.plan.host import Here
from gptwright.plan.law import Law
from gptwright.plan.learnt import Learnt, compare, learn
from gptwright.plan.measure import Decode, TrainRate
from gptwright.plan.memory import Setting, parts
from gptwright.plan.probe import Machine
from gptwright.plan.propose import Budget, propose
from gptwright.train.config import TrainConfig
from gptwright.train.dial import settings_for

MACHINE = Machine(
    cpu="test", cores=2, memory_bytes=16 * 10**9, memory_free_bytes=12 * 10**9, disk_free_bytes=10**11, device="cpu", device_name="test",
    dtype="bfloat16", bf16="amx", matmul_fp32=2e11, matmul_bf16=2e12, bandwidth=2e10,
    rates=(TrainRate(128, 1e11, 2e10, 6e10, 1e10), TrainRate(256, 2e11, 5e10, 1.1e11, 3e10), TrainRate(512, 4e11, 1e11, 2.2e11, 6e10)),
    probe_s=5.0, threads=2, decode=Decode(10**7, 200.0, 900.0),
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
        MACHINE, rates=tuple(replace(r, flops=r.flops * speed, update=r.update * speed) for r in MACHINE.rates)
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
    assert plan.forecast.low < plan.forecast.value < plan.forecast.high
    given = TrainConfig(max_steps=1, batch_tokens=plan.batch_tokens)
    settings = settings_for(plan.model, given, tokens=plan.tokens, unique=plan.tokens / plan.epochs)
    assert plan.rates == pytest.approx(
        {name: getattr(settings, name) for name in plan.rates}, rel=0.006
    )  # three figures


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
    warnings = " ".join(propose(MACHINE, 10**8, Budget(seconds=5.4)).warnings)
    assert "budget is too small" in warnings
    assert "starting up" in warnings


def test_propose_when_memory_is_short_then_a_smaller_model_and_when_none_fits_then_says_so():
    rich = propose(MACHINE, 10**12, Budget(seconds=10**8))
    poor = propose(replace(MACHINE, memory_free_bytes=10**9), 10**12, Budget(seconds=10**8))
    assert poor.params < rich.params
    assert poor.memory_total <= 0.8 * 10**9
    none = propose(replace(MACHINE, memory_free_bytes=10**8), 10**9, Budget(seconds=3600))
    assert "GB of memory" in " ".join(none.warnings)


def test_propose_for_a_chosen_shape_then_only_schedules_it():
    shape = modern(depth=12, vocab_size=8192, seq_len=256)
    plan = propose(MACHINE, 10**8, Budget(seconds=3000), shape=shape, train=TrainConfig(max_steps=1, batch_tokens=8192))
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


def test_propose_when_a_larger_model_reads_the_same_small_text_then_fewer_passes():
    small, large = (
        propose(MACHINE, 2 * 10**6, Budget(seconds=10**5), shape=modern(depth=depth, vocab_size=4096, seq_len=256))
        for depth in (2, 8)
    )
    assert large.epochs < small.epochs < CONSTANTS.max_epochs
    assert large.epochs > 1


def test_propose_when_rates_are_set_by_hand_then_they_stay():
    plan = propose(MACHINE, 10**8, Budget(seconds=600), train=TrainConfig(max_steps=1, lr_matrix=0.0123))
    assert plan.rates["lr_matrix"] == 0.0123


def test_propose_for_rented_cards_then_table_prices_and_nothing_measured():
    one, eight = (propose(rented(name), 10**10, Budget(usd=20)) for name in ("h100", "8xh100"))
    assert not one.measured
    assert one.cpu_seconds is None
    assert one.usd == pytest.approx(20, rel=0.1)
    assert one.seconds == pytest.approx(20 / 2.69 * 3600, rel=0.1)
    assert eight.seconds == pytest.approx(one.seconds / 8, rel=0.1)
    assert eight.tokens_per_s > 4 * one.tokens_per_s
    assert propose(rented("h100"), 10**10, Budget(usd=20), usd_per_hour=26.9).seconds == pytest.approx(
        one.seconds / 10, rel=0.1
    )
    with pytest.raises(UserError, match="price"):
        propose(rented("mi300x"), 10**10, Budget(usd=20))
    with pytest.raises(UserError, match="price"):
        propose(MACHINE, 10**9, Budget(seconds=60), usd_per_hour=float("nan"))


def test_propose_when_the_machine_is_busy_then_both_times_are_told():
    busy = replace(MACHINE, rates=tuple(replace(rate, slowdown=3.0) for rate in MACHINE.rates))
    alone, now = propose(MACHINE, 10**9, Budget(seconds=600)), propose(busy, 10**9, Budget(seconds=600))
    assert now.seconds == alone.seconds
    assert now.seconds_now == pytest.approx(3 * alone.seconds)
    assert "other programs" in " ".join(now.warnings)
    assert not any("other programs" in warning for warning in alone.warnings)


def test_propose_when_runs_have_taught_then_speed_memory_and_loss_follow_them():
    shape = modern(depth=4, vocab_size=4096, seq_len=256)
    said = {"bits_per_byte": 1.0, "tokens_per_s": 1000.0, "memory": 5e8}
    row = compare(said, {"bits_per_byte": 1.2, "tokens_per_s": 500.0, "memory": 6e8})
    row["memory"]["earlier"] = 0
    taught = learn([row] * 8)
    before = propose(MACHINE, 10**9, Budget(seconds=600), shape=shape)
    after = propose(MACHINE, 10**9, Budget(seconds=600), shape=shape, learnt=taught)
    assert after.tokens_per_s == pytest.approx(0.5 * before.tokens_per_s, rel=0.03)
    assert after.tokens < 0.6 * before.tokens
    assert after.memory_total == before.memory_total + 10**8
    assert after.learnt_from == 8
    law = Law.load()
    assert after.forecast.value == pytest.approx(
        1.2 * law(after.params, after.tokens, after.tokens / after.epochs), rel=0.01
    )
    assert after.forecast.high / after.forecast.low < before.forecast.high / before.forecast.low


def test_learn_when_runs_are_odd_or_partly_known_then_medians_and_what_is_known():
    rows = [compare({"tokens_per_s": 100.0}, {"tokens_per_s": speed}) for speed in (80.0, 82.0, 81.0, 5.0)]
    found = learn([*rows, {"tokens": 3}])
    assert found.runs == 4
    assert found.speed == pytest.approx(0.805, abs=0.02)
    assert (found.memory, found.ratios) == (0.0, ())
    assert learn([]) == Learnt()
    law, size = Law.load(), {"params": 1e6, "tokens": 2e6, "unique_tokens": 1e6}
    old = {**compare({"bits_per_byte": 9.0}, {"bits_per_byte": 1.1 * law(1e6, 2e6, 1e6)}), **size}
    assert learn([old], law).ratios == (pytest.approx(1.1),)  # the law of today, not the one that said 9
    assert compare({"memory": None, "tokens_per_s": 0.0}, {"memory": 5.0, "tokens_per_s": 5.0}) == {}


def test_learn_when_what_earlier_stages_held_is_not_known_then_memory_is_not_learnt_from_it():
    old = compare({"memory": 8.5e8}, {"memory": 20.7e8})  # peak of a process that had made the corpus
    new = compare({"memory": 8.5e8}, {"memory": 8.9e8})
    new["memory"]["earlier"] = 11.8e8
    assert learn([old]).memory == 0.0
    assert learn([old, old, new]).memory == pytest.approx(0.4e8)


def test_memory_parts_when_counted_then_each_is_what_the_trainer_holds():
    shape = modern(depth=4, vocab_size=4096, seq_len=256)
    n, matrices = params(shape), matrix_params(shape)
    found = parts(shape, 8192, Setting(cores=2, checkpoint_async=True))
    assert found["weights"] == 6 * n
    assert found["gradients"] == 2 * 4 * n  # each core sums its own in fp32
    assert found["optimizer"] == 4 * matrices + 8 * (n - matrices)
    assert found["checkpoint copy"] == 4 * n + found["optimizer"] + max(4 * n, found["optimizer"])
    assert parts(shape, 8192, Setting(cores=1))["gradients"] == 4 * n
    assert (
        parts(shape, 256, Setting(cores=2))["activations"] < found["activations"] / 8
    )  # one row, one core, 256 tokens
    assert parts(shape, 8192, Setting(dtype="float32", cores=2))["weights"] == 4 * n
    assert found == Here(MACHINE).memory(shape, 8192)


def test_machine_between_measured_widths_then_interpolates_and_never_extrapolates():
    assert MACHINE.train_flops(256) == pytest.approx(2e11)
    assert 2e11 < MACHINE.train_flops(384) < 4e11
    assert MACHINE.train_flops(64) == pytest.approx(1e11)
    assert MACHINE.train_flops(4096) == pytest.approx(4e11)
    assert Machine.from_json(json.loads(json.dumps(MACHINE.to_json()))) == MACHINE
