"""From a request to a running answer: which model, which prompt, which settings."""

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.gateway.provider import ChatSettings, Provider
from gptwright.gateway.resolve import is_remote, resolve
from gptwright.guard.guard import Guard
from gptwright.infer.config import GenerationConfig
from gptwright.serve.config import ServeConfig
from gptwright.serve.errors import ApiError
from gptwright.serve.flow import Flow, Slots
from gptwright.serve.keys import record_usage
from gptwright.serve.metrics import Metrics
from gptwright.serve.protocols import EngineLike, Models, Piece, Running, TokenizerLike
from gptwright.serve.schema import ChatRequest, CompletionRequest, Sampling

Submit = Callable[[Callable[[Piece], None]], Running]


@dataclass
class Answer:
    """An answer that is being generated.

    Attributes:
        model: the full id, never only an alias.
        flow: its steps.
        tokenizer: of the model; None when it is a provider's.
        prompt_tokens: tokens of the prompt.
        completion_tokens: tokens generated so far.
        dropped: old messages that did not fit the context and were left out, on request.
    """

    model: str
    flow: Flow
    tokenizer: TokenizerLike | None = None
    prompt_tokens: int = 0
    completion_tokens: int = 0
    dropped: int = 0


@dataclass
class Backend:
    """All that endpoints share.

    Attributes:
        models: what this server answers with.
        providers: upstreams by name.
        slots: admission.
        draining: whether the server is about to stop.
    """

    models: Models
    config: ServeConfig
    guard: Guard
    providers: Mapping[str, Provider]
    control: ControlStore | None
    metrics: Metrics
    slots: Slots = field(init=False)
    draining: bool = False
    _records: set["asyncio.Task[None]"] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.slots = Slots(self.config.max_concurrent, self.metrics)

    async def engine(self, name: str) -> tuple[str, EngineLike]:
        """Find and load a model.

        Raises:
            ApiError: 404, no such model; 503, it cannot be loaded.
        """
        if is_remote(name) and name.partition(":")[0] in self.providers:
            raise ApiError(400, f"{name} is a provider's model; only chats go there.", param="model")
        # Only what is listed: a project also finds models by their folder, and no client may choose folders of ours.
        known = [model.id for model in await asyncio.to_thread(self.models.list)]
        if name not in known:
            shown = ", ".join(known[:20]) or "none yet; run: gptwright run"
            raise ApiError(404, f"There is no model {name}. Models: {shown}.", param="model", code="model_not_found")
        try:
            return await asyncio.to_thread(self.models.engine, name)
        except UserError as error:
            raise ApiError(503, f"{name} cannot be loaded: {error}", param="model", code="model_not_ready") from error

    async def chat(self, body: ChatRequest, request: Request) -> Answer:
        """Start a chat answer."""
        messages = self.guard.check_prompt(body.plain)
        if is_remote(body.model) and body.model.partition(":")[0] in self.providers:
            return self._remote(body, messages, request)
        model, engine = await self.engine(body.model)
        config = self._settings(body, top_logprobs=body.top_logprobs or 0)
        dropped = 0

        def submit(take: Callable[[Piece], None]) -> Running:
            nonlocal dropped
            if body.truncation == "auto":
                ids, dropped = engine.fit_chat(messages, config)
            else:
                ids = list(engine.tokenizer.render(messages, add_generation_prompt=True).ids)
                _check_fits(len(ids), engine.seq_len, "messages")
            answer.prompt_tokens = len(ids)
            return engine.submit(ids, config, on_piece=take)

        answer = Answer(model, self._flow(request), engine.tokenizer)
        await self._start(answer.flow, submit)
        answer.dropped = dropped
        return answer

    async def completion(self, body: CompletionRequest, request: Request) -> Answer:
        """Start a continuation of a plain text."""
        text = self.guard.check_text(body.prompt, param="prompt")
        model, engine = await self.engine(body.model)
        config = self._settings(body, top_logprobs=body.logprobs or 0)

        def submit(take: Callable[[Piece], None]) -> Running:
            ids = engine.encode_prompt(text)
            _check_fits(len(ids), engine.seq_len, "prompt")
            answer.prompt_tokens = len(ids)
            return engine.submit(ids, config, on_piece=take)

        answer = Answer(model, self._flow(request), engine.tokenizer)
        await self._start(answer.flow, submit)
        return answer

    def count(self, answer: Answer, request: Request) -> None:
        """Record the tokens of an answer, complete or not."""
        # Providers' ids come from outside: one label for each provider keeps the number of series bounded.
        label = answer.model if answer.tokenizer is not None else answer.model.partition(":")[0] + ":*"
        self.metrics.tokens.labels(label, "prompt").inc(answer.prompt_tokens)
        self.metrics.tokens.labels(label, "completion").inc(answer.completion_tokens)
        if self.control is not None:
            key_id = request.scope.get("state", {}).get("key_id")
            counts = (answer.prompt_tokens, answer.completion_tokens)
            # A task of its own: the response may be cancelled at this very moment, and what was used was used.
            task = asyncio.create_task(asyncio.to_thread(record_usage, self.control, key_id, answer.model, *counts))
            self._records.add(task)
            task.add_done_callback(self._records.discard)

    async def stop(self) -> None:
        """Cancel what still runs and wait until all usage is written."""
        self.draining = True
        for flow in list(self.slots.flows):
            flow.cancel("shutdown")
        await asyncio.gather(*self._records, return_exceptions=True)

    def _flow(self, request: Request) -> Flow:
        if self.draining:
            raise ApiError(503, "The server is stopping.", code="stopping", headers={"Retry-After": "5"})
        return Flow(request, self.slots, self.metrics, self.config.request_timeout, self.config.keep_alive)

    async def _start(self, flow: Flow, submit: Submit) -> None:
        try:
            await flow.run_engine(submit)
        except BaseException:
            flow.abandon()
            raise

    def _settings(self, body: Sampling, top_logprobs: int) -> GenerationConfig:
        names = ("temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed")
        given: dict[str, Any] = {name: value for name in names if (value := getattr(body, name)) is not None}
        limit = body.token_limit or self.config.default_max_tokens
        return GenerationConfig.model_validate(
            {**given, "stop": body.stop_texts, "max_tokens": limit, "top_logprobs": top_logprobs}
        )

    def _remote(self, body: ChatRequest, messages: list[dict[str, str]], request: Request) -> Answer:
        for name in ("top_k", "min_p", "repetition_penalty", "logprobs", "top_logprobs", "truncation"):
            if getattr(body, name):
                raise ApiError(
                    400, f"{name}: not supported for models of providers.", param=name, code="unsupported_parameter"
                )
        provider, model = resolve(body.model, self.providers)
        settings = ChatSettings(
            max_tokens=body.token_limit,
            temperature=body.temperature,
            top_p=body.top_p,
            stop=body.stop_texts,
            seed=body.seed,
        )
        flow = self._flow(request)
        flow.run_provider(provider.chat_async(model, messages, settings))
        return Answer(body.model, flow)


def _check_fits(prompt_tokens: int, seq_len: int, param: str) -> None:
    if prompt_tokens >= seq_len:
        raise ApiError(
            400,
            f"The prompt has {prompt_tokens} tokens, the model's context holds {seq_len} with the answer. "
            + ('Shorten it, or send truncation: "auto".' if param == "messages" else "Shorten it."),
            param=param,
            code="context_length_exceeded",
        )
