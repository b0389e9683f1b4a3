"""Named shapes: ``modern`` by depth or by size, those of GPT-2 and GPT-3, and those of open Llama, Mistral and Qwen weights."""

import difflib
import math
from dataclasses import dataclass
from typing import Any

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig, RopeScaling
from gptwright.model.cost import params as count_params

D_HEAD = 64
# Heads of 128 from here on: with 64 there would be more than a hundred heads, and every published model of that size has 128.
_WIDE_HEADS_FROM = 20_000_000_000
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


@dataclass(frozen=True)
class Gpt3:
    """A row of GPT-3's table of sizes, with what it was trained by.

    Args:
        n_layers: blocks.
        d_model: width.
        n_heads: heads; d_head = d_model / n_heads.
        batch_tokens: tokens a step.
        lr: peak learning rate of Adam; warmed up over 375 M tokens, cosine to a tenth over 260 B (appendix B).
        misprint: where the table contradicts itself, and what is built instead.
    """

    n_layers: int
    d_model: int
    n_heads: int
    batch_tokens: int
    lr: float
    misprint: str = ""


GPT3_SEQ_LEN = 2048
# Brown et al. 2020 (arXiv 2005.14165), table 2.1; context 2,048 in all, feed-forward 4 d_model, vocabulary of GPT-2, 300 B tokens.
# The paper's models alternate dense and locally banded sparse attention (section 2.1); these are dense, with the same parameters.
GPT3_SIZES = {
    "gpt3-125m": Gpt3(12, 768, 12, 500_000, 6.0e-4),
    "gpt3-350m": Gpt3(24, 1024, 16, 500_000, 3.0e-4),
    "gpt3-760m": Gpt3(24, 1536, 16, 500_000, 2.5e-4),
    "gpt3-1.3b": Gpt3(
        24, 2048, 16, 1_000_000, 2.0e-4, "printed 24 heads of 128, which is 3,072 wide and not 2,048: 16"
    ),
    "gpt3-2.7b": Gpt3(32, 2560, 32, 1_000_000, 1.6e-4),
    "gpt3-6.7b": Gpt3(32, 4096, 32, 2_000_000, 1.2e-4),
    "gpt3-13b": Gpt3(40, 5120, 40, 2_000_000, 1.0e-4, "printed width 5,140, which 40 heads of 128 do not fill: 5,120"),
    "gpt3-175b": Gpt3(96, 12288, 96, 3_200_000, 0.6e-4),
}


def _llama3(factor: float) -> RopeScaling:
    return RopeScaling(kind="llama3", factor=factor, low_freq_factor=1, high_freq_factor=4, original_seq_len=8192)


# Open weights, as their config.json has them: family, layers, width, heads, kv heads, head width, feed-forward, vocabulary, context,
# rope_theta, norm_eps, tied, and what else differs.
_OPEN: dict[str, tuple[Any, ...]] = {
    "smollm2-135m": ("llama", 30, 576, 9, 3, 64, 1536, 49152, 8192, 1e5, 1e-5, True),
    "smollm2-360m": ("llama", 32, 960, 15, 5, 64, 2560, 49152, 8192, 1e5, 1e-5, True),
    "smollm2-1.7b": ("llama", 24, 2048, 32, 32, 64, 8192, 49152, 8192, 1.3e5, 1e-5, True),
    "tinyllama-1.1b": ("llama", 22, 2048, 32, 4, 64, 5632, 32000, 2048, 1e4, 1e-5, False),
    "llama2-7b": ("llama", 32, 4096, 32, 32, 128, 11008, 32000, 4096, 1e4, 1e-5, False),
    "llama3.1-8b": (
        "llama",
        32,
        4096,
        32,
        8,
        128,
        14336,
        128256,
        131072,
        5e5,
        1e-5,
        False,
        {"rope_scaling": _llama3(8)},
    ),
    "llama3.2-1b": ("llama", 16, 2048, 32, 8, 64, 8192, 128256, 131072, 5e5, 1e-5, True, {"rope_scaling": _llama3(32)}),
    "llama3.2-3b": (
        "llama",
        28,
        3072,
        24,
        8,
        128,
        8192,
        128256,
        131072,
        5e5,
        1e-5,
        True,
        {"rope_scaling": _llama3(32)},
    ),
    "mistral-7b": ("mistral", 32, 4096, 32, 8, 128, 14336, 32000, 32768, 1e4, 1e-5, False, {"sliding_window": 4096}),
    "qwen2.5-0.5b": ("qwen2", 24, 896, 14, 2, 64, 4864, 151936, 32768, 1e6, 1e-6, True),
    "qwen2.5-1.5b": ("qwen2", 28, 1536, 12, 2, 128, 8960, 151936, 131072, 1e6, 1e-6, True),
    "qwen2.5-7b": ("qwen2", 28, 3584, 28, 4, 128, 18944, 152064, 131072, 1e6, 1e-6, False),
    "qwen3-0.6b": ("modern", 28, 1024, 16, 8, 128, 3072, 151936, 40960, 1e6, 1e-6, True),
    "qwen3-1.7b": ("modern", 28, 2048, 16, 8, 128, 6144, 151936, 40960, 1e6, 1e-6, True),
    "qwen3-4b": ("modern", 36, 2560, 32, 8, 128, 9728, 151936, 40960, 1e6, 1e-6, True),
    "qwen3-8b": ("modern", 36, 4096, 32, 8, 128, 12288, 151936, 40960, 1e6, 1e-6, False),
}
_COLUMNS = (
    "family",
    "n_layers",
    "d_model",
    "n_heads",
    "n_kv_heads",
    "d_head",
    "d_ff",
    "vocab_size",
    "seq_len",
    "rope_theta",
)


