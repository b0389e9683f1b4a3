"""Pages that are made from the code when the site is built, so that they cannot drift: all settings, all commands.

A page asks for its part by a line ``<!-- generated: settings -->`` or ``<!-- generated: commands -->``.
"""

import json
import types
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import typer
from mkdocs.config.defaults import MkDocsConfig
from pydantic_core import PydanticUndefined

from gptwright.core.config import Config, Count, Duration, Size

# Pages that appear once they are written.
_LATER = (
    ("Performance", "performance.md"),
    ("Ten talks of the starter", "starter.md"),
    ("Log of experiments", "log.md"),
)
_COMMON = ("project", "json", "quiet", "set", "help")


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Put pages that exist by now into the last part of the navigation."""
    found = [{title: name} for title, name in _LATER if (Path(config.docs_dir) / name).is_file()]
    about = typing.cast(list[Any], config.nav)[-1]
    about["About"] = [*about["About"], *found]
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Fill in generated parts."""
    for name, make in (("settings", settings), ("commands", commands)):
        mark = f"<!-- generated: {name} -->"
        if mark in markdown:
            markdown = markdown.replace(mark, make())
    return markdown


def settings() -> str:
    """Every key of gptwright.toml: a table a section."""
    from gptwright.project.settings import Settings

    return "\n".join(_section("", Settings))


def _section(name: str, cls: type[Config]) -> Iterator[str]:
    hints = typing.get_type_hints(cls, include_extras=True)
    rows, below = [], []
    for key, field in cls.model_fields.items():
        inner, named = _config_in(hints[key])
        path = f"{name}.{key}" if name else key
        if inner is not None:
            below.append((f"{path}.NAME" if named else path, inner, field.description or ""))
            continue
        required = field.is_required() and field.default is PydanticUndefined
        default = "required" if required else f"`{_value(field.get_default(call_default_factory=True))}`"
        rows.append(f"| `{key}` | {_kind(hints[key])} | {default} | {_cell(field.description or '')} |")
    if rows:
        yield from ("| key | type | default | meaning |", "|---|---|---|---|", *rows, "")
    for path, inner, description in below:
        level = "##" if not name else "###"
        yield from (f"{level} `[{path}]`", "", _cell(description), "")
        yield from _section(path, inner)


def _config_in(hint: Any) -> tuple[type[Config] | None, bool]:
    """The section that a hint means, and whether it stands behind a name of the user's choice."""
    if isinstance(hint, type) and issubclass(hint, Config):
        return hint, False
    arguments = typing.get_args(hint)
    if typing.get_origin(hint) is dict and isinstance(arguments[1], type) and issubclass(arguments[1], Config):
        return arguments[1], True
    return None, False


def _kind(hint: Any) -> str:
    for known, name in (
        (Duration, "duration, such as `10m`"),
        (Size, "size, such as `64MB`"),
        (Count, "count, such as `1e6`"),
    ):
        if hint == known:
            return name
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return _kind(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(_kind(a) for a in arguments if a is not type(None))
    if origin is typing.Literal:
        return ", ".join(f"`{a}`" for a in arguments)
    if origin in (list, tuple):
        return f"list of {_kind(arguments[0])}"
    return {"str": "text", "int": "whole number", "float": "number", "bool": "true or false"}.get(
        hint.__name__, hint.__name__
    )


def _value(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False, default=str)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;").replace("\n", " ")


def commands() -> str:
    """Every verb with its arguments and options, from the command itself."""
    from gptwright.cli.main import app

    return "\n".join(_verbs("gptwright", typer.main.get_command(app)))


def _verbs(path: str, command: Any) -> Iterator[str]:
    below = getattr(command, "commands", None)
    if below is not None:
        if path != "gptwright":
            yield from (f"## `{path}`", "", _cell(command.help or ""), "")
        for name, inner in sorted(below.items(), key=lambda item: hasattr(item[1], "commands")):
            yield from _verbs(f"{path} {name}", inner)
        return
    context = command.context_class(command, info_name=path)
    own = [p for p in command.params if p.name not in _COMMON]
    usage = " ".join(_argument(p) for p in own if p.param_type_name == "argument")
    yield from (f"{'#' * path.count(' ')}# `{path}{f' {usage}' if usage else ''}`", "", _cell(command.help or ""), "")
    records = [
        (_argument(p) if p.param_type_name == "argument" else record[0], record[1])
        for p in own
        if (record := p.get_help_record(context))
    ]
    if records:
        yield from (
            "| option | meaning |",
            "|---|---|",
            *(f"| `{left}` | {_cell(right)} |" for left, right in records),
            "",
        )
    examples = [
        line.strip() for line in (command.epilog or "").splitlines() if line.strip().startswith(("gptwright", "echo"))
    ]
    yield from ("```sh", *examples, "```", "")


def _argument(parameter: Any) -> str:
    name = (parameter.metavar or parameter.name).strip("[].").upper()
    many = "..." if parameter.nargs == -1 else ""
    return f"{name}{many}" if parameter.required else f"[{name}{many}]"
