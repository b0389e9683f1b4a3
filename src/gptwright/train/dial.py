"""The dial: from a model's shape to the rates, decay and batch it is trained with. What a user sets by hand stays as set.

Widths, heads and layers follow from depth or parameters in ``model/presets.py``; here follows the rest. The rules are powers fitted on
sweeps of 0.3 to 2 million parameters (``benchmarks/rates.py``; docs/log.md, "Dial, sweeps and ablations"), where nanochat's rules, fitted
from depth 10 up, were never tried. Beyond the fitted sizes they are extrapolated, and ``note`` says so.
"""

import math
from dataclasses import dataclass

from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.model.presets import GPT3_SIZES, modern
from gptwright.train.config import TrainConfig

RATES = ("lr_matrix", "lr_embedding", "lr_other")
DIALLED = (*RATES, "weight_decay", "batch_tokens")

# Powers of the width, around 192, at batches of 4,096 tokens. With the batch all rates go as its root (more, by the sweeps: 0.7 from 1,024 to
# 4,096 tokens for Muon's; the root is the careful choice, and what arXiv 2205.10287 derives for Adam).
_WIDTH, _BATCH = 192, 4096
_MATRIX = (0.0093, -0.6)
_EMBEDDING = (0.0230, -0.5)
_OTHER = (0.0120, 0.0)
_ADAMW = (0.0012, -0.45)  # for the matrices, with optimizer = "adamw"
# Weight decay: none up to four passes over the text, where no ablation shows a gain; then in proportion to the passes beyond, and the more
# the fewer tokens of text there are for a parameter. Fitted on Muon, at 7.3 passes over 1.04, 0.55 and 0.19 tokens a parameter
# (benchmarks/ablations.py, groups "decay"): best near 0.35, near 1, and at 2 or more; at 14.6 passes over 1.04 between 0.3 and 1, so it
# grows no more from twelve on. With AdamW nothing was tried, so nothing is set.
_DECAY, _FREE_PASSES, _MOST_PASSES, _FED_POWER, _MOST_DECAY = 0.11, 4.0, 12.0, -1.5, 2.0
# Tokens of a step: best at 4,096 for 2 M tokens (measured); grows with the tokens of the run by nanochat's power (base_train.py), from far
# below nanochat's own constant, which would ask for 44,000 here.
_BATCH_TOKENS, _BATCH_POWER = 2.0e6, 0.383
_LEAST_BATCH, _MOST_BATCH = 1024, 2**20
_TOKENS_PER_PARAM = 5.0  # of a run whose length is not known
FITTED_PARAMS = (300_000, 2_200_000)

# GPT-3 (Brown et al. 2020, arXiv 2005.14165, appendix B): Adam with 0.9 and 0.95, clipped at 1, decay 0.1, warmed up over 375 M of 300 B
# tokens, then a cosine to a tenth. The paper reaches the tenth at 260 B and stays there; here the cosine ends with the run. Not followed:
# the batch that grows from 32 thousand tokens over the first billions.
_GPT3 = {
    "optimizer": "adamw",
    "beta1": 0.9,
    "beta2": 0.95,
    "clip_norm": 1.0,
    "weight_decay": 0.1,
    "warmup_share": 375e6 / 300e9,
    "decay": "cosine",
    "decay_share": 1 - 375e6 / 300e9,
    "final_lr_share": 0.1,
}


@dataclass(frozen=True)
class Dial:
    """What the dial sets.

    Args:
        lr_matrix: peak rate of Muon.
        lr_embedding: peak rate of AdamW for embedding and head.
        lr_other: peak rate of AdamW for norms and biases, and with ``optimizer = "adamw"`` for the matrices too.
        weight_decay: of the blocks' matrices, per unit of rate.
        batch_tokens: of a step.
    """

    lr_matrix: float
    lr_embedding: float
    lr_other: float
    weight_decay: float
    batch_tokens: int


def dial(
    shape: ModelConfig,
    optimizer: str = "muon",
    *,
    tokens: float | None = None,
    steps: int | None = None,
    batch_tokens: int | None = None,
    unique: float | None = None,
) -> Dial:
    """Rates, decay and batch for a shape.

    Args:
        shape: of the model.
        optimizer: of the blocks' matrices: muon or adamw.
        tokens: that the run will see, if known.
        steps: that it will take, if those are known instead. Neither: five tokens for each parameter.
        batch_tokens: of a step, if that is chosen already; the rates follow it.
        unique: tokens of the text, if known: what is read again and again wants more decay. None: none of it is.
    """
    batch = batch_tokens or batch_for(shape, tokens, steps)
    seen = tokens or (steps * batch if steps else _TOKENS_PER_PARAM * params(shape))
    width, root = shape.d_model / _WIDTH, (batch / _BATCH) ** 0.5

    def rate(rule: tuple[float, float]) -> float:
        return _figures(rule[0] * width ** rule[1] * root)

    return Dial(
        lr_matrix=rate(_MATRIX),
        lr_embedding=rate(_EMBEDDING),
        lr_other=rate(_ADAMW if optimizer == "adamw" else _OTHER),
        weight_decay=decay_for(seen / unique, unique / params(shape)) if unique and optimizer == "muon" else 0.0,
        batch_tokens=batch,
    )


