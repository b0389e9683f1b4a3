"""What if a threshold were another: all documents decided anew from stored signals and groups of copies; nothing is written.

Reads columns of numbers only. Text is read for the few documents at the boundary, and only when it is asked for.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.core.errors import UserError
from gptwright.core.files import read_json
from gptwright.corpus import tables
from gptwright.corpus.copies import Array, Bools, Duplicates, StoredCopies
from gptwright.corpus.decide import STATE
from gptwright.corpus.evidence import Check, look_at
from gptwright.corpus.heldout import BUCKETS
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.recipes.evaluate import Outcome, columns, evaluate

SAMPLES = 20
_PREFIX = 300  # characters of a sample's text


@dataclass
class Amount:
    """How much text."""

    documents: int = 0
    bytes: int = 0

    def add(self, chosen: Bools, n_bytes: Array) -> None:
        """Count the chosen documents of a part."""
        self.documents += int(chosen.sum())
        self.bytes += int(n_bytes[chosen].sum())


@dataclass
class SourceChange:
    """What a change does to one source."""

    before: Amount = field(default_factory=Amount)
    after: Amount = field(default_factory=Amount)
    gained: Amount = field(default_factory=Amount)  # dropped now, kept then
    lost: Amount = field(default_factory=Amount)  # kept now, dropped then


@dataclass
class RuleChange:
    """What a change does to one rule: documents that fail it, whatever else they fail, by source."""

    rule: str
    threshold_before: float | None  # None: the rule is not there
    threshold_after: float | None
    op: str
    failed_before: dict[str, Amount] = field(default_factory=dict)
    failed_after: dict[str, Amount] = field(default_factory=dict)


@dataclass(frozen=True)
class Boundary:
    """A document whose value lies nearest to the new threshold, on either side of it."""

    row: int  # over all parts
    uid: str
    source: str
    locator: str
    rule: str
    value: float
    threshold: float
    fails: bool  # the rule, with the new threshold
    kept_before: bool
    kept_after: bool


@dataclass
class Change:
    """What would change. ``sources`` and ``rules`` add up over all documents; ``boundary`` shows some."""

    recipe: Recipe
    documents: int
    sources: dict[str, SourceChange]
    rules: list[RuleChange]
    boundary: list[Boundary]

    def texts(self, corpus_dir: Path) -> dict[int, str]:
        """Beginnings of the boundary documents' texts, with their edits made: row -> text."""
        from gptwright.corpus.view import at_rows

        return {
            row: found.document.text[:_PREFIX] for row, found in at_rows(corpus_dir, [b.row for b in self.boundary])
        }

    def lines(self) -> list[str]:
        """For a person."""
        told = []
        for rule in self.rules:
            was, will = (
                "off" if t is None else f"{rule.op} {t:.4g}" for t in (rule.threshold_before, rule.threshold_after)
            )
            told.append(f"{rule.rule}: {was} becomes {will}")
        for name, source in self.sources.items():
            net = source.after.bytes - source.before.bytes
            told.append(
                f"{name}: +{source.gained.documents:,} documents ({source.gained.bytes / 1e6:.2f} MB),"
                f" -{source.lost.documents:,} ({source.lost.bytes / 1e6:.2f} MB);"
                f" {source.after.documents:,} kept instead of {source.before.documents:,},"
                f" {net / max(source.before.bytes, 1):+.1%} of the text"
            )
        for one in self.boundary:
            verdict = "kept" if one.kept_after else "dropped"
            note = "" if one.kept_before == one.kept_after else ", which is new"
            told.append(f"  {one.value:.5g}  {one.source}/{one.locator} (id {one.uid[:12]}): {verdict}{note}")
        return told


