"""Answers of a given form: JSON schemas and tool calls. The shapes are checked here; ``structure`` says what the engine is told.

It is the one place that decides what can be done: a form that the engine cannot keep is refused with 400, never ignored.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints

from gptwright.serve.body import Body
from gptwright.serve.errors import ApiError

Name = Annotated[str, StringConstraints(pattern=r"^[A-Za-z0-9_-]{1,64}$")]
JsonSchema = Annotated[dict[str, Any], Field(description="A JSON schema.")]
MAX_SCHEMA_CHARS = 200_000
"""Longest schema as JSON: compiling is work that a client must not be able to grow without bound. Characters."""


class FunctionShape(Body):
    """A function that the model may call."""

    name: Name
    description: str | None = None
    parameters: JsonSchema | None = None
    strict: bool | None = None


class FunctionTool(Body):
    """A tool; only functions are known."""

    type: Literal["function"]
    function: FunctionShape


class FunctionName(Body):
    """A function by name."""

    name: Name


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class AllowedTools(Body):
    """Tools that may be called, of all that are given."""

    mode: Literal["auto", "required"]
    tools: list[NamedTool] = Field(min_length=1, max_length=128)


class AllowedToolsChoice(Body):
    """A choice among some of the tools."""

    type: Literal["allowed_tools"]
    allowed_tools: AllowedTools


ToolChoice = Literal["none", "auto", "required"] | NamedTool | AllowedToolsChoice


class SchemaShape(Body):
    """The schema of an answer."""

    name: Name
    description: str | None = None
    # ``schema`` is a method of every model, so the field needs another name inside.
    schema_: JsonSchema | None = Field(default=None, alias="schema")
    strict: bool | None = None


class ResponseFormat(Body):
    """The form of an answer."""

    type: Literal["text", "json_object", "json_schema"]
    json_schema: SchemaShape | None = None


@dataclass(frozen=True)
class CallDelta:
    """A piece of a tool call.

    Attributes:
        index: which call of the answer.
        id: on its first piece.
        name: on its first piece.
        arguments: the next characters of the arguments' JSON.
    """

    index: int
    arguments: str
    id: str | None = None
    name: str | None = None


class AnswerReader(Protocol):
    """Divides one answer's text into what is said and what is called."""

    def push(self, text: str) -> tuple[str, Sequence[CallDelta]]: ...
    def finish(self) -> tuple[str, Sequence[CallDelta]]: ...


class PlainReader:
    """All text is said."""

    def push(self, text: str) -> tuple[str, Sequence[CallDelta]]:
        """The text itself."""
        return text, ()

    def finish(self) -> tuple[str, Sequence[CallDelta]]:
        """Nothing was held back."""
        return "", ()


@dataclass(frozen=True)
class Structure:
    """What was asked for, in the engine's terms.

    Attributes:
        settings: further fields of ``GenerationConfig``.
        tools: functions that the prompt must describe, in OpenAI's shape.
    """

    settings: Mapping[str, Any] = field(default_factory=dict)
    tools: tuple[Mapping[str, Any], ...] = ()

    def reader(self) -> AnswerReader:
        """A fresh reader for one choice."""
        return PlainReader()


FREE = Structure()
"""Free text."""


def structure(
    response_format: ResponseFormat | None,
    tools: Sequence[FunctionTool],
    tool_choice: ToolChoice | None,
    parallel_tool_calls: bool | None,
) -> Structure:
    """What the engine is told so that an answer keeps the form.

    Args:
        response_format: None or ``text``: free text.
        tools: functions that may be called.
        tool_choice: whether one may or must be called; None: ``auto``.
        parallel_tool_calls: whether one answer may call several; None: yes.

    Raises:
        ApiError: 400 with ``param``: the shapes contradict each other, or this server cannot keep the form.
    """
    kind = response_format.type if response_format is not None else "text"
    if response_format is not None and (kind == "json_schema") != (response_format.json_schema is not None):
        raise _wrong("response_format.json_schema", "belongs to type json_schema, and type json_schema needs it")
    names = [tool.function.name for tool in tools]
    if len(set(names)) != len(names):
        raise _wrong("tools", "two functions have the same name")
    if not tools and tool_choice not in (None, "none", "auto"):
        raise _wrong("tool_choice", "there are no tools to choose from")
    chosen = []
    if isinstance(tool_choice, NamedTool):
        chosen = [tool_choice.function.name]
    elif isinstance(tool_choice, AllowedToolsChoice):
        chosen = [tool.function.name for tool in tool_choice.allowed_tools.tools]
    for name in chosen:
        if name not in names:
            raise _wrong("tool_choice", f"there is no tool {name}")
    schemas = [tool.function.parameters for tool in tools]
    schemas += [response_format.json_schema.schema_] if response_format and response_format.json_schema else []
    for schema in schemas:
        if schema is not None and len(json.dumps(schema)) > MAX_SCHEMA_CHARS:
            raise _wrong(
                "tools" if tools else "response_format", f"a schema is longer than {MAX_SCHEMA_CHARS} characters"
            )
    if kind != "text":
        raise _cannot("response_format")
    if tools and tool_choice != "none":
        raise _cannot("tools")
    return FREE


def _wrong(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}.", param=param, code="invalid_value")


def _cannot(param: str) -> ApiError:
    return ApiError(400, f"{param}: not supported by this server.", param=param, code="unsupported_parameter")
