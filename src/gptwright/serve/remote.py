"""Chats that a provider answers: the request in its terms. What it cannot honour is refused, nothing is dropped in silence."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from fastapi import Request

from gptwright.gateway.provider import ChatSettings, estimated_tokens
from gptwright.gateway.resolve import resolve
from gptwright.serve.answer import Answer
from gptwright.serve.caller import Caller
from gptwright.serve.errors import ApiError
from gptwright.serve.schema import ChatRequest

if TYPE_CHECKING:
    from gptwright.serve.generate import Backend

# The first four are not in OpenAI's protocol; log probabilities need the provider's tokenizer, truncation its context.
_NOT_THERE = ("top_k", "min_p", "typical_p", "repetition_penalty", "logprobs", "top_logprobs", "truncation")


def ask_provider(
    backend: "Backend",
    body: ChatRequest,
    messages: Sequence[Mapping[str, Any]],
    request: Request,
    retries: int | None = None,
) -> Answer:
    """Start a chat answer of ``provider:model``.

    Args:
        backend: what endpoints share.
        body: the request.
        messages: its messages, checked by the guard.
        request: whose client is watched.
        retries: instead of the configuration's.

    Raises:
        ApiError: 400, a field is not for providers; 429, the caller's limits.
        UserError: there is no such provider.
    """
    for name in _NOT_THERE:
        if getattr(body, name):
            raise ApiError(
                400, f"{name}: not supported for models of providers.", param=name, code="unsupported_parameter"
            )
    if (body.n or 1) > 1:
        raise ApiError(400, "n: only 1 for models of providers.", param="n", code="unsupported_parameter")
    provider, model = resolve(body.model, backend.providers)
    settings = ChatSettings(
        max_tokens=body.token_limit,
        temperature=body.temperature,
        top_p=body.top_p,
        stop=body.stop_texts,
        seed=body.seed,
        frequency_penalty=body.frequency_penalty or None,
        presence_penalty=body.presence_penalty or None,
        logit_bias=body.logit_bias or None,
        tools=tuple(_plain(tool) for tool in body.tools or ()),
        tool_choice=_plain(body.tool_choice),
        parallel_tool_calls=body.parallel_tool_calls,
        response_format=_plain(body.response_format),
    )
    turns = [_with_call_id(turn, sent.tool_call_id) for turn, sent in zip(messages, body.messages, strict=True)]
    prompt_tokens = estimated_tokens(turns, settings)
    caller = Caller.of(request.scope)
    reservation = None if caller.background else caller.account.begin(prompt_tokens + (body.token_limit or 0))
    try:
        flow = backend.flow(request, f"{provider.name}:*", background=caller.background, hosted=True)
    except BaseException:
        if reservation is not None:
            reservation.settle(0)
        raise
    flow.run_provider(provider.chat_async(model, turns, settings, retries))
    return Answer(
        body.model,
        flow,
        caller,
        end_user=body.end_user,
        reservation=reservation,
    )


def _plain(value: Any) -> Any:
    """A part of the request as it came."""
    return value.model_dump(by_alias=True, exclude_none=True) if hasattr(value, "model_dump") else value


def _with_call_id(turn: Mapping[str, Any], call_id: str | None) -> dict[str, Any]:
    return dict(turn) if call_id is None else {**turn, "tool_call_id": call_id}
