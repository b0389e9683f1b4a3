"""Goldfish: which targets are left out depends on a document's own tokens alone, and is near one in k."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.tokens.goldfish import CONTEXT, goldfish
from gptwright.tokens.plan import IGNORE, BatchPlan
from gptwright.tokens.sft import SftPlan
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer

from .conftest import Doc


def alone(ids: np.ndarray, k: int) -> np.ndarray:
    begins = np.zeros(len(ids), dtype=bool)
    begins[0] = True
    return goldfish(ids, begins, k)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.integers(1, 60), min_size=1, max_size=8), st.integers(2, 6), st.integers(0, 10**6))
def test_goldfish_when_documents_stand_side_by_side_then_each_is_masked_as_alone(
    lengths: list[int], k: int, seed: int
) -> None:
    generator = np.random.default_rng(seed)
    docs = [generator.integers(0, 300, n) for n in lengths]
    begins = np.concatenate([np.arange(n) == 0 for n in lengths])
    together = goldfish(np.concatenate(docs), begins, k)
    assert together.tolist() == np.concatenate([alone(doc, k) for doc in docs]).tolist()


def test_goldfish_when_a_passage_is_copied_into_another_text_then_the_same_tokens_are_left_out() -> None:
    generator = np.random.default_rng(0)
    passage = generator.integers(0, 4000, 200)
    first = alone(np.concatenate([generator.integers(0, 4000, 31), passage]), 4)[31:]
    second = alone(np.concatenate([generator.integers(0, 4000, 77), passage]), 4)[77:]
    assert first[CONTEXT:].tolist() == second[CONTEXT:].tolist()


@pytest.mark.parametrize("k", [2, 3, 4, 8])
def test_goldfish_when_text_is_long_then_one_in_k_is_left_out(k: int) -> None:
    n = 60_000
    share = alone(np.random.default_rng(1).integers(0, 4000, n), k).mean()
    assert abs(share - 1 / k) < 4 * np.sqrt((1 / k) * (1 - 1 / k) / n)


def test_goldfish_when_a_token_before_changes_then_the_choice_does_and_one_farther_back_does_not() -> None:
    ids = np.random.default_rng(2).integers(0, 4000, 4000)
    changed = ids.copy()
    changed[2000] += 1
    differ = np.flatnonzero(alone(ids, 2) != alone(changed, 2))
    assert len(differ) > 1
    assert differ.min() > 2000
    assert differ.max() <= 2000 + CONTEXT


def test_plans_when_goldfish_is_on_then_every_epoch_leaves_the_same_places_of_a_document_out(
    docs: list[Doc], tokenizer: Tokenizer, tmp_path
) -> None:
    write_tokens(docs, tokenizer, tmp_path / "d")
    dataset = TokenDataset.open(tmp_path / "d")
    wanted = np.concatenate([alone(dataset.document(i), 4) for i in range(dataset.n_docs)])
    plan, plain = BatchPlan(dataset, 64, 4, goldfish=4), BatchPlan(dataset, 64, 4)
    seen = 0
    for step in range(int(2.5 * plan.steps_per_epoch)):
        batch, full = plan.batch(step), plain.batch(step)
        for row, start in enumerate(plan.starts(step).tolist()):
            places = (start + 1 + np.arange(64)) % dataset.n_tokens
            learnt = full.targets[row] != IGNORE
            assert ((batch.targets[row] == IGNORE) == (wanted[places] | ~learnt)).all()
            seen += 64
    assert seen > 2 * dataset.n_tokens
    assert plan.key != plain.key
    assert plain.key == BatchPlan(dataset, 64, 4, goldfish=0).key


def test_chats_when_goldfish_is_on_then_fewer_answers_tokens_are_targets_and_inputs_stay(tokenizer: Tokenizer) -> None:
    talk = "the quick brown fox jumps over the lazy dog and then comes home again to sleep"
    chats = [
        [{"role": "user", "content": f"say {n}"}, {"role": "assistant", "content": f"{talk} {n}"}] for n in range(20)
    ]
    plain, masked = SftPlan.of(chats, tokenizer, 128, 2), SftPlan.of(chats, tokenizer, 128, 2, goldfish=3)
    a, b = plain.batch(0), masked.batch(0)
    assert (a.tokens == b.tokens).all()
    left = (b.targets != IGNORE).sum() / (a.targets != IGNORE).sum()
    assert 0.4 < left < 0.9
    assert (b.targets[b.targets != IGNORE] == a.targets[b.targets != IGNORE]).all()
