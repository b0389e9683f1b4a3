"""What is protected from leaking into training, and what counts as leaked."""

from pydantic import Field

from gptwright.core.config import Config


class DecontaminateConfig(Config):
    """Evaluation sets whose items must not be learned by heart, and how much of one in a paragraph is too much."""

    sets: list[str] = Field(
        default_factory=list,
        description="Files with evaluation items (jsonl, json, csv, tsv, parquet, yaml, toml, or text with one item a paragraph),"
        " or patterns such as evals/*.jsonl, relative to the project.",
    )
    suites: bool = Field(True, description="Protect the files of [evaluate] suites too.")
    fields: list[str] = Field(
        default_factory=list,
        description="Keys of a record that make up the item, in order. Empty: its question, answers and choices.",
    )
    overlap: float = Field(
        0.5,
        gt=0,
        le=1,
        description="Share of the word sequences of a paragraph, or of a line, that are an item's, from which the document is"
        " contaminated.",
    )
    words: int = Field(13, ge=4, le=64, description="Words in a sequence. Shorter items are compared whole.")
    shortest: int = Field(3, ge=1, le=12, description="Items of fewer words are not looked for, which the report says.")
    common_share: float = Field(
        0.001,
        ge=0,
        le=1,
        description="Sequences in more than this share of the documents are common (licences, proverbs) and do not count.",
    )
    common_least: int = Field(10, ge=2, description="In fewer distinct documents than this, nothing is common.")
