"""Personal data in text: e-mail addresses, phone numbers, IPv4 addresses, bank accounts and cards, found by rules and validated.

Rules find what has a shape. Names, addresses and stories of people have none: text that passed here may still identify someone.
"""

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass

import phonenumbers

# E-mail: the shape of RFC 5321 without its rarities; every quantifier is bounded, so that no input makes it slow.
_EMAIL = re.compile(
    r"(?<![A-Za-z0-9._%+-])[A-Za-z0-9_%+-](?:[A-Za-z0-9._%+-]{0,62}[A-Za-z0-9_%+-])?@"
    r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.){1,8}[A-Za-z]{2,24}(?![A-Za-z0-9-])"
)
_IPV4 = re.compile(r"(?<![\d.])(?:\d{1,3}\.){3}\d{1,3}(?![\d]|\.\d)")
_IBAN = re.compile(r"(?<![A-Za-z0-9])[A-Z]{2}\d{2}(?:[ -]?[A-Z0-9]{2,4}){3,8}(?:[ -]?[A-Z0-9]{1,4})?(?![A-Za-z0-9])")
_CARD = re.compile(r"(?<![\d.,-])(?:\d[ -]?){12,18}\d(?![\d]|[.,-]\d)")
# A cheap look before phonenumbers: seven digits that only the usual separators part.
_PHONE = re.compile(
    r"(?<![\w.,:/#=@-])(?:\+|00|\()?\(?\d(?:[ \t().\-\u2010-\u2013\u00a0/]{0,3}\d){6,20}(?![\w%]|[.,:]\d)"
)
_PHONE_WORDS = re.compile(
    r"\b(phone|call|tel|text|cell|mobile|whatsapp|fax|number|reach|sms|hotline|dial)", re.IGNORECASE
)
_NOT_PHONE = re.compile(r"(isbn|issn|doi|arxiv|order|invoice|version|id|no\.|#|serial)[^\w\n]*$", re.IGNORECASE)
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU")
_IBAN_LENGTH = {
    "AD": 24, "AE": 23, "AT": 20, "BE": 16, "BG": 22, "CH": 21, "CY": 28, "CZ": 24, "DE": 22, "DK": 18, "EE": 20, "ES": 24,
    "FI": 18, "FR": 27, "GB": 22, "GR": 27, "HR": 21, "HU": 28, "IE": 22, "IL": 23, "IS": 26, "IT": 27, "LI": 21, "LT": 20,
    "LU": 20, "LV": 21, "MC": 27, "MT": 31, "NL": 18, "NO": 15, "PL": 28, "PT": 25, "RO": 24, "RS": 22, "SA": 24, "SE": 24,
    "SI": 19, "SK": 24, "SM": 27, "TR": 26, "UA": 29,
}  # fmt: skip


@dataclass(frozen=True, order=True)
class Span:
    """Personal data at ``text[start:end]``; ``kind`` is EMAIL, PHONE, IP, IBAN or CARD."""

    start: int
    end: int
    kind: str


def find_pii(text: str) -> list[Span]:
    """Find personal data that has a shape.

    Args:
        text: any text.

    Returns:
        Spans in order, none overlapping another. An empty list does not mean that the text is free of personal data.
    """
    spans: list[Span] = []
    if "@" in text:
        spans += [Span(*match.span(), "EMAIL") for match in _EMAIL.finditer(text)]
    if not any(digit in text for digit in "0123456789"):
        return spans
    for match in _IBAN.finditer(text):
        if end := _iban_end(match[0]):
            spans.append(Span(match.start(), match.start() + end, "IBAN"))
    for match in _CARD.finditer(text):
        if _is_card(match[0]):
            spans.append(Span(*match.span(), "CARD"))
    for match in _IPV4.finditer(text):
        if _is_public_looking(match[0]) and not re.search(
            r"(version|v)\W{0,2}$", text[max(0, match.start() - 10) : match.start()]
        ):
            spans.append(Span(*match.span(), "IP"))
    for match in _PHONE.finditer(text):
        if span := _phone_in(text, *match.span()):
            spans.append(span)
    return _apart(spans)


