"""What is planted: e-mail addresses, numbers with their checksums, keys, street addresses, drawn at random by their public formats."""

import base64
import json
import random
import string
from collections.abc import Callable

_DIGITS = string.digits
_Make = Callable[[random.Random], str]
_ALNUM = string.ascii_letters + string.digits
_FIRST = ("anna", "jo", "maria", "li", "tom", "fatima", "pedro", "ingrid", "sam", "olga", "noah", "chloé", "björn")
_LAST = ("keller", "smith", "garcía", "rossi", "nguyen", "dubois", "jansen", "silva", "o_neil", "kowalski", "lee")
_HOSTS = ("example", "post-box", "uni-nord", "mail7", "firma", "correo", "lab.physics", "my-shop", "web2", "müller-bau")
_TLDS = ("com", "org", "net", "de", "co.uk", "fr", "es", "it", "io", "museum", "edu", "info", "com.br")


def some(rng: random.Random, n: int, of: str = _DIGITS) -> str:
    """Characters drawn from some."""
    return "".join(rng.choice(of) for _ in range(n))


def _like(rng: random.Random, shape: str, mark: str = "0") -> str:
    """Digits for every mark of a shape."""
    return "".join(rng.choice(_DIGITS) if c == mark else c for c in shape)


def email(rng: random.Random) -> str:
    """Addresses as people and companies form them."""
    first, last = rng.choice(_FIRST), rng.choice(_LAST)
    local = rng.choice((f"{first}.{last}", f"{first[0]}{last}", f"{first}_{last}{rng.randint(1, 99)}", first, f"{first}+news", f"{last}-{first}",
                        "info", f"{first}{rng.randint(1950, 2010)}"))  # fmt: skip
    made = f"{local}@{rng.choice(_HOSTS)}.{rng.choice(_TLDS)}"
    return made.upper() if rng.random() < 0.05 else made


def phone(rng: random.Random, language: str) -> str:
    """Numbers by national plans: areas and lengths are real, the rest is drawn."""
    country = {"de": "DE", "fr": "FR", "es": "ES", "it": "IT", "nl": "NL", "pt": "PT"}.get(
        language, rng.choice(("US", "US", "GB", "IN", "AU"))
    )
    if rng.random() < 0.15:
        country = rng.choice(("US", "GB", "DE", "FR", "ES", "IT", "NL", "IN", "SE", "PL"))
        return rng.choice(_ABROAD[country])(rng)
    return rng.choice((*_HOME[country], _ABROAD[country][0], _ABROAD[country][-1]))(rng)


def _us(shape: str) -> _Make:
    areas = ("212", "305", "415", "503", "617", "702", "801", "919", "206", "312")
    return lambda rng: shape.format(
        rng.choice(areas), str(rng.randint(2, 9)) + some(rng, 1) + str(rng.randint(2, 9)), some(rng, 4)
    )


def _of(*shapes: str) -> _Make:
    return lambda rng: _like(rng, rng.choice(shapes).replace("N", str(rng.randint(2, 8))), "#")


