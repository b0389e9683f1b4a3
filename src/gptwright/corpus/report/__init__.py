"""The report of a corpus: one static HTML page that a person can read, send and print. Nothing in it is loaded from elsewhere."""

from gptwright.corpus.report.page import write

__all__ = ["write"]
