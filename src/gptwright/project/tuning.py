"""Steps of fine-tuning: from a step's settings to a plan and an objective, a run of the one loop, and an adapter or whole weights."""

import math
import textwrap
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core import launch
from gptwright.core.errors import UserError
from gptwright.core.progress import say
from gptwright.model.io import load_model
from gptwright.model.lora import apply_lora, load_adapter, merge_lora, save_adapter
from gptwright.model.transformer import Transformer
from gptwright.project.erasing import blocks_of
from gptwright.project.examples import norms_of, spared
from gptwright.project.heldout import heldout
from gptwright.project.models import ModelRef, locate
from gptwright.project.tracking import onlookers
from gptwright.project.training import conversations, train_config
from gptwright.tokens.answers import JudgedPlan, PairPlan
from gptwright.tokens.preferences import Found, read_judged, read_pairs, read_tasks
from gptwright.tokens.sft import SftPlan
from gptwright.tokens.slots import record_slots
from gptwright.tokens.tokenizer import Tokenizer
from gptwright.train.config import TrainConfig
from gptwright.train.data import Plan
from gptwright.train.distill import Distillation, check_tokenizers
from gptwright.train.distributed import launched
from gptwright.train.grpo import Grpo, Reward, TaskPlan
from gptwright.train.int8 import quantize_base
from gptwright.train.loop import TrainResult, train
from gptwright.train.objectives import Objective
from gptwright.train.preferences import Kto, Preference
from gptwright.train.rewards import PythonReward, exact, regex
from gptwright.train.sampling import EngineSampler

if TYPE_CHECKING:
    from gptwright.project.pipeline import Job
    from gptwright.project.settings import FinetuneStep


def tune_chain(
    job: "Job", base: ModelRef, chats: Sequence[Any] | None, configs: Sequence[TrainConfig] | None = None
) -> tuple[TrainResult, Path | None]:
    """All steps of ``[finetune]``, each from what the one before made.

    Args:
        job: of the stage.
        base: what the first step starts from.
        chats: conversations of the first step, when they are read already.
        configs: of the steps, perhaps with other ends than the settings'; None: as the settings say.

    Returns:
        The last step's result, its model merged, and the adapter's PEFT directory if the only step trained one.
    """
    steps, runs = job.project.settings.finetune.chain(), job.project.work / "runs"
    configs = [train_config(step) for step in steps] if configs is None else configs
    if len(steps) == 1:
        return tune_step(job, base, steps[0], configs[0], runs / job.run_id, chats=chats)
    model, result = None, None
    for number, step in enumerate(steps, start=1):
        say(f"finetune: step {number} of {len(steps)}, {step.method}")
        # The stage's own run keeps the last step, as it keeps the only one of a single step.
        run_dir = runs / (job.run_id if number == len(steps) else f"{job.run_id}-step{number}")
        result, _ = tune_step(job, base, step, configs[number - 1], run_dir, model=model, chats=chats, whole=True)
        model, chats = result.model, None
    assert result is not None
    return result, None


