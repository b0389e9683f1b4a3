"""What a server is told: the ``[serve]`` section, and the models that it lists.

It stands below the server, so that a project can hold both without knowing HTTP.
"""

import ipaddress
from dataclasses import dataclass
from typing import Annotated, Literal

from pydantic import Field, StringConstraints, model_validator

from gptwright.core.config import Config, Duration, Size


class ServeConfig(Config):
    """``[serve]``: where the server listens, and its limits."""

    host: str = Field(
        default="127.0.0.1", description="Address to listen on. Beyond this machine only with a key. Name or address."
    )
    port: int = Field(default=8000, ge=0, le=65535, description="Port to listen on; 0 takes a free one.")
    database_url: str | None = Field(
        default=None, description="Control store as an SQLAlchemy URL. Without it, state/control.sqlite of the project."
    )
    engine: Literal["auto", "builtin", "openvino"] = Field(
        default="auto",
        description="What runs the model. auto: with the extra openvino installed, the faster of the two, measured when a model is loaded.",
    )
    adapters: dict[Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", max_length=100)], str] = (
        Field(
            default={},
            description="LoRA adapters by the names that requests ask for, a PEFT directory each, from the project's folder; "
            "answered by their base's engine.",
        )
    )
    share_base: bool = Field(
        default=True,
        description="A model tuned with an adapter is answered by its base's engine under the adapter. false: by merged weights of its own, "
        "a little faster alone, with the memory of a whole model.",
    )
    draft: str | None = Field(
        default=None,
        description="A small model with the same tokenizer that guesses what comes, which the large one checks; answers stay the same. "
        "None: guesses come from the text so far.",
    )
    require_key: bool = Field(
        default=False, description="Ask for a key on this machine too. Beyond this machine a key is always asked for."
    )
    allowed_hosts: list[str] = Field(
        default=[],
        description="Names under which the server may be called besides its own address, such as gpt.example.com.",
    )
    cors_origins: list[str] = Field(
        default=[],
        description="Pages of other sites that may call the API, such as https://app.example.com. Empty: none.",
    )
    tls_cert: str | None = Field(
        default=None, description="File with the certificate chain (PEM). With tls_key the server speaks HTTPS only."
    )
    tls_key: str | None = Field(default=None, description="File with the certificate's private key (PEM).")
    max_body: Size = Field(default=4_000_000, gt=0, description="Largest request body. Bytes.")
    max_upload: Size = Field(default=100_000_000, gt=0, description="Largest uploaded file. Bytes.")
    max_stored: Size = Field(default=1_000_000_000, gt=0, description="All files of one key together. Bytes.")
    max_concurrent: int = Field(
        default=64, gt=0, description="Answers generated at once; more requests get 429. Requests."
    )
    requests_per_minute: int | None = Field(
        default=None, gt=0, description="Requests a minute for each key that has no limit of its own. None: no limit."
    )
    tokens_per_minute: int | None = Field(
        default=None, gt=0, description="Tokens a minute for each key that has no limit of its own. None: no limit."
    )
    tokens_per_day: int | None = Field(
        default=None, gt=0, description="Tokens a day (UTC) for each key that has no budget of its own. None: no limit."
    )
    batch_concurrent: int = Field(
        default=4, gt=0, description="Requests of batches worked on at once, while nobody waits. Requests."
    )
    files_kept: Duration = Field(
        default=30 * 86400.0,
        gt=0,
        description="Files of batches are deleted after this unless told otherwise. Seconds.",
    )
    responses_kept: Duration = Field(
        default=30 * 86400.0, gt=0, description="Stored responses are deleted after this. Seconds."
    )
    default_max_tokens: int = Field(
        default=512, gt=0, description="Longest answer when the request names none. Tokens."
    )
    request_timeout: Duration = Field(default=600.0, gt=0, description="Longest time for one answer. Seconds.")
    keep_alive: Duration = Field(
        default=15.0, gt=0, description="A stream without news sends a comment after this. Seconds."
    )
    drain_timeout: Duration = Field(
        default=30.0, ge=0, description="At the end (SIGTERM), running answers get this long to finish. Seconds."
    )
    log_format: Literal["text", "json"] = Field(default="text", description="Form of the log's lines.")
    log_text: bool = Field(
        default=False, description="Whether prompts and answers are written to the log, personal data masked."
    )
    traces: bool = Field(
        default=False,
        description="Send OpenTelemetry traces to OTEL_EXPORTER_OTLP_ENDPOINT (needs the extra otel).",
    )

    @model_validator(mode="after")
    def _both_halves_of_tls(self) -> "ServeConfig":
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key belong together")
        if "*" in self.cors_origins:
            raise ValueError("cors_origins names sites; every site (*) would open the API to any page one visits")
        return self

    @property
    def is_local(self) -> bool:
        """Whether only this machine can reach the server."""
        return is_loopback(self.host)

    @property
    def asks_for_key(self) -> bool:
        """Whether requests need a key."""
        return self.require_key or not self.is_local


def is_loopback(host: str) -> bool:
    """Whether a host name or address means this machine. Any other name could lead anywhere, so it does not count."""
    name = host.strip("[]").lower()
    if name == "localhost":
        return True
    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False


@dataclass(frozen=True)
class ModelInfo:
    """A model in the list.

    Attributes:
        id: its full id, or an alias.
        created: Unix time, seconds.
        owned_by: who made it.
        root: the full id that an alias stands for now; None when ``id`` is full itself.
        parent: of an adapter, the model that it changes.
    """

    id: str
    created: int
    owned_by: str = "gptwright"
    root: str | None = None
    parent: str | None = None
