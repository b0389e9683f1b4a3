"""Packing of chats: no token lost, none taught wrongly, no batch without targets."""

from collections import Counter
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwright.core.errors import UserError
from gptwright.tokens.fit import fit_conversation
from gptwright.tokens.plan import IGNORE
from gptwright.tokens.sft import ChatSet, SftPlan, pack
from gptwright.tokens.shards import TokenDataset, write_tokens
from gptwright.tokens.tokenizer import Tokenizer

from .conftest import Doc

Chat = list[dict[str, Any]]
words = st.lists(st.sampled_from(["yes", "no", "well then", "12", "日本", "<|im_end|>"]), max_size=9).map(" ".join)
turns = st.fixed_dictionaries({"role": st.sampled_from(["user", "assistant"]), "content": words})
chat_lists = st.lists(st.lists(turns, min_size=1, max_size=6), min_size=1, max_size=12)


def talk(*contents: str, system: str | None = None) -> Chat:
    head = [{"role": "system", "content": system}] if system else []
    return head + [{"role": ("user", "assistant")[i % 2], "content": text} for i, text in enumerate(contents)]


def taught(plan: SftPlan) -> Counter[tuple[int, ...]]:
    """Runs of targets of one epoch, counted."""
    runs: Counter[tuple[int, ...]] = Counter()
    for row in range(plan.rows):
        ids, learn, _ = plan.row(row)
        edges = np.flatnonzero(np.diff(np.concatenate(([0], learn.astype(int), [0]))))
        runs.update(tuple(ids[a:b].tolist()) for a, b in edges.reshape(-1, 2))
    return runs


def answers(tokenizer: Tokenizer, chats: list[Chat]) -> Counter[tuple[int, ...]]:
    """What the assistant's turns of these chats should teach, by rendering each turn alone."""
    found: Counter[tuple[int, ...]] = Counter()
    for chat in chats:
        for message in chat:
            if message["role"] == "assistant":
                rendered = tokenizer.render([message])
                found[tuple(i for i, bit in zip(rendered.ids, rendered.loss_mask, strict=True) if bit)] += 1
    return found


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(1, 50), min_size=1, max_size=200), seed=st.integers(0, 9))
def test_pack_places_every_item_once_and_overfills_no_row(sizes: list[int], seed: int) -> None:
    items, edges = pack(np.array(sizes), 50, seed)
    assert sorted(items.tolist()) == list(range(len(sizes)))
    loads = [sum(sizes[item] for item in items[a:b]) for a, b in pairwise(edges.tolist())]
    assert max(loads) <= 50
    assert min(loads) > 0
    assert sum(load <= 25 for load in loads) <= 1  # two half-empty rows would have been one


@settings(max_examples=60, deadline=None)
@given(chats=chat_lists, seed=st.integers(0, 3))
def test_epoch_teaches_every_answer_exactly_once_and_nothing_else(
    tokenizer: Tokenizer, chats: list[Chat], seed: int
) -> None:
    expected = answers(tokenizer, chats)
    if not expected:
        with pytest.raises(UserError, match="assistant's turn"):
            SftPlan.of(chats, tokenizer, 512, 2, seed)
        return
    plan = SftPlan.of(chats, tokenizer, 512, 2, seed)
    assert taught(plan) == expected
    with_answer = [chat for chat in chats if any(m["role"] == "assistant" for m in chat)]
    whole = Counter(token for chat in with_answer for token in [*tokenizer.render(chat).ids, tokenizer.eos_id])
    packed = Counter(token for row in range(plan.rows) for token in plan.row(row)[0].tolist())
    assert packed == whole
    assert plan.report.lost_targets == 0
    assert plan.report.without_targets == len(chats) - len(with_answer)


@settings(max_examples=80, deadline=None)
@given(chats=chat_lists, seq_len=st.integers(8, 60), batch_size=st.integers(1, 5), split=st.booleans())
def test_every_batch_has_targets_that_follow_their_tokens_and_padding_has_none(
    tokenizer: Tokenizer, chats: list[Chat], seq_len: int, batch_size: int, split: bool
) -> None:
    chats = [*chats, talk("hi", "hello")]
    plan = SftPlan.of(chats, tokenizer, seq_len, batch_size, overlong="split" if split else "truncate")
    legal = set().union(*answers(tokenizer, chats)) - {tokenizer.eos_id}
    for step in range(int(plan.steps_per_epoch) + 2):
        batch = plan.batch(step)
        assert batch.tokens.shape == batch.targets.shape == (batch_size, seq_len)
        for tokens, targets in zip(batch.tokens, batch.targets, strict=True):
            has = targets != IGNORE
            assert has.any()
            assert np.array_equal(tokens[1:][has[:-1]], targets[:-1][has[:-1]])
            assert set(targets[has].tolist()) <= legal
            assert tokenizer.eos_id not in targets
    ids = np.concatenate([plan.row(row)[0] for row in range(plan.rows)])
    assert plan.report.targets == sum(int(plan.row(row)[1].sum()) for row in range(plan.rows))
    assert len(ids) <= plan.rows * (seq_len + 1)


