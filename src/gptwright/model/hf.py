"""Between our parameters and Hugging Face's: config.json and tensor names of each family. Pure mappings, no files.

Ours fuses queries, keys and values into one matrix, and gate and up into another; theirs are apart. GPT-2 on disk stores its
matrices transposed (the class is Conv1D).
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import torch
from pydantic import ValidationError
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig, RopeScaling

_MISTRAL_KV_HEADS = 8  # the class's default, for a file that leaves it out
CLASSES = {
    "modern": "Qwen3ForCausalLM",
    "gpt2": "GPT2LMHeadModel",
    "llama": "LlamaForCausalLM",
    "mistral": "MistralForCausalLM",
    "qwen2": "Qwen2ForCausalLM",
}
FAMILIES = {"qwen3": "modern", "gpt2": "gpt2", "llama": "llama", "mistral": "mistral", "qwen2": "qwen2"}
MODEL_TYPES = {family: kind for kind, family in FAMILIES.items()}
SUPPORTED = "GPT-2, Llama, Mistral, Qwen2 (and 2.5) and Qwen3 models without experts"
# Buffers that older files carry beside the weights.
_IGNORED = (".attn.bias", ".attn.masked_bias", ".rotary_emb.inv_freq")


@dataclass(frozen=True)
class Entry:
    """One of our parameters and the tensors on disk it consists of.

    Args:
        ours: name in ``Transformer.state_dict``.
        theirs: names on disk, stacked along the rows in this order.
        rows: rows (output features) of each.
        transposed: stored as (in, out) on disk.
    """

    ours: str
    theirs: tuple[str, ...]
    rows: tuple[int, ...]
    transposed: bool = False

    def split(self, value: Tensor) -> Iterator[tuple[str, Tensor]]:
        """Our tensor as theirs: (name, tensor) pairs."""
        for name, part in zip(self.theirs, torch.split(value, list(self.rows)), strict=True):
            yield name, (part.t() if self.transposed else part).contiguous()

    def join(self, parts: Sequence[Tensor]) -> Tensor:
        """Their tensors as ours, a fresh copy."""
        return torch.cat([part.t() if self.transposed else part for part in parts]).contiguous()


def entries(config: ModelConfig) -> list[Entry]:
    """Every parameter of a model of this shape, in the order of ``state_dict``."""
    return list(_gpt2(config) if config.family == "gpt2" else _llama(config))


def _llama(c: ModelConfig) -> Iterator[Entry]:
    q, kv = c.n_heads * c.d_head, c.n_kv_heads * c.d_head
    yield Entry("embedding.weight", ("model.embed_tokens.weight",), (c.vocab_size,))
    for i in range(c.n_layers):
        ours, theirs = f"blocks.{i}.", f"model.layers.{i}."
        qkv = tuple(f"{theirs}self_attn.{name}_proj.weight" for name in "qkv")
        yield Entry(f"{ours}norm1.weight", (f"{theirs}input_layernorm.weight",), (c.d_model,))
        yield Entry(f"{ours}attention.qkv.weight", qkv, (q, kv, kv))
        if c.qkv_bias:
            biases = tuple(f"{theirs}self_attn.{name}_proj.bias" for name in "qkv")
            yield Entry(f"{ours}attention.qkv.bias", biases, (q, kv, kv))
        yield Entry(f"{ours}attention.out.weight", (f"{theirs}self_attn.o_proj.weight",), (c.d_model,))
        if c.qk_norm:
            yield Entry(f"{ours}attention.q_norm.weight", (f"{theirs}self_attn.q_norm.weight",), (c.d_head,))
            yield Entry(f"{ours}attention.k_norm.weight", (f"{theirs}self_attn.k_norm.weight",), (c.d_head,))
        yield Entry(f"{ours}norm2.weight", (f"{theirs}post_attention_layernorm.weight",), (c.d_model,))
        gate_up = (f"{theirs}mlp.gate_proj.weight", f"{theirs}mlp.up_proj.weight")
        yield Entry(f"{ours}feed_forward.up.weight", gate_up, (c.d_ff, c.d_ff))
        yield Entry(f"{ours}feed_forward.down.weight", (f"{theirs}mlp.down_proj.weight",), (c.d_model,))
    yield Entry("norm.weight", ("model.norm.weight",), (c.d_model,))
    if not c.tie_embeddings:
        yield Entry("head.weight", ("lm_head.weight",), (c.vocab_size,))


def _gpt2(c: ModelConfig) -> Iterator[Entry]:
    yield Entry("embedding.weight", ("transformer.wte.weight",), (c.vocab_size,))
    yield Entry("positions.weight", ("transformer.wpe.weight",), (c.seq_len,))
    for i in range(c.n_layers):
        ours, theirs = f"blocks.{i}.", f"transformer.h.{i}."
        for our_name, their_name, rows, matrix in (
            ("norm1", "ln_1", c.d_model, False),
            ("attention.qkv", "attn.c_attn", 3 * c.d_model, True),
            ("attention.out", "attn.c_proj", c.d_model, True),
            ("norm2", "ln_2", c.d_model, False),
            ("feed_forward.up", "mlp.c_fc", c.d_ff, True),
            ("feed_forward.down", "mlp.c_proj", c.d_model, True),
        ):
            yield Entry(f"{ours}{our_name}.weight", (f"{theirs}{their_name}.weight",), (rows,), transposed=matrix)
            yield Entry(f"{ours}{our_name}.bias", (f"{theirs}{their_name}.bias",), (rows,))
    yield Entry("norm.weight", ("transformer.ln_f.weight",), (c.d_model,))
    yield Entry("norm.bias", ("transformer.ln_f.bias",), (c.d_model,))
    if not c.tie_embeddings:
        yield Entry("head.weight", ("lm_head.weight",), (c.vocab_size,))


def to_hf(config: ModelConfig, state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename and split a ``Transformer.state_dict``.

    Raises:
        ValueError: the state holds more than the model's own parameters (for example LoRA matrices that were not merged).
    """
    known = entries(config)
    extra = set(state) - {entry.ours for entry in known}
    if extra:
        raise ValueError(f"parameters without a place on disk: {', '.join(sorted(extra)[:3])} (merge LoRA first)")
    return dict(pair for entry in known for pair in entry.split(state[entry.ours]))


