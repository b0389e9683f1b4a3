"""One upstream that speaks the OpenAI protocol: its models, and chats with them, streamed or not, sync or async.

The key is read from the environment when a request is made; it is never stored, printed or put into an error.
"""

import os
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError, require
from gptwright.gateway.config import ProviderConfig

if TYPE_CHECKING:
    import openai

NO_KEY = "none"
"""The client insists on some key; upstreams without one ignore it."""


class UpstreamError(UserError):
    """The provider did not answer as it should.

    Args:
        what: the fault.
        provider: its name in the configuration.
        status: the HTTP status that tells a client of ours what happened.
        fix: what to do now.
    """

    def __init__(self, what: str, *, provider: str, status: int = 502, fix: str | None = None) -> None:
        super().__init__(what, where=f"providers.{provider}", fix=fix)
        self.status = status


@dataclass(frozen=True)
class ChatSettings:
    """What a chat request may ask of an upstream. None leaves the choice to it."""

    max_tokens: int | None = None
    temperature: float | None = None
    top_p: float | None = None
    stop: Sequence[str] = ()
    seed: int | None = None

    def fields(self) -> dict[str, Any]:
        """Only what was chosen, under the protocol's names."""
        given = {name: getattr(self, name) for name in ("max_tokens", "temperature", "top_p", "seed")}
        chosen = {name: value for name, value in given.items() if value is not None}
        return {**chosen, "stop": list(self.stop)} if self.stop else chosen


@dataclass(frozen=True)
class Delta:
    """A piece of a chat answer.

    Attributes:
        text: may be empty.
        model: the id that the upstream says it answers with.
        finish_reason: ``stop`` or ``length`` on the last piece.
        prompt_tokens: on the last piece, if the upstream counts.
        completion_tokens: on the last piece, if the upstream counts.
    """

    text: str
    model: str
    finish_reason: str | None = None
    prompt_tokens: int | None = None
    completion_tokens: int | None = None


class Provider:
    """An upstream under a name.

    Args:
        name: its name in the configuration; models are written ``name:model``.
        config: its ``[providers.NAME]`` section.
    """

    def __init__(self, name: str, config: ProviderConfig) -> None:
        self.name, self.config = name, config

    def models(self) -> list[str]:
        """Ids of the models it offers.

        Raises:
            UpstreamError: it cannot be reached, or refuses.
        """
        with self._client() as client, self._errors():
            return sorted(model.id for model in client.models.list())

    async def models_async(self, timeout_s: float | None = None) -> list[str]:
        """Ids of the models it offers, without retries: a list for a menu must not keep people waiting."""
        async with self._async_client() as client:
            with self._errors():
                quick = client.with_options(timeout=timeout_s or self.config.timeout, max_retries=0)
                return sorted([model.id async for model in quick.models.list()])

    def chat(
        self, model: str, messages: Sequence[Mapping[str, str]], settings: ChatSettings | None = None
    ) -> Iterator[Delta]:
        """Stream an answer. Closing the iterator closes the connection, which cancels the work upstream.

        Args:
            model: the upstream's own name for the model.
            messages: ``role`` and ``content``, oldest first.
            settings: how to generate.

        Raises:
            UpstreamError: it cannot be reached, or refuses.
        """
        with self._client() as client, self._errors():
            stream = client.chat.completions.create(**self._request(model, messages, settings))
            with stream:
                for chunk in stream:
                    yield _delta(chunk, model)

    async def chat_async(
        self, model: str, messages: Sequence[Mapping[str, str]], settings: ChatSettings | None = None
    ) -> AsyncIterator[Delta]:
        """The same as ``chat``, for a server."""
        async with self._async_client() as client:
            with self._errors():
                stream = await client.chat.completions.create(**self._request(model, messages, settings))
                async with stream:
                    async for chunk in stream:
                        yield _delta(chunk, model)

    def complete(self, model: str, messages: Sequence[Mapping[str, str]], settings: ChatSettings | None = None) -> str:
        """The whole answer as one text."""
        return "".join(delta.text for delta in self.chat(model, messages, settings))

    def _request(
        self, model: str, messages: Sequence[Mapping[str, str]], settings: ChatSettings | None
    ) -> dict[str, Any]:
        return {
            "model": model,
            "messages": [dict(message) for message in messages],
            "stream": True,
            "stream_options": {"include_usage": True},
            **(settings or ChatSettings()).fields(),
        }

    def _options(self) -> dict[str, Any]:
        key = NO_KEY
        if (variable := self.config.api_key_env) is not None:
            key = os.environ.get(variable, "").strip()
            if not key:
                raise UpstreamError(
                    f"the environment variable {variable} is not set",
                    provider=self.name,
                    fix=f"Put the key there: export {variable}=...",
                )
        return {
            "api_key": key,
            "base_url": self.config.base_url,
            "timeout": self.config.timeout,
            "max_retries": self.config.max_retries,
        }

    def _client(self) -> "openai.OpenAI":
        module: Any = require("openai", "serve")
        client: openai.OpenAI = _anonymous(module.OpenAI(**self._options()))
        return client

    def _async_client(self) -> "openai.AsyncOpenAI":
        module: Any = require("openai", "serve")
        client: openai.AsyncOpenAI = _anonymous(module.AsyncOpenAI(**self._options()))
        return client

    def _errors(self) -> "_Errors":
        return _Errors(self)


