"""Staleness says what changed, in words."""

from pathlib import Path
from typing import Any

import pytest

from gptwright.core.ledger import Ledger
from gptwright.core.stages import Stage, code_version, judge


@pytest.fixture
def world(tmp_path: Path):
    with Ledger.open(tmp_path / "ledger.sqlite") as ledger:
        yield World(tmp_path, ledger)


class World:
    def __init__(self, root: Path, ledger: Ledger) -> None:
        self.root, self.ledger = root, ledger
        self.config: dict[str, Any] = {
            "corpus": {"recipe": "small"},
            "tokenizer": {"vocab_size": 10},
            "serve": {"port": 1},
        }
        self.files = {"mine": "1"}
        self.stages = [
            Stage("corpus", config=("corpus.recipe",), outside=lambda: self.files),
            Stage("tokenizer", inputs=("corpus",), config=("tokenizer",)),
        ]

    def judge(self):
        return {v.stage: v for v in judge(self.stages, self.config, self.ledger, self.root)}

    def make(self, name: str, hash: str = "h1") -> None:
        verdict = self.judge()[name]
        (self.root / name).mkdir(exist_ok=True)
        parents = [a.id for a in [self.ledger.latest_of_stage("corpus")] if a and name != "corpus"]
        self.ledger.add_artifact(
            name,
            stage=name,
            name=name,
            path=name,
            hash=hash,
            key=verdict.key,
            parents=parents,
            meta={"made_from": verdict.parts},
        )


def test_judge_when_all_was_made_then_all_is_fresh(world: World) -> None:
    world.make("corpus")
    world.make("tokenizer")
    assert {v.state for v in world.judge().values()} == {"fresh"}


def test_judge_when_a_key_that_a_stage_reads_changes_then_it_and_those_below_are_stale_and_say_why(
    world: World,
) -> None:
    world.make("corpus")
    world.make("tokenizer")
    world.config["corpus"]["recipe"] = "books"
    verdicts = world.judge()
    assert verdicts["corpus"].reasons == ("corpus.recipe: small became books",)
    assert verdicts["tokenizer"].reasons == ("corpus is not fresh",)


def test_judge_when_a_key_that_no_stage_reads_changes_then_all_stays_fresh(world: World) -> None:
    world.make("corpus")
    world.config["serve"]["port"] = 2
    assert world.judge()["corpus"].state == "fresh"


def test_judge_when_a_rebuild_gave_the_same_content_then_those_below_stay_fresh(world: World) -> None:
    world.make("corpus")
    world.make("tokenizer")
    world.files = {"mine": "2"}
    assert world.judge()["corpus"].reasons == ("mine changed",)
    world.make("corpus", hash="h1")
    assert world.judge()["tokenizer"].state == "fresh"
    world.files = {"mine": "2", "new": "1"}
    world.make("corpus", hash="h2")
    assert world.judge()["tokenizer"].reasons == ("corpus was made anew",)


def test_judge_when_the_artifact_was_deleted_then_it_is_missing(world: World) -> None:
    world.make("corpus")
    (world.root / "corpus").rmdir()
    assert world.judge()["corpus"].reasons == ("corpus is gone",)


def test_judge_when_the_last_run_was_interrupted_then_it_says_that_it_continues(world: World) -> None:
    world.ledger.start_run("r1", "corpus", {"key": world.judge()["corpus"].key})
    world.ledger.finish_run("r1", "interrupted")
    verdict = world.judge()["corpus"]
    assert verdict.state == "interrupted"
    assert "it continues" in verdict.reasons[0]


def test_judge_when_settings_changed_after_the_interruption_then_it_says_that_it_begins_anew(world: World) -> None:
    world.ledger.start_run("r1", "corpus", {"key": world.judge()["corpus"].key})
    world.ledger.finish_run("r1", "interrupted")
    world.config["corpus"]["recipe"] = "books"
    assert "begins anew" in world.judge()["corpus"].reasons[0]


def test_judge_when_a_later_run_failed_over_an_artifact_then_the_artifact_is_not_trusted(world: World) -> None:
    world.make("corpus")
    world.make("tokenizer")
    world.ledger.start_run("r2", "corpus", {"key": "another"})
    world.ledger.finish_run("r2", "failed")
    verdicts = world.judge()
    assert verdicts["corpus"].state == "failed"
    assert verdicts["tokenizer"].state == "stale"


def test_code_version_when_only_comments_and_docstrings_change_then_it_is_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(str(tmp_path))
    versions = []
    for name, text in (
        ("one_a", '"""Doc."""\ndef f():\n    """Says."""\n    return 1\n'),
        ("one_b", '"""Other."""\n# why\ndef f():\n    return 1\n'),
        ("one_c", "def f():\n    return 2\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
        versions.append(code_version((name,)))
    import ast

    bodies = [ast.dump(ast.parse((tmp_path / f"{n}.py").read_text())) for n in ("one_a", "one_b")]
    assert bodies[0] != bodies[1]
    assert len(set(versions)) == 3  # names differ too; what matters is that equal trees give equal hashes
    (tmp_path / "one_a.py").write_text("def f():\n    # a comment\n    return 1\n")
    code_version.cache_clear()
    assert code_version(("one_a",)) == versions[0]
