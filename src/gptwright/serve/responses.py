"""``/v1/responses``: OpenAI's newer endpoint for answers, which can be kept and gone on from."""

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import FastAPI, Query, Request, Response
from fastapi.responses import JSONResponse
from pydantic import TypeAdapter

from gptwright.infer.config import GenerationConfig
from gptwright.serve.answer import Answer
from gptwright.serve.background import Job, detached
from gptwright.serve.caller import Caller
from gptwright.serve.conversations import After, Limit, Order, add_conversations
from gptwright.serve.errors import ApiError, ClientGoneError, renamed_params
from gptwright.serve.generate import Backend
from gptwright.serve.respond import Events, EventStream, Responder, begun, failure, followed
from gptwright.serve.response_events import Growing, event_text
from gptwright.serve.response_shapes import (
    Deleted,
    Include,
    InputItem,
    InputTokens,
    ItemList,
    ResponseObject,
    ResponseRequest,
    to_messages,
)
from gptwright.serve.response_store import Items, ResponseStore, new_id, page, stored_items
from gptwright.serve.schema import ChatRequest
from gptwright.serve.speak import Part, Speech

_ITEMS: TypeAdapter[list[InputItem]] = TypeAdapter(list[InputItem])
_GRACE_S = 30.0
_NAMES = {"messages": "input", "response_format": "text.format"}
_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Whole, or as events."}
}


