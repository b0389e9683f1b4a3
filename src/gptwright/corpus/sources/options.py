"""Settings of sources that are gathered from elsewhere."""

from typing import Literal

from pydantic import Field, model_validator

from gptwright.core.config import Config, Duration, Size


class CrawlOptions(Config):
    """How pages are asked for: politely, within limits."""

    depth: int = Field(3, ge=0, description="Links followed from the first page.")
    max_pages: int = Field(1000, ge=1, description="Pages at most.")
    max_page: Size = Field(10_000_000, ge=1, description="Bytes of one page at most, unpacked.")
    max_total: Size = Field(2_000_000_000, ge=1, description="Bytes of all pages at most.")
    delay: Duration = Field(
        1.0, ge=0, description="Time between two requests to one host; a longer Crawl-delay is honoured."
    )
    timeout: Duration = Field(30.0, gt=0, description="Time for one page, from asking to its last byte.")
    hosts: list[str] = Field(
        default_factory=list,
        description="Hosts that may be visited, such as example.org or *.example.org; none: the first page's own.",
    )
    allow_private: bool = Field(
        False, description="Whether addresses of this machine and of private networks may be asked."
    )
    user_agent: str = Field(
        "", description="Added to the name that servers are told, such as your address; the name stays gptwright."
    )


class ConsentOptions(Config):
    """What happens to texts whose publisher asks not to train on them."""

    policy: Literal["respect", "override"] = Field(
        "respect", description="respect drops texts with an opt-out signal; override keeps them and needs a reason."
    )
    reason: str | None = Field(None, description="Why an opt-out is overridden; it goes to the dataset card.")

    @model_validator(mode="after")
    def _reasoned(self) -> "ConsentOptions":
        if self.policy == "override" and not (self.reason and self.reason.strip()):
            raise ValueError("overriding an opt-out needs a reason, which the dataset card will carry")
        return self
