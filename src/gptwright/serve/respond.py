"""From a running answer to a response: whole, or as server-sent events; masked, counted, with token log probabilities."""

import json
import logging
import time
import uuid
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

from fastapi import Request, Response
from fastapi.responses import JSONResponse, StreamingResponse

from gptwright.gateway.provider import UpstreamError
from gptwright.serve import answers as shapes
from gptwright.serve.errors import ApiError, from_user_error, sse_error
from gptwright.serve.flow import ClientGoneError, Step
from gptwright.serve.generate import Answer, Backend
from gptwright.serve.protocols import TokenizerLike

log = logging.getLogger("gptwright.serve")

Kind = Literal["chat", "text"]
_OBJECTS = {"chat": "chat.completion", "text": "text_completion"}


@dataclass
class Responder:
    """Sends one answer.

    Args:
        backend: what endpoints share.
        answer: the running answer.
        request: whose answer it is.
        kind: chat, or plain text.
        logprobs: whether log probabilities of tokens were asked for.
    """

    backend: Backend
    answer: Answer
    request: Request
    kind: Kind
    logprobs: bool
    created: int = field(default_factory=lambda: int(time.time()))

    def __post_init__(self) -> None:
        self.id = ("chatcmpl-" if self.kind == "chat" else "cmpl-") + uuid.uuid4().hex
        self._finish = "stop"
        self._tokens: list[Step] = []

    async def whole(self) -> Response:
        """The answer in one piece."""
        text = ""
        complete = False
        try:
            async for step in self.answer.flow.events():
                if step is not None:
                    text += self._take(step)
            complete = True
        except ClientGoneError:
            return Response(status_code=499)
        finally:
            self.answer.flow.close(complete)
            self.backend.count(self.answer, self.request)
        text, masked = self.backend.guard.mask_answer(text)
        self._count_masked(masked)
        body = self._body(text, self._logprobs(self._tokens, masked=bool(masked)))
        return JSONResponse(body.model_dump(), headers=self._headers())

    async def streamed(self, *, usage: bool) -> Response:
        """The answer in pieces. The first is awaited before the headers go, so that a refusal still has its status."""
        events = self.answer.flow.events()
        try:
            first = await anext(events, None)
        except ClientGoneError:
            self.answer.flow.close(complete=False)
            return Response(status_code=499)
        except BaseException:
            self.answer.flow.close(complete=False)
            raise
        return StreamingResponse(
            self._stream(first, events, usage),
            media_type="text/event-stream",
            headers={**self._headers(), "X-Accel-Buffering": "no"},
        )

    async def _stream(self, first: Step | None, events: AsyncIterator[Step | None], usage: bool) -> AsyncIterator[str]:
        guard = self.backend.guard
        mask = guard.answer_filter()
        complete = False
        if first is not None and first.model is not None:
            self.answer.model = self._remote_id(first.model)
        head = self._head(usage)
        try:
            if self.kind == "chat":
                yield self._chunk(head, {"role": "assistant", "content": ""}, None)
            pending: Step | None = first
            while True:
                if pending is None:
                    yield ": keep-alive\n\n"
                else:
                    text = mask.push(self._take(pending))
                    # With masking, tokens wait for the end: they would show what the text hides.
                    tokens = [] if guard.masks_answers else self._drain()
                    if text or tokens:
                        yield self._chunk(head, text, None, self._logprobs(tokens) if tokens else None)
                try:
                    pending = await anext(events)
                except StopAsyncIteration:
                    break
            if rest := mask.finish():
                yield self._chunk(head, rest, None)
            self._count_masked(mask.counts)
            last = self._logprobs(self._drain(), masked=bool(mask.counts)) if guard.masks_answers else None
            yield self._chunk(head, {} if self.kind == "chat" else "", self._finish, last)
            complete = True
            if usage:
                yield self._usage_chunk()
            yield "data: [DONE]\n\n"
        except ClientGoneError:
            return
        except UpstreamError as error:
            yield sse_error(from_user_error(error))
        except ApiError as error:
            yield sse_error(error)
        except Exception:
            # Raising would break the connection, and with it the error on its way to the client.
            log.exception("an answer of %s failed", self.answer.model)
            yield sse_error(ApiError(500, "The server failed; its log says why.", code="internal_error"))
        finally:
            self.answer.flow.close(complete)
            self.backend.count(self.answer, self.request)

    def _take(self, step: Step) -> str:
        answer = self.answer
        if step.token_id is not None:
            answer.completion_tokens += 1
            if self.logprobs and step.logprob is not None and answer.tokenizer is not None:
                self._tokens.append(step)
        if step.model is not None:
            answer.model = self._remote_id(step.model)
        answer.prompt_tokens = step.prompt_tokens or answer.prompt_tokens
        answer.completion_tokens = step.completion_tokens or answer.completion_tokens
        if step.finish_reason is not None:
            if step.finish_reason == "cancelled":
                raise ApiError(503, "The answer was cancelled: the server is stopping.", code="stopping")
            self._finish = "length" if step.finish_reason in ("length", "deadline") else "stop"
        return step.text

    def _remote_id(self, model: str) -> str:
        name = self.answer.model.partition(":")[0]
        return f"{name}:{model}"

    def _drain(self) -> list[Step]:
        taken, self._tokens = self._tokens, []
        return taken

    def _headers(self) -> dict[str, str]:
        headers = {"X-Gptwright-Model": self.answer.model.encode("ascii", "replace").decode()}
        return {**headers, "X-Gptwright-Dropped-Messages": str(self.answer.dropped)} if self.answer.dropped else headers

    def _count_masked(self, counts: dict[str, int]) -> None:
        for kind, count in counts.items():
            self.backend.metrics.masked.labels(kind).inc(count)

    def _usage(self) -> shapes.TokenUsage:
        return shapes.TokenUsage.of(self.answer.prompt_tokens, self.answer.completion_tokens)

    def _body(self, text: str, logprobs: Any) -> shapes.ChatCompletion | shapes.TextCompletion:
        common: dict[str, Any] = {
            "id": self.id,
            "created": self.created,
            "model": self.answer.model,
            "usage": self._usage(),
        }
        finish: Any = self._finish
        if self.kind == "chat":
            message = shapes.AnswerMessage(content=text)
            choice = shapes.ChatChoice(message=message, logprobs=logprobs, finish_reason=finish)
            return shapes.ChatCompletion(**common, choices=[choice])
        text_choice = shapes.TextChoice(text=text, logprobs=logprobs, finish_reason=finish)
        return shapes.TextCompletion(**common, choices=[text_choice])

    def _head(self, usage: bool) -> str:
        """The part of a chunk that never changes, made once: chunks are the hot path."""
        name = _OBJECTS[self.kind] + (".chunk" if self.kind == "chat" else "")
        head = {"id": self.id, "object": name, "created": self.created, "model": self.answer.model}
        return "data: " + json.dumps({**head, "usage": None} if usage else head)[:-1]

    def _chunk(self, head: str, content: str | dict[str, str], finish: str | None, logprobs: Any = None) -> str:
        choice: dict[str, Any] = {"index": 0}
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

    def _logprobs(self, steps: Sequence[Step], masked: bool = False) -> shapes.Logprobs | shapes.TextLogprobs | None:
        tokenizer = self.answer.tokenizer
        if not self.logprobs or tokenizer is None:
            return None
        if masked:
            return shapes.Logprobs(content=None) if self.kind == "chat" else None
        # Control tokens end an answer; they are no part of it.
        steps = [step for step in steps if step.token_id is not None and tokenizer.token_bytes(step.token_id)]
        if self.kind == "chat":
            return shapes.Logprobs(content=[_token(tokenizer, step) for step in steps])
        return _text_logprobs(tokenizer, steps)


