"""The index of near duplicates over builds: candidates and evidence by text, brought up to date with what came and went.

state.json            what the index holds; written last, so a killed update leaves the former one
gen-<hash>/           files of one update, named by what it changes and into what; found again when it is continued
"""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from pydantic import BaseModel

from gptwright.core.files import read_json, write_json
from gptwright.core.hashing import b2_json
from gptwright.corpus.dedup.candidates import KEYED, PAIR, Bucketed, distinct_pairs, update
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import settings_key
from gptwright.corpus.dedup.layout import Layout
from gptwright.corpus.dedup.store import (
    CHUNK_RECORDS,
    PARTITION_RECORDS,
    Spill,
    among,
    bits_for,
    chunks,
    place,
    save,
    text_keys,
)
from gptwright.corpus.dedup.verify import EVIDENCE, TextSets
from gptwright.corpus.dedup.words import Array

STATE = "state.json"


class State(BaseModel):
    """What an index holds.

    Attributes:
        settings: of features and candidates; with others, all is made anew.
        texts: digest of the set of texts.
        keys: file of their keys, uint64, ascending.
        bits: logarithm of the number of partitions.
        partitions: of records (key, text).
        evidence: files of EVIDENCE: all candidate pairs, each once, by partitions of their smaller text.
    """

    settings: str
    texts: str
    keys: str
    bits: int
    partitions: list[Bucketed]
    evidence: list[str]


def evidence_files(layout: Layout, config: DedupConfig, index: Path, between: Callable[[], None]) -> list[Path]:
    """All pairs of similar texts with their evidence.

    Args:
        layout: the corpus as it is now.
        config: bands, what is short, hubs.
        index: the folder of the index; nothing else may be in it.
        between: called between two pieces of work; may raise to stop, and a later call goes on from there.

    Returns:
        Files of EVIDENCE, each pair in one of them, each file ascending by pair; the same whatever was indexed before.
    """
    index.mkdir(parents=True, exist_ok=True)
    settings = b2_json(
        [settings_key(config), config.model_dump(include={"numbers_differ", "hub", "representatives"}), 1]
    )
    old = _load(index, settings)
    texts = layout.digest()
    if old is None or old.texts != texts:
        records = len(layout.texts) * config.bands
        bits = bits_for(records)
        if old is not None and records <= 4 * PARTITION_RECORDS << old.bits:
            bits = old.bits
        # Named by where it starts from too: files that the old state still needs must not be written over.
        change = b2_json([settings, texts, bits, old.model_dump() if old is not None else None])
        folder = index / f"gen-{change.removeprefix('b2:')[:24]}"
        _tidy(index, old, folder)
        folder.mkdir(exist_ok=True)
        new = _Update(layout, config, index, folder, old, bits, between)
        state = State(settings=settings, texts=texts, **new.run())
        write_json(index / STATE, state.model_dump())
        old = state
    _tidy(index, old, None)
    return [index / name for name in old.evidence]


def _load(index: Path, settings: str) -> State | None:
    if not (index / STATE).exists():
        return None
    state = State.model_validate(read_json(index / STATE))
    return state if state.settings == settings else None


def _tidy(index: Path, state: State | None, working: Path | None) -> None:
    """Delete what neither the state nor the update under way needs: texts that are gone leave no trace here."""
    wanted: set[Path] = set()
    if state is not None:
        names = [state.keys, *state.evidence]
        for part in state.partitions:
            names += [*part.pairs, *(run + end for run in part.runs for end in (".key", ".text"))]
        wanted = {index / name for name in names}
    for folder in index.glob("gen-*"):
        if folder == working:
            continue
        for path in folder.rglob("*"):
            if path.is_file() and path not in wanted:
                path.unlink()
        if not any(path.is_file() for path in folder.rglob("*")):
            shutil.rmtree(folder)


