"""Files and batches with the official client: worked off beside live requests, across restarts, with an end for every line."""

import asyncio
import datetime
import json
import time
from collections.abc import Callable
from typing import Any

import httpx
import openai
import pytest
import sqlalchemy as sa

from gptwright.core.control import ControlStore, Usage, utc_now
from gptwright.core.serving_tables import Batch, BatchLine, StoredChunk, StoredFile
from gptwright.serve.config import ServeConfig
from gptwright.serve.keys import create_key, revoke_key
from gptwright.serve.limits import Limits

CHAT = "/v1/chat/completions"


def line(number: int, text: str, **extra: Any) -> dict[str, Any]:
    body = {"model": "production", "messages": [{"role": "user", "content": text}], **extra}
    return {"custom_id": f"c{number}", "method": "POST", "url": CHAT, "body": body}


def jsonl(lines: list[Any]) -> bytes:
    return b"\n".join(entry if isinstance(entry, bytes) else json.dumps(entry).encode() for entry in lines)


def client_of(url: str, key: str = "none") -> openai.OpenAI:
    return openai.OpenAI(base_url=url + "/v1", api_key=key, max_retries=0)


def put(client: openai.OpenAI, lines: list[Any], **extra: Any) -> Any:
    file = client.files.create(file=("in.jsonl", jsonl(lines)), purpose="batch")
    return client.batches.create(
        input_file_id=file.id, endpoint=extra.pop("endpoint", CHAT), completion_window="24h", **extra
    )


def until(client: openai.OpenAI, batch: Any, true: Callable[[Any], bool], seconds: float = 60.0) -> Any:
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        found = client.batches.retrieve(batch.id)
        if true(found):
            return found
        time.sleep(0.02)
    raise AssertionError(f"still {found.status}: {found.request_counts}")


def over(batch: Any) -> bool:
    return batch.status in ("completed", "failed", "expired", "cancelled")


def results(client: openai.OpenAI, file_id: str | None) -> dict[str, Any]:
    if file_id is None:
        return {}
    rows = [json.loads(row) for row in client.files.content(file_id).text.splitlines()]
    return {row["custom_id"]: row for row in rows}


def test_batch_when_worked_off_then_good_and_bad_lines_are_in_their_files(
    start: Any, control: ControlStore, check: Any
) -> None:
    url, app = start(control=control)
    client = client_of(url)
    lines = [line(1, "one"), line(2, "two"), b"", line(3, "x", temperature=9), line(4, "fail")]
    batch = put(client, lines, metadata={"for": "test"})
    check("Batch", httpx.get(f"{url}/v1/batches/{batch.id}").json())
    done = until(client, batch, over)
    assert (done.status, done.metadata) == ("completed", {"for": "test"})
    assert vars(done.request_counts) == {"total": 4, "completed": 2, "failed": 2}
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert {name: row["response"]["body"]["choices"][0]["message"]["content"] for name, row in good.items()} == {
        "c1": "You said: one",
        "c2": "You said: two",
    }
    assert bad["c3"]["response"]["status_code"] == 400
    assert bad["c3"]["response"]["body"]["error"]["param"] == "temperature"
    assert bad["c4"]["response"]["status_code"] == 500
    check("Batch", httpx.get(f"{url}/v1/batches/{batch.id}").json())
    check("ListBatchesResponse", httpx.get(f"{url}/v1/batches").json())
    check("ListFilesResponse", httpx.get(f"{url}/v1/files").json())
    check("OpenAIFile", httpx.get(f"{url}/v1/files/{done.output_file_id}").json())
    with control.session() as session:
        assert len(session.scalars(sa.select(Usage)).all()) == 3  # the refused line used nothing
    client.chat.completions.create(model="production", messages=[{"role": "user", "content": "now"}])
    # The engine knows for which of them somebody waits.
    assert [request.background for request in app.state.backend.models.fake.requests] == [True, True, True, False]


