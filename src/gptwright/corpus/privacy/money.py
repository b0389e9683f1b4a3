"""Where money is: bank accounts (IBAN) and payment cards, each with its checksum."""

import re
from collections.abc import Iterator

from gptwright.corpus.privacy.contact import AHEAD
from gptwright.corpus.privacy.spans import Span

_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}[0-9]{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\w.,-])(?:[0-9][ -]?){12,18}[0-9](?!\w|[.,-][0-9])")
_CARD_IN_GROUPS = re.compile(
    r"(?<![0-9.,-])(?<![A-Z0-9]{4}[ -])"
    r"(?:[0-9]{4}([ -])[0-9]{4}\1[0-9]{4}\1[0-9]{4}|[0-9]{4}([ -])[0-9]{6}\2[0-9]{4,5})(?![ -]?[0-9]{3}|[0-9]|[.,-][0-9])"
)
# ISO/IEC 7812: first digits and lengths of issuers. 4 Visa, 51-55 and 22-27 Mastercard, 34 and 37 American Express, 30, 36 and 38
# Diners, 35 JCB, 6011, 64 and 65 Discover, 62 UnionPay.
_ISSUERS = re.compile(
    r"4[0-9]{12}(?:[0-9]{3}){0,2}|5[1-5][0-9]{14}|2[2-7][0-9]{14}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}|35[0-9]{14}|6(?:011|4[4-9][0-9]|5[0-9][0-9])[0-9]{12}|62[0-9]{14,17}"
)
_SEPARATORS = re.compile(r"[ -]")
# Lengths by country: SWIFT's IBAN registry as python-stdnum 2.2 carries it.
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AL": 28, "AT": 20, "AZ": 28, "BA": 20, "BE": 16, "BG": 22, "BH": 22, "BI": 27, "BR": 29, "BY": 28,
    "CH": 21, "CR": 22, "CY": 28, "CZ": 24, "DE": 22, "DJ": 27, "DK": 18, "DO": 28, "EE": 20, "EG": 29, "ES": 24, "FI": 18,
    "FK": 18, "FO": 18, "FR": 27, "GB": 22, "GE": 22, "GI": 23, "GL": 18, "GR": 27, "GT": 28, "HN": 28, "HR": 21, "HU": 28,
    "IE": 22, "IL": 23, "IQ": 23, "IS": 26, "IT": 27, "JO": 30, "KW": 30, "KZ": 20, "LB": 28, "LC": 32, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "LY": 25, "MC": 27, "MD": 24, "ME": 22, "MK": 19, "MN": 20, "MR": 27, "MT": 31, "MU": 30, "NI": 28,
    "NL": 18, "NO": 15, "OM": 23, "PK": 24, "PL": 28, "PS": 29, "PT": 25, "QA": 29, "RO": 24, "RS": 22, "RU": 33, "SA": 24,
    "SC": 31, "SD": 18, "SE": 24, "SI": 19, "SK": 24, "SM": 27, "SO": 23, "ST": 25, "SV": 28, "TL": 23, "TN": 24, "TR": 26,
    "UA": 29, "VA": 22, "VG": 24, "XK": 20, "YE": 30,
}  # fmt: skip


def ibans(text: str, start: int, end: int) -> Iterator[Span]:
    """International bank account numbers that begin in ``text[start:end]``."""
    for match in _IBAN.finditer(text, start, min(len(text), end + AHEAD)):
        if match.start() < end and (taken := _iban_end(match[0])):
            yield Span(match.start(), match.start() + taken, "IBAN")


def cards(text: str, start: int, end: int) -> Iterator[Span]:
    """Payment card numbers that begin in ``text[start:end]``."""
    for match in _CARD.finditer(text, start, min(len(text), end + AHEAD)):
        if match.start() >= end:
            return
        if is_card(match[0]):
            yield Span(*match.span(), "CARD")
            continue
        for inner in _CARD_IN_GROUPS.finditer(text, *match.span()):  # another number may stand right beside it
            if is_card(inner[0]):
                yield Span(*inner.span(), "CARD")


def is_card(candidate: str) -> bool:
    """Whether digits, spaces and hyphens are a card's number: a known issuer's first digits and length, and Luhn's checksum."""
    text = _SEPARATORS.sub("", candidate)
    if not _ISSUERS.fullmatch(text) or len(set(text)) == 1:
        return False
    digits = [int(c) for c in text]
    doubled = [d if i % 2 == 0 else (d * 2 - 9 if d > 4 else d * 2) for i, d in enumerate(reversed(digits))]
    return sum(doubled) % 10 == 0


def _iban_end(candidate: str) -> int:
    """ISO 13616: country's length and the remainder 1 of 97. Returns how many characters of the candidate it takes, 0 if none."""
    length = _IBAN_LENGTH.get(candidate[:2])
    if length is None:
        return 0
    places = [at for at, character in enumerate(candidate, 1) if character not in " -"]
    if len(places) < length:
        return 0
    taken = places[length - 1]
    plain = _SEPARATORS.sub("", candidate[:taken])
    number = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
    return taken if int(number) % 97 == 1 else 0
