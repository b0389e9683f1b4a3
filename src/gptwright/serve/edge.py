"""The outermost layer: who may call, how much they may send, what is logged. Pure ASGI, so nothing is buffered.

A server on one's own machine can be reached by every web page that one visits: by a request from another site (refused by
its Origin) and by a name that an attacker points to 127.0.0.1 (refused by its Host).
"""

import asyncio
import logging
import re
import time
import uuid
from urllib.parse import urlsplit

from sqlalchemy.exc import OperationalError
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gptwright.serve.caller import BATCH, Caller
from gptwright.serve.config import is_loopback
from gptwright.serve.errors import ApiError, database_away, error_response
from gptwright.serve.generate import Backend
from gptwright.serve.keys import OpenedKey, find_key
from gptwright.serve.limits import Account, Limits

log = logging.getLogger("gptwright.serve")

OPEN_PATHS = frozenset({"/health", "/ready"})
"""What answers without a key: orchestrators must be able to look."""

_API = re.compile(r"/(v1|tokenize|detokenize|tokenizer_info|metrics|openapi\.json)(/|$)")
_LARGEST_HEAD = 64 * 1024
_PAGE_POLICY = (
    "default-src 'self'; script-src 'self' 'unsafe-inline' 'unsafe-eval'; style-src 'self' 'unsafe-inline'; "
    "img-src 'self' data: blob:; font-src 'self' data:; connect-src 'self'; object-src 'none'; base-uri 'none'; "
    "form-action 'self'; frame-ancestors 'none'"
)
"""Pages may load and contact nothing but this server, whatever a model writes. Vue compiles templates, hence unsafe-eval."""