def add_responses(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints."""

    def store_of(request: Request) -> ResponseStore:
        if backend.control is None:
            raise ApiError(501, "This server keeps nothing: it has no control store.", code="no_control_store")
        key_id = Caller.of(request.scope).key_id
        return ResponseStore(backend.control, backend.guard, key_id, backend.config.responses_kept)

    add_conversations(app, store_of)

    async def before(body: ResponseRequest, request: Request) -> list[InputItem]:
        """What was said before this request."""
        earlier: Items = []
        if body.previous_response_id is not None:
            earlier = await asyncio.to_thread(store_of(request).chain, body.previous_response_id)
        if body.conversation_id is not None:
            earlier = await asyncio.to_thread(store_of(request).thread_items, body.conversation_id)
        return _ITEMS.validate_python(earlier)

    @app.post("/v1/responses", response_model=ResponseObject, responses=_EVENTS)
    async def create(body: ResponseRequest, request: Request) -> Response:
        for name in ("store", "background"):
            if getattr(body, name) and backend.control is None:
                raise ApiError(400, f"{name}: this server keeps nothing.", param=name, code="unsupported_parameter")
        if body.background and Caller.of(request.scope).background:
            raise ApiError(
                400, "background: a batch is that already.", param="background", code="unsupported_parameter"
            )
        asked = _chat_request(body, [*await before(body, request), *body.items])
        with renamed_params(_NAMES):
            answer = await backend.chat(asked, detached(request) if body.background else request)
        store = store_of(request) if backend.control is not None else None
        run = _Run(backend, body, answer, store)
        if body.background:
            job = await run.leave(Caller.of(request.scope).key_id)
            return watched(job, -1, run.headers) if body.stream else JSONResponse(run.begun, headers=run.headers)
        return await (run.streamed() if body.stream else run.whole())

    def watched(job: Job, after: int, headers: dict[str, str] | None = None) -> Response:
        async def texts() -> AsyncIterator[str]:
            async for event in job.watch(after, backend.config.keep_alive):
                yield ": keep-alive\n\n" if event is None else event_text(event)

        # From now on, not from when the work began: it may be watched long after that, and again from its first event.
        longest_s = backend.config.request_timeout + backend.config.keep_alive
        return Events(texts(), headers or {}, asyncio.get_running_loop().time() + longest_s)

    def job_of(response_id: str, request: Request) -> Job | None:
        return backend.jobs.find(response_id, Caller.of(request.scope).key_id)

    async def current(response_id: str, request: Request) -> dict[str, Any]:
        """A response as it is now."""
        store = store_of(request)
        row = await asyncio.to_thread(store.response, response_id)
        job = job_of(response_id, request)
        if job is not None and not job.over:
            shape = job.growing.response.shape()
            return {**shape, "output": store.masked(shape["output"])}
        shape = dict(row.body)
        age = time.time() - shape["created_at"]
        if shape["status"] == "in_progress" and age > backend.config.request_timeout + _GRACE_S:
            # Its server was killed: one that stops in peace writes the end down.
            error = {"code": "server_error", "message": "The server that worked on it is gone."}
            shape |= {"status": "failed", "error": error}
        return shape

    @app.post("/v1/responses/input_tokens")
    async def input_tokens(body: ResponseRequest, request: Request) -> InputTokens:
        asked = _chat_request(body, [*await before(body, request), *body.items])
        messages = backend.guard.check_prompt(asked.plain)
        _, engine = await backend.engine(body.model)
        rendered = await asyncio.to_thread(engine.tokenizer.render, messages, True)
        return InputTokens(input_tokens=len(rendered.ids))

    @app.get("/v1/responses/{response_id}", response_model=ResponseObject, responses=_EVENTS)
    async def get(
        response_id: str,
        request: Request,
        include: Annotated[list[Include] | None, Query(max_length=10)] = None,
        stream: bool = False,
        starting_after: Annotated[int | None, Query(ge=0, lt=2**53)] = None,
    ) -> Response:
        if starting_after is not None and not stream:
            raise ApiError(400, "starting_after: only with stream=true.", param="starting_after", code="invalid_value")
        shape = await current(response_id, request)
        if stream:
            job = job_of(response_id, request)
            if job is None:
                raise ApiError(
                    400,
                    "stream: only of a response in the background, while it runs and ten minutes longer.",
                    param="stream",
                    code="unsupported_parameter",
                )
            return watched(job, -1 if starting_after is None else starting_after)
        if not include or "message.output_text.logprobs" not in include:
            shape = json.loads(json.dumps(shape))  # one that still runs is not ours to change
            for item in shape["output"]:
                for part in item.get("content", ()):
                    part["logprobs"] = []
        return JSONResponse(ResponseObject.model_validate(shape).shape())

    @app.delete("/v1/responses/{response_id}")
    async def delete(response_id: str, request: Request) -> Deleted:
        if (job := job_of(response_id, request)) is not None:
            job.deleted = True
            job.growing.answer.flow.cancel("deleted")
        await asyncio.to_thread(store_of(request).delete_response, response_id)
        return Deleted(id=response_id, object="response")

    @app.post("/v1/responses/{response_id}/cancel", response_model=ResponseObject)
    async def cancel(response_id: str, request: Request) -> Response:
        row = await asyncio.to_thread(store_of(request).response, response_id)
        if not row.body["background"]:
            raise ApiError(400, "Only a response in the background can be cancelled.", code="not_running")
        job = job_of(response_id, request)
        if job is not None and not job.over:
            job.cancelled = True
            job.growing.answer.flow.cancel("cancelled")
            await job.finished(_GRACE_S)
        return JSONResponse(ResponseObject.model_validate(await current(response_id, request)).shape())

    @app.get("/v1/responses/{response_id}/input_items")
    async def input_items(
        response_id: str, request: Request, after: After = None, limit: Limit = 20, order: Order = "desc"
    ) -> ItemList:
        row = await asyncio.to_thread(store_of(request).response, response_id)
        rows, more = page(row.items, after, limit, order)
        ids = [item["id"] for item in rows]
        return ItemList(data=rows, first_id=ids[0] if ids else None, last_id=ids[-1] if ids else None, has_more=more)


class _Run:
    """One response on its way."""

    def __init__(self, backend: Backend, body: ResponseRequest, answer: Answer, store: ResponseStore | None) -> None:
        self.body, self.answer, self.store = body, answer, store
        self.speech = Speech(backend, answer, body.wants_logprobs)
        self.growing = Growing(_object(body, answer, stored=store is not None), answer, body.wants_logprobs)
        self.headers = Responder(backend, answer, "chat", False).headers()
        self.begun: dict[str, Any] = {}
        self.items = stored_items(body.items)

    async def leave(self, key_id: int | None) -> Job:
        """Go on without the client."""
        assert self.store is not None
        job = Job(self.growing, key_id)
        self.begun = self.growing.response.shape()
        try:
            # Only the response: its conversation gets the turn when it is whole.
            await asyncio.to_thread(self.store.keep, self.begun, self.items, None)
        except BaseException:
            self.speech.close()
            raise
        self.speech.backend.jobs.add(self.begun["id"], job)
        self.speech.backend.keep(asyncio.create_task(self._work(job)))
        return job

    async def _work(self, job: Job) -> None:
        growing, failed = self.growing, None
        try:
            for event in growing.begin():
                job.tell(event)
            async for part in self.speech.parts():
                for event in growing.take(part) if part is not None else ():
                    job.tell(event)
            last = list(growing.end())
        except Exception as error:
            # What was cancelled has no last event: its stream ends, and its status says why.
            last = [] if job.cancelled or job.deleted else list(growing.fail(failure(error)))
            failed = True
        finally:
            self.speech.close()
        if failed and job.cancelled:
            growing.settle("cancelled")
        try:
            if not job.deleted:
                await self._keep(whole=not failed)
        finally:
            for event in last:
                job.tell(event)
            job.end()
            self.speech.backend.jobs.ended(growing.response.id)

    async def whole(self) -> Response:
        try:
            async for part in self.speech.parts():
                for _ in self.growing.take(part) if part is not None else ():
                    pass
            for _ in self.growing.end():
                pass
        finally:
            self.speech.close()
        await self._keep()
        return JSONResponse(self.growing.response.shape(), headers=self.headers)

    async def streamed(self) -> Response:
        first, parts = await begun(self.speech)
        return EventStream(self._stream(followed(first, parts)), self.headers, self.speech)

    async def _stream(self, parts: AsyncIterator[Part | None]) -> AsyncIterator[str]:
        growing = self.growing
        try:
            for event in growing.begin():
                yield event_text(event)
            async for part in parts:
                if part is None:
                    yield ": keep-alive\n\n"
                    continue
                for event in growing.take(part):
                    yield event_text(event)
            events = list(growing.end())
            await self._keep()  # before the client hears of the end, so that it can go on at once
            for event in events:
                yield event_text(event)
        except ClientGoneError:
            return
        except Exception as error:
            for event in growing.fail(failure(error)):
                yield event_text(event)
        finally:
            self.speech.close()

    async def _keep(self, whole: bool = True) -> None:
        thread_id = self.body.conversation_id if whole else None
        if self.store is None or not (self.growing.response.store or thread_id):
            return
        await asyncio.to_thread(self.store.keep, self.growing.response.shape(), self.items, thread_id)


def _chat_request(body: ResponseRequest, items: list[InputItem]) -> ChatRequest:
    """The request as a chat, which is all that the rest of the server knows."""
    tools = [
        {"type": "function", "function": tool.model_dump(exclude={"type"}, exclude_none=True)}
        for tool in body.tools or ()
    ]
    choice: Any = body.tool_choice
    if choice is not None and not isinstance(choice, str):
        choice = {"type": "function", "function": {"name": choice.name}}
    form = body.text.format if body.text is not None else None
    shape: dict[str, Any] | None = {"type": form.type} if form is not None else None
    if shape is not None and form is not None and form.type == "json_schema":
        shape["json_schema"] = form.model_dump(by_alias=True, exclude={"type"}, exclude_none=True)
    return ChatRequest.model_validate(
        {
            "model": body.model,
            "messages": to_messages(items, body.instructions),
            "max_completion_tokens": body.max_output_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "logprobs": body.wants_logprobs,
            "top_logprobs": (body.top_logprobs or 0) if body.wants_logprobs else None,
            "tools": tools or None,
            "tool_choice": choice,
            "parallel_tool_calls": body.parallel_tool_calls,
            "response_format": shape,
            "truncation": body.truncation,
            "user": body.safety_identifier or body.user,
        }
    )


def _object(body: ResponseRequest, answer: Answer, stored: bool) -> ResponseObject:
    defaults = GenerationConfig()
    form = body.text.format if body.text is not None else None
    choice = body.tool_choice
    thread_id = body.conversation_id
    return ResponseObject(
        id=new_id("resp"),
        created_at=int(time.time()),
        status="in_progress",
        background=bool(body.background),
        instructions=body.instructions,
        max_output_tokens=body.max_output_tokens,
        model=answer.model,
        output=[],
        parallel_tool_calls=body.parallel_tool_calls is not False,
        previous_response_id=body.previous_response_id,
        conversation={"id": thread_id} if thread_id else None,
        store=stored and body.store is not False,
        temperature=defaults.temperature if body.temperature is None else body.temperature,
        text={"format": form.model_dump(by_alias=True, exclude_none=True) if form is not None else {"type": "text"}},
        tool_choice=choice if isinstance(choice, str) else choice.model_dump() if choice is not None else "auto",
        tools=[{**tool.model_dump(), "strict": bool(tool.strict)} for tool in body.tools or ()],
        top_logprobs=body.top_logprobs or 0,
        top_p=defaults.top_p if body.top_p is None else body.top_p,
        truncation=body.truncation or "disabled",
        metadata=body.metadata or {},
    )
