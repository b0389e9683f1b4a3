"""Fine-tuning in a project by every method, whole and with an adapter, and in a chain; what goes in is a user's file."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from gptwright.core.files import read_json
from gptwright.model.io import load_model
from gptwright.project.project import Project
from gptwright.project.settings import FinetuneSettings
from gptwright.tokens.slots import recall_slots

QUESTIONS = [
    f"What happened to {name}?" for name in ("the cat", "a dog", "my aunt", "the baker", "the river", "a farmer")
]


@pytest.fixture(scope="module")
def pretrained(tmp_path_factory: pytest.TempPathFactory, tiny: Any, gptwright: Any) -> Path:
    root = tiny.make(tmp_path_factory.mktemp("tuning") / "tiny", notes=40, chats=10)
    gptwright("run", "pretrain", "--project", str(root), "--json").ok()
    return root


@pytest.fixture
def root(pretrained: Path, tmp_path: Path) -> Path:
    target = tmp_path / "tiny"
    shutil.copytree(pretrained, target)
    pairs = [{"prompt": q, "chosen": "It was found at the market.", "rejected": "no no no"} for q in QUESTIONS]
    (target / "pairs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in pairs))
    tasks = [{"prompt": q, "answer": "a"} for q in QUESTIONS]
    (target / "tasks.jsonl").write_text("".join(json.dumps(row) + "\n" for row in tasks))
    (target / "reward.py").write_text("def score(prompt, answer, row):\n    return sum(map(ord, answer)) % 97\n")
    return target


GRPO = ("data=tasks.jsonl", "reward=python", "reward_file=reward.py", "answer_tokens=8", "group_size=2")


@pytest.mark.parametrize("adapter", ["none", "lora"])
@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("sft", ("goldfish=4",)),
        ("dpo", ("data=pairs.jsonl",)),
        ("ipo", ("data=pairs.jsonl",)),
        ("kto", ("data=pairs.jsonl",)),
        ("grpo", GRPO),
        ("distill", ("teacher=TEACHER",)),
    ],
)
def test_finetune_when_by_any_method_then_makes_a_model_and_an_adapter_that_peft_opens(
    method: str, settings: tuple[str, ...], adapter: str, root: Path, gptwright: Any
) -> None:
    base = next((root / "work" / "models").glob("tiny-pretrain-*"))
    given = [f"finetune.{value.replace('TEACHER', base.relative_to(root).as_posix())}" for value in settings]
    given += [f"finetune.adapter={adapter}", "finetune.rank=4"]
    options = [part for value in given for part in ("--set", value)]
    gptwright("finetune", "--method", method, "--project", str(root), "--json", *options).ok()
    model = next((root / "work" / "models").glob("tiny-finetune-*"))
    manifest = read_json(model / "manifest.json")
    assert manifest["methods"] == [method]
    before, after = load_model(base), load_model(model)
    assert any(not torch.equal(a, b) for a, b in zip(before.parameters(), after.parameters(), strict=True))
    if adapter == "lora":
        from peft import PeftModel
        from transformers import AutoModelForCausalLM

        theirs = AutoModelForCausalLM.from_pretrained(base, dtype=torch.float32)
        opened = PeftModel.from_pretrained(theirs, next(model.rglob("adapter_config.json")).parent).eval()
        ids = torch.arange(20, 40)[None]
        with torch.no_grad():
            torch.testing.assert_close(opened(ids).logits, after.logits(after(ids)), rtol=1e-4, atol=1e-4)


def test_finetune_when_a_chain_then_each_step_begins_where_the_last_one_ended(root: Path, gptwright: Any) -> None:
    chain = """
[[finetune.steps]]
method = "sft"
max_steps = 3
batch_tokens = 256
compile = "off"
dtype = "float32"

[[finetune.steps]]
method = "dpo"
data = "pairs.jsonl"
adapter = "lora"
base_dtype = "int8"
max_steps = 3
batch_tokens = 256
compile = "off"
dtype = "float32"

