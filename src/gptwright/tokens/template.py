"""The chat template as Jinja, and a sandbox that renders any model's template as transformers does.

``CHAT_TEMPLATE`` is what other programs read; ``chat.py`` renders the same without Jinja. Tests hold the two together.
"""

import datetime
import functools
import json
from collections.abc import Mapping, Sequence
from typing import Any

import jinja2
import jinja2.ext
import jinja2.meta
from jinja2.sandbox import ImmutableSandboxedEnvironment

from gptwright.core.errors import UserError

# Contents are trimmed: then no content begins with white space, so "assistant\n" and what follows never share a token,
# a header can be encoded apart from its content, and a generation prompt is always a prefix of what was trained on.
CHAT_TEMPLATE = (
    "{%- for message in messages %}"
    "{{- '<|im_start|>' + message['role'] + '\\n' }}"
    "{%- if message['role'] == 'tool' %}{{- '<|tool_result|>' }}{%- endif %}"
    "{%- if message['content'] %}{{- message['content'] | trim }}{%- endif %}"
    "{%- if message['tool_calls'] %}"
    "{%- for call in message['tool_calls'] %}"
    "{%- set function = call['function'] if call['function'] else call %}"
    "{{- '<|tool_call|>{\"name\": ' + (function['name'] | tojson) + ', \"arguments\": ' }}"
    "{%- if function['arguments'] is string %}{{- function['arguments'] | trim }}"
    "{%- else %}{{- function['arguments'] | tojson }}{%- endif %}"
    "{{- '}' }}"
    "{%- endfor %}"
    "{%- endif %}"
    "{{- '<|im_end|>\\n' }}"
    "{%- endfor %}"
    "{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}"
)


def render_template(
    source: str,
    messages: Sequence[Mapping[str, Any]],
    *,
    add_generation_prompt: bool,
    special_tokens: Mapping[str, str],
    tools: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Render a chat template to text.

    Args:
        source: the Jinja text of chat_template.jinja or tokenizer_config.json; untrusted, so it runs in a sandbox.
        messages: OpenAI-style messages.
        add_generation_prompt: end with the opening of an assistant's turn.
        special_tokens: names such as bos_token that templates refer to.
        tools: functions that the model may call, in OpenAI's shape.

    Raises:
        UserError: the template does not compile, refuses these messages, or tries what the sandbox forbids.
    """
    try:
        return _compiled(source).render(
            messages=list(messages),
            tools=list(tools) or None,
            add_generation_prompt=add_generation_prompt,
            **special_tokens,
        )
    except jinja2.TemplateError as error:
        raise UserError(
            f"the model's chat template refuses these messages: {error.message or type(error).__name__}",
            where="chat_template.jinja",
        ) from error


@functools.lru_cache(maxsize=64)
def mentions(source: str, name: str) -> bool:
    """Whether a template reads a variable, such as ``tools``. A damaged template reads nothing."""
    try:
        return name in jinja2.meta.find_undeclared_variables(_environment().parse(source))
    except jinja2.TemplateError:
        return False


def to_json(value: Any, ensure_ascii: bool = False, indent: int | None = None, **_ignored: Any) -> str:
    """JSON as templates expect it: Jinja's own filter would escape < and > for HTML."""
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent)


@functools.lru_cache(maxsize=16)
def _compiled(source: str) -> jinja2.Template:
    return _environment().from_string(source)


def _environment() -> ImmutableSandboxedEnvironment:
    # The same environment as transformers (utils/chat_template_utils.py), so that the same text comes out.
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = to_json
    environment.globals["raise_exception"] = _refuse
    environment.globals["strftime_now"] = lambda form: datetime.datetime.now().strftime(form)
    return environment


def _refuse(message: str) -> str:
    raise jinja2.TemplateError(message)


class _Generation(jinja2.ext.Extension):
    """transformers' ``{% generation %}`` marks the assistant's words; for the text alone it is transparent."""

    tags = {"generation"}  # noqa: RUF012 (Jinja reads it from the class)

    def parse(self, parser: Any) -> Any:
        next(parser.stream)
        return parser.parse_statements(("name:endgeneration",), drop_needle=True)
