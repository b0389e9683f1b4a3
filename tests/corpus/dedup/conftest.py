"""Parts made of lists of texts."""

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.layout import PartFiles

from .corpora import make_part

Maker = Callable[..., list[PartFiles]]


@pytest.fixture
def parts(tmp_path: Path) -> Maker:
    """Makes parts of lists of texts."""

    def make(*lists: Sequence[str], config: DedupConfig | None = None, sources: Sequence[str] = ()) -> list[PartFiles]:
        folder = tmp_path / "docs"
        folder.mkdir(exist_ok=True)
        return [
            make_part(folder, f"part-{i}", texts, config or DedupConfig(), sources[i] if sources else "own")
            for i, texts in enumerate(lists)
        ]

    return make
