"""Canaries: planted as often as recorded, at places of the seed, and found again in the shards."""

from collections import Counter

import pytest

from gptwright.core.errors import UserError
from gptwright.tokens.canaries import DIGITS, make_canaries, plant
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer

from .conftest import Doc


def test_canaries_when_planted_then_each_stands_in_the_shards_as_often_as_recorded(
    docs: list[Doc], tokenizer: Tokenizer, tmp_path
) -> None:
    canaries = make_canaries(16, seed=3)
    assert Counter(canary.repeats for canary in canaries) == {1: 4, 4: 4, 16: 4, 64: 4}
    write_tokens(plant(docs, canaries, 3, len(docs)), tokenizer, tmp_path / "d")
    dataset = TokenDataset.open(tmp_path / "d")
    for canary in canaries:
        found = dataset.find(canary.uid)
        assert len(found) == canary.record()["repeats"]
        assert {tokenizer.decode(dataset.document(index).tolist()) for index in found} == {canary.text}
    assert dataset.n_docs == len(docs) + sum(canary.repeats for canary in canaries)
    order = [dataset.uid(index) for index in range(dataset.n_docs)]
    assert [uid for uid in order if uid in {doc.uid for doc in docs}] == [doc.uid for doc in docs]


def test_canaries_when_made_again_then_are_the_same_and_another_seed_gives_others() -> None:
    first, again, other = make_canaries(9, 1), make_canaries(9, 1), make_canaries(9, 2)
    assert first == again
    assert not {canary.secret for canary in first} & {canary.secret for canary in other}
    assert len({canary.uid for canary in first + other}) == 18
    assert all(len(canary.secret) == DIGITS for canary in first)


@pytest.mark.parametrize("expected", [0, 3, 1000])
def test_plant_when_the_number_of_documents_is_misjudged_then_none_is_lost(docs: list[Doc], expected: int) -> None:
    canaries = make_canaries(4, 5, (2,))
    planted = list(plant(docs[:10], canaries, 5, expected))
    assert len(planted) == 18
    assert planted == list(plant(docs[:10], canaries, 5, expected))


def test_canaries_when_copies_are_none_then_is_refused() -> None:
    with pytest.raises(UserError, match="at least once"):
        make_canaries(3, 1, (0,))