_BARE = {"gpt2": ("transformer.", ("wte", "wpe", "h", "ln_f")), "llama": ("model.", ("embed_tokens", "layers", "norm"))}


def from_hf(
    config: ModelConfig,
    names: Sequence[str],
    read: Callable[[str], Tensor],
    shapes: Mapping[str, torch.Size],
    where: str,
    dtype: torch.dtype | None,
) -> dict[str, Tensor]:
    """Read, join and rename the tensors of a checkpoint.

    Args:
        config: the shape that its config.json describes.
        names: every tensor name in the files.
        read: gives one tensor by name.
        shapes: expected shape of each of our parameters.
        where: the directory, for messages.
        dtype: dtype of the result; None keeps each tensor's own.

    Returns:
        A state dict for ``Transformer.load_state_dict``.

    Raises:
        UserError: a tensor is missing, has another shape, or has no place in the architecture.
    """
    # The first GPT-2 files and those of embedding models were saved from the bare model, without the prefix.
    prefix, bare = _BARE["gpt2" if config.family == "gpt2" else "llama"]
    present = {(prefix + n if n.split(".")[0] in bare else n): n for n in names}
    state: dict[str, Tensor] = {}
    used: set[str] = set()
    for entry in entries(config):
        missing = [name for name in entry.theirs if name not in present]
        if missing:
            raise UserError(
                f"tensor {missing[0]} is missing",
                where=where,
                fix="The download is incomplete or config.json belongs to another model; fetch it again",
            )
        parts = [read(present[name]) for name in entry.theirs]
        # Checked before they are joined: a hostile file must not pass with rows moved from one matrix to another.
        odd = next((i for i, part in enumerate(parts) if _rows(part, entry.transposed) != entry.rows[i]), None)
        value = entry.join(parts) if odd is None else parts[odd]
        if odd is not None or value.shape != shapes[entry.ours]:
            wanted = f"{tuple(shapes[entry.ours])}" if odd is None else f"{entry.rows[odd]} rows"
            raise UserError(
                f"{entry.theirs[odd or 0]} gives shape {tuple(value.shape)} where config.json asks for {wanted}",
                where=where,
                fix="config.json and the weights belong to different models; use a matching pair",
            )
        state[entry.ours] = value.to(dtype) if dtype is not None else value
        used.update(entry.theirs)
    tied = {"lm_head.weight"} if config.tie_embeddings else set()
    unknown = [n for n in present if n not in used | tied and not n.endswith(_IGNORED)]
    if unknown:
        raise UserError(
            f"tensor {unknown[0]} has no place in {CLASSES[config.family]} as it is built here",
            where=where,
            fix=f"Supported are {SUPPORTED}",
        )
    return state


