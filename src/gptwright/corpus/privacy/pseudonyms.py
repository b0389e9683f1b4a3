"""Replacements that look like what they stand for: keyed, the same within a document, and of no use to join documents by.

No replacement can reach or be anyone: the ranges are those that registries set aside for examples and fiction, and what has a checksum
gets a wrong one.
"""

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from hashlib import blake2b
from pathlib import Path

import phonenumbers

from gptwright.core.errors import UserError
from gptwright.corpus.privacy.ids import is_national_id
from gptwright.corpus.privacy.money import is_card
from gptwright.corpus.privacy.spans import Span, placeholder

_KEY_FILE = "pseudonyms.key"
_KEY_BYTES = 32
_TRIES = 64

# Numbers set aside for fiction. NANPA: 555-0100 to 555-0199 in any area. Ofcom: 020 7946 0xxx, 07700 900xxx.
# Bundesnetzagentur: (0)30 23125 xxx. ARCEP: 01 99 00 xxxx, 06 39 98 xxxx. ACMA: 02 5550 xxxx.
_FICTION = {
    "US": ("{area}55501{n:02d}", 100), "GB": ("02079460{n:03d}", 1000), "GB mobile": ("07700900{n:03d}", 1000),
    "DE": ("03023125{n:03d}", 1000), "FR": ("019900{n:04d}", 10_000), "FR mobile": ("063998{n:04d}", 10_000),
    "AU": ("025550{n:04d}", 10_000),
}  # fmt: skip
_PREFIX = {"GB": "44", "DE": "49", "FR": "33", "AU": "61", "US": "1"}
_AREAS = ("201", "212", "303", "312", "404", "415", "503", "602", "617", "702", "801", "919")
# RFC 5737.
_NETS = ("192.0.2.", "198.51.100.", "203.0.113.")


def load_or_make_key(state_dir: Path) -> bytes:
    """The key of a project's pseudonyms: read, or made once, with a mode that lets nobody else read it.

    Args:
        state_dir: the project's ``state`` folder.

    Returns:
        32 bytes. Who has them can tell whether a guess is what a replacement stands for, so they are backed up but never published.

    Raises:
        UserError: the file is not a key.
    """
    path = state_dir / _KEY_FILE
    state_dir.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        # Written beside and linked into place: of two processes that make a key at once, both end with the same.
        draft = path.with_name(f".{_KEY_FILE}.{os.getpid()}.{secrets.token_hex(4)}")
        handle = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            with os.fdopen(handle, "wb") as file:
                file.write(secrets.token_bytes(_KEY_BYTES))
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):
                os.link(draft, path)
        finally:
            draft.unlink(missing_ok=True)
    key = path.read_bytes()
    if len(key) != _KEY_BYTES:
        raise UserError(
            "this is not a key of pseudonyms",
            where=str(path),
            fix="Bring it back from a backup, or remove it: a new one is made, and replacements change",
        )
    return key


class Pseudonyms:
    """The replacements of one document.

    Args:
        key: of the project.
        scope: what names the document. Two scopes share no replacement that could be told from chance.
    """

    def __init__(self, key: bytes, scope: bytes) -> None:
        self._key = blake2b(scope, key=key, digest_size=32, person=b"gw-pseudonym").digest()
        self._owner: dict[str, str] = {}  # a replacement belongs to one original

    def replacement(self, span: Span, text: str) -> str:
        """What stands in place of a span of a text; a typed placeholder where nothing fitting is left."""
        original = text[span.start : span.end]
        same = _sameness(span.kind, original)
        make = _MAKERS.get(span.kind)
        if make is None:
            return placeholder(span.kind)
        # The layout may differ where the number is the same, so it is given again each time from the same draws.
        for attempt in range(_TRIES):
            made = make(_Draws(self._key, span.kind, same, attempt), original)
            if made is None:
                continue
            owner = self._owner.setdefault(_sameness(span.kind, made), f"{span.kind}:{same}")
            if owner == f"{span.kind}:{same}":
                return made
        return placeholder(span.kind)


class _Draws:
    """A stream of numbers from a keyed hash: the same for the same key, kind, original and attempt."""

    def __init__(self, key: bytes, kind: str, same: str, attempt: int) -> None:
        name = f"{kind}\0{attempt}\0{same}".encode()
        self._pool = int.from_bytes(blake2b(name, key=key, digest_size=64).digest(), "big")

    def below(self, n: int) -> int:
        """A number from 0 to n - 1."""
        self._pool, value = divmod(self._pool, n)
        return value

    def hex(self, digits: int) -> str:
        """Hexadecimal digits."""
        return f"{self.below(16**digits):0{digits}x}"


def _sameness(kind: str, original: str) -> str:
    """What two spellings of the same thing share."""
    if kind == "PHONE":
        return "".join(c for c in original if c.isdigit())[-8:]  # with and without the country's or the trunk prefix
    if kind in ("IBAN", "CARD", "NATIONAL_ID"):
        return "".join(c for c in original if c.isalnum()).upper()
    return " ".join(original.casefold().split())


