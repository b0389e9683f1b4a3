"""Documents become token shards, and shards become batches: tokenizer, chat rendering, shards, plans, packing."""

import importlib
from typing import Any

_HOMES = {
    "Tokenizer": "tokenizer",
    "train_tokenizer": "tokenizer",
    "Rendered": "chat",
    "write_tokens": "shards",
    "TokenDataset": "shards",
    "TokensResult": "shards",
    "Batch": "plan",
    "BatchPlan": "plan",
    "sequential": "plan",
    "ChatSet": "sft",
    "SftPlan": "sft",
    "show": "show",
    "erase_documents": "erase",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(f"{__name__}.{_HOMES[name]}"), name)
