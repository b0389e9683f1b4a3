"""National numbers of persons for the planted set, with check digits computed by the issuers' rules (a second time: no detector's code)."""

import random
import string

from gptwright.corpus.privacy.planted_numbers import birth, luhn, some

_DIGITS = string.digits


def national_id(rng: random.Random, country: str) -> str:
    """Personal numbers of a country with their check digits, by the issuers' rules."""
    year, month, day = birth(rng)
    date = f"{year % 100:02d}{month:02d}{day:02d}"
    if country == "us":
        area = rng.choice([n for n in range(1, 900) if n != 666])
        return f"{area:03d}-{rng.randint(1, 99):02d}-{rng.randint(1, 9999):04d}"
    if country == "gb":
        made = rng.choice("ABCEHJLMPRSTW") + rng.choice("ABCEHJLMPRSTW") + some(rng, 6) + rng.choice("ABCD")
        return made if rng.random() < 0.5 else f"{made[:2]} {made[2:4]} {made[4:6]} {made[6:8]} {made[8]}"
    if country == "nhs":
        while True:
            body = str(rng.randint(4, 7)) + some(rng, 8)
            check = 11 - sum(int(c) * (10 - at) for at, c in enumerate(body)) % 11
            if check != 10:
                made = body + str(check % 11)
                return rng.choice((made, f"{made[:3]} {made[3:6]} {made[6:]}"))
    if country == "de":
        return _german(rng)
    if country == "fr":
        body = f"{rng.randint(1, 2)}{year % 100:02d}{month:02d}{rng.randint(1, 95):02d}{rng.randint(1, 990):03d}{rng.randint(1, 990):03d}"
        made = f"{body}{97 - int(body) % 97:02d}"
        return rng.choice(
            (made, f"{made[0]} {made[1:3]} {made[3:5]} {made[5:7]} {made[7:10]} {made[10:13]} {made[13:]}")
        )
    if country == "es":
        letters = "TRWAGMYFPDXBNJZSQVHLCKE"
        if rng.random() < 0.3:
            lead, body = rng.randrange(3), some(rng, 7)
            return f"{'XYZ'[lead]}{rng.choice(('', '-'))}{body}{letters[int(f'{lead}{body}') % 23]}"
        body = some(rng, 8)
        return f"{body}{rng.choice(('', '-', ' '))}{letters[int(body) % 23]}"
    if country == "it":
        return _italian(rng, year, month, day)
    if country == "nl":
        while True:
            body = str(rng.randint(1, 9)) + some(rng, 7)
            check = sum(int(c) * (9 - at) for at, c in enumerate(body)) % 11
            if check < 10:
                return f"{body}{check}"
    if country == "pl":
        body = date + some(rng, 4)
        return body + str(-sum(int(c) * w for c, w in zip(body, (1, 3, 7, 9) * 3, strict=False)) % 10)
    if country == "br":
        body = some(rng, 9)
        for _ in range(2):
            rest = sum(int(c) * (len(body) + 1 - at) for at, c in enumerate(body)) % 11
            body += str(0 if rest < 2 else 11 - rest)
        return rng.choice((body, f"{body[:3]}.{body[3:6]}.{body[6:9]}-{body[9:]}"))
    if country == "in":
        body = str(rng.randint(2, 9)) + some(rng, 10)
        made = body + _verhoeff(body)
        return rng.choice((made, f"{made[:4]} {made[4:8]} {made[8:]}"))
    if country == "se":
        body = date + some(rng, 3)
        return f"{date}-{body[6:]}{luhn(body)}"
    if country == "fi":
        serial = rng.randint(2, 899)
        number = int(f"{day:02d}{month:02d}{year % 100:02d}{serial:03d}")
        return f"{day:02d}{month:02d}{year % 100:02d}-{serial:03d}{'0123456789ABCDEFHJKLMNPRSTUVWXY'[number % 31]}"
    serial = rng.randint(1, 997)  # Belgium
    check = 97 - int(f"{date}{serial:03d}") % 97
    return f"{date[:2]}.{date[2:4]}.{date[4:]}-{serial:03d}.{check:02d}"


def _german(rng: random.Random) -> str:
    """One digit of the first ten stands twice (or three times), one is missing; ISO 7064 MOD 11,10."""
    kinds = rng.sample(_DIGITS, 9)
    body = [*kinds, kinds[0]]
    while True:
        rng.shuffle(body)
        if body[0] != "0":
            break
    product = 10
    for c in body:
        total = (int(c) + product) % 10 or 10
        product = total * 2 % 11
    made = "".join(body) + str((11 - product) % 10)
    return rng.choice((made, f"{made[:2]} {made[2:5]} {made[5:8]} {made[8:]}"))


def _italian(rng: random.Random, year: int, month: int, day: int) -> str:
    odd = (1, 0, 5, 7, 9, 13, 15, 17, 19, 21, 2, 4, 18, 20, 11, 3, 6, 8, 12, 14, 16, 10, 22, 25, 24, 23)
    consonants = "BCDFGLMNPRSTVZ"
    place = f"{rng.choice('ABCDEFGHL')}{rng.randint(101, 899)}"
    body = (
        f"{some(rng, 6, consonants)}{year % 100:02d}{'ABCDEHLMPRST'[month - 1]}{day + rng.choice((0, 40)):02d}{place}"
    )
    total = 0
    for at, c in enumerate(body):
        value = int(c) if c.isdigit() else ord(c) - 65
        total += odd[value] if at % 2 == 0 else value
    return body + chr(65 + total % 26)


def _verhoeff(body: str) -> str:
    """Verhoeff 1969: the dihedral group of order ten."""

    def times(a: int, b: int) -> int:
        if a < 5:
            return (a + b) % 5 if b < 5 else (a + b - 5) % 5 + 5
        return (a - 5 - b) % 5 + 5 if b < 5 else (a - b) % 5

    step = (1, 5, 7, 6, 2, 8, 3, 0, 9, 4)
    check = 0
    for at, c in enumerate(reversed(body), 1):
        value = int(c)
        for _ in range(at % 8):
            value = step[value]
        check = times(check, value)
    return str((0, 4, 3, 2, 1, 5, 6, 7, 8, 9)[check])
