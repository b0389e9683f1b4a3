"""The evidence of a decision: every check a document failed, with what was measured, as columns and never as rows of Python.

Rules of a recipe come first, then what a source's policy, a licence and an evaluation forbid, and copies last.
"""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from gptwright.corpus import tables
from gptwright.corpus.copies import METHODS, Array, Bools, Copies
from gptwright.corpus.recipes import Recipe
from gptwright.corpus.recipes.evaluate import evaluate, licences_refused, numbers
from gptwright.corpus.sources.consent import DROPS

PRIVACY, CONSENT, LICENSE, CONTAMINATED, EXACT, NEAR = (
    "privacy.drop",
    "consent.opt_out",
    "license.not_allowed",
    "eval.contaminated",
    "copy.exact",
    "copy.near",
)
DESCRIPTIONS = {
    PRIVACY: "personal data found in a source whose policy is to drop such documents",
    CONSENT: "the publisher asks not to train on it; the document's evidence says where and how",
    LICENSE: "the licence is none of those the recipe allows",
    CONTAMINATED: "share of a paragraph that is an evaluation item's; a model trained on it could not be measured with that item",
    EXACT: "the same text stands elsewhere, up to case and layout, and is kept there",
    NEAR: "share of five-word runs (five characters in short texts) in common with a text that is kept, or held by it; verified",
}  # fmt: skip


@dataclass(frozen=True)
class Check:
    """One rule over a part: who fails, what was measured (NaN: nothing to measure), and against what."""

    rule: str
    op: str
    failed: Bools
    value: Array
    threshold: Array


@dataclass
class Checks:
    """All checks of a part, in order, and what copies and contamination have to say about single documents."""

    rows: int
    checks: list[Check] = field(default_factory=list)
    leaks: pa.Table | None = None
    kept_uid: pa.Array | None = None
    jaccard: pa.Array | None = None
    containment: pa.Array | None = None
    method: pa.Array | None = None

    @property
    def alive(self) -> Bools:
        """Documents that failed nothing so far."""
        failed = np.zeros(self.rows, bool)
        for check in self.checks:
            failed |= check.failed
        return ~failed

    def add(self, rule: str, op: str, failed: Bools, value: Array | float, threshold: float) -> None:
        """One more check."""
        n = self.rows
        self.checks.append(Check(rule, op, failed, np.broadcast_to(value, n), np.broadcast_to(threshold, n)))

    def add_copies(self, copies: Copies, first: int, ids: dict[str, Array]) -> None:
        """What deduplication found for these rows.

        Args:
            copies: over all parts.
            first: the part's first row.
            ids: ``doc_uid`` and ``content_id`` of all parts, to name who is kept and tell equal texts from equal words.
        """
        here = slice(first, first + self.rows)
        kept_of = np.asarray(copies.kept_of[here])
        copy = kept_of >= 0
        at = np.flatnonzero(copy)
        if copies.method is not None:
            method = np.asarray(copies.method[here]).astype(np.int64)
        else:
            same = ids["content_id"][first + at] == ids["content_id"][kept_of[at]]
            method = np.zeros(self.rows, np.int64)
            method[at] = np.where(same, METHODS.index("same text"), METHODS.index("same words"))
        near = copy & (method == METHODS.index("near"))
        self.add(EXACT, ">", copy & ~near, 2.0, 1.0)
        jaccard = np.full(self.rows, np.nan, np.float32)
        containment = jaccard.copy()
        if copies.jaccard is not None:
            jaccard[near] = copies.jaccard[here][near]
        if copies.containment is not None:
            containment[near] = copies.containment[here][near]
        limit = np.full(self.rows, copies.threshold, np.float32)
        if copies.short is not None:
            limit[copies.short[here]] = copies.short_threshold
        self.checks.append(Check(NEAR, ">=", near, *_accepted(jaccard, containment, limit, copies.held_threshold)))
        self.kept_uid = _scatter(ids["doc_uid"][kept_of[at]], at, self.rows)
        self.jaccard = pa.array(jaccard, pa.float32(), mask=~near | np.isnan(jaccard))
        self.containment = pa.array(containment, pa.float32(), mask=~near | np.isnan(containment))
        self.method = pa.array(METHODS).take(pa.array(method, mask=~copy))


def _accepted(jaccard: Array, containment: Array, limit: Array, held: float) -> tuple[Array, Array]:
    """What near copies were accepted for, and from where on: their similarity; else their share that the kept one holds; else,
    where the kept one is measured on, its share that they hold."""
    with np.errstate(divide="ignore", invalid="ignore"):
        other = 1 / (1 / jaccard + 1 - 1 / containment)  # from |A∩B| / |A∪B| and |A∩B| / |A|
    least = np.float32(held)
    value = np.where(jaccard >= limit, jaccard, np.where(containment >= least, containment, other))
    return value.astype(np.float32), np.where(jaccard >= limit, limit, least)


