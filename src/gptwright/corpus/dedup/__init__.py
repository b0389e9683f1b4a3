"""Deduplication: exact copies, near duplicates verified on the text, boilerplate lines and repeated spans; out of core and incremental."""

from gptwright.corpus.dedup.config import DedupConfig

__all__ = ["DedupConfig"]
