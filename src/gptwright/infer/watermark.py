"""A mark in the choice of words that only the key can see: put there while sampling, found again in the text alone.

Each token is drawn by a small tournament. For the four tokens before it, the key gives every candidate ten bits; layer by layer, the candidate
whose bit is 1 wins against one whose bit is 0. Averaged over keys the distribution stays exactly the model's (nothing gets likelier), and
about half of its entropy is left to the request's own random numbers, so that seeds and ``n`` still give different answers. In a text
without the mark each bit is 1 as often as 0, and therefore the chance of a false alarm is a binomial tail: exact, not estimated.

What cannot be marked: greedy answers, the first four tokens, places where the model has no choice, and a second occurrence of the same four
tokens in an answer (it would make loops more likely).

Source: tournament sampling, SynthID-Text (Dathathri et al., Nature 634, 2024, non-distortionary form with two candidates); repeated-context
masking from there too; Aaronson's and Kirchenbauer's schemes were weighed against it, see docs/log.md.
"""

import hashlib
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from gptwright.core.errors import UserError

WINDOW = 4  # tokens before, which the bits depend on
LAYERS = 10
KEY_BYTES = 32
FALSE_ALARMS = 0.001  # of texts that are not ours, at most so many may be called marked
ENOUGH = 100
"""Scored tokens below which "not found" means little. SmolLM2-135M's answers of 100 tokens had z of 3.5 to 5.1 at temperature 0.7 and top-p
0.9, where it has the least choice of what is usual, and 6.7 to 10.0 at temperature 1; found are those from 3.1."""

_DEPTH = math.log(1024)  # tokens less likely than this below the likeliest are left as they are
_U64 = np.uint64
_MASK = (1 << 64) - 1
_SHIFTS = np.arange(LAYERS, dtype=_U64)[:, None]

Verdict = Literal["marked", "not_found", "too_short"]


@dataclass(frozen=True)
class Detection:
    """What a text shows.

    Args:
        tokens: of the text.
        scored: of those, places that could carry the mark.
        z: how many standard deviations the bits lie above half.
        p_value: chance that a text without the mark shows as much.
        false_alarms: the highest p-value that counts as marked.
    """

    tokens: int
    scored: int
    z: float
    p_value: float
    false_alarms: float

    @property
    def verdict(self) -> Verdict:
        """marked; not_found; or too_short: not found, and too little text to say that it is not there."""
        if self.p_value <= self.false_alarms:
            return "marked"
        return "too_short" if self.scored < ENOUGH else "not_found"


