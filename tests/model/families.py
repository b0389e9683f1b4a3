"""Tiny random models of each family, made by transformers: what open weights look like on disk."""

from pathlib import Path
from typing import Any

import pytest
import torch

COMMON: dict[str, Any] = {
    "vocab_size": 320,
    "hidden_size": 48,
    "intermediate_size": 96,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 64,
    "bos_token_id": None,
    "eos_token_id": 0,
    "initializer_range": 0.2,
}
LLAMA3 = {
    "rope_type": "llama3",
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 32,
    "rope_theta": 500.0,
}
# name -> (class of the configuration, what differs). Named after the open models that have this shape.
KINDS: dict[str, tuple[str, dict[str, Any]]] = {
    "gpt2": (
        "GPT2Config",
        {"vocab_size": 320, "n_embd": 48, "n_layer": 3, "n_head": 3, "n_positions": 64, "initializer_range": 0.2},
    ),
    "smollm2": ("LlamaConfig", {"tie_word_embeddings": True, "rope_theta": 1e5, "rms_norm_eps": 1e-5}),
    "tinyllama": ("LlamaConfig", {"tie_word_embeddings": False, "rms_norm_eps": 1e-5}),
    "llama3": ("LlamaConfig", {"rope_parameters": LLAMA3}),
    "llama_linear": ("LlamaConfig", {"rope_parameters": {"rope_type": "linear", "factor": 4.0, "rope_theta": 1e4}}),
    "mistral_window": ("MistralConfig", {"sliding_window": 9}),
    "mistral": ("MistralConfig", {"sliding_window": None, "head_dim": 24}),
    "qwen2": ("Qwen2Config", {"tie_word_embeddings": False, "rope_theta": 1e6}),
    "qwen2.5": ("Qwen2Config", {"tie_word_embeddings": True, "use_sliding_window": False}),
    "qwen3": ("Qwen3Config", {"head_dim": 32, "tie_word_embeddings": True, "rope_theta": 1e6}),
}


def peer_model(name: str, seed: int = 0, **changes: Any) -> Any:
    """A transformers model whose every parameter is random, norms and biases too."""
    transformers = pytest.importorskip("transformers")
    kind, own = KINDS[name]
    config = getattr(transformers, kind)(**({} if name == "gpt2" else COMMON) | own | changes)
    model = transformers.AutoModelForCausalLM.from_config(config)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in model.parameters():
            noise = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(0.15 * noise if parameter.ndim > 1 else 0.3 * noise + (parameter.mean() > 0.5).float())
    return model.eval()


def saved(name: str, folder: Path, **options: Any) -> tuple[Any, Path]:
    """The same, and the directory it was saved to."""
    model = peer_model(name)
    model.save_pretrained(folder, **options)
    return model, folder


def ids_of(vocab_size: int = 320, t: int = 40, seed: int = 1) -> torch.Tensor:
    """(2, t) token ids."""
    return torch.randint(0, vocab_size, (2, t), generator=torch.Generator().manual_seed(seed))