def _token(tokenizer: TokenizerLike, step: Step) -> shapes.TokenLogprob:
    assert step.token_id is not None
    assert step.logprob is not None
    top = [_top(tokenizer, token_id, logprob) for token_id, logprob in step.top_logprobs]
    chosen = _top(tokenizer, step.token_id, step.logprob)
    return shapes.TokenLogprob(token=chosen.token, logprob=chosen.logprob, bytes=chosen.bytes, top_logprobs=top)


def _top(tokenizer: TokenizerLike, token_id: int, logprob: float) -> shapes.TopLogprob:
    raw = tokenizer.token_bytes(token_id)
    # JSON has no infinity; -9999 is what OpenAI's API sends for "very unlikely".
    return shapes.TopLogprob(token=raw.decode("utf-8", "replace"), logprob=max(logprob, -9999.0), bytes=list(raw))


def _text_logprobs(tokenizer: TokenizerLike, steps: Sequence[Step]) -> shapes.TextLogprobs:
    tokens = [_token(tokenizer, step) for step in steps]
    offsets = [0]
    for token in tokens:
        offsets.append(offsets[-1] + len(token.token))
    return shapes.TextLogprobs(
        tokens=[token.token for token in tokens],
        token_logprobs=[token.logprob for token in tokens],
        top_logprobs=[{top.token: top.logprob for top in token.top_logprobs} for token in tokens],
        text_offset=offsets[:-1],
    )
