"""What llama.cpp calls our families, their metadata keys and their tensors. Pure mappings, both ways."""

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig, RopeScaling
from gptwright.model.transformer import rope_divisors

# llama.cpp has no architecture of its own for Mistral: it is a llama.
ARCHITECTURES = {"modern": "qwen3", "gpt2": "gpt2", "llama": "llama", "mistral": "llama", "qwen2": "qwen2"}
_FAMILIES = {"llama": "llama", "qwen3": "modern", "qwen2": "qwen2", "gpt2": "gpt2"}
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
    "transformer.wte": "token_embd",
    "transformer.wpe": "position_embd",
    "transformer.ln_f": "output_norm",
    "ln_1": "attn_norm",
    "attn.c_attn": "attn_qkv",
    "attn.c_proj": "attn_output",
    "ln_2": "ffn_norm",
    "mlp.c_fc": "ffn_up",
    "mlp.c_proj": "ffn_down",
}
ROPE_FACTORS = "rope_freqs.weight"


def to_gguf_name(name: str) -> str:
    """model.layers.3.self_attn.q_proj.weight -> blk.3.attn_q.weight; transformer.h.0.ln_1.bias -> blk.0.attn_norm.bias."""
    stem, _, suffix = name.rpartition(".")
    parts = stem.split(".")
    if len(parts) > 3 and parts[1] in ("layers", "h"):
        return f"blk.{parts[2]}.{_TENSORS['.'.join(parts[3:])]}.{suffix}"
    return f"{_TENSORS[stem]}.{suffix}"


def permute(weight: Tensor, d_head: int) -> Tensor:
    """Rows of each head from the half-split order of Hugging Face to llama.cpp's for ``llama`` (rotary pairs side by side).

    Args:
        weight: (heads * d_head, D) or (heads * d_head,).
        d_head: width of a head.
    """
    halves = weight.reshape(-1, 2, d_head // 2, *weight.shape[1:])
    return halves.transpose(1, 2).reshape(weight.shape)


def unpermute(weight: Tensor, d_head: int) -> Tensor:
    """The inverse of ``permute``."""
    pairs = weight.reshape(-1, d_head // 2, 2, *weight.shape[1:])
    return pairs.transpose(1, 2).reshape(weight.shape)


def is_permuted(config: ModelConfig, name: str) -> bool:
    """Whether a tensor, by its Hugging Face name, has its rows in llama.cpp's order."""
    return ARCHITECTURES[config.family] == "llama" and name.split(".")[-2] in ("q_proj", "k_proj")


def config_from_gguf(
    fields: Mapping[str, Any], tensor_names: set[str], rope_factors: Tensor | None, where: str
) -> ModelConfig:
    """The shape that a GGUF file's metadata describes.

    Args:
        fields: the metadata.
        tensor_names: every tensor of the file.
        rope_factors: the tensor of that name, if there is one.
        where: the file, for messages.

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

    if int(get("expert_count", 0)):
        raise UserError("mixtures of experts are not supported", where=where, fix="Use a dense model")
    heads, width = int(get("attention.head_count")), int(get("embedding_length"))
    d_head = int(get("attention.key_length", width // max(heads, 1)))
    rows = len(fields.get("tokenizer.ggml.tokens") or ()) or int(get("vocab_size"))
    common: dict[str, Any] = {
        "family": _FAMILIES[kind],
        "vocab_size": int(get("vocab_size", rows)),
        "n_layers": int(get("block_count")),
        "d_model": width,
        "n_heads": heads,
        "d_ff": int(get("feed_forward_length")),
        "seq_len": int(get("context_length")),
        "tie_embeddings": "output.weight" not in tensor_names,
    }
    # Stored as fp32: 1e-5 comes back as 9.9999997e-6; seven digits are what was meant.
    if kind == "gpt2":
        eps = float(f"{get('attention.layer_norm_epsilon'):.6g}")
        return ModelConfig(**common, n_kv_heads=heads, d_head=d_head, norm_eps=eps)
    if int(get("rope.dimension_count", d_head)) != d_head or int(get("attention.value_length", d_head)) != d_head:
        raise UserError("partial rotary positions are not supported", where=where, fix="Use another model")
    return ModelConfig(
        **common,
        n_kv_heads=int(get("attention.head_count_kv", heads)),
        d_head=d_head,
        rope_theta=float(get("rope.freq_base", 10000.0)),
        rope_scaling=_rope_scaling(fields, kind, d_head, float(get("rope.freq_base", 10000.0)), rope_factors, where),
        norm_eps=float(f"{get('attention.layer_norm_rms_epsilon'):.6g}"),
    )


def _rope_scaling(
    fields: Mapping[str, Any], kind: str, d_head: int, theta: float, factors: Tensor | None, where: str
) -> RopeScaling | None:
    scaling = str(fields.get(f"{kind}.rope.scaling.type", "none"))
    if scaling == "linear":
        return RopeScaling(kind="linear", factor=float(fields.get(f"{kind}.rope.scaling.factor", 1.0)))
    if scaling != "none":
        raise UserError(
            f"rotary scaling {scaling} is not supported",
            where=where,
            fix="Use a model with plain, linear or llama3 rotary positions",
        )
    if factors is None:
        return None
    # The file holds what the rule gave, not the rule. Every Llama 3 has these bounds; the largest divisor is the factor.
    found = RopeScaling(kind="llama3", factor=float(factors.max()), original_seq_len=8192)
    frequencies = theta ** (-torch.arange(0, d_head, 2, dtype=torch.float32) / d_head)
    for length in (8192, *(2**n for n in range(5, 18))):
        guess = found.model_copy(update={"original_seq_len": length})
        if factors.shape == frequencies.shape and torch.allclose(rope_divisors(frequencies, guess), factors, rtol=1e-3):
            return guess
    raise UserError(
        f"{ROPE_FACTORS} follows no rule that is known here", where=where, fix="Use a Llama 3 model, or one without it"
    )
