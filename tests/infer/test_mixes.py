"""Whatever stands in the batch, an answer is the one it is alone: random mixes, adapters, guesses, reused beginnings, turns of clients."""

import random
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from gptwright.core.errors import UserError
from gptwright.infer import native
from gptwright.infer.adapters import Adapter
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine
from gptwright.infer.request import CANCELLED, Request
from gptwright.infer.scheduler import Scheduler
from gptwright.infer.speculative import DraftModel, Pace, PromptLookup
from gptwright.model.io import save_model
from gptwright.model.lora import apply_lora, merge_lora, save_adapter
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer, train_tokenizer

Make = Callable[..., Transformer]
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")
GREEDY = GenerationConfig(temperature=0, max_tokens=30, ignore_eos=True)


def adapted(make_model: Make, family: str, seed: int, rank: int = 4) -> Transformer:
    model = make_model(family)
    generator = torch.Generator().manual_seed(seed)
    for parameter in apply_lora(model, rank=rank, alpha=8.0, targets=("all",), seed=seed):
        with torch.no_grad():
            parameter.copy_(torch.randn(parameter.shape, generator=generator) * 0.1)
    return model


@pytest.fixture(scope="module")
def adapters(make_model: Make, tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, Path]]:
    root = tmp_path_factory.mktemp("adapters")
    return {
        family: {
            name: save_adapter(adapted(make_model, family, seed, rank), root / f"{family}-{name}", base="base")
            for seed, (name, rank) in enumerate((("a", 4), ("b", 2)))
        }
        for family in ("modern", "gpt2")
    }


def alone(scheduler: Scheduler, request: Request) -> Request:
    again = Request(request.prompt, request.config, adapter=request.adapter)
    again.random = random.Random(request.seed)
    scheduler.cache.clear()
    scheduler.add(again)
    while scheduler.busy:
        scheduler.step()
    return again


