"""Street addresses by pattern: a house number beside a street's name, as people write them in English, German, Dutch, French, Spanish,
Italian and Portuguese. A pattern cannot know every street: names without a word such as Street or -weg are not found.
"""

import re
from collections.abc import Iterator

from gptwright.corpus.privacy.spans import Span

REACH = 72
"""Characters between a house number and the far end of the street's name."""

AFTER = (
    "street", "st", "avenue", "ave", "road", "rd", "boulevard", "blvd", "lane", "ln", "drive", "dr", "court", "ct", "square", "sq",
    "place", "pl", "terrace", "close", "crescent", "way", "parkway", "pkwy", "highway", "hwy", "circle", "cir", "gardens", "grove",
    "mews", "trail", "row", "hill",
)  # fmt: skip
"""English words that end a street's name, which follows its number."""

FRENCH = (
    "rue", "avenue", "av", "boulevard", "bd", "place", "chemin", "allée", "impasse", "quai", "route", "cours", "square", "passage",
    "faubourg",
)  # fmt: skip
"""French words that begin a street's name, which follows its number."""

BEFORE = (
    "calle", "c/", "avenida", "avda", "av", "plaza", "pza", "paseo", "camino", "ronda", "carretera", "travesía", "rua", "travessa",
    "praça", "largo", "via", "viale", "piazza", "corso", "vicolo", "carrer", "carrera",
)  # fmt: skip
"""Spanish, Portuguese and Italian words that begin a street's name, which its number follows."""

ENDINGS = (
    "straße", "strasse", "str", "weg", "platz", "allee", "gasse", "ring", "damm", "ufer", "chaussee", "steig", "straat", "laan", "gracht",
    "plein", "kade", "singel", "gatan", "vägen",
)  # fmt: skip
"""German, Dutch and Swedish endings of a street's name, which its number follows."""

