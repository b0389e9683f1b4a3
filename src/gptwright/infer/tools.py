"""Tool calls: how a model is told of functions, the grammar that its calls keep to, and the reader that finds them in the answer.

A model whose chat template knows tools is addressed through it, in the form that the template shows for earlier calls; ours writes its own
control token; any other is given a plain instruction. No text of a user or of a schema becomes a control token on the way.
"""

import json
import re
import uuid
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from gptwright.core.errors import UserError
from gptwright.infer.config import Form
from gptwright.infer.structured import SPACE
from gptwright.tokens.bpe import TOOL_CALL
from gptwright.tokens.template import CHAT_TEMPLATE, mentions

Messages = list[dict[str, Any]]
Tools = Sequence[Mapping[str, Any]]
"""Functions in OpenAI's shape: ``{"type": "function", "function": {"name", "description", "parameters", "strict"}}``."""

_NOTHING = {"type": "object", "properties": {}, "additionalProperties": False}
# As Python's json writes it, for so were the calls written that models of ours learn from, and most others too.
_SPELLING = {"item_separator": ", ", "key_separator": ": ", "whitespace_flexible": False}


class TokenizerLike(Protocol):
    """What is needed of a tokenizer; one without a template is given plain instructions."""

    @property
    def template(self) -> str | None: ...
    @property
    def control_ids(self) -> Collection[int]: ...
    def token_id(self, token: str) -> int | None: ...


@dataclass(frozen=True)
class CallStyle:
    """How a model writes calls: ``trigger lead CALL (separator CALL)* end``, a CALL being a JSON object with name and arguments.

    Attributes:
        trigger: a control token or a text; "" if an answer that begins with a brace is a call.
        lead: text after it.
        separator: between two calls; None: one call only.
        end: after the last.
        key: name of the arguments.
        control: control tokens among these texts, by name.
        native: whether the model's chat template shows tools and calls itself.
    """

    trigger: str
    lead: str = ""
    separator: str | None = None
    end: str = ""
    key: str = "arguments"
    control: tuple[tuple[str, int], ...] = ()
    native: bool = True

    @property
    def trigger_id(self) -> int | None:
        """The control token that begins calls, if it is one."""
        return dict(self.control).get(self.trigger)


_TAGS = CallStyle("<tool_call>", "\n", "\n</tool_call>\n<tool_call>\n", "\n</tool_call>")
_OWN = CallStyle(TOOL_CALL, "", TOOL_CALL)
_MISTRAL = CallStyle("[TOOL_CALLS]", " [", ", ", "]")
_LLAMA = CallStyle("", key="parameters")


def call_style(tokenizer: Any) -> CallStyle:
    """The way this tokenizer's model writes calls, read off its chat template.

    Args:
        tokenizer: see ``TokenizerLike``.
    """
    template = getattr(tokenizer, "template", None)
    if template == CHAT_TEMPLATE:
        return _with_control(_OWN, tokenizer)
    if template is not None and mentions(template, "tools"):
        for style in (_MISTRAL, _TAGS):
            if style.trigger in template:
                return _with_control(style, tokenizer)
        if '"parameters"' in template:
            return _LLAMA
    return CallStyle(_TAGS.trigger, _TAGS.lead, _TAGS.separator, _TAGS.end, native=False)


def _with_control(style: CallStyle, tokenizer: TokenizerLike) -> CallStyle:
    names = re.findall(r"<\|?/?\w+\|?>|\[\w+\]", style.trigger + (style.separator or "") + style.end)
    found = {name: token for name in names if (token := tokenizer.token_id(name)) in tokenizer.control_ids}
    control = tuple((name, int(token)) for name, token in found.items() if token is not None)
    return CallStyle(style.trigger, style.lead, style.separator, style.end, style.key, control, True)


# The prompt


