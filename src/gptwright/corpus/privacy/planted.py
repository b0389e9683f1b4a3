"""The planted set: documents with personal data at known places, made by the public formats and never by the detectors' own patterns.

Checksums are computed here a second time; nothing of the detectors is imported. People, numbers and keys are drawn at random.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from gptwright.corpus.privacy.planted_ids import national_id
from gptwright.corpus.privacy.planted_numbers import (
    address,
    card,
    email,
    iban,
    ipv4,
    ipv6,
    jwt,
    negative,
    password,
    pem,
    phone,
    token,
)
from gptwright.corpus.privacy.planted_phrases import CARRIERS, ID_CARRIERS, NEGATIVES, PROSE, UNCLAIMED

PLANTED = {
    "email": "EMAIL", "phone": "PHONE", "ipv4": "IP", "ipv6": "IP", "iban": "IBAN", "card": "CARD", "national id": "NATIONAL_ID",
    "token": "SECRET", "jwt": "SECRET", "private key": "SECRET", "password": "SECRET", "address": "ADDRESS",
}  # fmt: skip
"""The twelve kinds that are planted, and under which name a detector should find them."""


@dataclass(frozen=True)
class Plant:
    """One planted thing at ``text[start:end]``; ``sort`` is a key of `PLANTED`, or ``unclaimed``."""

    start: int
    end: int
    sort: str


@dataclass(frozen=True)
class PlantedText:
    """A document, what is planted in it, and where the sentences stand that only look as if."""

    text: str
    plants: tuple[Plant, ...]
    negatives: tuple[tuple[int, int], ...]


def planted_set(n: int = 1000, seed: int = 0) -> list[PlantedText]:
    """Make documents.

    Args:
        n: how many.
        seed: the same seed gives the same documents on every machine.
    """
    rng = random.Random(seed)
    return [_document(rng) for _ in range(n)]


def _document(rng: random.Random) -> PlantedText:
    language = rng.choice(("en", "en", "en", "de", "fr", "es", "it", "nl", "pt"))
    pieces: list[tuple[str, str, str]] = []  # sentence with {}, filling, sort
    for _ in range(rng.randint(2, 7)):
        pieces.append((rng.choice(PROSE[language]), "", "prose"))
    for _ in range(rng.choice((0, 1, 1, 2, 3, 4))):
        pieces.append(_planted(rng, language))
    for _ in range(rng.choice((0, 1, 2, 3))):
        sort, sentence = rng.choice(NEGATIVES)
        pieces.append((sentence, negative(rng, sort), "negative"))
    if rng.random() < 0.1:
        pieces.append(("{}", rng.choice(UNCLAIMED), "unclaimed"))
    rng.shuffle(pieces)
    text, plants, negatives = "", [], []
    for sentence, filling, sort in pieces:
        start = len(text)
        before, gap, after = sentence.partition("{}")
        text += before
        if gap and sort not in ("prose", "negative"):
            plants.append(Plant(len(text), len(text) + len(filling), sort))
        text += (filling if gap else "") + after
        if sort == "negative":
            negatives.append((start, len(text)))
        text += rng.choice((" ", " ", "\n", "\n\n")) if sort == "prose" else rng.choice((" ", "\n"))
    return PlantedText(text, tuple(plants), tuple(negatives))


def _planted(rng: random.Random, language: str) -> tuple[str, str, str]:
    sort = rng.choice(tuple(PLANTED))
    if sort == "national id":
        country = rng.choice(tuple(ID_CARRIERS))
        _, named, bare = ID_CARRIERS[country]
        sentence = rng.choice(bare) if bare and rng.random() < 0.3 else rng.choice(named)
        return sentence, national_id(rng, country), sort
    carriers = CARRIERS[{"ipv4": "ip", "ipv6": "ip", "jwt": "token", "private key": "pem"}.get(sort, sort)]
    spoken = language if language in carriers else "en"
    sentence = rng.choice(carriers[spoken])
    if sort == "address":
        return sentence, address(rng, spoken), sort
    if sort == "phone":
        return sentence, phone(rng, spoken), sort
    makers: dict[str, Callable[[random.Random], str]] = {
        "email": email, "ipv4": ipv4, "ipv6": ipv6, "iban": iban, "card": card, "token": token, "jwt": jwt, "private key": pem,
        "password": password,
    }  # fmt: skip
    filling = makers[sort](rng)
    if "K2d9Qm41xZ" in sentence:  # the filling goes on to the closing quote
        sentence, filling = sentence.replace("K2d9Qm41xZ", ""), filling + "K2d9Qm41xZ"
    return sentence, filling, sort
