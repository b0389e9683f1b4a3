"""What decisions say of near copies, evaluation items, licences and wiped-out sources, and how a person is told."""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from gptwright.corpus import tables
from gptwright.corpus.copies import METHODS, Bools, Copies
from gptwright.corpus.decide import Decided, Part, decide, publish
from gptwright.corpus.find import failed_by
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.why import _statements, why

if TYPE_CHECKING:
    from conftest import Project


@dataclass
class Planted:
    """Duplicates as a test says they are: row -> kept row and similarity."""

    near: dict[int, tuple[int, float, float]]

    def resolve(self, alive: Bools, heldout: Bools) -> Copies:
        rows = len(alive)
        copies = Copies(
            np.full(rows, -1, np.int64),
            np.zeros(rows, np.uint8),
            np.zeros(rows, np.float32),
            np.zeros(rows, np.float32),
            0.8,
        )
        assert copies.method is not None
        assert copies.jaccard is not None
        assert copies.containment is not None
        for row, (kept, jaccard, containment) in self.near.items():
            if alive[row] and alive[kept]:
                copies.kept_of[row], copies.method[row] = kept, METHODS.index("near")
                copies.jaccard[row], copies.containment[row] = jaccard, containment
        return copies


def decided_again(project: "Project", recipe: Recipe, **more: object) -> Decided:
    state = json.loads((project.out / "recipe.json").read_text())
    parts = [
        Part(*(tables.part_path(project.out, t, n) for t in ("docs", "signals")), part["source"])
        for n, part in enumerate(state["parts"])
    ]
    decided = decide(parts, recipe, 0, None, work=project.out / "again", **more)  # type: ignore[arg-type]
    publish(decided, project.out)
    return decided


def told(project: "Project", name: str) -> str:
    return "\n".join(why(project.out, project.ledger, name))


def decisions(project: "Project") -> list[dict[str, object]]:
    return pq.read_table(tables.part_path(project.out, "decisions", 0)).to_pylist()


def test_why_when_copy_is_near_then_the_kept_one_and_the_similarity_are_told(project: "Project") -> None:
    for i in range(3):
        project.write(f"{i}.txt", project.prose(i))
    project.build()
    decided = decided_again(project, Recipe.load("small"), duplicates=Planted({2: (0, 0.91, 0.97)}))
    assert decided.kept == 2
    text = told(project, "2.txt")
    assert "copy.near: nearly the same text as own/0.txt (id " in text
    assert "similarity 0.91, 97% of it stand there" in text
    row = decisions(project)[2]
    assert (row["rule"], row["op"], row["method"], row["split"]) == ("copy.near", ">=", "near", None)
    assert np.allclose([row["value"], row["threshold"], row["containment"]], [0.91, 0.8, 0.97])  # type: ignore[arg-type]
    assert row["kept_uid"] == decisions(project)[0]["doc_uid"]
    occurrences = pq.read_table(project.out / "index" / "occurrences.parquet")
    assert occurrences.num_rows == 0, "a near copy is another text, not another place of the same one"


