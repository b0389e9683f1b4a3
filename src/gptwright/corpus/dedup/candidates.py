"""Which texts may be copies: those that share a key of a MinHash band. Kept on disk as sorted runs, one set of them a partition.

New texts are looked up in the old runs and become a run of their own, so adding few costs little. Whatever came and went, the pairs are
those that a full build would find: buckets of more than ``hub`` members, in which only some pairs are made, are paired anew when they change.
"""

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from pydantic import BaseModel

from gptwright.core.files import atomic_write
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.kernels import pairs_in_buckets
from gptwright.corpus.dedup.store import CHUNK_RECORDS, among, chunks, mapped, save
from gptwright.corpus.dedup.words import Array

KEYED = np.dtype([("key", "<u8"), ("text", "<u8")])
PAIR = np.dtype([("a", "<u8"), ("b", "<u8")])
MOST_RUNS = 8


class Bucketed(BaseModel):
    """A partition of the index.

    Attributes:
        runs: stems of files .key and .text beside each other, ascending by key, then text; relative to the index.
        pairs: files of PAIR; a pair may stand in several.
        largest: members of the largest bucket.
    """

    runs: list[str] = []
    pairs: list[str] = []
    largest: int = 0


def update(
    index: Path, folder: Path, name: str, old: Bucketed, records: Array, gone: Array, config: DedupConfig
) -> Bucketed:
    """A partition with new texts and without those that are gone.

    Args:
        index: what paths are relative to.
        folder: for new files, in it.
        name: how they begin.
        old: the partition so far; its files are only read.
        records: (n,) KEYED, of new texts.
        gone: (m,) uint64, texts that are no more, ascending.
        config: hub and representatives.

    Returns:
        The new partition. It may name files of the old one.
    """
    keys, texts = sort_keyed(records["key"], records["text"])
    stem = str((folder / name).relative_to(index))
    largest, old_keys, old_texts = old.largest, None, None
    hit_keys, hit_texts = np.zeros(0, np.uint64), np.zeros(0, np.uint64)
    again = bool(len(gone)) and old.largest > config.hub
    if len(gone) and not again:
        old_keys, old_texts = _merged(index, old.runs, gone)
        largest = largest_bucket(old_keys)
    if not again and len(keys):
        runs = (
            [(old_keys, old_texts)]
            if old_keys is not None and old_texts is not None
            else [_run(index, run) for run in old.runs]
        )
        asked = keys[np.append(True, keys[1:] != keys[:-1])]
        hits = [_lookup(asked, run_keys, run_texts) for run_keys, run_texts in runs]
        hit_keys = np.concatenate([hit_keys, *(h[0] for h in hits)])
        hit_texts = np.concatenate([hit_texts, *(h[1] for h in hits)])
        touched = largest_bucket(np.sort(np.concatenate([keys, hit_keys])))
        largest = max(largest, touched)
        again = touched > config.hub and bool(old.runs)
    if again or not old.runs:
        kept_keys, kept_texts = _merged(index, old.runs, gone)
        keys, texts = sort_keyed(np.concatenate([kept_keys, keys]), np.concatenate([kept_texts, texts]))
        _write_run(folder / name, keys, texts)
        _write_pairs(folder / f"{name}.pairs", pairs(keys, texts, np.ones(len(keys), bool), config))
        return Bucketed(runs=[stem], pairs=[f"{stem}.pairs"], largest=largest_bucket(keys))

    made = Bucketed(runs=list(old.runs), pairs=list(old.pairs), largest=largest)
    if len(gone):
        assert old_keys is not None
        assert old_texts is not None
        _write_run(folder / f"{name}-kept", old_keys, old_texts)
        _write_pairs(folder / f"{name}-kept.pairs", _without(index, old.pairs, gone))
        made.runs, made.pairs = [f"{stem}-kept"], [f"{stem}-kept.pairs"]
    if len(keys):
        both_keys, both_texts = np.concatenate([keys, hit_keys]), np.concatenate([texts, hit_texts])
        new = np.arange(len(both_keys)) < len(keys)
        order = np.lexsort((both_texts, both_keys))
        _write_run(folder / name, keys, texts)
        _write_pairs(folder / f"{name}.pairs", pairs(both_keys[order], both_texts[order], new[order], config))
        made.runs.append(stem)
        made.pairs.append(f"{stem}.pairs")
    if len(made.runs) > MOST_RUNS:
        _write_run(folder / f"{name}-all", *_merged(index, made.runs, gone[:0]))
        made.runs = [f"{stem}-all"]
    return made


