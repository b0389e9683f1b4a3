"""`plan` in a project and outside one, and what its runs teach it: each is forecast, compared, and remembered."""

import json
import shutil
import socket
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.ledger import Ledger
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.plan import memory
from gptwright.plan.constants import CONSTANTS
from gptwright.plan.measure import Decode, TrainRate
from gptwright.plan.probe import Machine, cores, cpu_name
from gptwright.project import foresight, planning
from gptwright.project.project import Project
from gptwright.project.settings import Settings
from gptwright.train.config import TrainConfig
from gptwright.train.dial import decay_for

MACHINE = Machine(
    cpu=cpu_name(), cores=cores(), memory_bytes=16 * 10**9, memory_free_bytes=12 * 10**9, disk_free_bytes=10**11, device="cpu",
    device_name="test machine", dtype="bfloat16", bf16="avx512_bf16", matmul_fp32=2e11, matmul_bf16=9e11, bandwidth=2e10,
    rates=(TrainRate(128, 3e11, 2e10, 1.6e11, 1e10), TrainRate(512, 5e11, 1e11, 2.6e11, 5e10)), probe_s=1.0, threads=2,
    decode=Decode(10**7, 200.0, 900.0),
)  # fmt: skip
CONTRACT = {
    "machine", "device", "corpus_bytes", "corpus", "budget", "model", "params", "batch_tokens", "seq_len", "steps", "tokens", "epochs", "rates",
    "tokens_per_s", "seconds", "seconds_now", "cpu_seconds", "minutes", "flop", "usd", "memory", "memory_total", "dtype", "host", "measured",
    "warnings", "forecast", "forecast_note", "learnt_from", "history",
}  # fmt: skip


@pytest.fixture(autouse=True)
def machine(monkeypatch: pytest.MonkeyPatch) -> Machine:
    """A machine that is known without measuring; measuring has its own tests."""
    monkeypatch.setattr(planning, "probe", lambda *_, **__: MACHINE)
    return MACHINE


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any, **__: Any) -> None:
        raise AssertionError("the network was asked")

    monkeypatch.setattr(socket, "create_connection", refuse)
    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tiny: Any, gptwright: Any) -> Path:
    """A tiny project that was planned and then pretrained."""
    root: Path = tiny.make(tmp_path_factory.mktemp("planning") / "tiny", notes=40, chats=10)
    gptwright("data", "build", "--project", str(root), "--json").ok()
    foresight.remember(root / "work", MACHINE)
    gptwright("run", "pretrain", "--project", str(root), "--json").ok()
    return root


@pytest.fixture
def root(pretrained: Path, tmp_path: Path) -> Path:
    target = tmp_path / "tiny"
    shutil.copytree(pretrained, target)
    return target


def test_plan_outside_a_project_then_json_has_the_whole_contract_and_text_fits(
    gptwright: Any, tmp_path: Path, no_network: None
) -> None:
    data = gptwright("plan", "--json", cwd=tmp_path).ok().json
    assert set(data) == CONTRACT
    assert data["corpus"] == "an example corpus"
    assert data["measured"] is True
    assert set(data["forecast"]) == {"value", "low", "high", "basis", "beyond"}
    assert set(data["memory"]) == {
        "weights", "gradients", "optimizer", "activations", "logits", "checkpoint copy", "runtime",
    }  # fmt: skip
    assert sum(data["memory"].values()) == data["memory_total"]
    text = gptwright("plan", cwd=tmp_path).ok().out
    for word in ("model", "training", "rates", "speed", "time", "memory", "quality", "machine"):
        assert f"\n  {word}" in text
    assert f"weight decay {data['rates']['weight_decay']:g}" in " ".join(text.split())
    assert max(len(line) for line in text.splitlines()) <= 100


@pytest.mark.parametrize(("seconds", "by_hand"), [(20.0, None), (3600.0, None), (3600.0, 0.05)])
def test_choose_shape_when_the_planner_chooses_then_the_decay_is_for_what_the_time_will_read(
    seconds: float, by_hand: float | None
) -> None:
    tokens = {"bytes": 3_000_000, "tokens": 1_000_000}
    given = {} if by_hand is None else {"weight_decay": by_hand}
    shape, config = planning.choose_shape(Settings(), 4096, tokens, TrainConfig(max_time=seconds, **given))
    if by_hand is not None:
        assert config.weight_decay == by_hand
    else:
        # A minute reads this text less than four times; an hour does so often, though the plan would have stopped.
        assert (config.weight_decay > 0) == (seconds > 60)
        assert config.weight_decay <= decay_for(10**6, 10**6 / params(shape))
    assert "weight_decay" in config.model_fields_set  # chosen: the dial leaves it as it is


