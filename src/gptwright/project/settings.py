"""The whole of ``gptwright.toml``: one class a section, most of them owned by the room that reads them."""

from typing import Any, Literal, Self, get_args

from pydantic import Field, model_validator

from gptwright.core.config import Config, Count, Duration
from gptwright.corpus.config import CorpusConfig
from gptwright.gateway.config import GatewayConfig, ProviderConfig
from gptwright.gateway.serving import ServeConfig
from gptwright.guard.config import GuardConfig
from gptwright.release.config import GatePolicy
from gptwright.train.config import ObjectiveName, TrainConfig


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

    preset: str = Field(
        "modern",
        description="modern, gpt2, or a model by name, such as gpt2-medium, gpt3-1.3b, llama3.2-1b or qwen3-0.6b.",
    )
    depth: int | None = Field(None, gt=0, description="Number of blocks; width follows. None: chosen by the planner.")
    params: Count | None = Field(None, gt=0, description="Parameters to aim at, instead of depth.")
    seq_len: Count = Field(512, ge=16, description="Longest context. Tokens.")
    tie_embeddings: bool | None = Field(
        None,
        description="Whether the output head shares the embedding's weights. false learns more from as much work where the vocabulary is a "
        "large part of the model, and has that many parameters more. None: tied, or as the named model is.",
    )

    @classmethod
    def replaces(cls, key: str, value: Any) -> tuple[str, ...]:
        if key == "preset" and value not in ("modern", "gpt2"):
            return ("depth", "params")  # a model by name brings its size
        return {"depth": ("params",), "params": ("depth",)}.get(key, ())

    @model_validator(mode="after")
    def _one_size(self) -> Self:
        if self.depth is not None and self.params is not None:
            raise ValueError("give depth or params, not both")
        if self.preset not in ("modern", "gpt2") and (self.depth is not None or self.params is not None):
            raise ValueError(f"{self.preset} has its size already; leave depth and params out, or use modern or gpt2")
        return self


# Weights that have learnt already are moved in smaller steps: a third of pretraining's rates.
_GENTLE = {"lr_matrix": 0.006, "lr_embedding": 0.0012, "lr_other": 0.0012, "weight_decay": 0.0}


def _default_time(data: Any, time: str) -> Any:
    given = isinstance(data, dict) and (data.get("max_steps") is not None or data.get("max_time") is not None)
    return data if given or not isinstance(data, dict) else {**data, "max_time": time}


# Preferences move a model that is meant to stay close to where it was: a tenth of that.
_CLOSE = {"lr_matrix": 0.0006, "lr_embedding": 0.00012, "lr_other": 0.0003, "weight_decay": 0.0}


class PretrainSettings(TrainConfig):
    """Pretraining. With neither max_steps nor max_time given, it takes five minutes."""

    # What is left out here is set by the model's size (train/dial.py), or by GPT-3's paper for its presets.
    batch_tokens: Count | None = Field(  # type: ignore[assignment]
        None, gt=0, description="Tokens of one optimizer step. None: by the dial. Tokens."
    )
    lr_matrix: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="Peak rate of Muon, for the matrices inside the blocks. None: by the dial."
    )
    lr_embedding: float | None = Field(  # type: ignore[assignment]
        None, gt=0, description="Peak rate of AdamW, for the embedding and an untied head. None: by the dial."
    )
    lr_other: float | None = Field(  # type: ignore[assignment]
        None,
        gt=0,
        description="Peak rate of AdamW, for norms, biases and, with adamw, the matrices. None: by the dial.",
    )
    weight_decay: float | None = Field(  # type: ignore[assignment]
        None,
        ge=0,
        description="Decoupled decay of the matrices inside the blocks, per unit of rate. None: by the dial.",
    )
    canaries: Count = Field(
        0,
        ge=0,
        description="Made-up secrets planted in the training text, 1 to 64 times each, to measure what is learnt by heart. 0: none.",
    )

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        return _default_time(data, "5m")