def _email(draw: _Draws, original: str) -> str:
    return f"person-{draw.hex(4)}@example.{('com', 'org', 'net')[draw.below(3)]}"  # RFC 2606


def _phone(draw: _Draws, original: str) -> str:
    digits = "".join(c for c in original if c.isdigit())
    plus = original.startswith("+") or digits.startswith("00")
    region = _region(original, digits, plus)
    shape, count = _FICTION[region]
    number = shape.format(area=_AREAS[draw.below(len(_AREAS))], n=draw.below(count))
    country = region.partition(" ")[0]
    if plus:
        number = ("00" if digits.startswith("00") else "") + _PREFIX[country] + number.removeprefix("0")
    elif country == "US" and len(digits) == 11:
        number = "1" + number
    elif country == "US" and len(digits) == 7:
        number = number[3:]
    if plus and country == "US" and not digits.removeprefix("00").startswith("1"):
        return f"+1 {number[-10:-7]} {number[-7:-4]} {number[-4:]}"  # a country for which no such range is known here
    if len(number) == len(digits):
        return _laid_out(number, original)
    if "(0)" in original and len(number) + 1 == len(digits):
        return _laid_out(number, original.replace("(0)", "").replace("  ", " "))
    return ("+" if original.startswith("+") else "") + number


def _region(original: str, digits: str, plus: bool) -> str:
    if plus:
        try:
            parsed = phonenumbers.parse("+" + digits.removeprefix("00"), None)
        except phonenumbers.NumberParseException:
            return "US"
        country, national = (
            phonenumbers.region_code_for_country_code(parsed.country_code or 1),
            str(parsed.national_number),
        )
    elif digits.startswith("0"):
        national = digits.removeprefix("0")
        if len(digits) == 10 and original[2:3] in " .":
            country = "FR"
        elif len(digits) == 11 and digits[1] in "1237":
            country = "GB"
        else:
            country = "DE"
    else:
        return "US"
    mobile = (country == "GB" and national.startswith("7")) or (country == "FR" and national[:1] in ("6", "7"))
    region = f"{country} mobile" if mobile else country
    return region if region in _FICTION else "US"


def _ip(draw: _Draws, original: str) -> str:
    if ":" in original:
        return "2001:db8:" + ":".join(f"{1 + draw.below(0xFFFF):x}" for _ in range(6))  # RFC 3849
    return f"{_NETS[draw.below(3)]}{1 + draw.below(254)}"


def _iban(draw: _Draws, original: str) -> str:
    letters = [c for c in original if c.isalnum()]
    body = "".join(str(draw.below(10)) if c.isdigit() else chr(65 + draw.below(26)) for c in letters[4:])
    return _laid_out(letters[0] + letters[1] + "00" + body, original)  # ISO 13616: check digits are never 00


def _card(draw: _Draws, original: str) -> str | None:
    n = sum(c.isdigit() for c in original)
    made = _laid_out(
        "0" + "".join(str(draw.below(10)) for _ in range(n - 1)), original
    )  # ISO/IEC 7812: no issuer begins with 0
    return None if is_card(made) else made


def _national_id(draw: _Draws, original: str) -> str | None:
    plain = [c for c in original if c.isalnum()]
    made: list[str] = []
    for c in plain:
        zero = c.isdigit() and sum(m.isdigit() for m in made) < 3  # no area is 000, no month or day 00
        made.append("0" if zero else str(draw.below(10)) if c.isdigit() else chr(65 + draw.below(26)))
    number = _laid_out("".join(made), original)
    return None if is_national_id(number) else number


def _address(draw: _Draws, original: str) -> str:
    number = 1 + draw.below(9999)
    if original[:1].isdigit():
        french = any(
            f" {word} " in original.casefold()
            for word in ("rue", "avenue", "boulevard", "place", "chemin", "quai", "impasse")
        )
        english = any(word in original for word in ("Avenue", "Boulevard", "Place", "Square"))
        return f"{number} rue de l'Exemple" if french and not english else f"{number} Example Street"
    spanish = original.split(" ")[0].rstrip(".").casefold() in (
        "calle",
        "c/",
        "avenida",
        "avda",
        "plaza",
        "paseo",
        "camino",
    )
    return f"Calle del Ejemplo, {number}" if spanish else f"Musterstraße {number}"


def _name(word: str) -> Callable[[_Draws, str], str]:
    return lambda draw, original: f"{word}-{draw.hex(4)}"


_MAKERS: dict[str, Callable[[_Draws, str], str | None]] = {
    "EMAIL": _email, "PHONE": _phone, "IP": _ip, "IBAN": _iban, "CARD": _card, "NATIONAL_ID": _national_id, "ADDRESS": _address,
    "PERSON": _name("Person"), "LOCATION": _name("Place"),
}  # fmt: skip


def _laid_out(characters: str, original: str) -> str:
    """Characters in the layout of the original: its spaces, hyphens and brackets."""
    rest = iter(characters)
    return "".join(next(rest) if c.isalnum() else c for c in original)
