"""One upstream that speaks the OpenAI protocol: its models, and chats with them, streamed or not, sync or async.

The key is read from the environment when a request is made; it is never stored, printed or put into an error.
"""

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import require
from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.faults import UpstreamError, upstream_error
from gptwright.gateway.outgoing import Messages, may_leave
from gptwright.gateway.retry import wait_before_retry
from gptwright.gateway.spend import Charge, Spend

if TYPE_CHECKING:
    import openai

__all__ = ["CallPiece", "ChatSettings", "Delta", "Provider", "UpstreamError", "estimated_tokens"]

NO_KEY = "none"
"""The client insists on some key; upstreams without one ignore it."""

_BYTES_A_TOKEN = 3
"""For estimates, on the high side: English text has about four to five bytes a token, most others fewer."""


@dataclass(frozen=True)
class ChatSettings:
    """What a chat request may ask of an upstream, under the protocol's names. None leaves the choice to it."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None
    frequency_penalty: float | None = None
    presence_penalty: float | None = None
    logit_bias: Mapping[str, float] | None = None
    tools: Sequence[Mapping[str, Any]] = ()
    tool_choice: Any = None
    parallel_tool_calls: bool | None = None
    response_format: Mapping[str, Any] | None = None

    def fields(self) -> dict[str, Any]:
        """Only what was chosen."""
        given = {one.name: getattr(self, one.name) for one in fields(self)}
        return {k: list(v) if isinstance(v, tuple) else v for k, v in given.items() if v is not None and v != ()}


@dataclass(frozen=True)
class CallPiece:
    """A piece of a tool call: id and name on its first one."""

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


@dataclass(frozen=True)
class Delta:
    """A piece of a chat answer.

    Attributes:
        text: may be empty.
        model: the id that the upstream says it answers with.
        finish_reason: ``stop``, ``length`` or ``tool_calls`` on the last piece of the answer.
        prompt_tokens: estimated until the upstream has counted.
        completion_tokens: so far; estimated until the upstream has counted.
        calls: pieces of tool calls.
    """

    text: str
    model: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None
    calls: Sequence[CallPiece] = ()


class Provider:
    """An upstream under a name.

    Args:
        name: its name in the configuration; models are written ``name:model``.
        config: its ``[providers.NAME]`` section.
        spend: counts what is spent; None: nothing is counted.
    """

    def __init__(self, name: str, config: ProviderConfig, spend: Spend | None = None) -> None:
        self.name, self.config, self.spend = name, config, spend or Spend({name: config})

    def models(self) -> list[str]:
        """Ids of the models it offers.

        Raises:
            UpstreamError: it cannot be reached, or refuses.
        """
        if self.config.models:
            return sorted(self.config.models)
        with self._errors(), self._client() as client:
            return sorted(_bare(model.id) for model in client.models.list(**self._listing()))

    async def models_async(self, timeout_s: float | None = None) -> list[str]:
        """Ids of the models it offers: a list for a menu must not keep people waiting."""
        if self.config.models:
            return sorted(self.config.models)
        with self._errors():
            async with self._async_client() as client:
                quick = client.with_options(timeout=timeout_s or self.config.timeout)
                return sorted([_bare(model.id) async for model in quick.models.list(**self._listing())])

    def chat(
        self, model: str, messages: Messages, settings: ChatSettings | None = None, retries: int | None = None
    ) -> Iterator[Delta]:
        """Stream an answer. Closing the iterator closes the connection, which cancels the work upstream.

        Args:
            model: the upstream's own name for the model.
            messages: ``role`` and ``content``, oldest first.
            settings: how to generate.
            retries: instead of the configuration's.

        Raises:
            UpstreamError: it cannot be reached, refuses, breaks off, or must not be asked.
        """
        call = _Call(self, model, messages, settings or ChatSettings())
        call.begin()
        try:
            with self._client() as client:
                for tried in itertools.count():
                    try:
                        with self._errors():
                            stream = client.chat.completions.create(**call.request)
                        break
                    except UpstreamError as error:
                        time.sleep(self._wait_or_raise(error, tried, retries))
                call.started = True
                with self._errors(), stream:
                    for chunk in stream:
                        yield call.read(chunk)
                    call.check_whole()
        finally:
            call.settle()

    async def chat_async(
        self, model: str, messages: Messages, settings: ChatSettings | None = None, retries: int | None = None
    ) -> AsyncIterator[Delta]:
        """The same as ``chat``, for a server."""
        call = _Call(self, model, messages, settings or ChatSettings())
        await asyncio.to_thread(call.begin)  # searches for personal data, and may read the database
        try:
            async with self._async_client() as client:
                for tried in itertools.count():
                    try:
                        with self._errors():
                            stream = await client.chat.completions.create(**call.request)
                        break
                    except UpstreamError as error:
                        await asyncio.sleep(self._wait_or_raise(error, tried, retries))
                call.started = True
                with self._errors():
                    async with stream:
                        async for chunk in stream:
                            yield call.read(chunk)
                        call.check_whole()
        finally:
            call.settle()

    def complete(self, model: str, messages: Messages, settings: ChatSettings | None = None) -> str:
        """The whole answer as one text."""
        return "".join(delta.text for delta in self.chat(model, messages, settings))

    def unsupported(self, settings: ChatSettings) -> str | None:
        """The first of the chosen fields that this API would ignore."""
        ways, chosen = self.config.ways, settings.fields()
        if (settings.temperature or 0) > ways.hottest:
            return "temperature"
        return next((name for name in chosen if name in ways.unsupported), None)

    def _wait_or_raise(self, error: UpstreamError, tried: int, retries: int | None) -> float:
        most = self.config.max_retries if retries is None else retries
        wait = wait_before_retry(error, tried, most, self.config.retry_wait)
        if wait is None:
            raise error
        return wait

    def _key(self) -> str:
        if (variable := self.config.api_key_env) is None:
            return NO_KEY
        key = os.environ.get(variable, "").strip()
        if not key:
            raise UpstreamError(
                f"the environment variable {variable} is not set",
                provider=self.name,
                code="upstream_key",
                fix=f"Put the key there: export {variable}=...",
            )
        if not key.isascii() or not key.isprintable():
            raise UpstreamError(
                f"what the environment variable {variable} holds is no key: it has characters that no header can carry",
                provider=self.name,
                code="upstream_key",
            )
        return key

    def _listing(self) -> dict[str, Any]:
        header = self.config.ways.listing_header
        if header is None:
            return {}
        import openai

        # Anthropic's list is of its own protocol: 20 a page, unless more are asked for.
        headers = {header: self._key(), "anthropic-version": "2023-06-01", "Authorization": openai.Omit()}
        return {"extra_headers": headers, "extra_query": {"limit": 1000}}

    def _options(self) -> dict[str, Any]:
        module: Any = require("openai", "serve")
        timeout = module.Timeout(self.config.timeout, connect=min(self.config.timeout, self.config.connect_timeout))
        # Retries are ours: the client would wait for as long as it is told to. Redirects are not followed: what a person wrote goes to
        # the address that stands in the configuration, and to no other.
        return {"api_key": self._key(), "base_url": self.config.base_url, "timeout": timeout, "max_retries": 0}

    def _client(self) -> "openai.OpenAI":
        module: Any = require("openai", "serve")
        http = module.DefaultHttpxClient(follow_redirects=False)
        client: openai.OpenAI = _anonymous(module.OpenAI(**self._options(), http_client=http))
        return client

    def _async_client(self) -> "openai.AsyncOpenAI":
        module: Any = require("openai", "serve")
        http = module.DefaultAsyncHttpxClient(follow_redirects=False)
        client: openai.AsyncOpenAI = _anonymous(module.AsyncOpenAI(**self._options(), http_client=http))
        return client

    @contextlib.contextmanager
    def _errors(self) -> Iterator[None]:
        try:
            yield
        except UpstreamError:
            raise
        except Exception as error:
            found = upstream_error(error, self.name, self.config)
            if found is None:
                raise
            raise found from error


@dataclass
class _Call:
    """One request: what is sent, what came back so far, and what it costs."""

    provider: Provider
    model: str
    messages: Messages
    settings: ChatSettings
    request: dict[str, Any] = field(default_factory=dict)
    charge: Charge | None = None
    answered: str = ""  # the upstream's own name of what answers
    said_bytes: int = 0
    counted: tuple[int, int] | None = None
    started: bool = False  # the upstream has taken the request
    finished: bool = False
    prompt_estimate: int = 0

    def begin(self) -> None:
        """Check what may be asked, mask, set money aside."""
        provider, config, settings = self.provider, self.provider.config, self.settings
        if config.models and self.model not in config.models:
            raise UpstreamError(
                f"{self.model} is not among the models that may be asked for ({', '.join(config.models)})",
                provider=provider.name,
                status=404,
                code="model_not_found",
                param="model",
            )
        if (name := provider.unsupported(settings)) is not None:
            raise UpstreamError(
                f"{name}: {config.vendor} would not honour it",
                provider=provider.name,
                status=400,
                code="unsupported_parameter",
                param=name,
                fix="Leave it out, or ask another model",
            )
        messages = may_leave(self.messages, config.on_personal_data, provider.name)
        chosen = settings.fields()
        if provider.spend.limited(provider.name):
            chosen.setdefault("max_tokens", config.answer_tokens)
        self.answered, self.prompt_estimate = self.model, estimated_tokens(messages, settings)
        self.charge = provider.spend.begin(
            provider.name, self.model, self.prompt_estimate, chosen.get("max_tokens", config.answer_tokens)
        )
        extra = {new: chosen.pop(old) for old, new in config.ways.renamed if old in chosen}
        usage = {"stream_options": {"include_usage": True}} if config.ways.usage_option else {}
        self.request = {"model": self.model, "messages": messages, "stream": True, **usage, **chosen}
        if extra:
            self.request["extra_body"] = extra

    def read(self, chunk: Any) -> Delta:
        """A chunk as ours."""
        choices, usage = getattr(chunk, "choices", None) or [], getattr(chunk, "usage", None)
        self.answered = _bare(getattr(chunk, "model", None) or self.answered)
        text, calls, finish = "", [], None
        if choices:
            delta, finish = getattr(choices[0], "delta", None), getattr(choices[0], "finish_reason", None)
            text = (getattr(delta, "content", None) or "") if delta is not None else ""
            calls = [_call_piece(call) for call in getattr(delta, "tool_calls", None) or []]
        if not isinstance(text, str):
            raise TypeError
        self.finished |= finish is not None
        self.said_bytes += len(text.encode("utf-8", "replace")) + sum(len(call.arguments) for call in calls)
        if usage is not None:
            self.counted = int(usage.prompt_tokens or 0), int(usage.completion_tokens or 0)
        prompt, completion = self.tokens()
        return Delta(text, self.answered, finish, prompt, completion, calls)

    def check_whole(self) -> None:
        """The stream is over: was the answer?"""
        if not self.finished:
            raise UpstreamError("its answer broke off", provider=self.provider.name, code="upstream_broke_off")

    def tokens(self) -> tuple[int, int]:
        """Of the prompt and the answer; estimated from their length unless the upstream has counted."""
        return self.counted or (self.prompt_estimate, -(-self.said_bytes // _BYTES_A_TOKEN))

    def settle(self) -> None:
        """What was not even begun costs nothing."""
        if self.charge is not None:
            prompt, completion = self.tokens() if self.started else (0, 0)
            self.charge.settle(self.answered, prompt, completion)


def estimated_tokens(messages: Messages, settings: ChatSettings | None = None) -> int:
    """Tokens that a prompt may have, rather too many than too few."""
    text = sum(len(str(part).encode("utf-8", "replace")) for message in messages for part in message.values())
    tools = len(str(settings.tools).encode()) if settings is not None and settings.tools else 0
    return -(-(text + tools) // _BYTES_A_TOKEN) + 4 * len(messages)


def _call_piece(call: Any) -> CallPiece:
    function = getattr(call, "function", None)
    name, arguments = getattr(function, "name", None), getattr(function, "arguments", None)
    return CallPiece(int(getattr(call, "index", 0) or 0), arguments or "", getattr(call, "id", None), name)


def _bare(model: str) -> str:
    """Google lists its models as ``models/NAME`` and takes them without that."""
    return model.removeprefix("models/")


def _anonymous(client: Any) -> Any:
    """The client takes these two from the environment, and would send them to every upstream."""
    client.organization = client.project = None
    return client
