"""The shape of a model. Everything that the transformer's arithmetic depends on, and nothing else."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gptwright.core.config import Config


class ModelConfig(Config):
    """Shape and switches of a decoder-only transformer.

    ``gpt2`` and ``modern`` are the families trained here; ``llama`` is read from open weights. On disk they are
    GPT2LMHeadModel, Qwen3ForCausalLM and LlamaForCausalLM.
    """

    family: Literal["modern", "gpt2", "llama"] = Field(
        "modern", description="Which block: modern (Qwen3 on disk), gpt2, llama."
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
    rope_theta: float = Field(10000.0, gt=0, description="Base of the rotary frequencies (modern, llama).")
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
        return self
