"""What requests for generated text may hold: chats and plain completions."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, field_validator, model_validator
from pydantic_core import PydanticCustomError

from gptwright.serve.body import Body, Label, Metadata, Model
from gptwright.serve.structure import FunctionTool, ResponseFormat, ToolChoice

Seed = Annotated[int, Field(ge=-(2**63), lt=2**63)]
StopText = Annotated[str, StringConstraints(min_length=1, max_length=1000)]
TokenId = Annotated[int, Field(ge=0, lt=2**31, strict=True)]
Penalty = Annotated[float, Field(ge=-2, le=2)]
Tokens = Annotated[int, Field(ge=1, le=1_000_000)]


class StreamOptions(Body):
    """Options of a streamed answer."""

    unsupported = frozenset({"include_obfuscation"})
    include_usage: bool = Field(default=False, description="Send token counts in a last chunk.")


class Sampling(Body):
    """How to generate; what chat and plain completions have in common."""

    model: Model
    stream: bool | None = Field(default=False, description="Send the answer in pieces as server-sent events.")
    stream_options: StreamOptions | None = Field(default=None, description="Only together with stream.")
    n: int | None = Field(
        default=None, ge=1, le=128, strict=True, description="How many answers. With a seed, the i-th uses seed + i."
    )
    temperature: float | None = Field(default=None, ge=0, le=2, description="0 takes the likeliest token always.")
    top_p: float | None = Field(
        default=None, gt=0, le=1, description="Keep the likeliest tokens up to this probability."
    )
    top_k: int | None = Field(default=None, ge=0, le=1_000_000, description="Keep the k likeliest tokens; 0 keeps all.")
    min_p: float | None = Field(default=None, ge=0, le=1, description="Drop tokens below this share of the likeliest.")
    typical_p: float | None = Field(default=None, gt=0, le=1, description="Keep tokens of usual information; 1 is off.")
    repetition_penalty: float | None = Field(default=None, ge=0.01, le=10, description="1 is off.")
    frequency_penalty: Penalty | None = Field(
        default=None, description="Taken off a token's logit for each time it was generated."
    )
    presence_penalty: Penalty | None = Field(
        default=None, description="Taken off a token's logit once it was generated."
    )
    logit_bias: (
        dict[Annotated[str, StringConstraints(pattern=r"^\d{1,9}$")], Annotated[float, Field(ge=-100, le=100)]] | None
    ) = Field(default=None, max_length=10_000, description="Added to the logits of these token ids.")
    stop: StopText | list[StopText] | None = Field(default=None, description="Up to 4 texts that end the answer.")
    seed: Seed | None = Field(default=None, description="Same seed, same answer.")
    max_tokens: Tokens | None = Field(default=None, description="Most tokens of the answer.")
    user: Label | None = Field(default=None, description="For whom; a hash of it is kept with the usage.")

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

    @property
    def end_user(self) -> str | None:
        """For whom the caller asks, if it says so."""
        return self.user


class TextPart(BaseModel):
    """A part of a message; only text is understood."""

    model_config = ConfigDict(extra="forbid")
    type: Literal["text"]
    text: str


class CalledFunction(Body):
    """A function that the model called."""

    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    arguments: str


class ToolCall(Body):
    """A call in an earlier answer."""

    id: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    type: Literal["function"] = "function"
    function: CalledFunction


class ChatMessage(Body):
    """One turn of a conversation."""

    unsupported = frozenset({"name", "function_call", "refusal", "audio", "annotations"})
    role: Literal["system", "developer", "user", "assistant", "tool"]
    content: str | list[TextPart] | None = Field(default=None, description="Null only where an assistant calls tools.")
    tool_calls: list[ToolCall] | None = Field(default=None, max_length=128)
    tool_call_id: Annotated[str, StringConstraints(min_length=1, max_length=128)] | None = None

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

    @model_validator(mode="after")
    def _whole(self) -> "ChatMessage":
        if self.content is None and not self.tool_calls:
            raise PydanticCustomError("missing", "a message needs content", {"field": "content"})
        if self.tool_calls and self.role != "assistant":
            raise PydanticCustomError("value", "only an assistant calls tools", {"field": "tool_calls"})
        if (self.tool_call_id is not None) != (self.role == "tool"):
            raise PydanticCustomError("value", "belongs to role tool, which needs it", {"field": "tool_call_id"})
        return self

    @property
    def plain(self) -> dict[str, Any]:
        """Role and text, as the renderer takes them; ``developer`` is today's word for ``system``."""
        content = self.content or ""
        text = content if isinstance(content, str) else "".join(part.text for part in content)
        turn: dict[str, Any] = {"role": "system" if self.role == "developer" else self.role, "content": text}
        return {**turn, "tool_calls": [call.model_dump() for call in self.tool_calls]} if self.tool_calls else turn


