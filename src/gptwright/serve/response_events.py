"""A response as it grows: the object, its output items, and the events that tell a client of every change."""

import json
import time
from collections.abc import Iterator
from typing import Any

from gptwright.serve.answer import Answer
from gptwright.serve.errors import ApiError
from gptwright.serve.logprobs import chat_logprobs
from gptwright.serve.response_shapes import InputTokenDetails, ResponseObject, ResponseUsage
from gptwright.serve.response_store import new_id
from gptwright.serve.speak import Part
from gptwright.serve.structure import CallDelta

Event = dict[str, Any]


def event_text(event: Event) -> str:
    """An event on the wire."""
    return f"event: {event['type']}\ndata: {json.dumps(event)}\n\n"


class Growing:
    """Takes the pieces of an answer in and says what changed.

    Args:
        response: the object, without output.
        answer: the running answer.
        logprobs: whether log probabilities were asked for.
    """

    def __init__(self, response: ResponseObject, answer: Answer, logprobs: bool) -> None:
        self.response, self.answer, self.logprobs = response, answer, logprobs
        self._number = 0
        self._message: dict[str, Any] | None = None
        self._calls: dict[int, tuple[int, dict[str, Any]]] = {}
        self.finish = "stop"

    def begin(self) -> Iterator[Event]:
        """The first events."""
        yield self._event("response.created", response=self.response.shape())
        yield self._event("response.in_progress", response=self.response.shape())

    def take(self, part: Part) -> Iterator[Event]:
        """A piece of the answer."""
        if part.text or (part.tokens and self.logprobs):
            yield from self._say(part)
        for delta in part.calls:
            yield from self._call(delta)
        self.finish = part.finish or self.finish

    def end(self) -> Iterator[Event]:
        """The answer is whole."""
        if self._message is None and not self._calls:
            yield from self._open()  # an answer may be empty
        status = "incomplete" if self.finish == "length" else "completed"
        if self._message is not None:
            yield from self._close_message(status)
        for index, call in self._calls.values():
            yield from self._close_call(index, call)
        self.settle(status)
        yield self._event(f"response.{status}", response=self.response.shape())

    def fail(self, error: ApiError) -> Iterator[Event]:
        """The answer broke off."""
        self.response.error = {
            "code": "rate_limit_exceeded" if error.status == 429 else "server_error",
            "message": error.message,
        }
        self.settle("failed")
        yield self._event("response.failed", response=self.response.shape())

    def settle(self, status: Any) -> None:
        """Write the end into the object."""
        answer, response = self.answer, self.response
        response.status = status
        response.completed_at = int(time.time()) if status == "completed" else None
        response.incomplete_details = {"reason": "max_output_tokens"} if status == "incomplete" else None
        read, written = answer.prompt_tokens, answer.completion_tokens
        details = InputTokenDetails(cached_tokens=answer.cached_tokens)
        response.usage = ResponseUsage(
            input_tokens=read, input_tokens_details=details, output_tokens=written, total_tokens=read + written
        )
        response.model = answer.model

    def _say(self, part: Part) -> Iterator[Event]:
        if self._message is None:
            yield from self._open()
        assert self._message is not None
        content = self._message["content"][0]
        content["text"] += part.text
        tokens = self._tokens(part)
        content["logprobs"] += tokens
        yield self._event("response.output_text.delta", **self._place(), delta=part.text, logprobs=tokens)

    def _open(self) -> Iterator[Event]:
        message: dict[str, Any] = {
            "id": new_id("msg"),
            "type": "message",
            "role": "assistant",
            "status": "in_progress",
            "content": [],
        }
        self._message = message
        self.response.output.append(message)
        index = len(self.response.output) - 1
        yield self._event("response.output_item.added", output_index=index, item=dict(message, content=[]))
        part = {"type": "output_text", "text": "", "annotations": [], "logprobs": []}
        self._message["content"] = [part]
        yield self._event("response.content_part.added", **self._place(), part=dict(part, logprobs=[]))

    def _close_message(self, status: str) -> Iterator[Event]:
        assert self._message is not None
        content = self._message["content"][0]
        place = self._place()
        yield self._event("response.output_text.done", **place, text=content["text"], logprobs=content["logprobs"])
        yield self._event("response.content_part.done", **place, part=content)
        self._message["status"] = status
        yield self._event("response.output_item.done", output_index=place["output_index"], item=self._message)

    def _call(self, delta: CallDelta) -> Iterator[Event]:
        if delta.index not in self._calls:
            call = {"id": new_id("fc"), "type": "function_call", "status": "in_progress", "call_id": delta.id}
            call |= {"name": delta.name, "arguments": ""}
            self.response.output.append(call)
            self._calls[delta.index] = (len(self.response.output) - 1, call)
            yield self._event("response.output_item.added", output_index=len(self.response.output) - 1, item=dict(call))
        index, call = self._calls[delta.index]
        call["arguments"] = str(call["arguments"]) + delta.arguments
        yield self._event(
            "response.function_call_arguments.delta", item_id=call["id"], output_index=index, delta=delta.arguments
        )

    def _close_call(self, index: int, call: dict[str, Any]) -> Iterator[Event]:
        call["status"] = "completed"
        yield self._event(
            "response.function_call_arguments.done",
            item_id=call["id"],
            output_index=index,
            name=call["name"],
            arguments=call["arguments"],
        )
        yield self._event("response.output_item.done", output_index=index, item=call)

    def _place(self) -> dict[str, Any]:
        assert self._message is not None
        index = next(i for i, item in enumerate(self.response.output) if item is self._message)
        return {"item_id": self._message["id"], "output_index": index, "content_index": 0}

    def _tokens(self, part: Part) -> list[dict[str, Any]]:
        if not self.logprobs or self.answer.tokenizer is None:
            return []
        found = chat_logprobs(self.answer.tokenizer, part.tokens).content or []
        return [token.model_dump() for token in found]

    def _event(self, kind: str, **fields: Any) -> Event:
        event = {"type": kind, "sequence_number": self._number, **fields}
        self._number += 1
        return json.loads(json.dumps(event))  # type: ignore[no-any-return]  # a snapshot: the object goes on growing
