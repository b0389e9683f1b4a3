"""Find and mask personal data in one text.

Rules find what has a shape. Names, faces and stories of people have none: text that passed here may still identify someone.
"""

import re
from collections import Counter
from collections.abc import Callable, Collection, Iterator

from gptwright.corpus.privacy import contact, credentials, ids, money, places
from gptwright.corpus.privacy.spans import KINDS, QUICK_KINDS, Span, apart, placeholder

Detector = Callable[[str, int, int], Iterator[Span]]

# The classes of regions that `regions.find_regions` tells apart, as bits, and what is looked for in each.
AT, NUMBER, COLONS, TOKEN, PEM, URL, ASSIGNED, HOUSE = (1 << n for n in range(8))
DETECTORS: tuple[tuple[int, str, Detector], ...] = (  # the surer ones first: where two overlap, the first one stays
    (PEM, "SECRET", credentials.private_keys),
    (TOKEN, "SECRET", credentials.tokens),
    (TOKEN, "SECRET", credentials.web_tokens),
    (URL, "SECRET", credentials.passwords_in_urls),
    (ASSIGNED, "SECRET", credentials.assigned),
    (AT, "EMAIL", contact.emails),
    (NUMBER, "IBAN", money.ibans),
    (NUMBER, "CARD", money.cards),
    (NUMBER, "NATIONAL_ID", ids.national_ids),
    (NUMBER, "IP", contact.addresses_v4),
    (COLONS, "IP", contact.addresses_v6),
    (NUMBER, "PHONE", contact.phones),
    (HOUSE, "ADDRESS", places.addresses),
)
_NOT_STREAMED = (PEM, URL, ASSIGNED)  # they need more than the words that a streamed text holds back
_DIGIT = re.compile(r"[0-9]")


def find_pii(text: str, kinds: Collection[str] | None = None) -> list[Span]:
    """Find personal data and secrets that have a shape.

    Args:
        text: any text.
        kinds: which kinds to look for; by default `QUICK_KINDS`, of secrets only those in one word, as a streamed text needs it.

    Returns:
        Spans in order, none overlapping another. An empty list does not mean that the text is free of personal data.
    """
    streamed = kinds is None
    wanted = QUICK_KINDS if kinds is None else kinds
    digits = _DIGIT.search(text) is not None
    spans: list[Span] = []
    for bit, kind, detect in DETECTORS:
        if kind in wanted and (digits or not bit & (NUMBER | HOUSE)) and not (streamed and bit in _NOT_STREAMED):
            spans += detect(text, 0, len(text))
    return apart(spans) if spans else spans


def find_all(text: str) -> list[Span]:
    """`find_pii` for every kind there is a rule for."""
    return find_pii(text, KINDS)


def mask_pii(text: str, kinds: Collection[str] | None = None) -> tuple[str, dict[str, int]]:
    """Replace personal data by typed placeholders such as [EMAIL].

    Returns:
        The masked text, and how many of each kind were replaced.
    """
    spans = find_pii(text, kinds)
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], placeholder(span.kind)]
        at = span.end
    return "".join([*pieces, text[at:]]), dict(Counter(span.kind for span in spans))
