"""Metrics, plots and what the machine is asked."""

import itertools
import json
import sysconfig
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from tiny_training import TinyPlan, tiny_config

from gptwright.core.errors import UserError
from gptwright.model import native
from gptwright.model.config import ModelConfig
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.loop import train
from gptwright.train.metrics import Metrics, progress_line, read_metrics
from gptwright.train.plot import smooth, sparkline, svg_plot, text_overlay, text_plot
from gptwright.train.run import warn_if_moved


def test_metrics_when_resumed_then_cut_back_to_the_checkpoint_and_a_torn_line_dropped(tmp_path: Path) -> None:
    path = tmp_path / "metrics.jsonl"
    with Metrics(path, 0) as metrics:
        for step in range(1, 6):
            metrics.add({"step": step, "loss": 1 / step})
    with open(path, "a", encoding="utf-8") as file:
        file.write('{"step": 6, "lo')
    with Metrics(path, 3) as metrics:
        metrics.add({"step": 4, "loss": 9.0})
    assert [(row["step"], row["loss"]) for row in read_metrics(path)] == [(1, 1.0), (2, 0.5), (3, 1 / 3), (4, 9.0)]
    assert all(json.loads(line) for line in path.read_text().splitlines())


def test_text_plot_when_falling_then_columns_fall() -> None:
    drawn = text_plot([(step, 10.0 - step) for step in range(10)], width=10, height=4)
    lines = drawn.splitlines()
    assert len(lines) == 5
    heights = [sum(lines[row][10 + column] != " " for row in range(4)) for column in range(10)]
    assert heights == sorted(heights, reverse=True)
    assert heights[0] == 4
    assert "10.000" in lines[0]
    assert "nothing" in text_plot([(1, float("nan"))])
    assert text_plot([(1, 2.0)])


def test_svg_plot_when_drawn_then_is_well_formed_and_spans_the_axes() -> None:
    root = ET.fromstring(svg_plot({"a < b": [(0, 5.0), (10, 1.0)], "held-out": [(5, 3.0)]}, 'loss & "more"'))
    names = "".join(root.itertext())
    assert "a < b" in names
    assert 'loss & "more"' in names
    lines = [e for e in root if e.tag.endswith("polyline")]
    first = [tuple(map(float, pair.split(","))) for pair in lines[0].attrib["points"].split()]
    assert first[0][0] < first[1][0]
    assert first[0][1] < first[1][1]  # a lower loss stands lower
    ET.fromstring(svg_plot({"a": []}, "empty"))


def test_text_overlay_when_two_curves_cross_then_each_has_its_sign_and_place() -> None:
    drawn = text_overlay({"down": [(x, 9.0 - x) for x in range(10)], "up": [(x, float(x)) for x in range(10)]}, 10, 5)
    rows = [line.partition("|")[2].ljust(10) for line in drawn.splitlines()[:5]]
    assert (rows[0][0], rows[0][9], rows[4][0], rows[4][9]) == ("o", "x", "x", "o")
    assert drawn.endswith("loss by step: o down, x up")
    assert "nothing" in text_overlay({"a": []})


def test_sparkline_when_rising_then_rises() -> None:
    assert sparkline([1, 2, 3, 4, 5, 6, 7, 8], 8) == "▁▂▃▄▅▆▇█"
    assert sparkline([2.0, 2.0]) == "▁▁"
    assert sparkline([float("nan")]) == ""


def test_svg_plot_when_there_are_many_curves_then_no_two_have_one_colour() -> None:
    root = ET.fromstring(svg_plot({f"blocks.{n}": [(0, n), (1, n + 1)] for n in range(24)}, "layers"))
    colours = {e.attrib["stroke"] for e in root.iter() if e.tag.endswith("polyline")}
    assert len(colours) == 24


def test_smooth_when_more_points_than_columns_then_takes_means() -> None:
    assert smooth([(0, 1.0), (1, 3.0), (2, 5.0), (3, 7.0)], 2) == [(0.5, 2.0), (2.5, 6.0)]


def test_choose_when_auto_then_bf16_only_with_units_for_it(monkeypatch: pytest.MonkeyPatch) -> None:
    config = TrainConfig(max_steps=1, device="cpu")
    monkeypatch.setattr(machine, "has_bf16_units", lambda: False)
    assert machine.choose(config).dtype == "float32"
    monkeypatch.setattr(machine, "has_bf16_units", lambda: True)
    monkeypatch.setattr(machine, "matmul_flops", lambda shapes, dtype: 2.0 if dtype == torch.bfloat16 else 1.0)
    assert machine.choose(config).dtype == "bfloat16"
    monkeypatch.setattr(machine, "matmul_flops", lambda shapes, dtype: 1.0)
    assert machine.choose(config).dtype == "float32"


