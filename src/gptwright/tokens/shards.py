"""Documents to token shards on disk (``write_tokens``), and shards as one stream of tokens (``TokenDataset``).

The layout of the files is in ``format.py``.
"""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
import numpy.typing as npt

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir, read_json, write_json
from gptwright.core.hashing import b2_json
from gptwright.core.progress import progress
from gptwright.tokens.format import VERSION, Shard, ShardInfo, ShardWriter, uid_bytes, zero_runs
from gptwright.tokens.tokenizer import Tokenizer

MANIFEST = "dataset.json"
SHARD_TOKENS = 1 << 26
"""Tokens after which a new shard begins (128 MB as u16). Documents are never split over shards."""

# Texts that are encoded together. More would not be faster and would hold more in memory.
_BATCH_CHARS = 4 << 20
_BATCH_DOCS = 4096


class DocumentLike(Protocol):
    """What ``corpus.documents`` yields, as far as tokens care."""

    @property
    def uid(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def messages(self) -> list[dict[str, Any]] | None: ...


@dataclass(frozen=True)
class TokensResult:
    """What was written.

    Args:
        hash: of the data set: tokenizer and all shards.
        tokens: control tokens included.
        documents: documents.
        bytes: UTF-8 bytes that the tokens stand for; control tokens stand for none.
    """

    hash: str
    tokens: int
    documents: int
    bytes: int

    @property
    def bytes_per_token(self) -> float:
        """How much text a token carries on average."""
        return self.bytes / max(self.tokens, 1)


def write_tokens(
    docs: Iterable[DocumentLike],
    tokenizer: Tokenizer,
    out_dir: str | Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
    only_answers: bool = False,
) -> TokensResult:
    """Encode documents into shards; each ends with the end-of-text token.

    The folder appears in one step when all is written, so a killed run leaves nothing and a rerun gives the same bytes.
    Memory is bounded by one batch of texts and one shard's document list.

    Args:
        docs: in the order they shall have; read once. A document with ``messages`` is rendered as a chat.
        tokenizer: its hash goes into every shard.
        out_dir: replaced when it exists.
        shard_tokens: a shard is closed when it holds at least this many.
        only_answers: record spans so that only the assistant's words carry a loss (documents without messages carry none).

    Raises:
        UserError: there is no document, the disk is full, or a conversation is malformed (its id is named).
    """
    dtype = np.dtype("<u2") if tokenizer.vocab_size <= 1 << 16 else np.dtype("<u4")
    infos: list[ShardInfo] = []
    size_bytes = 0
    with atomic_dir(out_dir) as folder, progress("tokens", unit="B") as bar:
        shard: ShardWriter | None = None
        try:
            for uids, rows in _encoded(docs, tokenizer, only_answers):
                for uid, (ids, spans) in zip(uids, rows, strict=True):
                    if shard is None:
                        shard = ShardWriter(folder, f"shard-{len(infos):05d}", dtype, tokenizer)
                    shard.add(uid, ids, spans)
                    got = int(tokenizer.byte_lengths[ids].sum(dtype=np.int64))
                    size_bytes += got
                    bar.advance(got)
                    if shard.tokens >= shard_tokens:
                        infos.append(shard.close())
                        shard = None
                tokens = sum(info.tokens for info in infos) + (shard.tokens if shard else 0)
                bar.note(f"{size_bytes / max(tokens, 1):.2f} bytes per token")
            if shard is not None:
                infos.append(shard.close())
        finally:
            if shard is not None:
                shard.abandon()
        if not infos:
            raise UserError(
                "there is no document to encode", where=str(out_dir), fix="Add documents: gptwright data add SOURCE"
            )
        return write_manifest(folder, infos, tokenizer.hash, size_bytes)


def write_manifest(
    folder: Path, infos: Sequence[ShardInfo], tokenizer_hash: str, size_bytes: int, origin: str | None = None
) -> TokensResult:
    """Write ``dataset.json``, the last file of a data set. ``origin`` is the hash before any erasure."""
    digest = b2_json({"format": VERSION, "tokenizer": tokenizer_hash, "shards": [[i.bin, i.idx, i.map] for i in infos]})
    result = TokensResult(digest, sum(i.tokens for i in infos), sum(i.documents for i in infos), size_bytes)
    write_json(
        folder / MANIFEST,
        {
            "format": VERSION,
            **asdict(result),
            "origin": origin or digest,
            "tokenizer": tokenizer_hash,
            "shards": [asdict(info) for info in infos],
        },
    )
    return result


Row = tuple[npt.NDArray[np.int64], list[tuple[int, int]]]


def _encoded(
    docs: Iterable[DocumentLike], tokenizer: Tokenizer, only_answers: bool
) -> Iterator[tuple[list[str], list[Row]]]:
    """Uids with (ids, spans without loss) in batches, in order."""
    encode = tokenizer.bulk_encoder() or tokenizer.encode_batch
    for batch in _batches(docs):
        chats = [doc.messages for doc in batch if doc.messages is not None]
        try:
            rendered = iter(tokenizer.render_batch(chats))
        except UserError:
            for doc in batch:  # again one by one, to name the culprit
                if doc.messages is not None:
                    try:
                        tokenizer.render(doc.messages)
                    except UserError as error:
                        raise UserError(error.what, where=f"document {doc.uid}", fix=error.fix) from error
            raise
        plain = iter(encode([doc.text for doc in batch if doc.messages is None]))
        rows: list[Row] = []
        for doc in batch:
            if doc.messages is None:
                ids = np.append(np.asarray(next(plain), np.int64), tokenizer.eos_id)
                spans = [(0, len(ids))] if only_answers else []
            else:
                chat = next(rendered)
                ids = np.array([*chat.ids, tokenizer.eos_id], dtype=np.int64)
                spans = zero_runs(np.array([*chat.loss_mask, 0], dtype=np.uint8)) if only_answers else []
            rows.append((ids, spans))
        yield [doc.uid for doc in batch], rows


def _batches(docs: Iterable[DocumentLike]) -> Iterator[list[DocumentLike]]:
    batch: list[DocumentLike] = []
    chars = 0
    for doc in docs:
        batch.append(doc)
        chars += len(doc.text or "") if doc.messages is None else sum(len(str(m.get("content"))) for m in doc.messages)
        if chars >= _BATCH_CHARS or len(batch) >= _BATCH_DOCS:
            yield batch
            batch, chars = [], 0
    if batch:
        yield batch


class TokenDataset:
    """All shards of a folder as one stream of tokens.

    Attributes:
        hash: of the data set; ``origin`` the same before any erasure.
        n_tokens, n_docs, size_bytes: totals.
        starts: (n_docs + 1,) int64, where documents start in the stream; the last entry is n_tokens.
        eos_id, vocab_size, tokenizer_hash: of the tokenizer that wrote it.
    """

    def __init__(self, folder: Path, manifest: dict[str, Any], shards: list[Shard]) -> None:
        self.folder, self.shards = folder, shards
        self.hash: str = manifest["hash"]
        self.origin: str = manifest["origin"]
        self.size_bytes: int = manifest["bytes"]
        self.tokenizer_hash: str = manifest["tokenizer"]
        self.eos_id, self.vocab_size = shards[0].eos_id, shards[0].vocab_size
        lengths = [len(shard.tokens) for shard in shards]
        self._edges = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
        self.n_tokens = int(self._edges[-1])
        parts = [shard.starts.astype(np.int64) + edge for shard, edge in zip(shards, self._edges, strict=False)]
        self.starts: npt.NDArray[np.int64] = np.concatenate([*parts, [self.n_tokens]])
        self.n_docs = len(self.starts) - 1
        self._docs_before = np.concatenate(([0], np.cumsum([len(shard.starts) for shard in shards])))
        spans = [shard.spans.astype(np.int64) + edge for shard, edge in zip(shards, self._edges, strict=False)]
        self.spans: npt.NDArray[np.int64] = np.concatenate(spans).reshape(-1, 2)

    @classmethod
    def open(cls, folder: str | Path, tokenizer: Tokenizer | None = None, *, verify: bool = True) -> "TokenDataset":
        """Open and check a data set.

        Args:
            folder: what ``write_tokens`` wrote.
            tokenizer: if given, it must be the one that wrote it.
            verify: compare every file with its checksum; the tokens once per process.

        Raises:
            UserError: no data set there, a damaged shard (named), or another tokenizer.
        """
        folder = Path(folder)
        if not (folder / MANIFEST).is_file():
            raise UserError("no token data set", where=str(folder), fix="Run: gptwright run tokens")
        manifest = read_json(folder / MANIFEST)
        infos = [ShardInfo(**entry) for entry in manifest["shards"]]
        shards = [Shard.open(folder, info, verify) for info in infos]
        if tokenizer is not None and tokenizer.hash != manifest["tokenizer"]:
            raise UserError(
                "the tokens were written by another tokenizer", where=str(folder), fix="Run: gptwright run tokens"
            )
        return cls(folder, manifest, shards)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.shards.clear()

    def __len__(self) -> int:
        return self.n_docs

    def read(self, start: int, length: int) -> npt.NDArray[np.int64]:
        """Tokens start .. start + length of the stream, taken as a ring: behind the last follows the first. (length,) int64"""
        out = np.empty(length, dtype=np.int64)
        done = 0
        while done < length:
            at = (start + done) % self.n_tokens
            shard = int(np.searchsorted(self._edges, at, side="right")) - 1
            local = at - int(self._edges[shard])
            piece = self.shards[shard].tokens[local : local + length - done]
            out[done : done + len(piece)] = piece
            done += len(piece)
        return out

    def learns(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Which of these tokens carry a loss as targets, (length,) bool; a ring like ``read``."""
        out = np.ones(length, dtype=np.bool_)
        if not len(self.spans):
            return out
        done = 0
        while done < length:
            at = (start + done) % self.n_tokens
            take = min(length - done, self.n_tokens - at)
            first = int(np.searchsorted(self.spans[:, 1], at, side="right"))
            last = int(np.searchsorted(self.spans[:, 0], at + take, side="left"))
            for low, high in self.spans[first:last]:
                out[done + max(int(low) - at, 0) : done + min(int(high) - at, take)] = False
            done += take
        return out

    def begins(self, start: int, length: int) -> npt.NDArray[np.bool_]:
        """Where documents begin in a stretch of the ring, (length,) bool."""
        out = np.zeros(length, dtype=np.bool_)
        done = 0
        while done < length:
            at = (start + done) % self.n_tokens
            take = min(length - done, self.n_tokens - at)
            first, last = np.searchsorted(self.starts[:-1], [at, at + take])
            out[done + self.starts[first:last] - at] = True
            done += take
        return out

    def uid(self, index: int) -> str:
        """Id of the document at an index."""
        shard = int(np.searchsorted(self._docs_before, index, side="right")) - 1
        return bytes(self.shards[shard].uids[index - int(self._docs_before[shard])]).hex()

    def docs_in(self, start: int, length: int) -> list[int]:
        """Indices of the documents that own tokens of this stretch of the ring."""
        found: list[int] = []
        done = 0
        while done < min(length, self.n_tokens):
            at = (start + done) % self.n_tokens
            take = min(length - done, self.n_tokens - at)
            first = int(np.searchsorted(self.starts, at, side="right")) - 1
            last = int(np.searchsorted(self.starts, at + take, side="left"))
            found += range(first, min(last, self.n_docs))
            done += take
        return found

    def find(self, uid: str) -> list[int]:
        """Indices of the documents with this id."""
        wanted = np.frombuffer(uid_bytes(uid), dtype=np.uint8)
        return [
            int(self._docs_before[number]) + int(row)
            for number, shard in enumerate(self.shards)
            for row in np.flatnonzero((shard.uids == wanted).all(axis=1))
        ]

    def document(self, index: int) -> npt.NDArray[np.int64]:
        """Tokens of one document, its end token included."""
        return self.read(int(self.starts[index]), int(self.starts[index + 1] - self.starts[index]))