def pairs(keys: Array, texts: Array, new: Array, config: DedupConfig) -> Iterator[Array]:
    """Pairs (PAIR) of sorted records, some at a time, in each piece without repeats."""
    out = np.empty((max(CHUNK_RECORDS, config.hub, config.representatives), 2), np.uint64)
    bucket = at = 0
    while at < len(keys):
        bucket, at, found = pairs_in_buckets(keys, texts, new, bucket, at, config.hub, config.representatives, out)
        if found:
            yield distinct_pairs(out[:found].reshape(-1).view(PAIR))


def distinct_pairs(found: Array) -> Array:
    """Pairs ascending, each once."""
    found = found[np.lexsort((found["b"], found["a"]))]
    new = np.ones(len(found), bool)
    new[1:] = (found["a"][1:] != found["a"][:-1]) | (found["b"][1:] != found["b"][:-1])
    return found[new]


def sort_keyed(keys: Array, texts: Array) -> tuple[Array, Array]:
    """Records by key, then text, each once. Few share a key, so only those are put in order by text."""
    order = np.argsort(keys)
    keys, texts = keys[order], texts[order]
    same = np.zeros(len(keys), bool)
    same[1:] = keys[1:] == keys[:-1]
    same[:-1] |= same[1:]
    at = np.flatnonzero(same)
    if len(at):
        inner = np.lexsort((texts[at], keys[at]))
        texts[at] = texts[at][inner]
        keep = np.ones(len(keys), bool)
        keep[1:] = (keys[1:] != keys[:-1]) | (texts[1:] != texts[:-1])
        keys, texts = keys[keep], texts[keep]
    return keys, texts


def largest_bucket(keys: Array) -> int:
    """Members of the largest bucket of ascending keys."""
    if not len(keys):
        return 0
    starts = np.flatnonzero(np.append(True, keys[1:] != keys[:-1]))
    return int(np.diff(np.append(starts, len(keys))).max())


def _run(index: Path, stem: str) -> tuple[Array, Array]:
    return mapped(index / f"{stem}.key", "<u8"), mapped(index / f"{stem}.text", "<u8")


def _lookup(asked: Array, keys: Array, texts: Array) -> tuple[Array, Array]:
    """Records of a run that have one of the keys asked for (ascending, distinct)."""
    first = np.searchsorted(keys, asked, "left")
    count = np.searchsorted(keys, asked, "right") - first
    at = np.repeat(first - np.cumsum(count) + count, count) + np.arange(int(count.sum()))
    return np.repeat(asked, count), np.asarray(texts[at])


def _merged(index: Path, runs: list[str], gone: Array) -> tuple[Array, Array]:
    """All runs as one, without the texts that are gone."""
    keys = [np.zeros(0, np.uint64)]
    texts = [np.zeros(0, np.uint64)]
    for stem in runs:
        for key, text in zip(
            chunks(index / f"{stem}.key", np.dtype("<u8")), chunks(index / f"{stem}.text", np.dtype("<u8")), strict=True
        ):
            here = ~among(text, gone)[1]
            keys.append(key[here])
            texts.append(text[here])
    return sort_keyed(np.concatenate(keys), np.concatenate(texts))


def _without(index: Path, files: list[str], gone: Array) -> Iterator[Array]:
    for name in files:
        for chunk in chunks(index / name, PAIR):
            yield chunk[~(among(chunk["a"], gone)[1] | among(chunk["b"], gone)[1])]


def _write_run(stem: Path, keys: Array, texts: Array) -> None:
    save(stem.with_name(stem.name + ".key"), keys)
    save(stem.with_name(stem.name + ".text"), texts)


def _write_pairs(path: Path, found: Iterator[Array]) -> None:
    with atomic_write(path) as file:
        for chunk in found:
            file.write(np.ascontiguousarray(chunk).tobytes())
