"""What a detector finds: a span of text and its kind."""

from bisect import bisect_right
from collections.abc import Iterable
from dataclasses import dataclass

KINDS = ("EMAIL", "PHONE", "IP", "IBAN", "CARD", "NATIONAL_ID", "SECRET", "ADDRESS")
"""All that rules find. The names are stable: they are columns (``pii_email``) and placeholders (``[EMAIL]``)."""

QUICK_KINDS = ("EMAIL", "PHONE", "IP", "IBAN", "CARD", "NATIONAL_ID", "SECRET")
"""What `find_pii` looks for unless told otherwise, of SECRET only keys and tokens in one word: text that still streams can be
searched for these, because none needs more than a line's words of digits, and 48 characters before it as context."""

NAME_KINDS = ("PERSON", "LOCATION")
"""What only a language model finds; see `names`."""


@dataclass(frozen=True, order=True)
class Span:
    """Personal data at ``text[start:end]`` (characters); ``kind`` is one of `KINDS` or `NAME_KINDS`."""

    start: int
    end: int
    kind: str


def placeholder(kind: str) -> str:
    """What stands in place of personal data of a kind."""
    return f"[{kind}]"


def apart(spans: Iterable[Span]) -> list[Span]:
    """Where spans overlap, the one that comes first in the iteration (the surer one) stays.

    Returns:
        The chosen spans in order of place.
    """
    starts: list[int] = []
    chosen: list[Span] = []
    for span in spans:
        at = bisect_right(starts, span.start)
        if (at and chosen[at - 1].end > span.start) or (at < len(chosen) and chosen[at].start < span.end):
            continue
        starts.insert(at, span.start)
        chosen.insert(at, span)
    return chosen
