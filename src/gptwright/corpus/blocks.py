"""Texts that must not come back: what was erased is recognised by keyed hashes, from which nothing of it can be read.

A block holds the keyed hash of a text's ``norm_id``, and keyed values of its MinHash signature, so that a copy with small changes is
recognised too. The key lies in ``state/``; without it the values tell nothing, not even whether a guessed text is among them.
Whether two signatures agree is an estimate of similarity (Broder 1997), since the text to verify with is gone; hence the high bar.
"""

import secrets
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from pathlib import Path

import numpy as np
import numpy.typing as npt

from gptwright.core.files import atomic_write

KEY_FILE = "erasure.key"
AGREE = 0.85  # share of equal signature values from which a text counts as an erased one; above the bar for near copies
_BYTES = 4
_FEW = 16  # of two texts that agree in 85 %, fewer than 1 in 1,000 pairs agree in under half of 16 values


@dataclass(frozen=True)
class Block:
    """One erased text.

    Args:
        mac: keyed hash of its norm_id, 16 bytes.
        sketch: keyed values of its signature, (K,) uint32; None for texts too short to have one.
    """

    mac: bytes
    sketch: npt.NDArray[np.uint32] | None = None


@dataclass(frozen=True)
class Blocks:
    """All erased texts.

    Args:
        key: 32 secret bytes.
        blocks: one a text.
    """

    key: bytes = field(repr=False)
    blocks: Sequence[Block] = ()

    def __bool__(self) -> bool:
        return bool(self.blocks)

    @property
    def macs(self) -> frozenset[bytes]:
        """Keyed hashes of the erased texts' norm_ids."""
        return frozenset(block.mac for block in self.blocks)

    def mac(self, norm_id: bytes) -> bytes:
        """Keyed hash of a norm_id (16 bytes), 16 bytes."""
        return blake2b(norm_id, key=self.key, digest_size=16, person=b"erased-text").digest()

    def block(self, norm_id: bytes, signature: npt.NDArray[np.uint32] | None) -> Block:
        """The block of a text: its norm_id (16 bytes) and its MinHash signature (K,) uint32, if it has one."""
        return Block(self.mac(norm_id), self._keyed(signature) if signature is not None else None)

    def match(
        self,
        norm_ids: Sequence[bytes],
        signatures: npt.NDArray[np.uint32] | None,
        signed: Collection[int] | None = None,
    ) -> list[int]:
        """Which documents are erased texts, or nearly.

        Args:
            norm_ids: of the documents, 16 bytes each.
            signatures: (n, K) uint32, or None to compare whole texts only.
            signed: rows that have a signature; None for all.

        Returns:
            Rows, ascending.
        """
        macs = self.macs
        found = {row for row, norm_id in enumerate(norm_ids) if self.mac(norm_id) in macs}
        sketches = [block.sketch for block in self.blocks if block.sketch is not None]
        if signatures is not None and sketches:
            for row in range(len(norm_ids)) if signed is None else signed:
                if row not in found and self._agrees(signatures[row], sketches):
                    found.add(row)
        return sorted(found)

    def _agrees(self, signature: npt.NDArray[np.uint32], sketches: Sequence[npt.NDArray[np.uint32]]) -> bool:
        """A few values tell most texts apart; only where half of them agree are all compared."""
        first = self._keyed(signature[:_FEW])
        near = [s for s in sketches if len(s) == len(signature) and np.mean(s[:_FEW] == first) >= 0.5]
        own = self._keyed(signature) if near else first
        return any(np.mean(own == sketch) >= AGREE for sketch in near)

    def _keyed(self, signature: npt.NDArray[np.uint32]) -> npt.NDArray[np.uint32]:
        """Each value under the key and its place, so that equal values at two places look different."""
        raw = signature.astype("<u4").tobytes()
        parts = [
            blake2b(raw[at : at + 4], key=self.key, digest_size=_BYTES, salt=(at // 4).to_bytes(16, "little")).digest()
            for at in range(0, len(raw), 4)
        ]
        return np.frombuffer(b"".join(parts), "<u4").astype(np.uint32)


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