def test_plan_for_rented_cards_then_nothing_is_measured_and_every_number_says_so(
    gptwright: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, no_network: None
) -> None:
    monkeypatch.setattr(planning, "probe", lambda *_, **__: pytest.fail("this machine was measured"))
    data = gptwright("plan", "--device", "8xh100", "--budget", "20usd", "--json", cwd=tmp_path).ok().json
    assert set(data) == {*CONTRACT, "scale"}
    assert data["measured"] is False
    assert data["machine"] is None
    assert data["device"]["gpus"] == 8
    assert data["device"]["price"]["dated"] > "2026"
    assert [row["gpus"] for row in data["scale"]] == [1, 8, 64]
    assert {row["label"] for row in data["scale"]} == {"forecast, not measured"}
    text = gptwright("plan", "--device", "8xh100", "--budget", "20usd", cwd=tmp_path).ok().out
    assert "forecast, not measured" in text
    assert "2026" in text
    assert max(len(line) for line in text.splitlines()) <= 100


def test_plan_compared_with_hosted_then_arms_verdict_and_the_date_of_prices(
    gptwright: Any, tmp_path: Path, no_network: None
) -> None:
    asked = ("plan", "--compare-hosted", "--requests-per-day", "50", "--price", "1.5")
    found = gptwright(*asked, "--json", cwd=tmp_path).ok().json["compare"]
    assert {arm["kind"] for arm in found["arms"]} == {"scratch", "adapt", "buy"}
    assert found["verdict"]["say"] in ("buy", "adapt", "build")
    assert found["prices"]["newest"] > "2025"
    assert found["demand"]["requests_per_day"] == 50
    text = gptwright(*asked, cwd=tmp_path).ok().out
    assert f"not older than {found['prices']['newest']}" in " ".join(text.split())
    assert "  advice   buy" in text