_HOME = {
    "US": (_us("({}) {}-{}"), _us("{}-{}-{}"), _us("{}.{}.{}"), _us("1-{}-{}-{}"), _us("{} {} {}"), _us("({}){}-{}")),
    "GB": (_of("020 7N## ####", "0161 N## ####", "07700 N#####"), _of("(020) 8N## ####", "0121-N##-####"), _of("07725N#####")),
    "DE": (_of("030 N######", "089/N######", "0171 N######"), _of("(040) N## ## ##", "0221-N######"), _of("0152N#######")),
    "FR": (_of("01 4N ## ## ##", "06 1N ## ## ##"), _of("04.7N.##.##.##"), _of("061N######")),
    "ES": (_of("91N ## ## ##", "61N ### ###"), _of("93N######"), _of("65N-##-##-##")),
    "IT": (_of("06 N### ####", "34N ### ####"), _of("02 N#######"), _of("33N#######")),
    "NL": (_of("020 N## ####", "06 1N######"), _of("010-N######"), _of("06-2N ## ## ##")),
    "PT": (_of("21N ### ###", "91N ### ###"), _of("22N######"), _of("93N ### ###")),
    "IN": (_of("98N## #####", "080 2N## ####"), _of("99N#######"), _of("97N-###-####")),
    "AU": (_of("(02) 9N## ####", "0412 N## ###"), _of("03 9N## ####"), _of("0421N#####")),
}  # fmt: skip
_ABROAD = {
    "US": (_us("+1 {} {} {}"), _us("+1-{}-{}-{}"), _us("+1{}{}{}"), _us("+1 ({}) {}-{}")),
    "GB": (_of("+44 20 7N## ####", "0044 (0) 20 7N## ####"), _of("+44 (0)161 N## ####"), _of("+447725N#####")),
    "DE": (_of("+49 30 N######", "+49/30/N######", "(+49) 30 N######"), _of("0049 171 N######"), _of("+49 (0) 89 N######", "+49-221-N######")),
    "FR": (_of("+33 1 4N ## ## ##"), _of("0033 6 1N ## ## ##"), _of("+33 (0)4 7N ## ## ##")),
    "ES": (_of("+34 91N ## ## ##"), _of("+3461N######")),
    "IT": (_of("+39 06 N### ####"), _of("+39 34N #######")),
    "NL": (_of("+31 20 N## ####"), _of("+31 6 1N######")),
    "PT": (_of("+351 21N ### ###"), _of("+35191N######")),
    "IN": (_of("+91 98N## #####"), _of("+91-99N#######")),
    "AU": (_of("+61 2 9N## ####"), _of("+61 412 N## ###")),
    "SE": (_of("+46 8 N## ### ##"), _of("+46 70 N## ## ##")),
    "PL": (_of("+48 22 N## ## ##"), _of("+48 60N ### ###")),
}  # fmt: skip


def ipv4(rng: random.Random) -> str:
    """An address with parts of all lengths."""
    return ".".join(
        str(n)
        for n in (
            rng.choice((10, 81, 172, 192, 203, 217)),
            rng.randint(10, 255),
            rng.randint(0, 255),
            rng.randint(1, 254),
        )
    )


def ipv6(rng: random.Random) -> str:
    """RFC 4291, with the short forms of RFC 5952."""
    groups = [f"{rng.randrange(65536):x}" for _ in range(8)]
    groups[0] = rng.choice(("2001", "2a02", "2600", "fe80", "fd12"))
    if rng.random() < 0.3:
        return ":".join(groups)
    keep = rng.randint(2, 4)
    short = ":".join(groups[:keep]) + "::" + ":".join(groups[keep : keep + rng.randint(1, 2)])
    return short.upper() if rng.random() < 0.1 else short


def iban(rng: random.Random) -> str:
    """ISO 13616: check digits that make the remainder 1 of 97; in one piece or in fours."""
    country, shape = rng.choice((("DE", "0" * 18), ("GB", "AAAA" + "0" * 14), ("FR", "0" * 23), ("ES", "0" * 20), ("IT", "A" + "0" * 22),
                                 ("NL", "AAAA" + "0" * 10), ("CH", "0" * 17),
                                  ("AT", "0" * 16), ("BE", "0" * 12), ("PL", "0" * 24), ("NO", "0" * 11)))  # fmt: skip
    body = "".join(rng.choice(string.ascii_uppercase) if c == "A" else rng.choice(_DIGITS) for c in shape)
    number = int("".join(str(int(c, 36)) for c in body + country + "00"))
    plain = f"{country}{98 - number % 97:02d}{body}"
    spaced = " ".join(plain[at : at + 4] for at in range(0, len(plain), 4))
    return rng.choice((plain, spaced, spaced))


def card(rng: random.Random) -> str:
    """ISO/IEC 7812 with Luhn's digit."""
    start, n = rng.choice(
        (
            ("4", 16),
            ("4", 16),
            ("51", 16),
            ("55", 16),
            ("2221", 16),
            ("34", 15),
            ("37", 15),
            ("6011", 16),
            ("36", 14),
            ("3530", 16),
        )
    )
    body = start + some(rng, n - 1 - len(start))
    plain = body + luhn(body)
    groups = (4, 6, 5) if n == 15 else (4, 6, 4) if n == 14 else (4, 4, 4, 4)
    parts, at = [], 0
    for size in groups:
        parts.append(plain[at : at + size])
        at += size
    return rng.choice((plain, " ".join(parts), "-".join(parts)))


