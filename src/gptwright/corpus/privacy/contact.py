"""Ways to reach someone: e-mail addresses, phone numbers, IP addresses."""

import ipaddress
import re
from collections.abc import Iterator
from functools import lru_cache

import phonenumbers

from gptwright.corpus.privacy.spans import Span

AHEAD = 8
"""Characters after a region that a pattern may look at."""

# E-mail: the shape of RFC 5321 without its rarities, Latin letters with marks included (RFC 6531). Every quantifier here is bounded,
# so that no input makes it slow.
_WORD = "A-Za-z0-9\u00c0-\u024f"
_EMAIL = re.compile(
    rf"(?<![{_WORD}._%+-])[{_WORD}_%+-](?:[{_WORD}._%+-]{{0,62}}[{_WORD}_%+-])?@"
    rf"(?:[{_WORD}](?:[{_WORD}-]{{0,61}}[{_WORD}])?\.){{1,8}}([A-Za-z]{{2,24}})(?![{_WORD}(-])"
)
_FILE_ENDINGS = {"png", "jpg", "jpeg", "gif", "webp", "svg", "css", "js", "json", "html", "xml", "pdf", "txt", "mp4"}
_SHELL_PROMPT = re.compile(r":[~/$]|:\s?~")
_IPV4 = re.compile(r"(?<![\w.-])(?:[0-9]{1,3}\.){3}[0-9]{1,3}(?![\w]|\.[0-9]|-\w)")
_NOT_IPV4 = re.compile(
    r"(?i:\b(?:version|ver|v|release[ds]?|build|firmware|driver|chapter|section|kapitel|abschnitt|versión|patch|upgraded? to|update))"
    r"[^\w\n]{0,3}$"
)
_IPV6 = re.compile(
    r"(?<![\w:.])(?:[0-9A-Fa-f]{0,4}:){2,7}(?:(?:[0-9]{1,3}\.){3}[0-9]{1,3}|[0-9A-Fa-f]{1,4})?(?![\w:]|\.\w)"
)
# A cheap look before phonenumbers: seven digits that only the usual separators part.
_PHONE = re.compile(
    r"(?<![\w.,/#@-])(?:\(?\+|00|\()?\(?[0-9](?:[ \t().\-\u2010-\u2013\u00a0/]{0,3}[0-9]){6,20}(?![\w%]|[.,:][0-9])"
)
_DIGIT_AFTER_SPACE = re.compile(r"(?<=[ \t\u00a0])[+(]?[0-9]")
_SPACE_AFTER_DIGIT = re.compile(r"(?<=[0-9])[ \t\u00a0]")
_NO_DIGIT = re.compile(r"\D")
_PHONE_WORDS = re.compile(
    r"\b(?:(?:tele)?phones?|call(?:s|ed|ing)?|tel(?:efon\w*|[eé]fono?\w*|ephone\w*)?|t[eé]l(?:[eé]phone\w*)?|text(?:s|ed|ing)?|cell(?:ular\w*|s)?|"
    r"mobiles?|m[oó]vil|mobil\w*|whatsapp|fax|numbers?|num[eé]ros?|reach(?:ed)?|sms|hotline|dial|ring|handy\w*|anruf\w*|rufen|erreich\w*|"
    r"durchwahl|rufnummer|appel\w*|joindre|ll[aá]m\w*|chiam\w*|bel|bellen|ligu?[ea]\w?)\b",
    re.IGNORECASE,
)
_NOT_PHONE = re.compile(
    r"\b(isbn|issn|doi|arxiv|order|invoice|version|id|no\.|serial|part|model|item|ref|reference|ticket|case|account|tracking|article|"
    r"sku|patent|pmid|bestellnummer|rechnung|rechnungsnummer|kundennummer|artikel|artikelnummer|commande|facture|pedido|factura|"
    r"referencia|référence|seriennummer|aktenzeichen)s?(?:\s(?:number|no\.?|nr\.?|num\.?))?[^\w\n]*$|#[^\w\n]*$",
    re.IGNORECASE,
)
_DATE = re.compile(
    r"(19|20)[0-9][0-9]\D(0?[1-9]|1[0-2])\D[0-9][0-9]?.*|[0-9][0-9]?\D[0-9][0-9]?\D(19|20)[0-9][0-9]|(19|20)[0-9][0-9]\D+(19|20)[0-9][0-9]"
)
# Ranges of years, versions and a date, decimals, American postal codes (ZIP+4) and clauses such as 252.227-7013.
_OTHER_SHAPE = re.compile(
    r"(?:19|20)[0-9]{2}\D{1,3}(?:19|20)[0-9]{2}|[0-9]{1,2}\.[0-9]{1,2}\.[0-9]{1,3}(?:[ (].*)?|"
    r"[0-9]{1,2}\.[0-9]{5,}|[0-9]{5}-[0-9]{4}|[0-9]{3}\.[0-9]{3}-[0-9]{4}"
)
_REST_OF_LINE = re.compile(r"[ \t]{0,80}(?:\n|$)")
_AMERICAN = re.compile(r"(?:1?\D{0,2})\(?[0-9]{3}\)?\D{0,2}[0-9]{3}\D{0,2}[0-9]{4}")
_AMERICAN_OR_LOCAL = re.compile(r"(?:1?\D{0,2})\(?[0-9]{3}\)?\D{0,2}[0-9]{3}\D{0,2}[0-9]{4}|[0-9]{3}[-. ][0-9]{4}")
_LOCAL = re.compile(r"[0-9]{3}[-. ][0-9]{4}")
_GROUPED = re.compile(r"[0-9][\s().\-\u2010-\u2013\u00a0/]+[0-9]")
_REGIONS = ("US", "GB", "DE", "FR", "ES", "IT", "IN", "AU", "NL", "BE", "AT", "CH", "SE", "PL", "PT", "BR")
_TRIES = 24


