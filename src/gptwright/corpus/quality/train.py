"""From labelled texts to a classifier: checked, cross-validated, calibrated, and then trained on all of them."""

from collections.abc import Sequence
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.hashing import norm_id
from gptwright.corpus.quality import linear, measure
from gptwright.corpus.quality.model import Model, Report

LEAST = 10  # texts of each class; fewer say nothing about others
BUCKETS = 1 << 18
CHARS = 5
FOLDS = 5
TEXT_CHARS = 20_000  # of one text: a book must not outweigh a hundred notes in time
_DECAY = 1e-4
_RATE = 2.0
_SEEN = 8_000  # texts are seen again until so many were


def train(
    texts: Sequence[str], labels: Sequence[bool], *, out: Path | None = None, groups: Sequence[str] | None = None,
    task: str = "quality", positive: str = "good", negative: str = "bad", measured_on: str = "labelled texts",
) -> Model:  # fmt: skip
    """Train a classifier and measure it on texts that it did not see.

    Args:
        texts: documents.
        labels: whether each belongs to the positive class, (texts,).
        out: folder to save it in.
        groups: what may not be on both sides of a split, such as the file that a text is a part of; None for none.
        task, positive, negative: names, for the report.
        measured_on: what the texts are, for the report.

    Raises:
        UserError: there is one class only, or fewer than LEAST texts of one.
    """
    texts, labels, groups = _distinct(texts, labels, groups)
    truth = np.array(labels, bool)
    for name, count in ((positive, int(truth.sum())), (negative, int((~truth).sum()))):
        if count < LEAST:
            raise UserError(
                f"{count} different texts are labelled {name}; a classifier needs {LEAST} of each class, and 100 make a good one",
                where=task,
                fix="Label more: gptwright data label",
            )
    bags, starts = linear.bag([text[:TEXT_CHARS] for text in texts], chars=CHARS, buckets=BUCKETS)
    fold = _folds(truth, groups)
    if len(np.unique(fold)) < 2 or any(len(np.unique(truth[fold != f])) < 2 for f in np.unique(fold)):
        raise UserError(
            "all texts of one class are of one file, so nothing can be held out",
            where=task,
            fix="Label other files too",
        )
    margins = np.empty(len(texts))
    for number in np.unique(fold).tolist():
        weights, bias = _fit(bags, starts, np.flatnonzero(fold != number), truth)
        for row in np.flatnonzero(fold == number).tolist():
            own = bags[starts[row] : starts[row + 1]]
            margins[row] = weights[own].sum(dtype=np.float64) / max(len(own), 1) + bias
    slope, shift = measure.platt(margins, truth)
    held = _cross_fitted(margins, truth, fold)
    area, low, high = measure.auc(margins, truth)
    weights, bias = _fit(bags, starts, np.arange(len(texts)), truth)
    report = Report(
        task, positive, negative, int(truth.sum()), int((~truth).sum()), len(np.unique(fold)),
        area, low, high, float(((held - truth) ** 2).mean()), measure.calibration_error(held, truth), measured_on,
    )  # fmt: skip
    model = Model(weights, bias, slope, shift, CHARS, report)
    if out is not None:
        model.save(out)
    return model


def _fit(
    bags: npt.NDArray[np.uint32],
    starts: npt.NDArray[np.int64],
    rows: npt.NDArray[np.int64],
    truth: npt.NDArray[np.bool_],
) -> tuple[linear.F32, float]:
    epochs = min(50, max(3, -(-_SEEN // len(rows))))
    return linear.fit(bags, starts, rows, truth, buckets=BUCKETS, epochs=epochs, rate=_RATE, decay=_DECAY)


def _cross_fitted(margins: linear.F64, truth: npt.NDArray[np.bool_], fold: npt.NDArray[np.int64]) -> linear.F64:
    """Probabilities whose calibration did not see the text either."""
    held = np.empty(len(margins))
    for number in np.unique(fold):
        own = fold == number
        slope, shift = measure.platt(margins[~own], truth[~own])
        held[own] = 1 / (1 + np.exp(-(slope * margins[own] + shift)))
    return held


def _distinct(
    texts: Sequence[str], labels: Sequence[bool], groups: Sequence[str] | None
) -> tuple[list[str], list[bool], list[str]]:
    """Copies of one text count once; those labelled both ways are left out."""
    seen: dict[str, int] = {}
    values: dict[str, set[bool]] = {}
    for number, (text, label) in enumerate(zip(texts, labels, strict=True)):
        key = norm_id(text)
        seen.setdefault(key, number)
        values.setdefault(key, set()).add(bool(label))
    rows = [number for key, number in seen.items() if len(values[key]) == 1]
    own = groups if groups is not None else [str(number) for number in range(len(texts))]
    return [texts[r] for r in rows], [bool(labels[r]) for r in rows], [own[r] for r in rows]


def _folds(truth: npt.NDArray[np.bool_], groups: Sequence[str]) -> npt.NDArray[np.int64]:
    """The fold of each text: groups stay whole, each class is dealt out evenly, in an order that only the names decide."""
    kinds: dict[str, bool] = {}
    for group, label in zip(groups, truth.tolist(), strict=True):
        kinds.setdefault(group, label)
    dealt: dict[str, int] = {}
    for label in (False, True):
        own = sorted((g for g, kind in kinds.items() if kind == label), key=lambda g: blake2b(g.encode()).digest())
        dealt |= {group: number % FOLDS for number, group in enumerate(own)}
    return np.array([dealt[group] for group in groups], np.int64)