class Edge:
    """ASGI middleware: host, origin, key, limits, body size, headers, access log.

    Args:
        app: what lies inside.
        backend: what endpoints share.
    """

    def __init__(self, app: ASGIApp, backend: Backend) -> None:
        self.app, self.backend, self.config, self.metrics = app, backend, backend.config, backend.metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] not in ("http", "websocket"):
            await self.app(scope, receive, send)
            return
        if (inner := scope.get(BATCH)) is not None:  # a batch's own request: the batch was let in already
            scope.setdefault("state", {})["caller"] = inner
            await self.app(scope, receive, send)
            return
        headers = Headers(scope=scope)
        request_id = "req_" + uuid.uuid4().hex
        caller = Caller(None, Account(Limits()), request_id=request_id, trace=headers.get("traceparent"))
        scope.setdefault("state", {})["caller"] = caller
        started = time.monotonic()
        status = 500
        finished = False
        origin = headers.get("origin")
        foreign = origin if origin in self.config.cors_origins else None

        async def send_on(message: Message) -> None:
            nonlocal status, finished
            if message["type"] == "http.response.start":
                status = message["status"]
                self._add_headers(MutableHeaders(scope=message), scope, caller, foreign)
            finished = message["type"] == "http.response.body" and not message.get("more_body", False)
            await send(message)

        counted = False
        try:
            if foreign is not None and scope["method"] == "OPTIONS" and "access-control-request-method" in headers:
                self._check_host(headers)
                await _preflight(headers)(scope, receive, send_on)
                return
            await self._check(scope, headers, caller, foreign)
            if scope["type"] == "websocket":
                await self.app(scope, receive, send)
                return
            counted = _API.match(scope["path"]) is not None
            self.backend.active += counted
            await self.app(scope, self._limited(receive, self._largest(scope)), send_on)
        except ApiError as error:
            if scope["type"] == "websocket":
                await send({"type": "websocket.close", "code": 1008, "reason": error.message[:100]})
                return
            await self._refuse(error, scope, receive, send_on, request_id)
            finished = True
        except OperationalError as error:
            if scope["type"] == "websocket" or status != 500:  # an answer has begun
                raise
            log.error("the control store did not answer", exc_info=error)
            await self._refuse(database_away(), scope, receive, send_on, request_id)
            finished = True
        finally:
            self.backend.active -= counted
            if scope["type"] == "http":
                self._count(scope, status if finished or status != 500 else 499, started, request_id)

    async def _refuse(self, error: ApiError, scope: Scope, receive: Receive, send: Send, request_id: str) -> None:
        self.metrics.errors.labels(error.code or str(error.status)).inc()
        await error_response(error, scope["path"], request_id)(scope, receive, send)

    async def _check(self, scope: Scope, headers: Headers, caller: Caller, foreign: str | None) -> None:
        host = self._check_host(headers)
        origin = headers.get("origin")
        if foreign is None and (_of_another_site(scope, headers) if origin is None else _authority(origin) != host):
            raise ApiError(
                403,
                "Requests from pages of other sites are not allowed. Name the site in [serve] cors_origins if it is yours.",
                code="origin_not_allowed",
            )
        path = scope["path"]
        if scope["type"] == "http" and path not in OPEN_PATHS and _API.match(path):
            if self.config.asks_for_key:
                caller.key = await self._key(headers)
                if not caller.key.may(path):
                    raise ApiError(403, f"This API key is not for {path}.", code="scope_missing")
            if self.backend.draining and path != "/metrics":
                raise ApiError(503, "The server is stopping.", code="stopping", headers={"Retry-After": "5"})
            caller.account = await self.backend.accounts.of(caller.key)
            caller.account.take_request()
        if sum(len(name) + len(value) for name, value in headers.raw) > _LARGEST_HEAD:
            raise ApiError(431, "The headers are too large.", code="headers_too_large", headers={"Connection": "close"})
        length = headers.get("content-length", "0")
        if length.isdigit() and int(length) > self._largest(scope):
            raise self._too_large(self._largest(scope))

    def _check_host(self, headers: Headers) -> str:
        host = headers.get("host", "")
        name = _hostname(host)
        if self.config.is_local and not is_loopback(name) and name not in self.config.allowed_hosts:
            raise ApiError(
                403,
                "This server answers only to local names. Add the name to [serve] allowed_hosts if it is yours.",
                code="host_not_allowed",
            )
        return host

    async def _key(self, headers: Headers) -> OpenedKey:
        scheme, _, key = headers.get("authorization", "").partition(" ")
        key = key.strip() if scheme.lower() == "bearer" else headers.get("x-api-key", "").strip()
        if not key:
            raise ApiError(
                401,
                "No API key. Send it as: Authorization: Bearer KEY.",
                code="missing_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        control = self.backend.control
        found = await asyncio.to_thread(find_key, control, key) if control is not None else None
        if found is None:
            raise ApiError(
                401,
                "This API key is not known, expired or revoked.",
                code="invalid_api_key",
                headers={"WWW-Authenticate": "Bearer"},
            )
        return found

    def _largest(self, scope: Scope) -> int:
        return self.config.max_upload if scope["path"] == "/v1/files" else self.config.max_body

    def _limited(self, receive: Receive, largest: int) -> Receive:
        """A body without a declared length is counted as it comes."""
        seen = 0

        async def receive_on() -> Message:
            nonlocal seen
            message = await receive()
            if message["type"] == "http.request":
                seen += len(message.get("body", b""))
                if seen > largest:
                    error = self._too_large(largest)
                    raise HTTPException(error.status, error.message, headers=error.headers)
            return message

        return receive_on

    def _too_large(self, largest: int) -> ApiError:
        name = "max_body" if largest == self.config.max_body else "max_upload"
        return ApiError(
            413,
            f"The body is larger than {largest} bytes. Shorten it, or raise [serve] {name}.",
            code="body_too_large",
            headers={"Connection": "close"},
        )

    def _add_headers(self, headers: MutableHeaders, scope: Scope, caller: Caller, foreign: str | None) -> None:
        headers["X-Request-Id"] = caller.request_id
        for name, value in caller.account.headers().items():
            headers[name] = value
        if foreign is not None:
            headers["Access-Control-Allow-Origin"] = foreign
            headers["Access-Control-Expose-Headers"] = "x-request-id, retry-after, x-gptwright-model"
            headers.add_vary_header("Origin")
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
        told = {"method": scope["method"], "route": route, "status": status, "seconds": round(seconds, 4)}
        extra = {"http": {**told, "request_id": request_id}}
        log.log(level, "%s %s %d %.3fs %s", scope["method"], route, status, seconds, request_id, extra=extra)


def _preflight(headers: Headers) -> Response:
    """The answer to a browser that asks whether a page of a named site may call."""
    return Response(
        status_code=204,
        headers={
            "Access-Control-Allow-Methods": "GET, POST, DELETE",
            "Access-Control-Allow-Headers": "authorization, content-type, x-api-key, anthropic-version, "
            + ", ".join(re.findall(r"x-stainless-[a-z-]{1,40}", headers.get("access-control-request-headers", ""))),
            "Access-Control-Max-Age": "600",
        },
    )


_METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "DELETE", "OPTIONS", "PATCH"})


def _hostname(host: str) -> str:
    """The name in a Host header; empty when it is malformed."""
    if not re.fullmatch(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+)(:\d{1,5})?", host):
        return ""
    try:
        return urlsplit(f"//{host}").hostname or ""
    except ValueError:  # brackets around what is no IPv6 address
        return ""


def _of_another_site(scope: Scope, headers: Headers) -> bool:
    """Whether a browser says that a request without an Origin was made by a page of another site.

    Images, scripts and frames have none. To follow a link, as a whole page, is all that another site may bring about.
    """
    link = headers.get("sec-fetch-mode") == "navigate" and headers.get("sec-fetch-dest") == "document"
    followed = link and scope["type"] == "http" and scope["method"] in ("GET", "HEAD")
    return headers.get("sec-fetch-site") in ("cross-site", "same-site") and not followed


def _authority(origin: str) -> str | None:
    """Name and port in an Origin header; None when it is malformed or has none, which equals no host."""
    try:
        return urlsplit(origin).netloc or None
    except ValueError:
        return None
