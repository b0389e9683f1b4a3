"""Held-out bits per byte: the one score that does not depend on the tokenizer.

Each UTF-8 byte of each document is counted once, and the values are kept per document, so that two models can be compared in pairs.
Never counted: control tokens, the end of a document, and in conversations the role lines that the template writes.
"""

import math
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from gptwright.core.errors import GptwrightError, UserError
from gptwright.core.hashing import content_id
from gptwright.evaluate.scores import BitsPerByte
from gptwright.tokens.chat import Segment, segments

_LOGIT_ROWS = 1024  # rows of the (rows, vocabulary) matrix held at once: 32 MB at 8,192 entries


class DocumentLike(Protocol):
    """What is needed of a corpus document."""

    @property
    def uid(self) -> str: ...
    @property
    def text(self) -> str: ...
    @property
    def messages(self) -> list[dict[str, Any]] | None: ...


class TokenizerLike(Protocol):
    """What is needed of a tokenizer."""

    @property
    def vocab_size(self) -> int: ...
    @property
    def eos_id(self) -> int: ...
    @property
    def byte_lengths(self) -> NDArray[Any]: ...
    def encode(self, text: str) -> list[int]: ...
    def token_id(self, name: str) -> int | None: ...


class ModelLike(Protocol):
    """What is needed of a model: hidden states, and logits of chosen rows."""

    def __call__(self, ids_bt: Tensor) -> Tensor: ...
    def logits(self, hidden: Tensor) -> Tensor: ...
    def parameters(self) -> Iterable[Tensor]: ...


