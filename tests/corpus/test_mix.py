"""The mix: plain weights as ever, temperature, caps and quality as arithmetic that can be checked by hand."""

import itertools
import json
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.corpus import mix, tables
from gptwright.corpus.build import build_corpus
from gptwright.corpus.config import CorpusConfig, MixConfig
from gptwright.corpus.mix import effective_epochs, source_repeats
from gptwright.corpus.view import Document, documents

if TYPE_CHECKING:
    from conftest import Project


@pytest.fixture
def corpus(project: "Project") -> Path:
    """A large and a small source."""
    for name, count in (("large", 120), ("small", 30)):
        rows = [{"text": project.prose(ord(name[0]) * 1000 + i, 30)} for i in range(count)]
        project.write(f"{name}/a.jsonl", "\n".join(json.dumps(row) for row in rows))
    sources = {name: {"uri": f"data/{name}"} for name in ("large", "small")}
    config = CorpusConfig.model_validate({"sources": sources, "heldout_share": 0.1})
    build_corpus(config, root=project.root, out=project.out, ledger=project.ledger, workers=1)
    return project.out


def by_weight(found: Iterator[Document], weights: dict[str, float]) -> list[str]:
    """Plain weights as they always were: the whole part, and of a fraction the documents whose id falls under it."""
    uids = []
    for document in found:
        whole, part = divmod(weights.get(document.source, 1.0), 1)
        extra = int(document.uid[:8], 16) / 16**8 < part
        uids += [document.uid] * (int(whole) + extra)
    return uids


@pytest.mark.parametrize("weights", [{}, {"small": 3.0}, {"small": 2.5, "large": 0.3}, {"large": 0.001}])
def test_mix_when_there_are_only_weights_then_it_is_as_ever(corpus: Path, weights: dict[str, float]) -> None:
    shown = [document.uid for document in mix.documents(corpus, MixConfig(), weights)]
    assert shown == by_weight(documents(corpus, "train"), weights)


def test_mix_when_asked_twice_then_it_is_the_same_and_nothing_held_out_is_shown(corpus: Path) -> None:
    config = MixConfig(temperature=3, quality="n_chars", max_epochs=4)
    first, again = ([part.tolist() for part in mix.repeats(corpus, config, {"small": 2})] for _ in range(2))
    assert first == again
    heldout = {document.uid for document in documents(corpus, "heldout")}
    assert heldout
    assert not heldout & {document.uid for document in mix.documents(corpus, config, {"small": 2})}


sizes = st.dictionaries(st.sampled_from("abcd"), st.integers(1, 10**9), min_size=1)


@given(sizes, st.floats(1.01, 50), st.dictionaries(st.sampled_from("abcd"), st.floats(0.1, 10)))
def test_temperature_when_above_one_then_the_total_stays_and_shares_go_by_the_root(
    of: dict[str, int], temperature: float, weights: dict[str, float]
) -> None:
    found = source_repeats(of, MixConfig(temperature=temperature), weights)
    total = sum(found[name] * size for name, size in of.items())
    assert total == pytest.approx(sum(weights.get(name, 1) * size for name, size in of.items()))
    expected = {name: weights.get(name, 1) * size ** (1 / temperature) for name, size in of.items()}
    for name, size in of.items():
        assert found[name] * size / total == pytest.approx(expected[name] / sum(expected.values()))


@given(sizes, st.floats(0.1, 5))
def test_cap_when_it_is_set_then_no_source_is_shown_more_often(of: dict[str, int], cap: float) -> None:
    found = source_repeats(of, MixConfig(temperature=8, max_epochs=cap), {"a": 9})
    assert max(found.values()) <= cap


def test_quality_when_it_is_asked_for_then_better_documents_are_shown_more_and_the_source_as_much(corpus: Path) -> None:
    plain, tilted = (
        {one.source: one for one in effective_epochs(corpus, MixConfig(**more), {"large": 20, "small": 20})}  # type: ignore[arg-type]
        for more in ({}, {"quality": "n_chars", "quality_spread": 2.0})
    )
    for name in ("large", "small"):
        assert plain[name].repeats == 20
        assert tilted[name].repeats == pytest.approx(20, rel=0.01)
    pairs = []
    for number, times in enumerate(mix.repeats(corpus, MixConfig(quality="n_chars"), {"large": 20, "small": 20})):
        values = pq.read_table(tables.part_path(corpus, "signals", number), columns=["n_chars"])["n_chars"].to_numpy()
        pairs.append([(v, t) for v, t in zip(values, times, strict=True) if t])
    for rows in pairs:
        ordered = sorted(rows)
        assert ordered[0][1] < 14
        assert ordered[-1][1] > 26
        assert all(a[1] <= b[1] + 1 for a, b in itertools.pairwise(ordered))  # up to the fraction's rounding


def test_quality_when_the_signal_is_not_there_then_the_nearest_is_offered(corpus: Path) -> None:
    with pytest.raises(UserError, match=r"corpus.mix.quality: unknown signal 'n_char'. Did you mean"):
        list(mix.repeats(corpus, MixConfig(quality="n_char"), {}))


def test_quality_when_values_are_missing_then_those_documents_are_in_the_middle(corpus: Path) -> None:
    path = tables.part_path(corpus, "signals", 0)
    table = pq.read_table(path)
    score = pa.array([None if i % 2 else float(i) for i in range(table.num_rows)], pa.float32())
    tables.write_table(path, table.append_column("score", score))
    times = next(iter(mix.repeats(corpus, MixConfig(quality="score"), {"large": 50})))
    missing = Counter(t for i, t in enumerate(times.tolist()) if t and i % 2)
    assert max(missing) - min(missing) <= 1
    assert len({t for i, t in enumerate(times.tolist()) if t and not i % 2}) > 10


def test_epochs_when_tokens_are_given_then_they_add_up(corpus: Path) -> None:
    rows = effective_epochs(corpus, MixConfig(temperature=4, max_epochs=1.5), {}, tokens=100_000, bytes_per_token=4)
    assert sum(row.epochs * row.bytes for row in rows) == pytest.approx(400_000)
    assert sum(row.shown_share for row in rows) == pytest.approx(1)
    small, large = (next(row for row in rows if row.source == name) for name in ("small", "large"))
    assert small.epochs > large.epochs
    assert small.shown_share > small.share
    assert small.capped
    assert not large.capped
    assert small.repeats == pytest.approx(1.5, abs=0.3)


@given(st.lists(st.floats(width=32, allow_nan=False), min_size=2, max_size=20))
def test_bins_when_values_are_ordered_then_so_are_they(values: list[float]) -> None:
    ordered = np.sort(np.array(values, np.float32))
    assert (np.diff(mix._bin_of(ordered)) >= 0).all()
