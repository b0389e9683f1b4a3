"""Erased texts are recognised, copies with small changes too; others are not, and the blocks tell nothing."""

from hashlib import blake2b
from pathlib import Path

import numpy as np

from gptwright.corpus.blocks import Block, Blocks, erasure_key

KEY = bytes(range(32))


def norm(text: str) -> bytes:
    return blake2b(text.encode(), digest_size=16).digest()


def test_match_when_the_text_is_erased_then_it_is_found_and_others_are_not() -> None:
    blocks = Blocks(KEY, [Blocks(KEY).block(norm("a"))])
    assert blocks.match([norm("b"), norm("a"), norm("c")]) == [1]


def test_match_when_three_bands_agree_then_it_is_nearly_the_erased_text() -> None:
    rng = np.random.default_rng(1)
    erased = rng.integers(0, 2**63, 16, dtype=np.uint64)
    blocks = Blocks(KEY, [Blocks(KEY).block(norm("a"), erased)])
    others = rng.integers(0, 2**63, (4, 16), dtype=np.uint64)
    for row, shared in enumerate((0, 2, 3, 16)):
        others[row, :shared] = erased[:shared]
    assert blocks.match([norm(str(row)) for row in range(4)], others) == [2, 3]


def test_blocks_when_the_key_is_another_then_nothing_is_recognised() -> None:
    made = Blocks(KEY).block(norm("a"), np.arange(16, dtype=np.uint64))
    assert Blocks(bytes(32), [made]).match([norm("a")], np.arange(16, dtype=np.uint64)[None]) == []
    assert repr(KEY) not in repr(Blocks(KEY, [made]))


def test_block_when_dumped_then_it_loads_as_it_was() -> None:
    for keys in (None, np.arange(16, dtype=np.uint64)):
        made = Blocks(KEY).block(norm("a"), keys)
        assert Block.load(*made.dump()) == made


def test_erasure_key_when_made_then_it_stays_and_only_its_owner_reads_it(tmp_path: Path) -> None:
    assert erasure_key(tmp_path) is None
    key = erasure_key(tmp_path, make=True)
    assert erasure_key(tmp_path, make=True) == key
    assert len(key or b"") == 32
    assert (tmp_path / "erasure.key").stat().st_mode & 0o077 == 0


def test_holds_when_a_place_is_erased_then_the_same_text_elsewhere_stays() -> None:
    blocks = Blocks(KEY, [Block(Blocks(KEY).mac_of_place(norm("here")))])
    assert blocks.holds(norm("here"), norm("a"))
    assert not blocks.holds(norm("there"), norm("a"))
    assert Blocks(KEY, [Blocks(KEY).block(norm("a"))]).holds(norm("there"), norm("a"))