def luhn(body: str) -> str:
    """The check digit of ISO/IEC 7812."""
    total = 0
    for at, c in enumerate(reversed(body)):
        value = int(c) * (2 if at % 2 == 0 else 1)
        total += value - 9 if value > 9 else value
    return str(-total % 10)


def birth(rng: random.Random) -> tuple[int, int, int]:
    """Year, month, day."""
    return rng.randint(1940, 1999), rng.randint(1, 12), rng.randint(1, 28)


def token(rng: random.Random) -> str:
    """Keys in the shapes that issuers document."""
    return rng.choice((
        lambda: rng.choice(("AKIA", "ASIA")) + some(rng, 16, string.ascii_uppercase + "234567"),
        lambda: rng.choice(("ghp_", "gho_", "ghs_")) + some(rng, 36, _ALNUM),
        lambda: f"github_pat_{some(rng, 22, _ALNUM)}_{some(rng, 59, _ALNUM)}",
        lambda: "glpat-" + some(rng, 20, _ALNUM + "_-"[:1]),
        lambda: f"xoxb-{some(rng, 12)}-{some(rng, 12)}-{some(rng, 24, _ALNUM)}",
        lambda: rng.choice(("sk_live_", "sk_test_", "rk_live_")) + some(rng, 24, _ALNUM),
        lambda: "sk-proj-" + some(rng, 48, _ALNUM),
        lambda: "sk-" + some(rng, 20, _ALNUM) + "T3BlbkFJ" + some(rng, 20, _ALNUM),
        lambda: "sk-ant-api03-" + some(rng, 93, _ALNUM) + "AA",
        lambda: "AIza" + some(rng, 35, _ALNUM),
        lambda: "npm_" + some(rng, 36, _ALNUM),
        lambda: "hf_" + some(rng, 34, string.ascii_letters),
    ))()  # fmt: skip


def _b64(rng: random.Random, n: int) -> str:
    return base64.b64encode(rng.randbytes(n)).decode()


def jwt(rng: random.Random) -> str:
    """RFC 7519, signed with a random signature."""

    def part(data: bytes) -> str:
        return base64.urlsafe_b64encode(data).decode().rstrip("=")

    head = part(json.dumps({"alg": rng.choice(("HS256", "RS256", "ES256")), "typ": "JWT"}).encode())
    body = part(json.dumps({"sub": some(rng, 10), "iat": 1_500_000_000 + rng.randrange(10**8)}).encode())
    return f"{head}.{body}.{part(rng.randbytes(32))}"


def pem(rng: random.Random) -> str:
    """RFC 7468 and its elder forms."""
    label = rng.choice(("RSA PRIVATE KEY", "PRIVATE KEY", "EC PRIVATE KEY", "OPENSSH PRIVATE KEY"))
    body = _b64(rng, rng.choice((120, 600, 1200)))
    lines = "\n".join(body[at : at + 64] for at in range(0, len(body), 64))
    return f"-----BEGIN {label}-----\n{lines}\n-----END {label}-----"


def password(rng: random.Random) -> str:
    """Passwords of machines and of people."""
    return rng.choice((
        lambda: some(rng, rng.randint(10, 24), _ALNUM),
        lambda: rng.choice(("Tiger", "sommer", "Blue", "coffee", "Passau")) + some(rng, 3) + rng.choice("!?_-"),
        lambda: "-".join(some(rng, 5, string.ascii_lowercase + _DIGITS) for _ in range(3)) + "7",
    ))()  # fmt: skip