@torch.inference_mode()
def bits_per_byte(
    model: ModelLike,
    tokenizer: TokenizerLike,
    documents: Iterable[DocumentLike | str],
    seq_len: int,
    batch: int = 16,
    *,
    stride: int | None = None,
) -> BitsPerByte:
    """Score a model on held-out documents.

    Each document is read by itself, after the end-of-document token. A longer one is read in windows of ``seq_len`` tokens that move
    by ``stride``; of each window only the tokens that no earlier window scored are counted.

    Args:
        model: hidden states (B, T, D) from ids (B, T), and logits from hidden states.
        tokenizer: the model's own.
        documents: objects with uid, text and messages, or plain texts. Conversations are rendered as the model sees them.
        seq_len: context. Tokens; at most what the model was built for.
        batch: windows per forward pass.
        stride: tokens between two windows; default half a context. ``seq_len`` means windows without overlap.

    Returns:
        Bits and bytes per document, in the order given; documents without a byte are left out and counted in ``skipped``.

    Raises:
        UserError: there is nothing to score.
        GptwrightError: the tokenizer does not give back every byte (its tables are wrong), so no number would be true.
    """
    stride = max(1, seq_len // 2) if stride is None else stride
    if not 0 < stride <= seq_len:
        raise ValueError("stride must be between 1 and seq_len")
    lengths = np.asarray(tokenizer.byte_lengths, dtype=np.int64)
    uids: list[str] = []
    sizes: list[int] = []
    windows: list[_Window] = []
    tokens = skipped = 0
    for document in documents:
        uid, ids, counted = _encode(tokenizer, document, lengths)
        size = int(lengths[ids][counted].sum())
        if size == 0:
            skipped += 1
            continue
        windows += _windows(len(uids), [tokenizer.eos_id, *ids], counted, seq_len, stride)
        uids.append(uid)
        sizes.append(size)
        tokens += int(counted.sum())
    if not uids:
        raise UserError("the held-out set has no text", fix="Raise [corpus] heldout_share, or add documents")
    bits = np.zeros(len(uids))
    device = next(iter(model.parameters())).device
    windows.sort(
        key=lambda w: (len(w.inputs), w.document, w.start)
    )  # like lengths together: less padding; ties by place: same order always
    for first in range(0, len(windows), batch):
        group = windows[first : first + batch]
        for window, values in zip(group, _score(model, group, tokenizer.vocab_size, device), strict=True):
            bits[window.document] += float(values.sum())
    return BitsPerByte(tuple(uids), bits, np.asarray(sizes, dtype=np.int64), tokens, skipped)


def heldout_windows(
    tokenizer: TokenizerLike, documents: Iterable[DocumentLike | str], seq_len: int
) -> Iterator[tuple[list[int], list[int]]]:
    """Inputs and targets for measuring while training: windows without overlap, by the same counting as ``bits_per_byte``.

    Yields:
        Token ids, and for each the next one where it carries the document's own text, else -100.
    """
    lengths = np.asarray(tokenizer.byte_lengths, dtype=np.int64)
    for document in documents:
        _, ids, counted = _encode(tokenizer, document, lengths)
        for window in _windows(0, [tokenizer.eos_id, *ids], counted, seq_len, seq_len):
            targets = np.full(len(window.inputs), -100, dtype=np.int64)
            targets[window.positions] = np.asarray(window.targets)[window.positions]
            yield window.inputs, targets.tolist()


@dataclass(frozen=True)
class _Window:
    document: int
    start: int
    inputs: list[int]
    targets: list[int]
    positions: NDArray[np.int64]  # of the inputs, those whose target is counted here


def _encode(
    tokenizer: TokenizerLike, document: DocumentLike | str, lengths: NDArray[np.int64]
) -> tuple[str, list[int], NDArray[np.bool_]]:
    """Id, token ids, and which tokens carry bytes of the document's own text."""
    if isinstance(document, str):
        uid, text, messages = content_id(document), document, None
    else:
        uid, text, messages = document.uid, document.text, document.messages
    parts = segments(messages) if messages else [Segment(text, False, True)]
    ids: list[int] = []
    counted: list[bool] = []
    for part in parts:
        if part.control:
            control = tokenizer.token_id(part.content)
            new, own = [] if control is None else [control], False
        else:
            # In a rendered conversation only role lines and the ends of turns finish with a line break: contents are stripped.
            new, own = tokenizer.encode(part.content), not (messages and part.content.endswith("\n"))
            size, found = len(part.content.encode()), int(lengths[new].sum())
            if found != size:
                raise GptwrightError(
                    f"document {uid}: {size} bytes of text became tokens of {found} bytes; the tokenizer's byte table is wrong"
                )
        ids += new
        counted += [own] * len(new)
    return uid, ids, np.asarray(counted, dtype=bool)


def _windows(
    document: int, sequence: list[int], counted: NDArray[np.bool_], seq_len: int, stride: int
) -> list[_Window]:
    total = len(sequence) - 1  # targets are sequence[1:]
    windows, done, start = [], 0, 0
    while done < total:
        end = min(start + seq_len, total)
        positions = np.flatnonzero(counted[done:end]) + (done - start)
        if len(positions):
            windows.append(_Window(document, start, sequence[start:end], sequence[start + 1 : end + 1], positions))
        done = end
        start += stride
    return windows


def _score(
    model: ModelLike, group: Sequence[_Window], vocab_size: int, device: torch.device
) -> list[NDArray[np.float64]]:
    """Bits of the counted targets of each window."""
    longest = max(len(window.inputs) for window in group)
    ids = torch.zeros(
        (len(group), longest), dtype=torch.int64
    )  # padding stands on the right, where causal attention cannot see it
    for row, window in enumerate(group):
        ids[row, : len(window.inputs)] = torch.tensor(window.inputs)
    hidden = model(ids.to(device))
    rows = torch.cat([hidden[row, torch.from_numpy(window.positions).to(device)] for row, window in enumerate(group)])
    targets = torch.tensor([window.targets[p] for window in group for p in window.positions], device=device)
    parts = []
    for start in range(0, len(rows), _LOGIT_ROWS):
        # Columns past the vocabulary pad the matrix; they stand for no token and get no probability.
        logits = model.logits(rows[start : start + _LOGIT_ROWS])[:, :vocab_size].float()
        parts.append(torch.nn.functional.cross_entropy(logits, targets[start : start + _LOGIT_ROWS], reduction="none"))
    bits = torch.cat(parts).double().cpu().numpy() / math.log(2)
    return np.split(bits, np.cumsum([len(window.positions) for window in group])[:-1])
