"""The page's way to the server: its public HTTP API over the network, like any client's."""

import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import httpx

from gptwright.studio.settings import Settings
from gptwright.studio.words import ALTERNATIVES, Word, of_chat, of_text

Message = dict[str, str]


class ApiFailure(Exception):
    """The API refused or could not be reached.

    Args:
        message: for people.
        status: HTTP status; 0 when there was no answer.
        param: the field that was refused, if the server names one.
    """

    def __init__(self, message: str, status: int = 0, param: str = "") -> None:
        super().__init__(message)
        self.status, self.param = status, param


@dataclass(frozen=True)
class Model:
    """A model of the server.

    Attributes:
        id: what to ask for; perhaps an alias.
        root: its full id.
        owner: who made it, as the server says.
    """

    id: str
    root: str
    owner: str = "gptwright"

    @property
    def label(self) -> str:
        """How a person sees it."""
        return self.root if self.id == self.root else f"{self.id} ({self.root})"

    @property
    def hosted(self) -> bool:
        """Whether a provider answers, or may answer."""
        return ":" in self.id or self.owner == "gateway"

    @property
    def group(self) -> str:
        """Under what it stands in the list."""
        return "Hosted" if self.hosted else "Open" if self.owner == "import" else "Own"


@dataclass(frozen=True)
class Event:
    """A piece of an answer.

    Attributes:
        text: may be empty.
        model: the full id that answers.
        dropped: old messages that no longer fit the model's context.
        finish_reason: on the last piece.
        words: its tokens with their probabilities, where the model says them.
    """

    text: str = ""
    model: str = ""
    dropped: int = 0
    finish_reason: str | None = None
    words: Sequence[Word] = ()


