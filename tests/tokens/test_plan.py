"""Plans: a pure function of the step; every window once an epoch."""

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.tokens.erase import erase_documents
from gptwright.tokens.permute import Permutation
from gptwright.tokens.plan import IGNORE, BatchPlan, sequential
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer

from .conftest import Doc

GOLDEN_10 = [8, 1, 3, 7, 9, 0, 6, 5, 2, 4]
GOLDEN_BIG = [263345658480, 721520275904, 448968441727]


@pytest.fixture(scope="module")
def dataset(tokenizer: Tokenizer, docs: list[Doc], tmp_path_factory: pytest.TempPathFactory) -> TokenDataset:
    folder = tmp_path_factory.mktemp("plan") / "set"
    write_tokens(docs, tokenizer, folder, shard_tokens=3000)
    return TokenDataset.open(folder)


@settings(max_examples=60, deadline=None)
@given(n=st.integers(1, 3000), seed=st.integers(0, 99))
def test_permutation_is_one_and_place_is_its_inverse(n: int, seed: int) -> None:
    order = Permutation(n, "test", seed)
    elements = order(np.arange(n))
    assert np.array_equal(np.sort(elements), np.arange(n))
    assert np.array_equal(order.place(elements), np.arange(n))


def test_permutation_never_changes_between_versions() -> None:
    assert Permutation(10, "golden", 1)(np.arange(10)).tolist() == GOLDEN_10
    assert Permutation(10**12, "golden", 1)([0, 10**11, 10**12 - 1]).tolist() == GOLDEN_BIG


def test_permutation_looks_shuffled() -> None:
    order = Permutation(10_000, "test", 0)(np.arange(10_000))
    assert abs(np.corrcoef(order, np.arange(10_000))[0, 1]) < 0.05
    steps = np.diff(order)
    assert (np.abs(steps) < 100).mean() < 0.05  # 2 % of random neighbours lie so close


def test_batch_of_any_step_does_not_depend_on_those_before(dataset: TokenDataset) -> None:
    walked = [BatchPlan(dataset, 32, 4, seed=3).batch(step) for step in range(40)]
    fresh = BatchPlan(TokenDataset.open(dataset.folder), 32, 4, seed=3)
    for step in (39, 0, 17):
        again = fresh.batch(step)
        assert np.array_equal(again.tokens, walked[step].tokens)
        assert np.array_equal(again.targets, walked[step].targets)
        assert again.docs == walked[step].docs
    assert walked[0].tokens.dtype == walked[0].targets.dtype == np.int64
    assert walked[0].tokens.shape == (4, 32)


def test_targets_follow_tokens_in_the_ring(dataset: TokenDataset) -> None:
    plan = BatchPlan(dataset, 32, 4)
    stream = dataset.read(0, dataset.n_tokens)
    for step in (0, 5):
        batch = plan.batch(step)
        assert np.array_equal(batch.tokens[:, 1:], batch.targets[:, :-1])
        for row, start in enumerate(plan.starts(step)):
            assert np.array_equal(batch.targets[row], stream[(start + 1 + np.arange(32)) % len(stream)])


@pytest.mark.parametrize("epoch", [0, 1, 5])
def test_epoch_sees_every_token_once_but_for_less_than_a_window(dataset: TokenDataset, epoch: int) -> None:
    plan = BatchPlan(dataset, 50, 1)
    seen = Counter[int]()
    for step in range(epoch * plan.windows, (epoch + 1) * plan.windows):
        start = int(plan.starts(step)[0])
        seen.update((start + np.arange(50)).__mod__(dataset.n_tokens).tolist())
    assert set(seen.values()) == {1}
    assert dataset.n_tokens - len(seen) < 50


def test_epochs_differ_in_order_and_phase_and_seeds_differ(dataset: TokenDataset) -> None:
    plan, other = BatchPlan(dataset, 50, 1), BatchPlan(dataset, 50, 1, seed=1)
    epochs = [[int(plan.starts(e * plan.windows + i)[0]) for i in range(plan.windows)] for e in range(3)]
    assert len({start % 50 for starts in epochs for start in starts}) > 1
    assert epochs[0] != epochs[1]
    assert epochs[0] != [int(other.starts(i)[0]) for i in range(plan.windows)]
    assert plan.key != other.key