def look_at(
    docs: pa.Table,
    signals: pa.Table,
    recipe: Recipe,
    respect: bool = False,
    leaks: pa.Table | None = None,
    overlap: float = 0.0,
) -> Checks:
    """All checks that look at single documents.

    Args:
        docs: with ``license_id`` and ``optout``.
        signals: with what the recipe needs, counts of personal data ``pii_*``, and ``pii_drop``: whether the source's policy drops it.
        respect: a publisher's opt-out drops the document.
        leaks: contaminated documents of this part (see copies.Contamination); None: none.
        overlap: from which a document is contaminated.
    """
    checks = Checks(signals.num_rows, leaks=leaks)
    for outcome in evaluate(recipe, signals):
        checks.checks.append(Check(outcome.rule.id, outcome.rule.op, outcome.failed, outcome.value, outcome.threshold))
    personal = np.zeros(signals.num_rows)
    for name in signals.column_names:
        if name.startswith("pii_") and name != "pii_drop":
            personal += np.nan_to_num(numbers(signals[name]))
    drop = signals["pii_drop"].to_numpy() if "pii_drop" in signals.column_names else np.zeros(checks.rows, bool)
    checks.add(PRIVACY, ">", drop, personal, 0.0)
    if respect:
        bits = np.nan_to_num(numbers(docs["optout"])).astype(np.int64)
        checks.add(CONSENT, "!=", (bits & int(DROPS)) != 0, bits.astype(np.float64), 0.0)
    refused = licences_refused(recipe, docs["license_id"])
    if refused.any():
        checks.add(LICENSE, "!=", refused, np.nan, np.nan)
    if leaks is not None and leaks.num_rows:
        share = np.full(checks.rows, np.nan, np.float32)
        share[leaks["doc_row"].to_numpy()] = leaks["overlap"].to_numpy()
        checks.add(CONTAMINATED, ">=", ~np.isnan(share), share, overlap)
    return checks


def decision_table(docs: pa.Table, checks: Checks, heldout: Bools, place: Array) -> pa.Table:
    """The decisions of a part as they are stored: verdict, first failed rule, all failed rules, and who is kept instead."""
    rows, keep = checks.rows, checks.alive
    names = pa.array([check.rule for check in checks.checks], pa.string())
    ops = pa.array([check.op for check in checks.checks], pa.string())
    at = [np.flatnonzero(check.failed) for check in checks.checks]
    row = np.concatenate([*at, np.zeros(0, np.int64)])
    which = np.repeat(np.arange(len(at)), [len(a) for a in at])
    value = np.concatenate(
        [*(c.value[a].astype(np.float32) for c, a in zip(checks.checks, at, strict=True)), np.zeros(0, np.float32)]
    )
    limit = np.concatenate(
        [*(c.threshold[a].astype(np.float32) for c, a in zip(checks.checks, at, strict=True)), np.zeros(0, np.float32)]
    )
    order = np.argsort(row, kind="stable")  # by row, and within a row in the order of the checks
    row, which, value, limit = row[order], which[order], value[order], limit[order]
    evidence = [names.take(pa.array(which)), _floats(value), ops.take(pa.array(which)), _floats(limit)]
    offsets = np.zeros(rows + 1, np.int32)
    offsets[1:] = np.cumsum(np.bincount(row, minlength=rows))
    kind = tables.DECISIONS.field("failed").type
    failed = pa.ListArray.from_arrays(
        pa.array(offsets), pa.StructArray.from_arrays(evidence, fields=list(kind.value_type)), type=kind
    )
    first = pa.array(offsets[:-1], mask=keep)  # place of each row's first failure
    split = pa.array(np.where(heldout, "heldout", "train"), pa.string())
    columns: dict[str, Any] = {
        "doc_uid": docs["doc_uid"],
        "verdict": pa.array(np.where(keep, "keep", "drop"), pa.string()),
        "split": pc.if_else(pa.array(keep), split, None),
        **{
            name: column.take(first)
            for name, column in zip(("rule", "value", "op", "threshold"), evidence, strict=True)
        },
        "kept_uid": checks.kept_uid,
        "jaccard": checks.jaccard,
        "containment": checks.containment,
        "method": checks.method,
        "eval_items": _items(checks),
        "failed": failed,
        "place": pa.array(place, pa.int16()),
    }
    arrays = [columns[name] if columns[name] is not None else pa.nulls(rows, kind) for name, kind in _fields()]
    return pa.table(arrays, schema=tables.DECISIONS)


def _fields() -> list[tuple[str, pa.DataType]]:
    return [(f.name, f.type) for f in tables.DECISIONS]


def _floats(values: Array) -> pa.Array:
    return pa.array(values, pa.float32(), mask=np.isnan(values))


def _items(checks: Checks) -> pa.Array | None:
    """The evaluation items of each row; null where there is none."""
    if checks.leaks is None or not checks.leaks.num_rows:
        return None
    place = np.full(checks.rows, -1, np.int64)
    place[checks.leaks["doc_row"].to_numpy()] = np.arange(checks.leaks.num_rows)
    items = checks.leaks["items"].combine_chunks()
    if isinstance(items, pa.ChunkedArray):
        items = items.combine_chunks()
    return items.cast(tables.DECISIONS.field("eval_items").type).take(pa.array(place, mask=place < 0))


def _scatter(ids: Array, at: Array, rows: int) -> pa.Array:
    """16-byte ids at some rows, null elsewhere."""
    place = np.full(rows, -1, np.int64)
    place[at] = np.arange(len(at))
    values = pa.Array.from_buffers(tables.ID, len(ids), [None, pa.py_buffer(np.ascontiguousarray(ids).tobytes())])
    return values.take(pa.array(place, mask=place < 0))
