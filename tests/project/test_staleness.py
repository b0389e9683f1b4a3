"""What makes a stage stale, and what never does."""

import os
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

import gptwright as gw

ORDER = ["corpus", "tokenizer", "tokens", "pretrain", "finetune", "evaluate", "release"]


@pytest.fixture(scope="module")
def project(finished: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    target = tmp_path_factory.mktemp("staleness") / "moved"
    shutil.copytree(finished, target)
    return target


def stale(root: Path, *overrides: str) -> list[str]:
    return [v.stage for v in gw.Project.open(root, overrides=overrides).status() if v.state != "fresh"]


def test_project_when_moved_to_another_folder_then_all_is_fresh(project: Path) -> None:
    assert stale(project) == []


@pytest.mark.parametrize(
    "setting",
    [
        "serve.port=9999",
        "serve.host='0.0.0.0'",
        "guard.mask_answers=false",
        "refresh.max_time='9m'",
        "tracking.csv=true",
        "pretrain.device='cpu'",
        "pretrain.threads=1",
        "pretrain.checkpoint_every=1",
        "pretrain.log_every=2",
        "finetune.eval_every=1",
        "providers.other.base_url='http://127.0.0.1:1/v1'",
    ],
)
def test_stages_when_a_setting_decides_nothing_then_stay_fresh(project: Path, setting: str) -> None:
    assert stale(project, setting) == []


def test_stages_when_measurements_may_end_a_run_then_how_often_decides_something(
    project: Path, gptwright: Any, tmp_path: Path
) -> None:
    stops = "pretrain.patience=3"
    assert stale(project, stops) == ORDER[ORDER.index("pretrain") :]
    root = tmp_path / "tiny"
    shutil.copytree(project, root)
    gptwright("pretrain", "--project", str(root), "--set", stops).ok()
    first = stale(root, stops)
    assert "pretrain" not in first
    assert "pretrain" in stale(root, stops, "pretrain.eval_every=1")
    assert "pretrain" not in stale(root, stops, "pretrain.log_every=2")


@pytest.mark.parametrize(
    ("setting", "first"),
    [
        ("corpus.heldout_share=0.02", "corpus"),
        ("corpus.sources.mine.pii='keep'", "corpus"),
        ("project.intent='research'", "corpus"),
        ("tokenizer.vocab_size=310", "tokenizer"),
        ("model.depth=2", "pretrain"),
        ("model.seq_len=32", "pretrain"),
        ("pretrain.max_steps=7", "pretrain"),
        ("pretrain.lr_matrix=0.0123", "pretrain"),
        ("pretrain.seed=5", "pretrain"),
        ("finetune.max_steps=4", "finetune"),
        ("finetune.method='lora'", "finetune"),
        ("evaluate.suites=['heldout']", "evaluate"),
        ("release.gate.margin=0.5", "release"),
    ],
)
def test_stages_when_a_setting_decides_something_then_it_and_what_is_below_are_stale(
    project: Path, setting: str, first: str
) -> None:
    assert stale(project, setting) == ORDER[ORDER.index(first) :]


def test_vocab_size_when_changed_then_the_reason_names_old_and_new(project: Path) -> None:
    verdicts = {v.stage: v for v in gw.Project.open(project, overrides=["tokenizer.vocab_size=310"]).status()}
    assert verdicts["tokenizer"].reasons == ("tokenizer.vocab_size: 300 became 310",)
    assert verdicts["tokens"].reasons == ("tokenizer is not fresh",)


def test_comments_when_changed_in_the_file_then_nothing_is_stale(copy: Path) -> None:
    path = copy / "gptwright.toml"
    text = path.read_text().replace("# A tiny project.", "# Quite another comment.\n\n# And one more.")
    path.write_text(re.sub(r"depth = 1", "depth   =  1   # one block", text))
    assert stale(copy) == []


def test_files_when_added_changed_and_removed_then_the_source_is_named_each_time(copy: Path, tiny: Any) -> None:
    note = copy / "data" / "note-03.txt"
    text = note.read_text()
    steps: list[Any] = [
        lambda: (copy / "data" / "new.txt").write_text(tiny.note(777)),
        lambda: (copy / "data" / "new.txt").unlink(),
        lambda: note.write_text(text.replace("Note", "Nota")),
    ]
    found = []
    for step in steps:
        step()
        verdict = gw.Project.open(copy).status()[0]
        found.append((verdict.state, [r for r in verdict.reasons if "mine" in r] != []))
    assert found == [("stale", True), ("fresh", False), ("stale", True)]


def test_files_when_only_touched_then_a_run_makes_nothing_below_the_corpus(copy: Path, gptwright: Any) -> None:
    for file in (copy / "data").iterdir():
        os.utime(file)
    done = gptwright("run", "--project", str(copy), "--json").ok()
    assert [item["stage"] for item in done.json["ran"]] in ([], ["corpus"])


def test_artifacts_when_a_folder_is_deleted_then_it_is_missing_and_a_run_makes_the_same_again(
    copy: Path, gptwright: Any
) -> None:
    before = {
        item["stage"]: item["hash"] for item in gptwright("status", "--project", str(copy), "--json").json["stages"]
    }
    shutil.rmtree(copy / "work" / "tokens")
    verdict = next(v for v in gw.Project.open(copy).status() if v.stage == "tokens")
    assert (verdict.state, "is gone" in verdict.reasons[0]) == ("missing", True)
    gptwright("run", "--project", str(copy)).ok()
    after = {
        item["stage"]: item["hash"] for item in gptwright("status", "--project", str(copy), "--json").json["stages"]
    }
    assert after == before


@pytest.mark.slow
def test_work_when_deleted_whole_then_a_run_makes_the_same_models_again(copy: Path, gptwright: Any) -> None:
    models = {path.name for path in (copy / "work" / "models").iterdir()}
    shutil.rmtree(copy / "work")
    gptwright("run", "--project", str(copy)).ok()
    assert {path.name for path in (copy / "work" / "models").iterdir()} == models


def test_dry_run_when_something_is_stale_then_says_so_and_changes_nothing(copy: Path, gptwright: Any) -> None:
    before = {
        p: p.stat().st_mtime_ns
        for p in (copy / "work").rglob("*")
        if p.suffix not in ("", ".sqlite-shm", ".sqlite-wal")
    }
    done = gptwright("run", "--dry-run", "--set", "finetune.max_steps=2", "--project", str(copy), "--json").ok()
    assert [item["stage"] for item in done.json["would_run"]] == ["finetune", "evaluate", "release"]
    after = {
        p: p.stat().st_mtime_ns
        for p in (copy / "work").rglob("*")
        if p.suffix not in ("", ".sqlite-shm", ".sqlite-wal")
    }
    assert after == before


def test_status_when_nothing_was_made_then_creates_no_folder(tmp_path: Path, tiny: Any) -> None:
    root = tiny.make(tmp_path / "fresh", notes=2, chats=0)
    assert {v.state for v in gw.Project.open(root).status()} == {"missing"}
    assert not (root / "work").exists()
    assert not (root / "state").exists()