[evaluate]"""
    toml = root / "gptwright.toml"
    toml.write_text(toml.read_text().replace("\n[evaluate]", chain))
    gptwright("finetune", "--project", str(root), "--json").ok()
    model = next((root / "work" / "models").glob("tiny-finetune-*"))
    manifest = read_json(model / "manifest.json")
    assert manifest["methods"] == ["sft", "dpo"]
    runs = root / "work" / "runs"
    first = next(runs.glob("*-step1"))
    last = runs / first.name.removesuffix("-step1")
    assert read_json(first / "config.json")["train"]["objective"] == "sft"
    assert read_json(last / "config.json")["train"]["objective"] == "dpo"
    assert recall_slots(first, root) is not None
    # The base of the second step is whole again: an int8 one differs from it by up to half a step of each row.
    loaded = load_model(model)
    assert all(p.dtype == torch.float32 for p in loaded.parameters())


@pytest.mark.parametrize("advantage", ["group", "best"])
def test_finetune_when_all_answers_are_rewarded_alike_then_says_that_nothing_was_learnt(
    advantage: str, root: Path, gptwright: Any
) -> None:
    (root / "reward.py").write_text("def score(prompt, answer, row):\n    return 0\n")
    options = [part for value in (*GRPO, f"advantage={advantage}") for part in ("--set", f"finetune.{value}")]
    done = gptwright("finetune", "--method", "grpo", "--max-steps", "2", "--project", str(root), *options)
    assert done.code == 2, done.err
    assert "nothing was learnt: in every step all answers to a task had the same reward" in done.err
    run = next(run for run in json.loads(gptwright("runs", "list", "--project", str(root), "--json").out)["runs"]
               if run["stage"] == "finetune")  # fmt: skip
    assert "nothing was learnt" in gptwright("runs", "show", run["id"], "--project", str(root)).ok().out
    assert not list((root / "work" / "models").glob("tiny-finetune-*"))


def test_settings_when_a_method_lacks_what_it_needs_then_says_so() -> None:
    for values, says in (
        ({"method": "dpo"}, "needs data"),
        ({"method": "distill"}, "needs a teacher"),
        ({"method": "grpo", "data": "t", "reward": "python"}, "needs reward_file"),
        ({"base_dtype": "int8"}, "needs adapter"),
        ({"method": "dpo", "data": "p", "objective": "sft"}, "means objective dpo"),
    ):
        with pytest.raises(ValueError, match=says):
            FinetuneSettings.model_validate(values)
    with pytest.raises(
        ValueError, match="1 validation error"
    ):  # of method alone, not of the objective that follows from it
        FinetuneSettings.model_validate({"method": "dpoo"})


def test_distill_when_the_teacher_has_another_tokenizer_then_is_refused(
    root: Path, tiny: Any, tmp_path: Path, gptwright: Any
) -> None:
    other = tiny.make(tmp_path / "other", notes=30, chats=0)
    gptwright("run", "tokenizer", "--project", str(other), "--json", "--set", "tokenizer.vocab_size=290").ok()
    base = next((root / "work" / "models").glob("tiny-pretrain-*"))
    strange = root / "strange"
    shutil.copytree(base, strange)
    shutil.copy(other / "work" / "tokenizer" / "tokenizer.json", strange / "tokenizer.json")
    done = gptwright("finetune", "--method", "distill", "--project", str(root), "--set", "finetune.teacher=strange")
    assert done.code == 2
    assert "another tokenizer" in done.err
    assert "Traceback" not in done.err


def test_project_when_pretraining_settings_are_resolved_then_canaries_do_not_reach_the_loop(root: Path) -> None:
    from gptwright.project.training import train_config

    assert "canaries" not in train_config(Project.open(root).settings.pretrain).model_dump()


def test_canaries_when_asked_for_then_are_in_the_shards_and_in_the_ledger(
    tiny: Any, tmp_path: Path, gptwright: Any
) -> None:
    from gptwright.tokens.shards import TokenDataset

    root = tiny.make(tmp_path / "tiny", notes=30, chats=0)
    gptwright("run", "tokens", "--project", str(root), "--json", "--set", "pretrain.canaries=8").ok()
    with Project.open(root).ledger() as ledger:
        event = ledger.events(ledger.runs("tokens")[-1].id, "canaries")[-1]
    dataset = TokenDataset.open(next(path for path in (root / "work" / "tokens").iterdir() if path.is_dir()))
    planted = event.data["planted"]
    assert [len(dataset.find(canary["uid"])) for canary in planted] == [canary["repeats"] for canary in planted]
    assert sorted({canary["repeats"] for canary in planted}) == [1, 4]
    places = sorted(index for canary in planted for index in dataset.find(canary["uid"]))
    assert places != list(range(len(places)))
    assert places[-1] > dataset.n_docs / 2  # among the documents, not before them


CHAIN_OF_ALL = """
[[finetune.steps]]
method = "sft"
data = "talks.jsonl"
max_steps = 3

