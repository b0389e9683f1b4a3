"""Vocabularies between Hugging Face's tokenizer files and GGUF metadata, both ways: byte-level BPE, and SentencePiece's BPE (``llama``).

GGUF names a pre-tokenizer instead of describing it, so only those that llama.cpp knows by name can pass.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json, write_json
from gptwright.model.pretokenizers import ALIASES, PRE_TOKENIZERS, WHOLE_WORDS, pre_tokenizer_name

# Token types of llama.cpp (llama.h, llama_token_type).
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
_PREFIX = "tokenizer.ggml."
_SPACE = "▁"


def vocab_to_gguf(folder: Path) -> tuple[dict[str, Any], int]:
    """What a model directory's tokenizer is in GGUF metadata.

    Args:
        folder: holds tokenizer.json and the files beside it.

    Returns:
        Fields without their ``tokenizer.ggml.`` (``chat_template`` aside), and the number of tokens: rows of the embedding beyond it
        belong to no token.

    Raises:
        UserError: no tokenizer.json, or a vocabulary or pre-tokenizer that llama.cpp does not know.
    """
    where = str(folder / "tokenizer.json")
    data, config = read_json(where), _optional(folder / "tokenizer_config.json")
    model = data.get("model") or {}
    if model.get("type", "BPE") != "BPE":
        raise UserError(
            f"a vocabulary of type {model.get('type')} cannot be written to GGUF",
            where=where,
            fix="Use a model with a BPE vocabulary",
        )
    added = {int(token["id"]): token for token in data.get("added_tokens", [])}
    names: dict[int, str] = {int(i): token for token, i in model["vocab"].items()}
    names |= {i: token["content"] for i, token in added.items()}
    size = max(names) + 1
    spm = bool(model.get("byte_fallback"))
    types = [_type_of(i, names.get(i), added.get(i), model.get("unk_token") if spm else None, spm) for i in range(size)]
    merges = [merge if isinstance(merge, str) else " ".join(merge) for merge in model["merges"]]
    fields: dict[str, Any] = {
        "model": "llama" if spm else "gpt2",
        "pre": "default" if spm else pre_tokenizer_name(data, where),
        "tokens": [names.get(i, f"[UNUSED{i}]") for i in range(size)],
        "token_type": types,
    }
    if spm:
        fields["scores"] = _scores(fields["tokens"], merges, types)
        fields["add_space_prefix"] = _prepends_space(data)
    else:
        fields["merges"] = merges
    fields |= _special_ids(folder, config, {name: i for i, name in names.items()})
    begins, ends = _added_by_template(data.get("post_processor"), fields)
    fields["add_bos_token"], fields["add_eos_token"] = begins, ends
    template = folder / "chat_template.jinja"
    source = template.read_text(encoding="utf-8") if template.is_file() else config.get("chat_template")
    if isinstance(source, str):
        fields["chat_template"] = source
    return fields, size


def _type_of(index: int, name: str | None, added: Mapping[str, Any] | None, unknown: str | None, spm: bool) -> int:
    if name is None:
        return UNUSED
    if spm and name == unknown:
        return UNKNOWN
    if added is not None:
        return CONTROL if added.get("special") else USER_DEFINED
    return BYTE if spm and len(name) == 6 and name.startswith("<0x") and name.endswith(">") else NORMAL


def _scores(tokens: list[str], merges: list[str], types: list[int]) -> list[float]:
    """SentencePiece joins the pair whose piece has the highest score; merges list the pieces in that order."""
    rank: dict[str, int] = {}
    for merge in merges:
        rank.setdefault(merge.replace(" ", "", 1), len(rank))
    # A piece that no merge makes (a character) needs no score; one that cannot be made must not win.
    return [
        -float(rank.get(token, len(rank))) if kind == NORMAL and len(token) > 1 else 0.0
        for token, kind in zip(tokens, types, strict=True)
    ]


def _prepends_space(data: Mapping[str, Any]) -> bool:
    """Whether a text is given a space before its first word: by the normaliser (Llama 2), or by the pre-tokenizer (newer Mistral).

    The latter gives none to a text that begins with a space; llama.cpp, like SentencePiece, does.
    """
    normalizer, pre = data.get("normalizer") or {}, data.get("pre_tokenizer") or {}
    steps = normalizer.get("normalizers", [normalizer])
    if any(step.get("type") == "Prepend" for step in steps):
        return True
    return pre.get("type") == "Metaspace" and pre.get("prepend_scheme", "always") != "never"


def _special_ids(folder: Path, config: Mapping[str, Any], ids: Mapping[str, int]) -> dict[str, int]:
    def named(key: str) -> int | None:
        value = config.get(key)
        return ids.get(str(value.get("content") if isinstance(value, dict) else value))

    ends = _optional(folder / "generation_config.json").get("eos_token_id")
    ends = [] if ends is None else [ends] if isinstance(ends, int) else list(ends)
    eos = named("eos_token")
    if eos is None or (ends and eos not in ends):
        eos = ends[0] if ends else eos
    found = {
        "bos_token_id": named("bos_token"),
        "eos_token_id": eos,
        "eot_token_id": next((end for end in ends if end != eos), None),
        "padding_token_id": named("pad_token"),
        "unknown_token_id": named("unk_token"),
    }
    return {key: value for key, value in found.items() if value is not None}


def _added_by_template(processor: Any, fields: Mapping[str, Any]) -> tuple[bool, bool]:
    """Whether encoding a text begins with BOS, and ends with EOS."""
    parts = processor.get("processors", [processor]) if isinstance(processor, dict) else []
    for part in parts:
        if part.get("type") == "TemplateProcessing" and part.get("single"):
            first, last = part["single"][0], part["single"][-1]
            return "SpecialToken" in first and "bos_token_id" in fields, "SpecialToken" in last
    return False, False


def vocab_from_gguf(fields: Mapping[str, Any], folder: Path, seq_len: int, where: str) -> list[int]:
    """Rebuild tokenizer.json, tokenizer_config.json, the chat template and generation_config.json from a GGUF file's metadata.

    Returns:
        Ids that end an answer.

    Raises:
        UserError: another kind of vocabulary, a pre-tokenizer that is not known, or parts that contradict each other.
    """
    kind = str(fields.get(f"{_PREFIX}model"))
    if kind not in ("gpt2", "llama"):
        raise UserError(
            f"vocabulary of kind {kind} is not supported",
            where=where,
            fix="Use a model with a byte-level BPE (gpt2) or SentencePiece (llama) vocabulary",
        )
    tokens = _strings(fields, "tokens", where)
    types = _numbers(fields, "token_type") or [NORMAL] * len(tokens)
    if len(types) != len(tokens) or len(set(tokens)) != len(tokens):
        raise UserError(
            "the vocabulary names a token twice"
            if len(types) == len(tokens)
            else "tokens and their types differ in number",
            where=where,
            fix="Use another conversion of the model",
        )
    ids = {
        name: _id_of(fields.get(f"{_PREFIX}{name}_token_id"), len(tokens), where)
        for name in ("bos", "eos", "padding", "unknown", "eot")
    }
    data = _sentence_piece(fields, tokens, types, ids, where) if kind == "llama" else _byte_level(fields, tokens, where)
    pre = "" if kind == "llama" else _pre_of(fields, where)
    # llama.cpp's own default when the file does not say (llama-vocab.cpp): SentencePiece and Llama 3 begin with BOS.
    add_bos = bool(fields.get(f"{_PREFIX}add_bos_token", kind == "llama" or pre in WHOLE_WORDS))
    bos = tokens[ids["bos"]] if ids["bos"] is not None and add_bos else None
    plain = {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True}
    data["post_processor"] = _begin_with(bos, ids["bos"]) if bos is not None else plain if kind == "gpt2" else None
    data["added_tokens"] = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[i] != USER_DEFINED,
        }
        for i, token in enumerate(tokens)
        if types[i] in (CONTROL, USER_DEFINED) or (kind == "llama" and types[i] == UNKNOWN)
    ]
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    special = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": seq_len,
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            **{key: tokens[index] for key, name in special.items() if (index := ids[name]) is not None},
        },
    )
    if template := fields.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(str(template), encoding="utf-8", newline="\n")
    eos = sorted({index for name in ("eos", "eot") if (index := ids[name]) is not None})
    pad = ids["padding"] if ids["padding"] is not None else (eos[0] if eos else None)
    write_json(
        folder / "generation_config.json", {"bos_token_id": ids["bos"], "eos_token_id": eos, "pad_token_id": pad}
    )
    return eos


def _byte_level(fields: Mapping[str, Any], tokens: list[str], where: str) -> dict[str, Any]:
    pre = _pre_of(fields, where)
    return _tokenizer(
        tokens,
        [merge.split(" ", 1) for merge in _strings(fields, "merges", where)],
        pre_tokenizer={"type": "Sequence", "pretokenizers": PRE_TOKENIZERS[pre]},
        decoder={"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        ignore_merges=pre in WHOLE_WORDS,
    )


def _pre_of(fields: Mapping[str, Any], where: str) -> str:
    name = str(fields.get(f"{_PREFIX}pre"))
    name = ALIASES.get(name, name)
    if name not in PRE_TOKENIZERS:
        raise UserError(f"pre-tokenizer {name} is not known", where=where, fix=f"Known are {', '.join(PRE_TOKENIZERS)}")
    return name


def _sentence_piece(
    fields: Mapping[str, Any], tokens: list[str], types: list[int], ids: Mapping[str, int | None], where: str
) -> dict[str, Any]:
    """The merges that give what scores give: every way to make a piece of two others, best pieces first."""
    scores = _numbers(fields, "scores")
    if len(scores) != len(tokens):
        raise UserError("the vocabulary has no scores", where=where, fix="Use another conversion of the model")
    known = {token: i for i, token in enumerate(tokens) if types[i] == NORMAL}
    ranked = sorted((i for i in known.values() if len(tokens[i]) > 1), key=lambda i: (-scores[i], i))
    merges = []
    for i in ranked:
        splits = ((tokens[i][:cut], tokens[i][cut:]) for cut in range(1, len(tokens[i])))
        merges += sorted(
            ([left, right] for left, right in splits if left in known and right in known),
            key=lambda pair: (known[pair[0]], known[pair[1]]),
        )
    prefix = bool(fields.get(f"{_PREFIX}add_space_prefix", True))
    replace = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    strip = [{"type": "Strip", "content": " ", "start": 1, "stop": 0}] if prefix else []
    unknown = ids["unknown"]
    return _tokenizer(
        tokens,
        merges,
        normalizer={
            "type": "Sequence",
            "normalizers": [*([{"type": "Prepend", "prepend": _SPACE}] if prefix else []), replace],
        },
        decoder={
            "type": "Sequence",
            "decoders": [
                {"type": "Replace", "pattern": {"String": _SPACE}, "content": " "},
                {"type": "ByteFallback"},
                {"type": "Fuse"},
                *strip,
            ],
        },
        unk_token=None if unknown is None else tokens[unknown],
        byte_fallback=True,
        fuse_unk=True,
    )


def _tokenizer(
    tokens: list[str],
    merges: list[list[str]],
    *,
    decoder: dict[str, Any],
    normalizer: dict[str, Any] | None = None,
    pre_tokenizer: dict[str, Any] | None = None,
    ignore_merges: bool = False,
    unk_token: str | None = None,
    byte_fallback: bool = False,
    fuse_unk: bool = False,
) -> dict[str, Any]:
    return {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": [],
        "normalizer": normalizer,
        "pre_tokenizer": pre_tokenizer,
        "post_processor": None,
        "decoder": decoder,
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": unk_token,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": fuse_unk,
            "byte_fallback": byte_fallback,
            "ignore_merges": ignore_merges,
            "vocab": {token: i for i, token in enumerate(tokens)},
            "merges": merges,
        },
    }


def _begin_with(bos: str, bos_id: Any) -> dict[str, Any]:
    special = {"SpecialToken": {"id": bos, "type_id": 0}}
    single = [special, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {bos: {"id": bos, "ids": [int(bos_id)], "tokens": [bos]}},
    }


def _strings(fields: Mapping[str, Any], key: str, where: str) -> list[str]:
    value = fields.get(f"{_PREFIX}{key}")
    if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
        raise UserError(f"{_PREFIX}{key} is missing", where=where, fix="Use another conversion of the model")
    return value


def _numbers(fields: Mapping[str, Any], key: str) -> list[Any]:
    value = fields.get(f"{_PREFIX}{key}")
    return value if isinstance(value, list) and all(isinstance(item, int | float) for item in value) else []


def _id_of(value: Any, tokens: int, where: str) -> int | None:
    if value is None:
        return None
    if not isinstance(value, int) or not 0 <= value < tokens:
        raise UserError(
            f"a special token's id is {value!r}, of {tokens:,} tokens",
            where=where,
            fix="Use another conversion of the model",
        )
    return value


def _optional(path: Path) -> dict[str, Any]:
    data = read_json(path) if path.is_file() else {}
    return data if isinstance(data, dict) else {}
