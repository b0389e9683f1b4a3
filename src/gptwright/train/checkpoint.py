"""Checkpoints: a directory of safetensors and one JSON file, written whole or not at all, read only when every hash fits.

    step-00000120/  weights.safetensors (masters)  optimizer.safetensors  state.json (step, position, RNG, hashes)

Weights divided over processes are written as each process's part instead (``shards.py``), under the same rules:

    step-00000120/  shard-00001-model-....safetensors ...  state.json

The newest ones are kept, two unless told otherwise. A checkpoint whose bytes changed is refused by name, set aside, and the one before it is used.
Either form is read by any number of processes.
"""

import contextlib
import os
import shutil
import uuid
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY, atomic_dir, read_json, write_json
from gptwright.core.hashing import b2, b2_file, b2_json
from gptwright.core.progress import say
from gptwright.train import shards
from gptwright.train.distributed import ONE, World

KEEP = 2
_FILES = ("weights.safetensors", "optimizer.safetensors")
_FACTS = ("step", "updates", "seconds", "tokens", "loss", "extra")
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Checkpoint:
    """All that the rest of a run depends on.

    Args:
        step: optimizer steps done, which is also the plan's next step: the data position.
        updates: steps the optimizer's moments have seen, more than ``step`` in a run that continued another.
        seconds: wall time spent so far.
        tokens: tokens seen so far.
        loss: of the last step, nats per target.
    """

    step: int
    updates: int
    seconds: float
    tokens: int
    loss: float
    weights: dict[str, Tensor]
    optimizer: dict[str, Tensor]
    extra: dict[str, Any]


def save_checkpoint(
    folder: Path, checkpoint: Checkpoint, name: str | None = None, keep: int = KEEP, world: World = ONE
) -> Path:
    """Write a checkpoint atomically and drop all but the newest. Of several processes all call it when tensors are divided, else the
    main one alone.

    Args:
        folder: the run's checkpoints.
        checkpoint: what to write; torch's CPU generator state is added to it, unless it is there ("rng" of the optimizer's).
        name: a directory name of its own, never dropped; default ``step-<8 digits>``.
        keep: numbered ones that stay.
        world: the processes.

    Raises:
        UserError: the disk is full. The former checkpoints are untouched.
    """
    path = folder / (name or f"step-{checkpoint.step:08d}")
    rng = checkpoint.optimizer.get("rng", torch.get_rng_state())
    tensors = (checkpoint.weights, checkpoint.optimizer | {"rng": rng})
    facts: dict[str, Any] = {key: getattr(checkpoint, key) for key in _FACTS}
    if shards.divided(checkpoint.weights):
        shards.save(path, *tensors, facts, world)
    else:
        _save_whole(path, tensors, facts)
    if not world.is_main:
        return path
    if name is None:
        for old in _numbered(folder)[:-keep]:
            _remove(old)
    return path


def _save_whole(path: Path, tensors: tuple[Tensors, Tensors], facts: dict[str, Any]) -> None:
    with atomic_dir(path) as building:
        hashes = {}
        for file, group in zip(_FILES, tensors, strict=True):
            data = save({key: tensor.detach().cpu().contiguous() for key, tensor in group.items()})
            hashes[file] = b2(data)
            (building / file).write_bytes(data)
        state = facts | {"files": hashes}
        write_json(building / "state.json", state | {"hash": b2_json(state)})


def load_checkpoint(path: Path, world: World = ONE, like: tuple[Tensors, Tensors] | None = None) -> Checkpoint:
    """Read one checkpoint, written by any number of processes.

    Args:
        path: its directory.
        world: the processes, all of which read it.
        like: weights and optimizer state of the present run; where these are divided and the checkpoint is too, what belongs to this
            process is read into them, and nothing else. None: whole tensors.

    Raises:
        UserError: a file is missing or its bytes are not those that were written; the message names the file.
    """
    found: tuple[dict[str, Any], Tensors, Tensors] | None = None
    fault: UserError | None = None
    try:
        state = _state(path)
        names = sorted(state["files"])
        if tuple(names) == tuple(sorted(_FILES)):
            found = (state, *_read_whole(path, state["files"]))
        else:
            mine = names[world.rank :: world.size]  # together they check all
            for name in mine:
                _check(path / name, state["files"][name])
    except UserError as error:
        fault = error
    except (OSError, KeyError, AttributeError, TypeError, UnicodeDecodeError, SafetensorError) as error:
        fault = UserError(f"not a whole checkpoint ({type(error).__name__}: {error})", where=str(path))
        fault.__cause__ = error
    if any(world.most(fault is not None)):
        raise fault or UserError("another process found it damaged", where=str(path))
    state, weights, optimizer = found or (state, *shards.load(path, like))
    torch.set_rng_state(optimizer.pop("rng"))
    return Checkpoint(weights=weights, optimizer=optimizer, **{key: state[key] for key in _FACTS})


def _state(path: Path) -> dict[str, Any]:
    state: dict[str, Any] = read_json(path / "state.json")
    claimed = state.pop("hash")
    if b2_json(state) != claimed:
        raise UserError("its bytes changed after it was written", where=str(path / "state.json"))
    return state


def _read_whole(path: Path, hashes: dict[str, str]) -> tuple[Tensors, Tensors]:
    groups = []
    for file in _FILES:
        data = (path / file).read_bytes()
        if b2(data) != hashes[file]:
            raise UserError("its bytes changed after it was written", where=str(path / file))
        groups.append(load(data))
    return groups[0], groups[1]


def _check(file: Path, claimed: str) -> None:
    if b2_file(file) != claimed:
        raise UserError("its bytes changed after it was written", where=str(file))


def latest_checkpoint(
    folder: Path, world: World = ONE, like: tuple[Tensors, Tensors] | None = None
) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None when there is none at all. Damaged ones are named and set aside.

    Args:
        folder: the run's checkpoints.
        world: the processes, which all end with the same one.
        like: see ``load_checkpoint``.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    names = world.share(lambda: [path.name for path in _numbered(folder)])
    for name in reversed(names):
        path = folder / name
        try:
            return load_checkpoint(path, world, like)
        except UserError as error:
            say(f"refused checkpoint {name}: {error}")
            world.share(partial(_set_aside, path))
    refused = world.share(lambda: folder.is_dir() and any(folder.glob("refused-*")))
    if names or refused:
        raise UserError(
            "no checkpoint is whole", where=str(folder), fix="Delete the run's folder to train from the start"
        )
    return None


def _set_aside(path: Path) -> None:
    aside = path.with_name(f"refused-{path.name}")
    shutil.rmtree(aside, ignore_errors=True)
    os.replace(path, aside)


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    """Rename first, so that a kill while deleting leaves no half checkpoint under a real name."""
    doomed = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-old-{path.name}")
    with contextlib.suppress(OSError):
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