@pytest.mark.parametrize(
    ("endpoint", "body", "read"),
    [
        ("/v1/completions", {"prompt": "x"}, lambda answer: answer["choices"][0]["text"]),
        ("/v1/responses", {"input": "x"}, lambda answer: answer["output"][0]["content"][0]["text"]),
        (
            "/v1/embeddings",
            {"input": "x"},
            lambda answer: "You said: x" if len(answer["data"][0]["embedding"]) == 8 else "",
        ),
    ],
)
def test_batch_when_of_another_endpoint_then_it_answers_too(
    start: Any, control: ControlStore, endpoint: str, body: Any, read: Any
) -> None:
    client = client_of(start(control=control)[0])
    asked = {"custom_id": "a", "method": "POST", "url": endpoint, "body": {"model": "production", **body}}
    done = until(client, put(client, [asked], endpoint=endpoint), over)
    answer = results(client, done.output_file_id)["a"]["response"]["body"]
    assert read(answer) == "You said: x"


def test_batch_when_the_file_is_wrong_then_it_fails_and_says_where(start: Any, control: ControlStore) -> None:
    client = client_of(start(control=control)[0])
    lines: list[Any] = [
        line(1, "x"),
        line(1, "x"),
        b"{",
        b"[]",
        b"[" * 100_000,
        {**line(2, "x"), "url": "/v1/embeddings"},
        {**line(3, "x"), "method": "GET"},
        {**line(4, "x"), "custom_id": ""},
        {**line(5, "x"), "surprise": 1},
        line(6, "x", stream=True),
    ]
    failed = until(client, put(client, lines), over)
    assert failed.status == "failed"
    found = {fault.line: fault.code for fault in failed.errors.data}
    assert found == {
        2: "duplicate_custom_id",
        3: "invalid_json_line",
        4: "invalid_request",
        5: "invalid_json_line",
        6: "mismatched_url",
        7: "invalid_method",
        8: "missing_required_parameter",
        9: "unknown_parameter",
        10: "unsupported_parameter",
    }
    empty = until(client, put(client, [b"\n\n"]), over)
    assert [fault.code for fault in empty.errors.data] == ["empty_file"]


def test_batch_when_the_server_ends_in_the_middle_then_the_next_one_goes_on(start: Any, control: ControlStore) -> None:
    from gw_fakes import Models

    models = Models()
    hanging = ["hang"]
    plain = models.fake._run

    def some_hang(request: Any) -> None:
        if hanging and "hold on" in models.fake.tokenizer.decode(request.prompt):
            request.prompt = models.fake.tokenizer.encode("user\nhang")
        plain(request)

    models.fake._run = some_hang  # type: ignore[method-assign]
    url, _ = start(models=models, control=control, config=ServeConfig(batch_concurrent=2))
    client = client_of(url)
    batch = put(client, [line(1, "one"), line(2, "hold on"), line(3, "three")])
    until(client, batch, lambda found: found.request_counts.completed >= 1)
    start.stop(url)  # type: ignore[attr-defined]
    hanging.clear()
    url, _ = start(models=models, control=control)
    client = client_of(url)
    done = until(client, batch, over)
    assert vars(done.request_counts) == {"total": 3, "completed": 3, "failed": 0}
    answers = results(client, done.output_file_id)
    assert answers["c2"]["response"]["body"]["choices"][0]["message"]["content"] == "You said: hold on"
    asked = [prompt for prompt in models.fake.prompts if "one" in prompt]
    assert len(asked) == 1  # what was answered is not asked again


def test_batch_when_cancelled_then_what_is_done_is_kept_and_the_rest_is_named(
    start: Any, control: ControlStore
) -> None:
    from gw_fakes import Engine, Models

    url, _ = start(models=Models(Engine(delay_s=0.005)), control=control, config=ServeConfig(batch_concurrent=1))
    client = client_of(url)
    batch = put(client, [line(number, f"text {number}") for number in range(200)])
    until(client, batch, lambda found: found.request_counts.completed >= 1)
    assert client.batches.cancel(batch.id).status in ("cancelling", "cancelled")
    done = until(client, batch, over)
    assert done.status == "cancelled"
    good, bad = results(client, done.output_file_id), results(client, done.error_file_id)
    assert len(good) + len(bad) == 200
    assert len(good) == done.request_counts.completed < 200
    assert {row["error"]["code"] for row in bad.values()} == {"batch_cancelled"}
    with pytest.raises(openai.ConflictError):
        client.batches.cancel(batch.id)