def address(rng: random.Random, language: str) -> str:
    """A street and a house number in the order and with the words of a country; one in six has a name that tells of no street."""
    n = rng.randint(1, 240)
    if rng.random() < 1 / 6:
        odd = (
            "Unter den Linden {}", "Am Markt {}", "Kurfürstendamm {}", "Prinsengracht {}", "Rua Augusta, {}", "Piazza San Marco, {}",
            "{} Broadway", "Rue du Faubourg Saint-Honoré, {}", "{} Pennsylvania Avenue NW", "Via Garibaldi, {}", "{} MAIN STREET",
            "Gran Vía {}", "{} The Mall", "Jungfernstieg {}", "{} W 42nd Street, New York, NY 10036", "Drottninggatan {}",
            "{} Upper Brook Street, London W1K 7QU", "Schloßstr. {}, 12163 Berlin",
        )  # fmt: skip
        return rng.choice(odd).format(n)
    streets = {
        "de": ("Hauptstraße", "Goethestr.", "Am Alten Weg", "Lange Straße", "Karl-Marx-Allee", "Bahnhofsplatz", "Kirchgasse", "Mozartweg"),
        "fr": ("rue de la Paix", "avenue Victor Hugo", "boulevard Saint-Michel", "place du Marché", "rue des Lilas", "chemin de l'Église",
               "quai Voltaire"),
        "es": ("Calle Mayor", "C/ Alcalá", "Avenida de la Constitución", "Plaza de España", "Paseo de Gracia", "Avda. Diagonal",
               "calle del Pez"),
        "en": ("Maple", "Church", "Oak Hill", "Martin Luther King", "N. Lincoln", "42nd", "Queen's", "St. Mary's", "Elm", "South Park"),
    }  # fmt: skip
    street = rng.choice(streets[language])
    if language == "de":
        return f"{street} {n}{rng.choice(('', '', 'a', ' b'))}"
    if language == "fr":
        return f"{n}{rng.choice(('', '', ' bis', ' ter'))}{rng.choice((' ', ', '))}{street}"
    if language == "es":
        return f"{street}{rng.choice((', ', ' ', ', n.º '))}{n}"
    kinds = ("Street", "St", "St.", "Avenue", "Ave", "Road", "Rd", "Lane", "Drive", "Blvd", "Close", "Court", "Terrace")
    number = rng.choice((n, n, rng.randint(1000, 9999)))
    return f"{number}{rng.choice(('', '', '', 'B'))} {street} {rng.choice(kinds)}{rng.choice(('', '', ', Apt 4', ', Suite 210'))}"


def negative(rng: random.Random, sort: str) -> str:
    """A number of a sort that is nobody's."""
    if sort == "isbn13":
        body = "978" + some(rng, 9)
        check = -sum(int(c) * (3 if at % 2 else 1) for at, c in enumerate(body)) % 10
        return rng.choice((f"{body}{check}", f"978-{body[3]}-{body[4:8]}-{body[8:12]}-{check}"))
    shapes = {
        "isbn10": ("0-000-00000-0", "0000000000"), "issn": ("0000-0000",), "version": ("10.0.00000.0000", "4.18.0.25", "2.10.14.3", "0.00.0"),
        "single_version": ("1.2.3.4", "3.0.1.9"), "range": ("1914-1918", "1989–2004", "1998 - 2001"),
        "order": ("00000000", "0000000000", "000-0000000-0000000", "AB-00000-00", "2000-00000"), "price": ("$1,200.00", "1.299,00 €", "USD 25000000"),
        "coordinates": ("48.000000, 11.000000", "-33.00000,151.00000"), "doi": ("10.0000/s00000-000-0000-0", "10.1000/000000"),
        "part": ("000-00-0000", "00-000-0000", "000.000.000", "0000-000-000", "AB 00 00 00 X"), "sku": ("0000000000000", "000-000-0000"),
        "large": ("1,234,000,000", "12 345 000", "8.000.000.000"), "unix": ("1600000000", "1700000000000"),
        "math": ("3.14159265358979", "0.00000000017", "6.02214076e23"), "score": ("21-17, 25-23", "3:2 and 110-98"),
    }  # fmt: skip
    if sort in shapes:
        return _like(rng, rng.choice(shapes[sort]))
    if sort == "date":
        year, month, day = birth(rng)
        return rng.choice(
            (
                f"{year}-{month:02d}-{day:02d}",
                f"{day:02d}.{month:02d}.{year}",
                f"{month}/{day}/{year}",
                f"{day}/{month:02d}/{year}",
            )
        )
    if sort == "stamp":
        year, month, day = birth(rng)
        return f"{year}-{month:02d}-{day:02d}T{rng.randrange(24):02d}:{rng.randrange(60):02d}:{rng.randrange(60):02d}Z"
    if sort == "hash":
        return some(rng, rng.choice((7, 32, 40, 64)), "0123456789abcdef")
    if sort == "uuid":
        return "-".join(some(rng, n, "0123456789abcdef") for n in (8, 4, 4, 4, 12))
    if sort == "card_like":
        made = card(rng)
        return made[:-1] + str((int(made[-1]) + 1) % 10)
    if sort == "iban_like":
        made = iban(rng)
        return made[:-1] + str((int(made[-1]) + 1) % 10)
    return ""
