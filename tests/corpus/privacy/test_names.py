"""Names come from an analyzer that is handed in or installed; what it gives becomes spans like any other."""

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from gptwright.core.errors import UserError
from gptwright.corpus.privacy.names import PresidioNames
from gptwright.corpus.privacy.spans import Span

INSTALLED = importlib.util.find_spec("presidio_analyzer") is not None


@dataclass
class Result:
    entity_type: str
    start: int
    end: int
    score: float


class Finds:
    """Finds every "Ada" (and, unasked, every "2026")."""

    def __init__(self, score: float = 0.85) -> None:
        self.score, self.longest = score, 0

    def analyze(self, text: str, language: str, **options: Any) -> list[Result]:
        self.longest = max(self.longest, len(text))
        return [
            Result(kind, at, at + len(word), self.score)
            for kind, word in (("PERSON", "Ada"), ("DATE_TIME", "2026"))
            for at in range(len(text))
            if text.startswith(word, at)
        ]


def test_names_when_an_analyzer_finds_more_than_was_asked_then_only_names_are_spans() -> None:
    assert PresidioNames(Finds())("Ada in 2026, Ada") == [Span(0, 3, "PERSON"), Span(13, 16, "PERSON")]


def test_names_when_the_score_is_low_then_nothing_is_found() -> None:
    assert PresidioNames(Finds(0.3))("Ada") == []
    assert PresidioNames(Finds(0.3), least_score=0.2)("Ada") == [Span(0, 3, "PERSON")]


def test_names_when_a_text_is_long_then_it_is_handed_over_in_pieces_and_places_still_fit() -> None:
    analyzer = Finds()
    text = ("word " * 9_999 + "Ada\n\n") * 5
    found = PresidioNames(analyzer)(text)
    assert [text[s.start : s.end] for s in found] == ["Ada"] * 5
    assert analyzer.longest <= 50_000


def test_names_when_a_kind_is_unknown_then_the_error_names_those_there_are() -> None:
    with pytest.raises(UserError, match="PERSON and LOCATION"):
        PresidioNames(Finds(), kinds=["NRP"])


@pytest.mark.skipif(INSTALLED, reason="presidio is installed")
def test_names_when_presidio_is_missing_then_the_error_names_the_extra() -> None:
    with pytest.raises(UserError, match=r"gptwright\[presidio\]"):
        PresidioNames()


@pytest.mark.slow
@pytest.mark.skipif(not INSTALLED, reason="presidio is not installed")
def test_names_when_presidio_is_installed_then_it_finds_what_its_pipeline_knows(tmp_path: Path) -> None:
    import spacy

    pipeline = spacy.blank("en")  # a pipeline of rules: no model has to be fetched
    pipeline.add_pipe("entity_ruler").add_patterns(
        [{"label": "PERSON", "pattern": "John Smith"}, {"label": "GPE", "pattern": "Paris"}]
    )
    pipeline.to_disk(tmp_path / "rules")
    text = "Yesterday John Smith moved to Paris."
    found = [(s.kind, text[s.start : s.end]) for s in PresidioNames(model=str(tmp_path / "rules"))(text)]
    assert found == [("PERSON", "John Smith"), ("LOCATION", "Paris")]


@pytest.mark.skipif(not INSTALLED, reason="presidio is not installed")
def test_names_when_the_pipeline_is_missing_then_the_error_says_how_to_get_it() -> None:
    with pytest.raises(UserError, match="spacy download no_such_pipeline"):
        PresidioNames(model="no_such_pipeline")
