"""What requests may hold. Every field is honoured or refused by name; nothing is dropped in silence.

Fields of OpenAI's API that we do not have are refused, unless they carry the value that asks for nothing: clients send
``n: 1`` or ``frequency_penalty: 0`` all the time.
"""

import json
from typing import Annotated, Any, ClassVar, Literal

from pydantic import (
    BaseModel,
    ConfigDict,
    Field,
    StrictBool,
    StrictFloat,
    StrictInt,
    StrictStr,
    StringConstraints,
    field_validator,
    model_validator,
)
from pydantic_core import PydanticCustomError

_NOTHING: dict[str, tuple[Any, ...]] = {
    "n": (1,),
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "best_of": (1,),
    "echo": (False,),
    "suffix": ("",),
    "tools": ([],),
    "tool_choice": ("none", "auto"),
    "parallel_tool_calls": (True, False),
    "functions": ([],),
    "function_call": ("none",),
    "response_format": ({"type": "text"},),
    "modalities": (["text"],),
    "store": (False,),
    "service_tier": ("auto", "default"),
    "metadata": ({},),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "verbosity": (),
    "reasoning_effort": (),
    "moderation": (),
    "user": (),
    "safety_identifier": (),
    "prompt_cache_key": (),
    "prompt_cache_retention": (),
    "prompt_cache_options": (),
}
"""Fields that we do not honour, and the values besides null that ask for nothing."""

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
Model = Annotated[str, Field(min_length=1, max_length=300, description="Id or alias of a model, or provider:model.")]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]


class Body(BaseModel):
    """A request body that is closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    unsupported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_honoured(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if (where := _broken_text(data)) is not None:
            raise PydanticCustomError("unicode", "half a surrogate pair is not text", {"param": where})
        kept = {}
        for name, value in data.items():
            if name not in cls.unsupported:
                kept[name] = value
            elif value is not None and not any(_same(value, neutral) for neutral in _NOTHING[name]):
                raise _refusal(name)
        return kept


def _broken_text(data: Any) -> str | None:
    """Where a text holds half a surrogate pair, which JSON can write and UTF-8 cannot; None if nowhere."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
        return None
    except UnicodeEncodeError:
        pass
    if isinstance(data, dict):
        pairs = [(str(key), value) for key, value in data.items()]
    else:
        pairs = [(f"[{index}]", value) for index, value in enumerate(data)] if isinstance(data, list) else []
    for name, value in pairs:
        if (inner := _broken_text(value)) is not None:
            name += inner if not inner or inner.startswith(("[", ".")) else "." + inner
            return name.encode(errors="replace").decode()
    return ""


def _same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)


def _refusal(param: str) -> PydanticCustomError:
    return PydanticCustomError("unsupported", "not supported by this server", {"param": param})


class StreamOptions(Body):
    """Options of a streamed answer."""

    include_usage: bool = Field(default=False, description="Send token counts in a last chunk.")
    include_obfuscation: Literal[False] | None = Field(default=None, description="Padding is never sent.")


