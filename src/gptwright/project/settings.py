"""The whole of ``gptwright.toml``: one class a section, most of them owned by the room that reads them."""

from typing import Any, Literal, Self

from pydantic import Field, model_validator

from gptwright.core.config import Config, Count, Duration
from gptwright.corpus.config import CorpusConfig
from gptwright.gateway.config import ProviderConfig
from gptwright.gateway.serving import ServeConfig
from gptwright.guard.config import GuardConfig
from gptwright.release.config import GatePolicy
from gptwright.train.config import TrainConfig


class ProjectSettings(Config):
    """What the project is called and what it is for."""

    name: str = Field(
        "my-gpt",
        pattern=r"^[a-z0-9][a-z0-9._-]*$",
        description="Begins every model's id. Lower case, digits, dots and dashes.",
    )
    intent: Literal["private", "research", "commercial"] = Field(
        "private", description="What the model is for; commercial refuses sources whose licence forbids it."
    )


class TokenizerSettings(Config):
    """The vocabulary."""

    vocab_size: Count = Field(
        4096, ge=272, le=65536, description="Tokens in the vocabulary; fewer if the corpus is too small for it."
    )


class ModelSettings(Config):
    """The shape of the model. Left alone, the planner chooses it for the data, the time and this machine."""

    preset: str = Field("modern", description="modern, gpt2, or a size of GPT-2 such as gpt2-124m.")
    depth: int | None = Field(None, gt=0, description="Number of blocks; width follows. None: chosen by the planner.")
    params: Count | None = Field(None, gt=0, description="Parameters to aim at, instead of depth.")
    seq_len: Count = Field(512, ge=16, description="Longest context. Tokens.")

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.depth is not None and self.params is not None:
            raise ValueError("give depth or params, not both")
        if self.preset.startswith("gpt2-") and (self.depth is not None or self.params is not None):
            raise ValueError(f"{self.preset} has its size already; leave depth and params out, or use preset gpt2")
        return self


# Weights that have learnt already are moved in smaller steps: a third of pretraining's rates.
_GENTLE = {"lr_matrix": 0.006, "lr_embedding": 0.0012, "lr_other": 0.0012, "weight_decay": 0.0}


def _default_time(data: Any, time: str) -> Any:
    given = isinstance(data, dict) and (data.get("max_steps") is not None or data.get("max_time") is not None)
    return data if given or not isinstance(data, dict) else {**data, "max_time": time}


class PretrainSettings(TrainConfig):
    """Pretraining. With neither max_steps nor max_time given, it takes five minutes."""

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        return _default_time(data, "5m")


class FinetuneSettings(TrainConfig):
    """Fine-tuning on conversations. With neither max_steps nor max_time given, it takes two minutes."""

    method: Literal["sft", "lora"] = Field(
        "sft", description="sft: all weights; lora: short for sft with adapter = lora."
    )
    adapter: Literal["none", "lora"] = Field("none", description="lora trains small matrices beside frozen ones.")
    rank: int = Field(16, gt=0, description="Inner width of the LoRA matrices.")
    base: str = Field(
        "pretrain", description="What to start from: pretrain, a model's id or alias, a directory or a GGUF file."
    )
    data: str | None = Field(
        None,
        description="File or folder of conversations (OpenAI, ShareGPT, Alpaca, CSV). None: the corpus's own conversations.",
    )

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        if isinstance(data, dict):
            data = {"objective": "sft", **_GENTLE, **data}
            if data.get("method") == "lora" and data.get("adapter") == "none":
                raise ValueError('method "lora" is short for adapter "lora"; leave adapter out')
            if data.get("method") == "lora":
                data = {**data, "adapter": "lora"}
        return _default_time(data, "2m")


class EvaluateSettings(Config):
    """What is measured at the end of a run."""

    suites: list[str] = Field(
        ["heldout", "samples"],
        description="heldout (bits per byte beside baselines), samples, or paths of your own question files.",
    )
    samples: list[str] = Field(
        ["Hello! How are you?", "What do you like to do at the weekend?", "Tell me something about your family."],
        description="Openings that the model answers in the report.",
    )


class ReleaseSettings(Config):
    """Promotion of models."""

    gate: GatePolicy = Field(GatePolicy(), description="The gate's conditions.")


class RefreshSettings(Config):
    """How a model is kept up to date."""

    replay: float = Field(0.25, ge=0, le=1, description="Share of old documents mixed into continued training.")
    max_time: Duration = Field(120.0, gt=0, description="Time for continued training. Seconds.")
    max_steps: Count | None = Field(
        None, gt=0, description="Optimizer steps of continued training, instead of the time. Steps."
    )


class TrackingSettings(Config):
    """Where curves are written besides metrics.jsonl. Nothing leaves the machine."""

    csv: bool = Field(False, description="Also write metrics.csv into the run's folder at the end, for a spreadsheet.")


class Settings(Config):
    """A project's configuration."""

    project: ProjectSettings = Field(ProjectSettings(), description="Name and intent.")
    corpus: CorpusConfig = Field(CorpusConfig(), description="Texts: sources and rules.")
    tokenizer: TokenizerSettings = Field(TokenizerSettings(), description="Vocabulary.")
    model: ModelSettings = Field(ModelSettings(), description="Shape of the model.")
    pretrain: PretrainSettings = Field(
        default_factory=lambda: PretrainSettings.model_validate({}), description="Pretraining."
    )
    finetune: FinetuneSettings = Field(
        default_factory=lambda: FinetuneSettings.model_validate({}), description="Fine-tuning."
    )
    evaluate: EvaluateSettings = Field(EvaluateSettings(), description="Evaluation.")
    release: ReleaseSettings = Field(ReleaseSettings(), description="Promotion.")
    serve: ServeConfig = Field(ServeConfig(), description="HTTP server.")
    providers: dict[str, ProviderConfig] = Field({}, description="Hosted or remote models, by a name of your choice.")
    guard: GuardConfig = Field(GuardConfig(), description="Safeguards of the served model.")
    refresh: RefreshSettings = Field(RefreshSettings(), description="Keeping the model up to date.")
    tracking: TrackingSettings = Field(TrackingSettings(), description="Extra sinks for curves.")
