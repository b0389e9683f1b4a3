"""The two training stages: from settings and stages above to a run of the one loop, and from its weights to a model directory."""

import csv
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from gptwright.core import launch
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, read_json, write_json
from gptwright.core.hashing import b2_file
from gptwright.core.progress import say, short
from gptwright.core.stages import StageResult
from gptwright.corpus.mix import documents as mixed
from gptwright.corpus.view import Document, documents
from gptwright.model.config import ModelConfig
from gptwright.model.cost import flops_per_token, params
from gptwright.project.erasing import blocks_of
from gptwright.project.examples import Told, spared, told
from gptwright.project.foresight import Foresight
from gptwright.project.heldout import heldout
from gptwright.project.models import locate_base
from gptwright.project.planning import choose_shape
from gptwright.project.publish import publish_model
from gptwright.project.tracking import onlookers
from gptwright.project.tuned_on import note_sources
from gptwright.tokens.plan import BatchPlan
from gptwright.tokens.shards import TokenDataset
from gptwright.tokens.slots import record_slots
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.dial import DIALLED, note, settings_for
from gptwright.train.distributed import launched
from gptwright.train.loop import TrainResult, train
from gptwright.train.metrics import read_metrics
from gptwright.train.run import FREE_TO_CHANGE

_USUAL_SHARE = 0.45  # of the matmul peak that training reaches

if TYPE_CHECKING:
    from gptwright.project.pipeline import Job
    from gptwright.project.settings import FinetuneStep


