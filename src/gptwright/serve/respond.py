"""Chats and plain completions on the wire: whole, or as server-sent events, in OpenAI's shapes."""

import asyncio
import json
import logging
import re
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import Response
from fastapi.responses import JSONResponse, StreamingResponse
from starlette.types import Receive, Scope, Send

from gptwright.gateway.provider import UpstreamError
from gptwright.serve import answers as shapes
from gptwright.serve.answer import Answer, PromptText
from gptwright.serve.errors import ApiError, ClientGoneError, from_user_error, sse_error
from gptwright.serve.flow import Step
from gptwright.serve.generate import Backend
from gptwright.serve.logprobs import chat_logprobs, text_logprobs
from gptwright.serve.speak import Part, Speech
from gptwright.serve.structure import CallDelta

log = logging.getLogger("gptwright.serve")

Kind = Literal["chat", "text"]
_OBJECTS = {"chat": "chat.completion", "text": "text_completion"}


def failure(error: Exception) -> ApiError:
    """What the client is told of an error in the middle of an answer."""
    if isinstance(error, ApiError):
        return error
    if isinstance(error, UpstreamError):
        return from_user_error(error)
    log.error("an answer failed", exc_info=error)
    return ApiError(500, "The server failed; its log says why.", code="internal_error")


class Events(StreamingResponse):
    """Server-sent events that no proxy holds back, for as long as they may be read: a client that does not read would keep them here for ever.

    Args:
        chunks: the events.
        headers: further headers.
        until: when whoever has not read them by then is let go; a time of the loop.
    """

    def __init__(self, chunks: AsyncIterator[str], headers: Mapping[str, str], until: float) -> None:
        super().__init__(chunks, media_type="text/event-stream", headers={**headers, "X-Accel-Buffering": "no"})
        self._until = until

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            async with asyncio.timeout_at(self._until):
                await super().__call__(scope, receive, send)
        except TimeoutError:
            self.let_go()
            log.warning("a client was let go that did not read its answer")

    def let_go(self) -> None:
        """The client did not read them."""


class EventStream(Events):
    """An answer as it is made; a client that does not read it ends it.

    Args:
        chunks: the events.
        headers: further headers.
        speech: closed at the end, also when the client left before the first event was asked for.
    """

    def __init__(self, chunks: AsyncIterator[str], headers: Mapping[str, str], speech: Speech) -> None:
        super().__init__(chunks, headers, speech.answer.flow.read_until)
        self._speech = speech

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Send them."""
        try:
            await super().__call__(scope, receive, send)
        finally:
            self._speech.close()

    def let_go(self) -> None:
        """Nobody is left to answer."""
        self._speech.answer.flow.cancel("not_read")


async def begun(speech: Speech) -> tuple[Part | None, AsyncIterator[Part | None]]:
    """Await the first piece before the headers go, so that a refusal still has its status.

    Raises:
        ApiError, ClientGoneError: the answer failed; it is closed.
    """
    parts = speech.parts()
    try:
        return await anext(parts, None), parts
    except BaseException:
        speech.close()
        raise


async def followed(first: Part | None, parts: AsyncIterator[Part | None]) -> AsyncIterator[Part | None]:
    """The first piece and all others."""
    yield first
    async for part in parts:
        yield part


@dataclass
class _Choice:
    """One choice, whole."""

    text: str = ""
    tokens: list[Step] = field(default_factory=list)
    calls: dict[int, dict[str, Any]] = field(default_factory=dict)
    finish: Any = "stop"
    hidden: bool = False

    def take(self, part: Part) -> None:
        self.text += part.text
        self.tokens += part.tokens
        self.finish = part.finish or self.finish
        self.hidden |= part.hidden
        gather_calls(self.calls, part.calls)

    def score(self) -> float:
        """Mean log-probability of the tokens: what best_of goes by."""
        known = [step.logprob for step in self.tokens if step.logprob is not None]
        return sum(known) / len(known) if known else -1e9


def gather_calls(calls: dict[int, dict[str, Any]], deltas: Sequence[CallDelta]) -> None:
    """Put pieces of tool calls together, in OpenAI's shape."""
    for delta in deltas:
        call = calls.setdefault(
            delta.index, {"id": delta.id, "type": "function", "function": {"name": delta.name, "arguments": ""}}
        )
        call["function"]["arguments"] += delta.arguments


