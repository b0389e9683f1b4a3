"""What a run of training may be told. Everything has a default that suits a small model on a small machine."""

from typing import Literal, Self

from pydantic import Field, model_validator

from gptwright.core.config import Config, Count, Duration
from gptwright.train.schedule import Decay

ObjectiveName = Literal["pretrain", "sft", "dpo", "ipo", "kto", "grpo", "distill"]


class TrainConfig(Config):
    """Settings of one run. Give ``max_steps``, ``max_time`` or both (the first that is reached ends the run)."""

    objective: ObjectiveName = Field(
        "pretrain",
        description="pretrain: every token is a target; sft: only the assistant's turns; dpo, ipo: pairs of a better and a worse answer; "
        "kto: answers that are good or bad; grpo: answers that can be checked; distill: a teacher's probabilities.",
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
        0.0, ge=0, description="Decoupled decay of the matrices inside the blocks, per unit of rate."
    )
    clip_norm: float = Field(1.0, gt=0, description="Gradients are scaled down to this global norm.")
    warmup_share: float = Field(
        0.0, ge=0, lt=1, description="Share of the steps over which the rate rises at the start."
    )
    decay_share: float = Field(0.4, ge=0, le=1, description="Share of the steps over which the rate falls at the end.")
    decay: Decay = Field("linear", description="Form of the fall: linear, or half a cosine.")
    final_lr_share: float = Field(0.0, ge=0, le=1, description="The rate at the very end, as a share of the peak.")
    seed: int = Field(0, ge=0, description="Seeds the initial weights.")
    document_mask: Literal["auto", "on", "off"] = Field(
        "auto",
        description="Whether a token sees only its own document or chat in a packed row. auto: for chats, not for pretraining.",
    )
    goldfish: int = Field(
        0,
        ge=0,
        description="Leave one target in this many out, always the same ones of a text, so that it is not learnt by heart. 0: none; 4 is usual.",
    )
    beta: float = Field(
        0.1, ge=0, description="Tie to the start weights (dpo, ipo, kto; grpo: weight of the divergence, 0 for none)."
    )
    good_weight: float = Field(1.0, gt=0, description="kto: weight of good answers.")
    bad_weight: float = Field(1.0, gt=0, description="kto: weight of bad answers.")
    distill_share: float = Field(
        0.9, gt=0, le=1, description="distill: weight of the teacher's probabilities; the rest is the text's own loss."
    )
    distill_temperature: float = Field(1.0, gt=0, description="distill: softens both distributions.")
    group_size: int = Field(8, ge=2, description="grpo: answers drawn for each task.")
    answer_tokens: Count = Field(128, gt=0, description="grpo: longest answer drawn. Tokens.")
    temperature: float = Field(1.0, gt=0, description="grpo: of drawing answers.")
    advantage: Literal["group", "best"] = Field(
        "group",
        description="grpo: group compares an answer with the others of its task; best learns the rewarded ones alone (rejection sampling).",
    )
    checkpoint_every: Count | None = Field(
        None, gt=0, description="Steps between checkpoints. None: about every 60 s, set at the start. Steps."
    )
    checkpoint_async: bool = Field(
        True, description="Write checkpoints in a thread while training goes on; costs a copy of weights and moments."
    )
    keep_last: int = Field(2, ge=1, description="Checkpoints that are kept.")
    keep_best: bool = Field(False, description="Also keep the one with the lowest held-out loss, as best.")
    on_nan: Literal["stop", "skip"] = Field(
        "stop", description="A batch whose loss or gradient is not a number: stop, or record it and go on without it."
    )
    eval_every: Count | None = Field(
        None, gt=0, description="Steps between held-out measurements. None: ten times a run. Steps."
    )
    patience: Count | None = Field(
        None,
        gt=0,
        description="Held-out measurements without a better one after which the run ends, with its best weights as the result. None: never.",
    )
    watch_every: Count | None = Field(
        None,
        gt=0,
        description="Steps between measurements of each layer's gradient, weights and update. None: 200 a run, at least 25 apart. Steps.",
    )
    on_divergence: Literal["stop", "tell"] = Field(
        "stop", description="A run whose loss rose far above what it was, and stays there: say why and stop, or go on."
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
    parallel: Literal["auto", "ddp", "fsdp"] = Field(
        "auto",
        description="How several processes (torchrun) divide the work. ddp: each holds the whole model; fsdp: weights, gradients and "
        "moments are divided too; auto: fsdp where a whole one would not fit a GPU.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Keep only the input of each block and compute its inside again for the gradients: less memory, a third more work.",
    )
    fp8: bool = Field(
        False,
        description="Products of the blocks in 8-bit floats, on GPUs that can (Ada, Hopper and later); needs torchao.",
    )
    peer_timeout: Duration = Field(
        600.0, gt=0, description="Silence after which another process of the run counts as lost. Seconds."
    )

    @property
    def masks_documents(self) -> bool:
        """Whether attention ends at the borders of documents that share a row."""
        return self.document_mask == "on" or (self.document_mask == "auto" and self.objective == "sft")

    @model_validator(mode="after")
    def _ends(self) -> Self:
        if self.max_steps is None and self.max_time is None:
            raise ValueError("max_steps or max_time must be given")
        if self.warmup_share + self.decay_share > 1:
            raise ValueError("warmup_share + decay_share must not exceed 1")
        if self.goldfish == 1:
            raise ValueError("goldfish = 1 would leave every target out; 4 is usual, 0 is off")
        if self.objective in ("dpo", "ipo", "kto") and self.beta == 0:
            raise ValueError(f"{self.objective} needs a beta above 0")
        return self
