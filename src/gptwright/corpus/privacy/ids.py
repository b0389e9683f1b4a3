"""National identity, social security and tax numbers of persons, by their shapes and their checksums (python-stdnum).

A shape that few other numbers have, with a strong check, stands alone. Where the checksum is weak (one in ten or eleven numbers
passes) or missing, a word that names the number must stand within 48 characters before it, or the common punctuation be there.
"""

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from stdnum.at import vnr
from stdnum.au import tfn
from stdnum.be import nn
from stdnum.bg import egn
from stdnum.br import cpf
from stdnum.ca import sin
from stdnum.ch import ssn as ahv
from stdnum.cl import rut
from stdnum.cn import ric
from stdnum.cz import rc
from stdnum.de import idnr
from stdnum.dk import cpr
from stdnum.es import dni, nie
from stdnum.fi import hetu
from stdnum.fr import nir
from stdnum.gb import nhs
from stdnum.hr import oib
from stdnum.ie import pps
from stdnum.in_ import aadhaar, pan
from stdnum.it import codicefiscale
from stdnum.kr import rrn
from stdnum.mx import curp
from stdnum.nl import bsn
from stdnum.no import fodselsnummer
from stdnum.pl import pesel
from stdnum.pt import cc, nif
from stdnum.ro import cnp
from stdnum.se import personnummer
from stdnum.tr import tckimlik
from stdnum.us import itin, ssn
from stdnum.za import idnr as za_idnr

from gptwright.corpus.privacy.contact import AHEAD
from gptwright.corpus.privacy.spans import Span