class Api:
    """A client of one server.

    Args:
        base_url: such as http://127.0.0.1:8000.
        verify: whether its certificate is checked; of the server that this page comes from, on this machine, it need not be.
    """

    def __init__(self, base_url: str, verify: bool = True) -> None:
        self.base_url, self._verify = base_url, verify
        self.key: str | None = None
        self._wordless: set[str] = set()

    async def models(self) -> list[Model]:
        """The models, the one to offer first in front: ``production``, else the newest of our own.

        Raises:
            ApiFailure: status 401 when a key is needed.
        """
        async with self._client() as client:
            answer = await self._json(client, "GET", "/v1/models")
        found = [
            (Model(str(row["id"]), str(row.get("root") or row["id"]), str(row.get("owned_by", ""))), row["created"])
            for row in answer["data"]
        ]
        order = ("Own", "Open", "Hosted")
        found.sort(key=lambda one: (one[0].id != "production", order.index(one[0].group), -int(one[1])))
        return [model for model, _ in found]

    async def judge(
        self, model: str, kind: str, value: Mapping[str, bool | str], messages: Sequence[Message], person: str
    ) -> int:
        """Keep a judgement and the conversation that it is about. Only for people who agreed.

        Returns:
            Its id, by which it can be taken back.
        """
        body = {
            "model": model, "kind": kind, "value": dict(value), "messages": list(messages), "consent": True, "user": person,
        }  # fmt: skip
        async with self._client() as client:
            return int((await self._json(client, "POST", "/v1/feedback", body))["id"])

    async def take_back(self, judgement: int) -> None:
        """Delete one judgement; one that is gone already is no fault."""
        async with self._client() as client:
            try:
                await self._json(client, "DELETE", f"/v1/feedback/{judgement}")
            except ApiFailure as failure:
                if failure.status != 404:
                    raise

    async def take_all_back(self, person: str) -> int:
        """Delete all judgements of a person; how many there were."""
        async with self._client() as client:
            answer = await self._json(client, "DELETE", f"/v1/feedback?user={quote(person, safe='')}")
        return int(answer["deleted"])

    async def chat(self, model: Model, messages: Sequence[Message], settings: Settings) -> AsyncGenerator[Event, None]:
        """Stream an answer. Closing the iterator closes the connection, and the server stops the model.

        Args:
            model: who answers.
            messages: questions and answers so far, without the system prompt.
            settings: the system prompt and the rest.

        Raises:
            ApiFailure: the server refused, failed in the middle, or is gone.
        """
        body: dict[str, Any] = {
            "model": model.id,
            "messages": with_system(settings, messages),
            "stream": True,
            **settings.body(model.hosted),
        }
        if not model.hosted:  # a provider decides for itself what to do with a long conversation
            body["truncation"] = "auto"
            if model.root not in self._wordless:
                body |= {"logprobs": True, "top_logprobs": ALTERNATIVES}
        try:
            async with aclosing(self._stream("/v1/chat/completions", body, _of_chat)) as events:
                async for event in events:
                    yield event
        except ApiFailure as failure:
            if failure.status != 400 or "logprobs" not in f"{failure.param} {failure}":
                raise
            self._wordless.add(model.root)  # an engine that says no probabilities; it refuses before it begins
            for name in ("logprobs", "top_logprobs"):
                body.pop(name, None)
            async with aclosing(self._stream("/v1/chat/completions", body, _of_chat)) as events:
                async for event in events:
                    yield event

    async def go_on(
        self, model: Model, messages: Sequence[Message], begun: str, settings: Settings, dropped: int = 0
    ) -> AsyncGenerator[Event, None]:
        """Stream the rest of an answer that begins with a given text.

        Args:
            model: one of this server; a provider's cannot do this.
            messages: as for ``chat``; the last is the question.
            begun: how the answer begins. It is not sent back.
            settings: as for ``chat``.
            dropped: as many of the oldest messages are left out, as the answer's own request left them out.

        Raises:
            ApiFailure: as ``chat``.
        """
        given = {"messages": with_system(settings, messages[dropped:]), "add_generation_prompt": True}
        try:
            async with self._client() as client:
                asked = await self._json(client, "POST", "/tokenize", {"model": model.id, **given})
                head = await self._json(client, "POST", "/tokenize", {"model": model.id, "prompt": begun})
            body = {"model": model.id, "prompt": [*asked["tokens"], *head["tokens"]], "stream": True}
        except (KeyError, TypeError) as error:
            raise _strange() from error
        body |= {**settings.body(False), "logprobs": ALTERNATIVES}
        async with aclosing(self._stream("/v1/completions", body, _of_text)) as events:
            async for event in events:
                yield event

    async def _stream(
        self, path: str, body: dict[str, Any], parse: Callable[[Mapping[str, Any], str], Event]
    ) -> AsyncGenerator[Event, None]:
        try:
            async with self._client() as client, client.stream("POST", path, json=body) as response:
                if response.status_code != 200:
                    await response.aread()
                    raise _failure(response)
                yield Event(dropped=int(response.headers.get("x-gptwright-dropped-messages", "0")))
                async for line in response.aiter_lines():
                    if not line.startswith("data: ") or line == "data: [DONE]":
                        continue
                    chunk = json.loads(line.removeprefix("data: "))
                    if "error" in chunk:
                        raise ApiFailure(str(chunk["error"]["message"]), 500)
                    for choice in chunk["choices"]:
                        yield parse(choice, str(chunk["model"]))
        except httpx.HTTPError as error:
            raise ApiFailure("The connection to the server was lost. Is it still running?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise _strange() from error

    async def _json(self, client: httpx.AsyncClient, method: str, path: str, body: Any = None) -> dict[str, Any]:
        try:
            response = await client.request(method, path, json=body)
        except httpx.TransportError as error:
            raise ApiFailure("The server does not answer.") from error
        if response.status_code >= 400:
            raise _failure(response)
        return dict(response.json())

    def _client(self) -> httpx.AsyncClient:
        headers = {"Authorization": f"Bearer {self.key}"} if self.key else {}
        # No proxy from the environment: this never leaves the machine.
        timeout = httpx.Timeout(30.0, read=600.0)
        return httpx.AsyncClient(
            base_url=self.base_url, headers=headers, timeout=timeout, trust_env=False, verify=self._verify
        )


def with_system(settings: Settings, messages: Sequence[Message]) -> list[Message]:
    """A conversation with the system prompt in front, if there is one."""
    first: list[Message] = [{"role": "system", "content": settings.system}] if settings.system.strip() else []
    return first + list(messages)


def _of_chat(choice: Mapping[str, Any], model: str) -> Event:
    logprobs = choice.get("logprobs") or {}
    return Event(
        choice["delta"].get("content") or "", model, 0, choice["finish_reason"], of_chat(logprobs.get("content") or ())
    )


def _of_text(choice: Mapping[str, Any], model: str) -> Event:
    logprobs = choice.get("logprobs")
    return Event(choice["text"], model, 0, choice["finish_reason"], of_text(logprobs) if logprobs else ())


def _strange() -> ApiFailure:
    return ApiFailure("The server sent something that this page does not understand.")


def _failure(response: httpx.Response) -> ApiFailure:
    try:
        error = response.json()["error"]
        return ApiFailure(str(error["message"]), response.status_code, str(error.get("param") or ""))
    except (ValueError, KeyError, TypeError, AttributeError):
        return ApiFailure(f"The server answered with status {response.status_code}.", response.status_code)
