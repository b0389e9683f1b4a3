"""Numbers about texts, all from one pass over Arrow's buffers: lengths, shares, repetition, lines, language. No text is changed here."""

from gptwright.corpus.signals.measure import measure, removed_spans
from gptwright.corpus.signals.schema import COLUMNS, EXTRA, SCHEMA, Column

__all__ = ["COLUMNS", "EXTRA", "SCHEMA", "Column", "measure", "removed_spans"]