def emails(text: str, start: int, end: int) -> Iterator[Span]:
    """E-mail addresses that begin in ``text[start:end]``."""
    if text.find("@", start, end) < 0:
        return
    for match in _EMAIL.finditer(text, start, min(len(text), end + AHEAD)):
        local = text[match.start() : match.start() + 4]
        if match.start() >= end or match[1].lower() in _FILE_ENDINGS or local == "git@":
            continue
        if not _SHELL_PROMPT.match(text, match.end()):
            yield Span(*match.span(), "EMAIL")


def addresses_v4(text: str, start: int, end: int) -> Iterator[Span]:
    """IPv4 addresses that begin in ``text[start:end]``."""
    for match in _IPV4.finditer(text, start, min(len(text), end + AHEAD)):
        if match.start() >= end or not _is_public_looking(match[0]):
            continue
        if not _NOT_IPV4.search(text[max(0, match.start() - 24) : match.start()]):
            yield Span(*match.span(), "IP")


def addresses_v6(text: str, start: int, end: int) -> Iterator[Span]:
    """IPv6 addresses that begin in ``text[start:end]``."""
    if text.find(":", start, end) < 0:
        return
    for match in _IPV6.finditer(text, start, min(len(text), end + AHEAD)):
        if match.start() < end and _is_v6(match[0]):
            yield Span(*match.span(), "IP")


def phones(text: str, start: int, end: int) -> Iterator[Span]:
    """Phone numbers that begin in ``text[start:end]``."""
    for match in _PHONE.finditer(text, start, min(len(text), end + AHEAD)):
        if match.start() < end and (span := _phone_in(text, *match.span())):
            yield span