def what_if(
    corpus_dir: Path,
    changes: Mapping[str, float | None],
    *,
    recipe: Recipe | None = None,
    duplicates: Duplicates | None = None,
) -> Change:
    """Decide all documents of a built corpus anew.

    Args:
        corpus_dir: work/corpus.
        changes: rule -> threshold; None switches the rule off. A rule the recipe does not have is added to it.
        recipe: another recipe to change, instead of the one the corpus was built with.
        duplicates: groups and pairs; None: what the build stored. Then near copies are those it found, and of documents that it dropped
            no near copies are known.

    Raises:
        UserError: the corpus is not built, or nothing has such a name.
    """
    if not (corpus_dir / STATE).exists():
        raise UserError("the corpus is not built", where=str(corpus_dir), fix="Run: gptwright data build")
    state = read_json(corpus_dir / STATE)
    old = Recipe.from_data(state["recipe"])
    new = (recipe or old).changed(changes)
    changed = _changed(old, new)
    rows = sum(part["rows"] for part in state["parts"])
    alive, before, heldout = np.zeros(rows, bool), np.zeros(rows, bool), np.zeros(rows, bool)
    n_bytes = np.zeros(rows, np.uint32)
    change = Change(new, rows, {part["source"]: SourceChange() for part in state["parts"]}, changed, [])
    near = Nearest(max(2, SAMPLES // max(2 * len(changed), 1)))
    first = 0
    for number, part in enumerate(state["parts"]):
        here = slice(first, first + part["rows"])
        signals = _signals(corpus_dir, number, (old, new))
        decisions = pq.read_table(
            tables.part_path(corpus_dir, "decisions", number), columns=["verdict", "place", "eval_items"]
        )
        before[here] = pc.equal(decisions["verdict"], "keep").to_numpy()
        heldout[here] = decisions["place"].to_numpy() < round(state["share"] * BUCKETS)
        n_bytes[here] = np.minimum(signals["n_bytes_edited"].to_numpy(), 0xFFFFFFFF)
        docs = _terms(corpus_dir, number, part, new)
        checks = look_at(docs, signals, new, part["respect"])
        alive[here] = checks.alive & ~decisions["eval_items"].is_valid().to_numpy()
        outcomes = {check.rule: check for check in checks.checks}
        was = {outcome.rule.id: outcome.failed for outcome in evaluate(_only(old, changed), signals)}
        for rule in changed:
            for counts, failed in (
                (rule.failed_before, was.get(rule.rule)),
                (rule.failed_after, outcomes[rule.rule].failed if rule.rule in outcomes else None),
            ):
                if failed is not None:
                    counts.setdefault(part["source"], Amount()).add(failed, n_bytes[here])
            if rule.rule in outcomes:
                near.add(rule.rule, outcomes[rule.rule], first)
        first += part["rows"]

    copies = (duplicates or StoredCopies.open(corpus_dir / "index", before)).resolve(alive, heldout)
    after = alive & (copies.kept_of < 0)
    first = 0
    for part in state["parts"]:
        here = slice(first, first + part["rows"])
        source, b, a, size = change.sources[part["source"]], before[here], after[here], n_bytes[here]
        for amount, chosen in (
            (source.before, b),
            (source.after, a),
            (source.gained, a & ~b),
            (source.lost, b & ~a),
        ):
            amount.add(chosen, size)
        first += part["rows"]
    change.boundary = _named(corpus_dir, state["parts"], near.best()[:SAMPLES], before, after)
    return change


def _changed(old: Recipe, new: Recipe) -> list[RuleChange]:
    was, will = ({rule.id: rule for rule in recipe.document_rules} for recipe in (old, new))
    found = []
    for name in dict.fromkeys([*was, *will]):
        mine, yours = was.get(name), will.get(name)
        by_language = [{c: of[name] for c, of in r.by_language.items() if name in of} for r in (old, new)]
        if mine == yours and by_language[0] == by_language[1]:
            continue
        op = (yours or mine).op  # type: ignore[union-attr]  # one of them has it
        found.append(RuleChange(name, mine.threshold if mine else None, yours.threshold if yours else None, op))
    return found


def _only(recipe: Recipe, changed: list[RuleChange]) -> Recipe:
    names = {rule.rule for rule in changed}
    return Recipe(recipe.name, tuple(rule for rule in recipe.rules if rule.id in names), recipe.by_language)


def _signals(corpus_dir: Path, number: int, recipes: tuple[Recipe, ...]) -> pa.Table:
    path = tables.part_path(corpus_dir, "signals", number)
    there = pq.read_schema(path).names
    wanted = {"n_bytes_edited", *(name for recipe in recipes for name in columns(recipe))}
    return pq.read_table(path, columns=[name for name in there if name in wanted or name.startswith("pii_")])


def _terms(corpus_dir: Path, number: int, part: dict[str, Any], recipe: Recipe) -> pa.Table:
    """Licences and opt-outs of a part, as far as they are asked for."""
    wanted = ["license_id"] if recipe.allow is not None or recipe.unknown_licence == "drop" else []
    wanted += ["optout"] if part["respect"] else []
    table = pq.read_table(tables.part_path(corpus_dir, "docs", number), columns=wanted) if wanted else pa.table({})
    if "license_id" not in wanted:
        table = pa.table(
            {**dict(zip(wanted, table.columns, strict=True)), "license_id": pa.nulls(part["rows"], pa.string())}
        )
    return table


class Nearest:
    """The documents nearest to each rule's threshold, some on either side, whatever the number of parts."""

    def __init__(self, each: int) -> None:
        self.each = each
        self.found: dict[tuple[str, bool], list[tuple[float, int, float, float]]] = {}

    def add(self, rule: str, check: Check | Outcome, first: int) -> None:
        """Look at a part.

        Args:
            rule: its name.
            check: over the part.
            first: the part's first row.
        """
        distance = np.abs(check.value.astype(np.float64) - check.threshold.astype(np.float64))
        for side in (True, False):
            at = np.flatnonzero(~np.isnan(distance) & (check.failed == side))
            if len(at) > self.each:
                # Ties by row, so that the choice does not depend on how a sort breaks them.
                limit = np.partition(distance[at], self.each - 1)[self.each - 1]
                at = at[distance[at] <= limit]
                at = at[np.lexsort((at, distance[at]))][: self.each]
            kept = self.found.setdefault((rule, side), [])
            kept += [(float(distance[i]), first + int(i), float(check.value[i]), float(check.threshold[i])) for i in at]
            kept.sort()
            del kept[self.each :]

    def best(self) -> list[tuple[str, bool, int, float, float]]:
        """What was found, a rule after the other, the nearest first: rule, whether it fails, row, value, threshold."""
        return [
            (rule, side, row, value, threshold)
            for (rule, side), rows in self.found.items()
            for _, row, value, threshold in rows
        ]


def _named(
    corpus_dir: Path,
    parts: list[dict[str, Any]],
    rows: list[tuple[str, bool, int, float, float]],
    before: Bools,
    after: Bools,
) -> list[Boundary]:
    """The chosen documents with their names; only these parts' ids and places are read."""
    bounds = np.cumsum([0, *(part["rows"] for part in parts)])
    read: dict[int, dict[int, tuple[str, str]]] = {}
    found = []
    for rule, side, row, value, threshold in rows:
        number = int(np.searchsorted(bounds, row, "right")) - 1
        if number not in read:
            path = tables.part_path(corpus_dir, "docs", number)
            wanted = [int(r - bounds[number]) for _, _, r, _, _ in rows if bounds[number] <= r < bounds[number + 1]]
            table = pq.read_table(path, columns=["doc_uid", "locator"])
            read[number] = {w: (table["doc_uid"][w].as_py().hex(), table["locator"][w].as_py()) for w in wanted}
        uid, locator = read[number][int(row - bounds[number])]
        found.append(
            Boundary(
                row,
                uid,
                parts[number]["source"],
                locator,
                rule,
                value,
                threshold,
                side,
                bool(before[row]),
                bool(after[row]),
            )
        )
    return found
