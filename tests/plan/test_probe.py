"""The probe against the machine it runs on."""

import os

import pytest

from gptwright.plan.probe import bf16_kind, cores, cpu_name, memory, probe


def test_facts_of_this_machine_then_plausible():
    total, free = memory()
    assert 0 < free <= total
    assert total > 500_000_000
    assert 1 <= cores() <= (os.cpu_count() or 1)
    assert cpu_name()
    assert bf16_kind() in ("amx", "avx512_bf16", "none")


@pytest.mark.slow
def test_probe_for_a_second_then_measures_positive_rates_of_growing_widths(tmp_path):
    machine = probe(1.0, tmp_path / "not" / "yet")
    assert machine.matmul_fp32 > 1e8
    assert machine.bandwidth > 1e8
    assert machine.disk_free_bytes > 0
    assert [rate.d_model for rate in machine.rates] == sorted(rate.d_model for rate in machine.rates)
    assert all(rate.flops > 0 and rate.update > 0 for rate in machine.rates)
    # No training step is faster than the products it is made of; others' load may have slowed those, hence the slack.
    assert all(rate.flops < 4 * max(machine.matmul_fp32, machine.matmul_bf16) for rate in machine.rates)
    if machine.dtype == "bfloat16" and machine.device == "cpu":
        assert machine.bf16 != "none"
