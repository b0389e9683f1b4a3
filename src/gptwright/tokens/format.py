"""The shard format: ``.bin`` the tokens, ``.idx`` where documents start, ``.map`` which documents they are.

``.bin`` is nothing but little-endian u16 or u32, so any program that maps such files reads it (nanoGPT's ``train.bin``).
Layouts, all little-endian:

- ``.idx``: ``Header`` (below), n_docs x u64 document starts, BLAKE2b-256 of all before.
- ``.map``: magic, u64 n_docs, u64 n_spans, n_docs x 16-byte doc_uid, n_spans x (u64 start, u64 end) of tokens that carry
  no loss, sorted and apart: in a data set for fine-tuning all but the assistant's words; after an erasure the erased ones.
- ``dataset.json``: written last; names the shards, their hashes and the tokenizer.
"""

import functools
import hashlib
import struct
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.hashing import b2_file
from gptwright.tokens.bpe import mend_surrogates
from gptwright.tokens.tokenizer import Tokenizer

VERSION = 1
IDX_MAGIC = b"GPTWIDX\0"
MAP_MAGIC = b"GPTWMAP\0"
# magic, version, bytes per token, eos id, vocab size, n_docs, n_tokens, then hashes of tokenizer, .bin and .map
_HEADER = struct.Struct("<8sIIIIQQ32s32s32s")
_MAP_HEADER = struct.Struct("<8sQQ")


@dataclass(frozen=True)
class ShardInfo:
    """A shard's entry in the manifest."""

    name: str
    tokens: int
    documents: int
    bin: str
    idx: str
    map: str


def zero_runs(mask: npt.NDArray[np.uint8]) -> list[tuple[int, int]]:
    """Half-open runs of zeros in a mask."""
    edges = np.flatnonzero(np.diff(np.concatenate(([1], (mask != 0).astype(np.int8), [1]))))
    return [(int(a), int(b)) for a, b in edges.reshape(-1, 2)]


class ShardWriter:
    """Writes one shard: tokens stream to ``.bin``; ``close`` adds ``.idx`` and ``.map``."""

    def __init__(self, folder: Path, name: str, dtype: np.dtype[Any], tokenizer: Tokenizer) -> None:
        self._folder, self._name, self._dtype, self._tokenizer = folder, name, dtype, tokenizer
        self._file: IO[bytes] = open(folder / f"{name}.bin", "wb")
        self._digest = hashlib.blake2b(digest_size=32)
        self._starts: list[int] = []
        self._uids: list[bytes] = []
        self._spans: list[tuple[int, int]] = []
        self.tokens = 0

    def add(self, uid: str, ids: npt.NDArray[np.int64], spans: Sequence[tuple[int, int]]) -> None:
        """Append a document: ids (n,), spans without loss relative to its start."""
        raw = ids.astype(self._dtype).tobytes()
        self._file.write(raw)
        self._digest.update(raw)
        self._starts.append(self.tokens)
        self._uids.append(uid_bytes(uid))
        for low, high in spans:
            low, high = low + self.tokens, high + self.tokens
            if self._spans and self._spans[-1][1] == low:
                self._spans[-1] = (self._spans[-1][0], high)
            else:
                self._spans.append((low, high))
        self.tokens += len(ids)

    def close(self) -> ShardInfo:
        """Finish the three files."""
        self._file.close()
        return write_tables(
            self._folder,
            self._name,
            bin_digest=self._digest.digest(),
            starts=np.array(self._starts, dtype="<u8"),
            uids=b"".join(self._uids),
            spans=np.array(self._spans, dtype="<u8").reshape(-1, 2),
            n_tokens=self.tokens,
            item_bytes=self._dtype.itemsize,
            eos_id=self._tokenizer.eos_id,
            vocab_size=self._tokenizer.vocab_size,
            tokenizer_hash=self._tokenizer.hash,
        )

    def abandon(self) -> None:
        """Release the file after a failure; its folder is temporary."""
        self._file.close()