def pretrain(job: "Job") -> StageResult:
    """Train from random weights on the token shards."""
    project, settings = job.project, job.project.settings
    tokenizer = Tokenizer.load(project.work / "tokenizer")
    dataset = TokenDataset.open(project.root / job.inputs["tokens"].path)
    run_dir = project.work / "runs" / job.run_id
    shape, config = _resolved(run_dir, job, tokenizer, train_config(settings.pretrain))
    rows = max(1, config.batch_tokens // shape.seq_len)
    plan = BatchPlan(dataset, shape.seq_len, rows, config.seed, goldfish=config.goldfish)
    measured = heldout(job, tokenizer, shape.seq_len, rows)
    say(
        f"pretrain: {short(params(shape))} parameters, {shape.n_layers} layers, {shape.d_model} wide, {shape.seq_len} tokens of context"
    )
    foreseen = None
    if launch.is_main():
        record_slots(plan, run_dir, project.root)
        foreseen = Foresight.begin(run_dir, job.ledger, project.work, shape, config, dataset.n_tokens)
    result = train(
        shape, plan, config,
        run_dir=run_dir, ledger=job.ledger, heldout=measured, label="pretrain", callbacks=onlookers(project, tokenizer),
    )  # fmt: skip
    if foreseen is not None:
        foreseen.end(result)
    facts = {
        "parents": {name: artifact.hash for name, artifact in job.inputs.items()},
        "steps": result.steps,
        "seed": config.seed,
    }
    return publish(job, result, project.work / "tokenizer", facts, pretrained=True)


def _resolved(run_dir: Path, job: "Job", tokenizer: Tokenizer, config: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
    """Shape and settings of a run. Choosing may measure, so of several processes the main one does it for all."""
    world = launched()
    if world.size == 1:
        return _choose(run_dir, job, tokenizer, config)
    kept = world.share(lambda: [found.model_dump(mode="json") for found in _choose(run_dir, job, tokenizer, config)])
    return ModelConfig.model_validate(kept[0]), TrainConfig.model_validate(kept[1])


def _choose(run_dir: Path, job: "Job", tokenizer: Tokenizer, config: TrainConfig) -> tuple[ModelConfig, TrainConfig]:
    """Shape and settings of a run: chosen once, kept in the run's folder, read again when the run goes on, but for what may change then."""
    path = run_dir / "shape.json"
    if path.is_file():
        kept = read_json(path)
        now = {name: getattr(config, name) for name in FREE_TO_CHANGE & config.model_fields_set}
        return ModelConfig.model_validate(kept["model"]), TrainConfig.model_validate(kept["train"] | now)
    settings = job.project.settings
    shape, config = choose_shape(
        settings, tokenizer.padded_vocab_size, job.inputs["tokens"].meta, config, job.project.work
    )
    unique = float(job.inputs["tokens"].meta["tokens"])
    config = settings_for(shape, config, settings.model.preset, tokens_ahead(shape, config), unique)
    say(f"pretrain: {note(shape, config, settings.model.preset)}")
    write_json(path, {"model": shape.model_dump(), "train": config.model_dump()})
    return shape, config


def tokens_ahead(shape: ModelConfig, config: TrainConfig) -> float | None:
    """About how many tokens a time budget will see, for the dial's batch and decay: from the matmul peak, measured in a moment.

    None when steps end the run, or both are chosen already: by hand or by the planner, which knows better.
    """
    if config.max_time is None or config.max_steps is not None:
        return None
    if {"batch_tokens", "weight_decay"} <= config.model_fields_set:
        return None
    here = machine.choose(config)
    peak = machine.matmul_peak(shape, 2048, here.torch_dtype, here.device)
    return _USUAL_SHARE * peak * config.max_time / flops_per_token(shape, shape.seq_len)


def finetune(job: "Job") -> StageResult:
    """Fine-tune as ``[finetune]`` says, step by step; SFT without any conversations lets the base pass through unchanged."""
    from gptwright.project.tuning import tune_chain

    project, settings = job.project, job.project.settings.finetune
    sources = note_sources(project, job.ledger)
    base = locate_base(project, job.ledger, job.inputs)
    chats: list[Any] | None = None
    if (first := settings.chain()[0]).method in ("sft", "lora", "distill"):
        chats = list(conversations(job, first))
        if not chats and first.data is not None:
            raise UserError(
                "no conversations in it", where=str(project.root / first.data), fix="Mend its rows, or [finetune] data"
            )
        if not chats and len(settings.chain()) == 1:
            say("finetune: the corpus has no conversations, so the pretrained model stands as it is")
            path = base.path.relative_to(project.root).as_posix()
            parents = (base.artifact_id,) if base.artifact_id else ()
            return StageResult("model", base.id, path, base.hash, {"passed_through": True}, parents)
    result, adapter = tune_chain(job, base, chats)
    facts: dict[str, Any] = {
        "parents": {name: artifact.hash for name, artifact in job.inputs.items()},
        "base": {"id": base.id, "hash": base.hash},
        "steps": result.steps,
        "seed": settings.seed,
        "adapter": settings.adapter,
        "methods": [step.method for step in settings.chain()],
    }
    made = publish(job, result, base.path, facts, adapter, parents=(base.artifact_id,) if base.artifact_id else ())
    return replace(made, meta={**made.meta, "sources": sources}) if sources else made


def train_config(settings: TrainConfig, **changes: Any) -> TrainConfig:
    """A section of the configuration as the loop's own config; what was set there by hand, and only that, counts as set in it."""
    values = {
        name: value
        for name, value in settings.model_dump(exclude_unset=True).items()
        if name in TrainConfig.model_fields and not (value is None and name in DIALLED)
    }
    return TrainConfig.model_validate({**values, **changes})


def conversations(job: "Job", settings: "FinetuneStep") -> Iterator[Document | Told]:
    """What to learn from: the conversations of the user's file or folder, else of the corpus's training part; with ``documents`` also the
    plain ones there, all of the corpus as often as its mix shows it."""
    if settings.documents:
        corpus = job.project.settings.corpus
        weights = {name: source.weight for name, source in corpus.sources.items()}
        for document in mixed(job.project.work / "corpus", corpus.mix, weights):
            if settings.data is None or not document.messages:
                yield document
    elif settings.data is None:
        yield from (document for document in documents(job.project.work / "corpus", "train") if document.messages)
    if settings.data is None:
        return
    path = job.project.root / settings.data
    files = sorted(p for p in path.rglob("*") if p.is_file()) if path.is_dir() else [path]
    if not path.exists():
        raise UserError("no such file or folder", where=str(path), fix="Mend [finetune] data")
    blocks = blocks_of(job.project)
    for file in files:
        yield from spared(told(file), blocks)


def write_csv(run_dir: Path) -> None:
    """The run's metrics as a table for a spreadsheet: metrics.csv beside metrics.jsonl."""
    rows = read_metrics(run_dir / "metrics.jsonl")
    columns = list(dict.fromkeys(name for row in rows for name in row))
    with atomic_write(run_dir / "metrics.csv", "w") as file:
        table = csv.DictWriter(file, columns, lineterminator="\n")
        table.writeheader()
        table.writerows(rows)


def publish(
    job: "Job",
    result: TrainResult,
    tokenizer_dir: Path,
    facts: dict[str, Any],
    adapter: Path | None = None,
    parents: tuple[int, ...] = (),
    pretrained: bool = False,
) -> StageResult:
    """A finished run as a model directory, with what the ledger is to know of it."""
    project = job.project
    if not launch.is_main():
        return StageResult("model", "", "", "")  # of which nothing is kept
    if project.settings.tracking.csv:
        write_csv(result.run_dir)
    shape = result.model.config
    with torch.no_grad():
        identity, folder, digest = publish_model(
            project.work / "models",
            project.settings.project.name,
            job.stage,
            result.model,
            tokenizer_dir,
            facts,
            adapter,
        )
    seq_len = min(shape.seq_len, int(project.settings.model.seq_len))
    meta = {
        "pretrained": pretrained,
        "params": params(shape),
        "shape": shape.model_dump(),
        "steps": result.steps,
        "tokens": result.tokens,
        "flop": float(flops_per_token(shape, seq_len)) * result.tokens,
        "final_loss": result.final_loss,
        "heldout_bpb": result.heldout_bpb,
        "train_seconds": result.seconds,
        "tokens_per_s": result.tokens_per_s,
        "peak_share": result.peak_share,
        "weights": b2_file(folder / "model.safetensors"),
    }
    return StageResult("model", identity, folder.relative_to(project.root).as_posix(), digest, meta, parents)