def _anonymous(client: Any) -> Any:
    """The client takes these two from the environment, and would send them to every upstream."""
    client.organization = client.project = None
    return client


class _Errors:
    """Turns the client's errors into ours: what happened, at which provider, what to do."""

    def __init__(self, provider: Provider) -> None:
        self._provider = provider

    def __enter__(self) -> None:
        return None

    def __exit__(self, _kind: object, error: BaseException | None, _trace: object) -> None:
        import httpx
        import openai

        name, config = self._provider.name, self._provider.config
        match error:
            case openai.APITimeoutError() | httpx.TimeoutException():
                raise UpstreamError(
                    f"no answer from {config.base_url} within {config.timeout:g} s",
                    provider=name,
                    status=504,
                    fix=f"Try again, or raise [providers.{name}] timeout",
                ) from error
            case openai.APIConnectionError() | httpx.TransportError():
                raise UpstreamError(
                    f"{config.base_url} cannot be reached", provider=name, fix="Is it running, and is base_url right?"
                ) from error
            case openai.AuthenticationError() | openai.PermissionDeniedError():
                fix = (
                    f"Check the key in {config.api_key_env}"
                    if config.api_key_env
                    else f"Set [providers.{name}] api_key_env"
                )
                raise UpstreamError("it does not accept our key", provider=name, fix=fix) from error
            case openai.RateLimitError():
                raise UpstreamError(
                    "its rate limit is reached", provider=name, status=429, fix="Wait a while"
                ) from error
            case openai.APIStatusError() if error.status_code < 500:
                status = error.status_code if error.status_code in (400, 404, 422) else 502
                raise UpstreamError(f"it refused: {_said(error)}", provider=name, status=min(status, 502)) from error
            case openai.APIError():
                raise UpstreamError(f"it failed: {_said(error)}", provider=name) from error
            case _:
                return


def _said(error: "openai.APIError") -> str:
    """The upstream's own words, in one short line."""
    body: Any = error.body
    text = body.get("message") if isinstance(body, dict) else None
    return " ".join(str(text or error.message).split())[:300].rstrip(".")


def _delta(chunk: Any, model: str) -> Delta:
    choice = chunk.choices[0] if chunk.choices else None
    usage = chunk.usage
    return Delta(
        text=(choice.delta.content or "") if choice is not None and choice.delta is not None else "",
        model=chunk.model or model,
        finish_reason=choice.finish_reason if choice is not None else None,
        prompt_tokens=usage.prompt_tokens if usage else None,
        completion_tokens=usage.completion_tokens if usage else None,
    )
