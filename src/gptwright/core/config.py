"""One ``Config`` class per part feeds the file, the flags, the help, the editor's schema and the docs.

Unknown keys are errors that name the nearest key; all faults are gathered and raised once; each value knows its origin.
"""

import difflib
import json
import re
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, TypeVar, get_args

import pydantic
from pydantic import BeforeValidator, ConfigDict, WithJsonSchema

from gptwright.core.errors import UserError

_UNITS_S = {"ms": 1e-3, "s": 1.0, "m": 60.0, "min": 60.0, "h": 3600.0, "d": 86400.0}
_UNITS_BYTES = {"B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12, "KIB": 2**10, "MIB": 2**20, "GIB": 2**30}


class Config(pydantic.BaseModel):
    """Base of every part's configuration: frozen, typed, documented, closed to unknown keys."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, validate_default=True, protected_namespaces=(), allow_inf_nan=False
    )

    @classmethod
    def replaces(cls, key: str, value: Any) -> tuple[str, ...]:
        """Keys of the same section that say the same in another way: where ``--set`` gives this one, the file's are not read.

        Args:
            key: that was given.
            value: it, not yet validated.
        """
        return ()


def _number_with_unit(units: Mapping[str, float], example: str, upper: bool) -> Any:
    def parse(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        match = re.fullmatch(r"\s*([0-9]*\.?[0-9]+(?:[eE][+-]?[0-9]+)?)\s*([A-Za-z]*)\s*", value)
        unit = "" if match is None else (match[2].upper() if upper else match[2].lower())
        if match is None or (unit and unit not in units):
            raise ValueError(f"not understood: write it like {example}")
        return float(match[1]) * units.get(unit, 1)

    return parse


def _whole(value: Any) -> Any:
    return int(value) if isinstance(value, float) and value.is_integer() else value


def parse_duration(text: str) -> float:
    """Seconds of "30s", "10m" or "2h".

    Raises:
        ValueError: it is not a duration.
    """
    return float(_number_with_unit(_UNITS_S, "30s, 10m or 2h", upper=False)(text))


Duration = Annotated[
    float,
    BeforeValidator(_number_with_unit(_UNITS_S, "30s, 10m or 2h", upper=False)),
    WithJsonSchema({"type": ["number", "string"], "examples": ["30s", "10m", "2h"]}),
]
Size = Annotated[
    int,
    BeforeValidator(_whole),
    BeforeValidator(_number_with_unit(_UNITS_BYTES, "64MB or 2GiB", upper=True)),
    WithJsonSchema({"type": ["integer", "string"], "examples": ["64MB"]}),
]
Count = Annotated[
    int,
    BeforeValidator(_whole),
    BeforeValidator(_number_with_unit({}, "1e6", upper=False)),
    WithJsonSchema({"type": ["integer", "number", "string"], "examples": [1e6]}),
]

C = TypeVar("C", bound=Config)

MAY_BE_SECRET = "may_be_secret"
"""Type of a fault (``PydanticCustomError``) whose value is not shown, since it may be a key or a password."""


def load_config(cls: type[C], path: Path, overrides: Sequence[str] = ()) -> tuple[C, dict[str, str]]:
    """Read a TOML file and ``--set`` overrides into a config.

    Args:
        cls: the root config class.
        path: the TOML file.
        overrides: ``section.key=value`` texts; the value is read as TOML, else as a plain string.

    Returns:
        The config, and for each dotted key that was given, where it came from ("file:line" or "--set").

    Raises:
        UserError: the file is missing or not TOML, or has faults; all of them are listed, with line and nearest name.
    """
    try:
        text = path.read_text(encoding="utf-8")
        data = tomllib.loads(text)
    except FileNotFoundError as error:
        raise UserError("no such file", where=str(path), fix="Run: gptwright new NAME") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"not valid TOML: {error}", where=str(path)) from error
    lines = _key_lines(text)
    origins = {key: f"{path.name}:{lines[key]}" if key in lines else path.name for key in _flat(data)}
    given = [_override(override) for override in overrides]
    for key, value in given:
        _put(data, key, value)
        origins[".".join(key)] = "--set"
    for key, value in given:
        _drop_replaced(cls, data, origins, key, value)
    return build_config(cls, data, origins, where=str(path)), origins


def build_config(
    cls: type[C], data: Mapping[str, Any], origins: Mapping[str, str] | None = None, *, where: str = "config"
) -> C:
    """Validate a mapping into a config, gathering every fault into one UserError."""
    try:
        return cls.model_validate(data)
    except pydantic.ValidationError as error:
        faults = [_fault(cls, dict(item), origins or {}) for item in error.errors()]
        count = f"{len(faults)} fault" + ("s" if len(faults) > 1 else "")
        raise UserError(f"{count}:\n  " + "\n  ".join(faults), where=where) from error


def json_schema(cls: type[Config]) -> dict[str, Any]:
    """The schema that editors use for completion and checking."""
    return {"$schema": "http://json-schema.org/draft-07/schema#", **cls.model_json_schema()}


def explain(cls: type[Config], key: str) -> tuple[str, str, Any]:
    """The documentation, type and default of a dotted key.

    Raises:
        UserError: there is no such key.
    """
    found: Any = cls
    field: pydantic.fields.FieldInfo | None = None
    for part in key.split("."):
        section = _section(found)
        if section is not None and part in section.model_fields:
            field = section.model_fields[part]
            found = field.annotation
        elif (value := _mapping_value(found)) is not None:
            found = value  # a name the user chose, such as corpus.sources.NAME
        else:
            near = _nearest(part, list(section.model_fields) if section else [])
            raise UserError(f"no such key: {key}", fix=f"Did you mean {near}?" if near else None)
    section = _section(found)
    if field is None or section is not None:
        return field.description or "" if field else "", "table", None
    default = None if field.is_required() else field.get_default(call_default_factory=True)
    return field.description or "", str(getattr(field.annotation, "__name__", field.annotation)), default


def _section(annotation: Any) -> type[Config] | None:
    for candidate in (annotation, *get_args(annotation)):
        if isinstance(candidate, type) and issubclass(candidate, Config):
            return candidate
    return None


def _mapping_value(annotation: Any) -> Any:
    if getattr(annotation, "__origin__", None) is dict:
        return get_args(annotation)[1]
    if getattr(annotation, "__origin__", None) is list:
        return get_args(annotation)[0]
    return None


def _nearest(name: str, names: Sequence[str]) -> str | None:
    return next(iter(difflib.get_close_matches(name, names, n=1, cutoff=0.5)), None)


def _fault(cls: type[Config], item: dict[str, Any], origins: Mapping[str, str]) -> str:
    parts = [str(part) for part in item["loc"]]
    key = ".".join(parts)
    origin = next((f" ({origins[k]})" for k in origins if k == key or k.startswith(key + ".")), "")
    if item["type"] == "extra_forbidden":
        try:
            found: Any = cls
            for part in parts[:-1]:
                section = _section(found)
                found = (
                    section.model_fields[part].annotation
                    if section and part in section.model_fields
                    else _mapping_value(found)
                )
            section = _section(found)
        except (KeyError, AttributeError):
            section = None
        near = _nearest(parts[-1], list(section.model_fields)) if section else None
        return f"{key}{origin}: unknown key" + (f"; did you mean {near}?" if near else "")
    message = str(item["msg"]).removeprefix("Value error, ")
    given = item.get("input")
    # A value that may hold a key is not repeated: errors are pasted into chats and kept in logs.
    hidden = given is None or isinstance(given, dict | list) or item["type"] == MAY_BE_SECRET
    shown = "" if hidden else f", got {json.dumps(given, default=str)}"
    return f"{key}{origin}: {message[0].lower()}{message[1:]}{shown}"


def _override(text: str) -> tuple[list[str], Any]:
    key, mark, value = text.partition("=")
    if not mark or not key.strip():
        raise UserError(f"--set {text}: not understood", fix="Write --set section.key=value")
    try:
        parsed = tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        parsed = value
    return [part.strip() for part in key.split(".")], parsed


def _put(data: dict[str, Any], key: Sequence[str], value: Any) -> None:
    for part in key[:-1]:
        data = data.setdefault(part, {})
        if not isinstance(data, dict):
            raise UserError(f"--set {'.'.join(key)}: {part} is a value, not a section")
    data[key[-1]] = value


def _drop_replaced(
    cls: type[Config], data: dict[str, Any], origins: dict[str, str], key: Sequence[str], value: Any
) -> None:
    """Forget what the file says in another way. Two overrides that say it both are left, to be refused together."""
    section: type[Config] | None = cls
    for part in key[:-1]:
        if section is None or part not in section.model_fields:
            return
        section, data = _section(section.model_fields[part].annotation), data[part]
    for other in () if section is None else section.replaces(key[-1], value):
        name = ".".join([*key[:-1], other])
        if origins.get(name) != "--set" and data.pop(other, None) is not None:
            origins.pop(name, None)


def _flat(data: Mapping[str, Any], prefix: str = "") -> list[str]:
    keys: list[str] = []
    for name, value in data.items():
        keys += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [prefix + name]
    return keys


def _key_lines(text: str) -> dict[str, int]:
    """Line of each ``key =``; plain headers and keys only, which is what people write. Others fall back to the file's name."""
    lines: dict[str, int] = {}
    prefix = ""
    for number, line in enumerate(text.splitlines(), 1):
        if header := re.match(r"\s*\[\s*([^\[\]]+?)\s*\]\s*(#.*)?$", line):
            prefix = header[1].replace('"', "").replace(" ", "") + "."
        elif pair := re.match(r"\s*([A-Za-z0-9_.\-\"]+)\s*=", line):
            lines.setdefault(prefix + pair[1].replace('"', ""), number)
    return lines