def tune_step(
    job: "Job",
    base: ModelRef,
    step: "FinetuneStep",
    config: TrainConfig,
    run_dir: Path,
    *,
    model: Transformer | None = None,
    chats: Sequence[Any] | None = None,
    whole: bool = False,
) -> tuple[TrainResult, Path | None]:
    """One step, in the run's folder.

    Args:
        job: of the stage.
        base: names the model that the tokenizer, and without ``model`` the weights, come from.
        step: its settings.
        config: for the loop, perhaps with another end than the settings'.
        run_dir: of the run.
        model: weights to start from instead; trained in place.
        chats: conversations, when they are read already.
        whole: an adapter is only merged, not saved: its base is no model of the project.

    Returns:
        The result, its model merged if there was an adapter, and the adapter's PEFT directory.
    """
    project = job.project
    tokenizer = Tokenizer.load(base.path)
    start = load_model(base.path) if model is None else model
    seq_len = min(start.config.seq_len, int(project.settings.model.seq_len))
    lora = step.adapter == "lora"
    int8 = step.base_dtype == "int8"
    # What the base of a project lacks on disk is kept in memory: a step's start inside a chain.
    kept = {n: p.detach().clone() for n, p in start.named_parameters()} if int8 and model is not None else None
    if lora:
        apply_lora(start, rank=step.rank, alpha=2 * step.rank)
    if int8:
        quantize_base(start)
    with ExitStack() as stack:
        plan, objective, what, examples = _work(job, step, config, tokenizer, seq_len, chats, stack)
        say(textwrap.fill(f"finetune: {what}", 100, subsequent_indent="  "))
        say(f"finetune: {step.method} on {base.id}{' with LoRA' if lora else ''}")
        measured = heldout(job, tokenizer, seq_len, max(1, config.batch_tokens // seq_len))
        if launch.is_main():
            record_slots(plan, run_dir, project.root, norms_of(examples))
        result = train(
            start, plan, config,
            run_dir=run_dir, ledger=job.ledger, heldout=measured, label="finetune", objective=objective,
            callbacks=onlookers(project, tokenizer),
        )  # fmt: skip
    if not math.isfinite(result.final_loss):
        raise UserError(
            "nothing was learnt: in every step all answers to a task had the same reward",
            where=f"[finetune] reward; answers and rewards: {run_dir / 'rollouts'}",
            fix="Give easier tasks or a finer reward, or a larger group_size",
        )
    if not lora:
        return result, None
    # Published, the adapter stands two folders below the models, its base beside its own model.
    manifest = {"base": {"id": base.id, "hash": base.hash}}
    adapter, beside = run_dir / "adapter", f"../../{base.path.name}"
    launched().share(lambda: str(save_adapter(result.model, adapter, beside, {"manifest.json": manifest})))
    if int8:
        _merge_whole(result.model, load_model(base.path).state_dict() if kept is None else kept, adapter)
    else:
        merge_lora(result.model)
    return result, None if whole else adapter


def _merge_whole(model: Transformer, whole: Mapping[str, Any], adapter: Path) -> None:
    """Put the weights from before rounding in place of the int8 ones, then merge: rounding is not to stay."""
    fresh = Transformer(model.config)
    fresh.load_state_dict(whole)
    load_adapter(fresh, adapter)
    merge_lora(fresh)
    model.blocks, model.embedding, model.norm = fresh.blocks, fresh.embedding, fresh.norm
    model.positions, model.head = fresh.positions, fresh.head


def _work(
    job: "Job",
    step: "FinetuneStep",
    config: TrainConfig,
    tokenizer: Tokenizer,
    seq_len: int,
    chats: Sequence[Any] | None,
    stack: ExitStack,
) -> tuple[Plan, Objective, str, Sequence[Any]]:
    """A step's plan, its objective, what of the data a person should know, and the examples."""
    rows = max(1, config.batch_tokens // seq_len)
    if step.method in ("sft", "lora", "distill"):
        found = list(conversations(job, step)) if chats is None else chats
        plan = SftPlan.of(found, tokenizer, seq_len, rows, config.seed, overlong="split", goldfish=config.goldfish)
        objective = _distillation(job, step, tokenizer) if step.method == "distill" else Objective()
        return plan, objective, str(plan.report), found
    path, blocks = _file(job, step.data), blocks_of(job.project)
    if step.method in ("dpo", "ipo"):
        compared = _left(spared(_told(read_pairs(path)), blocks), path)
        pairs = PairPlan(compared, tokenizer, seq_len, max(1, rows // 2), config.seed)
        return pairs, Preference(step.method, config.beta), str(pairs.report), compared
    if step.method == "kto":
        answers = _left(spared(_told(read_judged(path)), blocks), path)
        judged = JudgedPlan(answers, tokenizer, seq_len, max(2, rows), config.seed)
        return judged, Kto(config.beta, config.good_weight, config.bad_weight), str(judged.report), answers
    tasks = _left(spared(_told(read_tasks(path)), blocks), path)
    prompts = [tokenizer.render(task.prompt, add_generation_prompt=True).ids for task in tasks]
    if (longest := max(map(len, prompts)) + config.answer_tokens) > seq_len:
        raise UserError(
            f"the longest prompt and answer_tokens take {longest} tokens of a context of {seq_len}",
            where="[finetune] answer_tokens",
            fix="Lower answer_tokens, or shorten the prompts",
        )
    drawn = TaskPlan(tasks, prompts, max(1, rows // config.group_size), config.group_size, config.seed)
    sample = EngineSampler(tokenizer, config.answer_tokens, config.temperature)
    return drawn, Grpo(sample, _reward(job, step, stack), config), f"{len(tasks):,} tasks", tasks


def _distillation(job: "Job", step: "FinetuneStep", tokenizer: Tokenizer) -> Distillation:
    name = str(step.teacher)
    place = job.project.root / name
    folder = place if (place / "config.json").is_file() else locate(job.project, name).path
    check_tokenizers(tokenizer.hash, Tokenizer.load(folder).hash, str(folder))
    from gptwright.core.hashing import b2_file

    key = b2_file(folder / "model.safetensors") if (folder / "model.safetensors").is_file() else str(folder)
    return Distillation(load_model(folder), step.distill_share, step.distill_temperature, key)


def _reward(job: "Job", step: "FinetuneStep", stack: ExitStack) -> Reward:
    if step.reward == "exact":
        return exact
    if step.reward == "regex":
        return regex(step.reward_pattern)
    return stack.enter_context(PythonReward(_file(job, step.reward_file), step.reward_timeout))


def _file(job: "Job", name: str | None) -> Path:
    path = job.project.root / str(name)
    if not path.is_file():
        raise UserError("no such file", where=str(path), fix="Mend [finetune]")
    return path


def _left(rows: list[Any], path: Path) -> list[Any]:
    if not rows:
        raise UserError("every row of it was erased", where=str(path), fix="Give other rows, or take the step out")
    return rows


def _told(found: Found[Any]) -> list[Any]:
    for fault in found.faults:
        say(f"finetune: {fault}")
    return found.rows
