"""The mix: how often each document is shown in one pass over the training text. Weights, temperature, caps, and quality.

A source's repeats r follow from its size s and its weight w: r = w · c · s^(1/T − 1), with c such that a temperature changes shares and
not the total. A document of r = 2.3 is shown twice, and a third time when its id falls under 0.3: the same on every machine.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow.compute as pc
import pyarrow.parquet as pq

from gptwright.corpus.config import MixConfig
from gptwright.corpus.copies import Array, Bools
from gptwright.corpus.decide import ids_of
from gptwright.corpus.reading import Document, Split, manifest, part_documents
from gptwright.corpus.recipes.evaluate import numbers
from gptwright.corpus.recipes.rule import unknown
from gptwright.corpus.tables import part_path

_BINS = 1 << 20  # of a signal's float32, by its top 20 bits: 12 bits of mantissa, 1 in 4096


@dataclass(frozen=True)
class SourceMix:
    """What one source is in the mix. Bytes are of the training part, with edits made."""

    source: str
    documents: int
    bytes: int
    weight: float
    repeats: float  # in one pass, averaged over bytes
    shown_bytes: int  # in one pass
    share: float  # of the text
    shown_share: float  # of what is shown
    epochs: float  # over the whole training
    capped: bool  # max_epochs holds it back


def source_repeats(sizes: Mapping[str, int], config: MixConfig, weights: Mapping[str, float]) -> dict[str, float]:
    """How often each source is shown in one pass.

    Args:
        sizes: bytes of the training part by source.
        config: temperature and cap.
        weights: by source; 1 where a source has none.
    """
    repeats = {name: float(weights.get(name, 1.0)) for name in sizes}
    if config.temperature != 1.0:
        tilt = {name: (size ** (1 / config.temperature - 1) if size else 0.0) for name, size in sizes.items()}
        asked = sum(repeats[name] * size for name, size in sizes.items())
        tilted = sum(repeats[name] * tilt[name] * size for name, size in sizes.items())
        repeats = {name: r * tilt[name] * (asked / tilted if tilted else 0.0) for name, r in repeats.items()}
    if config.max_epochs is not None:
        repeats = {name: min(r, config.max_epochs) for name, r in repeats.items()}
    return repeats


def repeats(
    corpus_dir: Path, config: MixConfig, weights: Mapping[str, float], split: Split = "train"
) -> Iterator[npt.NDArray[np.int32]]:
    """How often each document is shown in one pass, a part at a time.

    Args:
        corpus_dir: work/corpus.
        config: the mix.
        weights: by source.
        split: which documents; all others have 0.

    Returns:
        One (rows of the part,) array a part, in the corpus's order.

    Raises:
        UserError: the quality signal was not measured.
    """
    by_source = source_repeats(_sizes(corpus_dir), config, weights)
    quality = _Quality(corpus_dir, config, split) if config.quality else None
    for number, source in enumerate(_part_sources(corpus_dir)):
        chosen, uids, _ = _part(corpus_dir, number, split)
        wanted = np.full(len(chosen), by_source.get(source, 1.0))
        if quality is not None:
            wanted *= quality.factors(number, source)
            if config.max_epochs is not None:
                wanted = np.minimum(wanted, config.max_epochs)
        whole = np.floor(wanted)
        # The first four bytes of an id are as good as a random number, and stay.
        extra = uids.view(np.uint8).reshape(-1, 16)[:, :4].copy().view(">u4")[:, 0] / 2.0**32 < wanted - whole
        yield np.where(chosen, whole + extra, 0).astype(np.int32)


def documents(
    corpus_dir: Path, config: MixConfig, weights: Mapping[str, float], split: Split = "train"
) -> Iterator[Document]:
    """The documents of a split, each as often as the mix shows it, one after the other."""
    for number, times in enumerate(repeats(corpus_dir, config, weights, split)):
        if times.any():
            for row, document in part_documents(corpus_dir, number, split):
                for _ in range(int(times[row])):
                    yield document


def effective_epochs(
    corpus_dir: Path,
    config: MixConfig,
    weights: Mapping[str, float],
    tokens: int | None = None,
    bytes_per_token: float = 4.0,
) -> list[SourceMix]:
    """What the mix comes to, source by source.

    Args:
        corpus_dir: work/corpus.
        config: the mix.
        weights: by source.
        tokens: that training will see; None: one pass.
        bytes_per_token: of the tokenizer, as far as it is known.
    """
    names = list(dict.fromkeys(_part_sources(corpus_dir)))
    count, size, shown = (dict.fromkeys(names, 0) for _ in range(3))
    for number, (source, times) in enumerate(
        zip(_part_sources(corpus_dir), repeats(corpus_dir, config, weights), strict=True)
    ):
        chosen, _, n_bytes = _part(corpus_dir, number, "train")
        count[source] += int(chosen.sum())
        size[source] += int(n_bytes[chosen].sum())
        shown[source] += int((n_bytes * times).sum())
    total, total_shown = max(sum(size.values()), 1), max(sum(shown.values()), 1)
    passes = tokens * bytes_per_token / total_shown if tokens is not None else 1.0
    uncapped = source_repeats(_sizes(corpus_dir), config.model_copy(update={"max_epochs": None}), weights)
    found = []
    for name in names:
        mean = shown[name] / size[name] if size[name] else 0.0
        capped = config.max_epochs is not None and uncapped.get(name, 1.0) > config.max_epochs
        found.append(
            SourceMix(
                name,
                count[name],
                size[name],
                float(weights.get(name, 1.0)),
                mean,
                shown[name],
                size[name] / total,
                shown[name] / total_shown,
                passes * mean,
                capped,
            )
        )
    return found


def _sizes(corpus_dir: Path) -> dict[str, int]:
    return {name: int(row["train"]["bytes"]) for name, row in manifest(corpus_dir)["meta"]["sources"].items()}


def _part_sources(corpus_dir: Path) -> list[str]:
    """The source of each part; a part has one."""
    found = []
    for number in range(manifest(corpus_dir)["parts"]):
        with pq.ParquetFile(part_path(corpus_dir, "docs", number)) as file:
            batch = next(file.iter_batches(batch_size=1, columns=["source"]), None)
        found.append(batch["source"][0].as_py() if batch is not None and batch.num_rows else "")
    return found


def _part(corpus_dir: Path, number: int, split: Split) -> tuple[Bools, Array, Array]:
    """Which documents are of a split, their ids and their bytes."""
    decisions = pq.read_table(part_path(corpus_dir, "decisions", number), columns=["doc_uid", "split"])
    size = pq.read_table(part_path(corpus_dir, "signals", number), columns=["n_bytes_edited"])["n_bytes_edited"]
    chosen = pc.fill_null(pc.equal(decisions["split"], split), False).to_numpy()
    return chosen, ids_of(decisions, "doc_uid"), size.to_numpy()


class _Quality:
    """Factors by quality: a document's place among those of its source decides, not the measure's scale."""

    def __init__(self, corpus_dir: Path, config: MixConfig, split: Split) -> None:
        self.corpus_dir, self.signal, self.spread, self.split = (
            corpus_dir,
            str(config.quality),
            config.quality_spread,
            split,
        )
        self.source: str | None = None
        self.table: Array = np.zeros(0)
        self.sources = _part_sources(corpus_dir)

    def factors(self, number: int, source: str) -> Array:
        """(rows,) factors of a part; documents without a value have the factor of the middle."""
        if source != self.source:  # the parts of a source follow each other, so one table is enough
            self.source, self.table = source, self._table_of(source)
        return self.table[self._bins(number)]

    def _bins(self, number: int) -> npt.NDArray[np.int64]:
        path = part_path(self.corpus_dir, "signals", number)
        there = pq.read_schema(path).names
        if self.signal not in there:
            raise unknown("signal", self.signal, there, "corpus.mix.quality")
        return _bin_of(numbers(pq.read_table(path, columns=[self.signal])[self.signal]))

    def _table_of(self, source: str) -> Array:
        weight = np.zeros(_BINS + 1)
        for number, name in enumerate(self.sources):
            if name == source:
                chosen, _, n_bytes = _part(self.corpus_dir, number, self.split)
                weight += np.bincount(self._bins(number)[chosen], weights=n_bytes[chosen], minlength=_BINS + 1)
        known = weight[:_BINS]
        total = known.sum()
        place = (np.cumsum(known) - known / 2) / total if total else np.full(_BINS, 0.5)
        factor = np.append(self.spread ** (2 * place - 1), 1.0)
        whole = weight.sum()
        return factor * (whole / (factor * weight).sum()) if whole else factor


def _bin_of(value: Any) -> npt.NDArray[np.int64]:
    """Bins in the order of the values; the last is for what is not a number."""
    single = np.asarray(value, np.float32) + np.float32(0)  # -0 becomes 0
    bits = single.view(np.uint32)
    ordered = np.where(bits >> 31 == 1, ~bits, bits | np.uint32(1 << 31))
    return np.where(np.isnan(single), _BINS, ordered >> 12).astype(np.int64)