@pytest.mark.parametrize(
    ("family", "compiled", "mixes"),
    [
        ("modern", True, 12),
        ("gpt2", True, 6),
        ("modern", False, 2),
        pytest.param("modern", True, 140, marks=pytest.mark.slow),
        pytest.param("gpt2", True, 40, marks=pytest.mark.slow),
        pytest.param("modern", False, 20, marks=pytest.mark.slow),
    ],
)
def test_answers_when_mixed_with_cancellations_and_adapters_equal_those_alone(
    make_model: Make,
    tokenizer: Tokenizer,
    adapters: dict[str, dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
    family: str,
    compiled: bool,
    mixes: int,
) -> None:
    if compiled and native.library() is None:
        pytest.skip("no C++ compiler")
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    weights = "bf16" if compiled else "as_is"
    model = make_model(family, seq_len=192)
    together = Scheduler(model, tokenizer, 4, 24, weights=weights, drafter=PromptLookup())
    single = Scheduler(model, tokenizer, 1, 24, weights=weights)
    for number, (name, folder) in enumerate(adapters[family].items(), 1):
        for scheduler in (together, single):
            scheduler.add_adapter(name, Adapter.load(folder, model.config, number))
    shared = [3, 1, 4, 1, 5, 9, 2, 6] * 9  # a beginning that several have in common, longer than a page
    reused = cancelled = 0
    for mix in range(mixes):
        rng = random.Random(mix)
        waiting: list[tuple[int, Request]] = []
        for _ in range(rng.randint(2, 6)):
            prompt = (shared if rng.random() < 0.4 else []) + [rng.randrange(264) for _ in range(rng.randint(1, 60))]
            config = GenerationConfig(
                max_tokens=rng.randint(1, 16),
                temperature=rng.choice([0.0, 0.0, 0.9]),
                repetition_penalty=rng.choice([1.0, 1.0, 1.3]),
                seed=rng.randrange(100),
                ignore_eos=rng.random() < 0.5,
            )
            waiting.append((rng.randrange(4), Request(prompt, config, adapter=rng.choice([None, None, "a", "b"]))))
        requests = [request for _, request in waiting]
        stop = {request: rng.randint(1, 8) for request in requests if rng.random() < 0.2}
        step = 0
        while waiting or together.busy:
            for joins, request in list(waiting):
                if joins <= step:
                    waiting.remove((joins, request))
                    together.add(request)
            for request, when in stop.items():
                if when == step:
                    request.cancel()
            together.step()
            together.check_integrity()
            step += 1
        for request in requests:
            expected = alone(single, request)
            reused += request.reused_tokens > 0
            if request.finish_reason == CANCELLED:
                cancelled += 1
                assert request.ids == expected.ids[: len(request.ids)]
            else:
                assert (request.ids, request.finish_reason) == (expected.ids, expected.finish_reason)
            if compiled:
                assert request.logprobs == expected.logprobs[: len(request.logprobs)]  # to the bit
    assert together.cache.used_pages == 0
    if mixes >= 12:
        assert cancelled
        assert not compiled or reused


@pytest.mark.parametrize("compiled", [True, False])
def test_adapter_when_chosen_by_a_request_answers_as_if_merged(
    make_model: Make,
    tokenizer: Tokenizer,
    adapters: dict[str, dict[str, Path]],
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
) -> None:
    if compiled and native.library() is None:
        pytest.skip("no C++ compiler")
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    prompt = list(range(30, 50))
    for family in ("modern", "gpt2"):
        with Engine(make_model(family), tokenizer) as engine:
            for name, folder in adapters[family].items():
                engine.add_adapter(name, folder)
            plain, a, b = [engine.submit(prompt, GREEDY, adapter=name) for name in (None, "a", "b")]
            ours = [request.result().ids for request in (plain, a, b)]
            with pytest.raises(UserError, match="no adapter c"):
                engine.submit(prompt, GREEDY, adapter="c")
        merged = [make_model(family), *(merge_lora(adapted(make_model, family, s, r)) for s, r in ((0, 4), (1, 2)))]
        theirs = []
        for model in merged:
            with Engine(model, tokenizer) as engine:
                theirs.append(engine.submit(prompt, GREEDY).result().ids)
        assert ours == theirs
        assert len({tuple(ids) for ids in ours}) == 3


@needs_compiler
@pytest.mark.parametrize("temperature", [0.0, 0.8])
def test_guesses_when_checked_change_no_answer_but_save_steps(
    make_model: Make, tokenizer: Tokenizer, temperature: float
) -> None:
    model = make_model("llama", seq_len=192)
    config = GenerationConfig(max_tokens=60, temperature=temperature, seed=5, ignore_eos=True)
    prompt = [7, 8, 9, 10, 11, 12] * 6
    steps, answers = [], []
    for drafter in (None, PromptLookup()):
        scheduler = Scheduler(model, tokenizer, drafter=drafter)
        request = Request(prompt, config)
        scheduler.add(request)
        steps.append(0)
        while scheduler.busy:
            scheduler.step()
            scheduler.check_integrity()
            steps[-1] += 1
        answers.append((request.ids, request.logprobs))
    assert answers[0] == answers[1]
    if temperature == 0:  # a random model soon repeats itself, which the look-up sees
        assert steps[1] < steps[0]


@needs_compiler
def test_draft_model_when_it_is_the_same_model_is_always_right_and_gives_its_pages_back(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    model = make_model("modern", seq_len=192)
    plain = Scheduler(model, tokenizer)
    small = Scheduler(model, tokenizer)  # for its runner and pages
    drafter = DraftModel(small.runner, small.cache, model.config.seq_len)
    fast = Scheduler(model, tokenizer, drafter=drafter)
    answers, steps = [], []
    for scheduler in (plain, fast):
        request = Request([5, 6, 7], GREEDY)
        scheduler.add(request)
        steps.append(0)
        while scheduler.busy:
            scheduler.step()
            steps[-1] += 1
        answers.append(request.ids)
    assert answers[0] == answers[1]
    assert steps[1] < steps[0] / 3
    assert small.cache.used_pages == 0


@needs_compiler
def test_draft_model_when_it_is_a_directory_guesses_and_one_with_other_ids_is_refused(
    make_model: Make, tokenizer: Tokenizer, tokenizer_dir: Path, tmp_path: Path
) -> None:
    small = save_model(make_model("llama", seed=3), tmp_path / "small", tokenizer_dir=tokenizer_dir)
    answers = []
    for draft in (None, small):
        with Engine(make_model(), tokenizer, max_batch=4) as engine:
            if draft is not None:
                engine.draft(draft)
            prompts = [[5, 6, 7], [30] * 20]
            settings = [GREEDY, GREEDY.model_copy(update={"temperature": 0.8, "seed": 4})]
            answers.append([result.ids for result in engine.generate(prompts, settings)])
            if draft is not None:
                drafter = engine._scheduler.drafter  # type: ignore[union-attr]
                assert isinstance(drafter, DraftModel)
                end = time.monotonic() + 30
                while drafter.cache.used_pages and time.monotonic() < end:  # given back a moment after the last piece
                    time.sleep(0.005)
                assert drafter.cache.used_pages == 0
    assert answers[0] == answers[1]
    other = tmp_path / "other"
    train_tokenizer(["a quite different text about harbours and boats " * 20], 270, other)
    strange = save_model(make_model(), tmp_path / "strange", tokenizer_dir=other)
    with Engine(make_model(), tokenizer) as engine, pytest.raises(UserError, match="another tokenizer"):
        engine.draft(strange)


def test_lookup_when_words_were_seen_before_proposes_what_followed() -> None:
    assert PromptLookup().propose(1, [1, 2, 3, 4, 5, 9, 2, 3], 3) == [4, 5, 9]
    assert PromptLookup().propose(1, [1, 2, 3, 4, 1, 2, 5, 1, 2], 2) == [5, 1]  # the latest counts
    assert PromptLookup().propose(1, [1, 2, 3], 3) == []


def test_pace_when_guesses_fail_rests_and_when_they_succeed_grows() -> None:
    pace = Pace()
    first = pace.length()
    pace.record(first, first)
    assert pace.length() > first
    tried = []
    for _ in range(60):
        tried.append(pace.length())
        pace.record(tried[-1], 0)
    assert sum(count > 0 for count in tried[-27:]) == 3  # one try in nine, of one token
    assert max(tried[-27:]) == 1


def test_turns_when_one_client_floods_go_to_the_others_too(make_model: Make, tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(make_model(), tokenizer, max_batch=1)
    order: list[str] = []
    config = GenerationConfig(temperature=0, max_tokens=4, ignore_eos=True)
    for client in ("flood", "flood", "flood", "flood", "shy"):
        request = Request([1, 2, 3], config, client=client)
        request.on_piece = lambda piece, c=client: order.append(c) if piece.finish_reason else None  # type: ignore[misc]
        scheduler.add(request)
    while scheduler.busy:
        scheduler.step()
    assert order.index("shy") <= 1
    assert scheduler._served == {}


@needs_compiler
def test_short_prompt_when_a_long_one_is_entering_does_not_wait_for_it(make_model: Make, tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(make_model(seq_len=512), tokenizer, prefill_tokens=32)
    long, short = Request([4] * 400, GREEDY), Request([5] * 8, GREEDY)
    scheduler.add(long)
    scheduler.step()
    scheduler.add(short)
    scheduler.step()
    assert len(short.ids) == 1
    while not long.ids:
        before = len(short.ids)
        scheduler.step()
        assert short.done or len(short.ids) > before  # a prompt never stops those who answer
    assert scheduler.busy


@needs_compiler
def test_next_turn_when_a_conversation_goes_on_starts_from_what_is_stored(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    with Engine(make_model(seq_len=512), tokenizer) as engine:
        first = engine.submit([i % 250 for i in range(150)], GREEDY)
        answer = first.result()
        follow = [*first.prompt, *answer.ids, 7, 8, 9]
        second = engine.submit(follow, GREEDY)
        again = second.result()
        assert second.reused_tokens == 128
    with Engine(make_model(seq_len=512), tokenizer) as fresh:
        assert fresh.submit(follow, GREEDY).result().ids == again.ids


def test_prompt_when_an_answer_runs_beside_it_is_taken_in_at_every_third_step(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    scheduler = Scheduler(make_model(seq_len=512), tokenizer, prefill_tokens=32)
    runs = Request([30, 31], GenerationConfig(max_tokens=60, ignore_eos=True))
    scheduler.add(runs)
    scheduler.step()
    enters = Request([40] * 160, GenerationConfig(max_tokens=4, ignore_eos=True))
    scheduler.add(enters)
    taken = []
    while not enters.ids:
        before = len(runs.ids)
        scheduler.step()
        assert len(runs.ids) == before + 1  # no step without a token for who is answered
        taken.append(sum(answer.stored for answer in scheduler.entering))
    pieces = [after > before for before, after in zip([0, *taken[:-2]], taken[:-1], strict=True)]
    assert not any(a and (b or c) for a, b, c in zip(pieces, pieces[1:], pieces[2:], strict=False))
    assert sum(pieces) >= 4