@pytest.mark.parametrize(
    "arguments",
    [
        ["--budget", "soon"], ["--budget", "-5m"], ["--budget", "0usd"], ["--budget", "nanusd"], ["--budget", "20usd"], ["--budget", ""],
        ["--device", "h1000"], ["--device", "0xh100"], ["--price", "-1"], ["--price", "nan"], ["--budget", "20usd", "--device", "mi300x"],
        ["--compare-hosted", "--requests-per-day", "0"], ["--compare-hosted", "--months", "nan"],
    ],
)  # fmt: skip
def test_plan_with_nonsense_then_exit_two_and_a_way_out_before_anything_is_measured(
    arguments: list[str], gptwright: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(planning, "probe", lambda *_, **__: pytest.fail("measured"))
    done = gptwright("plan", *arguments, "--json", cwd=tmp_path)
    assert done.code == 2, done.err
    assert json.loads(done.out)["error"]["exit_code"] == 2
    assert "our fault" not in done.err


@pytest.mark.slow
def test_run_when_it_ends_then_forecast_and_fact_are_in_the_ledger_the_folder_and_the_verbs(
    root: Path, gptwright: Any
) -> None:
    with Project.open(root).ledger() as ledger:
        (run,) = ledger.runs("pretrain")
        (made,) = ledger.events(run.id, foresight.MADE)
        (checked,) = ledger.events(run.id, foresight.CHECKED)
    assert made.data["bits_per_byte"]["low"] < made.data["bits_per_byte"]["high"]
    assert made.data["learnt_from"] == 0
    assert set(checked.data) >= {"bits_per_byte", "tokens_per_s", "tokens"}
    assert checked.data["bits_per_byte"]["fact"] == pytest.approx(run.meta["heldout_bpb"])
    for row in (checked.data[kind] for kind in ("bits_per_byte", "tokens_per_s")):
        assert row["ratio"] == pytest.approx(row["fact"] / row["forecast"])
    kept = json.loads((root / "work" / "runs" / run.id / "forecast.json").read_text())
    assert kept["compared"]["tokens"] == checked.data["tokens"]
    shown = gptwright("runs", "show", run.id, "--project", str(root)).ok().out
    assert "bits per byte" in shown
    assert "forecast_checked" in shown
    planned = gptwright("plan", "--project", str(root), "--json").ok().json
    assert [row["run"] for row in planned["history"]] == [run.id]
    assert planned["learnt_from"] == 1
    text = gptwright("plan", "--project", str(root)).ok().out
    assert "Forecast and fact of the last runs" in text
    assert "corrected by 1 finished run of this project" in text


@pytest.mark.slow
def test_run_when_one_was_compared_then_the_next_forecast_is_closer(root: Path, gptwright: Any) -> None:
    gptwright("run", "pretrain", "--force", "--project", str(root), "--json").ok()
    with Project.open(root).ledger() as ledger:
        first, second = ledger.runs("pretrain")
        said = [ledger.events(run.id, foresight.MADE)[0].data for run in (first, second)]
        was = [ledger.events(run.id, foresight.CHECKED)[0].data for run in (first, second)]
    assert [row["learnt_from"] for row in said] == [0, 1]
    # The tiny text is unlike the law's: the second forecast of the same run lies near, whatever the first was.
    fact = was[1]["bits_per_byte"]["fact"]
    assert abs(said[1]["bits_per_byte"]["value"] / fact - 1) < 0.05
    assert said[1]["bits_per_byte"]["low"] < fact < said[1]["bits_per_byte"]["high"]
    # What is compared are uncorrected forecasts: the same settings give the same ones.
    assert was[0]["bits_per_byte"]["forecast"] == was[1]["bits_per_byte"]["forecast"]


@pytest.mark.slow
def test_foresight_when_a_run_goes_on_or_is_finished_again_then_it_is_compared_once(root: Path, gptwright: Any) -> None:
    project = Project.open(root)
    with project.ledger(readonly=False) as ledger:
        (run,) = ledger.runs("pretrain")
        folder = root / "work" / "runs" / run.id
        shape = planning.ModelConfig.model_validate(json.loads((folder / "shape.json").read_text())["model"])
        again = foresight.Foresight.begin(folder, ledger, project.work, shape, None, 1000)  # type: ignore[arg-type]
        result: Any = type("Result", (), {"tokens": 5, "heldout_bpb": 9.9, "tokens_per_s": 1.0, "seconds": 1.0})()
        assert again.end(result)["tokens"] != 5
        assert len(ledger.events(run.id, foresight.CHECKED)) == len(ledger.events(run.id, foresight.MADE)) == 1


def test_foresight_when_earlier_stages_left_memory_in_the_process_then_it_is_told_apart_from_the_runs(
    tmp_path: Path,
) -> None:
    if memory.held_bytes() is None:
        pytest.skip("this system does not tell a process what it holds")
    left = bytearray(10**9)
    left[::4096] = b"x" * len(left[::4096])
    said = {"device": "cpu", "uncorrected": {"memory": 8e8}}
    shape = ModelConfig(vocab_size=256, n_layers=1, d_model=64, n_heads=1, n_kv_heads=1, d_ff=64, seq_len=32)
    result: Any = type("Result", (), {"tokens": 0, "heldout_bpb": None, "tokens_per_s": None, "seconds": 1.0})()
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        ledger.start_run("run", "pretrain", {})
        (tmp_path / "run").mkdir()
        (tmp_path / "run" / "forecast.json").write_text(json.dumps(said))
        foreseen = foresight.Foresight.begin(tmp_path / "run", ledger, tmp_path, shape, TrainConfig(max_steps=1), 1000)
        more = bytearray(3 * 10**8)  # the run's own
        more[::4096] = b"x" * len(more[::4096])
        row = foreseen.end(result)["memory"]
    held = memory.held_bytes()
    assert held is not None
    assert row["earlier"] > 10**9 - CONSTANTS.begin_bytes
    assert row["fact"] + row["earlier"] == pytest.approx(held, abs=10**8)
    assert row["fact"] == pytest.approx(CONSTANTS.begin_bytes + 3e8, abs=10**8)
    assert "of earlier stages" in foresight.lines({"memory": row})[0]
    assert "earlier" not in foresight.lines({"memory": {**row, "earlier": 10**7}})[0]
    del left, more


def test_recall_when_the_probe_is_of_another_machine_or_broken_then_none(tmp_path: Path) -> None:
    from dataclasses import replace

    assert foresight.recall(tmp_path) is None
    foresight.remember(tmp_path, MACHINE)
    assert foresight.recall(tmp_path) == MACHINE
    foresight.remember(tmp_path, replace(MACHINE, cpu="another"))
    assert foresight.recall(tmp_path) is None
    for text in ("", "[]", "{}", '{"rates": 3}', "nonsense"):
        (tmp_path / "machine.json").write_text(text)
        assert foresight.recall(tmp_path) is None
