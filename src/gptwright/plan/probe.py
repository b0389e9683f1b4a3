"""What this machine can do, measured in a few seconds: products, memory, and real training steps of small models.

Nothing is looked up by the machine's name. The training rates come from the trainer's own step, with the dtype and the kernels it would choose.
"""

import contextlib
import ctypes
import os
import platform
import shutil
import sys
import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch

from gptwright.model.cost import flops_per_token
from gptwright.model.presets import modern
from gptwright.model.transformer import Transformer
from gptwright.plan.work import update_work
from gptwright.train import machine as trainer
from gptwright.train.config import TrainConfig
from gptwright.train.stepper import Stepper

Bf16 = Literal["amx", "avx512_bf16", "none"]

_DEPTHS = (2, 4, 8)  # 128, 256 and 512 wide: where home users live, and the rate changes most
_SEQ_LEN = 512
_VOCAB = 4096
_SHAPE = (2048, 384, 1024)  # tokens, width, feed-forward: a small model's product
_STREAM_BYTES = 128_000_000  # larger than any cache of a small machine
_LEAST_STEPS = 3  # the first warms up


@dataclass(frozen=True)
class TrainRate:
    """A training step measured at one width. ``flops``: of forward and backward, FLOP/s; ``update``: units of optimizer work a second."""

    d_model: int
    flops: float
    update: float


@dataclass(frozen=True)
class Machine:
    """What was found and measured. Rates in FLOP/s and bytes/s, sizes in bytes."""

    cpu: str
    cores: int
    memory_bytes: int
    memory_free_bytes: int
    disk_free_bytes: int
    device: str
    device_name: str
    dtype: str
    bf16: Bf16
    matmul_fp32: float
    matmul_bf16: float
    bandwidth: float
    rates: tuple[TrainRate, ...]
    probe_s: float

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Machine":
        """Back from JSON."""
        return cls(**{**value, "rates": tuple(TrainRate(**rate) for rate in value["rates"])})

    def train_flops(self, d_model: int) -> float:
        """FLOP/s of forward and backward at a width: between the measured widths by their logarithm, beyond them as at the nearest."""
        return _between(self.rates, d_model, lambda rate: rate.flops)

    def update_rate(self, d_model: int) -> float:
        """Units of optimizer work a second at a width (see ``work.update_work``)."""
        return _between(self.rates, d_model, lambda rate: rate.update)


def probe(seconds: float = 5.0, folder: Path | None = None) -> Machine:
    """Look at the machine and measure it.

    Args:
        seconds: for the measurements, about; compiling kernels the first time comes on top.
        folder: whose disk is asked for free space; default here.
    """
    begin = time.perf_counter()
    chosen = trainer.choose(TrainConfig.model_validate({"max_steps": 1}))
    fp32 = trainer.matmul_flops([_SHAPE], torch.float32, chosen.device, repeats=3)
    bf16 = trainer.matmul_flops([_SHAPE], torch.bfloat16, chosen.device, repeats=3) if _try_bf16(chosen) else 0.0
    bandwidth = _bandwidth(chosen.device)
    rates: list[TrainRate] = []
    for i, depth in enumerate(_DEPTHS):
        # Wider models take longer: each gets an equal part of what is left. A machine too slow for all of them keeps the first.
        left = seconds - (time.perf_counter() - begin)
        if rates and left < 0.1 * seconds:
            break
        rates.append(_train_rate(depth, chosen, left / (len(_DEPTHS) - i), max(fp32, bf16)))
    total, free = memory(chosen.device)
    return Machine(
        cpu=cpu_name(),
        cores=cores(),
        memory_bytes=total,
        memory_free_bytes=free,
        disk_free_bytes=shutil.disk_usage(_existing(folder or Path.cwd())).free,
        device=chosen.device,
        device_name=torch.cuda.get_device_name()
        if chosen.device == "cuda"
        else cpu_name()
        if chosen.device == "cpu"
        else chosen.device,
        dtype=chosen.dtype,
        bf16=bf16_kind(),
        matmul_fp32=fp32,
        matmul_bf16=bf16,
        bandwidth=bandwidth,
        rates=tuple(rates),
        probe_s=time.perf_counter() - begin,
    )


def bf16_kind() -> Bf16:
    """Which bf16 products the CPU has in hardware."""
    for name, kind in (("_is_amx_tile_supported", "amx"), ("_is_avx512_bf16_supported", "avx512_bf16")):
        has: Callable[[], bool] | None = getattr(torch.cpu, name, None)
        if has is not None and has():
            return "amx" if kind == "amx" else "avx512_bf16"
    return "none"


