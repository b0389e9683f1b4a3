"""Texts that must not come back: what was erased is recognised by keyed hashes, from which nothing of it can be read.

A block holds the keyed hash of a text's ``norm_id``, and keyed hashes of its MinHash band keys, so that a copy with small changes is
recognised too. The key lies in ``state/``; without it the values tell nothing, not even whether a guessed text is among them.

With bands of 7 values, texts of Jaccard similarity s share a band with probability s^7 (Broder 1997; Leskovec et al., Mining of Massive
Datasets, 3.4). Three of 16 bands in common are then near certain from 0.9 on (0.93 at 0.85), and at 0.5 rarer than 1 in 3,000.
The text to verify with is gone, so this estimate has to do.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gptwright.core.files import atomic_write

KEY_FILE = "erasure.key"
AGREE = 3  # bands in common from which a text counts as an erased one
_BYTES = 8
Keys = npt.NDArray[np.uint64]


@dataclass(frozen=True)
class Block:
    """One erased text.

    Args:
        mac: keyed hash of its norm_id, 16 bytes.
        sketch: keyed band keys, 8 bytes each; none for texts too short to have any.
    """

    mac: bytes
    sketch: tuple[bytes, ...] = ()

    def dump(self) -> tuple[str, str | None]:
        """As hex, for a table."""
        return self.mac.hex(), b"".join(self.sketch).hex() or None

    @classmethod
    def load(cls, mac: str, sketch: str | None) -> "Block":
        """What ``dump`` gave."""
        raw = bytes.fromhex(sketch or "")
        return cls(bytes.fromhex(mac), tuple(raw[at : at + _BYTES] for at in range(0, len(raw), _BYTES)))


@dataclass(frozen=True)
class Blocks:
    """All erased texts.

    Args:
        key: 32 secret bytes.
        blocks: one a text.
    """

    key: bytes = field(repr=False)
    blocks: Sequence[Block] = ()

    @cached_property
    def macs(self) -> frozenset[bytes]:
        """Keyed hashes of erased texts and places."""
        return frozenset(block.mac for block in self.blocks)

    def mac(self, norm_id: bytes) -> bytes:
        """Keyed hash of a norm_id (16 bytes), 16 bytes."""
        return blake2b(norm_id, key=self.key, digest_size=16, person=b"erased-text").digest()

    def mac_of_place(self, doc_uid: bytes) -> bytes:
        """Keyed hash of a doc_uid (16 bytes), 16 bytes: blocks a text at one place, while copies elsewhere may stay."""
        return blake2b(doc_uid, key=self.key, digest_size=16, person=b"erased-place").digest()

    def block(self, norm_id: bytes, keys: Keys | None = None) -> Block:
        """The block of a text: its norm_id (16 bytes) and its MinHash band keys (bands,) uint64, if it has any."""
        return Block(self.mac(norm_id), self._keyed(keys) if keys is not None else ())

    def holds(self, doc_uid: bytes, norm_id: bytes) -> bool:
        """Whether a document is erased, by its text or at its place."""
        return self.mac(norm_id) in self.macs or self.mac_of_place(doc_uid) in self.macs

    def match(self, norm_ids: Sequence[bytes], keys: Keys | None = None) -> list[int]:
        """Which documents are erased texts, or nearly.

        Args:
            norm_ids: of the documents, 16 bytes each.
            keys: (documents, bands) uint64; None compares whole texts only.

        Returns:
            Rows, ascending.
        """
        macs = self.macs
        found = {row for row, norm_id in enumerate(norm_ids) if self.mac(norm_id) in macs}
        holders: dict[bytes, list[int]] = {}
        for number, block in enumerate(self.blocks):
            for value in block.sketch:
                holders.setdefault(value, []).append(number)
        if keys is not None and holders:
            for row in range(len(norm_ids)):
                shared: dict[int, int] = {}
                for value in self._keyed(keys[row]):
                    for number in holders.get(value, ()):
                        shared[number] = shared.get(number, 0) + 1
                if max(shared.values(), default=0) >= AGREE:
                    found.add(row)
        return sorted(found)

    def _keyed(self, keys: Keys) -> tuple[bytes, ...]:
        """Each value under the key; values of two bands differ already, for the band goes into them."""
        return tuple(
            blake2b(int(value).to_bytes(8, "little"), key=self.key, digest_size=_BYTES, person=b"erased-band").digest()
            for value in keys
        )


def erasure_key(state: Path, *, make: bool = False) -> bytes | None:
    """The project's key for erased texts, ``state/erasure.key``, readable by its owner only.

    Args:
        state: the project's ``state`` folder.
        make: make one when there is none.
    """
    path = state / KEY_FILE
    if not path.exists():
        if not make:
            return None
        state.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            file.write(secrets.token_bytes(32))
        path.chmod(0o600)
    return path.read_bytes()
