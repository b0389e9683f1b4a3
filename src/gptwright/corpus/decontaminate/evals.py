"""The index of all evaluation items, built once and named by its content: which word sequences are whose."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache, lru_cache
from pathlib import Path
from typing import Any

import numpy as np

from gptwright.core.files import atomic_write
from gptwright.core.hashing import b2_json
from gptwright.core.stages import code_version
from gptwright.corpus.decontaminate import phrases
from gptwright.corpus.decontaminate.items import ItemSet

CODE = tuple(f"gptwright.corpus.decontaminate.{m}" for m in ("words", "phrases", "evals", "scan"))
_FIELDS = tuple(phrases.Phrases.__dataclass_fields__)


@dataclass(frozen=True)
class Evals:
    """All items and what to look for.

    Args:
        name: content hash, 32 hex; it is the index's file name too.
        words: of a sequence.
        phrases: the sequences; owners are items.
        items: ids.
        ignored: ids of items with too few words to be looked for.
    """

    name: str
    words: int
    phrases: phrases.Phrases
    items: tuple[str, ...]
    ignored: tuple[str, ...]

    def sizes(self) -> Any:
        """Distinct sequences of each item, (items,) int64."""
        return np.bincount(self.phrases.owners, minlength=len(self.items))


@cache
def code() -> str:
    """Version of what decides the index and the scan."""
    return code_version(CODE)


def index_path(folder: Path, name: str) -> Path:
    """Where an index stands."""
    return folder / f"evals-{name}.npz"


def make(sets: Sequence[ItemSet], folder: Path, *, words: int = 13, shortest: int = 3) -> Evals:
    """Build the index of evaluation sets, or open it when it was built before.

    Args:
        sets: the items.
        folder: where the index is kept, under its name.
        words: of a sequence; an item with fewer is one feature as a whole.
        shortest: an item with fewer words is ignored.
    """
    items = [item for one in sets for item in one.items]
    name = b2_json([code(), words, shortest, [[item.id, list(item.texts)] for item in items]]).removeprefix("b2:")[:32]
    path = index_path(folder, name)
    if not path.exists():
        texts = [text for item in items for text in item.texts]
        owners = [number for number, item in enumerate(items) for _ in item.texts]
        table, _ = phrases.build(texts, owners, words=words, least=shortest, narrow=False)
        heard = np.zeros(len(items), bool)
        heard[table.owners] = True
        about = {
            "words": words,
            "items": [item.id for item in items],
            "ignored": [item.id for item, known in zip(items, heard.tolist(), strict=True) if not known],
        }
        folder.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as file:
            np.savez(
                file, about=np.frombuffer(json.dumps(about).encode(), np.uint8), allow_pickle=False, **table.arrays()
            )
    return load(str(folder), name)


@lru_cache(maxsize=2)
def load(folder: str, name: str) -> Evals:
    """Open an index by its name."""
    with np.load(index_path(Path(folder), name), allow_pickle=False) as file:
        about = json.loads(file["about"].tobytes())
        table = phrases.Phrases(**{field: file[field] for field in _FIELDS})
    return Evals(name, about["words"], table, tuple(about["items"]), tuple(about["ignored"]))
