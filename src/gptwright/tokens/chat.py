"""Chats to token ids and a loss mask. A message's text can never become a control token.

Our own models (and any ChatML vocabulary without a template) are rendered as segments: control ids, or text that is
encoded with special tokens off. Imported models are rendered through their own Jinja template to the same effect.
"""

import functools
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

from gptwright.core.errors import UserError
from gptwright.tokens.bpe import IM_END, IM_START, TOOL_CALL, TOOL_RESULT
from gptwright.tokens.template import CHAT_TEMPLATE, render_template, to_json

if TYPE_CHECKING:
    from gptwright.tokens.tokenizer import Tokenizer

_FIELDS = frozenset(
    {"role", "content", "tool_calls", "function", "name", "arguments", "type", "parameters", "description"}
)
ROLES = ("system", "user", "assistant", "tool")
Messages: TypeAlias = Sequence[Mapping[str, Any]]


@dataclass(frozen=True)
class Rendered:
    """A chat as tokens: ids, and for each 1 if the model learns to write it (assistant's words and their end), else 0."""

    ids: list[int]
    loss_mask: list[int]


@dataclass(frozen=True)
class Segment:
    """A control token by name (``control``) or plain text; ``loss`` says whether the model learns to write it."""

    content: str
    control: bool
    loss: bool


Renderer: TypeAlias = Callable[[Sequence[Messages], bool, Messages], list[Rendered]]


def renderer(tokenizer: "Tokenizer") -> Renderer:
    """The way this tokenizer's chats are rendered: by segments if its format is ours, else through its template."""
    if tokenizer.template == CHAT_TEMPLATE or (tokenizer.template is None and tokenizer.im_start_id is not None):
        return _SegmentRenderer(tokenizer)
    return _TemplateRenderer(tokenizer)


def segments(messages: Messages, add_generation_prompt: bool = False) -> list[Segment]:
    """A chat as control tokens and texts, in ChatML.

    Raises:
        UserError: a role is unknown, or a message has neither content nor tool calls in a shape that we know.
    """
    parts: list[Segment] = []
    for message in messages:
        role = message.get("role")
        if role not in ROLES:
            raise UserError(f"unknown role {role!r} in a conversation", fix=f"Use one of {', '.join(ROLES)}")
        # OpenAI's fine-tuning format: weight 0 shows an answer to the model without teaching it.
        loss = role == "assistant" and message.get("weight", 1) != 0
        parts += [Segment(IM_START, True, False), Segment(f"{role}\n", False, False)]
        if role == "tool":
            parts.append(Segment(TOOL_RESULT, True, False))
        if text := content_text(message).strip():
            parts.append(Segment(text, False, loss))
        for call in message.get("tool_calls") or ():
            parts += [Segment(TOOL_CALL, True, loss), Segment(_call_text(call), False, loss)]
        parts += [Segment(IM_END, True, loss), Segment("\n", False, False)]
    if add_generation_prompt:
        parts += [Segment(IM_START, True, False), Segment("assistant\n", False, False)]
    return parts


def content_text(message: Mapping[str, Any]) -> str:
    """A message's text: a string, null, or OpenAI's list of text parts.

    Raises:
        UserError: it holds anything but text.
    """
    content = message.get("content")
    if content is None:
        return ""
    if isinstance(content, str):
        return content
    if isinstance(content, Sequence) and all(
        isinstance(part, Mapping) and part.get("type") in ("text", "input_text", "output_text") for part in content
    ):
        return "".join(str(part.get("text", "")) for part in content)
    raise UserError(
        "a message's content is neither text nor a list of text parts", fix="Images and sound are not supported"
    )


def _call_text(call: Mapping[str, Any]) -> str:
    function = call.get("function") or call
    arguments = function.get("arguments")
    written = arguments.strip() if isinstance(arguments, str) else to_json(arguments)
    return f'{{"name": {to_json(function.get("name"))}, "arguments": {written}}}'


class _SegmentRenderer:
    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer
        self._headers: dict[str, list[int]] = {}

    def __call__(
        self, conversations: Sequence[Messages], add_generation_prompt: bool, tools: Messages
    ) -> list[Rendered]:
        if tools:
            raise UserError("this model's chat template shows no tools", fix="Describe them in a system message")
        rows = [segments(messages, add_generation_prompt) for messages in conversations]
        # One batch for all texts of all chats; headers and line ends come from the cache.
        fresh = [part.content for row in rows for part in row if not part.control and not self._fixed(part.content)]
        encoded = iter(self._tokenizer.encode_batch(fresh))
        result = []
        for row in rows:
            ids: list[int] = []
            mask: list[int] = []
            for part in row:
                if part.control:
                    new = [self._control(part.content)]
                elif self._fixed(part.content):
                    new = self._header(part.content)
                else:
                    new = next(encoded)
                ids += new
                mask += [int(part.loss)] * len(new)
            result.append(Rendered(ids, mask))
        return result

    @staticmethod
    def _fixed(text: str) -> bool:
        return text[-1] == "\n"  # contents are stripped, so only headers and line ends end with a line break

    def _header(self, text: str) -> list[int]:
        if text not in self._headers:
            self._headers[text] = self._tokenizer.encode(text)
        return self._headers[text]

    def _control(self, name: str) -> int:
        found = self._tokenizer.token_id(name)
        if found is None:
            raise UserError(
                f"this model's vocabulary has no {name}", fix="Use a model with tool tokens, or leave tool messages out"
            )
        return found


