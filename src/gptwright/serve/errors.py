"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``, all four always there."""

import contextlib
import json
import logging
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from pydantic import ValidationError
from sqlalchemy.exc import DataError, OperationalError
from starlette.exceptions import HTTPException

from gptwright.core.errors import GptwrightError, UserError

log = logging.getLogger("gptwright.serve")

_TYPES = {401: "authentication_error", 403: "permission_error", 404: "not_found_error", 429: "rate_limit_error"}
_CODES = {401: "invalid_api_key", 403: "forbidden", 404: "not_found", 405: "method_not_allowed", 413: "body_too_large"}


class ApiError(GptwrightError):
    """A refusal with its HTTP status.

    Args:
        status: HTTP status.
        message: for people; says what to do.
        param: the request field at fault.
        code: short machine-readable name.
        headers: further response headers.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.headers = dict(headers or {})


class ClientGoneError(Exception):
    """Nobody is left to answer."""


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}


def error_response(error: ApiError, path: str = "", request_id: str = "") -> JSONResponse:
    """An error as a response: on Anthropic's paths with the two fields more that its clients want.

    Args:
        error: the refusal.
        path: of the request.
        request_id: of the request.
    """
    body = error_body(error.status, error.message, error.param, error.code)
    if path.startswith("/v1/messages"):
        kind = ANTHROPIC_TYPES.get(error.status, "invalid_request_error" if error.status < 500 else "api_error")
        body = {"type": "error", "error": {**body["error"], "type": kind}, "request_id": request_id or None}
    return JSONResponse(body, status_code=error.status, headers=error.headers)


ANTHROPIC_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
}


def from_user_error(error: UserError, *, status: int = 400) -> ApiError:
    """Our own errors for people, as an answer; those of the guard and the gateway bring their field and status."""
    return ApiError(
        int(getattr(error, "status", status)),
        str(error),
        param=getattr(error, "param", None),
        code=getattr(error, "code", None),
        headers=getattr(error, "headers", None),
    )


@contextlib.contextmanager
def renamed_params(names: Mapping[str, str]) -> Iterator[None]:
    """Errors from within speak of fields by the names that this endpoint gives them.

    Args:
        names: beginnings of field names and what stands for them here.

    Raises:
        ApiError: the same with another ``param``.
    """
    try:
        yield
    except UserError as error:
        raise _renamed(from_user_error(error), names) from error
    except ApiError as error:
        raise _renamed(error, names) from error


def _renamed(error: ApiError, names: Mapping[str, str]) -> ApiError:
    begin = re.match(r"[A-Za-z_]+", error.param or "")
    new = names.get(begin[0]) if begin else None
    if new is None:
        return error
    message = error.message.removeprefix(f"{error.param}: ")
    return ApiError(error.status, f"{new}: {message}", param=new, code=error.code, headers=error.headers)


def field_name(location: Sequence[int | str]) -> str:
    """``("body", "messages", 0, "role")`` as ``messages[0].role``."""
    name = ""
    for part in location[1:] if location and location[0] in ("body", "path", "query") else location:
        if isinstance(part, str) and name and _BRANCH.fullmatch(part):
            continue
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


_BRANCH = re.compile(
    r"str|int|float|bool|(constrained|function|lax|is|json|nullable|model)-.*|(list|dict|tuple|union|literal|chain)\[.*|[A-Z]\w*"
)
"""Which alternative of a type was tried: pydantic puts it into the place of a fault, where no field of a request stands."""


def database_away() -> ApiError:
    """The answer while the control store cannot be reached, or cannot write."""
    return ApiError(503, "The control store does not answer.", code="database_away", headers={"Retry-After": "5"})


def install(app: FastAPI, counted: Callable[[str], None] = lambda code: None) -> None:
    """Make every error of the app take OpenAI's shape.

    Args:
        app: the application.
        counted: told of each error's code.
    """

    def respond(request: Request, error: ApiError) -> Response:
        caller = request.scope.get("state", {}).get("caller")
        counted(error.code or str(error.status))
        return error_response(error, request.scope["path"], getattr(caller, "request_id", ""))

    async def api(request: Request, error: Exception) -> Response:
        assert isinstance(error, ApiError)
        return respond(request, error)

    async def user(request: Request, error: Exception) -> Response:
        assert isinstance(error, UserError)
        return respond(request, from_user_error(error))

    async def http(request: Request, error: Exception) -> Response:
        assert isinstance(error, HTTPException)
        return respond(request, ApiError(error.status_code, str(error.detail), headers=error.headers))

    async def invalid(request: Request, error: Exception) -> Response:
        assert isinstance(error, RequestValidationError)
        return respond(request, _validation(error.errors()))

    async def inner(request: Request, error: Exception) -> Response:
        assert isinstance(error, ValidationError)
        return respond(request, _validation(error.errors()))

    async def away(request: Request, error: Exception) -> Response:
        log.error("the control store did not answer", exc_info=error)
        return respond(request, database_away())

    async def unkept(request: Request, _error: Exception) -> Response:
        return respond(
            request, ApiError(400, "The request holds a character that the server's store cannot keep, such as U+0000.")
        )

    async def gone(_request: Request, _error: Exception) -> Response:
        return Response(status_code=499)

    async def ours(request: Request, _error: Exception) -> Response:
        return respond(request, ApiError(500, "The server failed; its log says why.", code="internal_error"))

    app.add_exception_handler(ClientGoneError, gone)
    app.add_exception_handler(OperationalError, away)
    app.add_exception_handler(DataError, unkept)
    app.add_exception_handler(ValidationError, inner)  # a request put into the terms of another
    app.add_exception_handler(ApiError, api)
    app.add_exception_handler(UserError, user)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, ours)


def _validation(faults: Sequence[Mapping[str, Any]]) -> ApiError:
    # Of the alternatives of a field that were tried, the one that came furthest is what was meant.
    fault = max((f for f in faults if f["loc"][:2] == faults[0]["loc"][:2]), key=lambda f: len(f["loc"]))
    kind, location = str(fault["type"]), list(fault["loc"])
    if kind == "json_invalid":
        detail = fault.get("ctx", {}).get("error", "not valid JSON")
        return ApiError(
            400, f"The body is not valid JSON: {detail} (at character {location[-1]}).", code="invalid_json"
        )
    context = fault.get("ctx", {})
    if context.get("field"):
        location.append(context["field"])
    param = str(context.get("param") or field_name(location)) or None
    if kind == "extra_forbidden":
        return ApiError(
            400, f"{param}: unknown field; nothing is ignored in silence.", param=param, code="unknown_parameter"
        )
    text = str(fault["msg"]).removeprefix("Value error, ")
    if kind == "missing" and param is None:
        return ApiError(400, "The body is missing: send JSON.", code="missing_body")
    code = {"missing": "missing_required_parameter", "unsupported": "unsupported_parameter"}.get(kind, "invalid_value")
    return ApiError(400, f"{param}: {text}." if param else f"{text}.", param=param, code=code)


def sse_error(error: ApiError) -> str:
    """An error in the middle of a stream, when the status line is long gone."""
    return f"data: {json.dumps(error_body(error.status, error.message, error.param, error.code))}\n\n"