def test_why_when_text_differs_in_case_only_then_it_is_said_to_be_the_same_words(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.txt", project.prose(1).upper())
    project.build()
    assert "copy.exact: the same words as own/a.txt" in told(project, "b.txt")
    assert pq.read_table(project.out / "index" / "occurrences.parquet").num_rows == 2


class Leaks:
    """Contamination as a test says it is: one document holds two items, another quotes a little of one."""

    overlap = 0.5

    def part(self, number: int) -> pa.Table:
        return pa.table(
            {
                "doc_row": pa.array([1, 2], pa.int32()),
                "contaminated": pa.array([True, False]),
                "overlap": pa.array([0.75, 0.1], pa.float32()),
                "items": pa.array([["arc#17", "arc#18"], ["arc#19"]]),
            }
        )


def test_why_when_evaluation_item_is_held_then_it_is_named(project: "Project") -> None:
    for i in range(3):
        project.write(f"{i}.txt", project.prose(i))
    project.build()
    decided = decided_again(project, Recipe.load("small"), contamination=Leaks())
    assert decided.kept == 2
    assert "eval.contaminated: holds text of the evaluation items arc#17, arc#18; overlap 75%" in told(project, "1.txt")
    assert [row["eval_items"] for row in decisions(project)] == [None, ["arc#17", "arc#18"], None]
    assert (decisions(project)[1]["op"], decisions(project)[1]["threshold"]) == (">=", 0.5)


def test_why_when_licence_is_not_allowed_then_it_is_named_and_the_wiped_out_source_is_told(project: "Project") -> None:
    for i in range(3):
        project.write(f"{i}.txt", project.prose(i))
    project.build(license="GPL-3.0-only")
    decided = decided_again(project, Recipe("x", allow=("CC0-1.0", "MIT")))
    assert decided.kept == 0
    assert "license.not_allowed: the licence GPL-3.0-only is none of those the recipe allows" in told(project, "1.txt")
    assert decided.alarms == ["license.not_allowed drops 100% of own (3 of 3 documents)"]
    assert decided.alarms[0] in decided.notes


def test_alarm_when_a_rule_drops_half_of_a_source_then_none_and_when_more_then_one(project: "Project") -> None:
    for i in range(4):
        project.write(f"{i}.txt", project.prose(i) if i < 2 else f"short {i}")
    assert not any("drops" in note for note in project.build().meta["notes"])
    project.write("5.txt", "short 5")
    assert any("text.too_short drops 60% of own (3 of 5" in note for note in project.build().meta["notes"])


def test_evidence_when_several_rules_fail_then_all_stand_there_in_order_and_first_is_first(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.write("b.txt", "1 2 3 4")
    project.build()
    recipe = Recipe.load("small").changed({"text.few_letters": 0.9})
    rules = tuple(replace(rule, least_chars=0) for rule in recipe.rules)
    recipe = Recipe(recipe.name, rules)
    decided_again(project, recipe)
    row = decisions(project)[1]
    assert [one["rule"] for one in row["failed"]] == ["text.too_short", "text.few_letters"]  # type: ignore[attr-defined]
    assert (row["rule"], row["value"], row["threshold"]) == ("text.too_short", 7.0, 20.0)
    table = pq.read_table(tables.part_path(project.out, "decisions", 0))
    assert failed_by(table, "text.few_letters").tolist() == [False, True]


def test_decide_when_parts_are_many_then_digest_and_counts_are_those_of_one(project: "Project", tmp_path: Path) -> None:
    for i in range(30):
        project.write(f"{i:02d}.txt", project.prose(i % 20, 3 + i % 11))
    project.build()
    docs, signals = (pq.read_table(tables.part_path(project.out, t, 0)) for t in ("docs", "signals"))
    whole = decide([_part(tmp_path, "one", docs, signals)], "small", 0.2, None, work=tmp_path / "w1")
    cut = [_part(tmp_path, f"c{at}", docs.slice(at, 7), signals.slice(at, 7)) for at in range(0, 30, 7)]
    pieces = decide(cut, "small", 0.2, None, work=tmp_path / "w2")
    assert (whole.digest, whole.sources, whole.share) == (pieces.digest, pieces.sources, pieces.share)
    rows = [pq.read_table(tables.part_path(tmp_path / "w2", "decisions", n)) for n in range(len(cut))]
    assert pa.concat_tables(rows).equals(pq.read_table(tables.part_path(tmp_path / "w1", "decisions", 0)))


def _part(folder: Path, name: str, docs: pa.Table, signals: pa.Table) -> Part:
    pq.write_table(docs, folder / f"{name}-docs.parquet")
    pq.write_table(signals, folder / f"{name}-signals.parquet")
    return Part(folder / f"{name}-docs.parquet", folder / f"{name}-signals.parquet", "own")


@pytest.mark.parametrize(
    ("short", "similarity", "held", "value", "limit", "words"),
    [
        (
            False,
            0.66,
            0.97,
            0.97,
            0.95,
            "similarity 0.66, 97% of it stand there (verified on the texts; a copy when 95%",
        ),
        (True, 0.93, 0.98, 0.93, 0.90, "a copy from similarity 0.90)"),
        (False, 0.80, 0.80, 0.80, 0.80, "a copy from similarity 0.80)"),
        (False, 19 / 51, 19 / 50, 19 / 20, 0.95, "and it holds 95% of that held-out text"),  # 50 pieces hold 19 of 20
    ],
)
def test_evidence_when_a_near_copy_is_accepted_for_a_share_then_that_share_and_its_threshold_are_told(
    project: "Project", short: bool, similarity: float, held: float, value: float, limit: float, words: str
) -> None:
    for i in range(2):
        project.write(f"{i}.txt", project.prose(i))
    project.build()

    class Accepted(Planted):
        def resolve(self, alive: Bools, heldout: Bools) -> Copies:
            return replace(super().resolve(alive, heldout), short=np.full(len(alive), short))

    decided_again(project, Recipe.load("small"), duplicates=Accepted({1: (0, similarity, held)}))
    row = decisions(project)[1]
    assert (row["rule"], row["value"], row["threshold"]) == (
        "copy.near",
        pytest.approx(value, abs=1e-6),
        pytest.approx(limit, abs=1e-6),
    )
    assert words in told(project, "1.txt")


def test_evidence_when_copies_are_found_in_texts_then_no_value_is_below_its_threshold(project: "Project") -> None:
    long = project.prose(1, 400)
    project.write("long.txt", long)
    project.write("held.txt", long[: int(len(long) * 0.7)])
    project.write("few.txt", "A lamp burns in the tower through all the long nights of winter, and nobody sees it.")
    project.write(
        "few2.txt", "A lamp burns in the tower through all the long nights of winter, and nobody sees it now."
    )
    project.build()
    near = {round(float(str(row["threshold"])), 2): row for row in decisions(project) if row["rule"] == "copy.near"}
    assert set(near) == {0.9, 0.95}
    assert all(float(str(row["value"])) >= float(str(row["threshold"])) for row in near.values())


def test_why_when_a_publisher_asked_not_to_train_then_place_and_words_are_told() -> None:
    said = [
        {
            "bit": 64,
            "text": "Content-Usage: train-ai=n",
            "where": "header",
            "url": "https://a.example/",
            "at": "2024-05-01",
        },
        {"bit": 0, "text": "Content-Signal: ai-train=yes", "where": "header", "url": "https://a.example/", "at": None},
    ]
    assert _statements(json.dumps(said)) == ["Content-Usage: train-ai=n  (in header, https://a.example/, 2024-05-01)"]
    assert _statements(None) == []
