"""Compiled features equal a plain reference, and hold what deduplication rests on."""

import re
import unicodedata
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.hashing import norm_id
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.dedup.features import features, minhash, shingle_set, side_files, write_features
from gptwright.corpus.dedup.kernels import BASE, constants
from gptwright.corpus.dedup.words import (
    ALONE,
    DIGIT,
    POINTS,
    PRIME,
    SEED,
    SEPARATOR,
    Scratch,
    buffers,
    mix,
    simplify_char,
)

from .corpora import docs_table, prose

TEXT = st.text(
    st.one_of(
        st.sampled_from("aàb zßİΣςйが中。、-'’\n\n\t  .,0١9٣²½ﬁสวัสดี नमस्ते\u00ad\u200b𝟛𠀀😀"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=80,
).map(lambda text: unicodedata.normalize("NFC", text))
WRAPS = 2**64


def reference_words(text: str) -> list[tuple[str, str]]:
    """Words with numbers as 0, and as they are, by the rules in words.py, a character at a time."""
    words: list[tuple[str, str]] = []
    coarse, fine, number, point = "", "", False, False
    for i, char in enumerate(text):
        kind, plain = simplify_char(char)
        if not plain and kind != SEPARATOR:
            continue
        after = text[i + 1 : i + 2]
        goes_on = after and ord(after) < 0x10000 and simplify_char(after)[0] == DIGIT
        if kind == SEPARATOR and number and not point and char in POINTS and goes_on:
            point, fine = True, fine + char
            continue
        if kind in (SEPARATOR, ALONE) and fine:
            words.append((coarse, fine))
            coarse, fine, number = "", "", False
        if kind == SEPARATOR:
            continue
        if kind == DIGIT:
            if not number:
                coarse, number, point = coarse + "0", True, False
        else:
            coarse, number = coarse + plain, False
        fine += plain
        if kind == ALONE:
            words.append((coarse, fine))
            coarse, fine, number = "", "", False
    return words + ([(coarse, fine)] if fine else [])


def word_hash(word: str) -> int:
    h = int(SEED)
    for char in word:
        h = (h ^ ord(char)) * int(PRIME) % WRAPS
    return int(mix(np.uint64(h)))


def run_hash(words: list[int]) -> int:
    h = 0
    for word in words:
        h = (h * int(BASE) + word) % WRAPS
    return int(mix(np.uint64(h)))


@settings(max_examples=300, deadline=None)
@given(TEXT)
def test_split_words_equals_the_reference_character_by_character(text: str) -> None:
    raw = text.encode()
    scratch = Scratch(len(raw))
    n, n_norm, lines = scratch.split(*buffers(pa.array([text], pa.large_string()))[:1], 0, len(raw))
    expected = reference_words(text)
    assert scratch.coarse[:n].tolist() == [word_hash(coarse) for coarse, _ in expected]
    assert scratch.fine[:n].tolist() == [word_hash(fine) for _, fine in expected]
    assert "".join(map(chr, scratch.norm[:n_norm])) == "".join(fine + " " for _, fine in expected)
    assert (
        scratch.line_ends[:lines].tolist()
        == np.cumsum([len(line.encode()) for line in re.findall(r".*\n|.+$", text) or [""]]).tolist()
    )
    for i in range(n):
        assert raw[scratch.starts[i] : scratch.ends[i]].decode()


@settings(max_examples=200, deadline=None)
@given(TEXT)
def test_features_when_norm_ids_are_equal_then_keys_are_equal(text: str) -> None:
    other = unicodedata.normalize("NFC", "  " + text.casefold().replace(" ", "\n ") + "\n")
    if norm_id(other) == norm_id(text):
        found = features(pa.array([text * 9, other * 9], pa.large_string()))
        if norm_id(other * 9) == norm_id(text * 9):
            assert found.keys[0].tolist() == found.keys[1].tolist()
            assert found.shingles[0] == found.shingles[1]


def test_minhash_is_the_least_of_all_permuted_shingles() -> None:
    words = prose(1, 60)
    hashes = [word_hash(word) for word in words]
    shingles = [run_hash_of_five(hashes[i : i + 5]) for i in range(len(hashes) - 4)]
    flips, factors = constants(112)
    expected = [
        min(((s >> 32) ^ int(flip)) * int(factor) % 2**32 for s in shingles)
        for flip, factor in zip(flips, factors, strict=True)
    ]
    assert minhash(" ".join(words)).tolist() == expected
    assert shingle_set(" ".join(words))[0].tolist() == sorted(set(shingles))


def run_hash_of_five(words: list[int]) -> int:
    return run_hash(words)


def test_minhash_format_is_fixed() -> None:
    assert minhash("the quick brown fox jumps over the lazy dog and then sleeps " * 4)[:3].tolist() == GOLDEN


GOLDEN = [51514, 371192032, 428238154]


@pytest.mark.parametrize("text", ["", "…", "a", "!!! ---", "日本"])
def test_features_when_a_text_is_too_short_then_it_has_no_shingles(text: str) -> None:
    assert features(pa.array([text], pa.large_string())).shingles.tolist() == [0]


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10_000), st.integers(0, 70), st.integers(0, 70), st.integers(50, 80))
def test_anchors_when_two_texts_share_a_span_then_they_share_an_anchor_in_it(
    seed: int, before: int, behind: int, words: int
) -> None:
    span = prose(seed, words)
    texts = [" ".join(prose(seed + 1, n) + span + prose(seed + 2 + n, behind)) for n in (before, before + 13)]
    found = features(pa.array(texts, pa.large_string()))
    inside: list[set[int]] = []
    for row, text in enumerate(texts):
        at = text.index(" ".join(span))
        mine = found.anchor_rows == row
        within = (found.anchor_starts >= at) & (found.anchor_starts < at + len(" ".join(span)))
        inside.append(set(found.anchors[mine & within].tolist()))
    assert inside[0] & inside[1]


