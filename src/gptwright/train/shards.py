"""Checkpoints of divided weights: each process writes its part through torch.distributed.checkpoint, as safetensors, none of it pickled.

DCP's own metadata file is a pickle, so its safetensors form is used, which keeps what it needs to know, the place of every part in the
whole, as JSON in the heads of the files. From these any number of processes reads what it needs. (While plans are made, DCP sends
pickled objects from process to process; nothing of that kind is written or read.)

state.json, with a hash of every file, is written last, and the directory takes its name when all are on disk.
"""

import os
import shutil
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY, disk_full, says_disk_is_full, sync_directory, write_json
from gptwright.core.hashing import b2_file, b2_json
from gptwright.train.distributed import Talk, World

if TYPE_CHECKING:
    from torch.distributed.tensor import DTensor

Tensors = dict[str, Tensor]
_GROUPS = ("weights.", "optimizer.")


def divided(tensors: Tensors) -> bool:
    """Whether tensors are parts of wholes that other processes hold the rest of."""
    return any(hasattr(tensor, "device_mesh") for tensor in tensors.values())


def copied(tensor: Tensor) -> Tensor:
    """A copy on the CPU; of a divided tensor, of the part that is here."""
    if not hasattr(tensor, "device_mesh"):
        return tensor.detach().to("cpu", copy=True)
    from torch.distributed.device_mesh import init_device_mesh
    from torch.distributed.tensor import DTensor

    part = cast("DTensor", tensor)
    mesh = (
        part.device_mesh if part.device_mesh.device_type == "cpu" else init_device_mesh("cpu", part.device_mesh.shape)
    )
    rows = part.to_local().detach().to("cpu", copy=True)
    made: Tensor = DTensor.from_local(
        rows, mesh, part.placements, run_check=False, shape=part.shape, stride=part.stride()
    )
    return made


def save(path: Path, weights: Tensors, optimizer: Tensors, facts: dict[str, Any], world: World) -> None:
    """Write a checkpoint; every process calls it, in a thread that uses the group ``world.disk`` alone.

    Args:
        path: its directory.
        weights: divided.
        optimizer: divided, and "rng", of which the main process's is kept.
        facts: for state.json.
        world: several processes.

    Raises:
        UserError: a disk is full, here or elsewhere; what was at ``path`` is untouched.
    """
    from torch.distributed.checkpoint.api import CheckpointException
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageWriter
    from torch.distributed.checkpoint.state_dict_saver import save as dcp_save

    talk: Talk = world.disk  # type: ignore[attr-defined]
    building = path.with_name(f"{TEMPORARY}shards-{path.name}")
    try:
        if world.is_main:
            shutil.rmtree(building, ignore_errors=True)
            building.mkdir(parents=True)
        _agree(talk, None)
        tensors = {f"weights.{n}": copied(t) for n, t in weights.items()} | {
            f"optimizer.{n}": t for n, t in optimizer.items()
        }
        tensors["optimizer.rng"] = optimizer["rng"].clone()
        writer = HuggingFaceStorageWriter(str(building), save_distributed=True)
        fault: UserError | None = None
        try:
            dcp_save(tensors, storage_writer=writer, process_group=talk.group)
        except CheckpointException as error:  # not an Exception; it tells every process what went wrong in any
            causes = [wrapped[0] for wrapped in error.failures.values()]
            if not any(says_disk_is_full(cause) for cause in causes):
                raise RuntimeError(f"a checkpoint could not be written: {causes[0]}") from error
            fault = disk_full(path)
        own = f"shard-{world.rank + 1:05d}-"
        hashes = {file.name: b2_file(file) for file in building.glob(f"{own}*")} if fault is None else {}
        every = talk.gather({"hashes": hashes, "fault": None if fault is None else str(fault)})
        if any(one["fault"] for one in every):
            raise fault or disk_full(path)
        failed: UserError | None = None
        if world.is_main:
            failed = _publish(
                building, path, facts, {name: digest for one in every for name, digest in one["hashes"].items()}
            )
        _agree(talk, failed)
    finally:
        if world.is_main:
            shutil.rmtree(building, ignore_errors=True)


def _publish(building: Path, path: Path, facts: dict[str, Any], hashes: dict[str, str]) -> UserError | None:
    try:
        state = facts | {"files": hashes}
        write_json(building / "state.json", state | {"hash": b2_json(state)})
        if path.exists():
            doomed = path.with_name(f"{TEMPORARY}old-{path.name}")
            shutil.rmtree(doomed, ignore_errors=True)
            os.replace(path, doomed)
            os.replace(building, path)
            shutil.rmtree(doomed, ignore_errors=True)
        else:
            os.replace(building, path)
        sync_directory(path.parent)
    except UserError as error:
        return error
    return None


def _agree(talk: Talk, fault: UserError | None) -> None:
    """Go on when all have come here and the main process has no complaint."""
    told = [one for one in talk.gather(None if fault is None else str(fault)) if one]
    if told:
        raise fault or UserError(told[0])


def load(path: Path, like: tuple[Tensors, Tensors] | None) -> tuple[Tensors, Tensors]:
    """Read weights and optimizer state; their hashes were compared already.

    Args:
        path: the checkpoint's directory.
        like: divided tensors, into which what belongs to this process is read; None, or tensors that are not divided: whole ones are made.
    """
    from torch.distributed.checkpoint.hf_storage import HuggingFaceStorageReader
    from torch.distributed.checkpoint.metadata import TensorStorageMetadata
    from torch.distributed.checkpoint.state_dict_loader import load as dcp_load

    reader = HuggingFaceStorageReader(str(path))
    known = reader.read_metadata().state_dict_metadata
    into: Tensors = {}
    if like is not None and divided(like[0]):
        for prefix, group in zip(_GROUPS, like, strict=True):
            into |= {prefix + name: tensor for name, tensor in group.items() if prefix + name in known}
        lacking = sorted(
            {prefix + name for prefix, group in zip(_GROUPS, like, strict=True) for name in group} - into.keys()
        )
        if lacking:
            raise UserError(f"has no {lacking[0]}", where=str(path), fix="It is of another model or optimizer")
    for name, entry in known.items():
        if name not in into and (like is None or not divided(like[0]) or name == "optimizer.rng"):
            assert isinstance(entry, TensorStorageMetadata)
            into[name] = torch.empty(entry.size, dtype=entry.properties.dtype)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says that each process reads by itself, which is what is meant
        dcp_load(into, storage_reader=reader, no_dist=True)
    weights, optimizer = ({n.removeprefix(p): t for n, t in into.items() if n.startswith(p)} for p in _GROUPS)
    return weights, optimizer