def cores() -> int:
    """Cores that this process may use: affinity and container quota counted."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    with contextlib.suppress(OSError, ValueError):
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        usable = min(usable, max(1, int(quota) // int(period)))  # "max" is no number: suppressed
    return usable


def memory(device: str = "cpu") -> tuple[int, int]:
    """Bytes of memory: all, and free for a new process. Of the graphics card when training runs there."""
    if device == "cuda":
        free, total = torch.cuda.mem_get_info()
        return int(total), int(free)
    total, free = _system_memory()
    with contextlib.suppress(OSError, ValueError):
        limit = int(Path("/sys/fs/cgroup/memory.max").read_text())
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
        total, free = min(total, limit), min(free, limit - used)
    return total, max(0, free)


def cpu_name() -> str:
    """The processor's name for people."""
    with contextlib.suppress(OSError):
        for line in Path("/proc/cpuinfo").read_text(errors="replace").splitlines():
            if line.lower().startswith(("model name", "hardware")):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _system_memory() -> tuple[int, int]:
    if sys.platform == "win32":
        return _windows_memory()
    total = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    with contextlib.suppress(OSError, StopIteration, ValueError):
        lines = Path("/proc/meminfo").read_text().splitlines()
        return total, next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable"))
    return total, total * 3 // 4  # no such file (macOS): what a desktop usually leaves


def _windows_memory() -> tuple[int, int]:
    class Status(ctypes.Structure):
        _fields_ = (
            ("length", ctypes.c_ulong),
            ("load", ctypes.c_ulong),
            *(
                (name, ctypes.c_ulonglong)
                for name in ("total", "free", "page_total", "page_free", "virtual", "virtual_free", "extended")
            ),
        )

    status = Status()
    status.length = ctypes.sizeof(Status)
    windll: Any = getattr(ctypes, "windll")  # noqa: B009 -- other platforms' type checkers do not know it
    windll.kernel32.GlobalMemoryStatusEx(ctypes.byref(status))
    return int(status.total), int(status.free)


def _existing(folder: Path) -> Path:
    folder = folder.absolute()
    return folder if folder.exists() else _existing(folder.parent)


def _try_bf16(chosen: trainer.Machine) -> bool:
    """Without units for it a CPU takes seconds for one bf16 product; that is not worth measuring."""
    return chosen.dtype == "bfloat16" or bf16_kind() != "none"


def _bandwidth(device: str) -> float:
    """Bytes read and written a second by a large copy."""
    source = torch.ones(_STREAM_BYTES // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(3):
        start = time.perf_counter()
        target.copy_(source)
        trainer.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _STREAM_BYTES / best


@dataclass(frozen=True)
class _Batch:
    tokens: np.ndarray[Any, Any]
    targets: np.ndarray[Any, Any]
    docs: list[str]


def _train_rate(depth: int, chosen: trainer.Machine, seconds: float, matmul: float) -> TrainRate:
    """Real steps: gradients of one micro-batch and an update, timed apart, since a large batch pays for its update once."""
    config = modern(depth=depth, vocab_size=_VOCAB, seq_len=_SEQ_LEN)
    model = Transformer(config)
    model.init_weights(0)
    stepper = Stepper(model, TrainConfig.model_validate({"max_steps": 1}), chosen)
    each = flops_per_token(config, _SEQ_LEN)
    # The trainer's own micro-batch, or a single row where even that would take too long.
    fitting = int(0.3 * seconds * 0.3 * matmul / (each * _SEQ_LEN))
    rows = max(1, min(stepper.micro_tokens // _SEQ_LEN, fitting))
    ids = np.random.default_rng(0).integers(0, _VOCAB, (rows, _SEQ_LEN + 1))
    batch = _Batch(ids[:, :-1], ids[:, 1:], [])
    gradient_s: list[float] = []
    update_s: list[float] = []
    deadline = time.perf_counter() + seconds
    while len(gradient_s) < _LEAST_STEPS or time.perf_counter() < deadline:
        start = time.perf_counter()
        norm = stepper.gradients(batch).grad_norm
        trainer.synchronize(chosen.device)
        middle = time.perf_counter()
        stepper.apply(len(gradient_s), 0.0, norm)
        trainer.synchronize(chosen.device)
        gradient_s.append(middle - start)
        update_s.append(time.perf_counter() - middle)
    # The best of the steps: what else runs on the machine at this moment can only add time, and will be gone or not in a minute.
    return TrainRate(
        config.d_model, each * rows * _SEQ_LEN / min(gradient_s[1:]), update_work(config) / min(update_s[1:])
    )


def _between(rates: tuple[TrainRate, ...], d_model: int, value: Callable[[TrainRate], float]) -> float:
    widths = [float(np.log(rate.d_model)) for rate in rates]
    return float(np.exp(np.interp(np.log(d_model), widths, [float(np.log(value(rate))) for rate in rates])))