def mask_pii(text: str) -> tuple[str, dict[str, int]]:
    """Replace personal data by typed placeholders such as [EMAIL].

    Returns:
        The masked text, and how many of each kind were replaced.
    """
    spans = find_pii(text)
    pieces, at = [], 0
    for span in spans:
        pieces += [text[at : span.start], placeholder(span.kind)]
        at = span.end
    return "".join([*pieces, text[at:]]), dict(Counter(span.kind for span in spans))


def placeholder(kind: str) -> str:
    """What stands in place of personal data of a kind."""
    return f"[{kind}]"


def _apart(spans: list[Span]) -> list[Span]:
    """Where spans overlap, the kind that was checked first (the surer one) stays."""
    chosen: list[Span] = []
    for span in spans:
        if all(span.end <= other.start or other.end <= span.start for other in chosen):
            chosen.append(span)
    return sorted(chosen)


def _phone_in(text: str, start: int, end: int) -> Span | None:
    """The longest run of digit groups in ``text[start:end]`` that is a phone number: other numbers may stand right beside it."""
    if len(set(re.sub(r"\D", "", text[start:end]))) <= 2:
        return None
    starts = [start, *(start + m.start() for m in re.finditer(r"(?<=[ \t\u00a0])[+(]?\d", text[start:end]))]
    ends = [end, *(start + m.start() for m in re.finditer(r"(?<=\d)[ \t\u00a0]", text[start:end]))]
    tries = sorted(((b - a, a, b) for a in starts for b in ends if b - a >= 7), key=lambda t: (-t[0], t[1]))
    for _, a, b in tries[:40]:
        if _is_phone(text[a:b], text, a, whole=(a, b) == (start, end)):
            return Span(a, b, "PHONE")
    return None


def _is_phone(candidate: str, text: str, at: int, whole: bool) -> bool:
    digits = re.sub(r"\D", "", candidate)
    if not 7 <= len(digits) <= 15 or len(set(digits)) <= 2:
        return False
    before = text[max(0, at - 18) : at]
    if candidate.startswith(("+", "00")):
        international = "+" + digits.removeprefix("00") if candidate.startswith("00") else candidate
        return _valid(international, None)
    if _NOT_PHONE.search(before[-12:]):
        return False
    grouped = bool(re.search(r"\d[\s().\-\u2010-\u2013\u00a0/]+\d", candidate))
    likely = bool(_PHONE_WORDS.search(before))
    if re.fullmatch(r"(19|20)\d\d\D(0?[1-9]|1[0-2])\D\d\d?.*|\d\d?\D\d\d?\D(19|20)\d\d", candidate) and not likely:
        return False  # a date
    if re.fullmatch(r"(?:1?\D{0,2})\(?\d{3}\)?\D{0,2}\d{3}\D{0,2}\d{4}", candidate):
        return _valid(
            candidate, "US"
        )  # the American form is told from other numbers by its plan; it needs no separators
    if re.fullmatch(r"\d{3}[-. ]\d{4}", candidate):
        return likely  # a local number, without area code
    if len(digits) < 9 and not likely:
        return False
    return (likely or (whole and grouped and digits.startswith("0"))) and any(
        _valid(candidate, region) for region in _REGIONS
    )


def _valid(candidate: str, region: str | None) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(candidate, region)))
    except phonenumbers.NumberParseException:
        return False


def _is_public_looking(candidate: str) -> bool:
    try:
        address = ipaddress.IPv4Address(candidate)
    except ValueError:
        return False
    # 0.x and 127.x name no one; numbers such as 1.2.3.4 are versions far more often than addresses.
    return not (address.is_loopback or address.is_unspecified or all(len(part) == 1 for part in candidate.split(".")))


def _is_card(candidate: str) -> bool:
    """ISO/IEC 7812: a known issuer's first digits and length, and Luhn's checksum."""
    digits = [int(c) for c in candidate if c.isdigit()]
    text = "".join(map(str, digits))
    if not re.fullmatch(
        r"4\d{12}(?:\d{3}){0,2}|5[1-5]\d{14}|2[2-7]\d{14}|3[47]\d{13}|3(?:0[0-5]|[68]\d)\d{11}|6(?:011|5\d\d)\d{12}",
        text,
    ):
        return False
    if len(set(text)) == 1:
        return False
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
    plain = re.sub(r"[ -]", "", candidate[:taken])
    number = "".join(str(int(c, 36)) for c in plain[4:] + plain[:4])
    return taken if int(number) % 97 == 1 else 0