def _phone_in(text: str, start: int, end: int) -> Span | None:
    """The longest run of digit groups in ``text[start:end]`` that is a phone number: other numbers may stand right beside it."""
    if len(set(_NO_DIGIT.sub("", text[start:end]))) <= 2:
        return None
    starts = [start, *(m.start() for m in _DIGIT_AFTER_SPACE.finditer(text, start, end))]
    ends = [end, *(m.start() for m in _SPACE_AFTER_DIGIT.finditer(text, start, end))]
    tries: list[tuple[int, int, int]] = []
    for a in starts:
        open_ended = text[a] in "+(" or text.startswith("00", a) or _likely(text, a)
        plan = None if open_ended else _AMERICAN_OR_LOCAL.match(text, a)
        # In a table of numbers nearly every stretch is none: most are left out before they are looked at.
        tries += [(b - a, a, b) for b in ends if b - a >= 7 and (open_ended or plan or (a, b) == (start, end))]
    tries.sort(key=lambda t: (-t[0], t[1]))
    for _, a, b in tries[:_TRIES]:
        if _is_phone(text[a:b], text, a, whole=(a, b) == (start, end)):
            return Span(a, b, "PHONE")
    return None


@lru_cache(maxsize=64)
def _likely(text: str, at: int) -> bool:
    """Whether a word such as phone stands shortly before, on the same line or alone at the end of the line above."""
    line = text.rfind("\n", max(0, at - 20), at)
    if line >= 0 and text[line:at].strip():
        return _PHONE_WORDS.search(text, line, at) is not None
    return _PHONE_WORDS.search(text, max(0, at - 20), at) is not None


def _is_phone(candidate: str, text: str, at: int, whole: bool) -> bool:
    digits = _NO_DIGIT.sub("", candidate)
    if not 7 <= len(digits) <= 15 or len(set(digits)) <= 2:
        return False
    before = text[max(0, at - 32) : at]
    if candidate.startswith(("+", "00", "(+")):
        if candidate.startswith("00"):
            return _valid("+" + digits.removeprefix("00"), None)
        return _valid("+" + digits, None) or _valid(candidate, None)  # the latter for "+44 (0)20"
    likely = _likely(text, at)
    american = _AMERICAN.fullmatch(candidate) is not None
    if not (likely or american or (whole and digits.startswith("0"))):
        return False  # most numbers: what follows says yes to none of them
    if _NOT_PHONE.search(before) or _OTHER_SHAPE.fullmatch(candidate):
        return False
    if before.endswith((":", "=")) and not likely:
        return False
    if _DATE.fullmatch(candidate) and not likely:
        return False
    grouped = bool(_GROUPED.search(candidate))
    if american:
        # Told from other numbers by its plan; without separators it also needs a word, or a line of its own.
        alone = before.rstrip(" \t")[-1:] in ("", "\n") and _REST_OF_LINE.match(text, at + len(candidate)) is not None
        if (grouped or likely or alone) and _valid(digits, "US"):
            return True
    if _LOCAL.fullmatch(candidate):
        return likely  # a local number, without area code
    if len(digits) < 9 and not likely:
        return False
    return (likely or (whole and grouped and digits.startswith("0"))) and any(
        _valid(digits, region) for region in _REGIONS
    )


@lru_cache(maxsize=16384)
def _valid(digits: str, region: str | None) -> bool:
    try:
        return bool(phonenumbers.is_valid_number(phonenumbers.parse(digits, region)))
    except phonenumbers.NumberParseException:
        return False


def _is_public_looking(candidate: str) -> bool:
    try:
        address = ipaddress.IPv4Address(candidate)
    except ValueError:
        return False
    # 0.x and 127.x name no one; numbers such as 1.2.3.4 and 1.7.12.2 are versions far more often than addresses.
    small = candidate[1] == "." and len(candidate) <= 8
    return not (address.is_loopback or address.is_unspecified or small)


def _is_v6(candidate: str) -> bool:
    try:
        address = ipaddress.IPv6Address(candidate)
    except ValueError:
        return False
    if address.is_loopback or address.is_unspecified or not any(c.isdigit() for c in candidate):
        return False
    groups = [group for group in candidate.split(":") if group]
    # Slices such as [100::200] are valid addresses too: ask for a range in use (RFC 4291: 2000::/3, fc00::/7, fe80::/10, ff00::/8)
    # and for three groups or a letter.
    in_use = (int(address) >> 125) == 1 or (int(address) >> 121) == 0x7E or (int(address) >> 120) in (0xFE, 0xFF)
    return in_use and (len(groups) >= 3 or any(c in "abcdefABCDEF" for c in candidate))
