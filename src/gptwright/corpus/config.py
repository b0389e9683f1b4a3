"""What a person says about their texts: where they are, what may be done with them, how much is held out."""

import re
from typing import Any, Literal, get_args

from pydantic import Field, field_validator

from gptwright.core.config import Config
from gptwright.corpus.decontaminate.config import DecontaminateConfig
from gptwright.corpus.dedup.config import DedupConfig
from gptwright.corpus.sources.options import ConsentOptions, CrawlOptions

PiiAction = Literal["keep", "mask", "pseudonymize", "drop"]
# What most people write, so that reading a configuration need not load all licences.
_LICENCE = re.compile(
    r"MIT|Apache-2\.0|BSD-[23]-Clause|CC0-1\.0|CC-BY(-NC)?(-SA|-ND)?-4\.0|[AL]?GPL-[23]\.[01]-(only|or-later)|LicenseRef-[A-Za-z0-9.-]+"
)
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
    pii: PiiAction | dict[str, PiiAction] = Field(
        "mask",
        description="What happens to personal data and secrets that rules find: keep, mask by typed placeholders, pseudonymize"
        " (keyed, consistent within a document), or drop the document. Or by kind, such as"
        ' { default = "keep", email = "mask" }; secrets are masked unless secret = "keep" is said.',
    )
    pii_names: bool = Field(False, description='Look for names of people too, which needs the extra "presidio".')
    tidy: bool = Field(
        False,
        description="Write chat turns as sentences: capital first letter, capital I, a final full stop. Kept as edits"
        " beside the text, which itself stays as it came.",
    )
    crawl: CrawlOptions = Field(
        CrawlOptions(), description="How pages are asked for, by https:, sitemap:, feed: and crawl:."
    )
    consent: ConsentOptions = Field(ConsentOptions(), description="What happens where a publisher asks not to train.")

    @field_validator("pii", mode="before")
    @classmethod
    def _pii(cls, pii: Any) -> Any:
        if isinstance(pii, dict):  # only then, for it loads what finds personal data
            from gptwright.core.errors import UserError
            from gptwright.corpus.privacy.policy import Policy

            try:
                Policy.of(pii)
            except UserError as error:
                raise ValueError(str(error).rstrip(".")) from error
        elif pii not in get_args(PiiAction):
            raise ValueError(f"write one of {', '.join(get_args(PiiAction))}, or a table of these by kind")
        return pii

    @field_validator("license")
    @classmethod
    def _license(cls, license: str | None) -> str | None:
        if license is not None and license.strip().lower() in ("", "unknown", "none"):
            return None
        if license is not None and not _LICENCE.fullmatch(license):
            from gptwright.corpus.licences.names import normalise  # which takes its time

            if normalise(license) is None:
                raise ValueError(
                    "no licence is known by this name; write an SPDX id such as CC-BY-4.0, or LicenseRef-NAME"
                )
        return license


class MixConfig(Config):
    """How often text is shown in training, beside the sources' weights."""

    temperature: float = Field(
        1.0,
        gt=0,
        description="Above 1, small sources are shown more often and large ones less: a source's share goes by its size to the power"
        " 1/temperature. 1 leaves sizes as they are.",
    )
    max_epochs: float | None = Field(
        None, gt=0, description="No document is shown more often than this in one pass, whatever weights ask for."
    )
    quality: str | None = Field(
        None,
        description="A signal, such as a quality score: within a source, documents with more of it are shown more often.",
    )
    quality_spread: float = Field(
        2.0, ge=1, description="The best document of a source is shown this much more often, the worst this much less."
    )


class QualityConfig(Config):
    """Scores of documents by classifiers that were trained here, and by lists of words; each becomes a signal that rules can use."""

    models: dict[str, str] = Field(
        default_factory=dict,
        description='Signal name -> folder of a classifier that data label trained, such as edu = "state/models/quality".',
    )
    lists: list[str] = Field(
        default_factory=list,
        description="Files or folders of flagged words, one a line; they give the signal flagged_words.",
    )


class CorpusConfig(Config):
    """The texts a model is made from."""

    recipe: str = Field(
        "small",
        description="Rules that drop documents: small (a few gentle ones), none (only copies), fineweb, gopher, c4, books, code,"
        " chat, or a file of your own such as recipes/mine.toml.",
    )
    sources: dict[str, SourceConfig] = Field(default_factory=dict, description="The sources by name.")
    heldout_share: float = Field(
        0.01,
        ge=0,
        lt=0.5,
        description="Share of documents never trained on, used to measure. Fixed at the first build; raised when it would"
        " hold less than 64 KB.",
    )
    dedup: DedupConfig = Field(DedupConfig(), description="What counts as a copy.")
    decontaminate: DecontaminateConfig = Field(
        DecontaminateConfig(), description="Evaluation sets that must not be learned by heart."
    )
    quality: QualityConfig = Field(QualityConfig(), description="Scores by classifiers of your own.")
    mix: MixConfig = Field(MixConfig(), description="How often text is shown in training.")
    storage: str | None = Field(
        None, description="fsspec URL that all nodes of a Ray cluster reach, when they share no file system."
    )

    @field_validator("sources")
    @classmethod
    def _names(cls, sources: dict[str, SourceConfig]) -> dict[str, SourceConfig]:
        for name in sources:
            if not _NAME.fullmatch(name):
                raise ValueError(f"a source's name has letters, digits, '-', '_' and '.' only, not {name!r}")
        return sources