def test_choose_when_compiler_is_missing_then_eager_or_an_error_that_names_the_package(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(native, "load", lambda: (None, "no C++ compiler (g++)"))
    assert not machine.choose(TrainConfig(max_steps=1, device="cpu", dtype="float32")).compiled
    with pytest.raises(UserError, match=r"no C\+\+ compiler.*apt install g"):
        machine.choose(TrainConfig(max_steps=1, device="cpu", dtype="float32", compile="on"))


@pytest.mark.skipif(native.native() is None, reason="no C++ compiler here: apt install g++")
def test_choose_when_python_headers_are_missing_then_kernels_run_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sysconfig, "get_paths", lambda *_, **__: {"include": str(tmp_path)})
    config = TrainConfig(max_steps=1, device="cpu", dtype="float32")
    assert machine.choose(config).compiled
    assert not machine.choose(config.model_copy(update={"compile": "off"})).compiled
    assert not machine.choose(config.model_copy(update={"dtype": "float64"})).compiled


def test_machine_when_a_run_goes_on_with_other_kernels_then_says_so(capsys: pytest.CaptureFixture[str]) -> None:
    then = machine.choose(TrainConfig(max_steps=1, device="cpu", dtype="float32", compile="off"))
    assert then.kernels == "eager"
    warn_if_moved(then, then)
    warn_if_moved(replace(then, kernels=""), then)  # a record from before kernels were named
    assert capsys.readouterr().err == ""
    warn_if_moved(then, replace(then, kernels="abc"))
    assert "kernels eager and goes on with abc" in capsys.readouterr().err


@pytest.mark.skipif(native.native() is None, reason="no C++ compiler here: apt install g++")
def test_machine_when_kernels_run_then_the_run_keeps_their_key(tmp_path: Path) -> None:
    train(tiny_config(), TinyPlan(), TrainConfig(max_steps=1, dtype="float32"), run_dir=tmp_path)
    assert json.loads((tmp_path / "config.json").read_text())["machine"]["kernels"] == native.native().key


@pytest.mark.parametrize(("cuda", "device"), [(True, "cuda"), (False, "cpu")])
def test_choose_when_auto_then_cuda_where_it_is_and_mps_never(
    monkeypatch: pytest.MonkeyPatch, cuda: bool, device: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: cuda)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: True)
    assert machine.choose(TrainConfig(max_steps=1, dtype="float32")).device == device


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has one")
def test_choose_when_the_device_is_absent_then_says_so() -> None:
    with pytest.raises(UserError, match="no cuda device"):
        machine.choose(TrainConfig(max_steps=1, device="cuda"))


def test_matmul_flops_when_the_clock_is_known_then_is_work_by_the_best_time_of_each(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # Three products of each shape, timed by two readings each: 5, 2 and 4 s.
    clock = itertools.cycle([0.0, 5.0, 5.0, 7.0, 7.0, 11.0])
    monkeypatch.setattr(machine, "time", SimpleNamespace(perf_counter=lambda: next(clock)))
    found = machine.matmul_flops([(2, 3, 5), (7, 1, 4)], torch.float32, repeats=2)
    assert found == 2 * (2 * 3 * 5 + 7 * 1 * 4) / 4.0


def test_matmul_peak_when_measured_then_its_products_are_those_of_a_training_step(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(
        machine, "matmul_flops", lambda shapes, dtype, device: float(sum(2 * m * k * n for m, k, n in shapes))
    )
    config = ModelConfig(vocab_size=512, n_layers=1, d_model=128, n_heads=2, n_kv_heads=1, d_ff=256)
    block = 128 * (128 + 2 * 64) + 128 * 128 + 128 * 2 * 256 + 256 * 128  # q, k, v; out; gate and up; down
    assert machine.matmul_peak(config, 256, torch.float32) == 6 * 256 * (block + 512 * 128)


@pytest.mark.parametrize(("peak", "told"), [(4e9, "25% of matmul peak"), (0.5e9, None), (0.0, None)])
def test_progress_line_when_the_peak_is_not_known_or_was_not_reached_then_no_share_is_told(
    peak: float, told: str | None
) -> None:
    line = progress_line(2.0, None, 1e3, 1e6, peak, 60)
    assert (told in line) if told else ("peak" not in line)