class _TemplateRenderer:
    """Chats of an imported model, through the template that came with it."""

    def __init__(self, tokenizer: "Tokenizer") -> None:
        self._tokenizer = tokenizer

    def __call__(
        self, conversations: Sequence[Messages], add_generation_prompt: bool, tools: Messages
    ) -> list[Rendered]:
        return [self._one(messages, add_generation_prompt, tools) for messages in conversations]

    def _one(self, messages: Messages, add_generation_prompt: bool, tools: Messages) -> Rendered:
        tokenizer = self._tokenizer
        controls = sorted((tokenizer.token_name(index) for index in tokenizer.control_ids), key=len, reverse=True)
        mark = _unused_mark([*messages, *tools])
        safe = [_disarm(message, controls, mark) for message in messages]
        shown = [_broken(tool, controls, mark) for tool in tools]
        text = self._text(safe, add_generation_prompt, shown)
        learned = self._learned(safe, text)
        ids: list[int] = []
        mask: list[int] = []
        at = 0
        for piece, control in _split_controls(text, controls):
            if control:
                ids.append(int(tokenizer.token_id(piece) or 0))
                mask.append(int(any(low <= at < high for low, high in learned)))
            else:
                new, spans = tokenizer.offsets(piece.replace(mark, ""))
                # Positions of the disarmed text, mapped back by counting the marks before them.
                places = [index for index, char in enumerate(piece) if char != mark]
                ids += new
                mask += [
                    int(low < len(places) and any(a <= at + places[low] < b for a, b in learned)) for low, _ in spans
                ]
            at += len(piece)
        return Rendered(ids, mask)

    def _text(self, messages: Messages, add_generation_prompt: bool, tools: Messages = ()) -> str:
        template = self._tokenizer.template
        if template is None:
            raise UserError(
                "this model has no chat template",
                where="chat_template.jinja",
                fix="Use `generate`, or put the template of its chat variant into the model's folder",
            )
        return render_template(
            template,
            messages,
            add_generation_prompt=add_generation_prompt,
            special_tokens=self._tokenizer.special_tokens,
            tools=tools,
        )

    def _learned(self, messages: Messages, text: str) -> list[tuple[int, int]]:
        """Character ranges of the assistant's words with the token that ends the turn: what rendering up to the turn lacks."""
        ranges = []
        end_name = self._tokenizer.token_name(self._tokenizer.im_end_id)
        for index, message in enumerate(messages):
            if message.get("role") != "assistant" or message.get("weight", 1) == 0:
                continue
            before = self._text(messages[:index], True)
            if not text.startswith(before):
                continue  # the template rewrites history (Qwen3 drops old thoughts): such a turn is shown, not taught
            end = text.find(end_name, len(before))  # the first one is the turn's: contents are disarmed
            ranges.append((len(before), end + len(end_name) if end >= 0 else len(text)))
        return ranges


def _unused_mark(messages: Messages) -> str:
    """A noncharacter (U+FDD0 and on) that occurs nowhere in these messages."""
    whole = json.dumps(list(messages), ensure_ascii=False, default=str)
    return next(chr(code) for code in range(0xFDD0, 0xFDF0) if chr(code) not in whole)


def _disarm(message: Mapping[str, Any], controls: Sequence[str], mark: str) -> dict[str, Any]:
    """Break every control token in a message with a mark, so that after rendering only the template's own are whole."""

    safe: dict[str, Any] = _broken(
        {**message, "tool_calls": _objects(message)} if "tool_calls" in message else message, controls, mark
    )
    safe["role"] = message.get("role")
    if safe["role"] not in ROLES:
        raise UserError(f"unknown role {message.get('role')!r} in a conversation", fix=f"Use one of {', '.join(ROLES)}")
    return {**safe, "content": content_text(safe)}


def _broken(value: Any, controls: Sequence[str], mark: str) -> Any:
    if isinstance(value, str):
        for name in controls:
            value = value.replace(name, name[:1] + mark + name[1:])
        # A template may put two texts side by side, and what one begins the other must not complete.
        heads, tails = _edges(tuple(controls))
        if value.startswith(tails):
            value = mark + value
        return value + mark if value.endswith(heads) else value
    if isinstance(value, Mapping):
        return {
            _broken(key, controls, mark) if key not in _FIELDS else key: _broken(item, controls, mark)
            for key, item in value.items()
        }
    return [_broken(item, controls, mark) for item in value] if isinstance(value, list | tuple) else value


@functools.lru_cache(maxsize=16)
def _edges(controls: tuple[str, ...]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """All beginnings and all ends of control tokens, the whole ones aside."""
    heads = {name[:at] for name in controls for at in range(1, len(name))}
    tails = {name[at:] for name in controls for at in range(1, len(name))}
    return tuple(heads), tuple(tails)


def _objects(message: Mapping[str, Any]) -> Any:
    """A message's tool calls with arguments as objects, as templates expect them; OpenAI's API sends them as text."""
    calls = []
    for call in message.get("tool_calls") or ():
        function = call.get("function") or call
        arguments = function.get("arguments")
        if isinstance(arguments, str):
            try:
                read = json.loads(arguments)
            except ValueError:
                read = arguments
            function = {**function, "arguments": read if isinstance(read, dict) else arguments}
        calls.append({**call, "function": function} if "function" in call else function)
    return calls


def _split_controls(text: str, controls: Sequence[str]) -> list[tuple[str, bool]]:
    if not controls:
        return [(text, False)]
    names = set(controls)
    parts = re.split("(" + "|".join(re.escape(name) for name in controls) + ")", text)
    return [(part, part in names) for part in parts if part]
