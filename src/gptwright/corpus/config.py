"""What a person says about their texts: where they are, what may be done with them, how much is held out."""

import re
from typing import Literal

from pydantic import Field, field_validator

from gptwright.core.config import Config
from gptwright.corpus.sources.options import ConsentOptions, CrawlOptions

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]*")


class SourceConfig(Config):
    """One source of text: a folder, a file, or an installed package, with the terms it comes under."""

    uri: str = Field(
        description="A folder or file (relative to the project or absolute), package:DIST[/glob] for files inside an"
        " installed Python distribution (the glob may hold alternatives, as in data/{ai,food}.yml), https://PAGE,"
        " sitemap:URL, feed:URL, crawl:URL, warc:PATH, git:URL_OR_FOLDER[@REVISION], wiki:DUMP, sql:URL#QUERY, hf:DATASET.",
    )
    license: str | None = Field(
        None, description="SPDX id of the licence. Overrides what the source itself says about it."
    )
    attribution: str | None = Field(None, description="Whom to name, as the licence asks.")
    weight: float = Field(1.0, gt=0, description="How often its text is shown in training, relative to the others.")
    contains_personal_data: Literal["yes", "no", "unknown"] = Field(
        "unknown", description="Whether people can be recognised in it. Goes to the data card."
    )
    pii: Literal["keep", "mask", "drop"] = Field(
        "mask",
        description="What happens to e-mail addresses, phone, account and card numbers and IPv4 addresses that are found:"
        " keep them, mask them by typed placeholders, or drop the document.",
    )
    tidy: bool = Field(
        False,
        description="Write chat turns as sentences: capital first letter, capital I, a final full stop. Kept as edits"
        " beside the text, which itself stays as it came.",
    )
    crawl: CrawlOptions = Field(
        CrawlOptions(), description="How pages are asked for, by https:, sitemap:, feed: and crawl:."
    )
    consent: ConsentOptions = Field(ConsentOptions(), description="What happens where a publisher asks not to train.")


class CorpusConfig(Config):
    """The texts a model is made from."""

    recipe: Literal["small", "none"] = Field(
        "small", description="Rules that drop documents: small has a few gentle ones, none keeps everything but copies."
    )
    sources: dict[str, SourceConfig] = Field(default_factory=dict, description="The sources by name.")
    heldout_share: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="Share of documents never trained on, used to measure. Fixed at the first build; raised when it would"
        " hold less than 64 KB.",
    )

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in sources:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a source's name has letters, digits, '-', '_' and '.' only, not {name!r}")
        return sources