[[finetune.steps]]
method = "dpo"
data = "pairs.jsonl"
max_steps = 3

[[finetune.steps]]
method = "kto"
data = "pairs.jsonl"
max_steps = 3

[[finetune.steps]]
method = "grpo"
data = "tasks.jsonl"
reward = "python"
reward_file = "reward.py"
answer_tokens = 8
group_size = 2
max_steps = 3

[evaluate]"""


@pytest.mark.slow
def test_trace_when_a_row_taught_a_chain_then_every_step_that_saw_it_is_named_and_forget_reaches_them(
    root: Path, tiny: Any, gptwright: Any
) -> None:
    small = 'batch_tokens = 256\ncompile = "off"\ndtype = "float32"\n'
    toml = root / "gptwright.toml"
    chain = CHAIN_OF_ALL.replace("max_steps = 3\n", "max_steps = 3\n" + small)
    toml.write_text(toml.read_text().replace("\n[evaluate]", chain))
    tiny.write_chats(root / "talks.jsonl", range(5))
    ask = ("--project", str(root), "--json")
    gptwright("finetune", *ask).ok()

    def runs_of(selector: str) -> dict[str, dict[str, Any]]:
        found = gptwright("data", "trace", selector, *ask).ok().json
        assert found["documents"]
        assert any(name.startswith("tiny-finetune-") for name in found["models"])
        objectives = {
            run["run"]: read_json(root / "work" / "runs" / run["run"] / "config.json")["train"]["objective"]
            for run in found["runs"]
        }
        return {objectives[run["run"]]: run for run in found["runs"] if run["first_step"] is not None}

    assert set(runs_of("path:talks.jsonl")) == {"sft"}
    pairs = runs_of("path:pairs.jsonl")
    assert {"dpo", "kto"} <= set(pairs)
    assert all(run["known"] and run["exposures"] for run in pairs.values())
    one = runs_of("path:tasks.jsonl:2")
    assert "grpo" in one
    assert one["grpo"]["exposures"] < runs_of("path:tasks.jsonl")["grpo"]["exposures"]

    (root / "passage.txt").write_text("What happened to a dog?")
    by_text = gptwright("data", "trace", "text:" + str(root / "passage.txt"), *ask).ok().json
    assert {row["locator"].partition("&")[0] for row in by_text["documents"]} >= {
        "pairs.jsonl#row=2",
        "tasks.jsonl#row=2",
    }

    certificate = gptwright("data", "forget", "path:pairs.jsonl:2", "--basis", "a test", *ask).ok().json
    assert "pairs.jsonl" in certificate["remains"]
    again = gptwright("finetune", "--force", *ask).ok()
    assert "erased and are left out (pairs.jsonl:2)" in again.err
    assert len(recall_slots(newest(root, "-step2"), root).uids) == len(QUESTIONS) - 1  # type: ignore[union-attr]


def newest(root: Path, ending: str) -> Path:
    return max((root / "work" / "runs").glob(f"*{ending}"), key=lambda path: path.stat().st_mtime)


@pytest.mark.slow
def test_refresh_when_fine_tuning_is_a_chain_then_every_step_is_done_again(
    root: Path, tiny: Any, gptwright: Any
) -> None:
    small = 'batch_tokens = 256\ncompile = "off"\ndtype = "float32"\n'
    toml = root / "gptwright.toml"
    steps = CHAIN_OF_ALL[: CHAIN_OF_ALL.index('[[finetune.steps]]\nmethod = "kto"')]
    toml.write_text(
        toml.read_text().replace(
            "\n[evaluate]", steps.replace("max_steps = 3\n", "max_steps = 3\n" + small) + "[evaluate]"
        )
    )
    tiny.write_chats(root / "talks.jsonl", range(5))
    ask = ("--project", str(root), "--json")
    model = gptwright("run", *ask).ok().json["ran"][0]["artifact"]
    gptwright("release", "promote", model, "--override", "a test", *ask).ok()
    for seed in range(8):
        (root / "data" / f"new-{seed}.txt").write_text(tiny.note(900 + seed), encoding="utf-8")
    before = set((root / "work" / "runs").iterdir())
    refreshed = gptwright("refresh", *ask).ok().json
    runs = sorted(set((root / "work" / "runs").iterdir()) - before)
    configs = {path.name: read_json(path / "config.json")["train"] for path in runs}
    assert sorted(config["objective"] for config in configs.values()) == ["dpo", "pretrain", "sft"]
    # 6 steps in all (tiny's [refresh]): 0.7 of them go on with pretraining, the steps of the chain share the rest.
    assert sorted(config["max_steps"] for config in configs.values()) == [1, 1, 4]
    manifest = read_json(root / "work" / "models" / refreshed["model"] / "manifest.json")
    assert manifest["methods"] == ["sft", "dpo"]
    assert gptwright("refresh", "--if-changed", *ask).ok().json["model"] == refreshed["model"]


def test_data_of_fine_tuning_when_its_licence_is_not_known_then_commercial_use_is_refused_until_it_is_said(
    root: Path, gptwright: Any
) -> None:
    ask = ("--project", str(root))
    base = ("--method", "dpo", "--data", str(root / "pairs.jsonl"), *ask, "--set", "project.intent=commercial")
    refused = gptwright("finetune", *base)
    assert refused.code == 3
    assert "source finetune:" in refused.err
    assert "pairs.jsonl has no known licence" in refused.err
    assert not list((root / "work" / "models").glob("tiny-finetune-*"))

    said = ("--set", "finetune.license=CC-BY-4.0", "--set", "finetune.attribution=The Raters")
    gptwright("finetune", *base, *said).ok()
    rows = gptwright("data", "licenses", "--commercial", *ask, "--json").ok().json["licenses"]
    row = next(row for row in rows if row["source"].startswith("finetune:"))
    assert (row["license"], row["documents"], row["attribution"]) == ("CC-BY-4.0", len(QUESTIONS), ["The Raters"])
    with Project.open(root).ledger() as ledger:
        (file,) = [file for file in ledger.files() if file.source.startswith("finetune:")]
    assert (file.locator, file.documents, file.raw_hash[:3]) == ("pairs.jsonl", len(QUESTIONS), "b2:")
    out = root / "cards"
    gptwright("compliance", "--out", str(out), *ask, "--json").ok()
    assert "The Raters" in (out / "ATTRIBUTION.md").read_text(encoding="utf-8")
    assert "CC-BY-4.0" in (out / "DATASET_CARD.md").read_text(encoding="utf-8")
    # A corpus that is built again does not drop what is no part of it.
    gptwright("data", "build", *ask).ok()
    with Project.open(root).ledger() as ledger:
        assert any(source.name.startswith("finetune:") for source in ledger.sources())


def test_data_of_fine_tuning_when_it_lies_in_a_source_then_has_that_sources_licence(root: Path) -> None:
    from gptwright.project.tuned_on import tuning_sources

    shutil.copy(root / "pairs.jsonl", root / "data" / "pairs.jsonl")
    project = Project.open(root, overrides=["finetune.method=dpo", "finetune.data=data/pairs.jsonl"])
    found, files = tuning_sources(project)
    assert found["finetune:data/pairs.jsonl"]["license"] == "LicenseRef-own"
    assert [file.locator for file in files["finetune:data/pairs.jsonl"]] == ["data/pairs.jsonl"]
