"""``/v1/responses`` and ``/v1/conversations``: what requests may hold, and the shapes of answers."""

from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from gptwright.serve.body import Body, Label, Metadata, Model
from gptwright.serve.schema import Tokens
from gptwright.serve.structure import JsonSchema, Name

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]
Include = Literal["message.output_text.logprobs", "reasoning.encrypted_content"]
"""What may be added to an answer. The second is what clients send by default; without hidden reasoning there is none to include."""


class InputPart(Body):
    """A part of a message; only text is understood."""

    unsupported = frozenset({"annotations", "logprobs", "prompt_cache_breakpoint"})
    type: Literal["input_text", "output_text", "text"]
    text: str

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_honoured(cls, data: Any) -> Any:
        # An answer of ours, sent back, brings its log probabilities; they tell the model nothing.
        return {k: v for k, v in data.items() if k not in cls.unsupported} if isinstance(data, dict) else data


class MessageItem(Body):
    """A message."""

    unsupported = frozenset({"phase"})
    type: Literal["message"] = "message"
    role: Literal["user", "assistant", "system", "developer"]
    content: str | list[InputPart]
    id: Id | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallItem(Body):
    """A function call of an earlier answer."""

    type: Literal["function_call"]
    call_id: Id
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    arguments: str
    id: Id | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


class CallOutputItem(Body):
    """What a function gave back."""

    type: Literal["function_call_output"]
    call_id: Id
    output: str | list[InputPart]
    id: Id | None = None
    status: Literal["in_progress", "completed", "incomplete"] | None = None


InputItem = MessageItem | CallItem | CallOutputItem


class TextFormat(Body):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: Name | None = None
    description: str | None = None
    schema_: JsonSchema | None = Field(default=None, alias="schema")
    strict: bool | None = None

    @model_validator(mode="after")
    def _schema_with_its_type(self) -> "TextFormat":
        if (self.type == "json_schema") != (self.schema_ is not None and self.name is not None):
            raise PydanticCustomError(
                "value", "json_schema needs name and schema, the others have none", {"field": "schema"}
            )
        return self


class TextOptions(Body):
    """How the answer's text must be."""

    unsupported = frozenset({"verbosity"})
    format: TextFormat | None = None


class ResponseTool(Body):
    """A function that may be called."""

    unsupported = frozenset({"output_schema", "defer_loading", "allowed_callers"})
    type: Literal["function"]
    name: Name
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class ResponseToolName(Body):
    """The function that must be called."""

    type: Literal["function"]
    name: Name


class ConversationName(Body):
    """A conversation by its id."""

    id: Id


class ResponseStreamOptions(Body):
    """Options of a stream."""

    unsupported = frozenset({"include_obfuscation"})


class ResponseRequest(Body):
    """``POST /v1/responses``."""

    unsupported = frozenset(
        {"context_management", "max_tool_calls", "moderation", "prompt", "prompt_cache_options"}
        | {"prompt_cache_retention", "reasoning", "service_tier"}
    )
    model: Model
    input: str | Annotated[list[InputItem], Field(min_length=1, max_length=10_000)]
    background: bool | None = Field(
        default=None, description="Answer although nobody stays to listen; ask for it by its id. It is always stored."
    )
    instructions: str | None = Field(default=None, description="A system message for this response only.")
    previous_response_id: Id | None = Field(default=None, description="Go on after this stored response.")
    conversation: Id | ConversationName | None = Field(
        default=None, description="Go on with this conversation, and add this turn to it."
    )
    include: list[Include] | None = Field(default=None, max_length=10)
    max_output_tokens: Tokens | None = None
    metadata: Metadata | None = None
    parallel_tool_calls: bool | None = None
    prompt_cache_key: Label | None = Field(default=None, description="A hint; here all prompts share one cache.")
    safety_identifier: Label | None = Field(default=None, description="For whom; a hash of it is kept with the usage.")
    store: bool | None = Field(default=None, description="Whether it may be asked for again; personal data is masked.")
    stream: bool | None = False
    stream_options: ResponseStreamOptions | None = None
    temperature: float | None = Field(default=None, ge=0, le=2)
    text: TextOptions | None = None
    tool_choice: Literal["none", "auto", "required"] | ResponseToolName | None = None
    tools: list[ResponseTool] | None = Field(default=None, max_length=128)
    top_logprobs: int | None = Field(default=None, ge=0, le=20)
    top_p: float | None = Field(default=None, gt=0, le=1)
    truncation: Literal["auto", "disabled"] | None = None
    user: Label | None = Field(default=None, description="Older name of safety_identifier.")

    @model_validator(mode="after")
    def _consistent(self) -> "ResponseRequest":
        if self.previous_response_id is not None and self.conversation is not None:
            raise PydanticCustomError(
                "value", "give either previous_response_id or conversation", {"param": "previous_response_id"}
            )
        if self.background and self.store is False:
            raise PydanticCustomError("value", "a response in the background is stored", {"param": "background"})
        if self.stream_options is not None and not self.stream:
            raise PydanticCustomError("value", "only together with stream: true", {"param": "stream_options"})
        return self

    @property
    def conversation_id(self) -> str | None:
        """The conversation's id."""
        return self.conversation.id if isinstance(self.conversation, ConversationName) else self.conversation

    @property
    def wants_logprobs(self) -> bool:
        """Whether log probabilities were asked for."""
        return bool(self.include and "message.output_text.logprobs" in self.include)

    @property
    def items(self) -> list[InputItem]:
        """The input as items."""
        return [MessageItem(role="user", content=self.input)] if isinstance(self.input, str) else list(self.input)


