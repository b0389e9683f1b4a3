"""Errors in OpenAI's shape: ``{"error": {"message", "type", "param", "code"}}``, all four always there."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from fastapi import FastAPI, Request
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from starlette.exceptions import HTTPException

from gptwright.core.errors import GptwrightError, UserError

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


def error_body(status: int, message: str, param: str | None = None, code: str | None = None) -> dict[str, Any]:
    """The body of an error answer."""
    kind = _TYPES.get(status, "invalid_request_error" if status < 500 else "server_error")
    return {"error": {"message": message, "type": kind, "param": param, "code": code or _CODES.get(status)}}


def error_response(error: ApiError) -> JSONResponse:
    """An error as a response."""
    body = error_body(error.status, error.message, error.param, error.code)
    return JSONResponse(body, status_code=error.status, headers=error.headers)


def from_user_error(error: UserError, *, status: int = 400) -> ApiError:
    """Our own errors for people, as an answer; those of the guard and the gateway bring their field and status."""
    return ApiError(
        int(getattr(error, "status", status)),
        str(error),
        param=getattr(error, "param", None),
        code=getattr(error, "code", None),
    )


def field_name(location: Sequence[int | str]) -> str:
    """``("body", "messages", 0, "role")`` as ``messages[0].role``."""
    name = ""
    for part in location[1:] if location and location[0] in ("body", "path", "query") else location:
        name += f"[{part}]" if isinstance(part, int) else f".{part}" if name else part
    return name


def install(app: FastAPI) -> None:
    """Make every error of the app take OpenAI's shape."""

    async def api(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, ApiError)
        return error_response(error)

    async def user(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, UserError)
        return error_response(from_user_error(error))

    async def http(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, HTTPException)
        return error_response(ApiError(error.status_code, str(error.detail), headers=error.headers))

    async def invalid(_request: Request, error: Exception) -> JSONResponse:
        assert isinstance(error, RequestValidationError)
        return error_response(_validation(error.errors()))

    async def ours(_request: Request, _error: Exception) -> JSONResponse:
        return error_response(ApiError(500, "The server failed; its log says why.", code="internal_error"))

    app.add_exception_handler(ApiError, api)
    app.add_exception_handler(UserError, user)
    app.add_exception_handler(HTTPException, http)
    app.add_exception_handler(RequestValidationError, invalid)
    app.add_exception_handler(Exception, ours)


def _validation(faults: Sequence[Mapping[str, Any]]) -> ApiError:
    fault = faults[0]
    kind, location = str(fault["type"]), list(fault["loc"])
    if kind == "json_invalid":
        detail = fault.get("ctx", {}).get("error", "not valid JSON")
        return ApiError(
            400, f"The body is not valid JSON: {detail} (at character {location[-1]}).", code="invalid_json"
        )
    context = fault.get("ctx", {})
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