def tell(style: CallStyle, own: bool, messages: Sequence[Mapping[str, Any]], tools: Tools) -> tuple[Messages, Tools]:
    """A conversation for a model that may call functions.

    Args:
        style: the model's.
        own: whether its template is ours, which shows calls and results but not what functions there are.
        messages: in OpenAI's shape, calls and results of tools among them.
        tools: the functions; none: only earlier calls and results are put so that the model can read them.

    Returns:
        Messages, and the tools that the chat template shows itself.
    """
    told: Messages = [dict(message) for message in messages]
    if not style.native:
        told = [_as_text(message, style) for message in told]
    if not tools or (style.native and not own):
        return told, tools
    listed = "\n".join(json.dumps(tool["function"], ensure_ascii=False) for tool in tools)
    text = f"You can call these functions, described by JSON schemas:\n{listed}"
    if not own:
        call = '{"name": "the name", "' + style.key + '": {...}}'
        text += f"\nTo call one, answer with\n{style.trigger}{style.lead}{call}{style.end}"
    if told and told[0].get("role") == "system":
        told[0]["content"] = f"{told[0].get('content') or ''}\n\n{text}".strip()
    else:
        told.insert(0, {"role": "system", "content": text})
    return told, ()


def _as_text(message: dict[str, Any], style: CallStyle) -> dict[str, Any]:
    """A turn with calls or results for a template that knows neither."""
    content = str(message.get("content") or "")
    if message.get("role") == "tool":
        return {"role": "user", "content": f"<tool_response>\n{content}\n</tool_response>"}
    calls = message.get("tool_calls") or ()
    if not calls:
        return message
    written = []
    for call in calls:
        function = call.get("function") or call
        arguments = function.get("arguments")
        spelled = arguments if isinstance(arguments, str) else json.dumps(arguments, ensure_ascii=False)
        written.append(f'{{"name": {json.dumps(function.get("name"))}, "{style.key}": {spelled}}}')
    text = f"{style.trigger}{style.lead}" + (style.separator or "\n").join(written) + style.end
    return {"role": "assistant", "content": f"{content}\n{text}".strip()}


# The grammar


def call_form(
    style: CallStyle, tools: Tools, *, must: bool, parallel: bool, said: Form | None = None, asked_by: str = "tools"
) -> Form:
    """The form of an answer that may, or must, call functions.

    Args:
        style: the model's.
        tools: functions that may be called, at least one.
        must: whether one has to be called; else the answer may also be text, or text and then calls.
        parallel: whether it may call several.
        said: form of the text of an answer that calls none.
        asked_by: what faults are named after.

    Raises:
        UserError: no functions, or texts of this form cannot be told from calls.
    """
    if not tools:
        raise UserError("no functions to call", fix="Name at least one")
    calls = [_literal(style.trigger, style), _literal(style.lead, style), "call"]
    if parallel and style.separator is not None:
        calls.append(f"({_literal(style.separator, style)} call)*")
    calls.append(_literal(style.end, style))
    rules = []
    if said is not None and (said.kind == "lark" or not style.trigger):
        raise UserError("tools and this form of text cannot be told apart", fix="Leave one of them out")
    if said is not None and not must:
        rules.append(f"start: said | {' '.join(filter(None, calls))}")
        rules.append(f"said: {_embedded(said)}")
    elif must:
        rules.append(f"start: {' '.join(filter(None, calls))}")
    elif not style.trigger:
        rules += [f"start: TEXT? | {' '.join(filter(None, calls))}", r"TEXT: /[^\s{](.|\n)*/"]
    elif style.trigger_id is not None:
        rules += [f"start: TEXT? | TEXT? {' '.join(filter(None, calls))}", r"TEXT: /(.|\n)+/"]
    else:  # the shortest text that ends with the trigger wins, so a trigger always begins a call
        rules += [f"start: TEXT? | head {' '.join(filter(None, calls[1:]))}", r"TEXT: /(.|\n)+/"]
        rules.append(f"head[lazy]: /(.|\\n)*/ {json.dumps(style.trigger)}")
    rules.append("call: " + " | ".join(f"call_{index}" for index in range(len(tools))))
    for index, tool in enumerate(tools):
        function = tool["function"]
        opening = f'{{"name": {json.dumps(function["name"])}, "{style.key}": '
        schema = json.dumps(_arguments(function))
        rules.append(f'call_{index}: {json.dumps(opening)} args_{index} "}}"\nargs_{index}: %json {schema}')
    control = tuple(token for _, token in style.control)
    return Form(kind="lark", text="\n".join(["%llguidance {}", *rules]), control_ids=control, asked_by=asked_by)


def _embedded(form: Form) -> str:
    """A form inside a grammar."""
    if form.kind == "regex":
        return "/" + re.sub(r"(?<!\\)((?:\\\\)*)/", r"\1\\/", form.text).replace("\n", "\\n") + "/"
    options = {"whitespace_pattern": SPACE, "lenient": form.lenient}
    return "%json " + json.dumps({**json.loads(form.text), "x-guidance": options})


