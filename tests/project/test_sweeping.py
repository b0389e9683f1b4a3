"""A sweep from the command line: proxies of the project's model, kept row by row, stopped and continued, and what to write where."""

import json
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import Interrupted, UserError
from gptwright.model.presets import modern
from gptwright.project import sweep_run
from gptwright.project.project import Project
from gptwright.project.sweeping import Sweep, known_key, values_of
from gptwright.train.config import TrainConfig
from gptwright.train.dial import settings_for
from gptwright.train.guard import NotANumber
from gptwright.train.loop import train
from gptwright.train.sweep import Trial, verdict


@pytest.fixture(scope="module")
def tokens(tmp_path_factory: pytest.TempPathFactory, tiny: Any, gptwright: Any) -> Path:
    root = tiny.make(tmp_path_factory.mktemp("sweep") / "tiny", notes=30, chats=0)
    gptwright("run", "tokens", "--project", str(root)).ok()
    return root


@pytest.fixture
def root(tokens: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(sweep_run, "_MORE", 0)
    shutil.copytree(tokens, tmp_path / "tiny")
    return tmp_path / "tiny"


def sweep(gptwright: Any, root: Path, *words: str) -> Any:
    return gptwright("pretrain", "--project", str(root), "--json", "--max-steps", "2", *words)


@pytest.mark.slow
def test_sweep_when_run_then_curve_ledger_and_lines_for_the_file_agree(root: Path, gptwright: Any) -> None:
    found = sweep(gptwright, root, "--sweep", "lr", "--values", "0.25,1").ok().json
    assert {(t["value"], t["seed"]) for t in found["trials"]} >= {(v, s) for v in (0.25, 1.0) for s in (0, 1)}
    tried = [value for value, _ in found["means"]]
    assert min(tried) <= found["best"] <= max(tried)
    assert (root / found["curve"]).read_text().startswith("<svg")
    assert not list((root / "work" / "runs" / found["run"] / "proxies").iterdir())  # weights of proxies are not kept
    with Project.open(root).ledger() as ledger:
        run = ledger.runs("sweep")[-1]
        assert (run.id, run.state) == (found["run"], "done")
        assert len([e for e in ledger.events(run.id) if e.kind == "trial"]) == len(found["trials"])
    again = sweep(gptwright, root, "--sweep", "lr", "--values", "0.25,1").ok()
    assert again.json["run"] == found["run"]  # finished: shown, not run
    assert "steps" not in again.err
    text = gptwright("pretrain", "--project", str(root), "--max-steps", "2", "--sweep", "lr", "--values", "0.25,1").ok()
    assert "Caution: proxies of 2 steps are short" in text.out
    for name, value in found["settings"].items():
        assert f"  {name} = {value:g}" in text.out
    settings = [word for name, value in found["settings"].items() for word in ("--set", f"pretrain.{name}={value}")]
    shown = gptwright("config", "show", "--project", str(root), "--json", *settings).ok().json
    assert json.dumps(found["settings"]["lr_matrix"]) in json.dumps(shown)


@pytest.mark.slow
def test_sweep_when_stopped_in_a_proxy_then_the_same_command_goes_on_and_ends_alike(
    root: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = sweep(gptwright, root, "--sweep", "weight_decay", "--values", "0,0.1").ok().json
    shutil.rmtree(root / "work" / "runs")
    (root / "work" / "ledger.sqlite").unlink()
    calls = 0

    def stops(*args: Any, **more: Any) -> Any:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted("stopped")
        return train(*args, **more)

    with monkeypatch.context() as patched:
        patched.setattr(sweep_run, "train", stops)
        stopped = sweep(gptwright, root, "--sweep", "weight_decay", "--values", "0,0.1")
    assert stopped.code == 130
    run = next((root / "work" / "runs").glob("*/trials.jsonl")).parent
    with open(run / "trials.jsonl", "a") as file:
        file.write('{"value": 0.1, "se')  # as a kill in the middle of a line leaves it
    rows = len(sweep_run.read_trials(run))
    assert rows == 2
    monkeypatch.setattr(sweep_run, "train", lambda *a, **m: (order.append(1), train(*a, **m))[1])
    order: list[int] = []
    ended = sweep(gptwright, root, "--sweep", "weight_decay", "--values", "0,0.1").ok().json
    assert ended["run"] == run.name
    assert len(order) == len(ended["trials"]) - rows
    assert ended["trials"] == whole["trials"]  # the same bits


@pytest.mark.slow
def test_forget_when_a_sweep_was_stopped_then_weights_of_its_proxies_go_and_it_can_go_on(
    root: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def stops(*args: Any, **more: Any) -> Any:
        train(*args, **more)
        raise Interrupted("stopped")

    with monkeypatch.context() as patched:
        patched.setattr(sweep_run, "train", stops)
        assert sweep(gptwright, root, "--sweep", "weight_decay", "--values", "0,0.1").code == 130
    left = [path for path in (root / "work" / "runs").rglob("*") if "weights" in path.name]
    assert left, "there must be weights to be deleted"
    ask = ("--project", str(root), "--json")
    dry = gptwright("data", "forget", "path:note-03.txt", "--basis", "a test", "--dry-run", *ask).ok().json
    assert any("weights of a stopped sweep" in line for line in dry["lines"])
    assert all(path.exists() for path in left)
    told = gptwright("data", "forget", "path:note-03.txt", "--basis", "a test", *ask).ok().json
    assert any("proxies: deleted" in line for line in told["changed"])
    assert not [path for path in (root / "work" / "runs").rglob("*") if "weights" in path.name]
    ended = sweep(gptwright, root, "--sweep", "weight_decay", "--values", "0,0.1").ok().json
    assert len(ended["trials"]) == 4


@pytest.mark.slow
def test_sweep_when_a_proxy_diverges_then_the_value_is_out_and_the_sweep_goes_on(
    root: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bursts(shape: Any, plan: Any, config: TrainConfig, **more: Any) -> Any:
        if config.lr_matrix > 0.5:
            raise NotANumber("the loss is not a number")
        return train(shape, plan, config, **more)

    monkeypatch.setattr(sweep_run, "train", bursts)
    found = sweep(gptwright, root, "--sweep", "lr_matrix", "--values", "0.005,0.01,0.9").ok().json
    assert dict(found["means"])[0.9] is None
    assert found["best"] < 0.9


def test_sweep_when_the_lowest_is_at_the_end_then_looks_further(
    root: Path, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Done:
        def __init__(self, loss: float) -> None:
            self.heldout_bpb = loss

    def valley(shape: Any, plan: Any, config: TrainConfig, **more: Any) -> Any:
        more["run_dir"].mkdir(parents=True)
        return Done(abs(config.clip_norm - 7.9) + 0.01 * config.seed)

    monkeypatch.setattr(sweep_run, "train", valley)
    monkeypatch.setattr(sweep_run, "_MORE", 2)
    found = sweep(gptwright, root, "--sweep", "pretrain.clip_norm", "--values", "1,2").ok().json
    assert [value for value, _ in found["means"]] == [1, 2, 4, 8]
    assert found["best"] == 8


@pytest.mark.parametrize(
    ("words", "says"),
    [
        (("--sweep", "lr_matri"), "Did you mean lr_matrix?"),
        (("--sweep", "pretrain.threads"), "decides nothing"),
        (("--sweep", "model.depth"), "no such key to sweep"),
        (("--sweep", ""), "no such key"),
        (("--sweep", "lr", "--values", "1"), "two different values"),
        (("--sweep", "lr", "--values", "1,x"), "x is not a number"),
        (("--sweep", "lr", "--values", "0,1"), "above 0"),
        (("--sweep", "lr", "--values", "nan,1"), "above 0"),
        (("--sweep", "momentum", "--values", "0.9,1.5"), "momentum"),
        (("--sweep", "decay", "--values", "linear,square"), "decay"),
        (("--sweep", "lr", "--max-time", "0s"), "above 0"),
        (("--sweep", "lr", "--max-time", "soon"), "not understood"),
        (("--sweep", "lr", "--resume"), "--resume is not for sweeps"),
        (("--values", "1,2"), "--values is for --sweep"),
    ],
)
def test_sweep_when_asked_wrongly_then_one_clear_error_and_nothing_is_made(
    words: tuple[str, ...], says: str, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tiny.make(tmp_path / "tiny", notes=2, chats=0)
    done = gptwright("pretrain", "--project", str(root), *words)
    assert done.code == 2
    assert says in done.err
    assert len(done.err.strip().splitlines()) <= 2
    assert not (root / "work").exists()


def test_sweep_when_the_project_adapts_or_runs_under_torchrun_then_says_why_not(
    tmp_path: Path, tiny: Any, gptwright: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    toml = tiny.toml.replace("[finetune]", '[finetune]\nbase = "open"')
    adapts = tiny.make(tmp_path / "adapts", notes=2, chats=0, toml=toml)
    done = gptwright("pretrain", "--project", str(adapts), "--sweep", "lr")
    assert done.code == 2
    assert "does not pretrain" in done.err
    root = tiny.make(tmp_path / "tiny", notes=2, chats=0)
    for name, value in {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "1"}.items():
        monkeypatch.setenv(name, value)
    with pytest.raises(UserError, match="without torchrun"):
        sweep_run.sweep(Project.open(root), "lr")


def test_known_key_when_written_with_or_without_its_section_then_is_one() -> None:
    assert known_key("pretrain.weight_decay") == known_key("weight_decay") == "weight_decay"
    with pytest.raises(UserError, match="Give one of lr, lr_matrix"):
        known_key("qqq")


def made(key: str, depth: int = 2, target: int = 4, **given: Any) -> Sweep:
    small, large = (modern(depth=d, vocab_size=4096, seq_len=256) for d in (depth, target))
    config = TrainConfig.model_validate({"max_steps": 64, **given})
    here, aim = settings_for(small, config), settings_for(large, config)
    return Sweep(key, values_of(key, None, here, 256), small, large, here, aim, 64)


def test_transferred_when_the_proxys_best_is_the_dials_then_the_models_is_the_dials() -> None:
    for key in ("lr", "lr_matrix", "lr_embedding", "weight_decay", "batch_tokens"):
        one = made(key)
        for name, value in one.transferred(one.present).items():
            assert value == pytest.approx(getattr(one.aim, name), rel=0.01)


def test_transferred_when_the_proxys_best_is_twice_the_dials_then_so_is_the_models() -> None:
    one = made("lr_embedding")
    assert one.transferred(2 * one.config.lr_embedding)["lr_embedding"] == pytest.approx(
        2 * one.aim.lr_embedding, rel=0.01
    )
    assert made("lr").transferred(0.5)["lr_matrix"] == pytest.approx(0.5 * made("lr").aim.lr_matrix, rel=0.01)


def test_values_when_the_decay_is_swept_then_none_is_among_them_and_factors_of_the_dials_or_some() -> None:
    assert made("weight_decay").values == (0.0, 0.1, 0.2, 0.4, 0.8, 1.6)
    assert made("weight_decay", weight_decay=0.1).values == (0.0, 0.025, 0.05, 0.1, 0.2, 0.4)


@pytest.mark.parametrize(("reads", "cautions"), [(0.5, False), (9.0, True)])
def test_advice_when_the_model_reads_its_text_more_often_than_proxies_then_a_decay_of_theirs_comes_with_a_caution(
    reads: float, cautions: bool
) -> None:
    one = made("weight_decay")
    aim = settings_for(one.target, TrainConfig(max_steps=64), tokens=reads * 1e6, unique=1e6)
    found = verdict([Trial(value, seed, 2 + value) for value in one.values for seed in (0, 1)])
    text = "\n".join(sweep_run._advice(replace(one, aim=aim), found, {"weight_decay": 0.0}))
    assert ("more often than the proxies" in text) == cautions


def test_settings_when_the_batch_is_swept_then_the_tokens_stay() -> None:
    one = made("batch_tokens")
    for value in one.values:
        config = one.settings(value, 0)
        assert config.max_steps is not None
        assert config.max_steps * config.batch_tokens == pytest.approx(64 * one.config.batch_tokens, rel=0.02)