_UP = "A-ZÀ-ÖØ-Þ"
_LOW = "a-zß-öø-ÿœ"
_NUMBER = re.compile(r"(?<![\w.,:/#€$£+-])[0-9]{1,5}(?![0-9]|[.,:/][0-9]|[%°€$£])")
_CITY = rf"[{_UP}][{_LOW}'.-]{{1,24}}(?: (?:am|an der|de|la|le|sur|del|of|upon)?[ ]?[{_UP}][{_LOW}'.-]{{1,24}}){{0,2}}"
_UK_CODE = r"[A-Z]{1,2}[0-9][A-Z0-9]? ?[0-9][A-Z]{2}"
_ENDS = "|".join([*(word.capitalize() for word in AFTER), *(word.upper() for word in AFTER if len(word) > 3)])
_ENGLISH = re.compile(
    r"[0-9]{1,5}[A-Za-z]?(?:-[0-9]{1,4})?,? (?:(?:North|South|East|West|N|S|E|W|NE|NW|SE|SW)\.? )?"
    rf"(?:(?:[{_UP}][A-Za-z'’.-]{{1,20}}|[0-9]{{1,3}}(?:st|nd|rd|th)) ){{1,3}}?"
    rf"(?:{_ENDS})\b\.?(?! (?:{_ENDS})\b)(?: (?:North|South|East|West|N|S|E|W|NE|NW|SE|SW)\b\.?)?"
    r"(?:,? (?:Apt|Apartment|Suite|Ste|Unit|Flat|Floor|No)\b\.? ?#?\w{1,6}|,? #\w{1,6})?"
    rf"(?:(?:,|\n|,\n)[ ]?{_CITY}(?:,? (?:[A-Z]{{2}}\.? [0-9]{{5}}(?:-[0-9]{{4}})?|{_UK_CODE}))?|,? {_UK_CODE})?"
)
_ENGLISH_TOO = ("cours", "passage", "route", "quai")  # and those in AFTER: with a capital they may be English
_FRENCH = re.compile(
    r"[0-9]{1,4}(?: ?(?:bis|ter|quater|[A-D])\b)?,? "
    rf"(?:{'|'.join(w if w in AFTER or w in _ENGLISH_TOO else f'[{w[0]}{w[0].upper()}]{w[1:]}' for w in FRENCH)})\b\.? "
    rf"(?:(?:de la|de l['’]|du|des|de|d['’]|la|le|les|aux|au)[ ]?){{0,2}}(?:[{_UP}][{_UP}{_LOW}'’.-]{{1,24}}|[0-9]{{1,2}})"
    rf"(?:[ -](?:(?:de la|de|du|des|et|d['’]|l['’])[ ]?)?[{_UP}][{_UP}{_LOW}'’-]{{1,24}}){{0,3}}"
    rf"(?:(?:,|\n|,\n)? ?[0-9]{{5}} {_CITY})?"
)
_GERMAN_BEFORE = re.compile(
    rf"(?:[{_UP}][{_UP}{_LOW}-]{{0,40}}?(?:{'|'.join(ENDINGS)}|-(?:{'|'.join(w.capitalize() for w in ENDINGS)}))|"
    rf"(?:[{_UP}][{_LOW}-]{{1,24}} ){{1,2}}(?:Straße|Strasse|Str|Weg|Platz|Allee|Gasse|Ring|Damm|Ufer|Chaussee|Straat|Laan|Plein))\.? $"
)
_GERMAN_AFTER = re.compile(
    rf"[0-9]{{1,4}}(?: ?[a-h]\b)?(?:[-–/][0-9]{{1,4}})?(?:(?:,|\n|,\n) ?(?:[A-Z]{{1,2}}-)?[0-9]{{4,5}}(?: [A-Z]{{2}})? {_CITY})?"
)
_SPANISH_BEFORE = re.compile(
    rf"(?:\b(?:{'|'.join(f'[{w[0]}{w[0].upper()}]{w[1:]}' for w in BEFORE if w != 'c/')})\b\.?|\b[Cc]/) ?"
    rf"(?:(?:de la|de los|de las|del|della|dei|degli|delle|de|da|do|dos|das|di|la|el|los|las)[ ]){{0,2}}"
    rf"(?:[{_UP}][{_UP}{_LOW}'’.-]{{1,24}} ?(?:(?:de la|de los|de|del|della|da|do|di|y|e) )?){{1,4}},? ?(?:n\.?º ?|nº ?|núm\.? |número |n\. ?)?$"
)
_SPANISH_AFTER = re.compile(
    rf"[0-9]{{1,4}}(?:[,-]? ?[0-9]{{1,2}}\.?[ºª](?: ?[A-Z]\b)?|-[0-9]{{1,2}}(?![0-9]))?(?:(?:,|\n|,\n) ?[0-9]{{4,5}}(?:-[0-9]{{3}})? {_CITY})?"
)
_VIA = re.compile(r"via\b[^,]*$", re.IGNORECASE)
_GOES_ON = re.compile(r" \w")  # "via Paris 3 days later": the street is Italian, the word is everyone's
_YEAR = re.compile(r"(?:1[5-9]|20)[0-9][0-9]")
_YEARS = re.compile(r"(?:19|20)[0-9]{2}(?:-[0-9]{1,4})?, |(?:19|20)[0-9]{2}-")  # "1991-1998, Thomas G. Lane"
_YEAR_WORD = re.compile(
    r"\b(in|since|by|until|till|after|before|during|from|of|year|and|to|early|late|mid|autumn|spring|summer|winter|january|february|march|"
    r"april|may|june|july|august|september|october|november|december)[,\s-]{1,2}$",
    re.IGNORECASE,
)


def addresses(text: str, start: int, end: int) -> Iterator[Span]:
    """Street addresses whose house number begins in ``text[start:end]``."""
    limit = min(len(text), end + 8)
    for number in _NUMBER.finditer(text, start, limit):
        if number.start() >= end:
            return
        if span := _address_at(text, number.start(), number.end()):
            yield span


def _address_at(text: str, start: int, end: int) -> Span | None:
    for pattern in (_ENGLISH, _FRENCH):
        match = pattern.match(text, start, start + 200)
        if (
            match
            and not _YEARS.match(match[0])
            and not (_YEAR.fullmatch(text[start:end]) and _YEAR_WORD.search(text[max(0, start - 12) : start]))
        ):
            return Span(*match.span(), "ADDRESS")
    if not start or text[start - 1] not in " ºo./":
        return None
    since = max(0, start - REACH)
    before = text[since:start]
    if _YEAR.fullmatch(text[start:end]):
        return None  # "am Ring 1968": a street with so many houses is rarer than a year
    for first, rest in ((_GERMAN_BEFORE, _GERMAN_AFTER), (_SPANISH_BEFORE, _SPANISH_AFTER)):
        if match := first.search(before):
            after = rest.match(text, start, start + 120)
            if after is not None and not (_VIA.match(match[0]) and _GOES_ON.match(text, after.end())):
                return Span(since + match.start(), after.end(), "ADDRESS")
    return None
