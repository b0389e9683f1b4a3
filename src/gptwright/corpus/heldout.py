"""The held-out share: which documents are never trained on. A document's side hangs on what it says and on nothing else.

A text's place among 10,000 is a hash of its words; it is held out when its place lies under the share. The share is chosen at the
first build and never changes, so no document changes sides when others come or go.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

import numpy as np
import numpy.typing as npt

BUCKETS = 10_000
HELDOUT_BYTES = 64 << 10
HELDOUT_MOST = 0.2  # of a small corpus, however little that is
HELDOUT_TOO_MUCH = 0.4  # when one document would take more than this, documents are cut, or nothing is held out
UNITS = {"document": "split_id", "part": "norm_id"}  # what stays together, and the id that says so

Array = npt.NDArray[Any]


def bucket(norm_id: bytes) -> int:
    """The document's place among 10,000, by what it says: never changes when other documents come or go."""
    return int.from_bytes(blake2b(norm_id, digest_size=8).digest(), "big") % BUCKETS


def buckets(ids: Array) -> npt.NDArray[np.int16]:
    """The places of many ids.

    Args:
        ids: (n, 16) bytes or (n,) of 16 opaque bytes.
    """
    raw = np.ascontiguousarray(ids).tobytes()
    digests = b"".join([blake2b(raw[at : at + 16], digest_size=8).digest() for at in range(0, len(raw), 16)])
    return (np.frombuffer(digests, ">u8") % BUCKETS).astype(np.int16)


@dataclass
class Sizes:
    """Bytes and documents by place, for both units: all that the share is chosen from, however many documents there are."""

    n_bytes: dict[str, Array] = field(default_factory=lambda: {unit: np.zeros(BUCKETS, np.int64) for unit in UNITS})
    documents: dict[str, Array] = field(default_factory=lambda: {unit: np.zeros(BUCKETS, np.int64) for unit in UNITS})

    def add(self, places: Mapping[str, Array], n_bytes: Array, alive: Array) -> None:
        """Count the documents of a part that no rule dropped."""
        for unit, of in places.items():
            self.documents[unit] += np.bincount(of[alive], minlength=BUCKETS)
            # float64 sums of whole numbers are exact up to 2**53 bytes
            self.n_bytes[unit] += np.bincount(of[alive], weights=n_bytes[alive], minlength=BUCKETS).astype(np.int64)


def choose_share(sizes: Sizes, asked: float, fixed: tuple[float, str] | None) -> tuple[float, str, list[str]]:
    """The held-out share: what the first build fixed, or now the smallest that is asked for and holds 64 KB (20 % at most).

    Args:
        sizes: of the documents that no rule dropped.
        asked: the configured share.
        fixed: share and unit of the first build.

    Returns:
        The share, the unit that stays together, and what is to be said about it.
    """
    total = float(sizes.n_bytes["document"].sum())
    if fixed is not None:
        share, unit = fixed
        return share, unit, _notes(share, asked, float(sizes.n_bytes[unit][: round(share * BUCKETS)].sum()), unit)
    if asked == 0:
        return 0.0, "document", _notes(0.0, 0.0, 0.0, "document")
    target = min(max(asked * total, HELDOUT_BYTES), HELDOUT_MOST * total)
    for unit in UNITS:
        taken = np.flatnonzero(sizes.documents[unit])
        reached = int(np.searchsorted(np.cumsum(sizes.n_bytes[unit][taken]), target)) if len(taken) else 0
        needed = (int(taken[reached]) + 1) / BUCKETS if reached < len(taken) else 0.0
        share = max(asked, needed)
        got = float(sizes.n_bytes[unit][: round(share * BUCKETS)].sum())
        if got <= HELDOUT_TOO_MUCH * total:
            return share, unit, _notes(share, asked, got, unit)
    return asked, "document", _notes(asked, asked, 0.0, "document")


def _notes(share: float, asked: float, got: float, unit: str) -> list[str]:
    if got == 0:
        reason = "as configured" if share == 0 else "there are too few documents"
        return [f"nothing is held out ({reason}): the model cannot be measured on unseen text"]
    notes = []
    if share > asked:
        notes.append(
            f"the held-out share is {share:.2%} instead of {asked:.2%}, so that {got / 1024:.0f} KB are there to measure on"
        )
    elif share < asked:
        notes.append(f"the held-out share stays {share:.2%}, as the first build fixed it (now asked for: {asked:.2%})")
    if got < HELDOUT_BYTES:
        notes.append(f"only {got / 1024:.1f} KB are held out: measured numbers will be rough")
    if unit == "part":
        notes.append("there are few documents, so the held-out part is cut from inside them")
    return notes
