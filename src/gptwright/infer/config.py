"""How an answer is generated: the settings a caller may choose for one request."""

from typing import Annotated, Literal

from pydantic import Field, field_validator

from gptwright.core.config import Config


class Form(Config):
    """What an answer must look like; kept token by token while it is generated (extra ``serve``)."""

    kind: Literal["json_schema", "regex", "lark"] = Field(
        description="A JSON schema (the whole answer is one JSON text), a regular expression for the whole answer, or a Lark grammar."
    )
    text: str = Field(description="The schema as JSON, the expression, or the grammar.")
    lenient: bool = Field(
        default=False, description="Of a schema: pass over keywords that cannot be kept, instead of refusing them."
    )
    control_ids: tuple[int, ...] = Field(
        default=(), description="Control tokens that a grammar may place. All others stay out of reach."
    )
    asked_by: str = Field(default="form", description="The field that faults are named after.")


class GenerationConfig(Config):
    """Settings of one request.

    They act in this order: logit bias, repetition, frequency and presence penalty, form, temperature, top-k, top-p, min-p, typical.
    """

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
    typical_p: float = Field(
        default=1.0,
        gt=0.0,
        le=1.0,
        description="Keep the tokens whose information is nearest to the expected one, up to this probability. 1: off.",
    )
    repetition_penalty: float = Field(
        default=1.0,
        ge=0.01,
        le=10.0,
        description="Divides positive and multiplies negative logits of tokens seen before. 1: off.",
    )
    frequency_penalty: float = Field(
        default=0.0, ge=-2.0, le=2.0, description="Taken off a token's logit for each time it was generated."
    )
    presence_penalty: float = Field(
        default=0.0, ge=-2.0, le=2.0, description="Taken off a token's logit once it was generated."
    )
    logit_bias: dict[Annotated[int, Field(ge=0)], Annotated[float, Field(ge=-100, le=100, allow_inf_nan=False)]] = (
        Field(default_factory=dict, description="Added to the logits of these token ids. -100 all but forbids one.")
    )
    form: Form | None = Field(default=None, description="The form that the answer must have. None: free text.")
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
    logprobs: bool = Field(
        default=True,
        description="Whether anybody looks at the tokens' log-probabilities. The built-in engine has them anyway; others work for them.",
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