@dataclass
class Responder:
    """Sends one answer.

    Args:
        backend: what endpoints share.
        answer: the running answer.
        kind: chat, or plain text.
        logprobs: whether log probabilities of tokens were asked for.
        echo: whether a plain text begins with its prompt.
        n: choices wanted of each prompt; more may be generated to choose from.
        keep: told the whole answer before the client hears of its end, so that it can ask for it at once; None: it is not kept.
    """

    backend: Backend
    answer: Answer
    kind: Kind
    logprobs: bool
    echo: bool = False
    n: int = 1
    keep: Callable[[dict[str, Any]], Awaitable[None]] | None = None
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.kind == "chat" else "cmpl-") + uuid.uuid4().hex
        self.each = self.answer.flow.choices // max(1, len(self.answer.prompts))
        self.speech = Speech(self.backend, self.answer, self.logprobs or self.each > self.n)
        self._length: dict[int, int] = {}

    async def whole(self) -> Response:
        """The answer in one piece."""
        choices = self._choices()
        try:
            async for part in self.speech.parts():
                if part is not None:
                    choices[part.index].take(part)
        finally:
            self.speech.close()
        body = self._body(choices)
        if self.keep is not None:
            await self.keep(body)
        return JSONResponse(body, headers=self.headers())

    def _choices(self) -> list[_Choice]:
        return [_Choice() for _ in range(max(1, self.answer.flow.choices))]

    async def streamed(self, *, usage: bool) -> Response:
        """The answer in pieces."""
        first, parts = await begun(self.speech)
        return EventStream(self._stream(followed(first, parts), usage), self.headers(), self.speech)

    async def _stream(self, parts: AsyncIterator[Part | None], usage: bool) -> AsyncIterator[str]:
        head, choices = self._head(usage), self._choices()
        try:
            for chunk in self._opening(head):
                yield chunk
            async for part in parts:
                if part is None:
                    yield ": keep-alive\n\n"
                    continue
                if self.keep is not None:
                    choices[part.index].take(part)
                for chunk in self._chunks(head, part):
                    yield chunk
            if self.keep is not None:
                await self.keep(self._body(choices))
            if usage:
                yield self._usage_chunk()
            yield "data: [DONE]\n\n"
        except ClientGoneError:
            return
        except Exception as error:
            # Raising would break the connection, and with it the error on its way to the client.
            yield sse_error(failure(error))
        finally:
            self.speech.close()

    def _opening(self, head: str) -> list[str]:
        """Roles of a chat; prompts of a text that is to begin with them."""
        outputs = (
            max(1, self.answer.flow.choices)
            if self.kind == "chat"
            else max(len(self.answer.prompts), self.answer.flow.choices)
        )
        if self.kind == "chat":
            return [self._chunk(head, i, {"role": "assistant", "content": ""}, None) for i in range(outputs)]
        if not self.echo:
            return []
        chunks = []
        for i in range(outputs):
            prompt = self._prompt(i)
            logprobs = self._text_logprobs(i, prompt, []) if self.logprobs else None
            finish = "length" if self.answer.flow.choices == 0 else None
            chunks.append(self._chunk(head, i, prompt.text, finish, logprobs))
            self._length[i] = len(prompt.text)
        return chunks

    def _chunks(self, head: str, part: Part) -> list[str]:
        if self.answer.flow.choices == 0:
            return []
        found = []
        tokens = list(part.tokens)
        if part.calls:
            found.append(self._chunk(head, part.index, {"tool_calls": [_call(delta) for delta in part.calls]}, None))
        if part.text or (tokens and part.finish is None):
            logprobs = self._logprobs(part.index, tokens, False) if tokens and part.finish is None else None
            found.append(self._chunk(head, part.index, part.text, None, logprobs))
        if part.finish is not None:
            late = self._logprobs(part.index, tokens, part.hidden) if tokens or part.hidden else None
            found.append(self._chunk(head, part.index, {} if self.kind == "chat" else "", part.finish, late))
        return found

    def headers(self) -> dict[str, str]:
        """Which model answered, and what was left out."""
        # Names of models come from folders and providers: nothing in them may end a header.
        headers = {"X-Gptwright-Model": re.sub(r"[^\x20-\x7e]", "?", self.answer.model)}
        return {**headers, "X-Gptwright-Dropped-Messages": str(self.answer.dropped)} if self.answer.dropped else headers

    def _usage(self) -> shapes.TokenUsage:
        return shapes.TokenUsage.of(self.answer.prompt_tokens, self.answer.completion_tokens, self.answer.cached_tokens)

    def _prompt(self, index: int) -> PromptText:
        return self.answer.prompts[index // max(1, self.each)]

    def _body(self, choices: list[_Choice]) -> dict[str, Any]:
        common: dict[str, Any] = {
            "id": self.id,
            "created": self.created,
            "model": self.answer.model,
            "usage": self._usage(),
        }
        if self.kind == "chat":
            found = [self._chat_choice(index, choice) for index, choice in enumerate(choices)]
            body = shapes.ChatCompletion(**common, choices=found).model_dump()
            for choice in body["choices"]:
                if choice["message"]["tool_calls"] is None:
                    del choice["message"]["tool_calls"]  # clients take an empty list or null for calls
            return body
        return shapes.TextCompletion(**common, choices=self._text_choices(choices)).model_dump()

    def _chat_choice(self, index: int, choice: _Choice) -> shapes.ChatChoice:
        calls = [shapes.AnswerCall.model_validate(call) for call in choice.calls.values()] or None
        message = shapes.AnswerMessage(content=choice.text if choice.text or not calls else None, tool_calls=calls)
        logprobs: Any = self._logprobs(index, choice.tokens, choice.hidden) if self.logprobs else None
        return shapes.ChatChoice(index=index, message=message, logprobs=logprobs, finish_reason=choice.finish)

    def _text_choices(self, choices: list[_Choice]) -> list[shapes.TextChoice]:
        kept: list[tuple[int, _Choice]] = []
        for at, _ in enumerate(self.answer.prompts):
            if self.each == 0:
                kept.append((at, _Choice(finish="length")))
                continue
            group = list(enumerate(choices))[at * self.each : (at + 1) * self.each]
            # The sort is stable: of equally likely ones the earlier is taken.
            best = sorted(group, key=lambda pair: -pair[1].score())[: self.n] if self.each > self.n else group
            kept += best
        found = []
        for index, (number, choice) in enumerate(kept):
            prompt = self._prompt(number)
            text = (prompt.text if self.echo else "") + choice.text
            logprobs: Any = None
            if self.logprobs and not choice.hidden:
                given = prompt if self.echo else None
                logprobs = self._text_logprobs(number, given, choice.tokens)
            found.append(shapes.TextChoice(index=index, text=text, logprobs=logprobs, finish_reason=choice.finish))
        return found

    def _logprobs(self, index: int, tokens: list[Step], hidden: bool) -> Any:
        if not self.logprobs or self.answer.tokenizer is None:
            return None
        if self.kind == "text":
            return None if hidden else self._text_logprobs(index, None, tokens)
        return shapes.Logprobs(content=None) if hidden else chat_logprobs(self.answer.tokenizer, tokens)

    def _text_logprobs(self, index: int, prompt: PromptText | None, tokens: list[Step]) -> shapes.TextLogprobs:
        assert self.answer.tokenizer is not None
        given = prompt.scores if prompt is not None else ()
        found = text_logprobs(self.answer.tokenizer, given, tokens, self._length.get(index, 0), control=self.echo)
        self._length[index] = self._length.get(index, 0) + sum(
            len(self.answer.tokenizer.decode([step.token_id])) for step in tokens if step.token_id is not None
        )
        return found

    def _head(self, usage: bool) -> str:
        """The part of a chunk that never changes, made once: chunks are the hot path."""
        name = _OBJECTS[self.kind] + (".chunk" if self.kind == "chat" else "")
        head = {"id": self.id, "object": name, "created": self.created, "model": self.answer.model}
        return "data: " + json.dumps({**head, "usage": None} if usage else head)[:-1]

    def _chunk(
        self, head: str, index: int, content: str | dict[str, Any], finish: str | None, logprobs: Any = None
    ) -> str:
        choice: dict[str, Any] = {"index": index}
        if self.kind == "chat":
            choice["delta"] = {"content": content} if isinstance(content, str) else content
        else:
            choice["text"] = content
        choice["logprobs"] = logprobs.model_dump() if logprobs is not None else None
        choice["finish_reason"] = finish
        return f'{head}, "choices": [{json.dumps(choice)}]}}\n\n'

    def _usage_chunk(self) -> str:
        head = self._head(usage=False)
        return f'{head}, "choices": [], "usage": {json.dumps(self._usage().model_dump())}}}\n\n'


def _call(delta: CallDelta) -> dict[str, Any]:
    """A piece of a tool call in a chunk."""
    if delta.id is None:
        return {"index": delta.index, "function": {"arguments": delta.arguments}}
    function = {"name": delta.name, "arguments": delta.arguments}
    return {"index": delta.index, "id": delta.id, "type": "function", "function": function}
