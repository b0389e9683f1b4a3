"""Answers of a given form: JSON schemas and tool calls. The shapes are checked here; ``structure`` says what the engine is told.

A form that cannot be kept is refused with 400, here or by the engine, never ignored.
"""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Annotated, Any, Literal, Protocol

from pydantic import Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

from gptwright.core.errors import UserError
from gptwright.infer.config import Form
from gptwright.infer.tools import CallDelta, CallReader, CallStyle, call_form, call_style, tell
from gptwright.serve.body import Body
from gptwright.serve.errors import ApiError
from gptwright.serve.protocols import TokenizerLike
from gptwright.tokens.template import CHAT_TEMPLATE

__all__ = ["FREE", "CallDelta", "Structure", "structure"]

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

    type: Literal["text", "json_object", "json_schema", "regex", "grammar"]
    json_schema: SchemaShape | None = None
    regex: str | None = Field(
        default=None, max_length=MAX_SCHEMA_CHARS, description="For type regex: the whole answer."
    )
    grammar: str | None = Field(default=None, max_length=MAX_SCHEMA_CHARS, description="For type grammar: Lark.")

    @model_validator(mode="after")
    def _whole(self) -> "ResponseFormat":
        for name in ("regex", "grammar"):
            if (self.type == name) != (getattr(self, name) is not None):
                raise PydanticCustomError("value", f"belongs to type {name}, which needs it", {"field": name})
        return self


class AnswerReader(Protocol):
    """Divides one answer's text into what is said and what is called."""

    def push(self, text: str, token_id: int | None = None) -> tuple[str, Sequence[CallDelta]]: ...
    def finish(self) -> tuple[str, Sequence[CallDelta]]: ...


class PlainReader:
    """All text is said."""

    def push(self, text: str, token_id: int | None = None) -> tuple[str, Sequence[CallDelta]]:
        """The text itself."""
        return text, ()

    def finish(self) -> tuple[str, Sequence[CallDelta]]:
        """Nothing was held back."""
        return "", ()


@dataclass(frozen=True)
class Structure:
    """What was asked for, in the engine's terms.

    Attributes:
        form: the form of the whole answer; None: free text, or calls.
        tools: functions that the prompt must describe, in OpenAI's shape.
        callable: those of them that this answer may call.
        must: whether it has to call one.
        parallel: whether it may call several.
        style: how the model writes calls; known once the model is.
    """

    form: Form | None = None
    tools: tuple[Mapping[str, Any], ...] = ()
    callable: frozenset[str] = frozenset()
    must: bool = False
    parallel: bool = True
    style: CallStyle | None = None

    @property
    def settings(self) -> dict[str, Any]:
        """Further fields of ``GenerationConfig``."""
        return {} if self.form is None else {"form": self.form}

    def prompt(
        self, tokenizer: TokenizerLike, messages: Sequence[Mapping[str, Any]]
    ) -> tuple[list[dict[str, Any]], dict[str, Any]]:
        """The conversation as the model must be told it, and what else its chat template takes."""
        own = getattr(tokenizer, "template", None) == CHAT_TEMPLATE
        told, shown = tell(call_style(tokenizer), own, messages, self.tools)
        return told, {"tools": list(shown)} if shown else {}

    def fit(self, tokenizer: TokenizerLike) -> "Structure":
        """The same for one model.

        Raises:
            ApiError: 400, this model cannot be held to it.
        """
        if not self.tools:
            return self
        style = call_style(tokenizer)
        tools = [tool for tool in self.tools if tool["function"]["name"] in self.callable]
        try:
            form = call_form(style, tools, must=self.must, parallel=self.parallel, said=self.form)
        except UserError as error:
            raise ApiError(400, str(error), param="tools", code="invalid_value") from error
        return dataclasses.replace(self, form=form, style=style)

    def reader(self) -> AnswerReader:
        """A fresh reader for one choice."""
        return PlainReader() if self.style is None else CallReader(self.style, self.must)


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
    wanted = kind if kind != "text" else None
    must = tool_choice == "required" or isinstance(tool_choice, NamedTool)
    if isinstance(tool_choice, AllowedToolsChoice):
        must = tool_choice.allowed_tools.mode == "required"
    if tools and tool_choice != "none":
        if wanted == "grammar":
            raise _cannot("response_format", "as a grammar together with tools")
        shapes = tuple(tool.model_dump(exclude_none=True) for tool in tools)
        return Structure(
            form=_form(response_format) if response_format is not None and wanted is not None else None,
            tools=shapes,
            callable=frozenset(chosen or names),
            must=must,
            parallel=parallel_tool_calls is not False,
        )
    return FREE if response_format is None or wanted is None else Structure(form=_form(response_format))


def _form(wanted: ResponseFormat) -> Form:
    by = "response_format"
    if wanted.type == "regex":
        return Form(kind="regex", text=wanted.regex or "", asked_by=by)
    if wanted.type == "grammar":
        return Form(kind="lark", text=wanted.grammar or "", asked_by=by)
    shape = wanted.json_schema
    schema = {"type": "object"} if shape is None else {} if shape.schema_ is None else shape.schema_
    return Form(kind="json_schema", text=json.dumps(schema), lenient=shape is None or not shape.strict, asked_by=by)


def _wrong(param: str, why: str) -> ApiError:
    return ApiError(400, f"{param}: {why}.", param=param, code="invalid_value")


def _cannot(param: str, how: str) -> ApiError:
    return ApiError(400, f"{param}: not supported {how}.", param=param, code="unsupported_parameter")
