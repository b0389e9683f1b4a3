"""The base of all request bodies: closed to unknown fields, and every field is honoured or refused by name.

Fields of OpenAI's API that we do not have are refused, unless they carry the value that asks for nothing: clients send
``frequency_penalty: 0`` or ``store: false`` all the time.
"""

import json
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar

from pydantic import BaseModel, ConfigDict, Field, StringConstraints, model_validator
from pydantic_core import PydanticCustomError

NOTHING: dict[str, tuple[Any, ...]] = {
    "frequency_penalty": (0,),
    "presence_penalty": (0,),
    "logit_bias": ({},),
    "suffix": ("",),
    "functions": ([],),
    "function_call": ("none", "auto"),
    "modalities": (["text"],),
    "service_tier": ("auto", "default"),
    "audio": (),
    "prediction": (),
    "web_search_options": (),
    "verbosity": (),
    "reasoning_effort": ("none",),
    "moderation": (),
    "prompt_cache_retention": ("in_memory",),
    "prompt_cache_options": (),
    # of responses
    "context_management": ([],),
    "include_obfuscation": (False,),
    "max_tool_calls": (),
    "prompt": (),
    "reasoning": ({}, {"effort": "none"}, {"effort": None}, {"effort": None, "summary": None}),
    # of embeddings
    "dimensions": (),
    # of messages
    "container": (),
    "context_management_edits": (),
    "mcp_servers": ([],),
    "thinking": ({"type": "disabled"},),
    "inference_geo": (),
    "cache_control": (),
    "output_config": ({},),
    "speed": ("standard",),
}
"""Fields that are not honoured, and the values besides null that ask for nothing."""

Model = Annotated[str, Field(min_length=1, max_length=300, description="Id or alias of a model, or provider:model.")]
Label = Annotated[str, StringConstraints(min_length=1, max_length=512)]
"""A name that the caller gives to somebody or something."""

Metadata = Annotated[
    dict[
        Annotated[str, StringConstraints(min_length=1, max_length=64)],
        Annotated[str, StringConstraints(max_length=512)],
    ],
    Field(max_length=16, description="Up to 16 pairs of the caller's own, kept with the object."),
]


MAX_DEPTH = 64
"""Deepest nesting of JSON in a request: what reads it is recursive."""


class Body(BaseModel):
    """A request body that is closed to unknown fields."""

    model_config = ConfigDict(extra="forbid", protected_namespaces=(), allow_inf_nan=False)
    unsupported: ClassVar[frozenset[str]] = frozenset()

    @model_validator(mode="before")
    @classmethod
    def _refuse_what_is_not_honoured(cls, data: Any) -> Any:
        if not isinstance(data, dict):
            return data
        if deeper_than(data, MAX_DEPTH):
            raise PydanticCustomError("depth", f"nested deeper than {MAX_DEPTH} levels", {})
        if (where := broken_text(data)) is not None:
            raise PydanticCustomError("unicode", "half a surrogate pair is not text", {"param": where})
        return honoured(data, cls.unsupported)


def honoured(data: Mapping[str, Any], unsupported: frozenset[str]) -> dict[str, Any]:
    """The fields that are left when those are taken out that ask for nothing.

    Raises:
        PydanticCustomError: one asks for something that we do not do; ``param`` names it.
    """
    kept = {}
    for name, value in data.items():
        if name not in unsupported:
            kept[name] = value
        elif value is not None and not any(_same(value, neutral) for neutral in NOTHING.get(name, ())):
            raise refusal(name)
    return kept


def deeper_than(data: Any, limit: int) -> bool:
    """Whether lists and objects lie within each other more than ``limit`` times."""
    level = [data] if isinstance(data, dict | list) else []
    for _ in range(limit):
        level = [
            item
            for value in level
            for item in (value.values() if isinstance(value, dict) else value)
            if isinstance(item, dict | list)
        ]
        if not level:
            return False
    return bool(level)


def broken_text(data: Any) -> str | None:
    """Where a text holds half a surrogate pair, which JSON can write and UTF-8 cannot; None if nowhere."""
    try:
        json.dumps(data, ensure_ascii=False).encode()
        return None
    except UnicodeEncodeError:
        pass
    if isinstance(data, dict):
        pairs = [(str(key), value) for key, value in data.items()]
    else:
        pairs = [(f"[{index}]", value) for index, value in enumerate(data)] if isinstance(data, list) else []
    for name, value in pairs:
        if (inner := broken_text(value)) is not None:
            name += inner if not inner or inner.startswith(("[", ".")) else "." + inner
            return name.encode(errors="replace").decode()
    return ""


def refusal(param: str) -> PydanticCustomError:
    """A field that is not supported, as a fault of validation."""
    return PydanticCustomError("unsupported", "not supported by this server", {"param": param})


def _same(value: Any, neutral: Any) -> bool:
    return bool(value == neutral) and isinstance(value, bool) == isinstance(neutral, bool)
