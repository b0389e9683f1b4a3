"""The planner's choices in one table: what is neither measured on the machine nor asked of the user."""

import math
from dataclasses import dataclass


@dataclass(frozen=True)
class Constants:
    """Every number of the planner that is a choice and no measurement of the machine. Dated 2026-11-24."""

    # Tokens for each parameter (embedding counted once). Measured here: in five minutes, 2.2M parameters on 10M tokens end lower
    # than 4M on 6.4M and 6.9M on 3.7M (docs/log.md). Chinchilla (arXiv 2203.15556) has 20 at 1e11 tokens and more; between the
    # two a power of the tokens, which is an assumption.
    tokens_per_param: float = 4.0
    ratio_tokens: float = 1e7
    ratio_exponent: float = 0.175
    most_tokens_per_param: float = 20.0
    least_tokens_per_param: float = 0.5  # below, a plan for a given shape is warned about
    # Passes over the text. arXiv 2305.16264: up to 4 cost next to nothing, the gain then fades; small projects have no more text.
    max_epochs: float = 8.0
    hopeless_epochs: float = (
        100.0  # the time would allow this many passes: an open model, fine-tuned, is the better use of it
    )
    # Batch: 2^19 tokens at 1.3e9 tokens, to the power 0.383 of the tokens (nanochat, base_train.py; fitted on larger models) ...
    batch_reference: float = 2.0**19
    tokens_reference: float = 1.3e9
    batch_exponent: float = 0.383
    least_steps: int = 800  # ... but never so large that a run has fewer steps than this, down to least_batch
    least_batch: int = 4096
    too_few_steps: int = 100
    reserve: float = 0.06  # share of the time for held-out measurements and checkpoints
    setup_s: float = 8.0  # import, first step, probe of the trainer
    runtime_bytes: int = (
        550_000_000  # Python, torch and its workspaces: the peak of a run of a 1M model, less the parts below
    )
    memory_share: float = 0.8  # of the free memory may be used
    checkpoints: int = 3
    # Bytes of text a token by vocabulary: measured on held-out English chit-chat with our own tokenizer; other text may have less.
    # Replaced by the tokenizer's own figure as soon as there is one.
    bytes_per_token: tuple[tuple[int, float], ...] = (
        (1024, 2.87),
        (2048, 3.38),
        (4096, 3.77),
        (8192, 4.03),
        (16384, 4.19),
    )
    # Largest vocabulary by bytes of text, and the largest part of a model that its table may be: ours, to be tuned.
    embedding_share: float = 0.6
    vocab: tuple[tuple[float, int], ...] = ((1e6, 1024), (3e6, 2048), (30e6, 4096), (1e9, 8192), (math.inf, 32768))
    # The dial of sizes: notches of a quarter, from one block up to some hundred times 10^9 parameters.
    size_step: float = 1.25
    sizes: int = 52

    def wanted_ratio(self, tokens: float) -> float:
        """Tokens for each parameter that a model trained on so many tokens should have."""
        grown: float = self.tokens_per_param * (max(tokens, 1.0) / self.ratio_tokens) ** self.ratio_exponent
        return min(self.most_tokens_per_param, grown)


CONSTANTS = Constants()
