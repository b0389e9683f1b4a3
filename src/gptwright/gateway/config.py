"""Where upstreams are, what they may cost and see (``[providers.NAME]``), and who steps in for whom (``[gateway]``)."""

import re
from typing import Annotated, Any, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from gptwright.core.config import MAY_BE_SECRET, Config, Count, Duration
from gptwright.gateway.serving import is_loopback
from gptwright.gateway.vendors import PLAIN, VENDORS, Vendor, VendorName

OnPersonalData = Literal["send", "mask", "refuse"]


def _http_url(value: str) -> str:
    # A question mark could begin a key that then stands in a file, in logs and in errors.
    if not re.match(r"https?://[^\s/@?#]+(/[^\s?#]*)?$", value):
        raise PydanticCustomError(
            MAY_BE_SECRET,
            "not an http(s) URL without user, password and question mark, such as https://api.example.com/v1",
        )
    return value.rstrip("/")


def _variable_name(value: str | None) -> str | None:
    if value is not None and not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]{0,63}", value):
        # A pasted key would otherwise stand in a file that people share.
        raise PydanticCustomError(
            MAY_BE_SECRET, "this is the name of an environment variable that holds the key, never the key itself"
        )
    return value


class PriceConfig(Config):
    """``[providers.NAME.prices."MODEL"]``: what a model costs, where the price list does not know it."""

    input: float = Field(ge=0, description="A million tokens of prompts. US dollars.")
    output: float = Field(ge=0, description="A million tokens of answers. US dollars.")


class ProviderConfig(Config):
    """``[providers.NAME]``: a server that speaks the OpenAI protocol."""

    vendor: VendorName | None = Field(
        default=None,
        description="Whose API it is; sets base_url and api_key_env, and refuses what this API would ignore.",
    )
    base_url: Annotated[str, AfterValidator(_http_url)] = Field(
        description="Where its API begins, with /v1, such as http://127.0.0.1:8001/v1. URL."
    )
    api_key_env: Annotated[str | None, AfterValidator(_variable_name)] = Field(
        default=None, description="Name of the environment variable that holds its key. Without it no key is sent."
    )
    timeout: Duration = Field(default=120.0, gt=0, description="Longest wait for its next bytes. Seconds.")
    connect_timeout: Duration = Field(default=10.0, gt=0, description="Longest wait for a connection. Seconds.")
    max_retries: int = Field(
        default=2, ge=0, le=10, description="Retries after a refused connection, 408, 409, 429 or 5xx."
    )
    retry_wait: Duration = Field(
        default=20.0,
        ge=0,
        description="Longest wait before a retry. Told to wait longer (Retry-After), the request fails at once and says how long. Seconds.",
    )
    models: list[str] = Field(
        default=[], description="The only models that may be asked for, by its own names. Empty: all that it offers."
    )
    personal_data: OnPersonalData | None = Field(
        default=None,
        description="What happens to personal data in what is sent: send it, mask it, or refuse the request. "
        "None: mask, unless the provider is this machine.",
    )
    usd_per_day: float | None = Field(
        default=None, gt=0, description="Most to be spent there in a day (UTC). None: no limit. US dollars."
    )
    answer_tokens: Count = Field(
        default=4096,
        gt=0,
        description="Longest answer asked for where spending is limited and the request names no limit. Tokens.",
    )
    prices: dict[str, PriceConfig] = Field(
        default={}, description='Prices by model, before those of genai-prices; "*" is for all others.'
    )

    @model_validator(mode="before")
    @classmethod
    def _of_vendor(cls, data: Any) -> Any:
        vendor = VENDORS.get(str(data.get("vendor"))) if isinstance(data, dict) else None
        if vendor is None or "base_url" in data:
            return data
        return {"base_url": vendor.base_url, "api_key_env": vendor.api_key_env, **data}

    @property
    def ways(self) -> Vendor:
        """How this API differs from OpenAI's protocol."""
        return VENDORS[self.vendor] if self.vendor is not None else PLAIN

    @property
    def is_local(self) -> bool:
        """Whether it runs on this machine."""
        return is_loopback(urlsplit(self.base_url).hostname or "")

    @property
    def on_personal_data(self) -> OnPersonalData:
        """What happens to personal data."""
        return self.personal_data or ("send" if self.is_local else "mask")


class RouteConfig(Config):
    """``[gateway.routes.NAME]``: a model's name that stands for several, asked in order."""

    models: list[str] = Field(
        min_length=1, description="Ids, aliases or provider:model; the next is asked when one is full, away or unsure."
    )
    unsure_below: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="An answer of ours whose first tokens have a lower mean probability is unsure, and the next model is asked. "
        "None: never. Probability (geometric mean).",
    )
    unsure_after: Count = Field(
        default=24, gt=0, le=1000, description="How many tokens are looked at, and held back until then. Tokens."
    )


class GatewayConfig(Config):
    """``[gateway]``: what holds for all providers together."""

    usd_per_day: float | None = Field(
        default=None,
        gt=0,
        description="Most to be spent in a day (UTC) with all providers. None: no limit. US dollars.",
    )
    routes: dict[str, RouteConfig] = Field(default={}, description="Models that stand in for each other, by name.")

    @model_validator(mode="after")
    def _plain_names(self) -> "GatewayConfig":
        for name in self.routes:
            if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
                raise ValueError(f"routes.{name}: a name has letters, digits, dots and dashes, at most 64")
        return self
