"""A route's models in order: the next one is asked while the client waits, until one answers.

Nothing is sent to the client before that is decided. After its first words an answer is never exchanged for another.
"""

import logging
from typing import TYPE_CHECKING

from fastapi import Request

from gptwright.core.errors import UserError
from gptwright.gateway.config import RouteConfig
from gptwright.gateway.route import is_unsure, passes_on
from gptwright.serve.answer import Answer
from gptwright.serve.errors import ApiError, from_user_error
from gptwright.serve.flow import Step
from gptwright.serve.schema import ChatRequest

if TYPE_CHECKING:
    from gptwright.serve.generate import Backend

log = logging.getLogger("gptwright.serve")


async def first_that_answers(
    backend: "Backend", route: RouteConfig, body: ChatRequest, request: Request, whole: bool = False
) -> Answer:
    """Start the chat answer of the first model of a route that can give one.

    An unsure answer of ours goes on while others are asked: if none of them answers, it stands.

    Args:
        backend: what endpoints share.
        route: its section.
        body: the request; its ``model`` is the route's name.
        request: whose client is watched.
        whole: nothing is sent before the answer is complete, so it may break off and be exchanged until then.

    Raises:
        ApiError: the refusal of the last model, or one that every model would share.
    """
    unsure: Answer | None = None
    try:
        for index, model in enumerate(route.models):
            last = index == len(route.models) - 1
            try:
                answer, good = await _try(backend, route, model, body, request, last and unsure is None, whole)
            except ApiError as error:
                if unsure is None and (last or not passes_on(error.code)):
                    raise
                log.warning("%s: %s (%s); going on", body.model, model, error.code)
                continue
            if good or (last and unsure is None):
                if unsure is not None:
                    discard(backend, unsure, "unsure")
                    unsure = None
                return answer
            if unsure is None:
                log.info("%s: %s is unsure; going on", body.model, model)
                unsure = answer
            else:
                discard(backend, answer, "unsure")
    except BaseException:
        if unsure is not None:
            discard(backend, unsure, "passed_on")
        raise
    assert unsure is not None
    return unsure


async def _try(
    backend: "Backend", route: RouteConfig, model: str, body: ChatRequest, request: Request, only: bool, whole: bool
) -> tuple[Answer, bool]:
    """An answer of one model that has begun, and whether it is good enough.

    Args:
        whole: look at the provider's whole answer.
        only: nobody else could answer: no need to look at it first, and time to ask a busy provider again.
    """
    asked = body.model_copy(update={"model": model})
    try:
        answer = await backend.ask(asked, request, retries=None if only else 0)
    except UserError as error:
        raise from_user_error(error) from error
    if only:
        return answer, True
    ours = answer.tokenizer is not None
    if ours and route.unsure_below is None:
        return answer, True

    def enough(steps: list[Step]) -> bool:
        if ours:
            return sum(step.token_id is not None for step in steps) >= route.unsure_after
        return not whole and any(step.text or step.calls or step.finish_reason for step in steps)

    try:
        steps = await answer.flow.peek(enough)
    except BaseException:
        discard(backend, answer, "passed_on")
        raise
    return answer, not (ours and is_unsure([step.logprob for step in steps if step.logprob is not None], route))


def discard(backend: "Backend", answer: Answer, why: str) -> None:
    """End an answer that nobody will see; what it used is counted."""
    answer.flow.cancel(why)
    answer.flow.close(complete=False)
    if answer.tokenizer is not None:
        answer.completion_tokens += sum(step.token_id is not None for step in answer.flow.peeked)
    backend.count(answer)
