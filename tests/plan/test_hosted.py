"""Prices of hosted models from the package's own list, and the comparison of building, adapting and buying."""

import json
import socket
import sys
from datetime import UTC, date, datetime

import pytest

from gptwright.core.errors import UserError
from gptwright.plan import buy
from gptwright.plan.hosted import Demand, HostedRow, Snapshot, hosted_rows, price_of, snapshot
from gptwright.plan.measure import Decode, TrainRate
from gptwright.plan.probe import Machine
from gptwright.plan.propose import Budget, propose

MACHINE = Machine(
    cpu="test", cores=2, memory_bytes=16 * 10**9, memory_free_bytes=12 * 10**9, disk_free_bytes=10**11, device="cpu", device_name="test",
    dtype="bfloat16", bf16="avx512_bf16", matmul_fp32=2e11, matmul_bf16=9e11, bandwidth=2e10,
    rates=(TrainRate(128, 3e11, 2e10), TrainRate(512, 5e11, 1e11)), probe_s=5.0, threads=2, decode=Decode(10**7, 200.0, 900.0),
)  # fmt: skip
PRICES = Snapshot("9.9", date(2026, 11, 1), 100)


def row(name: str, grade: str, usd: float) -> HostedRow:
    return HostedRow("house", name, grade, 1.0, 2.0, usd, 100_000)


def compared(demand: Demand, hosted: list[HostedRow], corpus: int = 13_000_000, price: float | None = None):
    plan = propose(MACHINE, corpus, Budget(seconds=300), usd_per_hour=price)
    return buy.compare(plan, MACHINE, corpus, demand, hosted, PRICES, price)


@pytest.fixture
def no_network(monkeypatch):
    def refuse(*_, **__):
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


def test_hosted_rows_when_asked_offline_then_costs_follow_from_the_packages_prices(no_network):
    from genai_prices import Usage, calc_price

    demand = Demand(requests_per_day=100, tokens_in=1000, tokens_out=300)
    rows = hosted_rows(demand)
    assert len(rows) >= 6
    assert [one.usd_per_month for one in rows] == sorted(one.usd_per_month for one in rows)
    assert {one.grade for one in rows} == {"small", "middle", "strong"}
    for one in rows:
        theirs = calc_price(Usage(input_tokens=1000, output_tokens=300), one.model, provider_id=one.provider)
        assert one.usd_per_month == pytest.approx(float(theirs.total_price) * demand.requests_per_month)


def test_hosted_rows_when_a_question_is_long_then_the_price_of_its_tier_counts():
    at = datetime(2026, 11, 24, tzinfo=UTC)
    short = price_of("anthropic", "claude-sonnet-4-5", Demand(tokens_in=1000), at)
    long = price_of("anthropic", "claude-sonnet-4-5", Demand(tokens_in=300_000), at)
    assert (short.usd_in, long.usd_in) == (3.0, 6.0)


def test_price_of_when_the_model_is_unknown_then_user_error_names_the_list():
    with pytest.raises(UserError, match="genai-prices"):
        price_of("openai", "gpt-0", Demand())
    with pytest.raises(UserError, match="no price of nobody:x"):
        price_of("nobody", "x", Demand())


def test_snapshot_then_its_version_and_age_are_known(no_network):
    found = snapshot()
    assert found.models > 500
    assert date(2025, 1, 1) < found.newest <= datetime.now(UTC).date()
    assert found.version in str(found)
    assert str(found.newest) in str(found)


def test_hosted_when_the_package_is_missing_then_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "genai_prices", None)
    with pytest.raises(UserError, match="prices"):
        hosted_rows(Demand())


@pytest.mark.parametrize("values", [(0, 1, 1, 1), (1, -5, 1, 1), (1, 1, 0, 1), (1, 1, 1, float("nan"))])
def test_demand_when_a_number_is_not_above_zero_then_user_error_names_its_flag(values):
    with pytest.raises(UserError, match="--"):
        Demand.of(*values)


def test_compare_when_little_is_asked_then_says_buy_and_when_not():
    found = compared(Demand(requests_per_day=50), [row("tiny", "small", 0.5), row("big", "strong", 9.0)])
    assert found.verdict.say == "buy"
    assert "house:tiny" in found.verdict.why
    assert "leave the house" in found.verdict.unless
    assert [arm.kind for arm in found.arms] == ["scratch", "adapt", "adapt", "buy", "buy"]


def test_compare_when_hosted_is_dear_and_this_machine_carries_it_then_says_adapt():
    found = compared(Demand(requests_per_day=500), [row("tiny", "small", 40.0), row("big", "strong", 900.0)])
    assert found.verdict.say == "adapt"
    assert "900" in found.verdict.why
    # The same on a machine that costs more than a hosted model does.
    rented = compared(
        Demand(requests_per_day=500), [row("tiny", "small", 40.0), row("big", "strong", 900.0)], price=5.0
    )
    assert rented.verdict.say == "buy"


def test_compare_when_the_machine_has_a_price_then_money_adds_up():
    found = compared(Demand(months=6), [row("x", "small", 3.0)], price=2.0)
    scratch, adapt = found.arms[0], found.arms[1]
    assert scratch.monthly_usd == pytest.approx(1460)
    assert scratch.one_off_usd == pytest.approx(2 * scratch.ready_s / 3600)
    assert scratch.total_usd(6) == pytest.approx(scratch.one_off_usd + 6 * 1460)
    assert adapt.one_off_usd == pytest.approx(2 * adapt.ready_s / 3600)
    assert found.arms[3].total_usd(6) == pytest.approx(18)
    free = compared(Demand(), [row("x", "small", 3.0)])
    assert free.arms[0].total_usd(12) is None


def test_compare_when_the_load_is_beyond_this_machine_then_it_says_not_enough():
    found = compared(Demand(requests_per_day=10**7), [row("x", "small", 3.0)])
    assert not found.arms[1].carries
    assert "NOT enough" in buy.as_text(found)
    assert found.verdict.say == "buy"


def test_compare_as_json_and_text_then_whole_and_within_the_width():
    found = compared(Demand(), hosted_rows(Demand()))
    data = json.loads(json.dumps(found.to_json()))
    assert data["prices"]["newest"] == "2026-11-01"
    assert all({"quality", "privacy", "measure", "total_usd", "ready_s"} <= set(arm) for arm in data["arms"])
    text = buy.as_text(found)
    assert "2026-11-01" in text
    assert "Assumed" in text
    assert max(len(line) for line in text.splitlines()) <= 100