class FinetuneStep(TrainConfig):
    """One step of fine-tuning. With neither max_steps nor max_time given, it takes two minutes."""

    method: Literal["sft", "lora", "dpo", "ipo", "kto", "grpo", "distill"] = Field(
        "sft",
        description="sft: answers; lora: short for sft with adapter = lora; dpo, ipo: pairs of a better and a worse answer; kto: answers "
        "that are good or bad; grpo: tasks whose answers are checked; distill: a teacher's probabilities on the answers.",
    )
    adapter: Literal["none", "lora"] = Field("none", description="lora trains small matrices beside frozen ones.")
    rank: int = Field(16, gt=0, description="Inner width of the LoRA matrices.")
    base_dtype: Literal["float", "int8"] = Field(
        "float", description="int8 holds the frozen matrices under adapters in a byte a weight."
    )
    data: str | None = Field(
        None,
        description="File or folder of conversations (OpenAI, ShareGPT, Alpaca, CSV); for dpo, ipo, kto a file of prompt, chosen, rejected "
        "(kto also prompt, completion, label); for grpo of prompt, answer. None: the corpus's own conversations.",
    )
    license: str | None = Field(
        None,
        description="Licence of data, an SPDX expression; LicenseRef-own for your own. None: of the source in whose folder it lies, or of a "
        "file beside it.",
    )
    attribution: str | None = Field(None, description="Whom to name for data.")
    contains_personal_data: Literal["yes", "no", "unknown"] = Field(
        "unknown", description="Whether data holds personal data. It is learnt as it stands: nothing is masked."
    )
    documents: bool = Field(
        False,
        description="sft, lora, distill: also learn the corpus's documents as plain text, every word of them, in the same rows as the "
        "conversations; how often each source is shown is its weight.",
    )
    teacher: str | None = Field(
        None, description="distill: a model's id or alias, or a directory with the same tokenizer."
    )
    reward: Literal["exact", "regex", "python"] = Field(
        "exact", description="grpo: the answer itself, a pattern, or score(prompt, answer, row) of your own file."
    )
    reward_pattern: str | None = Field(
        None,
        description="grpo with regex: for all tasks; its group, if any, is to be the answer. None: each answer is a pattern.",
    )
    reward_file: str | None = Field(None, description="grpo with python: the file that defines score.")
    reward_timeout: Duration = Field(5.0, gt=0, description="grpo with python: time for one answer. Seconds.")

    @model_validator(mode="before")
    @classmethod
    def _some_end(cls, data: Any) -> Any:
        if isinstance(data, dict):
            method = data.get("method", "sft")
            defaults: dict[str, Any] = _CLOSE if method in ("dpo", "ipo", "kto", "grpo") else _GENTLE
            objective = (
                method if method in get_args(ObjectiveName) else "sft"
            )  # lora; of others method's own check tells
            data = {"objective": objective, **defaults, **({"beta": 0.0} if method == "grpo" else {}), **data}
            if data["objective"] != objective:
                raise ValueError(f"method {method} means objective {objective}; leave objective out")
            if method == "lora" and data.get("adapter") == "none":
                raise ValueError('method "lora" is short for adapter "lora"; leave adapter out')
            if method == "lora":
                data = {**data, "adapter": "lora"}
        return _default_time(data, "2m")

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.method in ("dpo", "ipo", "kto", "grpo") and self.data is None and not getattr(self, "steps", ()):
            raise ValueError(f"method {self.method} needs data")
        if self.documents and self.method not in ("sft", "lora", "distill"):
            raise ValueError(
                f"method {self.method} learns no documents; leave documents out, or make it a step of its own"
            )
        if self.method == "distill" and self.teacher is None:
            raise ValueError("method distill needs a teacher")
        if self.method == "grpo" and self.reward == "python" and self.reward_file is None:
            raise ValueError("reward python needs reward_file")
        if self.base_dtype == "int8" and self.adapter != "lora":
            raise ValueError('base_dtype int8 needs adapter = "lora"')
        return self


class FinetuneSettings(FinetuneStep):
    """Fine-tuning: one step, or a chain of steps under ``[[finetune.steps]]``, each from what the one before made."""

    base: str = Field(
        "pretrain", description="What to start from: pretrain, a model's id or alias, a directory or a GGUF file."
    )
    steps: list[FinetuneStep] = Field([], description="A chain of steps instead of this one, such as sft and then dpo.")

    def chain(self) -> list[FinetuneStep]:
        """The steps in order; at least one."""
        return list(self.steps) or [self]


class EvaluateSettings(Config):
    """What is measured at the end of a run."""

    suites: list[str] = Field(
        ["heldout", "samples"],
        description="heldout (bits per byte beside baselines), samples, chat, adaptation (beside the model that it was tuned from: held-out "
        "text by source, the watched text, your questions), or paths of your own question files.",
    )
    watch: str | None = Field(
        None,
        description="adaptation: text of a general kind that is no source, to see what is forgotten: a file, a folder or package:DIST[/glob].",
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

    replay: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Share of old documents mixed into continued training. None: 0.05 to 0.25, by how much harder the new texts are.",
    )
    max_time: Duration = Field(120.0, gt=0, description="Time for continued training. Seconds.")
    max_steps: Count | None = Field(
        None, gt=0, description="Optimizer steps of continued training, instead of the time. Steps."
    )


class TrackingSettings(Config):
    """Where curves are written besides metrics.jsonl. Nothing leaves the machine unless mlflow_uri or wandb_online says so."""

    sinks: list[Literal["tensorboard", "mlflow", "wandb", "trackio"]] = Field(
        [], description="Also show curves there, from files below work/tracking. Needs the extra gptwright[tracking]."
    )
    mlflow_uri: str | None = Field(
        None, description="Tracking server or store of MLflow. None: an SQLite file below work/tracking."
    )
    wandb_online: bool = Field(
        False, description="Send to Weights & Biases while training; else files stay here until you run wandb sync."
    )
    samples_every: Count | None = Field(
        None,
        gt=0,
        description="Let the model go on with [evaluate] samples after every so many steps, into samples.jsonl of the run. None: never. Steps.",
    )
    samples_tokens: Count = Field(48, gt=0, description="Longest such sample. Tokens.")
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
    gateway: GatewayConfig = Field(GatewayConfig(), description="All providers together, and who steps in for whom.")
    guard: GuardConfig = Field(GuardConfig(), description="Safeguards of the served model.")
    refresh: RefreshSettings = Field(RefreshSettings(), description="Keeping the model up to date.")
    tracking: TrackingSettings = Field(TrackingSettings(), description="Extra sinks for curves.")

    @model_validator(mode="after")
    def _routes_lead_somewhere(self) -> Self:
        for name, route in self.gateway.routes.items():
            for model in route.models:
                provider, mark, _ = model.partition(":")
                if mark and provider not in self.providers:
                    raise ValueError(f"gateway.routes.{name}: {model} needs a section [providers.{provider}]")
        return self
