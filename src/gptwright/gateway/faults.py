"""Errors of upstreams as ours: what happened, at which provider, what to do, and when to try again. Keys never appear in them."""

import datetime
import email.utils
import math
import os
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.gateway.config import ProviderConfig

if TYPE_CHECKING:
    import openai

RETRIED = frozenset({408, 409, 429})
"""Statuses below 500 after which the same request may succeed."""


class UpstreamError(UserError):
    """The provider did not answer as it should, or was not asked.

    Args:
        what: the fault.
        provider: its name in the configuration.
        status: the HTTP status that tells a client of ours what happened.
        code: short machine-readable name.
        fix: what to do now.
        param: the request field at fault.
        retry_after_s: when to try again.
        again: whether the very same request may succeed later.
    """

    def __init__(
        self,
        what: str,
        *,
        provider: str,
        status: int = 502,
        code: str = "upstream_error",
        fix: str | None = None,
        param: str | None = None,
        retry_after_s: float | None = None,
        again: bool = False,
    ) -> None:
        super().__init__(what, where=f"providers.{provider}", fix=fix)
        self.status, self.code, self.param, self.retry_after_s, self.again = status, code, param, retry_after_s, again

    @property
    def headers(self) -> dict[str, str]:
        """For the client's response."""
        return {} if self.retry_after_s is None else {"Retry-After": str(max(1, math.ceil(self.retry_after_s)))}


def upstream_error(error: Exception, name: str, config: ProviderConfig) -> UpstreamError | None:
    """What an exception of the client's means.

    Args:
        error: what was raised.
        name: the provider's.
        config: its section.

    Returns:
        None: it is none of the upstream's.
    """
    import openai

    kinds = {kind.__name__ for kind in type(error).__mro__ if kind.__module__.partition(".")[0] in ("httpx", "httpx2")}
    if isinstance(error, openai.APITimeoutError) or "TimeoutException" in kinds:
        return UpstreamError(
            f"no answer from {config.base_url} within {config.timeout:g} s",
            provider=name,
            status=504,
            code="upstream_timeout",
            fix=f"Try again, or raise [providers.{name}] timeout",
        )
    if isinstance(error, openai.APIConnectionError) or "TransportError" in kinds:
        fix = "Is it running, and is base_url right?"
        return UpstreamError(f"{config.base_url} cannot be reached", provider=name, fix=fix, again=True)
    if isinstance(error, openai.APIStatusError):
        return _refusal(error, name, config)
    if isinstance(error, openai.APIError):
        return UpstreamError(f"it failed: {_said(error, config)}", provider=name)
    if isinstance(error, ValueError | TypeError | KeyError | AttributeError | IndexError):
        return UpstreamError("it sent something that is no answer of this protocol", provider=name)
    return None


def _refusal(error: "openai.APIStatusError", name: str, config: ProviderConfig) -> UpstreamError:
    status, wait = error.status_code, retry_after(error.response.headers)
    if status in (401, 403):
        variable = config.api_key_env
        fix = f"Check the key in {variable}" if variable else f"Set [providers.{name}] api_key_env"
        return UpstreamError("it does not accept our key", provider=name, code="upstream_key", fix=fix)
    if status == 429:
        return UpstreamError(
            "its rate limit is reached",
            provider=name,
            status=429,
            code="upstream_busy",
            fix="Wait a while",
            retry_after_s=wait,
            again=True,
        )
    if status < 500:
        passed = status if status in (400, 404, 422) else 502
        what = f"it refused: {_said(error, config)}"
        return UpstreamError(what, provider=name, status=passed, retry_after_s=wait, again=status in RETRIED)
    # 501 and 505 say that it never will.
    again = status not in (501, 505)
    return UpstreamError(f"it failed: {_said(error, config)}", provider=name, retry_after_s=wait, again=again)


def retry_after(headers: Any) -> float | None:
    """Seconds that a response asks to wait: a number, or a date (RFC 9110, section 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            at = email.utils.parsedate_to_datetime(value)
        except ValueError:
            return None
        at = at if at.tzinfo is not None else at.replace(tzinfo=datetime.UTC)
        seconds = (at - datetime.datetime.now(datetime.UTC)).total_seconds()
    return max(0.0, seconds) if math.isfinite(seconds) else None


def _said(error: "openai.APIError", config: ProviderConfig) -> str:
    """The upstream's own words, in one short line; a key in them is taken out."""
    body: Any = error.body
    text = body.get("message") if isinstance(body, dict) else None
    line = " ".join(str(text or error.message).split())
    key = os.environ.get(config.api_key_env, "").strip() if config.api_key_env else ""
    if key:
        line = line.replace(key, "[key]")
    return line[:300].rstrip(".")
