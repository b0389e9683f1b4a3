"""From a request to a running answer: which model, which prompt, which settings."""

import asyncio
import logging
import time
import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from fastapi import Request

from gptwright.core.control import ControlStore
from gptwright.core.errors import UserError
from gptwright.gateway.config import GatewayConfig
from gptwright.gateway.provider import Provider
from gptwright.gateway.resolve import is_remote
from gptwright.guard.guard import Guard
from gptwright.guard.moderation import Moderator
from gptwright.infer.config import GenerationConfig
from gptwright.infer.watermark import Watermark
from gptwright.serve.accounts import Accounts
from gptwright.serve.answer import Answer, PromptText
from gptwright.serve.background import Jobs
from gptwright.serve.caller import Caller
from gptwright.serve.config import ServeConfig
from gptwright.serve.errors import ApiError, from_user_error
from gptwright.serve.flow import Flow, Listener, Slots
from gptwright.serve.keys import usage_row
from gptwright.serve.metrics import EngineNumbers, Metrics
from gptwright.serve.protocols import EngineLike, Models, Running
from gptwright.serve.remote import ask_provider
from gptwright.serve.routing import first_that_answers
from gptwright.serve.schema import ChatRequest, CompletionRequest, Sampling
from gptwright.serve.structure import FREE, Structure, structure
from gptwright.serve.tracing import Tracer
from gptwright.serve.usage import UsageWriter

log = logging.getLogger("gptwright.serve")

_SETTINGS = (
    "temperature",
    "top_p",
    "top_k",
    "min_p",
    "typical_p",
    "repetition_penalty",
    "frequency_penalty",
    "presence_penalty",
    "seed",
)


