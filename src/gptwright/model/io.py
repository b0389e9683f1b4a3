"""Models on disk: a standard Hugging Face directory, written and read. No pickle: safetensors and JSON only."""

import shutil
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_dir, read_json, write_json
from gptwright.model.config import ModelConfig
from gptwright.model.hf import SUPPORTED, config_from_hf, config_to_hf, from_hf, to_hf
from gptwright.model.transformer import Transformer

TOKENIZER_FILES = ("special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt")
_DTYPES = (torch.float32, torch.float16, torch.bfloat16, torch.float64)
_PICKLE = "Pickle files can run code when opened; fetch the safetensors version of the model"
_FIXES = {
    ".bin": _PICKLE,
    ".pt": _PICKLE,
    ".pth": _PICKLE,
    ".gguf": "Import the GGUF file itself: gptwright import FILE.gguf",
}
# <|endoftext|> and <|im_end|>: a document's end and a turn's end both end an answer.
EOS_TOKEN_IDS = (0, 2)


def save_model(
    model: Transformer,
    directory: str | Path,
    tokenizer_dir: str | Path | None = None,
    dtype: torch.dtype | None = None,
    eos_token_ids: Sequence[int] | None = None,
    extra: dict[str, Any] | None = None,
) -> Path:
    """Write a model as a Hugging Face directory; it replaces ``directory`` as a whole, or not at all.

    Args:
        model: LoRA, if any, must be merged.
        directory: the place.
        tokenizer_dir: its tokenizer files and chat template are copied; may be another model's directory. Ids that it has no token
            for (a vocabulary padded for speed) are suppressed in generation_config.json.
        dtype: dtype of the weights on disk; None keeps the model's.
        eos_token_ids: ids that end an answer; default: those of ``tokenizer_dir``'s generation_config.json, else 0 and 2.
        extra: further JSON files to write beside it, name -> content (for example ``{"manifest.json": {...}}``).

    Returns:
        ``directory``.
    """
    source = Path(tokenizer_dir) if tokenizer_dir is not None else None
    generation: dict[str, Any] = {}
    if source is not None and (source / "generation_config.json").is_file():
        generation = read_json(source / "generation_config.json")
    if eos_token_ids is None:
        eos_token_ids = _id_list(generation.get("eos_token_id", EOS_TOKEN_IDS))
    pad = generation.get("pad_token_id", eos_token_ids[0] if eos_token_ids else None)
    dtype = dtype or model.embedding.weight.dtype
    padding = padding_ids(source, model.config.vocab_size) if source is not None else []
    tensors = {name: value.detach().to("cpu", dtype) for name, value in to_hf(model.config, model.state_dict()).items()}
    with atomic_dir(directory) as folder:
        write_json(folder / "config.json", config_to_hf(model.config, dtype, eos_token_ids, pad))
        write_json(
            folder / "generation_config.json",
            {"bos_token_id": generation.get("bos_token_id"), "eos_token_id": list(eos_token_ids), "pad_token_id": pad}
            | ({"suppress_tokens": padding} if padding else {}),
        )
        save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
        shutil.copymode(folder / "config.json", folder / "model.safetensors")  # written for its owner alone
        if source is not None:
            copy_tokenizer(source, folder)
        for name, content in (extra or {}).items():
            write_json(folder / name, content)
    return Path(directory)


def copy_tokenizer(source: Path, target: Path) -> None:
    """Copy what belongs to a tokenizer: tokenizer*, chat_template* and the older vocabulary files.

    Raises:
        UserError: there is no tokenizer.json.
    """
    if not (source / "tokenizer.json").is_file():
        raise UserError("no tokenizer.json", where=str(source), fix="Point to a directory that holds a tokenizer")
    for file in sorted(source.iterdir()):
        if file.is_file() and (file.name.startswith(("tokenizer", "chat_template")) or file.name in TOKENIZER_FILES):
            shutil.copyfile(file, target / file.name)


def padding_ids(tokenizer_dir: Path, vocab_size: int) -> list[int]:
    """Ids below ``vocab_size`` that a directory's tokenizer.json has no token for; none without such a file or a vocabulary in it."""
    path = tokenizer_dir / "tokenizer.json"
    data = read_json(path) if path.is_file() else {}
    vocab = data.get("model", {}).get("vocab", {})
    known = set(vocab.values() if isinstance(vocab, dict) else range(len(vocab)))
    known.update(token["id"] for token in data.get("added_tokens", []))
    return [token for token in range(vocab_size) if token not in known] if known else []


def read_config(directory: str | Path) -> ModelConfig:
    """The shape of the model in a directory, from config.json alone.

    Raises:
        UserError: no config.json, or an architecture that is not supported.
    """
    path = Path(directory) / "config.json"
    if not path.is_file():
        raise UserError(
            "not a model directory (no config.json)", where=str(directory), fix="Give a Hugging Face model directory"
        )
    return config_from_hf(read_json(path), str(path))


