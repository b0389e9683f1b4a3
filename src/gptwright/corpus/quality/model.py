"""A trained classifier on disk and in use: numbers and JSON in a folder, named by what they hold."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any, Self

import numpy as np
import pyarrow as pa

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir, read_json, write_json
from gptwright.core.hashing import b2, canonical_json
from gptwright.corpus.decontaminate import words as w
from gptwright.corpus.quality import linear

FORMAT = 1


@dataclass(frozen=True)
class Report:
    """What a classifier was trained on and how well it did on texts that it had not seen (cross-validation).

    Args:
        task: quality, toxicity, or another.
        positive, negative: the classes' names; a score is the probability of the first.
        n_positive, n_negative: texts of each.
        folds: parts of the cross-validation.
        auc, auc_low, auc_high: area under the ROC curve, 95 % interval.
        brier: mean squared error of the probabilities.
        calibration_error: mean distance of a probability from the share that is so, in bins.
        measured_on: what the numbers are about, in words.
    """

    task: str
    positive: str
    negative: str
    n_positive: int
    n_negative: int
    folds: int
    auc: float
    auc_low: float
    auc_high: float
    brier: float
    calibration_error: float
    measured_on: str

    def lines(self) -> list[str]:
        """For a person."""
        return [
            f"{self.task}: {self.n_positive} {self.positive}, {self.n_negative} {self.negative}",
            f"AUC {self.auc:.3f} (95 % interval {self.auc_low:.3f} to {self.auc_high:.3f}), {self.folds}-fold cross-validation on {self.measured_on}",
            f"probabilities are off by {self.calibration_error:.3f} on average (Brier score {self.brier:.3f}), as if both classes were"
            f" as frequent as among these texts",
        ]  # fmt: skip


@dataclass(frozen=True)
class Model:
    """A linear classifier.

    Args:
        weights: (buckets,) float32.
        bias: log-odds of a text without features, before calibration.
        slope, shift: calibration: probability is sigmoid(slope * margin + shift).
        chars: bytes in a run of characters, 0 for none.
        report: how it was made and how good it is.
    """

    weights: linear.F32
    bias: float
    slope: float
    shift: float
    chars: int
    report: Report

    def score(self, text: pa.LargeStringArray) -> linear.F32:
        """Probability of the positive class for each text, (texts,) float32. An empty text gets the prior."""
        data, offsets = w.buffers(text)
        margins = linear.margins(data, offsets, self.weights, self.bias, self.chars)
        return (1 / (1 + np.exp(-(self.slope * margins + self.shift)))).astype(np.float32)

    @property
    def hash(self) -> str:
        """Content hash: of all that a score depends on."""
        settings = {"format": FORMAT, "bias": self.bias, "slope": self.slope, "shift": self.shift, "chars": self.chars}
        return b2(canonical_json(settings).encode() + np.ascontiguousarray(self.weights, "<f4").tobytes())

    def save(self, folder: Path) -> Path:
        """Write the folder, in place of an older one."""
        chosen = np.flatnonzero(self.weights).astype(np.uint32)
        about = {
            "format": FORMAT, "hash": self.hash, "buckets": len(self.weights), "bias": self.bias, "slope": self.slope,
            "shift": self.shift, "chars": self.chars, "report": asdict(self.report),
        }  # fmt: skip
        with atomic_dir(folder) as draft:
            np.savez_compressed(draft / "weights.npz", buckets=chosen, weights=self.weights[chosen])
            write_json(draft / "model.json", about)
        return folder

    @classmethod
    def load(cls, folder: Path) -> Self:
        """Read a folder.

        Raises:
            UserError: it is no classifier, damaged, or of another format.
        """
        fix = "Train it again: gptwright data label"
        if not (folder / "model.json").is_file():
            raise UserError("no classifier here", where=str(folder), fix=fix)
        try:
            about: Mapping[str, Any] = read_json(folder / "model.json")
            with np.load(folder / "weights.npz", allow_pickle=False) as file:
                weights = np.zeros(about["buckets"], np.float32)
                weights[file["buckets"]] = file["weights"]
            report = Report(**about["report"])
            model = cls(weights, about["bias"], about["slope"], about["shift"], about["chars"], report)
        except (OSError, ValueError, KeyError, TypeError, IndexError) as error:
            raise UserError(
                f"no classifier that can be read ({type(error).__name__})", where=str(folder), fix=fix
            ) from error
        if about["format"] != FORMAT or model.hash != about["hash"]:
            raise UserError("the classifier was changed or damaged after it was trained", where=str(folder), fix=fix)
        return model


@lru_cache(maxsize=4)
def cached(folder: str, hash_: str) -> Model:
    """A classifier that tasks of one process share; the hash says which of several that stood there."""
    model = Model.load(Path(folder))
    if model.hash != hash_:
        raise UserError("the classifier was trained anew meanwhile", where=folder, fix="Run it again")
    return model
