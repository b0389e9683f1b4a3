"""What-if: the same answer as deciding anew, from stored numbers only."""

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.decide import Part, decide
from gptwright.corpus.recipes import Recipe, Rule
from gptwright.corpus.tables import part_path
from gptwright.corpus.whatif import Amount, what_if

if TYPE_CHECKING:
    from conftest import Project


def corpus(project: "Project") -> list[Part]:
    """Texts of many lengths, copies among them, one of which is long by its white space alone."""
    rows = [{"text": project.prose(i % 70, 1 + i % 70)} for i in range(140)]
    rows += [{"text": "one    two      three   four"}, {"text": "one two three four"}]
    rows += [{"text": f"{i} 12 34 56 78 90 {i * 7} words"} for i in range(20)]
    project.write("a.jsonl", "\n".join(json.dumps(row) for row in rows))
    project.write("b.txt", project.prose(33, 34))
    project.build(share=0.2)
    state = json.loads((project.out / "recipe.json").read_text())
    return [
        Part(part_path(project.out, "docs", n), part_path(project.out, "signals", n), part["source"])
        for n, part in enumerate(state["parts"])
    ]


CHANGES: list[dict[str, float | None]] = [
    {},
    {"text.too_short": 25},
    {"text.too_short": 120.0},
    {"text.too_short": None},
    {"text.few_letters": 0.6, "text.too_short": 5},
    {"text.too_short": 1e9},
]


def test_what_if_when_thresholds_change_then_it_is_what_deciding_anew_gives(project: "Project", tmp_path: Path) -> None:
    parts = corpus(project)
    state = json.loads((project.out / "recipe.json").read_text())
    before = [table_of(project.out, n) for n in range(len(parts))]
    moved = 0
    for changes in CHANGES:
        change = what_if(project.out, changes)
        recipe = Recipe.load("small").changed(changes)
        decided = decide(parts, recipe, 0.2, (state["share"], state["unit"]), work=tmp_path / "again")
        tally, source = decided.sources["own"], change.sources["own"]
        assert (source.after.documents, source.after.bytes) == (tally.kept, tally.bytes)
        pairs = [
            (was, now)
            for n in range(len(parts))
            for was, now in zip(before[n], table_of(tmp_path / "again", n), strict=True)
        ]
        assert source.before.documents == sum(was for was, _ in pairs)
        assert source.gained.documents == sum(now and not was for was, now in pairs)
        assert source.lost.documents == sum(was and not now for was, now in pairs)
        moved += source.gained.documents + source.lost.documents
        for rule in change.rules:
            assert rule.failed_after.get("own", Amount()).documents == decided.sources["own"].failed[rule.rule]
    assert moved > 50, "the changes must change something"


def table_of(out: Path, number: int) -> list[bool]:
    verdicts = pq.read_table(part_path(out, "decisions", number), columns=["verdict"])["verdict"].to_pylist()
    return [verdict == "keep" for verdict in verdicts]


def test_what_if_when_samples_are_shown_then_they_are_the_nearest_on_both_sides(project: "Project") -> None:
    parts = corpus(project)
    change = what_if(project.out, {"text.too_short": 60})
    lengths = sorted(
        n for part in parts for n in pq.read_table(part.signals, columns=["n_chars"])["n_chars"].to_pylist()
    )
    failing = [one for one in change.boundary if one.fails]
    passing = [one for one in change.boundary if not one.fails]
    assert [one.value for one in failing] == [n for n in reversed(lengths) if n < 60][:10]
    assert [one.value for one in passing] == [n for n in lengths if n >= 60][:10]
    assert any(one.kept_before and not one.kept_after for one in failing)
    assert not any(one.kept_after for one in failing)
    texts = change.texts(project.out)
    assert set(texts) == {one.row for one in change.boundary}
    for one in change.boundary:
        assert len(texts[one.row]) == min(one.value, 300)
    assert any("text.too_short: < 20 becomes < 60" in line for line in change.lines())


def test_what_if_when_a_rule_is_new_or_unknown_then_it_is_added_or_the_nearest_is_offered(project: "Project") -> None:
    project.write("a.txt", project.prose(1))
    project.build(recipe="none")
    assert what_if(project.out, {"text.too_short": 10_000}).sources["own"].lost.documents == 1
    own = Recipe("own", (Rule("own.long", "n_chars", ">", 5),))
    assert what_if(project.out, {}, recipe=own).sources["own"].lost.documents == 1
    with pytest.raises(UserError, match="Did you mean 'text.too_short'"):
        what_if(project.out, {"text.toshort": 1})
    with pytest.raises(UserError, match="not built"):
        what_if(project.out / "nowhere", {})