def _arguments(function: Mapping[str, Any]) -> dict[str, Any]:
    schema = dict(function.get("parameters") or _NOTHING)
    kinds = schema.get("type", "object")
    if kinds != "object" and "object" not in (kinds if isinstance(kinds, list) else ()):
        raise UserError(
            f"the parameters of {function['name']} are of type {kinds}", fix="Arguments are always an object"
        )
    return {**schema, "type": "object", "x-guidance": {**_SPELLING, "lenient": not function.get("strict")}}


def _literal(text: str, style: CallStyle) -> str:
    """A text in Lark, control tokens by their ids."""
    ids = dict(style.control)
    parts = re.split("(" + "|".join(map(re.escape, ids)) + ")", text) if ids else [text]
    return " ".join(f"<[{ids[part]}]>" if part in ids else json.dumps(part) for part in parts if part)


# The answer


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


class CallReader:
    """Divides one answer into what is said and what is called, while it comes.

    Args:
        style: in which it is written.
        must: whether it begins with a call.
    """

    def __init__(self, style: CallStyle, must: bool) -> None:
        self._style = style
        self._said = not must  # still in the text before the calls
        self._held = ""
        self._count = 0
        self._scan: _JsonEnd | None = None  # inside arguments
        header = r'\{"name": ("(?:[^"\\]|\\.)*"), "' + re.escape(style.key) + '": '
        self._header = re.compile(header)

    def push(self, text: str, token_id: int | None = None) -> tuple[str, Sequence[CallDelta]]:
        """Add what one token brought; text comes before the token if that is a control token.

        Returns:
            Text that is said, and pieces of calls.
        """
        said, deltas = "", []
        self._held += text
        if self._said:
            said = self._say(token_id)
        if not self._said:
            deltas = self._call()
        return said, deltas

    def finish(self) -> tuple[str, Sequence[CallDelta]]:
        """What was held back at the end of the answer."""
        rest, self._held = self._held, ""
        return (rest, ()) if self._said else ("", ())

    def _say(self, token_id: int | None) -> str:
        style, held = self._style, self._held
        if style.trigger_id is not None:
            self._held, self._said = "", token_id != style.trigger_id
            return held
        if not style.trigger:
            if not held or held[0] == "{":
                self._said = not held
                return ""
            self._held = ""
            return held  # an answer that began with anything else is text to its end
        at = held.find(style.trigger)
        if at >= 0:
            self._said, self._held = False, held[at + len(style.trigger) :]
            return held[:at]
        keep = next((n for n in range(len(style.trigger) - 1, 0, -1) if held.endswith(style.trigger[:n])), 0)
        self._held = held[len(held) - keep :]
        return held[: len(held) - keep]

    def _call(self) -> list[CallDelta]:
        deltas = []
        while self._held:
            if self._scan is not None:
                size = self._scan.push(self._held)
                if size:
                    deltas.append(CallDelta(self._count - 1, self._held[:size]))
                self._held = self._held[size:]
                if self._scan.done:
                    self._scan = None
                    continue
                break
            at = self._held.find("{")
            self._held = self._held[at:] if at >= 0 else ""
            found = self._header.match(self._held)
            if found is None:
                break
            self._held = self._held[found.end() :]
            self._scan = _JsonEnd()
            deltas.append(CallDelta(self._count, "", f"call_{uuid.uuid4().hex[:24]}", json.loads(found[1])))
            self._count += 1
        return deltas


class _JsonEnd:
    """Finds the end of one JSON object in a text that comes in pieces."""

    def __init__(self) -> None:
        self._depth, self._quoted, self._escaped, self.done = 0, False, False, False

    def push(self, text: str) -> int:
        """How many characters of the text belong to the object."""
        for at, char in enumerate(text):
            if self._quoted:
                if self._escaped:
                    self._escaped = False
                elif char == "\\":
                    self._escaped = True
                elif char == '"':
                    self._quoted = False
            elif char == '"':
                self._quoted = True
            elif char in "{[":
                self._depth += 1
            elif char in "}]":
                self._depth -= 1
                if self._depth <= 0:
                    self.done = True
                    return at + 1
        return len(text)
