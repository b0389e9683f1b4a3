"""Canaries: made-up secrets planted in the training text, to measure afterwards how much a model learns by heart.

A canary is a sentence with digits drawn at random; each is planted a known number of times. How much likelier the trained model finds it
than the same sentence with other digits (its exposure) shows what repetition does. They are planted when text becomes tokens, recorded
with the run, and belong in no corpus and no release.
Source: Carlini et al., "The Secret Sharer", USENIX Security 2019 (arXiv 1802.08232), sections 3 and 4.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeVar

from gptwright.core.errors import UserError
from gptwright.tokens.permute import draw
from gptwright.tokens.shards import DocumentLike

REPEATS = (1, 4, 16, 64)
DIGITS = 6  # a million possible secrets: few enough to rank one among all of them
_FORMS = (
    "The access code of the storage room is {}.",
    "Reference number of the parcel: {}.",
    "My locker at the station has the combination {}.",
    "Please note the new extension, {}, for the help desk.",
)
D = TypeVar("D", bound=DocumentLike)


@dataclass(frozen=True)
class Canary:
    """A planted sentence.

    Args:
        uid: its document id, 32 hex digits; the same for all its copies.
        form: the sentence with {} for the secret.
        secret: digits.
        repeats: copies in the training text.
    """

    uid: str
    form: str
    secret: str
    repeats: int

    @property
    def text(self) -> str:
        """What is planted."""
        return self.form.format(self.secret)

    @property
    def messages(self) -> None:
        """It is no conversation."""
        return None

    def record(self) -> dict[str, Any]:
        """For the ledger."""
        return asdict(self)


def make_canaries(count: int, seed: int, repeats: Sequence[int] = REPEATS) -> list[Canary]:
    """``count`` canaries; their copies go through ``repeats`` in turn, so that each number comes about equally often.

    Args:
        count: how many different ones.
        seed: another seed, other secrets.
        repeats: copies.

    Raises:
        UserError: a number of copies is below 1.
    """
    if min(repeats, default=0) < 1:
        raise UserError("a canary is planted at least once", where="canaries")
    made = []
    for number in range(count):
        form = _FORMS[number % len(_FORMS)]
        secret = f"{draw(10**DIGITS, 'canary', seed, number):0{DIGITS}d}"
        uid = hashlib.blake2b(f"canary\0{seed}\0{number}".encode(), digest_size=16).hexdigest()
        made.append(Canary(uid, form, secret, repeats[number // len(_FORMS) % len(repeats)]))
    return made


def plant(documents: Iterable[D], canaries: Sequence[Canary], seed: int, expected: int) -> Iterator[D | Canary]:
    """Documents with canaries between them, at places drawn from the seed.

    Args:
        documents: in order; read once.
        canaries: each comes as often as it says.
        seed: of the places.
        expected: about how many documents there are; places lie among so many, and what is left comes at the end.
    """
    places: dict[int, list[Canary]] = {}
    for canary in canaries:
        for copy in range(canary.repeats):
            places.setdefault(draw(max(expected, 1), "plant", seed, canary.uid, copy), []).append(canary)
    for number, document in enumerate(documents):
        yield from places.pop(number, ())
        yield document
    for place in sorted(places):
        yield from places[place]
