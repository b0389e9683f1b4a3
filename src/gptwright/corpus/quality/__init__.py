"""Classifiers that the user's own labels make: quality and toxicity as signals, with the error they were measured to have.

``train(texts, labels, out=DIR)``, ``load(DIR).score(text)``; examples come from ``labels``, sittings from ``desk`` and ``terminal``,
columns of a docs file from ``score``, lists of words from ``flagged``.
"""

from pathlib import Path

from gptwright.corpus.quality.model import Model, Report
from gptwright.corpus.quality.train import train

__all__ = ["Model", "Report", "load", "train"]


def load(folder: Path | str) -> Model:
    """Open a trained classifier.

    Raises:
        UserError: it is none, or damaged.
    """
    return Model.load(Path(folder))
