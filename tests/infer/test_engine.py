"""The engine: batched equals alone, equals transformers, and ends when and how it should."""

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from gptwright.core.errors import GptwrightError, UserError
from gptwright.infer import native
from gptwright.infer.cache import PagedCache
from gptwright.infer.config import GenerationConfig
from gptwright.infer.engine import Engine, fast_dtype
from gptwright.infer.request import Piece, Request
from gptwright.infer.runner import Part
from gptwright.infer.scheduler import Scheduler
from gptwright.infer.threads import ThreadChooser
from gptwright.model.lora import apply_lora, save_adapter
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

GREEDY = GenerationConfig(temperature=0, max_tokens=20, ignore_eos=True)


@pytest.mark.parametrize("family", ["modern", "llama", "gpt2"])
def test_greedy_when_compared_with_transformers_gives_the_same_tokens(family: str, model_dirs: dict[str, Path]) -> None:
    transformers = pytest.importorskip("transformers")
    peer = transformers.AutoModelForCausalLM.from_pretrained(model_dirs[family])
    prompts = [[5, 9, 200], list(range(20, 60)), [100]]
    with Engine.load(model_dirs[family], dtype=torch.float32, device="cpu", prefill_tokens=16) as engine:
        ours = engine.generate(prompts, GREEDY)
    for prompt, result in zip(prompts, ours, strict=True):
        # padding rows of the embedding are no tokens: transformers is told, the engine knows
        padding = list(range(engine.tokenizer.vocab_size, engine.tokenizer.padded_vocab_size))
        theirs = peer.generate(
            torch.tensor([prompt]),
            max_new_tokens=20,
            do_sample=False,
            eos_token_id=-1,
            suppress_tokens=padding,
            pad_token_id=0,
        )
        assert result.ids == theirs[0, len(prompt) :].tolist()
        assert result.finish_reason == "length"


mixes = st.lists(
    st.tuples(
        st.integers(1, 50),  # prompt length
        st.integers(1, 25),  # max_tokens
        st.sampled_from([0.0, 0.7, 1.5]),
        st.sampled_from([0, 5]),
        st.sampled_from([1.0, 0.8]),
        st.sampled_from([1.0, 1.4]),
        st.integers(0, 3),  # step at which it joins
    ),
    min_size=2,
    max_size=7,
)