class _Update:
    """One update; each of its steps is skipped when a former run did it."""

    def __init__(
        self, layout: Layout, config: DedupConfig, index: Path, folder: Path, old: State | None, bits: int,
        between: Callable[[], None],
    ) -> None:  # fmt: skip
        self.layout, self.config, self.index, self.folder, self.between = layout, config, index, folder, between
        self.old, self.bits = old, bits
        self.base = old if old is not None and old.bits == bits else None  # with other partitions, runs begin anew
        self.known = np.fromfile(index / self.base.keys, "<u8") if self.base else np.zeros(0, np.uint64)

    def run(self) -> dict[str, Any]:
        """All steps."""
        keys = self.folder / "texts.u64"
        if not keys.exists():
            save(keys, self.layout.texts)
        partitions = self._partitions()
        bits = self._collect(partitions)
        evidence = self._verify(bits)
        for path in (self.folder / "keys", self.folder / "pairs", self.folder / "sets"):
            shutil.rmtree(path, ignore_errors=True)
        return {
            "keys": self._name(keys),
            "bits": self.bits,
            "partitions": partitions,
            "evidence": [self._name(path) for path in evidence],
        }

    def _name(self, path: Path) -> str:
        return path.relative_to(self.index).as_posix()

    def _partitions(self) -> list[Bucketed]:
        """Sort the keys of new texts into the partitions, and find candidates."""
        done = [self.folder / f"part-{p:04d}.json" for p in range(1 << self.bits)]
        if not all(path.exists() for path in done):
            self._spill()
            gone = self.known[~among(self.known, self.layout.texts)[1]]
            for p, path in enumerate(done):
                if path.exists():
                    continue
                self.between()
                records = np.fromfile(self.folder / "keys" / f"spill-{p:04d}.bin", KEYED)
                before = self.base.partitions[p] if self.base else Bucketed()
                made = update(self.index, self.folder, f"part-{p:04d}", before, records, gone, self.config)
                write_json(path, made.model_dump())
        return [Bucketed.model_validate(read_json(path)) for path in done]

    def _spill(self) -> None:
        """Keys of new texts, by partition."""
        if (self.folder / "keys.json").exists():
            return
        layout = self.layout
        new = np.ones(len(layout.texts), bool)
        if len(self.known):
            step = CHUNK_RECORDS
            for first in range(0, len(new), step):
                new[first : first + step] = ~among(layout.texts[first : first + step], self.known)[1]
        wanted = layout.mask(new)
        with Spill(self.folder / "keys", KEYED, 1 << self.bits) as spill:
            for number, part in enumerate(layout.parts):
                row = int(layout.bounds[number])
                if not wanted[row : int(layout.bounds[number + 1])].any():
                    continue
                self.between()
                for batch in part.batches():
                    here = wanted[row : row + batch.num_rows] & (np.asarray(batch["shingles"]) > 0)
                    column = batch["keys"]
                    keys = column.values.to_numpy()[column.offset * self.config.bands :][
                        : batch.num_rows * self.config.bands
                    ].reshape(-1, self.config.bands)[here]
                    texts = text_keys(layout.norm_ids[row + np.flatnonzero(here)])
                    records = np.empty(keys.size, KEYED)
                    records["key"], records["text"] = keys.reshape(-1), np.repeat(texts, self.config.bands)
                    spill.add(records, place(records["key"], self.bits))
                    row += batch.num_rows
        write_json(self.folder / "keys.json", {"records": spill.records})

    def _collect(self, partitions: list[Bucketed]) -> int:
        """Candidate pairs and what is known of them, by partitions of pairs. Returns the logarithm of their number."""
        marker = self.folder / "pairs.json"
        if not marker.exists():
            files = [self.index / name for part in partitions for name in part.pairs]
            bits = bits_for(sum(path.stat().st_size for path in files) // PAIR.itemsize)
            with (
                Spill(self.folder / "pairs", PAIR, 1 << bits) as spill,
                Spill(self.folder / "pairs" / "known", EVIDENCE, 1 << bits) as known,
            ):
                for path in files:
                    self.between()
                    for chunk in chunks(path, PAIR):
                        spill.add(chunk, place(chunk["a"], bits))
                for name in self.old.evidence if self.old else ():
                    for chunk in chunks(self.index / name, EVIDENCE):
                        known.add(chunk, place(chunk["a"], bits))
            write_json(marker, {"bits": bits})
        return int(read_json(marker)["bits"])

    def _verify(self, bits: int) -> list[Path]:
        """Evidence of all pairs: what is known already, and the rest by comparing texts."""
        out = [self.folder / f"evidence-{q:04d}.bin" for q in range(1 << bits)]
        if all(path.exists() for path in out):
            return out
        sets = self.folder / "sets"
        marker = self.folder / "sets.json"
        if not marker.exists():
            needed = np.zeros(len(self.layout.texts), bool)
            for q in range(1 << bits):
                _, todo = self._known(q)
                for side in ("a", "b"):
                    needed[among(todo[side], self.layout.texts)[0]] = True
            TextSets.write(self.layout, needed, sets, self.config, self.between)
            write_json(marker, {"texts": int(needed.sum())})
        reader = TextSets(sets, self.layout.texts)
        for q, path in enumerate(out):
            if path.exists():
                continue
            self.between()
            known, todo = self._known(q)
            rows = np.concatenate([known, reader.verify(todo)])
            save(path, rows[np.lexsort((rows["b"], rows["a"]))])
        return out

    def _known(self, q: int) -> tuple[Array, Array]:
        """Of the pairs of a partition: evidence of those that have it, and the others."""
        pairs = distinct_pairs(np.fromfile(self.folder / "pairs" / f"spill-{q:04d}.bin", PAIR))
        known = np.fromfile(self.folder / "pairs" / "known" / f"spill-{q:04d}.bin", EVIDENCE)
        if not len(known):
            return known, pairs
        a, b = np.concatenate([pairs["a"], known["a"]]), np.concatenate([pairs["b"], known["b"]])
        order = np.lexsort((np.arange(len(a)) >= len(pairs), b, a))
        same = (a[order][1:] == a[order][:-1]) & (b[order][1:] == b[order][:-1])
        found = np.zeros(len(pairs), bool)
        found[order[:-1][same]] = True
        return known[order[1:][same] - len(pairs)], pairs[~found]