class Watermark:
    """The mark of one key.

    Args:
        key: secret; whoever has it can find and forge the mark.
    """

    def __init__(self, key: bytes) -> None:
        if len(key) != KEY_BYTES:
            raise ValueError(f"a watermark's key has {KEY_BYTES} bytes")
        self._key = key

    def __repr__(self) -> str:
        return "Watermark(...)"  # the key must not reach a log through a traceback

    @classmethod
    def open(cls, file: Path, *, create: bool) -> "Watermark | None":
        """Read a key's file, which only its owner can read.

        Args:
            file: hexadecimal, one line.
            create: make a new key where there is none; else None is given.

        Raises:
            UserError: it holds no key.
        """
        if not file.exists():
            if not create:
                return None
            _make(file)
        try:
            key = bytes.fromhex(file.read_text("ascii").strip())
            return cls(key)
        except (ValueError, OSError) as error:
            raise UserError(
                "this is no watermark key",
                where=str(file),
                fix="Restore it from a backup; without it, texts that it marked cannot be recognised",
            ) from error

    def seed(self, window: Sequence[int]) -> int:
        """What the key says of the tokens before, as 64 bits."""
        message = b"".join(token.to_bytes(8, "little") for token in window)
        digest = hashlib.blake2b(message, key=self._key, digest_size=8, person=b"gw-watermark-1").digest()
        return int.from_bytes(digest, "little")

    def tilt(self, logits_v: Tensor, seed: int) -> None:
        """Run the tournament on a row of processed logits, in place.

        Args:
            logits_v: (V,) fp32, -inf where filtered out.
            seed: of the tokens before.
        """
        row = logits_v.detach().cpu().numpy()
        head = np.flatnonzero(row >= row.max() - _DEPTH)
        if len(head) < 2:
            return
        weights = np.exp(row[head].astype(np.float64))
        total = weights.sum()
        p = weights / total
        bits = _bits(seed, head.astype(_U64))
        for ones in ((bits >> _SHIFTS) & _U64(1)).astype(np.float64):  # layer by layer, (n,) each
            p *= ones + max(0.0, 1.0 - float((p * ones).sum()))
        with np.errstate(divide="ignore"):
            tilted = np.log(p * total).astype(np.float32)
        logits_v[torch.from_numpy(head).to(logits_v.device)] = torch.from_numpy(tilted).to(logits_v.device)

    def detect(self, ids: Sequence[int], false_alarms: float = FALSE_ALARMS) -> Detection:
        """Look for the mark.

        Args:
            ids: the text's tokens, by the tokenizer of the model that may have written it.
            false_alarms: share of other texts that may be called marked.
        """
        seen: set[tuple[int, ...]] = set()
        ones = 0
        for at in range(WINDOW, len(ids)):
            window = tuple(ids[at - WINDOW : at])
            if window not in seen:
                seen.add(window)
                ones += _bit_count(self.seed(window), ids[at])
        flips = len(seen) * LAYERS
        z = (2 * ones - flips) / math.sqrt(flips) if flips else 0.0
        return Detection(len(ids), len(seen), z, coin_tail(ones, flips), false_alarms)


def _make(file: Path) -> None:
    """Write a new key. Nobody else can read it, from its first moment on; and if another process was first, its key counts."""
    try:
        file.parent.mkdir(parents=True, exist_ok=True)
        with open(os.open(file, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="ascii") as out:
            out.write(secrets.token_hex(KEY_BYTES) + "\n")
    except OSError as error:
        if file.exists():
            return
        raise UserError(
            f"the watermark's key cannot be written ({error.strerror})",
            where=str(file),
            fix="Make the folder writable once, put a key there, or set [guard] watermark = false",
        ) from error


def _bits(seed: int, ids: npt.NDArray[np.uint64]) -> npt.NDArray[np.uint64]:
    """64 bits for each candidate. The mixing is splitmix64's (Steele, Lea, Flood 2014)."""
    with np.errstate(over="ignore"):
        x = (ids + _U64(1)) * _U64(0x9E3779B97F4A7C15) + _U64(seed)
        x = (x ^ (x >> _U64(30))) * _U64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> _U64(27))) * _U64(0x94D049BB133111EB)
        return x ^ (x >> _U64(31))


def _bit_count(seed: int, token: int) -> int:
    """How many of a token's bits are 1; the same as ``_bits``, for one."""
    x = ((token + 1) * 0x9E3779B97F4A7C15 + seed) & _MASK
    x = ((x ^ (x >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    x = ((x ^ (x >> 27)) * 0x94D049BB133111EB) & _MASK
    return ((x ^ (x >> 31)) & ((1 << LAYERS) - 1)).bit_count()


def coin_tail(heads: int, flips: int) -> float:
    """Chance of at least so many heads in so many flips of a fair coin."""
    if heads <= 0:
        return 1.0
    if 2 * heads <= flips:  # the other side's tail is the shorter sum
        return 1.0 - coin_tail(flips - heads + 1, flips)
    term = math.exp(
        math.lgamma(flips + 1) - math.lgamma(heads + 1) - math.lgamma(flips - heads + 1) - flips * math.log(2)
    )
    total, at = 0.0, heads
    while at <= flips and term > total * 1e-17:
        total += term
        term *= (flips - at) / (at + 1)
        at += 1
    return min(1.0, total)