def test_batch_when_its_window_is_over_then_the_rest_is_given_up(start: Any, control: ControlStore) -> None:
    url, app = start(control=control)
    client = client_of(url)

    async def never() -> None:
        await asyncio.sleep(0.3)
        app.state.backend.draining = True  # whoever had his turn finds that no line may begin

    app.state.batches._turn = never
    batch = put(client, [line(1, "one")])
    with control.session() as session:
        session.get_one(Batch, batch.id).expires_at = utc_now() - datetime.timedelta(seconds=1)
    end = time.monotonic() + 60
    status = ""
    while status != "expired" and time.monotonic() < end:  # asked of the store: a server that drains answers nobody
        time.sleep(0.05)
        with control.session() as session:
            status = session.get_one(Batch, batch.id).status
        app.state.backend.draining = False
    app.state.batches._turn = lambda: asyncio.sleep(0)
    time.sleep(0.4)  # whoever still had his turn has put the server into draining
    app.state.backend.draining = False
    found = client.batches.retrieve(batch.id)
    assert found.status == "expired"
    if found.error_file_id is not None:  # its lines may not have been read in yet
        assert results(client, found.error_file_id)["c1"]["error"]["code"] == "batch_expired"


def test_batch_when_somebody_waits_for_an_answer_then_its_lines_begin_later(start: Any, control: ControlStore) -> None:
    url, app = start(control=control)
    client = client_of(url)
    body = {"model": "production", "messages": [{"role": "user", "content": "slow"}], "stream": True}
    with httpx.stream("POST", url + CHAT, json=body) as response:
        lines = response.iter_lines()
        next(lines)
        app.state.batches._begun = time.monotonic()
        batch = put(client, [line(1, "one")])
        until(client, batch, lambda found: found.status == "in_progress")
        time.sleep(0.5)
        assert client.batches.retrieve(batch.id).request_counts.completed == 0
        assert len(app.state.backend.models.fake.requests) == 1
    assert until(client, batch, over).request_counts.completed == 1


