"""Responses in the background: they outlive their client, are watched from any event on, cancelled, deleted, and survive a stop as what they are."""

import asyncio
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore
from gptwright.core.serving_tables import StoredResponse
from gptwright.serve.background import Job, Jobs
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key

Start = Callable[..., tuple[str, Any]]


def _client(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)


def _until(seen: Callable[[], bool]) -> None:
    end = time.monotonic() + 30
    while not seen():
        assert time.monotonic() < end, "it does not happen"
        time.sleep(0.02)


def test_background_when_its_client_polls_goes_on_to_the_end(
    start: Start, control: ControlStore, check: Callable[[str, Any], None]
) -> None:
    url, app = start(control=control)
    client = _client(url)
    made = client.responses.create(model="production", input="slow", background=True, max_output_tokens=120)
    assert (made.status, made.background, made.output_text) == ("in_progress", True, "")
    check("Response", httpx.get(f"{url}/v1/responses/{made.id}").json())
    _until(lambda: bool(client.responses.retrieve(made.id).output_text))
    assert client.responses.retrieve(made.id).status == "in_progress"
    _until(lambda: client.responses.retrieve(made.id).status != "in_progress")
    found = client.responses.retrieve(made.id)
    assert found.status == "incomplete"
    assert found.output_text == ("tick " * 24)
    assert found.usage is not None
    assert found.usage.output_tokens == 120
    items = client.responses.input_items.list(made.id).data
    assert [item.content[0].text for item in items] == ["slow"]  # type: ignore[union-attr]
    second = client.responses.create(model="production", input="hello", previous_response_id=made.id)
    assert second.output_text == "You said: hello"
    assert app.state.backend.slots.taken == 0


def test_background_when_streamed_and_the_client_leaves_is_watched_again_from_any_event(
    start: Start, control: ControlStore
) -> None:
    url, _ = start(control=control)
    client = _client(url)
    first: list[Any] = []
    with client.responses.create(
        model="production", input="slow", background=True, stream=True, max_output_tokens=80
    ) as stream:
        for event in stream:
            first.append(event)
            if len(first) == 12:
                break
    name = first[0].response.id
    rest = list(client.responses.retrieve(name, stream=True, starting_after=first[-1].sequence_number))
    every = list(client.responses.retrieve(name, stream=True))
    assert [event.sequence_number for event in every] == list(range(len(every)))
    assert [event.to_dict() for event in (*first, *rest)] == [event.to_dict() for event in every]
    text = "".join(event.delta for event in every if event.type == "response.output_text.delta")
    assert text == client.responses.retrieve(name).output_text == "tick " * 16
    assert every[-1].type == "response.incomplete"
    assert list(client.responses.retrieve(name, stream=True, starting_after=10_000)) == []


def test_background_when_cancelled_stops_its_work_and_keeps_what_there_is(start: Start, control: ControlStore) -> None:
    url, app = start(control=control)
    client = _client(url)
    made = client.responses.create(model="production", input="slow", background=True)
    _until(lambda: bool(client.responses.retrieve(made.id).output_text))
    cancelled = client.responses.cancel(made.id)
    assert cancelled.status == "cancelled"
    _until(lambda: app.state.backend.slots.taken == 0)
    kept = client.responses.retrieve(made.id)
    assert kept.status == "cancelled"
    assert kept.output_text == cancelled.output_text
    assert kept.output_text.startswith("tick ")
    assert client.responses.cancel(made.id).status == "cancelled"  # again changes nothing
    assert list(client.responses.retrieve(made.id, stream=True))[-1].type == "response.output_text.delta"
    plain = client.responses.create(model="production", input="hello")
    with pytest.raises(openai.BadRequestError, match="Only a response in the background"):
        client.responses.cancel(plain.id)


def test_background_when_deleted_while_it_runs_is_gone_and_does_not_come_back(
    start: Start, control: ControlStore
) -> None:
    url, app = start(control=control)
    client = _client(url)
    made = client.responses.create(model="production", input="slow", background=True)
    client.responses.delete(made.id)
    _until(lambda: app.state.backend.slots.taken == 0)
    time.sleep(0.2)
    with pytest.raises(openai.NotFoundError):
        client.responses.retrieve(made.id)
    with control.session() as session:
        assert session.scalars(sa.select(StoredResponse)).all() == []


def test_background_when_it_fails_or_the_server_stops_says_so(start: Start, control: ControlStore) -> None:
    url, _ = start(control=control)
    client = _client(url)
    broken = client.responses.create(model="production", input="fail", background=True)
    _until(lambda: client.responses.retrieve(broken.id).status == "failed")
    running = client.responses.create(model="production", input="slow", background=True)
    start.stop(url)  # type: ignore[attr-defined]
    url, _ = start(control=control)
    kept = _client(url).responses.retrieve(running.id)
    assert kept.status == "failed"
    assert kept.error is not None
    assert "stopping" in kept.error.message


def test_background_when_its_server_was_killed_is_failed_after_the_longest_time(
    start: Start, control: ControlStore
) -> None:
    url, _ = start(control=control, config=ServeConfig(request_timeout=1))
    made = _client(url).responses.create(model="production", input="hello", background=True)
    _until(lambda: _client(url).responses.retrieve(made.id).status == "completed")
    start.stop(url)  # type: ignore[attr-defined]
    with control.session() as session:
        row = session.get(StoredResponse, made.id)
        assert row is not None
        row.body = {**row.body, "status": "in_progress", "created_at": int(time.time()) - 100}
    url, _ = start(control=control, config=ServeConfig(request_timeout=1))
    lost = _client(url).responses.retrieve(made.id)
    assert lost.status == "failed"
    answer = httpx.get(f"{url}/v1/responses/{made.id}?stream=true")
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "stream")


def test_background_when_another_key_asks_there_is_none(start: Start, control: ControlStore) -> None:
    url, _ = start(control=control, config=ServeConfig(require_key=True))
    mine, _ = create_key(control, "mine")
    other, _ = create_key(control, "other")
    made = _client(url, mine).responses.create(model="production", input="slow", background=True)
    for ask in (lambda c: c.retrieve(made.id), lambda c: c.retrieve(made.id, stream=True), lambda c: c.cancel(made.id)):
        with pytest.raises(openai.NotFoundError):
            ask(_client(url, other).responses)
    assert _client(url, mine).responses.cancel(made.id).status == "cancelled"


@pytest.mark.parametrize(
    ("body", "param"),
    [({"background": True, "store": False}, "background"), ({"background": "yes please"}, "background")],
)
def test_background_when_it_cannot_be_the_field_is_named(start: Start, body: dict[str, Any], param: str) -> None:
    url, _ = start()
    answer = httpx.post(url + "/v1/responses", json={"model": "production", "input": "hello", **body})
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)
    alone = httpx.post(url + "/v1/responses", json={"model": "production", "input": "a", "background": True})
    assert (alone.status_code, alone.json()["error"]["param"]) == (400, "background")


def test_jobs_when_many_are_over_keep_the_latest_and_no_timer_of_the_others() -> None:
    async def many() -> tuple[list[str], int]:
        jobs, all_of_them = Jobs(), []
        for number in range(130):
            job = Job(None, None)  # type: ignore[arg-type]
            jobs.add(str(number), job)
            job.end()
            jobs.ended(str(number))
            all_of_them.append(job)
        running = sum(job.forgotten is not None and not job.forgotten.cancelled() for job in all_of_them)
        return [str(n) for n in range(130) if jobs.find(str(n), None) is not None], running

    assert asyncio.run(many()) == ([str(number) for number in range(30, 130)], 100)
