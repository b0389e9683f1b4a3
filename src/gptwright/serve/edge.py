"""The outermost layer: who may call, how much they may send, what is logged. Pure ASGI, so nothing is buffered.

A server on one's own machine can be reached by every web page that one visits: by a request from another site (refused by
its Origin) and by a name that an attacker points to 127.0.0.1 (refused by its Host).
"""

import asyncio
import logging
import re
import time
import uuid
from collections.abc import Callable
from urllib.parse import urlsplit

from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptwright.serve.config import ServeConfig, is_loopback
from gptwright.serve.errors import ApiError, error_response
from gptwright.serve.metrics import Metrics

log = logging.getLogger("gptwright.serve")

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What answers without a key: orchestrators must be able to look."""

_API = re.compile(r"/(v1|tokenize|detokenize|metrics|openapi\.json)(/|$)")
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Pages may load and contact nothing but this server, whatever a model writes. Vue compiles templates, hence unsafe-eval."""


class Edge:
    """ASGI middleware: host, origin, key, body size, headers, access log.

    Args:
        app: what lies inside.
        config: limits.
        metrics: counters.
        find_key: id of an active key, or None; may block.
    """

    def __init__(
        self, app: ASGIApp, config: ServeConfig, metrics: Metrics, find_key: Callable[[str], int | None]
    ) -> None:
        self.app, self.config, self.metrics, self.find_key = app, config, metrics, find_key

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = uuid.uuid4().hex
        started = time.monotonic()
        status = 500
        finished = False

        async def send_on(message: Message) -> None:
            nonlocal status, finished
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), scope, request_id)
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        try:
            await self._check(scope, headers)
        except ApiError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
                return
            await error_response(error)(scope, receive, send_on)
            self._count(scope, status, started, request_id)
            return
        if scope["type"] == "websocket":
            await self.app(scope, receive, send)
            return
        try:
            await self.app(scope, self._limited(receive), send_on)
        finally:
            self._count(scope, status if finished or status != 500 else 499, started, request_id)

    async def _check(self, scope: Scope, headers: Headers) -> None:
        host = headers.get("host", "")
        name = _hostname(host)
        if self.config.is_local and not is_loopback(name) and name not in self.config.allowed_hosts:
            raise ApiError(
                403,
                "This server answers only to local names. Add the name to [serve] allowed_hosts if it is yours.",
                code="host_not_allowed",
            )
        origin = headers.get("origin")
        if origin is not None and _authority(origin) != host:
            raise ApiError(403, "Requests from pages of other sites are not allowed.", code="origin_not_allowed")
        path = scope["path"]
        if scope["type"] == "http" and self.config.asks_for_key and path not in OPEN_PATHS and _API.match(path):
            scope.setdefault("state", {})["key_id"] = await self._key(headers)
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self.config.max_body:
            raise self._too_large()

    async def _key(self, headers: Headers) -> int:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        if scheme.lower() != "bearer" or not key.strip():
            raise ApiError(
                401,
                "No API key. Send it as: Authorization: Bearer KEY.",
                code="missing_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        key_id = await asyncio.to_thread(self.find_key, key.strip())
        if key_id is None:
            raise ApiError(
                401,
                "This API key is not known, expired or revoked.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return key_id

    def _limited(self, receive: Receive) -> Receive:
        """A body without a declared length is counted as it comes."""
        seen = 0

        async def receive_on() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > self.config.max_body:
                    error = self._too_large()
                    raise HTTPException(error.status, error.message, headers=error.headers)
            return message

        return receive_on

    def _too_large(self) -> ApiError:
        return ApiError(
            413,
            f"The body is larger than {self.config.max_body} bytes. Shorten it, or raise [serve] max_body.",
            code="body_too_large",
            headers={"Connection": "close"},
        )

    def _add_headers(self, headers: MutableHeaders, scope: Scope, request_id: str) -> None:
        headers["X-Request-Id"] = request_id
        headers["X-Content-Type-Options"] = "nosniff"
        headers["Referrer-Policy"] = "no-referrer"
        headers["Cross-Origin-Resource-Policy"] = "same-origin"
        if headers.get("content-type", "").startswith("text/html"):
            headers["Content-Security-Policy"] = _PAGE_POLICY
        if _API.match(scope["path"]):
            headers.setdefault("Cache-Control", "no-store")

    def _count(self, scope: Scope, status: int, started: float, request_id: str) -> None:
        seconds = time.monotonic() - started
        route = getattr(scope.get("route"), "path", None) or ("unknown" if _API.match(scope["path"]) else "page")
        self.metrics.requests.labels(scope["method"] if scope["method"] in _METHODS else "OTHER", route, status).inc()
        self.metrics.seconds.labels(route).observe(seconds)
        # The route's template and no query: neither text nor ids of documents can end up in the log.
        level = logging.INFO if route not in ("page", *OPEN_PATHS) else logging.DEBUG
        log.log(level, "%s %s %d %.3fs %s", scope["method"], route, status, seconds, request_id)


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def _hostname(host: str) -> str:
    """The name in a Host header; empty when it is malformed."""
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets around what is no IPv6 address
        return ""


def _authority(origin: str) -> str | None:
    """Name and port in an Origin header; None when it is malformed or has none, which equals no host."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
