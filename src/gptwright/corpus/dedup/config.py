"""What counts as a copy: near duplicates, boilerplate lines, repeated spans. Every threshold of deduplication stands here."""

from pydantic import Field

from gptwright.core.config import Config


class DedupConfig(Config):
    """Near duplicates are dropped whole; boilerplate lines and repeated spans are taken out of the documents that keep them not first."""

    near: bool = Field(True, description="Look for near duplicates. Exact copies are always found.")
    jaccard: float = Field(
        0.8,
        ge=0.5,
        le=1,
        description="Two texts are copies when they share this much of their sequences of five words.",
    )
    containment: float = Field(
        0.95,
        ge=0.5,
        le=1,
        description="A text is a copy of another, no shorter one that holds this much of its sequences of five words."
        " Found only for texts that are alike enough to be compared at all.",
    )
    short_words: int = Field(
        25, ge=5, le=200, description="Texts of fewer words are compared by sequences of five characters."
    )
    short_jaccard: float = Field(
        0.9, ge=0.5, le=1, description="Two short texts are copies when they share this much of those."
    )
    numbers_differ: bool = Field(
        True,
        description="Texts that differ in numbers differ: exercises and tables of one pattern are kept. When false, all numbers"
        " are taken for the same, as datatrove does.",
    )
    bands: int = Field(
        16, ge=4, le=64, description="Groups of MinHash values; more find more of the weakly similar pairs."
    )
    rows: int = Field(7, ge=2, le=16, description="MinHash values in a group; more make fewer comparisons.")
    hub: int = Field(
        1000,
        ge=4,
        description="More texts than this with one key are boilerplate: they are compared with a few of them only.",
    )
    representatives: int = Field(64, ge=1, description="How many of them.")
    lines: bool = Field(True, description="Take out boilerplate lines and paragraphs of plain texts.")
    line_words: int = Field(4, ge=1, description="Lines of fewer words are never boilerplate.")
    line_documents: int = Field(200, ge=2, description="A line in this many different texts is boilerplate.")
    line_share: float = Field(0.5, gt=0, le=1, description="So is a line in this share of the texts of a source ...")
    line_share_least: int = Field(50, ge=2, description="... when these are at least so many.")
    spans: bool = Field(True, description="Take out repeated spans of plain texts.")
    span_words: int = Field(50, ge=20, le=1000, description="Spans of fewer words are not looked for.")
