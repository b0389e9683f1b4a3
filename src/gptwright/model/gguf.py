"""llama.cpp's format: a GGUF file becomes a Hugging Face directory with full-precision weights and a tokenizer, and a model a GGUF file."""

import os
import tempfile
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import gguf
import numpy as np
import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY, writing_error
from gptwright.model.config import ModelConfig
from gptwright.model.gguf_header import Gguf, read_gguf
from gptwright.model.gguf_names import (
    ARCHITECTURES,
    ROPE_FACTORS,
    config_from_gguf,
    is_permuted,
    permute,
    to_gguf_name,
    unpermute,
)
from gptwright.model.hf import entries, from_hf, to_hf
from gptwright.model.io import expected_shapes, save_model
from gptwright.model.transformer import Transformer, rope_divisors
from gptwright.model.vocab import vocab_from_gguf, vocab_to_gguf

GgufDtype = Literal["f32", "f16", "bf16", "q8_0"]
_KINDS = {
    "f32": (gguf.GGMLQuantizationType.F32, gguf.LlamaFileType.ALL_F32),
    "f16": (gguf.GGMLQuantizationType.F16, gguf.LlamaFileType.MOSTLY_F16),
    "bf16": (gguf.GGMLQuantizationType.BF16, gguf.LlamaFileType.MOSTLY_BF16),
    "q8_0": (gguf.GGMLQuantizationType.Q8_0, gguf.LlamaFileType.MOSTLY_Q8_0),
}
_LARGEST_F16 = 65504.0


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
        UserError: not a whole GGUF file, or an architecture, tensor format or vocabulary that is not supported.
    """
    file = read_gguf(path)
    model = model_from_gguf(file, dtype)
    with tempfile.TemporaryDirectory() as scratch:
        eos = vocab_from_gguf(file.fields, Path(scratch), model.config.seq_len, str(path))
        return save_model(model, out_dir, tokenizer_dir=scratch, eos_token_ids=eos, extra=extra)


def model_from_gguf(file: Gguf, dtype: torch.dtype = torch.float32) -> Transformer:
    """The weights of a GGUF file, dequantized.

    Raises:
        UserError: an architecture or a tensor format that is not supported, or a shape that the metadata does not claim.
    """
    where = str(file.path)
    factors = torch.from_numpy(file.read(ROPE_FACTORS).copy()) if ROPE_FACTORS in file.tensors else None
    try:
        config = config_from_gguf(file.fields, set(file.tensors), factors, where)
    except (ValueError, TypeError, ArithmeticError) as error:
        raise UserError(
            f"the metadata describes no model ({str(error).splitlines()[0]})", where=where, fix="Fetch the file again"
        ) from error
    shapes = expected_shapes(config, len(file.tensors), where)
    transposed = {name for entry in entries(config) if entry.transposed for name in entry.theirs}
    ours = {to_gguf_name(name): name for entry in entries(config) for name in entry.theirs}
    names = {ours.get(name, name): name for name in file.tensors if name != ROPE_FACTORS}

    def read(name: str) -> Tensor:
        value = torch.from_numpy(np.array(file.read(names[name])))
        if is_permuted(config, name) and value.shape[0] % config.d_head == 0:
            value = unpermute(value, config.d_head)
        return value.t() if name in transposed and value.ndim == 2 else value

    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(from_hf(config, list(names), read, shapes, where, dtype), assign=True)
    return model.eval()


def export_gguf(
    model: Transformer,
    path: str | Path,
    tokenizer_dir: str | Path,
    dtype: GgufDtype = "f16",
    name: str | None = None,
    license: str | None = None,
) -> Path:
    """Write a model as a GGUF file with its vocabulary and chat template.

    Rows of the embedding that belong to no token (a vocabulary padded for speed) are left out: llama.cpp would sample them. Where a
    sliding window cuts (Mistral), the context is written as long as the window, since llama.cpp knows no window for this shape.

    Args:
        model: LoRA, if any, must be merged.
        path: the file; its folder is made.
        tokenizer_dir: holds tokenizer.json and the files beside it.
        dtype: of the matrices; vectors stay fp32, and with q8_0 a matrix whose rows are no multiple of 32 becomes f16.
        name: of the model, for the metadata.
        license: SPDX id, for the metadata.

    Returns:
        ``path``.

    Raises:
        UserError: a vocabulary that llama.cpp does not know, or weights too large for f16.
    """
    target = Path(path)
    fields, tokens = vocab_to_gguf(Path(tokenizer_dir))
    config = model.config
    rows = min(tokens, config.vocab_size)
    fields["tokens"], fields["token_type"] = fields["tokens"][:rows], fields["token_type"][:rows]
    if "scores" in fields:
        fields["scores"] = fields["scores"][:rows]
    kind, file_type = _KINDS[dtype]
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-{target.name}")
    try:
        writer = gguf.GGUFWriter(temporary, ARCHITECTURES[config.family])
        writer.add_name(name or target.stem)
        if license:
            writer.add_license(license)
        writer.add_file_type(file_type)
        writer.add_quantization_version(gguf.GGML_QUANT_VERSION)
        _write_config(writer, config, rows)
        _write_vocab(writer, fields)
        for label, value in to_hf(config, model.state_dict()).items():
            _write_tensor(writer, config, label, value, rows, kind, str(target))
        if config.rope_scaling is not None and config.rope_scaling.kind == "llama3":
            frequencies = config.rope_theta ** (-torch.arange(0, config.d_head, 2, dtype=torch.float32) / config.d_head)
            writer.add_tensor(ROPE_FACTORS, rope_divisors(frequencies, config.rope_scaling).numpy())
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        os.replace(temporary, target)
    except OSError as error:
        raise writing_error(error, target) from error
    finally:
        temporary.unlink(missing_ok=True)
    return target


def _write_config(writer: gguf.GGUFWriter, config: ModelConfig, rows: int) -> None:
    writer.add_vocab_size(rows)
    writer.add_context_length(config.window or config.seq_len)
    writer.add_embedding_length(config.d_model)
    writer.add_block_count(config.n_layers)
    writer.add_feed_forward_length(config.d_ff)
    writer.add_head_count(config.n_heads)
    if config.family == "gpt2":
        writer.add_layer_norm_eps(config.norm_eps)
        return
    writer.add_head_count_kv(config.n_kv_heads)
    writer.add_key_length(config.d_head)
    writer.add_value_length(config.d_head)
    writer.add_layer_norm_rms_eps(config.norm_eps)
    writer.add_rope_dimension_count(config.d_head)
    writer.add_rope_freq_base(config.rope_theta)
    if config.rope_scaling is not None and config.rope_scaling.kind == "linear":
        writer.add_rope_scaling_type(gguf.RopeScalingType.LINEAR)
        writer.add_rope_scaling_factor(config.rope_scaling.factor)


def _write_vocab(writer: gguf.GGUFWriter, fields: Mapping[str, Any]) -> None:
    add: dict[str, Any] = {
        "model": writer.add_tokenizer_model,
        "pre": writer.add_tokenizer_pre,
        "tokens": writer.add_token_list,
        "token_type": writer.add_token_types,
        "scores": writer.add_token_scores,
        "merges": writer.add_token_merges,
        "bos_token_id": writer.add_bos_token_id,
        "eos_token_id": writer.add_eos_token_id,
        "eot_token_id": writer.add_eot_token_id,
        "padding_token_id": writer.add_pad_token_id,
        "unknown_token_id": writer.add_unk_token_id,
        "add_bos_token": writer.add_add_bos_token,
        "add_eos_token": writer.add_add_eos_token,
        "add_space_prefix": writer.add_add_space_prefix,
        "chat_template": writer.add_chat_template,
    }
    for key, value in fields.items():
        add[key](value)


def _write_tensor(
    writer: gguf.GGUFWriter,
    config: ModelConfig,
    label: str,
    value: Tensor,
    rows: int,
    kind: gguf.GGMLQuantizationType,
    where: str,
) -> None:
    value = value.detach().to("cpu", torch.float32)
    if is_permuted(config, label):
        value = permute(value, config.d_head)
    name = to_gguf_name(label)
    if name in ("token_embd.weight", "output.weight"):
        value = value[:rows]
    if config.family == "gpt2" and value.ndim == 2 and ".h." in label:
        value = value.t()
    if value.ndim == 1 or name == "position_embd.weight":  # llama.cpp adds these as fp32
        kind = gguf.GGMLQuantizationType.F32
    elif kind == gguf.GGMLQuantizationType.Q8_0 and value.shape[-1] % 32:
        kind = gguf.GGMLQuantizationType.F16
    if kind == gguf.GGMLQuantizationType.F16 and value.abs().max() > _LARGEST_F16:
        raise UserError(f"{name} has weights too large for f16", where=where, fix="Export with --dtype bf16 or f32")
    writer.add_tensor(name, gguf.quants.quantize(value.contiguous().numpy(), kind), raw_dtype=kind)