@settings(max_examples=12, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(mixes, st.sampled_from(["modern", "gpt2"]))
def test_answers_when_batched_at_random_equal_those_alone(
    make_model: Callable[..., Transformer],
    tokenizer: Tokenizer,
    mix: list[tuple[int, int, float, int, float, float, int]],
    family: str,
) -> None:
    model = make_model(family)

    def requests() -> list[Request]:
        return [
            Request(
                [(7 * i + 13 * j) % 264 for j in range(length)],
                GenerationConfig(
                    max_tokens=n, temperature=t, top_k=k, top_p=p, repetition_penalty=r, seed=i, ignore_eos=i % 2 == 0
                ),
            )
            for i, (length, n, t, k, p, r, _) in enumerate(mix)
        ]

    together = requests()
    scheduler = Scheduler(model, tokenizer, max_batch=3, prefill_tokens=11)
    step = 0
    while step < 5 or scheduler.busy:
        for request, (*_, joins) in zip(together, mix, strict=True):
            if joins == step:
                scheduler.add(request)
        scheduler.step()
        scheduler.check_integrity()
        step += 1
    for request in requests():
        alone = Scheduler(model, tokenizer, max_batch=1, prefill_tokens=1000)
        alone.add(request)
        while alone.busy:
            alone.step()
        other = next(r for r in together if r.prompt == request.prompt and r.seed == request.seed)
        assert other.ids == request.ids
        assert other.finish_reason == request.finish_reason
        assert other.result().text == request.result().text
        assert other.logprobs == pytest.approx(request.logprobs, abs=1e-3)


def test_padding_ids_when_they_have_the_largest_logits_are_never_sampled(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    model = make_model(seed=4)
    with torch.no_grad():
        model.embedding.weight[tokenizer.vocab_size :] *= 50
    with Engine(model, tokenizer) as engine:
        for temperature in (0.0, 2.0):
            config = GenerationConfig(temperature=temperature, max_tokens=60, ignore_eos=True, seed=1)
            assert max(engine.generate([[1, 2, 3]], config)[0].ids) < tokenizer.vocab_size


def test_seed_when_given_repeats_the_answer_and_differs_from_others(engine: Engine) -> None:
    def run(seed: int | None) -> list[int]:
        return engine.submit([40, 41], GenerationConfig(temperature=1.0, max_tokens=30, seed=seed)).result().ids

    assert run(1) == run(1)
    assert run(1) != run(2)
    fresh = engine.submit([40, 41], GenerationConfig(temperature=1.0, max_tokens=30)).result()
    assert run(fresh.seed) == fresh.ids  # a fresh seed is reported, so that it can be repeated


def test_answer_when_another_is_nearly_at_zero_temperature_is_unchanged(engine: Engine) -> None:
    usual = GenerationConfig(temperature=1.0, max_tokens=20, seed=1, ignore_eos=True)
    cold = usual.model_copy(update={"temperature": 1e-40})
    alone = engine.generate([[40, 41]], [usual])[0]
    together = engine.generate([[9], [40, 41], [8, 7]], [cold, usual, cold])
    assert (together[1].text, together[1].ids) == (alone.text, alone.ids)
    assert together[0].ids == engine.generate([[9]], [usual.model_copy(update={"temperature": 0.0})])[0].ids


@pytest.mark.parametrize("compiled", [False, True])
def test_threads_when_a_seed_was_given_stay_as_they_are_until_it_is_done(
    make_model: Callable[..., Transformer],
    tokenizer: Tokenizer,
    monkeypatch: pytest.MonkeyPatch,
    compiled: bool,
) -> None:
    if not compiled:
        monkeypatch.setattr(native, "library", lambda: None)
    scheduler = Scheduler(make_model(), tokenizer)
    scheduler.threads = ThreadChooser(torch.get_num_threads() + 1)
    used: list[tuple[bool, int | None]] = []
    forward = scheduler.runner.forward

    def spy(cache: PagedCache, parts: Sequence[Part], threads: int | None = None) -> torch.Tensor:
        used.append((seeded.done, threads))
        return forward(cache, parts, threads)

    monkeypatch.setattr(scheduler.runner, "forward", spy)
    seeded = Request([1, 2], GenerationConfig(max_tokens=10, seed=1, ignore_eos=True))
    plain = Request([3], GenerationConfig(max_tokens=30, ignore_eos=True))
    scheduler.add(seeded)
    scheduler.add(plain)
    while scheduler.busy:
        scheduler.step()
    assert {n for done, n in used if done} == {1, torch.get_num_threads() + 1}
    # Compiled sums are the same on any number of threads, so there it may try.
    assert {n for done, n in used[1:] if not done} == ({1, 2} if scheduler.runner.exact else {None})


def test_pieces_when_joined_are_the_text_of_the_tokens(engine: Engine) -> None:
    config = GenerationConfig(temperature=1.5, max_tokens=60, seed=3, ignore_eos=True)
    pieces = list(engine.stream([60], config))
    ids = [p.token_id for p in pieces if p.token_id is not None]
    assert "".join(p.text for p in pieces) == engine.tokenizer.decode(ids)
    assert [p.finish_reason for p in pieces] == [None] * 59 + ["length"]
    assert all(p.logprob is not None and p.logprob <= 0 for p in pieces)


def test_stop_text_when_it_spans_tokens_ends_the_answer_before_it(engine: Engine) -> None:
    config = GenerationConfig(temperature=1.0, max_tokens=60, seed=5, ignore_eos=True)
    whole = engine.submit([60], config).result()
    stop = whole.text[20:24]
    result = engine.submit([60], config.model_copy(update={"stop": (stop, "never found")})).result()
    assert result.finish_reason == "stop"
    assert result.text == whole.text[: whole.text.index(stop)]
    assert whole.ids[: len(result.ids)] == result.ids
    assert len(result.ids) < 60


def test_stop_id_when_sampled_ends_the_answer_and_is_not_part_of_it(engine: Engine) -> None:
    whole = engine.submit([60], GREEDY).result()
    third = whole.ids[2]
    result = engine.submit([60], GREEDY.model_copy(update={"stop_token_ids": (third,)})).result()
    assert result.ids == whole.ids[: whole.ids.index(third)]
    assert (result.finish_reason, result.completion_tokens) == ("stop", len(result.ids) + 1)


def test_logprobs_when_asked_are_those_of_the_model(engine: Engine, make_model: Callable[..., Transformer]) -> None:
    config = GenerationConfig(temperature=0.5, top_k=3, max_tokens=8, seed=1, top_logprobs=4, ignore_eos=True)
    pieces = list(engine.stream([9, 8, 7], config))
    ids = [9, 8, 7, *(p.token_id or 0 for p in pieces)]
    model = make_model()
    with torch.no_grad():
        logits = model.logits(model(torch.tensor([ids])))[0, :, : engine.tokenizer.vocab_size]
    expected = logits.log_softmax(-1)
    for i, piece in enumerate(pieces):
        assert piece.logprob == pytest.approx(expected[2 + i, piece.token_id].item(), abs=1e-3)
        best = expected[2 + i].topk(4)
        assert [t for t, _ in piece.top] == best.indices.tolist()
        assert [v for _, v in piece.top] == pytest.approx(best.values.tolist(), abs=1e-3)


def test_cancel_when_running_ends_that_request_alone(engine: Engine) -> None:
    long = GenerationConfig(temperature=0, max_tokens=90, ignore_eos=True)
    other_expected = engine.submit([4, 5], long).result().ids
    pieces: list[Piece] = []
    some_seen, is_cancelled = threading.Event(), threading.Event()

    def listen(piece: Piece) -> None:
        pieces.append(piece)
        if len(pieces) == 10:
            some_seen.set()
            is_cancelled.wait(30)  # holds the engine's thread, however slow this one is

    other = engine.submit([4, 5], long)
    cancelled = engine.submit([1, 2, 3], long, on_piece=listen)
    assert some_seen.wait(30)
    cancelled.cancel()
    is_cancelled.set()
    result = cancelled.result(30)
    assert (result.finish_reason, len(result.ids)) == ("cancelled", 10)
    assert other.result(30).ids == other_expected
    cancelled.cancel()  # harmless afterwards


def test_stream_when_closed_early_cancels(engine: Engine) -> None:
    stream = engine.stream([1], GenerationConfig(max_tokens=90, ignore_eos=True, seed=0))
    next(stream)
    stream.close()  # type: ignore[attr-defined]
    deadline = time.monotonic() + 30
    while engine.load_now != (0, 0):
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_deadline_when_passed_ends_with_what_there_is(engine: Engine) -> None:
    submitted = threading.Event()

    def pass_deadline(_: Piece) -> None:
        submitted.wait(30)
        late.deadline = time.monotonic()

    config = GenerationConfig(max_tokens=90, ignore_eos=True, seed=0)
    late = engine.submit([1, 2], config, timeout_s=3600, on_piece=pass_deadline)
    assert late.deadline is not None
    assert 3000 < late.deadline - time.monotonic() <= 3600
    submitted.set()
    result = late.result(30)
    assert (result.finish_reason, len(result.ids)) == ("deadline", 1)
    waiting = engine.submit([1, 2], GREEDY, timeout_s=-1).result(30)
    assert (waiting.finish_reason, waiting.ids) == ("deadline", [])


def test_context_when_it_is_full_ends_with_length(engine: Engine) -> None:
    prompt = list(range(100, 190))
    result = engine.submit(prompt, GenerationConfig(temperature=0, max_tokens=500, ignore_eos=True)).result()
    assert result.finish_reason == "length"
    assert len(prompt) + len(result.ids) == engine.seq_len + 1  # the last token needs no place


def test_prompt_when_too_long_or_not_in_the_vocabulary_is_refused(engine: Engine) -> None:
    with pytest.raises(UserError, match="has 97 tokens, the model's context holds 96"):
        engine.submit([1] * 97)
    with pytest.raises(UserError, match="token id 9999"):
        engine.submit([1, 9999])
    assert engine.submit([], GREEDY).result().prompt_tokens == 1  # an empty prompt begins a document


def test_many_threads_when_they_submit_at_once_all_get_their_own_answer(engine: Engine) -> None:
    expected = {i: engine.submit([i, i + 1], GREEDY).result().ids for i in range(10, 22)}
    found: dict[int, list[int]] = {}

    def ask(i: int) -> None:
        found[i] = [p.token_id or 0 for p in engine.submit([i, i + 1], GREEDY)]

    threads = [threading.Thread(target=ask, args=(i,)) for i in expected]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert found == expected


def test_engine_when_the_model_breaks_tells_every_caller(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    model = make_model()
    with torch.no_grad():
        model.norm.weight[0] = float("nan")
    with Engine(model, tokenizer) as engine:
        request = engine.submit([1, 2], GREEDY)
        with pytest.raises(GptwrightError, match="not numbers"):
            list(request)
        with pytest.raises(GptwrightError, match="not numbers"):
            request.result()
        last: list[Piece] = []
        broken = engine.submit([1, 2], GREEDY, on_piece=last.append)
        with pytest.raises(GptwrightError, match="not numbers"):
            broken.result(10)
        assert [p.finish_reason for p in last] == ["error"]
        with torch.no_grad():
            model.norm.weight[0] = 1.0
        assert engine.submit([1, 2], GREEDY).result().finish_reason == "length"  # it goes on


@pytest.mark.parametrize("part", ["add", "fail_all"])
def test_engine_when_its_own_thread_breaks_tells_every_caller_and_refuses_more(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer, monkeypatch: pytest.MonkeyPatch, part: str
) -> None:
    def broken(*_: object) -> None:
        raise MemoryError("no room")

    with Engine(make_model(), tokenizer) as engine:
        scheduler = engine._scheduler
        if part == "add":
            monkeypatch.setattr(scheduler, "add", broken)
        else:
            monkeypatch.setattr(scheduler, "step", broken)
            monkeypatch.setattr(scheduler.cache, "clear", broken)
        request, other = engine._request([1, 2], GREEDY, None, None), engine._request([3], GREEDY, None, None)
        engine._worker.enqueue([request, other])
        for waiting in (request, other):
            with pytest.raises(MemoryError, match="no room"):
                waiting.result(30)
        assert engine._worker.thread is not None
        engine._worker.thread.join(30)
        with pytest.raises(GptwrightError, match="closed after a fault: no room"):
            engine.submit([1])


def test_listener_when_it_raises_ends_its_own_request_alone(engine: Engine) -> None:
    def broken(_: Piece) -> None:
        raise RuntimeError("listener")

    bad = engine.submit([1, 2], GREEDY, on_piece=broken)
    good = engine.submit([3, 4], GREEDY)
    assert good.result(10).finish_reason == "length"
    assert bad.result(10).finish_reason == "cancelled"


def test_engine_when_closed_ends_what_runs_and_refuses_more(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    engine = Engine(make_model(), tokenizer)
    request = engine.submit([1], GenerationConfig(max_tokens=95, ignore_eos=True), on_piece=lambda _: time.sleep(0.1))
    engine.close()
    with pytest.raises(GptwrightError, match="closed"):
        request.result(5)
    with pytest.raises(GptwrightError, match="closed"):
        engine.submit([1])


def test_chat_when_too_long_drops_the_oldest_turns_but_not_the_system(engine: Engine) -> None:
    config = GenerationConfig(max_tokens=8, seed=0)
    system = {"role": "system", "content": "be"}
    turns = [{"role": "user" if i % 2 == 0 else "assistant", "content": f"turn {i} words"} for i in range(9)]
    ids, dropped = engine.fit_chat([system, *turns], config)
    text = engine.tokenizer.decode(ids)
    assert len(ids) <= engine.seq_len - 8
    assert "be" in text
    assert "turn 8" in text
    assert dropped > 0
    assert dropped % 2 == 0  # what is kept begins with a user
    assert f"turn {dropped}" in text
    assert "turn 0" not in text
    assert engine.submit_chat([system, *turns], config).dropped_messages == dropped
    assert engine.fit_chat(turns[:1], config)[1] == 0
    with pytest.raises(UserError, match="the last message takes"):
        engine.fit_chat([system, {"role": "user", "content": "x" * 200}], config)
    with pytest.raises(UserError, match="no messages"):
        engine.fit_chat([], config)


def test_chat_when_streamed_and_not_gives_the_same_answer(engine: Engine) -> None:
    messages = [{"role": "user", "content": "hello"}]
    config = GenerationConfig(max_tokens=10, seed=4, temperature=1.0)
    assert "".join(map(str, engine.chat(messages, config, stream=True))) == str(engine.chat(messages, config))


def test_adapter_when_loaded_by_itself_or_beside_its_base_is_merged(
    model_dirs: dict[str, Path], tmp_path: Path, make_model: Callable[..., Transformer]
) -> None:
    model = make_model()
    for b in apply_lora(model, rank=2, alpha=4)[1::2]:
        torch.nn.init.normal_(b, std=0.3, generator=torch.Generator().manual_seed(0))
    adapter = save_adapter(model, tmp_path / "adapter", base=model_dirs["modern"])
    prompt = [[10, 11, 12]]
    answers = []
    for folder, beside in ((model_dirs["modern"], None), (adapter, None), (model_dirs["modern"], adapter)):
        with Engine.load(folder, torch.float32, adapter=beside) as engine:
            answers.append(engine.generate(prompt, GREEDY)[0].ids)
    with Engine(model, engine.tokenizer) as unmerged:
        assert unmerged.generate(prompt, GREEDY)[0].ids == answers[1] == answers[2] != answers[0]


def test_memory_when_short_makes_requests_wait_but_all_finish(
    make_model: Callable[..., Transformer], tokenizer: Tokenizer
) -> None:
    scheduler = Scheduler(make_model(), tokenizer, max_batch=8, kv_bytes=1)
    # The least memory is that of one request of full length.
    requests = [Request([i], GREEDY.model_copy(update={"max_tokens": 90})) for i in range(8, 12)]
    for request in requests:
        scheduler.add(request)
    while scheduler.busy:
        scheduler.step()
        assert len(scheduler.running) <= 1  # one always may run, or nothing would ever move
    assert all(r.done for r in requests)


@pytest.mark.parametrize(
    ("amx", "avx512", "dtype"),
    [(True, True, torch.bfloat16), (False, True, torch.bfloat16), (False, False, torch.float32)],
)
def test_dtype_when_chosen_by_itself_is_one_the_machine_multiplies_fast(
    monkeypatch: pytest.MonkeyPatch, amx: bool, avx512: bool, dtype: torch.dtype
) -> None:
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx, raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512, raising=False)
    assert fast_dtype("cpu") == dtype


def test_dtype_when_pytorch_has_no_probes_is_fp32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(torch.cpu, "_is_amx_tile_supported", raising=False)
    monkeypatch.delattr(torch.cpu, "_is_avx512_bf16_supported", raising=False)
    assert fast_dtype("cpu") == torch.float32


def test_config_when_a_stop_is_empty_or_a_string_is_understood() -> None:
    assert GenerationConfig(stop="###").stop == ("###",)  # type: ignore[arg-type]
    assert GenerationConfig(stop=["a", "b"]).stop == ("a", "b")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="empty text"):
        GenerationConfig(stop=("",))
