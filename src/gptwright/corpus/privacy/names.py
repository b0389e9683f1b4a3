"""Names of people and places by Microsoft Presidio, an optional extra: slow (some 15 KB/s), and as good as the language model below it.

Nothing here runs unless it is asked for.
"""

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Protocol

from gptwright.core.errors import UserError, require
from gptwright.corpus.privacy.spans import NAME_KINDS, Span

_CHUNK = 50_000
"""Characters handed over at once: spaCy, below Presidio, refuses more than a million (presidio issue 957) and needs memory by length."""


class Analyzer(Protocol):
    """What is used of ``presidio_analyzer.AnalyzerEngine``."""

    def analyze(self, text: str, language: str, **options: Any) -> Sequence[Any]:
        """Results with ``entity_type``, ``start``, ``end`` and ``score``."""


class PresidioNames:
    """Finds names; an instance is called with a text, as ``bulk.scan(names=...)`` asks.

    Args:
        analyzer: an ``AnalyzerEngine``; by default one for the language, with the spaCy model named.
        language: two letters.
        model: the spaCy pipeline to use: an installed one, for example ``en_core_web_sm``, or the folder of one.
        kinds: PERSON, LOCATION, or both.
        least_score: results below it are left out.

    Raises:
        UserError: Presidio or the pipeline is not installed.
    """

    def __init__(
        self,
        analyzer: Analyzer | None = None,
        *,
        language: str = "en",
        model: str = "en_core_web_sm",
        kinds: Sequence[str] = NAME_KINDS,
        least_score: float = 0.5,
    ) -> None:
        if unknown := set(kinds) - set(NAME_KINDS):
            raise UserError(f"names are {' and '.join(NAME_KINDS)}, not {', '.join(sorted(unknown))}")
        self._analyzer = analyzer if analyzer is not None else _engine(language, model)
        self._language, self._kinds, self._least = language, tuple(kinds), least_score

    def __call__(self, text: str) -> list[Span]:
        """Names in a text, in order; those that overlap too."""
        found = []
        for start, end in _chunks(text):
            for result in self._analyzer.analyze(text[start:end], self._language, entities=list(self._kinds)):
                # A caller's own analyzer may give more than it was asked for.
                if result.entity_type in self._kinds and result.score >= self._least and result.end > result.start:
                    found.append(Span(start + result.start, start + result.end, result.entity_type))
        return sorted(found)


def _chunks(text: str) -> Iterator[tuple[int, int]]:
    """Pieces of bounded length, cut at the end of a paragraph, a line or a word where there is one in the second half."""
    start = 0
    while len(text) - start > _CHUNK:
        half, limit = start + _CHUNK // 2, start + _CHUNK
        ends = (
            text.rfind(mark, half, limit) + len(mark)
            for mark in ("\n\n", "\n", " ")
            if text.rfind(mark, half, limit) > 0
        )
        end = next(ends, limit)
        yield start, end
        start = end
    yield start, len(text)


def _engine(language: str, model: str) -> Analyzer:
    presidio = require("presidio_analyzer", "presidio")
    provider = require("presidio_analyzer.nlp_engine", "presidio").NlpEngineProvider
    if not Path(model).is_dir() and not require("spacy.util", "presidio").is_package(
        model
    ):  # Presidio would fetch it by itself
        raise UserError(f"the spaCy pipeline {model} is not installed", fix=f"Run: python -m spacy download {model}")
    names = {"nlp_engine_name": "spacy", "models": [{"lang_code": language, "model_name": model}]}
    engine: Analyzer = presidio.AnalyzerEngine(
        nlp_engine=provider(nlp_configuration=names).create_engine(), supported_languages=[language]
    )
    return engine
