"""The pre-tokenizers that llama.cpp knows by name: GGUF names one instead of describing it."""

from collections.abc import Mapping
from typing import Any

from gptwright.core.errors import UserError

# The pre-tokenizers that llama.cpp knows by name (src/llama-vocab.cpp), as ``tokenizers`` writes them.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2: list[dict[str, Any]] = [_BYTES | {"use_regex": True}]
_DIGITS_GPT2 = [{"type": "Digits", "individual_digits": True}, *_GPT2]


def _regex(pattern: str) -> list[dict[str, Any]]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, _BYTES | {"use_regex": False}]


_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_FOLDED = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"  # how Qwen's and Llama's own files spell it
_REST = r"|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_TEKKEN = (
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|"
    r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}|"
    r" ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)
PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "command-r": _DIGITS_GPT2,
    "codeshell": _DIGITS_GPT2,
    "qwen2": _regex(_CONTRACTIONS + _REST.replace("NUMBER", r"\p{N}")),
    "llama-bpe": _regex(_CONTRACTIONS + _REST.replace("NUMBER", r"\p{N}{1,3}")),
    "tekken": _regex(_TEKKEN),
}
ALIASES = {"llama3": "llama-bpe", "llama-v3": "llama-bpe", "deepseek-r1-qwen": "qwen2", "phi-2": "gpt-2"}
# llama.cpp takes a whole word that is a token as it is, before any merge, and begins with BOS unless the file says no.
WHOLE_WORDS = ("llama-bpe", "tekken")


def pre_tokenizer_name(data: Mapping[str, Any], where: str) -> str:
    """The name under which llama.cpp knows a tokenizer.json's pre-tokenizer.

    Raises:
        UserError: it has none.
    """
    found = _steps(data.get("pre_tokenizer"))
    whole = bool(data.get("model", {}).get("ignore_merges"))
    for name, steps in PRE_TOKENIZERS.items():
        if found == _steps({"type": "Sequence", "pretokenizers": steps}) and whole == (name in WHOLE_WORDS):
            return name
    raise UserError(
        "llama.cpp has no name for this pre-tokenizer",
        where=where,
        fix=f"Use a tokenizer whose pre-tokenizer is one of {', '.join(PRE_TOKENIZERS)} (those trained here are qwen2)",
    )


def _steps(node: Any) -> list[tuple[Any, ...]]:
    """A pre-tokenizer by what it does: defaults and ways to spell the same are taken out."""
    if not isinstance(node, dict):
        return []
    kind = node.get("type")
    if kind == "Sequence":
        return [step for part in node.get("pretokenizers", []) for step in _steps(part)]
    if kind == "Split":
        pattern = str((node.get("pattern") or {}).get("Regex")).replace(_FOLDED, _CONTRACTIONS)
        return [(kind, pattern, str(node.get("behavior")).lower(), bool(node.get("invert")))]
    if kind == "Digits":
        return [(kind, bool(node.get("individual_digits")))]
    if kind == "ByteLevel":
        return [(kind, bool(node.get("add_prefix_space")), bool(node.get("use_regex", True)))]
    return [(kind,)]