def read_eos_ids(directory: str | Path) -> list[int]:
    """Ids that end an answer: of generation_config.json, else of config.json."""
    for name in ("generation_config.json", "config.json"):
        path = Path(directory) / name
        if path.is_file() and (value := read_json(path).get("eos_token_id")) is not None:
            return _id_list(value)
    return []


def load_model(
    directory: str | Path, dtype: torch.dtype | None = torch.float32, device: str | torch.device = "cpu"
) -> Transformer:
    """Read a Hugging Face directory of a known family: one safetensors file or several with an index.

    Args:
        directory: the model directory.
        dtype: dtype of the weights in memory; None keeps the file's.
        device: where they go.

    Returns:
        The model, in training mode off.

    Raises:
        UserError: a file is missing or damaged, or the architecture is not supported; it names the file and the fix.
    """
    folder = Path(directory)
    config = read_config(folder)
    with ExitStack() as stack:
        names, read = _open(folder, stack)
        shapes = expected_shapes(config, len(names), str(folder))
        state = from_hf(config, names, read, shapes, str(folder), dtype)
    if dtype is None:  # a norm in fp32 beside bf16 matrices would not run; the embedding's dtype speaks for all
        state = {name: value.to(state["embedding.weight"].dtype) for name, value in state.items()}
    with torch.device("meta"):
        model = Transformer(config)
    model.load_state_dict(state, assign=True)
    return model.to(device).eval()


def expected_shapes(config: ModelConfig, tensors: int, where: str) -> dict[str, torch.Size]:
    """Shape of each of our parameters.

    Args:
        config: as a file claims it.
        tensors: how many tensors there really are: a claim of a billion layers is refused before they are built.
        where: for the message.

    Raises:
        UserError: there are more layers than tensors.
    """
    if config.n_layers > tensors:
        raise UserError(
            f"{config.n_layers:,} layers are claimed, but there are only {tensors:,} tensors",
            where=where,
            fix="The download is incomplete or the metadata belongs to another model; fetch it again",
        )
    try:
        with torch.device("meta"):
            return {name: value.shape for name, value in Transformer(config).state_dict().items()}
    except (RuntimeError, TypeError, OverflowError) as error:  # sizes beyond 64 bits
        raise UserError("sizes are claimed that no file can hold", where=where, fix="Fetch the model again") from error


def _open(folder: Path, stack: ExitStack) -> tuple[list[str], Callable[[str], Tensor]]:
    """Every tensor name of a checkpoint, and a function that reads one."""
    single, index = folder / "model.safetensors", folder / "model.safetensors.index.json"
    files, wanted = [single], {}
    if not single.is_file():
        if not index.is_file():
            raise _no_weights(folder)
        wanted = _read_index(index)
        files = [folder / name for name in sorted(set(wanted.values()))]
    homes: dict[str, Any] = {}
    for file in files:
        if not file.is_file():
            raise UserError("no such file, though the index names it", where=str(file), fix="Fetch the missing shard")
        try:
            handle = stack.enter_context(safe_open(file, framework="pt"))
        except (SafetensorError, OSError) as error:
            raise UserError(
                f"not a readable safetensors file ({error})",
                where=str(file),
                fix=f"Fetch it again; supported are {SUPPORTED}",
            ) from error
        for name in handle.keys():  # noqa: SIM118 - safe_open is no mapping
            if wanted.get(name, file.name) == file.name:
                homes[name] = handle

    def read(name: str) -> Tensor:
        value: Tensor = homes[name].get_tensor(name)
        if value.dtype not in _DTYPES:
            raise UserError(
                f"tensor {name} is {str(value.dtype).removeprefix('torch.')}: the weights are quantized",
                where=str(folder),
                fix="Fetch the model in fp32, fp16 or bf16, or as a GGUF file",
            )
        return value

    return list(homes), read


def _read_index(index: Path) -> dict[str, str]:
    """Which shard holds which tensor. Shards are plain names beside the index: anything else could point out of the folder."""
    data = read_json(index)
    found = data.get("weight_map") if isinstance(data, dict) else None
    if not isinstance(found, dict) or not found:
        raise UserError("has no weight_map", where=str(index), fix="Fetch the index again")
    for name in found.values():
        if not isinstance(name, str) or not name.endswith(".safetensors") or set(name) & set("/\\:\0"):
            raise UserError(
                f"names {name!r}, which is no safetensors file beside it",
                where=str(index),
                fix="Do not trust this download; fetch the model from its own page",
            )
    return found


def _no_weights(folder: Path) -> UserError:
    other = next((f.name for f in sorted(folder.glob("*")) if f.suffix in _FIXES), None)
    fix = _FIXES[Path(other).suffix] if other else "Fetch model.safetensors into it"
    return UserError(f"no model.safetensors{f' (only {other})' if other else ''}", where=str(folder), fix=fix)


def _id_list(value: Any) -> list[int]:
    if value is None:
        return []
    return [int(value)] if isinstance(value, int) else [int(item) for item in value]