def decay_for(passes: float, fed: float) -> float:
    """Weight decay of the blocks' matrices, per unit of Muon's rate.

    Args:
        passes: over the text, tokens that the run will see over tokens of the text.
        fed: tokens of the text for each parameter of the model.
    """
    beyond = min(passes, _MOST_PASSES) - _FREE_PASSES
    if beyond <= 0:
        return 0.0
    return _figures(min(_MOST_DECAY, _DECAY * beyond * fed**_FED_POWER))


def batch_for(shape: ModelConfig, tokens: float | None = None, steps: int | None = None) -> int:
    """Tokens of a step: whole rows, their number a power of two.

    With the steps given, tokens are steps times batch, and batch = a tokens^p is solved for the batch.
    """
    scale = _BATCH / _BATCH_TOKENS**_BATCH_POWER
    if tokens is None and steps is not None:
        ideal = (scale * steps**_BATCH_POWER) ** (1 / (1 - _BATCH_POWER))
    else:
        ideal = scale * max(1.0, tokens or _TOKENS_PER_PARAM * params(shape)) ** _BATCH_POWER
    rows = min(max(ideal, _LEAST_BATCH), _MOST_BATCH) / shape.seq_len
    return int(2 ** max(0, round(math.log2(rows)))) * shape.seq_len if rows > 1 else shape.seq_len


def settings_for(
    shape: ModelConfig,
    config: TrainConfig,
    preset: str = "modern",
    tokens: float | None = None,
    unique: float | None = None,
) -> TrainConfig:
    """A run's settings with everything from the dial, or from the preset's paper, that was not set by hand.

    Args:
        shape: of the model.
        config: what was set by hand are its ``model_fields_set``.
        preset: a size of GPT-3 brings the columns of its table and the settings of its appendix; any other name the dial.
        tokens: that the run will see, if known; its ``max_steps`` are known by themselves.
        unique: tokens of the text, if known; how often they are read decides the weight decay.

    Returns:
        The same settings, with the dialled ones filled in.
    """
    given = {name: getattr(config, name) for name in config.model_fields_set}
    row = GPT3_SIZES.get(preset.lower())
    if row is not None:
        rates: dict[str, object] = dict.fromkeys(RATES, row.lr)
        found = {**_GPT3, **rates, "batch_tokens": max(1, row.batch_tokens // shape.seq_len) * shape.seq_len}
    else:
        batch = config.batch_tokens if "batch_tokens" in given else None
        steps = config.max_steps if tokens is None else None
        found = dict(vars(dial(shape, config.optimizer, tokens=tokens, steps=steps, batch_tokens=batch, unique=unique)))
    return TrainConfig.model_validate({**found, **given})


def note(shape: ModelConfig, config: TrainConfig, preset: str = "modern") -> str:
    """One line for a person: which rates, and whence."""
    rates = f"rates {config.lr_matrix:g} (matrices), {config.lr_embedding:g} (embedding), {config.lr_other:g} (rest)"
    if config.optimizer == "adamw":
        rates = f"AdamW, rates {config.lr_other:g} (matrices and rest), {config.lr_embedding:g} (embedding)"
    rates += f", weight decay {config.weight_decay:g}, {config.batch_tokens:,} tokens a step"
    if preset.lower() in GPT3_SIZES:
        return f"{rates}: as in GPT-3's table 2.1 and appendix B, where not set by hand"
    low, high = FITTED_PARAMS
    n = params(shape)
    if not 0.5 * low <= n <= 2 * high:
        rates += f"; the dial was fitted from {low / 1e6:.1f} to {high / 1e6:.1f} M parameters and is extrapolated here"
    return rates


def proxy_shape(shape: ModelConfig) -> ModelConfig:
    """A small model of the same family to try settings on: two to four layers by the dial, at most a third of the parameters where
    that leaves two layers."""
    made = shape
    for depth in (4, 3, 2):
        made = modern(depth=depth, vocab_size=shape.vocab_size, seq_len=shape.seq_len)
        if 3 * params(made) <= params(shape):
            break
    if params(made) >= params(shape):
        return shape
    changes: dict[str, object] = {
        "family": shape.family,
        "vocab_size": shape.vocab_size,
        "tie_embeddings": shape.tie_embeddings,
        "norm_eps": shape.norm_eps,
    }
    if shape.family == "gpt2":
        changes |= {"n_kv_heads": made.n_heads, "d_ff": 4 * made.d_model}
    return ModelConfig.model_validate({**made.model_dump(), **changes})


def _figures(value: float) -> float:
    return float(f"{value:.3g}")
