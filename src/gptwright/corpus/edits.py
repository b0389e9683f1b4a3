"""Edits: spans of a document to replace. The document stays as it came; whoever reads it gets it with its edits made."""

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class Edit:
    """Replace ``text[start:end]`` (characters); kind says why."""

    start: int
    end: int
    kind: str
    replacement: str


def turns(messages: Sequence[dict[str, str]]) -> list[tuple[int, str]]:
    """The turns of a conversation with where they start in its joined text."""
    found, at = [], 0
    for message in messages:
        found.append((at, message["content"]))
        at += len(message["content"]) + 1
    return found


def apply_edits(text: str, edits: Sequence[Edit]) -> str:
    """A text with its edits made; they are in order and apart."""
    pieces, at = [], 0
    for edit in edits:
        pieces += [text[at : edit.start], edit.replacement]
        at = edit.end
    return "".join([*pieces, text[at:]])


def apply_to_messages(messages: Sequence[dict[str, str]], edits: Sequence[Edit]) -> list[dict[str, str]]:
    """The turns of a conversation with the edits of its joined text made."""
    edited = []
    for (start, content), message in zip(turns(messages), messages, strict=True):
        end = start + len(content)
        own = [
            Edit(e.start - start, e.end - start, e.kind, e.replacement)
            for e in edits
            if start <= e.start and e.end <= end
        ]
        edited.append({**message, "content": apply_edits(content, own)})
    return edited