class ConversationRequest(Body):
    """``POST /v1/conversations``."""

    items: list[InputItem] | None = Field(default=None, max_length=20)
    metadata: Metadata | None = None


class ConversationUpdate(Body):
    """``POST /v1/conversations/{id}``."""

    metadata: Metadata | None


class ItemsRequest(Body):
    """``POST /v1/conversations/{id}/items``."""

    items: list[InputItem] = Field(min_length=1, max_length=20)


class InputTokenDetails(BaseModel):
    """Of the tokens read."""

    cached_tokens: int = 0
    cache_write_tokens: int = 0


class OutputTokenDetails(BaseModel):
    """Of the tokens generated."""

    reasoning_tokens: int = 0


class ResponseUsage(BaseModel):
    """Tokens of one response."""

    input_tokens: int
    input_tokens_details: InputTokenDetails = InputTokenDetails()
    output_tokens: int
    output_tokens_details: OutputTokenDetails = OutputTokenDetails()
    total_tokens: int


class ResponseObject(BaseModel):
    """A response."""

    id: str
    object: Literal["response"] = "response"
    created_at: int
    completed_at: int | None = None
    status: Literal["in_progress", "completed", "incomplete", "failed", "cancelled"]
    background: bool = False
    error: dict[str, str] | None = None
    incomplete_details: dict[str, str] | None = None
    instructions: str | None
    max_output_tokens: int | None
    model: str
    output: list[dict[str, Any]]
    parallel_tool_calls: bool
    previous_response_id: str | None
    conversation: dict[str, str] | None
    store: bool
    temperature: float
    text: dict[str, Any]
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    top_logprobs: int
    top_p: float
    truncation: Literal["auto", "disabled"]
    usage: ResponseUsage | None = None
    metadata: dict[str, str]

    def shape(self) -> dict[str, Any]:
        """As it is sent: while nothing is counted there is no usage, for OpenAI's clients know no null there."""
        return self.model_dump(exclude=None if self.usage is not None else {"usage"})


class ItemList(BaseModel):
    """Items, a page of them."""

    object: Literal["list"] = "list"
    data: list[dict[str, Any]]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Conversation(BaseModel):
    """A conversation."""

    id: str
    object: Literal["conversation"] = "conversation"
    created_at: int
    metadata: dict[str, str]


class Deleted(BaseModel):
    """What was deleted."""

    id: str
    object: str
    deleted: Literal[True] = True


class InputTokens(BaseModel):
    """How many tokens a request would take in."""

    object: Literal["response.input_tokens"] = "response.input_tokens"
    input_tokens: int


def to_messages(items: list[InputItem], instructions: str | None) -> list[dict[str, Any]]:
    """Items as the turns of a chat. Calls of one answer become one turn."""
    turns: list[dict[str, Any]] = [{"role": "system", "content": instructions}] if instructions else []
    for item in items:
        if isinstance(item, MessageItem):
            turns.append({"role": item.role, "content": _text(item.content)})
        elif isinstance(item, CallOutputItem):
            turns.append({"role": "tool", "tool_call_id": item.call_id, "content": _text(item.output)})
        else:
            call = {"id": item.call_id, "function": {"name": item.name, "arguments": item.arguments}}
            if not turns or turns[-1]["role"] != "assistant":
                turns.append({"role": "assistant", "content": None})
            turns[-1].setdefault("tool_calls", []).append(call)
    return turns


def _text(content: str | list[InputPart]) -> str:
    return content if isinstance(content, str) else "".join(part.text for part in content)
