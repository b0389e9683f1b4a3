"""What a room must offer so that a document can be traced and erased wherever it went."""

from collections.abc import Collection
from typing import Protocol


class Erasable(Protocol):
    """A holder of traces of documents: shards, checkpoints, releases. Rooms register one; `data forget` calls them all."""

    name: str

    def holds(self, doc_uids: Collection[str]) -> list[str]:
        """Names of the artifacts that hold or saw any of these documents."""
        ...

    def erase(self, doc_uids: Collection[str]) -> list[str]:
        """Remove the documents from what can be changed; returns the names of what was changed."""
        ...