class ChatRequest(Sampling):
    """``POST /v1/chat/completions``."""

    unsupported = frozenset(
        {"functions", "function_call", "modalities", "service_tier", "audio", "prediction"}
        | {"web_search_options", "verbosity", "reasoning_effort", "moderation", "prompt_cache_retention"}
        | {"prompt_cache_options"}
    )
    messages: list[ChatMessage] = Field(min_length=1, max_length=10_000)
    max_completion_tokens: Tokens | None = Field(default=None, description="Newer name of max_tokens.")
    logprobs: bool | None = Field(default=False, description="Send the log probability of each token.")
    top_logprobs: int | None = Field(default=None, ge=0, le=20, description="And of this many likeliest alternatives.")
    tools: list[FunctionTool] | None = Field(default=None, max_length=128, description="Functions that may be called.")
    tool_choice: ToolChoice | None = Field(default=None, description="Whether one may, must or must not be called.")
    parallel_tool_calls: bool | None = Field(default=None, description="Whether one answer may call several.")
    response_format: ResponseFormat | None = Field(default=None, description="The form of the answer.")
    safety_identifier: Label | None = Field(default=None, description="Newer name of user.")
    prompt_cache_key: Label | None = Field(
        default=None,
        description="A hint that prompts are alike; here all prompts share one cache, so it changes nothing.",
    )
    store: bool | None = Field(
        default=False, description="Keep the answer with its messages, to be asked for again; personal data masked."
    )
    metadata: Metadata | None = Field(default=None, description="Kept with the answer; only together with store.")
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
        if self.metadata and not self.store:
            raise PydanticCustomError("metadata", "only together with store: true", {"param": "metadata"})
        return self

    @property
    def token_limit(self) -> int | None:
        """The longest answer asked for. Tokens."""
        return self.max_completion_tokens or self.max_tokens

    @property
    def end_user(self) -> str | None:
        """For whom the caller asks, if it says so."""
        return self.safety_identifier or self.user

    @property
    def plain(self) -> list[dict[str, Any]]:
        """The conversation as roles and texts."""
        return [message.plain for message in self.messages]


Prompt = str | Annotated[list[TokenId], Field(min_length=1)]


class CompletionRequest(Sampling):
    """``POST /v1/completions``."""

    unsupported = frozenset({"suffix"})
    prompt: (
        str
        | Annotated[list[str], Field(min_length=1, max_length=2048)]
        | Annotated[list[TokenId], Field(min_length=1, max_length=1_000_000)]
        | Annotated[list[Annotated[list[TokenId], Field(min_length=1)]], Field(min_length=1, max_length=2048)]
    ) = Field(description="A text, token ids, or a list of either.")
    max_tokens: Annotated[int, Field(ge=0, le=1_000_000)] | None = Field(
        default=None, description="Most tokens of the answer; 0 only together with echo."
    )
    logprobs: int | None = Field(default=None, ge=0, le=20, description="Alternatives to report with each token.")
    echo: bool | None = Field(
        default=False, description="Begin with the prompt, and its log probabilities if asked for."
    )
    best_of: int | None = Field(
        default=None, ge=1, le=20, description="Generate this many and answer with the n likeliest for their length."
    )

    @model_validator(mode="after")
    def _consistent(self) -> "CompletionRequest":
        if self.best_of is not None and self.best_of < (self.n or 1):
            raise PydanticCustomError("best_of", "must not be below n", {"param": "best_of"})
        if self.best_of is not None and self.best_of > (self.n or 1) and self.stream:
            raise PydanticCustomError("best_of", "which is best is only known at the end", {"param": "best_of"})
        if self.max_tokens == 0 and not self.echo:
            raise PydanticCustomError("max_tokens", "0 only together with echo", {"param": "max_tokens"})
        return self

    @property
    def prompts(self) -> list[str | list[int]]:
        """The prompts, one or many."""
        if isinstance(self.prompt, str):
            return [self.prompt]
        if isinstance(self.prompt[0], int):
            return [list(self.prompt)]
        return list(self.prompt)
