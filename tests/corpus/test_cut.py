"""Cuts laid over masks: nothing of a mask shows, nothing else is lost, edits stay in order and apart."""

import itertools
import json
from typing import TYPE_CHECKING

import pyarrow.parquet as pq
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus import tables
from gptwright.corpus.cut import lay_over
from gptwright.corpus.edits import Edit, apply_edits

if TYPE_CHECKING:
    from conftest import Project

TEXT = "".join(chr(97 + i % 26) for i in range(60))
RANGES = st.lists(st.tuples(st.integers(0, 59), st.integers(1, 12)), max_size=6)


def apart(ranges: list[tuple[int, int]], kind: str, replacement: str) -> list[Edit]:
    """Ranges in order, those that touch a former one left out."""
    found: list[Edit] = []
    for start, size in sorted(ranges):
        if not found or start >= found[-1].end:
            found.append(Edit(start, min(start + size, 60), kind, replacement))
    return found


@given(RANGES, RANGES)
def test_lay_over_when_cuts_meet_masks_then_no_letter_of_either_is_left_and_all_others_are(
    first: list[tuple[int, int]], second: list[tuple[int, int]]
) -> None:
    masks, cuts = apart(first, "EMAIL", "#"), apart(second, "SPAN", "")
    edits = lay_over(masks, cuts)
    assert all(a.end <= b.start for a, b in itertools.pairwise(edits))
    gone = {i for edit in (*masks, *cuts) for i in range(edit.start, edit.end)}
    left = apply_edits(TEXT, edits).replace("#", "")
    assert left == "".join(c for i, c in enumerate(TEXT) if i not in gone)
    untouched = [m for m in masks if all(c.end <= m.start or m.end <= c.start for c in cuts)]
    assert [e for e in edits if e.replacement == "#"] == untouched


def test_lay_over_when_a_mask_joins_two_cuts_then_all_three_are_one() -> None:
    edits = lay_over([Edit(4, 12, "PHONE", "[PHONE]")], [Edit(0, 5, "LINE", ""), Edit(10, 20, "SPAN", "")])
    assert edits == [Edit(0, 20, "LINE", "")]


def test_cut_when_programs_share_passages_and_lines_then_only_prose_is_cut(project: "Project") -> None:
    shared = "\n".join(project.prose(99, 80).split(": ")[1].split(". ")) + "\nno end mark here at all"
    for i in range(2):
        project.write(f"{i}.txt", f"{project.prose(i, 200)}\n{shared}\n")
        project.write(f"{i}.py", f"def f{i}(x):\n    return x + {i}\n\n# {shared}\n# {project.prose(i + 10, 200)}\n")
        cell = {"cell_type": "code", "source": f"x = {i}\n# {shared}\n# {project.prose(i + 20, 200)}"}
        project.write(f"{i}.ipynb", json.dumps({"nbformat": 4, "nbformat_minor": 5, "metadata": {}, "cells": [cell]}))
    (project.root / "mine.toml").write_text('rules = ["c4.lines@reference"]')
    project.build(recipe="mine.toml")
    docs = pq.read_table(tables.part_path(project.out, "docs", 0))["locator"].to_pylist()
    edits = pq.read_table(tables.part_path(project.out, "edits", 0)).to_pylist()
    assert {docs[edit["doc_row"]].partition("#")[0] for edit in edits} == {"0.txt", "1.txt"}
    assert {edit["kind"] for edit in edits} == {"SPAN", "RULE"}