def test_lines_when_a_paragraph_is_wrapped_otherwise_then_its_hash_is_the_same() -> None:
    words = prose(3, 20)
    texts = [
        "Intro\n\n" + " ".join(words[:10]) + "\n" + " ".join(words[10:]) + "\n\nEnd",
        " ".join(words[:4]) + "\n" + " ".join(words[4:]),
        " ".join(words),
    ]
    found = features(pa.array(texts, pa.large_string()))
    sets = [set(found.lines[found.line_rows == i].tolist()) for i in range(3)]
    assert len(sets[0] & sets[1] & sets[2]) == 1


def test_write_features_when_batches_differ_then_the_result_is_that_of_one_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import pyarrow.parquet as pq

    texts = [" ".join(prose(i, 90)) + "\nAll of us have this line.\n" for i in range(30)]
    chats: list[str | None] = [None] * 29 + ["[]"]
    config = DedupConfig()
    pq.write_table(docs_table(texts, chats), tmp_path / "docs.parquet", row_group_size=7)
    monkeypatch.setattr("gptwright.corpus.dedup.features.BATCH_BYTES", 1500)
    out = write_features(tmp_path / "docs.parquet", tmp_path / "out.arrow", config)
    whole = features(pa.array(texts, pa.large_string()), config, np.arange(30) < 29)
    with pa.ipc.open_file(out) as reader:
        table = reader.read_all()
    assert np.array(table["keys"].to_pylist(), np.uint64).tolist() == whole.keys.tolist()
    for path, columns in zip(
        side_files(out),
        ((whole.lines, whole.line_rows), (whole.anchors, whole.anchor_rows, whole.anchor_starts)),
        strict=True,
    ):
        with pa.ipc.open_file(path) as reader:
            stored = reader.read_all()
        for name, column in zip(stored.column_names, columns, strict=True):
            assert stored[name].to_numpy().tolist() == column.tolist()
    assert 29 not in whole.line_rows, "conversations are never edited"
