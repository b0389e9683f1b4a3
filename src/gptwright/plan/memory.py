"""Memory of a training run on this machine, part by part, from what the trainer really holds; and the peak that a process had.

The parts are counted, not fitted: weights, gradients, moments, activations, one chunk of logits, and the copy that an asynchronous
checkpoint is written from. Only what Python and PyTorch take before the first weight is a measured constant.
"""

import contextlib
import sys
from dataclasses import dataclass
from pathlib import Path

from gptwright.model import cost
from gptwright.model.config import ModelConfig
from gptwright.model.kernels import CHUNK_ROWS
from gptwright.plan.constants import CONSTANTS, Constants
from gptwright.train.stepper import MICRO_TOKENS_CPU, MICRO_TOKENS_GPU


@dataclass(frozen=True)
class Setting:
    """What of a run decides its memory.

    Args:
        device: cpu, cuda or mps.
        dtype: of the working weights.
        cores: threads of the trainer; on a CPU each has gradients and activations of its own.
        kernels: the CPU kernels are used, whose attention keeps probabilities.
        checkpoint_async: a checkpoint is written from a copy while training goes on.
        micro_tokens: of one pass; None: the trainer's own. Tokens.
    """

    device: str = "cpu"
    dtype: str = "bfloat16"
    cores: int = 1
    kernels: bool = True
    checkpoint_async: bool = True
    micro_tokens: int | None = None


def parts(config: ModelConfig, batch_tokens: int, setting: Setting, constants: Constants = CONSTANTS) -> dict[str, int]:
    """Bytes by part at the peak of a run.

    Args:
        config: the shape.
        batch_tokens: of a step.
        setting: see ``Setting``.
        constants: ``runtime_bytes`` is used.
    """
    cpu = setting.device == "cpu"
    size = 2 if setting.dtype == "bfloat16" else 4
    n, matrices, vocabulary = cost.params(config), cost.matrix_params(config), config.vocab_size * config.d_model
    rows = max(1, batch_tokens // config.seq_len)
    workers = max(1, min(setting.cores, rows)) if cpu else 1
    # As the stepper cuts a batch: parts of whole rows, at least one for each worker.
    most = setting.micro_tokens or (MICRO_TOKENS_CPU if cpu else MICRO_TOKENS_GPU)
    pass_tokens = config.seq_len * max(1, min(most // config.seq_len, -(-rows // workers)))
    state = 4 * (matrices + 2 * (n - matrices))
    chunk = min(pass_tokens, CHUNK_ROWS) * config.vocab_size * (size if cpu and setting.kernels else 2 * size + 8)
    # The head's gradient is summed in fp32 beside the piece of a chunk, then rounded to the working dtype.
    logits = chunk + vocabulary * (4 + size)
    held = cost.activation_bytes(config, pass_tokens, size)
    # A pass's own gradients appear while its activations go: of the two only the larger counts.
    own = max(0, size * n - held - logits)
    found = {
        "weights": (4 + (2 if size == 2 else 0)) * n,
        "gradients": workers * (4 * n + own),
        "optimizer": state,
        "activations": workers * held,
        "logits": workers * logits,
        # All tensors copied, and one of the two files as it is put together.
        "checkpoint copy": (4 * n + state + max(4 * n, state))
        if setting.checkpoint_async and cpu
        else max(4 * n, state),
        "runtime": constants.runtime_bytes,
    }
    return {name: int(value) for name, value in found.items()}


def peak_bytes() -> int | None:
    """The most memory that this process has held since it began, or None where the system does not tell. Bytes."""
    if sys.platform.startswith("linux"):
        # Not ru_maxrss: a child's begins with the size of the process that started it.
        return _status("VmHWM")
    if sys.platform == "win32":
        return None
    import resource

    size = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return size if sys.platform == "darwin" else size * 1024


def held_bytes() -> int | None:
    """What this process holds now, or None where the system does not tell. Bytes."""
    return _status("VmRSS") if sys.platform.startswith("linux") else None


def _status(name: str) -> int | None:
    lines = Path("/proc/self/status").read_text(encoding="ascii", errors="replace").splitlines()
    return next((int(line.split()[1]) * 1024 for line in lines if line.startswith(name)), None)


def reset_peak() -> None:
    """Let the peak begin anew from what is held now, where the system can (Linux)."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
