"""Bytes to clean text: charsets, normal form, bounded lines and parts."""

import io
import time
import unicodedata
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.corpus import text as t
from gptwright.corpus.readers import read_file


@pytest.mark.parametrize(
    ("data", "codec", "note"),
    [
        (b"plain ascii", "utf-8", None),
        ("Grüße".encode(), "utf-8", None),
        ("Grüße, “so”".encode("cp1252"), "cp1252", "not valid UTF-8"),
        (b"caf\xe9 \x81", "latin-1", "not valid UTF-8"),
        ("äöü".encode("utf-16"), "utf-16", None),
        ("\ufeffmarked".encode(), "utf-8-sig", None),
        ("plain words without a mark".encode("utf-16-le"), "utf-16-le", "no byte order mark"),
        (("é" * 50).encode() + b"\xff" + b"end", "utf-8", "1 byte that is not UTF-8"),
    ],
)
def test_charset_when_bytes_are_given_then_it_is_found_and_guesses_are_said(
    tmp_path: Path, data: bytes, codec: str, note: str | None
) -> None:
    file = tmp_path / "file.txt"
    file.write_bytes(data)
    found = t.find_charset(file)
    assert found.codec == codec
    assert (found.note is None) if note is None else (note in str(found.note))
    with t.open_text(file, found) as opened:
        opened.read()


def test_charset_when_character_lies_across_blocks_then_it_is_still_utf8(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(t, "SNIFF_BYTES", 7)
    monkeypatch.setattr(t, "BLOCK_BYTES", 3)
    file = tmp_path / "file.txt"
    file.write_bytes("aé日本𝄞語".encode() * 20)
    assert t.find_charset(file) == t.Charset("utf-8")


@pytest.mark.parametrize("data", [bytes(range(256)) * 8, b"text" * 20000 + b"\x00\x01\x02" * 30000])
def test_charset_when_bytes_are_binary_then_it_is_not_text(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "file.txt").write_bytes(data)
    with pytest.raises(t.NotText, match="binary"):
        t.find_charset(tmp_path / "file.txt")


@given(st.text())
def test_normalise_when_done_twice_then_nothing_changes(value: str) -> None:
    once = t.normalise(value)
    assert t.normalise(once) == once
    assert unicodedata.is_normalized("NFC", once)
    assert "\r" not in once
    assert "\0" not in once


@given(st.text(alphabet=st.characters(codec=None), max_size=50))
def test_normalise_when_surrogates_are_alone_then_the_result_is_storable(value: str) -> None:
    t.normalise(value + "\ud800").encode("utf-8")


def test_lines_when_one_is_too_long_then_only_that_one_is_left_out() -> None:
    lines = list(t.bounded_lines(io.StringIO("short\n" + "x" * 100 + "\nlast"), cap=20))
    assert lines == ["short\n", None, "last"]


@given(st.lists(st.sampled_from(["word ", "word. ", "a\n\n", "b\n", "long" * 9]), max_size=120), st.integers(1, 40))
def test_parts_when_text_arrives_in_other_pieces_then_the_cuts_are_the_same(words: list[str], step: int) -> None:
    whole, size = "".join(words), t.PART_CHARS
    try:
        t.PART_CHARS = 64
        one = list(t.parts([whole]))
        pieces = list(t.parts(whole[i : i + step] for i in range(0, len(whole), step)))
        grown = list(t.parts([whole + " more text" * 30]))
    finally:
        t.PART_CHARS = size
    assert one == pieces
    assert "".join("".join(one).split()) == "".join(whole.split())
    assert all(0 < len(part) <= 96 for part in one)
    assert grown[: max(0, len(one) - 2)] == one[: max(0, len(one) - 2)]


@pytest.mark.parametrize(("after", "kind"), [(b"<html><p>x</p></html>", "html"), (b"no html", "text")])
def test_read_when_thousands_of_comments_stand_first_then_the_kind_is_found_at_once(
    tmp_path: Path, after: bytes, kind: str
) -> None:
    file = tmp_path / "page"
    file.write_bytes(b"<!-- -->\n" * 2000 + after)
    started = time.perf_counter()
    assert read_file(file).kind == kind
    assert time.perf_counter() - started < 1