def write_tables(
    folder: Path,
    name: str,
    *,
    bin_digest: bytes,
    starts: npt.NDArray[np.uint64],
    uids: bytes,
    spans: npt.NDArray[np.uint64],
    n_tokens: int,
    item_bytes: int,
    eos_id: int,
    vocab_size: int,
    tokenizer_hash: str,
) -> ShardInfo:
    """Write ``.map`` and ``.idx`` of a shard whose ``.bin`` exists."""
    mapped = _MAP_HEADER.pack(MAP_MAGIC, len(starts), len(spans)) + uids + spans.astype("<u8").tobytes()
    map_digest = hashlib.blake2b(mapped, digest_size=32).digest()
    head = _HEADER.pack(
        IDX_MAGIC,
        VERSION,
        item_bytes,
        eos_id,
        vocab_size,
        len(starts),
        n_tokens,
        bytes.fromhex(tokenizer_hash.removeprefix("b2:")),
        bin_digest,
        map_digest,
    )
    index = head + starts.astype("<u8").tobytes()
    idx_digest = hashlib.blake2b(index, digest_size=32).digest()
    (folder / f"{name}.map").write_bytes(mapped)
    (folder / f"{name}.idx").write_bytes(index + idx_digest)
    return ShardInfo(
        name, n_tokens, len(starts), *("b2:" + digest.hex() for digest in (bin_digest, idx_digest, map_digest))
    )


def uid_bytes(uid: str) -> bytes:
    """The 16 bytes of a doc_uid; other ids (tests, plain lists) by their hash."""
    if len(uid) == 32:
        try:
            return bytes.fromhex(uid)
        except ValueError:
            pass
    return hashlib.blake2b(mend_surrogates(uid).encode(), digest_size=16).digest()


@dataclass(frozen=True)
class Shard:
    """An open shard. Positions are relative to it."""

    info: ShardInfo
    path: Path
    tokens: npt.NDArray[Any]
    starts: npt.NDArray[np.uint64]
    uids: npt.NDArray[np.uint8]
    spans: npt.NDArray[np.uint64]
    eos_id: int
    vocab_size: int
    tokenizer_hash: str

    @classmethod
    def open(cls, folder: Path, info: ShardInfo, verify: bool = True) -> "Shard":
        """Map a shard and check it against its hashes (the tokens once per process and version of the file).

        Raises:
            UserError: a file is missing, cut short or changed; it is named.
        """
        paths = {kind: folder / f"{info.name}.{kind}" for kind in ("bin", "idx", "map")}
        try:
            index, mapped = paths["idx"].read_bytes(), paths["map"].read_bytes()
            stat = paths["bin"].stat()
        except OSError as error:
            raise _damaged(Path(error.filename or folder), "cannot be read") from error
        body, digest = index[:-32], hashlib.blake2b(index[:-32], digest_size=32).digest()
        if len(index) < _HEADER.size + 32 or digest != index[-32:] or "b2:" + digest.hex() != info.idx:
            raise _damaged(paths["idx"], "checksum does not match")
        magic, version, item, eos_id, vocab, n_docs, n_tokens, tok, bin_digest, map_digest = _HEADER.unpack_from(body)
        if magic != IDX_MAGIC or version != VERSION:
            raise _damaged(paths["idx"], f"is of format {version}, this program reads {VERSION}")
        if hashlib.blake2b(mapped, digest_size=32).digest() != map_digest:
            raise _damaged(paths["map"], "checksum does not match")
        if stat.st_size != n_tokens * item:
            raise _damaged(paths["bin"], f"has {stat.st_size:,} bytes instead of {n_tokens * item:,}")
        if verify and _hash_of(str(paths["bin"]), stat.st_size, stat.st_mtime_ns) != "b2:" + bin_digest.hex():
            raise _damaged(paths["bin"], "checksum does not match")
        _, _, n_spans = _MAP_HEADER.unpack_from(mapped)
        at = _MAP_HEADER.size
        return cls(
            info=info,
            path=paths["bin"],
            tokens=np.memmap(paths["bin"], dtype=f"<u{item}", mode="r"),
            starts=np.frombuffer(body, dtype="<u8", offset=_HEADER.size),
            uids=np.frombuffer(mapped, dtype=np.uint8, count=16 * n_docs, offset=at).reshape(n_docs, 16),
            spans=np.frombuffer(mapped, dtype="<u8", count=2 * n_spans, offset=at + 16 * n_docs).reshape(n_spans, 2),
            eos_id=eos_id,
            vocab_size=vocab,
            tokenizer_hash="b2:" + tok.hex(),
        )


@functools.lru_cache(maxsize=4096)
def _hash_of(path: str, _size: int, _mtime_ns: int) -> str:
    return b2_file(path)


def _damaged(path: Path, what: str) -> UserError:
    return UserError(f"shard {path.stem}: {what}", where=str(path), fix="Run: gptwright run tokens --force")
