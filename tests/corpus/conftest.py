"""A project folder with a ledger, and texts to put into it."""

import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from gptwright.core.ledger import Ledger
from gptwright.corpus.build import CorpusResult, build_corpus
from gptwright.corpus.config import CorpusConfig

SYLLABLES = (
    "ri",
    "ver",
    "old",
    "bri",
    "ges",
    "peo",
    "ple",
    "walk",
    "ban",
    "ks",
    "bre",
    "ad",
    "mu",
    "sic",
    "to",
    "lan",
    "me",
)
WORDS = [a + b for a in SYLLABLES for b in SYLLABLES]


def prose(seed: int, words: int = 60) -> str:
    """Distinct text of made-up words for a number."""
    return f"Note {seed}: " + " ".join(random.Random(seed).choices(WORDS, k=words)) + "."


@dataclass
class Project:
    """A folder with sources and what is built of them."""

    root: Path
    ledger: Ledger

    @staticmethod
    def prose(seed: int, words: int = 60) -> str:
        """Distinct readable text for a number."""
        return prose(seed, words)

    @property
    def out(self) -> Path:
        return self.root / "work" / "corpus"

    @property
    def data(self) -> Path:
        return self.root / "data"

    def write(self, name: str, content: str | bytes) -> Path:
        path = self.data / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content.encode() if isinstance(content, str) else content)
        return path

    def build(
        self, *, workers: int | None = None, share: float = 0.01, recipe: str = "small", **source: object
    ) -> CorpusResult:
        config = CorpusConfig.model_validate(
            {"sources": {"own": {"uri": "data", **source}}, "heldout_share": share, "recipe": recipe}
        )
        return build_corpus(config, root=self.root, out=self.out, ledger=self.ledger, workers=workers)

    def outcomes(self) -> dict[str, tuple[str, str | None]]:
        return {row.locator: (row.outcome, row.reason) for row in self.ledger.files("own")}


@pytest.fixture
def project(tmp_path: Path) -> Iterator[Project]:
    (tmp_path / "data").mkdir()
    with Ledger.open(tmp_path / "work" / "ledger.sqlite") as ledger:
        yield Project(tmp_path, ledger)
