"""Open weights in llama.cpp's format: a GGUF file becomes a Hugging Face directory with full-precision weights and a tokenizer.

Read are Llama and Qwen3 shapes with a byte-level BPE vocabulary, in every block format that the ``gguf`` package can dequantize.
"""

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import write_json
from gptwright.model.config import ModelConfig
from gptwright.model.hf import from_hf
from gptwright.model.io import save_model
from gptwright.model.transformer import Transformer

_FAMILIES = {"llama": "llama", "qwen3": "modern"}
_TENSORS = {
    "model.embed_tokens": "token_embd",
    "model.norm": "output_norm",
    "lm_head": "output",
    "input_layernorm": "attn_norm",
    "self_attn.q_proj": "attn_q",
    "self_attn.k_proj": "attn_k",
    "self_attn.v_proj": "attn_v",
    "self_attn.o_proj": "attn_output",
    "self_attn.q_norm": "attn_q_norm",
    "self_attn.k_norm": "attn_k_norm",
    "post_attention_layernorm": "ffn_norm",
    "mlp.gate_proj": "ffn_gate",
    "mlp.up_proj": "ffn_up",
    "mlp.down_proj": "ffn_down",
}
_TO_HF = {theirs: ours for ours, theirs in _TENSORS.items()}
# Token types of llama.cpp (llama.h, llama_token_type).
_CONTROL, _USER_DEFINED = 3, 4


def import_gguf(
    path: str | Path, out_dir: str | Path, dtype: torch.dtype = torch.float32, extra: dict[str, Any] | None = None
) -> Path:
    """Convert a GGUF file into a Hugging Face model directory.

    Args:
        path: the file.
        out_dir: replaced as a whole.
        dtype: dtype of the weights written; fp32 keeps dequantized values exactly.
        extra: further JSON files to write, name -> content (for example the manifest).

    Returns:
        ``out_dir``.

    Raises:
        UserError: not a GGUF file, or an architecture, tensor format or vocabulary that is not supported.
    """
    where = str(path)
    if not Path(path).is_file():
        raise UserError("no such file", where=where, fix="Give the path of a .gguf file")
    try:
        reader = gguf.GGUFReader(str(path))
    except (ValueError, IndexError, KeyError, OverflowError, UnicodeDecodeError) as error:
        raise UserError(f"not a readable GGUF file ({error})", where=where, fix="Fetch it again") from error
    fields = {name: field.contents() for name, field in reader.fields.items()}
    config = read_gguf_config(fields, {t.name for t in reader.tensors}, where)
    with torch.device("meta"):
        model = Transformer(config)
    shapes = {name: value.shape for name, value in model.state_dict().items()}
    tensors = {_hf_name(tensor.name): tensor for tensor in reader.tensors}

    def read(name: str) -> Tensor:
        tensor = tensors[name]
        try:
            value = gguf.quants.dequantize(tensor.data, tensor.tensor_type)
        except NotImplementedError as error:
            raise UserError(
                f"{tensor.name} has format {tensor.tensor_type.name}, which cannot be read",
                where=where,
                fix="Use a Q8_0, Q4_0, Q4_1, K-quant, F16, BF16 or F32 file",
            ) from error
        result = torch.from_numpy(np.array(value, dtype=np.float32))
        if config.family == "llama" and name.endswith(("q_proj.weight", "k_proj.weight")):
            result = unpermute(result, config.d_head)
        return result

    model.load_state_dict(from_hf(config, list(tensors), read, shapes, where, dtype), assign=True)
    with tempfile.TemporaryDirectory() as scratch:
        eos = write_tokenizer(fields, Path(scratch), config.seq_len, where)
        return save_model(model, out_dir, tokenizer_dir=scratch, eos_token_ids=eos, extra=extra)


