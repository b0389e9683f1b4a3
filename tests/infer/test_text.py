"""Streams never show half a character, half a stop text, or anything after one; and they lose nothing."""

import ctypes
import random
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gptwright.infer.text import StopMatcher, TextStream
from gptwright.tokens.stream import StreamDecoder
from gptwright.tokens.tokenizer import Tokenizer

alphabet = st.text(alphabet="ab\nc", max_size=30)


def cut(text: str, sizes: Sequence[int]) -> list[str]:
    pieces, at = [], 0
    for size in sizes:
        pieces.append(text[at : at + size])
        at += size
    return [*pieces, text[at:]]


@given(
    alphabet,
    st.lists(st.text(alphabet="ab\nc", min_size=1, max_size=4), max_size=3),
    st.lists(st.integers(0, 4), max_size=20),
)
def test_stop_when_text_comes_in_pieces_is_found_as_in_the_whole(text: str, stops: list[str], sizes: list[int]) -> None:
    matcher, shown, stopped = StopMatcher(stops), "", False
    for piece in cut(text, sizes):
        more, stopped = matcher.push(piece)
        shown += more
        if stopped:
            break
    # Text that came in one piece after the first stop was complete is ignored, so the first to be *complete* wins.
    ends = [(text.find(s) + len(s), text.find(s)) for s in stops if s in text]
    if not ends:
        assert not stopped
        assert shown + matcher.finish() == text
    else:
        assert stopped
        assert text.startswith(shown)
        assert not any(s in shown for s in stops)
        assert any(text.startswith(s, len(shown)) for s in stops)


@given(alphabet, st.lists(st.text(alphabet="ab", min_size=1, max_size=4), min_size=1, max_size=3), st.integers(1, 9))
def test_stop_when_tokens_end_elsewhere_leaves_the_same_text(text: str, stops: list[str], size: int) -> None:
    def shown(size: int) -> tuple[str, bool]:
        matcher, found = StopMatcher(stops), ""
        for at in range(0, len(text), size):
            more, stopped = matcher.push(text[at : at + size])
            found += more
            if stopped:
                return found, True
        return found + matcher.finish(), False

    assert shown(size) == shown(1)


@given(alphabet, st.text(alphabet="ab", min_size=1, max_size=3))
def test_text_when_it_cannot_begin_a_stop_is_shown_at_once(text: str, stop: str) -> None:
    matcher = StopMatcher([stop])
    shown, stopped = matcher.push(text)
    if not stopped:
        held = text[len(shown) :]
        assert stop.startswith(held)
        assert len(held) < len(stop)


@given(st.text(max_size=40), st.lists(st.integers(1, 3), max_size=80), st.binary(max_size=5))
def test_utf8_when_split_anywhere_is_never_broken(text: str, sizes: list[int], tail: bytes) -> None:
    data = text.encode("utf-8", "surrogatepass") if text.isascii() else text.encode("utf-8", "replace")
    pieces, at = [], 0
    for size in sizes:
        pieces.append(data[at : at + size])
        at += size
    pieces += [data[at:], tail]
    stream = TextStream(StreamDecoder(lambda i: pieces[i]), ())
    before_tail = "".join(stream.push(i)[0] for i in range(len(pieces) - 1))
    assert before_tail == data.decode()  # whole characters, none held back
    rest = stream.push(len(pieces) - 1)[0] + stream.finish()[0]
    assert before_tail + rest == (data + tail).decode("utf-8", "replace")


def test_character_when_incomplete_waits_and_comes_whole() -> None:
    euro = "€".encode()
    stream = TextStream(StreamDecoder(lambda i: euro[i : i + 1]), ())
    assert [stream.push(i)[0] for i in range(3)] == ["", "", "€"]


def test_stop_when_it_is_split_inside_a_character_is_found() -> None:
    data = "so €€ end".encode()
    stream = TextStream(StreamDecoder(lambda i: data[i : i + 1]), ["€€"])
    shown, at = "", 0
    while True:
        text, stopped = stream.push(at)
        shown += text
        at += 1
        if stopped:
            break
    assert shown == "so "
    assert at == len("so €€".encode())


@pytest.mark.skipif(
    sys.platform != "linux" or not hasattr(ctypes.CDLL(None), "mallinfo2"), reason="asks glibc what the heap holds"
)
def test_words_when_many_threads_encode_are_not_kept_by_each_without_end(tokenizer_dir: Path) -> None:
    names = ["arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost"]
    info = type("Info", (ctypes.Structure,), {"_fields_": [(name, ctypes.c_size_t) for name in names]})
    ask = ctypes.CDLL(None).mallinfo2
    ask.restype = info
    grown = {}
    for most in (10_000, 500):
        tokenizer = Tokenizer.load(tokenizer_dir)
        tokenizer.remember_words(most)
        with ThreadPoolExecutor(4) as pool:
            before = ask().uordblks
            texts = ["".join(random.Random(number).choices("abcdefghij ", k=300)) for number in range(1500)]
            ids = list(pool.map(tokenizer.encode, texts))
            grown[most] = ask().uordblks - before
        assert tokenizer.decode(ids[7]) == texts[7]
    assert grown[500] < grown[10_000] / 2