def test_batch_when_another_key_asks_then_there_is_none(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    mine, theirs = (client_of(url, create_key(control, name)[0]) for name in ("mine", "theirs"))
    batch = put(mine, [line(1, "one")])
    done = until(mine, batch, over)
    assert [found.id for found in mine.batches.list()] == [batch.id]
    assert len(mine.files.list().data) == 2
    assert list(theirs.batches.list()) == []
    assert theirs.files.list().data == []
    for call in (
        lambda: theirs.batches.retrieve(batch.id),
        lambda: theirs.batches.cancel(batch.id),
        lambda: theirs.files.retrieve(batch.input_file_id),
        lambda: theirs.files.content(done.output_file_id),
        lambda: theirs.files.delete(batch.input_file_id),
        lambda: theirs.batches.create(input_file_id=batch.input_file_id, endpoint=CHAT, completion_window="24h"),  # type: ignore[arg-type]
    ):
        with pytest.raises(openai.NotFoundError):
            call()


def test_batch_when_its_key_is_revoked_then_it_ends(start: Any, control: ControlStore) -> None:
    from gw_fakes import Engine, Models

    config = ServeConfig(require_key=True, batch_concurrent=1)
    url, _ = start(models=Models(Engine(delay_s=0.005)), config=config, control=control)
    client = client_of(url, create_key(control, "gone")[0])
    batch = put(client, [line(number, f"text {number}") for number in range(300)])
    until(client, batch, lambda found: found.request_counts.completed >= 1)
    revoke_key(control, "gone")
    end = time.monotonic() + 60
    while time.monotonic() < end:
        with control.session() as session:
            if session.get_one(Batch, batch.id).status == "cancelled":
                break
        time.sleep(0.05)
    with control.session() as session:
        assert session.get_one(Batch, batch.id).status == "cancelled"
        left = session.scalar(sa.select(sa.func.count()).select_from(BatchLine).where(BatchLine.status_code.is_(None)))
    assert left


def test_batch_when_the_key_is_not_for_its_endpoint_then_403(start: Any, control: ControlStore) -> None:
    url, _ = start(config=ServeConfig(require_key=True), control=control)
    client = client_of(url, create_key(control, "files", scopes=("files",))[0])
    with pytest.raises(openai.PermissionDeniedError):
        put(client, [line(1, "one")])


def test_batch_when_the_days_budget_is_spent_then_it_waits(start: Any, control: ControlStore) -> None:
    config = ServeConfig(require_key=True, batch_concurrent=1)
    url, _ = start(config=config, control=control)
    client = client_of(url, create_key(control, "small", limits=Limits(tokens_per_day=60))[0])
    batch = put(client, [line(number, "one") for number in range(5)])
    found = until(client, batch, lambda found: found.request_counts.completed == 2)
    time.sleep(0.3)
    found = client.batches.retrieve(batch.id)
    assert (found.status, found.request_counts.completed) == ("in_progress", 2)


def test_file_when_put_then_its_bytes_come_back_and_a_name_is_only_a_name(start: Any, control: ControlStore) -> None:
    url, _ = start(control=control)
    client = client_of(url)
    data = bytes(range(256)) * 12_000  # three chunks
    file = client.files.create(
        file=("../../etc/pass\r\nX-Evil: 1", data),
        purpose="batch",
        expires_after={"anchor": "created_at", "seconds": 3600},
    )
    assert file.bytes == len(data)
    assert file.filename.startswith("../../etc/pass")
    assert not set(file.filename) & set("\r\n")
    assert file.expires_at == file.created_at + 3600
    response = client.files.content(file.id)
    assert response.read() == data
    assert "x-evil" not in response.response.headers
    client.files.delete(file.id)
    with control.session() as session:
        assert session.scalars(sa.select(StoredChunk)).all() == []


@pytest.mark.parametrize(
    ("data", "param"),
    [
        ({"purpose": "vision"}, "purpose"),
        ({}, "purpose"),
        ({"purpose": "batch", "surprise": "1"}, "surprise"),
        ({"purpose": "batch", "expires_after[seconds]": "3600"}, "expires_after"),
        ({"purpose": "batch", "expires_after[anchor]": "created_at", "expires_after[seconds]": "5"}, "expires_after"),
    ],
)
def test_file_when_a_field_is_wrong_then_400_names_it(
    shared: tuple[str, Any], data: dict[str, str], param: str
) -> None:
    response = httpx.post(shared[0] + "/v1/files", data=data, files={"file": ("a.jsonl", b"{}")})
    assert response.status_code == 400, response.text
    assert str(response.json()["error"]["param"]).startswith(param)


def test_file_when_too_large_or_missing_then_it_is_refused(start: Any, control: ControlStore) -> None:
    url, _ = start(control=control, config=ServeConfig(max_upload=10_000))
    large = httpx.post(url + "/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"x" * 20_000)})
    assert (large.status_code, large.json()["error"]["code"]) == (413, "body_too_large")
    url2, _ = start(control=control, config=ServeConfig(max_stored=1000))
    codes = []
    for _ in range(3):
        response = httpx.post(url2 + "/v1/files", data={"purpose": "batch"}, files={"file": ("a", b"x" * 400)})
        codes.append(response.status_code)
    assert codes == [200, 200, 413]
    assert response.json()["error"]["code"] == "storage_full"
    missing = httpx.post(url + "/v1/files", data={"purpose": "batch"})
    assert (missing.status_code, missing.json()["error"]["param"]) == (400, "file")


def test_file_when_its_time_is_over_then_it_is_deleted(start: Any, control: ControlStore) -> None:
    url, app = start(control=control)
    client = client_of(url)
    file = client.files.create(file=("a", b"x"), purpose="batch")
    with control.session() as session:
        session.get_one(StoredFile, file.id).expires_at = utc_now() - datetime.timedelta(seconds=1)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(file.id)
    app.state.batches._cleaned = -1e9
    app.state.batches.wake()
    end = time.monotonic() + 20
    rows = 1
    while time.monotonic() < end and rows:
        time.sleep(0.02)
        with control.session() as session:
            rows = session.scalar(sa.select(sa.func.count()).select_from(StoredFile)) or 0
    assert rows == 0
