"""``/v1/messages``: chats in Anthropic's shape, whole or as its events."""

import asyncio
import json
from collections.abc import AsyncIterator, Iterator
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.responses import JSONResponse

from gptwright.serve.answer import Answer
from gptwright.serve.errors import ANTHROPIC_TYPES, ApiError, ClientGoneError, renamed_params
from gptwright.serve.generate import Backend
from gptwright.serve.message_shapes import CountRequest, MessageAnswer, MessagesRequest, MessageUsage, TokenCount
from gptwright.serve.respond import EventStream, Responder, begun, failure, followed
from gptwright.serve.response_store import new_id
from gptwright.serve.schema import ChatRequest
from gptwright.serve.speak import Part, Speech

_EVENTS: dict[int | str, dict[str, Any]] = {
    200: {"content": {"text/event-stream": {"schema": {"type": "string"}}}, "description": "Whole, or as events."}
}
_NAMES = {"stop": "stop_sequences", "max_completion_tokens": "max_tokens"}


def add_messages(app: FastAPI, backend: Backend) -> None:
    """Add the endpoints."""

    @app.post("/v1/messages", response_model=MessageAnswer, responses=_EVENTS)
    async def create(body: MessagesRequest, request: Request) -> Response:
        asked = ChatRequest.model_validate(
            {
                **body.settings(),
                "max_completion_tokens": body.max_tokens,
                "stop": body.stop_sequences or None,
                "temperature": body.temperature,
                "top_k": body.top_k,
                "top_p": body.top_p,
                "user": body.metadata.user_id if body.metadata is not None else None,
            }
        )
        with renamed_params(_NAMES):
            answer = await backend.chat(asked, request)
        run = _Run(backend, answer, tuple(body.stop_sequences or ()))
        return await (run.streamed() if body.stream else run.whole())

    @app.post("/v1/messages/count_tokens")
    async def count(body: CountRequest, request: Request) -> TokenCount:
        asked = ChatRequest.model_validate(body.settings())
        messages = backend.guard.check_prompt(asked.plain)
        _, engine = await backend.engine(body.model)
        rendered = await asyncio.to_thread(engine.tokenizer.render, messages, True)
        return TokenCount(input_tokens=len(rendered.ids))


class _Run:
    """One answer on its way, block by block."""

    def __init__(self, backend: Backend, answer: Answer, stops: tuple[str, ...]) -> None:
        self.answer = answer
        self.speech = Speech(backend, answer, stops=stops)
        self.id = new_id("msg")
        self.blocks: list[dict[str, Any]] = []
        self._calls: dict[int, int] = {}
        self._finish = "stop"
        self.headers = Responder(backend, answer, "chat", False).headers()

    async def whole(self) -> Response:
        try:
            async for part in self.speech.parts():
                for _ in self._take(part) if part is not None else ():
                    pass
            for _ in self._end():
                pass
        finally:
            self.speech.close()
        return JSONResponse(self._shape(over=True).model_dump(), headers=self.headers)

    async def streamed(self) -> Response:
        first, parts = await begun(self.speech)
        return EventStream(self._stream(followed(first, parts)), self.headers, self.speech)

    async def _stream(self, parts: AsyncIterator[Part | None]) -> AsyncIterator[str]:
        try:
            yield _event("message_start", message=self._shape(over=False).model_dump())
            yield _event("ping")
            async for part in parts:
                if part is None:
                    yield _event("ping")
                    continue
                for event in self._take(part):
                    yield event
            for event in self._end():
                yield event
            shape = self._shape(over=True)
            delta = {"stop_reason": shape.stop_reason, "stop_sequence": shape.stop_sequence}
            yield _event("message_delta", delta=delta, usage=shape.usage.model_dump())
            yield _event("message_stop")
        except ClientGoneError:
            return
        except Exception as error:
            told: ApiError = failure(error)
            kind = ANTHROPIC_TYPES.get(told.status, "api_error")
            fault = {"type": kind, "message": told.message, "param": told.param, "code": told.code}
            yield _event("error", error=fault)
        finally:
            self.speech.close()

    def _take(self, part: Part) -> Iterator[str]:
        if part.text:
            if not self.blocks or self.blocks[-1]["type"] != "text":
                yield from self._open({"type": "text", "text": ""})
            self.blocks[-1]["text"] += part.text
            yield self._delta(len(self.blocks) - 1, {"type": "text_delta", "text": part.text})
        for call in part.calls:
            if call.index not in self._calls:
                yield from self._open({"type": "tool_use", "id": call.id, "name": call.name, "input": {}})
                self._calls[call.index] = len(self.blocks) - 1
                self.blocks[-1]["json"] = ""
            at = self._calls[call.index]
            self.blocks[at]["json"] += call.arguments
            yield self._delta(at, {"type": "input_json_delta", "partial_json": call.arguments})
        self._finish = part.finish or self._finish

    def _open(self, block: dict[str, Any]) -> Iterator[str]:
        if self.blocks:
            yield _event("content_block_stop", index=len(self.blocks) - 1)
        self.blocks.append(dict(block))
        yield _event("content_block_start", index=len(self.blocks) - 1, content_block=block)

    def _end(self) -> Iterator[str]:
        if self.blocks:
            yield _event("content_block_stop", index=len(self.blocks) - 1)
        for block in self.blocks:
            if block["type"] == "tool_use":
                written = block.pop("json")
                try:
                    block["input"] = json.loads(written or "{}")
                except ValueError:  # the limit of tokens came in the middle
                    block["input"] = {}

    @staticmethod
    def _delta(index: int, delta: dict[str, Any]) -> str:
        return _event("content_block_delta", index=index, delta=delta)

    def _shape(self, over: bool) -> MessageAnswer:
        stop = self.speech.stopped_by.get(0)
        reasons: dict[str, Any] = {"length": "max_tokens", "tool_calls": "tool_use"}
        reason: Any = reasons.get(self._finish, "stop_sequence" if stop is not None else "end_turn")
        # Anthropic counts what was read anew and what was found in the cache apart.
        cached = self.answer.cached_tokens
        usage = MessageUsage(
            input_tokens=self.answer.prompt_tokens - cached,
            output_tokens=self.answer.completion_tokens,
            cache_read_input_tokens=cached,
        )
        return MessageAnswer(
            id=self.id,
            model=self.answer.model,
            content=self.blocks,
            stop_reason=reason if over else None,
            stop_sequence=stop if over else None,
            usage=usage,
        )


def _event(kind: str, **fields: Any) -> str:
    return f"event: {kind}\ndata: {json.dumps({'type': kind, **fields})}\n\n"
