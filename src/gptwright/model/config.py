"""The shape of a model. Everything that the transformer's arithmetic depends on, and nothing else."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gptwright.core.config import Config


class RopeScaling(Config):
    """How rotary frequencies were stretched for a longer context than the model was first trained on."""

    kind: Literal["linear", "llama3"] = Field(description="linear: all by factor; llama3: the slow ones only.")
    factor: float = Field(gt=0, description="Frequencies are divided by it.")
    low_freq_factor: float = Field(1.0, gt=0, description="llama3: fewer turns than this in the old context: divided.")
    high_freq_factor: float = Field(4.0, gt=0, description="llama3: more turns than this: kept; between, blended.")
    original_seq_len: int = Field(8192, gt=0, description="llama3: context of the first training. Tokens.")

    @model_validator(mode="after")
    def _order(self) -> Self:
        if self.high_freq_factor <= self.low_freq_factor:
            raise ValueError("high_freq_factor must be above low_freq_factor")
        return self


class ModelConfig(Config):
    """Shape and switches of a decoder-only transformer.

    ``gpt2`` and ``modern`` are the families trained here; the others are read from open weights. On disk they are GPT2LMHeadModel,
    Qwen3ForCausalLM, LlamaForCausalLM, MistralForCausalLM and Qwen2ForCausalLM. What sets the last three apart: mistral may have a
    sliding window, qwen2 has biases on queries, keys and values.
    """

    family: Literal["modern", "gpt2", "llama", "mistral", "qwen2"] = Field(
        "modern", description="Which block: modern (Qwen3 on disk), gpt2, llama, mistral, qwen2."
    )
    vocab_size: int = Field(4096, gt=0, description="Rows of the embedding, padding included.")
    n_layers: int = Field(6, gt=0, description="Number of blocks.")
    d_model: int = Field(384, gt=0, description="Width of the residual stream.")
    n_heads: int = Field(6, gt=0, description="Query heads.")
    n_kv_heads: int = Field(
        6, gt=0, description="Key and value heads (grouped-query attention when fewer than n_heads)."
    )
    d_head: int = Field(64, gt=0, description="Width of one head.")
    d_ff: int = Field(1024, gt=0, description="Inner width of the feed-forward part.")
    seq_len: int = Field(512, gt=0, description="Longest context. Tokens.")
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary frequencies (all but gpt2).")
    rope_scaling: RopeScaling | None = Field(None, description="Stretched rotary frequencies, if any.")
    sliding_window: int | None = Field(
        None, gt=0, description="Tokens that a query sees, itself included; none: all before it (mistral)."
    )
    norm_eps: float = Field(1e-6, gt=0, description="Added to the variance in every norm.")
    tie_embeddings: bool = Field(True, description="Whether the output head shares the embedding's weights.")

    @model_validator(mode="after")
    def _shapes(self) -> Self:
        if self.n_heads % self.n_kv_heads:
            raise ValueError(f"n_heads ({self.n_heads}) must be a multiple of n_kv_heads ({self.n_kv_heads})")
        if self.d_head % 2 and self.family != "gpt2":
            raise ValueError("d_head must be even for rotary positions")
        if self.family == "gpt2" and (self.n_kv_heads != self.n_heads or self.d_head * self.n_heads != self.d_model):
            raise ValueError("gpt2 needs n_kv_heads = n_heads and d_head * n_heads = d_model")
        if self.sliding_window is not None and self.family != "mistral":
            raise ValueError("only mistral has a sliding window")
        if self.rope_scaling is not None and self.family == "gpt2":
            raise ValueError("gpt2 has no rotary positions to scale")
        return self

    @property
    def qk_norm(self) -> bool:
        """Whether queries and keys are normed."""
        return self.family == "modern"

    @property
    def qkv_bias(self) -> bool:
        """Whether queries, keys and values have biases."""
        return self.family in ("gpt2", "qwen2")

    @property
    def window(self) -> int | None:
        """The sliding window where it cuts anything: none when the context fits in it."""
        return self.sliding_window if self.sliding_window is not None and self.sliding_window < self.seq_len else None
