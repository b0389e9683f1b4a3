"""How a run is laid out: the machine's choices agreed on by all processes, replicas or shards, and the stepper that goes with it."""

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any, Literal

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.model.config import ModelConfig
from gptwright.model.cost import params
from gptwright.model.transformer import Transformer
from gptwright.train import machine
from gptwright.train.config import TrainConfig
from gptwright.train.distributed import World
from gptwright.train.machine import Machine
from gptwright.train.objectives import Objective
from gptwright.train.run import Resolved, RunFolder, warn_if_moved
from gptwright.train.schedule import Schedule
from gptwright.train.stepper import Stepper

Layout = Literal["none", "ddp", "fsdp"]
_REPLICA_SHARE = (
    0.6  # of a GPU's memory that masters, gradients, moments and working weights may take; activations need the rest
)


def begun(folder: RunFolder, config: TrainConfig, shape: ModelConfig, plan_key: str, world: World) -> Resolved | None:
    """What a run was begun with, if it was; see ``RunFolder.read_config``. The main process reads."""

    def read() -> dict[str, Any] | None:
        found = folder.read_config(config, shape, plan_key)
        return None if found is None else asdict(found)

    stored = world.share(read)
    return None if stored is None else Resolved.of(stored)


def decided(folder: RunFolder, schedule: Schedule, world: World) -> Schedule:
    """A schedule with the decisions that stand in the run's folder. The main process reads."""
    return Schedule(**world.share(lambda: asdict(folder.as_decided(schedule))))


def choose_machine(config: TrainConfig, resolved: Resolved | None, shape: ModelConfig, world: World) -> Machine:
    """The machine as resolved at the start of a run, as far as this one can give it, or a choice that all processes share.

    Args:
        config: settings.
        resolved: what the run was begun with; None: it begins now.
        shape: of the model.
        world: the processes; connected.
    """
    if resolved is not None:
        then = resolved.machine
        device = then.device if config.device == "auto" else config.device
        layout = layout_of(config, shape, world, device, then.dtype)
        settings: dict[str, Any] = {
            "device": device,
            "dtype": then.dtype,
            "compile": "auto" if then.compiled else "off",
        }
        if then.processes == world.size:  # another number of processes has other threads
            settings["threads"] = then.threads
        now = replace(machine.choose(config.model_copy(update=settings)), processes=world.size, parallel=layout)
        warn_if_moved(then, now)
        return now
    chosen = machine.choose(config) if world.is_main else None
    # "auto" is decided by measuring: where processes measured differently, their models would differ too.
    agreed = Machine(**world.share(lambda: asdict(chosen))) if world.size > 1 else chosen  # type: ignore[arg-type]
    assert agreed is not None
    if chosen is None:
        update = {"device": agreed.device, "dtype": agreed.dtype, "compile": "auto" if agreed.compiled else "off"}
        agreed = machine.choose(config.model_copy(update=update))
    layout = layout_of(config, shape, world, agreed.device, agreed.dtype)
    return agreed if world.size == 1 else replace(agreed, processes=world.size, parallel=layout)


def layout_of(config: TrainConfig, shape: ModelConfig, world: World, device: str, dtype: str) -> Layout:
    """Replicas or shards.

    Raises:
        UserError: shards were asked for where they cannot be had.
    """
    if world.size == 1:
        return "none"
    if config.objective == "grpo":
        if config.parallel == "fsdp":
            raise UserError("grpo draws answers from whole weights", where="parallel", fix='Set parallel = "ddp"')
        return "ddp"
    if config.parallel != "auto":
        return config.parallel
    if device != "cuda":
        return "ddp"

    def fits() -> bool:
        return replica_bytes(shape, dtype) <= _REPLICA_SHARE * torch.cuda.get_device_properties(0).total_memory

    return "ddp" if world.share(fits) else "fsdp"


def replica_bytes(shape: ModelConfig, dtype: str) -> float:
    """Bytes of a whole model in training: masters, gradients and two moments (at most) of 4 bytes, and the working weights."""
    return params(shape) * (16 + (2 if dtype == "bfloat16" else 0)) * (2 if dtype == "float64" else 1)


def make_stepper(
    model: ModelConfig | Transformer,
    config: TrainConfig,
    chosen: Machine,
    rows: int,
    objective: Objective,
    world: World,
) -> Stepper:
    """The stepper of a run.

    Args:
        model: a shape, whose weights are drawn from ``config.seed``, or a model with weights.
        config: settings.
        chosen: by ``choose_machine``.
        rows: of a batch.
        objective: what a step minimises.
        world: the processes.

    Raises:
        UserError: there are more processes than rows.
    """
    if rows // objective.unit < world.size:
        what = "rows" if objective.unit == 1 else f"groups of {objective.unit} rows"
        raise UserError(
            f"a batch has {rows // objective.unit} {what}, for {world.size} processes",
            where="batch_tokens",
            fix=f"Raise batch_tokens {world.size * objective.unit / rows:.3g} times, or start fewer processes",
        )
    if chosen.parallel != "fsdp":
        if isinstance(model, ModelConfig):
            model = Transformer(model)
            model.init_weights(config.seed)
        return Stepper(model, config, chosen, rows=rows, objective=objective, world=world)
    from gptwright.train.sharded import ShardedStepper  # imports much that one process does not need

    start: Iterator[tuple[str, Tensor]] | None = None
    if isinstance(model, ModelConfig):
        with torch.device("meta"):  # no process ever holds the whole of it
            model = Transformer(model)
            start = Transformer(model.config).initial_values(config.seed)
    return ShardedStepper(model, config, chosen, objective, world, start)