def _rows(part: Tensor, transposed: bool) -> int:
    return int(part.shape[-1 if transposed else 0]) if part.ndim else 0


def config_to_hf(
    config: ModelConfig, dtype: torch.dtype, eos_token_ids: Sequence[int], pad_token_id: int | None
) -> dict[str, Any]:
    """The content of config.json. ``rope_theta`` is written in both places: transformers 5 reads ``rope_parameters``, others the old key."""
    name = str(dtype).removeprefix("torch.")
    common: dict[str, Any] = {
        "architectures": [CLASSES[config.family]],
        "model_type": MODEL_TYPES[config.family],
        "vocab_size": config.vocab_size,
        "tie_word_embeddings": config.tie_embeddings,
        "bos_token_id": None,
        "eos_token_id": list(eos_token_ids),
        "pad_token_id": pad_token_id,
        "dtype": name,
        "torch_dtype": name,
        "use_cache": True,
    }
    if config.family == "gpt2":
        return common | {
            "n_layer": config.n_layers,
            "n_embd": config.d_model,
            "n_head": config.n_heads,
            "n_inner": config.d_ff,
            "n_positions": config.seq_len,
            "n_ctx": config.seq_len,
            "activation_function": "gelu_new",
            "layer_norm_epsilon": config.norm_eps,
            "attn_pdrop": 0.0,
            "embd_pdrop": 0.0,
            "resid_pdrop": 0.0,
        }
    rope = _rope_to_hf(config)
    own: dict[str, Any] = {"attention_bias": False} if config.family in ("modern", "llama") else {}
    if config.family == "mistral":
        own["sliding_window"] = config.sliding_window
    if config.rope_scaling is not None:
        own["rope_scaling"] = {key: value for key, value in rope.items() if key != "rope_theta"}
    if config.family in ("modern", "qwen2"):
        own["use_sliding_window"] = False
    return common | {
        "num_hidden_layers": config.n_layers,
        "hidden_size": config.d_model,
        "num_attention_heads": config.n_heads,
        "num_key_value_heads": config.n_kv_heads,
        "head_dim": config.d_head,
        "intermediate_size": config.d_ff,
        "max_position_embeddings": config.seq_len,
        "rms_norm_eps": config.norm_eps,
        "rope_theta": config.rope_theta,
        "rope_parameters": rope,
        "hidden_act": "silu",
        "attention_dropout": 0.0,
        **own,
    }


def _rope_to_hf(config: ModelConfig) -> dict[str, Any]:
    plain: dict[str, Any] = {"rope_type": "default", "rope_theta": config.rope_theta}
    scaling = config.rope_scaling
    if scaling is None:
        return plain
    plain |= {"rope_type": scaling.kind, "factor": scaling.factor}
    if scaling.kind == "linear":
        return plain
    return plain | {
        "low_freq_factor": scaling.low_freq_factor,
        "high_freq_factor": scaling.high_freq_factor,
        "original_max_position_embeddings": scaling.original_seq_len,
    }


def config_from_hf(data: Mapping[str, Any], where: str) -> ModelConfig:
    """Our config from a parsed config.json.

    Raises:
        UserError: another architecture, or a switch that would change the arithmetic and is not built here.
    """
    if not isinstance(data, Mapping):
        raise UserError("holds no JSON object", where=where, fix="Restore the config.json that came with the weights")
    kind = str(data.get("model_type", "missing"))
    if kind not in FAMILIES:
        raise UserError(f"model_type {kind} is not supported", where=where, fix=f"Supported are {SUPPORTED}")
    try:
        return _gpt2_from_hf(data, where) if kind == "gpt2" else _llama_from_hf(FAMILIES[kind], data, where)
    except KeyError as error:
        raise UserError(
            f"{error.args[0]} is missing", where=where, fix="Restore the config.json that came with the weights"
        ) from error
    except (ValidationError, TypeError, ValueError, AttributeError, ArithmeticError) as error:
        what = error.errors()[0]["msg"] if isinstance(error, ValidationError) else str(error)
        raise UserError(
            f"describes no model ({what})", where=where, fix="Restore the config.json that came with the weights"
        ) from error