@settings(max_examples=150, deadline=None)
@given(
    lengths=st.lists(st.tuples(st.integers(1, 30), st.integers(1, 30)), min_size=1, max_size=8),
    limit=st.integers(8, 40),
    system=st.integers(0, 12),
    has_turns=st.booleans(),
)
def test_fit_keeps_whole_answers_in_stretches_within_the_limit(
    lengths: list[tuple[int, int]], limit: int, system: int, has_turns: bool
) -> None:
    ids, learn = ([1, 9, *[4] * system], [0] * (system + 2)) if system else ([], [])
    for prompt, answer in lengths:
        ids += [1, 8, *[5] * prompt, 1, 7, *[6] * answer, 2]
        learn += [0] * (prompt + 4) + [1] * (answer + 1)
    if len(ids) <= limit:
        return
    flags = np.array(learn, dtype=bool)
    for split in (False, True):
        found = fit_conversation(np.array(ids), flags, limit, 1 if has_turns else None, [9], split)
        assert found
        assert split or len(found) == 1
        covered = np.zeros(len(ids), dtype=int)
        for piece in found:
            assert 0 < piece.prefix + piece.length <= limit
            stretch = flags[piece.start : piece.start + piece.length]
            assert stretch[0 if piece.prefix else 1 :].any()
            assert not stretch[0]
            covered[piece.start : piece.start + piece.length] += 1
            if piece.cut is None and piece.start + piece.length < len(ids):  # no answer is cut in two
                assert not (stretch[-1] and flags[piece.start + piece.length])
        assert covered.max() == 1
        ends = np.flatnonzero(np.diff(np.concatenate((flags.astype(int), [0]))) == -1) + 1
        fitting = ends[ends <= limit]
        if fitting.size:  # as many whole answers as fit are kept
            assert covered[: fitting[-1]].all()
            assert found[0].cut is None
        if split and not any(piece.cut for piece in found):
            assert covered[flags].all()


def test_overlong_chat_keeps_the_beginning_through_the_last_whole_answer(tokenizer: Tokenizer) -> None:
    chat = talk(*["one two three four"] * 8)
    size = len(tokenizer.render(chat).ids)
    limit = len(tokenizer.render(chat[:4]).ids) + 3
    plan = SftPlan.of([chat], tokenizer, limit, 1)
    assert tokenizer.decode(plan.row(0)[0], control=True) == tokenizer.decode(
        [*tokenizer.render(chat[:4]).ids, 0], control=True
    )
    assert (plan.report.truncated, plan.report.lost_tokens) == (1, size - len(tokenizer.render(chat[:4]).ids))
    assert "1 longer than a row" in str(plan.report)


def test_overlong_chat_when_split_teaches_all_answers_with_the_system_message_again(tokenizer: Tokenizer) -> None:
    chat = talk(*[f"question {i}" if i % 2 == 0 else f"answer {i}" for i in range(20)], system="Be brief.")
    plan = SftPlan.of([chat], tokenizer, 60, 1, overlong="split")
    assert plan.rows > 1
    assert taught(plan) == answers(tokenizer, [chat])
    assert plan.report.lost_targets == 0
    for row in range(plan.rows):
        assert tokenizer.decode(plan.row(row)[0], control=True).startswith(
            "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user"
        )


def test_single_turns_longer_than_a_row_are_cut_and_counted(tokenizer: Tokenizer) -> None:
    long = " ".join(["many words"] * 60)
    plan = SftPlan.of([talk("hi", long), talk(long, "yes it is")], tokenizer, 40, 1)
    assert (plan.report.cut_answers, plan.report.cut_prompts) == (1, 1)
    rows = [tokenizer.decode(plan.row(row)[0], control=True) for row in range(plan.rows)]
    cut_answer, cut_prompt = sorted(rows, key=lambda text: "yes it is" in text)
    assert cut_answer.startswith("<|im_start|>user\nhi<|im_end|>")
    assert cut_prompt.rstrip().endswith("assistant\nyes it is<|im_end|><|endoftext|>")
    for run in taught(plan):
        assert run[-1] == tokenizer.im_end_id or "many words" in tokenizer.decode(run)


def test_batch_of_any_step_is_the_same_in_a_new_plan_and_epochs_are_reshuffled(tokenizer: Tokenizer) -> None:
    chats = [talk(f"say {i}", f"number {i}") for i in range(200)]
    plan, again = (SftPlan.of(chats, tokenizer, 64, 4, seed=5) for _ in range(2))
    assert plan.key == again.key != SftPlan.of(chats, tokenizer, 64, 4, seed=6).key
    for step in (123, 0, 7):
        assert np.array_equal(plan.batch(step).tokens, again.batch(step).tokens)
        assert plan.batch(step).docs == again.batch(step).docs
    single = SftPlan.of(chats, tokenizer, 64, 1)
    epochs = [[tuple(single.batch(e * single.rows + i).docs) for i in range(single.rows)] for e in range(2)]
    assert epochs[0] != epochs[1]
    assert (
        Counter(doc for docs in epochs[0] for doc in docs)
        == Counter(doc for docs in epochs[1] for doc in docs)
        == Counter(map(str, range(200)))
    )


