"""Work that nobody waits for steps back inside the steps, gives its place up, and still gets the same answer."""

from collections.abc import Callable

import pytest

from gptwright.infer import native
from gptwright.infer.config import GenerationConfig
from gptwright.infer.request import Request
from gptwright.infer.scheduler import Scheduler
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

Make = Callable[..., Transformer]
LONG = GenerationConfig(temperature=0.9, max_tokens=40, ignore_eos=True, seed=1)
needs_compiler = pytest.mark.skipif(native.library() is None, reason="no C++ compiler")


def run(scheduler: Scheduler, until: Callable[[], bool] = lambda: False) -> int:
    steps = 0
    while scheduler.busy and not until():
        scheduler.step()
        scheduler.check_integrity()
        steps += 1
    return steps


def alone(make_model: Make, tokenizer: Tokenizer, prompt: list[int]) -> list[int]:
    scheduler = Scheduler(make_model(), tokenizer)
    request = Request(prompt, LONG)
    scheduler.add(request)
    run(scheduler)
    return request.ids


def test_background_when_somebody_waits_takes_part_in_every_fourth_step_only(
    make_model: Make, tokenizer: Tokenizer
) -> None:
    scheduler = Scheduler(make_model(), tokenizer)
    batch = Request([30, 31], LONG, background=True)
    scheduler.add(batch)
    run(scheduler, lambda: len(batch.ids) == 4)
    live = Request([40, 41], LONG)
    scheduler.add(live)
    run(scheduler, lambda: live.done)
    assert 4 + 8 <= len(batch.ids) <= 4 + 12
    run(scheduler)
    assert batch.ids == alone(make_model, tokenizer, [30, 31])
    assert live.ids == alone(make_model, tokenizer, [40, 41])


def test_background_prompt_when_another_prompt_enters_lets_it_go_first(make_model: Make, tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(make_model(), tokenizer, prefill_tokens=16)
    batch, live = Request([30] * 80, LONG, background=True), Request([40] * 80, LONG)
    scheduler.add(batch)
    scheduler.step()
    scheduler.add(live)
    run(scheduler, lambda: bool(live.ids))
    assert not batch.ids
    run(scheduler)
    assert batch.finish_reason == live.finish_reason == "length"


@needs_compiler
@pytest.mark.parametrize("short", ["places", "memory"])
def test_background_when_there_is_no_room_gives_its_place_up_and_goes_on_later(
    make_model: Make, tokenizer: Tokenizer, short: str
) -> None:
    few: dict[str, int] = {"max_batch": 2} if short == "places" else {"kv_bytes": 1}  # one context and no more
    scheduler = Scheduler(make_model(), tokenizer, **few)
    prompts = [[30, 31], [32, 33, 34]]
    batch = [Request(prompt, LONG, background=True) for prompt in prompts]
    for request in batch:
        scheduler.add(request)
    run(scheduler, lambda: len(batch[0].ids) == 10)
    live = Request([40] * 50, LONG)
    scheduler.add(live)
    run(scheduler, lambda: live.done)
    assert not all(request.done for request in batch)
    run(scheduler)
    for request, prompt in zip(batch, prompts, strict=True):
        assert request.ids == alone(make_model, tokenizer, prompt)
        assert request.prompt == prompt
    assert live.ids == alone(make_model, tokenizer, [40] * 50)


def test_others_when_they_wait_among_themselves_are_not_sent_back(make_model: Make, tokenizer: Tokenizer) -> None:
    scheduler = Scheduler(make_model(), tokenizer, max_batch=1)
    first, second = Request([30], LONG), Request([40], LONG)
    for request in (first, second):
        scheduler.add(request)
    run(scheduler, lambda: first.done)
    assert not second.ids
    run(scheduler)
    assert second.done