def test_parts_of_any_number_of_processes_are_the_batch(dataset: TokenDataset) -> None:
    batch = BatchPlan(dataset, 32, 6).batch(2)
    for world in (1, 2, 3, 4):
        rows = np.concatenate([batch.part(rank, world).tokens for rank in range(world)])
        assert sorted(map(tuple, rows.tolist())) == sorted(map(tuple, batch.tokens.tolist()))


def test_docs_name_the_documents_in_the_batch_and_steps_of_finds_them(dataset: TokenDataset, docs: list[Doc]) -> None:
    plan = BatchPlan(dataset, 64, 2, seed=9)
    n_steps = int(9.5 * plan.steps_per_epoch)
    seen: dict[str, list[int]] = {}
    for step in range(n_steps):
        for uid in plan.batch(step).docs:
            seen.setdefault(uid, []).append(step)
    assert set(seen) == {doc.uid for doc in docs}
    for doc in docs:
        assert plan.steps_of(doc.uid, n_steps) == seen[doc.uid]


def test_corpus_smaller_than_a_batch_says_how_much_is_missing(dataset: TokenDataset) -> None:
    with pytest.raises(UserError, match=f"{1000 * 512 - dataset.n_tokens:,} are missing"):
        BatchPlan(dataset, 512, 1000)
    fits = dataset.n_tokens // 512
    with pytest.raises(UserError, match=f"at most {fits * 512}"):
        BatchPlan(dataset, 512, fits + 1)
    assert BatchPlan(dataset, 512, fits).batch(7).tokens.shape == (fits, 512)
    with pytest.raises(UserError, match="shorter seq_len"):
        BatchPlan(dataset, dataset.n_tokens + 1, 1)


def test_erased_document_keeps_the_plan_and_carries_no_loss(
    tokenizer: Tokenizer, docs: list[Doc], tmp_path: Path
) -> None:
    write_tokens(docs, tokenizer, tmp_path / "set", shard_tokens=3000)
    before = BatchPlan(TokenDataset.open(tmp_path / "set"), 64, 2)
    key, steps = before.key, before.steps_of(docs[3].uid, 200)
    old = {step: before.batch(step) for step in steps}
    erase_documents(tmp_path / "set", {docs[3].uid}, tokenizer)
    after = BatchPlan(TokenDataset.open(tmp_path / "set"), 64, 2)
    assert after.key == key
    for step in steps:
        new = after.batch(step)
        masked = new.targets == IGNORE
        assert masked.any()
        assert np.array_equal(new.targets[~masked], old[step].targets[~masked])


def test_sequential_makes_every_token_but_the_first_a_target_once(dataset: TokenDataset) -> None:
    batches = list(sequential(dataset, 48, 4))
    targets = np.concatenate([row for batch in batches for row in batch.targets])
    assert np.array_equal(targets[targets != IGNORE], dataset.read(1, dataset.n_tokens - 1))
    some = list(sequential(dataset, 48, 4, max_tokens=100))
    assert sum(int((batch.targets != IGNORE).sum()) for batch in some) == 100


def test_batch_when_rows_hold_several_documents_then_segments_tell_them_apart(docs, tokenizer, tmp_path) -> None:
    write_tokens(docs, tokenizer, tmp_path / "d")
    dataset = TokenDataset.open(tmp_path / "d")
    plan = BatchPlan(dataset, 64, 4)
    for step in range(6):
        batch = plan.batch(step)
        for row, start in enumerate(plan.starts(step).tolist()):
            places = (start + np.arange(64)) % dataset.n_tokens
            owner = np.searchsorted(dataset.starts, places, side="right") - 1
            changes = np.diff(owner) != 0
            assert ((np.diff(batch.segments[row]) != 0) == changes).all()
            reach = np.searchsorted(dataset.starts, (start + np.arange(65)) % dataset.n_tokens, side="right") - 1
            assert batch.row_docs[row] == [dataset.uid(i) for i in dict.fromkeys(reach.tolist())]
