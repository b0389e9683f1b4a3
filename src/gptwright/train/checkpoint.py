"""Checkpoints: a directory of safetensors and one JSON file, written whole or not at all, read only when every hash fits.

    step-00000120/  weights.safetensors (masters)  optimizer.safetensors  state.json (step, position, RNG, hashes)

The newest ones are kept, two unless told otherwise. A checkpoint whose bytes changed is refused by name, set aside, and the one before it is used.
"""

import contextlib
import os
import shutil
import uuid
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load, save
from torch import Tensor

from gptwright.core.errors import UserError
from gptwright.core.files import TEMPORARY, atomic_dir, read_json, write_json
from gptwright.core.hashing import b2, b2_json
from gptwright.core.progress import say

KEEP = 2
_FILES = ("weights.safetensors", "optimizer.safetensors")


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


def save_checkpoint(folder: Path, checkpoint: Checkpoint, name: str | None = None, keep: int = KEEP) -> Path:
    """Write a checkpoint atomically and drop all but the newest.

    Args:
        folder: the run's checkpoints.
        checkpoint: what to write; torch's CPU generator state is added to it, unless it is there ("rng" of the optimizer's).
        name: a directory name of its own, never dropped; default ``step-<8 digits>``.
        keep: numbered ones that stay.

    Raises:
        UserError: the disk is full. The former checkpoints are untouched.
    """
    path = folder / (name or f"step-{checkpoint.step:08d}")
    rng = checkpoint.optimizer.get("rng", torch.get_rng_state())
    tensors = (checkpoint.weights, checkpoint.optimizer | {"rng": rng})
    with atomic_dir(path) as building:
        hashes = {}
        for file, group in zip(_FILES, tensors, strict=True):
            data = save({key: tensor.detach().cpu().contiguous() for key, tensor in group.items()})
            hashes[file] = b2(data)
            (building / file).write_bytes(data)
        state: dict[str, Any] = {
            key: getattr(checkpoint, key) for key in ("step", "updates", "seconds", "tokens", "loss", "extra")
        }
        state["files"] = hashes
        write_json(building / "state.json", state | {"hash": b2_json(state)})
    if name is None:
        for old in _numbered(folder)[:-keep]:
            _remove(old)
    return path


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint.

    Raises:
        UserError: a file is missing or its bytes are not those that were written; the message names the file.
    """
    try:
        state = read_json(path / "state.json")
        claimed = state.pop("hash")
        if b2_json(state) != claimed:
            raise UserError("its bytes changed after it was written", where=str(path / "state.json"))
        groups = []
        for file in _FILES:
            data = (path / file).read_bytes()
            if b2(data) != state["files"][file]:
                raise UserError("its bytes changed after it was written", where=str(path / file))
            groups.append(load(data))
    except (OSError, KeyError, AttributeError, TypeError, UnicodeDecodeError, SafetensorError) as error:
        raise UserError(f"not a whole checkpoint ({type(error).__name__}: {error})", where=str(path)) from error
    weights, optimizer = groups
    torch.set_rng_state(optimizer.pop("rng"))
    values = {key: state[key] for key in ("step", "updates", "seconds", "tokens", "loss", "extra")}
    return Checkpoint(weights=weights, optimizer=optimizer, **values)


def latest_checkpoint(folder: Path) -> Checkpoint | None:
    """The newest checkpoint that is whole, or None when there is none at all. Damaged ones are named and set aside.

    Raises:
        UserError: there are checkpoints, and none is whole.
    """
    paths = _numbered(folder)
    for path in reversed(paths):
        try:
            return load_checkpoint(path)
        except UserError as error:
            say(f"refused checkpoint {path.name}: {error}")
            aside = path.with_name(f"refused-{path.name}")
            shutil.rmtree(aside, ignore_errors=True)
            os.replace(path, aside)
    if paths or (folder.is_dir() and any(folder.glob("refused-*"))):
        raise UserError(
            "no checkpoint is whole", where=str(folder), fix="Delete the run's folder to train from the start"
        )
    return None


def _numbered(folder: Path) -> list[Path]:
    return sorted(path for path in folder.glob("step-*") if path.is_dir()) if folder.is_dir() else []


def _remove(path: Path) -> None:
    """Rename first, so that a kill while deleting leaves no half checkpoint under a real name."""
    doomed = path.with_name(f"{TEMPORARY}{uuid.uuid4().hex[:8]}-old-{path.name}")
    with contextlib.suppress(OSError):
        os.replace(path, doomed)
        shutil.rmtree(doomed, ignore_errors=True)
