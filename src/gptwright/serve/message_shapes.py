"""``/v1/messages``: what requests may hold, in Anthropic's shape, and the same as a chat."""

import json
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, StringConstraints, field_validator

from gptwright.serve.body import Body, Label, Model
from gptwright.serve.schema import StopText, Tokens
from gptwright.serve.structure import JsonSchema, Name

Id = Annotated[str, StringConstraints(min_length=1, max_length=128)]


class CacheControl(Body):
    """A hint that a prompt up to here comes again; here all prompts share one cache, so it changes nothing."""

    type: Literal["ephemeral"]
    ttl: Literal["5m", "1h"] | None = None


class Block(Body):
    """What blocks have in common."""

    cache_control: CacheControl | None = None


class TextBlock(Block):
    """Text."""

    unsupported = frozenset({"citations"})
    type: Literal["text"]
    text: str


class ToolUseBlock(Block):
    """A call in an earlier answer."""

    unsupported = frozenset({"caller"})
    type: Literal["tool_use"]
    id: Id
    name: Annotated[str, StringConstraints(min_length=1, max_length=128)]
    input: dict[str, Any]


class ToolResultBlock(Block):
    """What a tool gave back."""

    type: Literal["tool_result"]
    tool_use_id: Id
    content: str | list[TextBlock] | None = None
    is_error: bool | None = Field(default=None, description="The result begins with the word Error if it is one.")


class MessageTurn(Body):
    """One turn."""

    role: Literal["user", "assistant"]
    content: str | list[Annotated[TextBlock | ToolUseBlock | ToolResultBlock, Field(discriminator="type")]]


class MessageTool(Block):
    """A tool that may be called."""

    unsupported = frozenset({"defer_loading", "allowed_callers", "input_examples", "eager_input_streaming"})
    type: Literal["custom"] | None = None
    name: Name
    description: str | None = None
    input_schema: JsonSchema
    strict: bool | None = None


class MessageToolChoice(Body):
    """Whether a tool may, must or must not be called."""

    type: Literal["auto", "any", "tool", "none"]
    name: Name | None = None
    disable_parallel_tool_use: bool | None = None


class MessageMetadata(Body):
    """About the request."""

    user_id: Label | None = Field(default=None, description="For whom; a hash of it is kept with the usage.")


class CountRequest(Body):
    """``POST /v1/messages/count_tokens``."""

    unsupported = frozenset(
        {"thinking", "container", "mcp_servers", "context_management", "output_config", "inference_geo", "speed"}
    )
    model: Model
    messages: list[MessageTurn] = Field(min_length=1, max_length=10_000)
    system: str | list[TextBlock] | None = None
    tools: list[MessageTool] | None = Field(default=None, max_length=128)
    tool_choice: MessageToolChoice | None = None
    cache_control: CacheControl | None = None

    def to_messages(self) -> list[dict[str, Any]]:
        """The conversation as turns of a chat."""
        turns: list[dict[str, Any]] = [{"role": "system", "content": _text(self.system)}] if self.system else []
        for turn in self.messages:
            turns += _turns(turn)
        return turns

    def settings(self) -> dict[str, Any]:
        """Model, messages and tools in the terms of a chat."""
        tools = [
            {
                "type": "function",
                "function": {"name": tool.name, "description": tool.description, "parameters": tool.input_schema},
            }
            for tool in self.tools or ()
        ]
        given = self.tool_choice
        choice: Any = {"auto": "auto", "any": "required", "none": "none"}.get(given.type) if given is not None else None
        if given is not None and given.type == "tool":
            choice = {"type": "function", "function": {"name": given.name}}
        return {
            "model": self.model,
            "messages": self.to_messages(),
            "tools": tools or None,
            "tool_choice": choice,
            "parallel_tool_calls": not given.disable_parallel_tool_use if given is not None else None,
        }


class MessagesRequest(CountRequest):
    """``POST /v1/messages``."""

    unsupported = CountRequest.unsupported | {"service_tier"}
    max_tokens: Tokens
    metadata: MessageMetadata | None = None
    stop_sequences: list[StopText] | None = Field(default=None, description="Up to 4 texts that end the answer.")
    stream: bool | None = False
    temperature: float | None = Field(default=None, ge=0, le=1)
    top_k: int | None = Field(default=None, ge=0, le=1_000_000)
    top_p: float | None = Field(default=None, gt=0, le=1)

    @field_validator("stop_sequences")
    @classmethod
    def _at_most_four(cls, value: Any) -> Any:
        if isinstance(value, list) and len(value) > 4:
            raise ValueError("at most 4 stop texts")
        return value


class MessageUsage(BaseModel):
    """Tokens of one message."""

    input_tokens: int
    output_tokens: int
    cache_creation_input_tokens: int = 0
    cache_read_input_tokens: int = 0


class MessageAnswer(BaseModel):
    """An answer."""

    id: str
    type: Literal["message"] = "message"
    role: Literal["assistant"] = "assistant"
    model: str
    content: list[dict[str, Any]]
    stop_reason: Literal["end_turn", "max_tokens", "stop_sequence", "tool_use"] | None
    stop_sequence: str | None
    usage: MessageUsage


class TokenCount(BaseModel):
    """How many tokens a request would take in."""

    input_tokens: int


def _turns(turn: MessageTurn) -> list[dict[str, Any]]:
    if isinstance(turn.content, str):
        return [{"role": turn.role, "content": turn.content}]
    turns: list[dict[str, Any]] = []
    said: list[str] = []
    calls = []
    for block in turn.content:
        if isinstance(block, TextBlock):
            said.append(block.text)
        elif isinstance(block, ToolUseBlock):
            calls.append({"id": block.id, "function": {"name": block.name, "arguments": json.dumps(block.input)}})
        else:
            text = ("Error: " if block.is_error else "") + _text(block.content or "")
            turns.append({"role": "tool", "tool_call_id": block.tool_use_id, "content": text})
    if said or calls or not turns:
        turns.append({"role": turn.role, "content": "".join(said), **({"tool_calls": calls} if calls else {})})
    return turns


def _text(content: str | list[TextBlock]) -> str:
    return content if isinstance(content, str) else "".join(block.text for block in content)
