"""How an answer is generated: the settings a caller may choose for one request."""

from pydantic import Field, field_validator

from gptwright.core.config import Config


class GenerationConfig(Config):
    """Settings of one request. Filters act in this order: repetition penalty, temperature, top-k, top-p, min-p."""

    max_tokens: int = Field(
        default=256, ge=1, description="Most tokens to generate; the context's end may come first. Tokens."
    )
    temperature: float = Field(
        default=0.8,
        ge=0.0,
        le=10.0,
        description="Divides the logits. Below 0.0001 the likeliest token is taken always (greedy).",
    )
    top_k: int = Field(
        default=0, ge=0, description="Keep the k likeliest tokens (and those tied with the last). 0: all."
    )
    top_p: float = Field(
        default=1.0, gt=0.0, le=1.0, description="Keep the likeliest tokens that together have this probability."
    )
    min_p: float = Field(
        default=0.0, ge=0.0, le=1.0, description="Drop tokens less likely than this share of the likeliest."
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=0.01,
        le=10.0,
        description="Divides positive and multiplies negative logits of tokens seen before. 1: off.",
    )
    stop: tuple[str, ...] = Field(default=(), description="Texts that end the answer; they are not part of it.")
    stop_token_ids: tuple[int, ...] = Field(
        default=(), description="Further ids that end the answer, beside the model's own."
    )
    ignore_eos: bool = Field(default=False, description="Go on past the model's own end of answer (for measurements).")
    seed: int | None = Field(
        default=None,
        description="Same seed, same answer, whatever else runs beside it, on the same machine (instruction set, threads, torch version). "
        "None: a fresh one.",
    )
    top_logprobs: int = Field(
        default=0, ge=0, le=100, description="Report this many likeliest alternatives with each token."
    )

    @field_validator("stop", mode="before")
    @classmethod
    def _stop_texts(cls, value: object) -> object:
        texts = (value,) if isinstance(value, str) else () if value is None else value
        if isinstance(texts, list | tuple) and "" in texts:
            raise ValueError("an empty text would stop everything")
        return texts
