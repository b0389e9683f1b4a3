"""What a run of training may be told. Everything has a default that suits a small model on a small machine."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gptwright.core.config import Config, Count, Duration


class TrainConfig(Config):
    """Settings of one run. Give ``max_steps``, ``max_time`` or both (the first that is reached ends the run)."""

    objective: Literal["pretrain", "sft"] = Field(
        "pretrain",
        description="pretrain: every token is a target; sft: only the assistant's turns. The plan decides it; the name is recorded.",
    )
    max_steps: Count | None = Field(None, gt=0, description="Optimizer steps. None: from max_time.")
    max_time: Duration | None = Field(
        None,
        gt=0,
        description="Wall time for the whole run, warm-up included; resolved into steps once, at the start. Seconds.",
    )
    batch_tokens: Count = Field(
        8192, gt=0, description="Tokens of one optimizer step, for whoever builds the plan. Tokens."
    )
    micro_tokens: Count | None = Field(
        None,
        gt=0,
        description="Tokens of one forward and backward pass; a step adds up as many as it needs. None: by device. Tokens.",
    )
    lr_matrix: float = Field(0.01, gt=0, description="Peak rate of Muon, for the matrices inside the blocks.")
    lr_embedding: float = Field(0.01, gt=0, description="Peak rate of AdamW, for the embedding and an untied head.")
    lr_other: float = Field(
        0.004, gt=0, description="Peak rate of AdamW, for norms, biases, adapters and everything else."
    )
    optimizer: Literal["muon", "adamw"] = Field(
        "muon", description="For the matrices inside the blocks. adamw uses lr_other for them."
    )
    momentum: float = Field(0.95, ge=0, lt=1, description="Muon's momentum.")
    beta1: float = Field(0.9, ge=0, lt=1, description="AdamW's first moment.")
    beta2: float = Field(0.95, ge=0, lt=1, description="AdamW's second moment.")
    weight_decay: float = Field(
        0.1, ge=0, description="Decoupled decay of the matrices inside the blocks, per unit of rate."
    )
    clip_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    warmup_share: float = Field(0.02, ge=0, lt=1, description="Share of the steps over which the rate rises.")
    decay_share: float = Field(0.4, ge=0, le=1, description="Share of the steps over which the rate falls at the end.")
    final_lr_share: float = Field(0.0, ge=0, le=1, description="The rate at the very end, as a share of the peak.")
    seed: int = Field(0, ge=0, description="Seeds the initial weights.")
    checkpoint_every: Count | None = Field(
        None, gt=0, description="Steps between checkpoints. None: about every 60 s, set at the start. Steps."
    )
    eval_every: Count | None = Field(
        None, gt=0, description="Steps between held-out measurements. None: ten times a run. Steps."
    )
    log_every: Count = Field(1, gt=0, description="Steps between lines of metrics.jsonl. Steps.")
    device: Literal["auto", "cpu", "cuda", "mps"] = Field(
        "auto", description="Where to compute. auto: cuda where it is, else cpu; mps only by name."
    )
    dtype: Literal["auto", "bfloat16", "float32", "float64"] = Field(
        "auto", description="Of the working weights; masters stay fp32. auto: bfloat16 where a probe finds it faster."
    )
    compile: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Training's kernels on the CPU. auto: where they can be built (g++); on: or stop; off: PyTorch alone.",
    )
    threads: int | None = Field(None, gt=0, description="CPU threads. None: as torch has them.")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_steps is None and self.max_time is None:
            raise ValueError("max_steps or max_time must be given")
        if self.warmup_share + self.decay_share > 1:
            raise ValueError("warmup_share + decay_share must not exceed 1")
        return self