def names() -> list[str]:
    """Every name that ``named`` knows, smallest first within a family."""
    return [*GPT2_SIZES, *GPT3_SIZES, *_OPEN]


def named(name: str, vocab_size: int | None = None, seq_len: int | None = None) -> ModelConfig:
    """A shape by its name.

    Args:
        name: one of ``names()``; upper case, and the aliases of GPT-2's sizes (``gpt2-124m``), are understood.
        vocab_size: rows of the embedding; None keeps the original's.
        seq_len: longest context; None keeps the original's. Tokens.

    Raises:
        UserError: no such name; near ones are listed.
    """
    low = name.lower()
    changes = {k: v for k, v in (("vocab_size", vocab_size), ("seq_len", seq_len)) if v is not None}
    if low in GPT3_SIZES:
        return gpt3(low, **changes)
    if low in _OPEN:
        row = _OPEN[low]
        values = dict(zip((*_COLUMNS, "norm_eps", "tie_embeddings"), row, strict=False))
        return ModelConfig(**{**values, **(row[12] if len(row) > 12 else {}), **changes})
    if low in GPT2_SIZES or low.removeprefix("gpt2-") in _ALIASES:
        return gpt2(low.removeprefix("gpt2-"), **changes) if low not in GPT2_SIZES else gpt2(low, **changes)
    near = difflib.get_close_matches(low, names(), 3, 0.5)
    raise UserError(f"no such preset: {name}", fix=f"Choose modern, gpt2, or one of {', '.join(near or names())}")


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
    wide = 2 * D_HEAD if params >= _WIDE_HEADS_FROM else D_HEAD
    best, best_score = smallest, math.inf
    for layers in range(1, 129):
        for heads in range(1, 129):
            aspect = heads * wide / layers
            # Models under a few million parameters are better shallow than thin; deep ones stay near the aspect.
            if not (32 <= aspect <= 128 or (layers <= 4 and aspect <= 256)):
                continue
            shape = _modern(layers, heads, vocab_size, seq_len, tie_embeddings, wide)
            score = abs(math.log(count_params(shape) / params)) + 0.05 * abs(math.log(aspect / ASPECT))
            if score < best_score:
                best, best_score = shape, score
    if count_params(best) < 0.8 * params:
        raise UserError(
            f"{params:,} parameters are more than a shape is known for (largest: {count_params(best):,})",
            fix="Ask for fewer parameters",
        )
    return best


def _modern(layers: int, heads: int, vocab_size: int, seq_len: int, tie: bool, d_head: int = D_HEAD) -> ModelConfig:
    width = heads * d_head
    return ModelConfig(
        family="modern",
        vocab_size=vocab_size,
        n_layers=layers,
        d_model=width,
        n_heads=heads,
        n_kv_heads=heads // 2 if heads % 2 == 0 else heads,
        d_head=d_head,
        d_ff=max(64, round(width * 8 / 3 / 64) * 64),
        seq_len=seq_len,
        # The usual base up to 4k of context; beyond, slower rotations keep far positions apart (arXiv 2309.16039, section 4.1).
        rope_theta=10_000.0 if seq_len <= 4096 else 100_000.0,
        norm_eps=1e-6,
        tie_embeddings=tie,
    )


def gpt3(size: str, vocab_size: int = 50257, seq_len: int = GPT3_SEQ_LEN) -> ModelConfig:
    """A GPT-3 shape (GPT-2's block).

    Args:
        size: ``gpt3-125m`` to ``gpt3-175b``, with or without ``gpt3-``; what it was trained by is in ``GPT3_SIZES``.
        vocab_size: rows of the embedding; the original has 50,257.
        seq_len: learned positions; the original has 2,048.

    Raises:
        UserError: no such size.
    """
    row = GPT3_SIZES.get(f"gpt3-{size.lower().removeprefix('gpt3-')}")
    if row is None:
        raise UserError(f"no GPT-3 of size {size}", fix=f"Choose one of {', '.join(GPT3_SIZES)}")
    return _gpt(row.n_layers, row.d_model, row.n_heads, vocab_size, seq_len)


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
    return _gpt(*GPT2_SIZES[name], vocab_size, seq_len)


def _gpt(layers: int, width: int, heads: int, vocab_size: int, seq_len: int) -> ModelConfig:
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
