"""Where an upstream is: one ``[providers.NAME]`` section."""

import re
from typing import Annotated

from pydantic import AfterValidator, Field

from gptwright.core.config import Config, Duration


def _http_url(value: str) -> str:
    if not re.match(r"https?://[^\s/@]+(/|$)", value):
        raise ValueError("not an http(s) URL without user and password, such as https://api.example.com/v1")
    return value.rstrip("/")


def _variable_name(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
        # A pasted key would otherwise stand in a file that people share.
        raise ValueError("this is the name of an environment variable that holds the key, never the key itself")
    return value


class ProviderConfig(Config):
    """``[providers.NAME]``: a server that speaks the OpenAI protocol."""

    base_url: Annotated[str, AfterValidator(_http_url)] = Field(
        description="Where its API begins, with /v1, such as http://127.0.0.1:8001/v1. URL."
    )
    api_key_env: Annotated[str | None, AfterValidator(_variable_name)] = Field(
        default=None, description="Name of the environment variable that holds its key. Without it no key is sent."
    )
    timeout: Duration = Field(default=120.0, gt=0, description="Longest wait for its next bytes. Seconds.")
    max_retries: int = Field(
        default=2, ge=0, le=10, description="Retries after a refused connection, 408, 409, 429 or 5xx."
    )
