"""The probe against the machine it runs on."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from gptwright.plan import probe as module
from gptwright.plan.measure import _summary
from gptwright.plan.probe import Machine, bf16_kind, cores, cpu_name, memory, probe


@pytest.fixture
def system(monkeypatch):
    """Files of a machine that is not this one; what is not among them is missing."""
    files = {}

    def read(path, *_, **__):
        if (text := files.get(path.as_posix())) is None:
            raise FileNotFoundError(path)
        return text

    monkeypatch.setattr(Path, "read_text", read)
    monkeypatch.setattr(module, "_system_memory", lambda: (8_000, 5_000))
    monkeypatch.setattr(module.os, "sched_getaffinity", lambda _: range(6), raising=False)
    return files


def test_memory_when_a_container_has_less_then_its_limit_counts(system):
    assert memory() == (8_000, 5_000)
    system.update({"/sys/fs/cgroup/memory.max": "3000\n", "/sys/fs/cgroup/memory.current": "1000\n"})
    assert memory() == (3_000, 2_000)
    system["/sys/fs/cgroup/memory.current"] = "3500"
    assert memory() == (3_000, 0)
    system["/sys/fs/cgroup/memory.max"] = "max\n"
    assert memory() == (8_000, 5_000)


@pytest.mark.parametrize(
    ("quota", "expected"), [("max 100000", 6), ("250000 100000", 2), ("50000 100000", 1), ("9900000 100000", 6)]
)
def test_cores_when_a_container_has_a_quota_then_whole_ones_count(system, quota, expected):
    assert cores() == 6
    system["/sys/fs/cgroup/cpu.max"] = quota + "\n"
    assert cores() == expected


def test_cpu_name_when_linux_knows_it_then_it_is_that_one(system, monkeypatch):
    system["/proc/cpuinfo"] = "processor\t: 0\nmodel name\t: Some CPU @ 3 GHz\nmodel name\t: Other\n"
    assert cpu_name() == "Some CPU @ 3 GHz"
    del system["/proc/cpuinfo"]
    monkeypatch.setattr(module.platform, "processor", lambda: "")
    monkeypatch.setattr(module.platform, "machine", lambda: "riscv64")
    assert cpu_name() == "riscv64"


@pytest.mark.parametrize(
    ("amx", "avx512", "expected"),
    [(True, True, "amx"), (False, True, "avx512_bf16"), (False, False, "none"), (None, None, "none")],
)
def test_bf16_when_the_cpu_has_units_then_the_best_is_named(monkeypatch, amx, avx512, expected):
    for name, has in (("_is_amx_tile_supported", amx), ("_is_avx512_bf16_supported", avx512)):
        monkeypatch.delattr(torch.cpu, name, raising=False)
        if has is not None:
            monkeypatch.setattr(torch.cpu, name, lambda has=has: has, raising=False)
    assert bf16_kind() == expected


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
    assert machine.slowdown >= 1
    if machine.device == "cpu":
        # A core's processor time and the whole machine's speed belong together, whatever else runs.
        for rate in machine.rates:
            assert 0.5 * rate.flops <= machine.threads * rate.cpu_flops <= 8 * rate.flops
    assert machine.decode is not None
    assert machine.decode.one > 0
    assert machine.decode.eight > machine.decode.one / 2
    assert Machine.from_json(json.loads(json.dumps(machine.to_json()))) == machine


def test_step_summary_when_other_programs_run_then_speed_alone_and_the_slowdown_are_told_apart():
    quiet = [(1.0, 1.9, 0.1, 0.19)] * 5
    chosen = SimpleNamespace(device="cpu", threads=2)
    alone = _summary(quiet, chosen, 1000)
    assert alone.gradient_s == pytest.approx(1.0)
    assert alone.slowdown == pytest.approx(1.0)
    busy = _summary([(3.0, 1.9, 0.3, 0.19)] * 5, chosen, 1000)
    assert busy.gradient_s == pytest.approx(1.0)  # from processor time: half of it on each core
    assert busy.gradient_cpu_s == alone.gradient_cpu_s
    assert 2.5 < busy.slowdown < 3.1
    card = _summary(quiet, SimpleNamespace(device="cuda", threads=2), 1000)
    assert (card.gradient_s, card.gradient_cpu_s, card.slowdown) == (1.0, 0.0, 1.0)