def unpermute(weight: Tensor, d_head: int) -> Tensor:
    """Rows of each head from llama.cpp's order for ``llama`` (rotary pairs side by side) to the half-split order of Hugging Face.

    Args:
        weight: (heads * d_head, D).
        d_head: width of a head.
    """
    pairs = weight.view(-1, d_head // 2, 2, weight.shape[-1])
    return pairs.transpose(1, 2).reshape(weight.shape)


def read_gguf_config(fields: Mapping[str, Any], tensor_names: set[str], where: str) -> ModelConfig:
    """The shape that a GGUF file's metadata describes.

    Raises:
        UserError: another architecture, or a switch that is not built here.
    """
    kind = str(fields.get("general.architecture"))
    if kind not in _FAMILIES:
        raise UserError(
            f"architecture {kind} is not supported", where=where, fix=f"Supported are {', '.join(_FAMILIES)}"
        )

    def get(key: str, default: Any = None) -> Any:
        value = fields.get(f"{kind}.{key}", default)
        if value is None:
            raise UserError(
                f"{kind}.{key} is missing", where=where, fix="Fetch the file again, or use another conversion"
            )
        return value

    heads, width = int(get("attention.head_count")), int(get("embedding_length"))
    d_head = int(get("attention.key_length", width // heads))
    if int(get("rope.dimension_count", d_head)) != d_head:
        raise UserError("partial rotary positions are not supported", where=where, fix="Use another model")
    scaled = get("rope.scaling.type", "none") != "none" or "rope_freqs.weight" in tensor_names
    if scaled:
        raise UserError("rotary scaling is not supported", where=where, fix="Use a model with plain rotary positions")
    if int(get("expert_count", 0)):
        raise UserError("mixtures of experts are not supported", where=where, fix="Use a dense model")
    rows = len(fields.get("tokenizer.ggml.tokens") or ()) or int(get("vocab_size"))
    return ModelConfig(
        family="llama" if kind == "llama" else "modern",
        vocab_size=int(get("vocab_size", rows)),
        n_layers=int(get("block_count")),
        d_model=width,
        n_heads=heads,
        n_kv_heads=int(get("attention.head_count_kv", heads)),
        d_head=d_head,
        d_ff=int(get("feed_forward_length")),
        seq_len=int(get("context_length")),
        rope_theta=float(get("rope.freq_base", 10000.0)),
        # Stored as fp32: 1e-5 comes back as 9.9999997e-6; seven digits are what was meant.
        norm_eps=float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
        tie_embeddings="output.weight" not in tensor_names,
    )


def _hf_name(name: str) -> str:
    """token_embd.weight -> model.embed_tokens.weight; blk.3.attn_q.weight -> model.layers.3.self_attn.q_proj.weight."""
    stem, _, suffix = name.rpartition(".")
    prefix = ""
    if stem.startswith("blk."):
        _, layer, stem = stem.split(".", 2)
        prefix = f"model.layers.{layer}."
    return f"{prefix}{_TO_HF.get(stem, stem)}.{suffix}"


# The pre-tokenizers that llama.cpp knows by name (src/llama-vocab.cpp), as ``tokenizers`` writes them.
_BYTES = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True}
_GPT2: list[dict[str, Any]] = [_BYTES | {"use_regex": True}]
_DIGITS_GPT2 = [{"type": "Digits", "individual_digits": True}, *_GPT2]


def _regex(pattern: str) -> list[dict[str, Any]]:
    split = {"type": "Split", "pattern": {"Regex": pattern}, "behavior": "Isolated", "invert": False}
    return [split, _BYTES | {"use_regex": False}]


_CONTRACTIONS = r"(?:'[sS]|'[tT]|'[rR][eE]|'[vV][eE]|'[mM]|'[lL][lL]|'[dD])"
_REST = r"|[^\r\n\p{L}\p{N}]?\p{L}+|NUMBER| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_PRE_TOKENIZERS: dict[str, list[dict[str, Any]]] = {
    "gpt-2": _GPT2,
    "smollm": _DIGITS_GPT2,
    "starcoder": _DIGITS_GPT2,
    "refact": _DIGITS_GPT2,
    "command-r": _DIGITS_GPT2,
    "codeshell": _DIGITS_GPT2,
    "qwen2": _regex(_CONTRACTIONS + _REST.replace("NUMBER", r"\p{N}")),
    "llama-bpe": _regex(_CONTRACTIONS + _REST.replace("NUMBER", r"\p{N}{1,3}")),
}


def write_tokenizer(fields: Mapping[str, Any], folder: Path, seq_len: int, where: str) -> list[int]:
    """Rebuild tokenizer.json, tokenizer_config.json, the chat template and generation_config.json from a GGUF file's metadata.

    Returns:
        Ids that end an answer.

    Raises:
        UserError: another kind of vocabulary, or a pre-tokenizer that is not known.
    """
    prefix = "tokenizer.ggml."
    kind, pre = fields.get(f"{prefix}model"), str(fields.get(f"{prefix}pre"))
    if kind != "gpt2":
        raise UserError(
            f"vocabulary of kind {kind} is not supported",
            where=where,
            fix="Use a model with a byte-level BPE (gpt2) vocabulary",
        )
    if pre not in _PRE_TOKENIZERS:
        raise UserError(f"pre-tokenizer {pre} is not known", where=where, fix=f"Known are {', '.join(_PRE_TOKENIZERS)}")
    tokens: list[str] = list(fields[f"{prefix}tokens"])
    types: list[int] = list(fields.get(f"{prefix}token_type") or [1] * len(tokens))
    added = [
        {
            "id": i,
            "content": token,
            "single_word": False,
            "lstrip": False,
            "rstrip": False,
            "normalized": False,
            "special": types[i] == _CONTROL,
        }
        for i, token in enumerate(tokens)
        if types[i] in (_CONTROL, _USER_DEFINED)
    ]
    vocab = {token: i for i, token in enumerate(tokens)}
    if len(vocab) != len(tokens):
        raise UserError("the vocabulary names a token twice", where=where, fix="Use another conversion of the model")
    ids: dict[str, Any] = {
        name: fields.get(f"{prefix}{name}_token_id") for name in ("bos", "eos", "padding", "unknown", "eot")
    }
    # llama.cpp's own default when the file does not say (llama-vocab.cpp): only Llama 3's vocabulary begins with BOS.
    add_bos = bool(fields.get(f"{prefix}add_bos_token", pre == "llama-bpe")) and ids["bos"] is not None
    bos = tokens[ids["bos"]] if ids["bos"] is not None else None
    data = {
        "version": "1.0",
        "truncation": None,
        "padding": None,
        "added_tokens": added,
        "normalizer": None,
        "pre_tokenizer": {"type": "Sequence", "pretokenizers": _PRE_TOKENIZERS[pre]},
        "post_processor": _begin_with(bos, ids["bos"])
        if add_bos
        else {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": False, "use_regex": True},
        "decoder": {"type": "ByteLevel", "add_prefix_space": True, "trim_offsets": True, "use_regex": True},
        "model": {
            "type": "BPE",
            "dropout": None,
            "unk_token": None,
            "continuing_subword_prefix": None,
            "end_of_word_suffix": None,
            "fuse_unk": False,
            "byte_fallback": False,
            "ignore_merges": pre == "llama-bpe",
            "vocab": vocab,
            "merges": [merge.split(" ", 1) for merge in fields[f"{prefix}merges"]],
        },
    }
    (folder / "tokenizer.json").write_text(json.dumps(data, ensure_ascii=False), encoding="utf-8")
    names = {"bos_token": "bos", "eos_token": "eos", "pad_token": "padding", "unk_token": "unknown"}
    write_json(
        folder / "tokenizer_config.json",
        {
            "tokenizer_class": "PreTrainedTokenizerFast",
            "model_max_length": seq_len,
            "clean_up_tokenization_spaces": False,
            "add_prefix_space": False,
            **{key: tokens[ids[name]] for key, name in names.items() if ids[name] is not None},
        },
    )
    if template := fields.get("tokenizer.chat_template"):
        (folder / "chat_template.jinja").write_text(template, encoding="utf-8", newline="\n")
    eos = sorted({int(ids[name]) for name in ("eos", "eot") if ids[name] is not None})
    pad = ids["padding"] if ids["padding"] is not None else (eos[0] if eos else None)
    write_json(
        folder / "generation_config.json", {"bos_token_id": ids["bos"], "eos_token_id": eos, "pad_token_id": pad}
    )
    return eos


def _begin_with(bos: str | None, bos_id: Any) -> dict[str, Any]:
    special = {"SpecialToken": {"id": bos, "type_id": 0}}
    single = [special, {"Sequence": {"id": "A", "type_id": 0}}]
    return {
        "type": "TemplateProcessing",
        "single": single,
        "pair": [*single, {"Sequence": {"id": "B", "type_id": 1}}],
        "special_tokens": {str(bos): {"id": bos, "ids": [int(bos_id)], "tokens": [bos]}},
    }
