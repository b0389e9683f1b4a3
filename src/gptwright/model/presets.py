"""Named shapes: ``modern`` by depth or by size, and GPT-2's own."""

import math

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params as count_params

D_HEAD = 64
# Width per layer. 64 is nanochat's choice and near the optimum of Kaplan et al. 2020, fig. 5, whose curve is flat from 30 to 100.
ASPECT = 64

# (layers, width, heads). The four of the paper (Radford et al. 2019, table 2), and small ones of the same proportions.
GPT2_SIZES = {
    "gpt2-1m": (4, 128, 2),
    "gpt2-3m": (4, 256, 4),
    "gpt2-10m": (6, 384, 6),
    "gpt2-25m": (8, 512, 8),
    "gpt2": (12, 768, 12),
    "gpt2-medium": (24, 1024, 16),
    "gpt2-large": (36, 1280, 20),
    "gpt2-xl": (48, 1600, 25),
}
_ALIASES = {
    "124m": "gpt2",
    "355m": "gpt2-medium",
    "774m": "gpt2-large",
    "1.5b": "gpt2-xl",
    "1558m": "gpt2-xl",
    "gpt2-small": "gpt2",
}


def modern(
    depth: int | None = None,
    params: int | None = None,
    vocab_size: int = 8192,
    seq_len: int = 512,
    tie_embeddings: bool = True,
) -> ModelConfig:
    """A ``modern`` shape from one number: heads of 64, SwiGLU of 8/3 the width, half as many key/value heads as query heads.

    Args:
        depth: number of blocks; the width is 64 a block.
        params: or the wanted number of parameters (embedding included); the nearest sane shape is taken.
        vocab_size: rows of the embedding; rounded up to a multiple of 64.
        seq_len: longest context. Tokens.
        tie_embeddings: share the output head with the embedding.

    Raises:
        ValueError: neither or both of depth and params are given, or depth < 1.
        UserError: the vocabulary alone is larger than ``params``.
    """
    if (depth is None) == (params is None):
        raise ValueError("give exactly one of depth and params")
    vocab_size = math.ceil(vocab_size / 64) * 64
    if depth is not None:
        if depth < 1:
            raise ValueError("depth must be at least 1")
        return _modern(depth, max(1, depth * ASPECT // D_HEAD), vocab_size, seq_len, tie_embeddings)
    assert params is not None
    smallest = _modern(1, 1, vocab_size, seq_len, tie_embeddings)
    if params < count_params(smallest):
        raise UserError(
            f"{params:,} parameters are too few for a vocabulary of {vocab_size:,} (smallest shape: {count_params(smallest):,})",
            fix="Ask for more parameters or a smaller vocabulary",
        )
    best, best_score = smallest, math.inf
    for layers in range(1, 129):
        for heads in range(1, 129):
            aspect = heads * D_HEAD / layers
            # Models under a few million parameters are better shallow than thin; deep ones stay near the aspect.
            if not (32 <= aspect <= 128 or (layers <= 4 and aspect <= 256)):
                continue
            shape = _modern(layers, heads, vocab_size, seq_len, tie_embeddings)
            score = abs(math.log(count_params(shape) / params)) + 0.05 * abs(math.log(aspect / ASPECT))
            if score < best_score:
                best, best_score = shape, score
    return best


def _modern(layers: int, heads: int, vocab_size: int, seq_len: int, tie: bool) -> ModelConfig:
    width = heads * D_HEAD
    return ModelConfig(
        family="modern",
        vocab_size=vocab_size,
        n_layers=layers,
        d_model=width,
        n_heads=heads,
        n_kv_heads=heads // 2 if heads % 2 == 0 else heads,
        d_head=D_HEAD,
        d_ff=max(64, round(width * 8 / 3 / 64) * 64),
        seq_len=seq_len,
        # The usual base up to 4k of context; beyond, slower rotations keep far positions apart (arXiv 2309.16039, section 4.1).
        rope_theta=10_000.0 if seq_len <= 4096 else 100_000.0,
        norm_eps=1e-6,
        tie_embeddings=tie,
    )


def gpt2(size: str = "gpt2", vocab_size: int = 50257, seq_len: int = 1024) -> ModelConfig:
    """A GPT-2 shape.

    Args:
        size: ``gpt2`` (124M), ``gpt2-medium`` (355M), ``gpt2-large`` (774M), ``gpt2-xl`` (1.5B), the sizes themselves, or a small one
            (``gpt2-1m``, ``gpt2-3m``, ``gpt2-10m``, ``gpt2-25m``; named without the embedding).
        vocab_size: rows of the embedding; the original has 50,257.
        seq_len: learned positions; the original has 1,024.

    Raises:
        UserError: no such size.
    """
    name = _ALIASES.get(size.lower(), size.lower())
    if name not in GPT2_SIZES:
        raise UserError(f"no GPT-2 of size {size}", fix=f"Choose one of {', '.join(GPT2_SIZES)}")
    layers, width, heads = GPT2_SIZES[name]
    return ModelConfig(
        family="gpt2",
        vocab_size=vocab_size,
        n_layers=layers,
        d_model=width,
        n_heads=heads,
        n_kv_heads=heads,
        d_head=width // heads,
        d_ff=4 * width,
        seq_len=seq_len,
        rope_theta=10_000.0,  # unused: positions are learned
        norm_eps=1e-5,
        tie_embeddings=True,
    )
