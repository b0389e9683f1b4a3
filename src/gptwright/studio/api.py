"""The page's way to the server: its public HTTP API over the network, like any client's."""

import json
from collections.abc import AsyncGenerator, Sequence
from dataclasses import dataclass
from typing import Any

import httpx

Message = dict[str, str]


class ApiFailure(Exception):
    """The API refused or could not be reached.

    Args:
        message: for people.
        status: HTTP status; 0 when there was no answer.
    """

    def __init__(self, message: str, status: int = 0) -> None:
        super().__init__(message)
        self.status = status


@dataclass(frozen=True)
class Model:
    """A model of the server.

    Attributes:
        id: what to ask for; perhaps an alias.
        root: its full id.
    """

    id: str
    root: str

    @property
    def label(self) -> str:
        """How a person sees it."""
        return self.root if self.id == self.root else f"{self.id} ({self.root})"


@dataclass(frozen=True)
class Event:
    """A piece of an answer.

    Attributes:
        text: may be empty.
        model: the full id that answers.
        dropped: old messages that no longer fit the model's context.
        finish_reason: on the last piece.
    """

    text: str = ""
    model: str = ""
    dropped: int = 0
    finish_reason: str | None = None


class Api:
    """A client of one server.

    Args:
        base_url: such as http://127.0.0.1:8000.
    """

    def __init__(self, base_url: str) -> None:
        self.base_url = base_url
        self.key: str | None = None

    async def models(self) -> list[Model]:
        """The models, the one to offer first in front: ``production``, else the newest.

        Raises:
            ApiFailure: status 401 when a key is needed.
        """
        async with self._client() as client:
            answer = await self._json(client, "GET", "/v1/models")
        rows = sorted(answer["data"], key=lambda row: (row["id"] != "production", -int(row["created"])))
        return [Model(str(row["id"]), str(row.get("root") or row["id"])) for row in rows]

    async def feedback(self, model: str, up: bool) -> None:
        """Send a thumb. No message goes with it."""
        body = {"model": model, "kind": "thumb", "value": {"up": up}, "consent": False}
        async with self._client() as client:
            await self._json(client, "POST", "/v1/feedback", body)

    async def chat(
        self, model: str, messages: Sequence[Message], temperature: float, max_tokens: int
    ) -> AsyncGenerator[Event, None]:
        """Stream an answer. Closing the iterator closes the connection, and the server stops the model.

        Raises:
            ApiFailure: the server refused, failed in the middle, or is gone.
        """
        body: dict[str, Any] = {
            "model": model,
            "messages": list(messages),
            "stream": True,
            "temperature": temperature,
            "max_tokens": max_tokens,
        }
        if ":" not in model:  # a provider decides for itself what to do with a long conversation
            body["truncation"] = "auto"
        try:
            async with self._client() as client, client.stream("POST", "/v1/chat/completions", json=body) as response:
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
                        text = choice["delta"].get("content") or ""
                        yield Event(text, str(chunk["model"]), finish_reason=choice["finish_reason"])
        except httpx.HTTPError as error:
            raise ApiFailure("The connection to the server was lost. Is it still running?") from error
        except (ValueError, KeyError, TypeError) as error:
            raise ApiFailure("The server sent something that this page does not understand.") from error

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
        return httpx.AsyncClient(base_url=self.base_url, headers=headers, timeout=timeout, trust_env=False)


def _failure(response: httpx.Response) -> ApiFailure:
    try:
        message = str(response.json()["error"]["message"])
    except (ValueError, KeyError, TypeError):
        message = f"The server answered with status {response.status_code}."
    return ApiFailure(message, response.status_code)