def test_mapped_data_set_gives_the_same_rows_as_chats_in_memory(tokenizer: Tokenizer, tmp_path: Path) -> None:
    chats = [talk(f"say {i}", f"number {i}", "more", f"{i} again") for i in range(30)]
    docs = [Doc(f"{i:032x}", "", chat) for i, chat in enumerate(chats)]
    write_tokens(docs, tokenizer, tmp_path / "set", shard_tokens=200, only_answers=True)
    mapped = SftPlan(ChatSet.mapped(TokenDataset.open(tmp_path / "set"), tokenizer), 128, 3)
    memory = SftPlan.of(docs, tokenizer, 128, 3)
    assert taught(mapped) == taught(memory)
    assert (mapped.rows, mapped.report) == (memory.rows, memory.report)
    assert {uid for step in range(20) for uid in mapped.batch(step).docs} == {doc.uid for doc in docs}


@settings(max_examples=40, deadline=None)
@given(
    texts=st.lists(st.text("ab c", max_size=300), min_size=1, max_size=8),
    seq_len=st.integers(8, 60),
    seed=st.integers(0, 3),
)
def test_documents_among_chats_when_packed_then_all_but_their_first_token_is_taught_once_an_epoch(
    tokenizer: Tokenizer, texts: list[str], seq_len: int, seed: int
) -> None:
    documents = [Doc(f"{number:032x}", text) for number, text in enumerate(texts)]
    chats = [talk("hi", "hello"), talk("ho", "b" * 5)]
    plan = SftPlan.of([chats[0], *documents, chats[1]], tokenizer, seq_len, 1, seed)
    ids = [tokenizer.encode(text) for text in texts]
    taught_of: dict[str, list[int]] = {}
    for step in range(plan.rows):
        batch = plan.batch(step)
        own = batch.targets[0] != IGNORE
        if len(batch.row_docs[0]) == 1:
            taught_of.setdefault(batch.docs[0], []).extend(batch.targets[0][own].tolist())
        assert np.array_equal(batch.tokens[0][1:][own[:-1]], batch.targets[0][:-1][own[:-1]])
    expected = Counter(token for one in ids for token in one[1:]) + Counter(
        token for chat in chats for run in answers(tokenizer, [chat]).elements() for token in run
    )
    given_all = Counter(t for step in range(plan.rows) for t in plan.batch(step).targets[0].tolist() if t != IGNORE)
    if max(len(tokenizer.render(chat).ids) for chat in chats) <= seq_len:
        assert given_all == expected
        assert plan.report.targets == sum(expected.values())
        assert plan.report.lost_tokens == sum(len(one) for one in ids if len(one) < 2)
    for uid, found in taught_of.items():
        if len(uid) == 32 and len(ids[int(uid, 16)]) > seq_len:
            assert not Counter(found) - Counter(ids[int(uid, 16)][1:])
    assert plan.report.documents == len(texts)
    assert f"2 conversations and {len(texts)} documents in" in str(plan.report)


def test_plan_of_chats_alone_keeps_its_name_beside_documents(tokenizer: Tokenizer) -> None:
    chats = [talk("hi", "hello")]
    alone, beside = (SftPlan.of(rows, tokenizer, 64, 1) for rows in (chats, [*chats, Doc("0" * 32, "some text")]))
    assert alone.key != beside.key
    assert not alone.chats.plain.any()


def test_malformed_conversation_is_named(tokenizer: Tokenizer) -> None:
    with pytest.raises(UserError, match="conversation 1: unknown role"):
        SftPlan.of([talk("hi", "ho"), [{"role": "robot", "content": "x"}]], tokenizer, 64, 1)
    with pytest.raises(UserError, match="no conversation"):
        SftPlan.of([], tokenizer, 64, 1)


def test_batch_when_chats_share_a_row_then_each_is_a_segment_and_the_rest_is_number_0(tokenizer) -> None:
    chats = [
        [{"role": "user", "content": f"hello {n}"}, {"role": "assistant", "content": "x " * n}] for n in range(1, 12)
    ]
    plan = SftPlan.of(chats, tokenizer, 64, 2)
    batch = plan.batch(0)
    for row in range(2):
        opens = np.flatnonzero(np.diff(batch.segments[row], prepend=0) > 0)
        assert len(opens) == len(batch.row_docs[row])
        assert (batch.targets[row][batch.segments[row] == 0] == IGNORE).all()
        for start in opens:
            assert batch.tokens[row, start] == tokenizer.im_start_id