class Sampling(Body):
    """How to generate; what chat and plain completions have in common."""

    model: Model
    stream: bool | None = Field(default=False, description="Send the answer in pieces as server-sent events.")
    stream_options: StreamOptions | None = Field(default=None, description="Only together with stream.")
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 takes the likeliest token always.")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Keep the likeliest tokens up to this probability."
    )
    top_k: int | None = Field(default=None, ge=0, le=1_000_000, description="Keep the k likeliest tokens; 0 keeps all.")
    min_p: float | None = Field(default=None, ge=0, le=1, description="Drop tokens below this share of the likeliest.")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="1 is off.")
    stop: StopText | list[StopText] | None = Field(default=None, description="Up to 4 texts that end the answer.")
    seed: Seed | None = Field(default=None, description="Same seed, same answer.")
    max_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Most tokens of the answer.")

    @field_validator("stop")
    @classmethod
    def _at_most_four(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > 4:
            raise ValueError("at most 4 stop texts")
        return value

    @model_validator(mode="after")
    def _options_need_a_stream(self) -> "Sampling":
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("stream_options", "only together with stream: true", {"param": "stream_options"})
        return self

    @property
    def stop_texts(self) -> tuple[str, ...]:
        """The stop texts, none, one or several."""
        return (self.stop,) if isinstance(self.stop, str) else tuple(self.stop or ())

    @property
    def token_limit(self) -> int | None:
        """The longest answer asked for. Tokens."""
        return self.max_tokens

    @property
    def wants_usage(self) -> bool:
        """Whether a stream ends with token counts."""
        return self.stream_options is not None and self.stream_options.include_usage


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class ChatMessage(Body):
    """One turn of a conversation."""

    unsupported = frozenset({"name", "tool_calls", "function_call", "refusal", "audio", "annotations"})
    role: Literal["system", "developer", "user", "assistant"]
    content: str | list[TextPart]

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_honoured(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        for name in cls.unsupported & data.keys():
            # An answer of ours, sent back as history by the official client, holds these with null or nothing in them.
            if data[name] not in (None, []):
                raise PydanticCustomError("unsupported", f"{name} is not supported by this server", {})
        return {name: value for name, value in data.items() if name not in cls.unsupported}

    @property
    def plain(self) -> dict[str, str]:
        """Role and text, as the renderer takes them; ``developer`` is today's word for ``system``."""
        text = self.content if isinstance(self.content, str) else "".join(part.text for part in self.content)
        return {"role": "system" if self.role == "developer" else self.role, "content": text}


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    unsupported = frozenset(_NOTHING) - {"best_of", "echo", "suffix"}
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: int | None = Field(default=None, ge=1, le=1_000_000, description="Newer name of max_tokens.")
    logprobs: bool | None = Field(default=False, description="Send the log probability of each token.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="And of this many likeliest alternatives.")
    truncation: Literal["disabled", "auto"] | None = Field(
        default=None,
        description="What to do when the conversation is longer than the model's context: refuse it (disabled), or drop the "
        "oldest turns (auto); the header x-gptwright-dropped-messages says how many.",
    )

    @model_validator(mode="after")
    def _consistent(self) -> "ChatRequest":
        if self.top_logprobs and not self.logprobs:
            raise PydanticCustomError("top_logprobs", "only together with logprobs: true", {"param": "top_logprobs"})
        if None not in (self.max_tokens, self.max_completion_tokens) and self.max_tokens != self.max_completion_tokens:
            raise PydanticCustomError("max_tokens", "differs from max_completion_tokens", {"param": "max_tokens"})
        return self

    @property
    def token_limit(self) -> int | None:
        """The longest answer asked for. Tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def plain(self) -> list[dict[str, str]]:
        """The conversation as roles and texts."""
        return [message.plain for message in self.messages]


class CompletionRequest(Sampling):
    """``POST /v1/completions``."""

    unsupported = frozenset(
        {"n", "frequency_penalty", "presence_penalty", "logit_bias", "best_of", "echo", "suffix", "user"}
    )
    prompt: str
    logprobs: int | None = Field(default=None, ge=0, le=5, description="Alternatives to report with each token.")

    @field_validator("prompt", mode="before")
    @classmethod
    def _one_text(cls, value: Any) -> Any:
        if isinstance(value, list):
            raise PydanticCustomError("unsupported", "only one text is supported, no lists and no token ids", {})
        return value


class TokenizeRequest(Body):
    """``POST /tokenize``: a text or a conversation to token ids."""

    model: Model
    prompt: str | None = None
    messages: list[ChatMessage] | None = Field(default=None, min_length=1, max_length=10_000)
    add_generation_prompt: bool = True
    return_token_strs: bool = False

    @model_validator(mode="after")
    def _one_of_two(self) -> "TokenizeRequest":
        if (self.prompt is None) == (self.messages is None):
            raise PydanticCustomError("missing", "give either prompt or messages", {"param": "prompt"})
        return self


class DetokenizeRequest(Body):
    """``POST /detokenize``: token ids to text."""

    model: Model
    tokens: list[Annotated[int, Field(ge=0, lt=2**31)]] = Field(max_length=1_000_000)


FeedbackKey = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,40}$")]
FeedbackItem = StrictBool | StrictInt | StrictFloat | StrictStr


class FeedbackRequest(Body):
    """``POST /v1/feedback``: a judgement of an answer."""

    model: Model
    kind: Literal["thumb", "rating", "edit", "comment"]
    value: dict[FeedbackKey, FeedbackItem] = Field(
        max_length=20, description='Flat, such as {"up": true} or {"text": "a better answer"}; texts are masked.'
    )
    messages: list[ChatMessage] = Field(default_factory=list, max_length=10_000)
    consent: bool = Field(
        default=False, description="Whether the conversation may be kept. Without it only the judgement is."
    )