_CONTEXT = 48
_NAMES = {
    "us": r"\bssn\b|social security|soc\.? sec|\bitin\b|taxpayer|tax id",
    "gb": r"\bnhs\b|national health",
    "de": r"\bidnr|identifikationsnummer|steuer-?id|steuer-?nr|steuernummer|steueridentnummer|\btin\b|tax id",
    "nl": r"\bbsn\b|burgerservice|sofinummer|sofi-nummer",
    "pl": r"\bpesel\b",
    "pt": r"\bnif\b|contribuinte|\bn\.?i\.?f\b",
    "se": r"personnummer|personnr|\bpnr\b",
    "dk": r"\bcpr\b|personnummer",
    "br": r"\bcpf\b",
    "in": r"aadhaar|aadhar|\buid(?:ai)?\b|आधार",
    "pan": r"\bpan\b|permanent account",
    "bg": r"\begn\b|егн",
    "at": r"svnr|sozialversicherung|\bsv-?nummer|\bsv-?nr|\bvsnr",
    "hr": r"\boib\b",
    "ie": r"\bppsn?\b|personal public service",
    "ca": r"\bsin\b|social insurance|\bnas\b|assurance sociale",
    "au": r"\btfn\b|tax file",
    "za": r"\bid\b|identity",
    "tr": r"kimlik|\btckn\b|\btc\b",
    "ro": r"\bcnp\b|cod numeric",
    "no": r"fødselsnummer|fodselsnummer|personnummer",
    "be": r"rijksregister|registre national|national register|\bnn\b|insz|niss",
    "es": r"\bdni\b|\bnif\b|\bd\.n\.i|documento|identidad",
    "it": r"codice fiscale|c\.f\.",
}
_WORDS = {name: re.compile(words, re.IGNORECASE) for name, words in _NAMES.items()}
_OTHER_NUMBER = re.compile(
    r"\b(part|order|serial|model|item|ref|reference|isbn|invoice|ticket|sku|tracking|case|claim|bestellnummer|rechnung|pedido|commande|factura|facture|catalogue?|cat|lot|batch|art)s?\b"
    r"(?:\s(?:number|no|nr|code))?[^\w\n]*(?:[A-Z]{1,4}[-/ ])?$|#[^\w\n]*$",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class _Check:
    """A number's check; ``words`` names the context that it needs, None where it stands alone."""

    valid: Callable[[str], bool]
    words: str | None = None


# Shape -> (pattern, checks). The first shape that fits at a place is looked at, so the longer and the more telling come first.
_SHAPES: dict[str, tuple[str, tuple[_Check, ...]]] = {
    "it": (
        r"[A-Z]{6}[0-9]{2}[A-Z][0-9]{2}[A-Z][0-9]{3}[A-Z]|[A-Z]{3} [A-Z]{3} [0-9]{2}[A-Z][0-9]{2} [A-Z][0-9]{3}[A-Z]",
        (_Check(codicefiscale.is_valid),),
    ),
    "mx": (r"[A-Z]{4}[0-9]{6}[HM][A-Z]{5}[A-Z0-9][0-9]", (_Check(curp.is_valid),)),
    "nino": (
        r"(?!BG|GB|KN|NK|NT|TN|ZZ)[A-CEGHJ-PR-TW-Z][A-CEGHJ-NPR-TW-Z] ?[0-9][0-9] ?[0-9][0-9] ?[0-9][0-9] ?[A-D]",
        (_Check(lambda number: True),),  # no checksum; the letters and the pairs make the shape
    ),
    "pan": (r"[A-Z]{5}[0-9]{4}[A-Z]", (_Check(pan.is_valid, "pan"),)),
    "nie": (r"[XYZ]-?[0-9]{7}-?[A-Z]", (_Check(nie.is_valid),)),
    "dni": (r"[0-9]{8}-?[A-HJ-NP-TV-Z]|[0-9]{2}\.[0-9]{3}\.[0-9]{3}-?[A-HJ-NP-TV-Z]", (_Check(dni.is_valid),)),
    "dni ": (r"[0-9]{8} [A-HJ-NP-TV-Z]", (_Check(dni.is_valid, "es"),)),
    "pps": (r"[0-9]{7}[A-W][ABHW]?", (_Check(pps.is_valid, "ie"),)),
    "cc": (r"[0-9]{8} ?[0-9] ?[A-Z]{2}[0-9]", (_Check(cc.is_valid),)),
    "dated": (
        r"[0-9]{6}[-+A-FU-Y][0-9]{3}[0-9A-FHJ-NPR-Y]",
        (_Check(hetu.is_valid), _Check(personnummer.is_valid), _Check(cpr.is_valid, "dk")),
    ),
    "nir": (r"[12] ?[0-9]{2} ?[0-9]{2} ?[0-9][0-9AB] ?[0-9]{3} ?[0-9]{3} ?[0-9]{2}", (_Check(nir.is_valid),)),
    "cn": (r"[0-9]{17}[0-9X]", (_Check(ric.is_valid),)),
    "ch": (r"756\.[0-9]{4}\.[0-9]{4}\.[0-9]{2}", (_Check(ahv.is_valid),)),
    "rrn": (r"[0-9]{6}-[0-9]{7}", (_Check(rrn.is_valid),)),
    "nn": (r"[0-9]{2}\.[0-9]{2}\.[0-9]{2}[- ][0-9]{3}[.-][0-9]{2}", (_Check(nn.is_valid),)),
    "cpf": (r"[0-9]{3}\.[0-9]{3}\.[0-9]{3}-[0-9]{2}", (_Check(cpf.is_valid),)),
    "rut": (r"[0-9]{1,2}\.[0-9]{3}\.[0-9]{3}-[0-9K]", (_Check(rut.is_valid),)),
    "bsn": (r"[0-9]{4}\.[0-9]{2}\.[0-9]{3}", (_Check(bsn.is_valid, "nl"),)),
    "ssn": (r"[0-9]{3}-[0-9]{2}-[0-9]{4}", (_Check(ssn.is_valid), _Check(itin.is_valid))),
    "ssn ": (r"[0-9]{3} [0-9]{2} [0-9]{4}", (_Check(lambda n: ssn.is_valid(n.replace(" ", "")), "us"),)),
    "rc": (r"[0-9]{6}/[0-9]{4}", (_Check(rc.is_valid),)),
    "no": (r"[0-9]{6} [0-9]{5}", (_Check(fodselsnummer.is_valid),)),
    "12": (
        r"[0-9]{4}[ -]?[0-9]{4}[ -]?[0-9]{4}",
        (_Check(aadhaar.is_valid, "in"), _Check(personnummer.is_valid, "se")),
    ),
    "13": (r"[0-9]{13}|[0-9]{6} [0-9]{4} [0-9]{3}", (_Check(cnp.is_valid, "ro"), _Check(za_idnr.is_valid, "za"))),
    "11": (
        r"[0-9]{11}|[0-9]{2}[ /][0-9]{3}[ /][0-9]{3}[ /][0-9]{3}|[0-9]{3} [0-9]{3} [0-9]{3} [0-9]{2}",
        (
            _Check(lambda n: idnr.is_valid(n.replace("/", "")), "de"),
            _Check(pesel.is_valid, "pl"),
            _Check(cpf.is_valid, "br"),
            _Check(tckimlik.is_valid, "tr"),
            _Check(oib.is_valid, "hr"),
            _Check(fodselsnummer.is_valid, "no"),
            _Check(nn.is_valid, "be"),
        ),
    ),
    "10": (
        r"[0-9]{10}|[0-9]{3}[ -][0-9]{3}[ -][0-9]{4}|[0-9]{4} [0-9]{6}|[0-9]{6} [0-9]{4}",
        (
            _Check(nhs.is_valid, "gb"),
            _Check(egn.is_valid, "bg"),
            _Check(vnr.is_valid, "at"),
            _Check(personnummer.is_valid, "se"),
            _Check(cpr.is_valid, "dk"),
        ),
    ),
    "9": (
        r"[0-9]{9}|[0-9]{3}[ .-][0-9]{3}[ .-][0-9]{3}",
        (
            _Check(ssn.is_valid, "us"),
            _Check(itin.is_valid, "us"),
            _Check(bsn.is_valid, "nl"),
            _Check(sin.is_valid, "ca"),
            _Check(nif.is_valid, "pt"),
            _Check(tfn.is_valid, "au"),
        ),
    ),
}
_GROUPS = {f"s{at}": name for at, name in enumerate(_SHAPES)}
_ID = re.compile(
    r"(?<![\w/.,-])(?=[A-Z0-9])(?:"
    + "|".join(rf"(?P<{group}>(?:{_SHAPES[name][0]})(?!\w|[-.,/]\w))" for group, name in _GROUPS.items())
    + ")"
)


def national_ids(text: str, start: int, end: int) -> Iterator[Span]:
    """National identity numbers that begin in ``text[start:end]``."""
    at, limit = start, min(len(text), end + AHEAD)
    while match := _ID.search(text, at, limit):
        if match.start() >= end:
            return
        checks = _SHAPES[_GROUPS[str(match.lastgroup)]][1]
        if _holds(match[0], text[max(0, match.start() - _CONTEXT) : match.start()], checks):
            yield Span(*match.span(), "NATIONAL_ID")
            at = match.end()
        else:
            at = match.start() + 1


def is_national_id(number: str) -> bool:
    """Whether a number has the shape and passes the check of any national identity number, words around it left aside."""
    match = _ID.fullmatch(number)
    return match is not None and any(c.valid(number) for c in _SHAPES[_GROUPS[str(match.lastgroup)]][1])


def _holds(number: str, before: str, checks: tuple[_Check, ...]) -> bool:
    alone = _OTHER_NUMBER.search(before) is None
    return any(
        (alone if check.words is None else _WORDS[check.words].search(before) is not None) and check.valid(number)
        for check in checks
    )