@dataclass
class Backend:
    """All that endpoints share.

    Attributes:
        models: what this server answers with.
        providers: upstreams by name.
        gateway: which models step in for which.
        slots: admission.
        draining: whether the server is about to stop.
        active: requests to the API that are worked on.
        reading: one given text is scored or embedded at a time: it keeps a thread and the processor busy, and many would leave
            no thread for anything else.
        jobs: responses in the background.
        watermark: what this server marks answers with, or did; None: it never marked any.
        moderator: judges given texts.
    """

    models: Models
    config: ServeConfig
    guard: Guard
    providers: Mapping[str, Provider]
    control: ControlStore | None
    metrics: Metrics
    gateway: GatewayConfig = field(default_factory=GatewayConfig)
    slots: Slots = field(init=False)
    accounts: Accounts = field(init=False)
    draining: bool = False
    active: int = 0
    reading: asyncio.Semaphore = field(default_factory=lambda: asyncio.Semaphore(1))
    tracer: Tracer = field(default_factory=Tracer)
    jobs: Jobs = field(default_factory=Jobs)
    watermark: Watermark | None = None
    moderator: Moderator = field(default_factory=Moderator)
    _usage: UsageWriter | None = None
    _records: set["asyncio.Task[None]"] = field(default_factory=set)
    # Weak: a model that the shelf put away must not stay in memory for the sake of a gauge.
    _engines: "weakref.WeakValueDictionary[str, EngineLike]" = field(default_factory=weakref.WeakValueDictionary)

    def __post_init__(self) -> None:
        self.slots = Slots(self.config.max_concurrent, self.metrics)
        self.accounts = Accounts(self.control, self.config)
        self.metrics.watch_engines(self._engine_numbers)

    async def engine(self, name: str | None) -> tuple[str, EngineLike]:
        """Find and load a model.

        Args:
            name: its id or alias; None: the first there is.

        Raises:
            ApiError: 404, no such model; 503, it cannot be loaded.
        """
        if name is not None and is_remote(name) and name.partition(":")[0] in self.providers:
            raise ApiError(400, f"{name} is a provider's model; only chats go there.", param="model")
        # Only what is listed: a project also finds models by their folder, and no client may choose folders of ours.
        known = [model.id for model in await asyncio.to_thread(self.models.list)]
        if name is None:
            name = "production" if "production" in known else known[-1] if known else ""
        if name not in known:
            shown = ", ".join(known[:20]) or "none yet; run: gptwright run"
            raise ApiError(404, f"There is no model {name}. Models: {shown}.", param="model", code="model_not_found")
        try:
            full, engine = await asyncio.to_thread(self.models.engine, name)
        except UserError as error:
            raise ApiError(503, f"{name} cannot be loaded: {error}", param="model", code="model_not_ready") from error
        # Adapters share their base's steps and memory: they are counted there.
        self._engines[getattr(engine, "base", full)] = getattr(engine, "engine", engine)
        return full, engine

    async def chat(self, body: ChatRequest, request: Request, whole: bool = False) -> Answer:
        """Start a chat answer: of a model, of a provider's, or of the first of a route that can.

        Args:
            body: the request.
            request: whose client is watched.
            whole: nothing is sent before the answer is complete.
        """
        if (route := self.gateway.routes.get(body.model)) is not None:
            return await first_that_answers(self, route, body, request, whole)
        return await self.ask(body, request)

    async def ask(self, body: ChatRequest, request: Request, retries: int | None = None) -> Answer:
        """Start a chat answer of one model.

        Args:
            body: the request.
            request: whose client is watched.
            retries: how often a provider is asked again, instead of its configuration's.
        """
        remote = is_remote(body.model) and body.model.partition(":")[0] in self.providers
        try:
            form = structure(body.response_format, body.tools or (), body.tool_choice, body.parallel_tool_calls)
        except ApiError as error:
            if not remote or error.code != "unsupported_parameter":  # what our engine cannot, a provider may
                raise
        messages = self.guard.check_prompt(body.plain)
        if remote:
            return ask_provider(self, body, messages, request, retries)
        self.slots.check()
        model, engine = await self.engine(body.model)
        n = body.n or 1
        form = form.fit(engine.tokenizer)
        told, shown = form.prompt(engine.tokenizer, messages)
        config = self._settings(body, form, engine, bool(body.logprobs), body.top_logprobs or 0)

        def prepare() -> tuple[PromptText, int]:
            if body.truncation == "auto":
                ids, dropped = engine.fit_chat(told, config, **shown)
                return PromptText(ids), dropped
            ids = list(engine.tokenizer.render(told, add_generation_prompt=True, **shown).ids)
            _check_fits(len(ids), engine.seq_len - 1, "messages")
            return PromptText(ids), 0

        prompt, dropped = await asyncio.to_thread(prepare)
        answer = self._begin(model, engine, [prompt], n, config.max_tokens, body, request)
        answer.dropped, answer.structure = dropped, form
        await self._start(answer, engine, config, echo_logprobs=None)
        return answer

    async def completion(self, body: CompletionRequest, request: Request) -> Answer:
        """Start continuations of plain texts or token ids."""
        self.slots.check()
        given = [
            self.guard.check_text(prompt, param="prompt") if isinstance(prompt, str) else prompt
            for prompt in body.prompts
        ]
        model, engine = await self.engine(body.model)
        config = self._settings(
            body, FREE, engine, body.logprobs is not None or body.best_of is not None, body.logprobs or 0
        )

        def prepare() -> list[PromptText]:
            prompts = []
            for prompt in given:
                if isinstance(prompt, str):
                    ids = engine.encode_prompt(prompt)
                    prompts.append(PromptText(ids, prompt, lead=len(ids) - len(engine.tokenizer.encode(prompt))))
                else:
                    check_ids(prompt, engine.tokenizer.vocab_size, "prompt")
                    prompts.append(PromptText(prompt, engine.tokenizer.decode(prompt)))
                _check_fits(len(prompts[-1].ids), engine.seq_len, "prompt")
            return prompts

        prompts = await asyncio.to_thread(prepare)
        each = 0 if body.max_tokens == 0 else max(body.best_of or 1, body.n or 1)
        answer = self._begin(model, engine, prompts, each, config.max_tokens, body, request)
        await self._start(answer, engine, config, echo_logprobs=body.logprobs if body.echo else None)
        return answer

    def _begin(
        self,
        model: str,
        engine: EngineLike,
        prompts: list[PromptText],
        each: int,
        most: int,
        body: Sampling,
        request: Request,
    ) -> Answer:
        """Reserve tokens and slots."""
        tokens = sum(len(prompt.ids) for prompt in prompts)
        caller = Caller.of(request.scope)
        reservation = None if caller.background else caller.account.begin(tokens + each * len(prompts) * most)
        try:
            flow = self.flow(request, model, each * len(prompts), caller.background)
        except BaseException:
            if reservation is not None:
                reservation.settle(0)
            raise
        user = body.end_user
        return Answer(model, flow, caller, engine.tokenizer, prompts, tokens, end_user=user, reservation=reservation)

    async def _start(
        self, answer: Answer, engine: EngineLike, config: GenerationConfig, echo_logprobs: int | None
    ) -> None:
        flow = answer.flow

        def submit(listener: Callable[[int], Listener]) -> Sequence[Running]:
            running: list[Running] = []
            each = flow.choices // len(answer.prompts)
            # While many wait, clients take turns; a batch is a client of its own, and so is everybody without a key together.
            client = f"{'batch ' if flow.background else ''}{answer.caller.key_id}"
            try:
                for index in range(flow.choices):
                    settings = config
                    if config.seed is not None and index:
                        settings = config.model_copy(update={"seed": config.seed + index})
                    ids = answer.prompts[index // each].ids
                    work = engine.submit(
                        ids, settings, on_piece=listener(index), client=client, background=flow.background
                    )
                    running.append(work)
            except BaseException:
                for work in running:
                    work.cancel()
                raise
            answer.works = running
            return running

        try:
            flow.watch()
            for prompt in answer.prompts if echo_logprobs is not None else ():
                async with self.reading:
                    flow.check_alive()
                    scores = await asyncio.to_thread(engine.score, prompt.ids, echo_logprobs or 0)
                prompt.scores = scores[prompt.lead :]
            await flow.run_engine(submit)
        except BaseException as error:
            flow.abandon()
            if answer.reservation is not None:
                answer.reservation.settle(0)
            if isinstance(error, UserError):
                raise from_user_error(error) from error
            raise

    def count(self, answer: Answer) -> None:
        """Record the tokens of an answer, complete or not."""
        flow, metrics = answer.flow, self.metrics
        # Providers' ids come from outside: one label for each provider keeps the number of series bounded.
        label = answer.model if answer.tokenizer is not None else answer.model.partition(":")[0] + ":*"
        metrics.prompt_tokens.labels(label).inc(answer.prompt_tokens)
        metrics.generation_tokens.labels(label).inc(answer.completion_tokens)
        metrics.prompt_size.labels(label).observe(answer.prompt_tokens)
        metrics.answer_size.labels(label).observe(answer.completion_tokens)
        metrics.whole.labels(label).observe(time.monotonic() - flow.started)
        if flow.first_at is not None and flow.last_at is not None and answer.completion_tokens > 1:
            each = (flow.last_at - flow.first_at) * flow.choices / max(1, answer.completion_tokens - flow.choices)
            metrics.per_token.labels(label).observe(each)
        for reason in answer.finished:
            metrics.finished.labels(label, reason).inc()
        begun = [getattr(work, "started_at", None) for work in answer.works]
        for work, at in zip(answer.works, begun, strict=True):
            if at is not None:
                metrics.queue.labels(label).observe(max(0.0, at - work.submitted_at))  # type: ignore[attr-defined]
        if self.tracer.on:
            self.tracer.answer(answer.caller, label, flow, begun, answer.prompt_tokens, answer.completion_tokens)
        used = answer.prompt_tokens + answer.completion_tokens
        if answer.reservation is not None:
            answer.reservation.settle(used)
        elif answer.caller.background:
            answer.caller.account.spent += used
        log.info("answer", extra={"answer": self._told(answer)})
        self.record(answer.caller, answer.model, answer.prompt_tokens, answer.completion_tokens, answer.end_user)

    def _told(self, answer: Answer) -> dict[str, Any]:
        """What the log is told of an answer: no text, unless that is asked for."""
        flow = answer.flow
        told: dict[str, Any] = {
            "request_id": answer.caller.request_id,
            "model": answer.model,
            "prompt_tokens": answer.prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "first_token_s": None if flow.first_at is None else round(flow.first_at - flow.started, 4),
            "finish": answer.finished or [flow.cancelled or "error"],
        }
        if self.config.log_text and answer.tokenizer is not None:
            keep = self.guard.text_for_keeping
            told["prompt"] = [keep(answer.tokenizer.decode(prompt.ids)) for prompt in answer.prompts]
            told["text"] = [keep(text) for text in answer.said]
        return told

    def record(self, caller: Caller, model: str, prompt: int, completion: int, end_user: str | None = None) -> None:
        """Write usage to the control store, if there is one."""
        if self.control is None:
            return
        if self._usage is None:
            self._usage = UsageWriter(self.control)
        if self._usage.add(usage_row(caller.key_id, model, prompt, completion, end_user)):
            # A task of its own: the response may be cancelled at this very moment, and what was used was used.
            self.keep(asyncio.create_task(self._usage.write()))

    def keep(self, task: "asyncio.Task[None]") -> None:
        """Let a task outlive its request; the server waits for it before it stops."""
        self._records.add(task)

        def done(task: "asyncio.Task[None]") -> None:
            self._records.discard(task)
            if not task.cancelled() and (error := task.exception()) is not None:
                log.error("what a request left to do failed", exc_info=error)

        task.add_done_callback(done)

    async def stop(self) -> None:
        """Cancel what still runs and wait until all usage is written."""
        self.draining = True
        for flow in list(self.slots.flows):
            flow.cancel("shutdown")
        while self._records:  # what is finished may leave something to write
            await asyncio.gather(*self._records, return_exceptions=True)

    def _engine_numbers(self) -> Iterable[EngineNumbers]:
        for model, engine in list(self._engines.items()):
            if getattr(engine, "closed", False):
                continue
            running, waiting = getattr(engine, "load_now", (0, 0))
            used = getattr(engine, "cache_usage", None)
            yield model, running, waiting, used if isinstance(used, float) else None

    def flow(
        self, request: Request, model: str, choices: int = 1, background: bool = False, hosted: bool = False
    ) -> Flow:
        """Steps of a new answer, once it is admitted.

        Raises:
            ApiError: 429, 503.
        """
        c = self.config
        return Flow(
            request, self.slots, self.metrics, model, c.request_timeout, c.keep_alive, choices, background, hosted
        )

    def _settings(
        self, body: Sampling, form: Structure, engine: EngineLike, logprobs: bool, top_logprobs: int
    ) -> GenerationConfig:
        given: dict[str, Any] = {name: value for name in _SETTINGS if (value := getattr(body, name)) is not None}
        if body.logit_bias:
            given["logit_bias"] = {int(token): bias for token, bias in body.logit_bias.items()}
            check_ids(given["logit_bias"], engine.tokenizer.vocab_size, "logit_bias")
        given |= {"stop": body.stop_texts, "max_tokens": body.token_limit or self.config.default_max_tokens}
        judged = any(route.unsure_below is not None for route in self.gateway.routes.values())
        given |= {"logprobs": logprobs or judged, "top_logprobs": top_logprobs}
        return GenerationConfig.model_validate({**given, **form.settings})


def check_ids(ids: Iterable[int], vocab_size: int, param: str) -> None:
    """Refuse token ids that the model does not have.

    Raises:
        ApiError: 400.
    """
    for index, token in enumerate(ids):
        if not 0 <= token < vocab_size:
            where = f"{param}[{index}]"
            raise ApiError(400, f"{where}: the vocabulary has {vocab_size} ids.", param=where, code="invalid_value")


def _check_fits(prompt_tokens: int, most: int, param: str) -> None:
    if prompt_tokens > most:
        raise ApiError(
            400,
            f"The prompt has {prompt_tokens} tokens, the model's context has room for {most}. "
            + ('Shorten it, or send truncation: "auto".' if param == "messages" else "Shorten it."),
            param=param,
            code="context_length_exceeded",
        )
