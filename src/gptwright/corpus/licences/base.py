"""What is said of a licence: its SPDX expression, where that was read, how sure it is, and the words that say so."""

from dataclasses import dataclass


@dataclass(frozen=True)
class Licence:
    """A licence, where it was read, and how sure that is (0 to 1)."""

    id: str | None
    source: str
    confidence: float
    evidence: str
    attribution: str | None = None