def _only(data: Mapping[str, Any], where: str, key: str, *allowed: Any) -> None:
    value = data.get(key, allowed[0])
    if value not in allowed:
        raise UserError(
            f"{key} = {value!r} is not supported", where=where, fix=f"Use a model with {key} = {allowed[0]!r}"
        )


def _gpt2_from_hf(data: Mapping[str, Any], where: str) -> ModelConfig:
    _only(data, where, "activation_function", "gelu_new", "gelu_pytorch_tanh")
    _only(data, where, "scale_attn_weights", True)
    _only(data, where, "scale_attn_by_inverse_layer_idx", False)
    _only(data, where, "add_cross_attention", False)
    width = int(data["n_embd"])
    return ModelConfig(
        family="gpt2",
        vocab_size=data["vocab_size"],
        n_layers=data["n_layer"],
        d_model=width,
        n_heads=data["n_head"],
        n_kv_heads=data["n_head"],
        d_head=width // int(data["n_head"]),
        d_ff=data.get("n_inner") or 4 * width,
        seq_len=data["n_positions"],
        rope_theta=10_000.0,  # unused: positions are learned
        norm_eps=data.get("layer_norm_epsilon", 1e-5),
        tie_embeddings=data.get("tie_word_embeddings", True),
    )


def _llama_from_hf(family: str, data: Mapping[str, Any], where: str) -> ModelConfig:
    _only(data, where, "hidden_act", "silu", "swish")
    _only(data, where, "attention_bias", family == "qwen2", False)  # Qwen2's class has its biases whatever this says
    _only(data, where, "mlp_bias", False)
    if family != "mistral":
        _only(data, where, "use_sliding_window", False)
    _only(data, where, "partial_rotary_factor", 1.0)
    heads = int(data["num_attention_heads"])
    return ModelConfig(
        family=cast(Any, family),
        vocab_size=data["vocab_size"],
        n_layers=data["num_hidden_layers"],
        d_model=data["hidden_size"],
        n_heads=heads,
        n_kv_heads=data.get("num_key_value_heads") or (_MISTRAL_KV_HEADS if family == "mistral" else heads),
        # Qwen3's own default is 128 whatever the width; the others' follows from the width.
        d_head=data.get("head_dim") or (128 if family == "modern" else int(data["hidden_size"]) // heads),
        d_ff=data["intermediate_size"],
        seq_len=data["max_position_embeddings"],
        rope_theta=_rope_theta(data),
        rope_scaling=_rope_scaling(data, where),
        # A file that leaves the window out means the class's own 4,096 (the first Mistral); later ones say null.
        sliding_window=data.get("sliding_window", 4096) if family == "mistral" else None,
        norm_eps=data.get("rms_norm_eps", 1e-6),
        tie_embeddings=data.get("tie_word_embeddings", False),
    )


def _rope_theta(data: Mapping[str, Any]) -> float:
    return float((data.get("rope_parameters") or {}).get("rope_theta") or data.get("rope_theta") or 10000.0)


def _rope_scaling(data: Mapping[str, Any], where: str) -> RopeScaling | None:
    """Of ``rope_parameters`` (transformers 5), or of ``rope_scaling``."""
    found: Mapping[str, Any] = {}
    for part in (data.get("rope_parameters"), data.get("rope_scaling")):
        if part and part.get("rope_type", part.get("type", "default")) != "default":
            found = part
            break
    if not found:
        return None
    kind = found.get("rope_type", found.get("type"))
    if kind not in ("linear", "llama3"):
        raise UserError(
            f"rotary scaling {kind!r} is not supported",
            where=where,
            fix="Use a model with plain, linear or llama3 rotary positions (Qwen2.5: leave rope_scaling out of its config.json)",
        )
    if float(found.get("partial_rotary_factor", 1.0)) != 1.0:
        raise UserError("partial rotary positions are not supported", where=where, fix="Use another model")
    if kind == "linear":
        return RopeScaling(kind="linear", factor=found["factor"])
    return RopeScaling(
        kind="llama3",
        factor=found["factor"],
        low_freq_factor=found["low_freq_factor"],
        high_freq_factor=found["high_freq_factor"],
        original_seq_len=found["original_max_position_embeddings"],
    )
