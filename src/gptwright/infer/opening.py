"""Opening a model directory for generating, and fitting a conversation into its context."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from gptwright.core.errors import UserError
from gptwright.model.io import load_model
from gptwright.model.lora import is_adapter, load_adapter, merge_lora, read_base
from gptwright.model.transformer import Transformer
from gptwright.tokens.tokenizer import Tokenizer

WORDS = 500
"""Words whose ids each thread keeps: a server encodes on many threads, and the library's own 10,000 are 6 MB on each of them."""


def fast_dtype(device: str | torch.device = "cpu") -> torch.dtype:
    """bf16 where the hardware multiplies it (AMX, AVX512-BF16, a GPU that has it), else fp32. fp16 has no fast path on CPUs."""
    if torch.device(device).type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported(including_emulation=False) else torch.float16
    # Private names of torch.cpu, there since 2.4; without them the safe answer is fp32.
    checks = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return torch.bfloat16 if any(check is not None and check() for check in checks) else torch.float32


def open_model(
    folder: Path, dtype: torch.dtype | None, device: str, adapter: str | Path | None
) -> tuple[Transformer, Tokenizer, Path]:
    """The model, its tokenizer, and the directory that both came from; arguments as of ``Engine.load``."""
    if is_adapter(folder):
        if adapter is not None:
            raise UserError("is an adapter itself", where=str(folder), fix="Give the base model and one adapter")
        folder, adapter = read_base(folder), folder
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"
    dtype = dtype or fast_dtype(device)
    if adapter is None:
        model = load_model(folder, dtype, device)
    else:  # merged in fp32: a bf16 weight would swallow most of a small update
        model = load_model(folder, torch.float32)
        load_adapter(model, adapter)
        merge_lora(model)
        model = model.to(device, dtype)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > model.config.vocab_size:
        raise UserError(
            f"the tokenizer has {tokenizer.vocab_size} ids, the model {model.config.vocab_size} rows",
            where=str(folder),
            fix="Use the tokenizer that the model was trained with",
        )
    return model, tokenizer, folder


def encode_prompt(tokenizer: Tokenizer, text: str) -> list[int]:
    """See ``Engine.encode_prompt``."""
    ids = tokenizer.encode(text)
    if tokenizer.bos_id is not None:
        return [tokenizer.bos_id, *ids]
    return [tokenizer.eos_id, *ids] if tokenizer.is_own or not ids else ids


def fit_chat(
    tokenizer: Tokenizer,
    messages: Sequence[Mapping[str, Any]],
    max_tokens: int,
    seq_len: int,
    tools: Sequence[Mapping[str, Any]] = (),
) -> tuple[list[int], int]:
    """See ``Engine.fit_chat``."""
    if not messages:
        raise UserError("no messages", fix="Send at least one message")
    room = seq_len - min(max_tokens, seq_len // 4)
    lead = next((i for i, m in enumerate(messages) if m.get("role") != "system"), len(messages))
    last = max((i for i, m in enumerate(messages) if m.get("role") == "user"), default=len(messages) - 1)
    first = lead
    while True:
        kept = [*messages[:lead], *messages[first:]]
        ids = list(tokenizer.render(kept, add_generation_prompt=True, tools=tools).ids)
        if len(ids) <= room:
            return ids, first - lead
        first += 1
        # A conversation begins with the user; an answer without its question would confuse more than help.
        while first < last and messages[first].get("role") != "user":
            first += 1
        if first > last:
            raise UserError(
                f"the last message takes {len(ids)} tokens of a context of {seq_len}, of which {seq_len - room} are the answer's",
                fix="Shorten the message, or lower max_tokens",
            )
