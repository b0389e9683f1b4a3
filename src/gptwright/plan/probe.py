"""What this machine can do, measured in a few seconds: products, memory, and real training steps of small models.

Nothing is looked up by the machine's name. The training rates come from the trainer's own step, with the dtype and the kernels it would choose.
"""

import contextlib
import ctypes
import math
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

from gptwright.core.progress import progress
from gptwright.plan.measure import Decode, TrainRate, decode_rate, train_rate
from gptwright.train import machine as trainer
from gptwright.train.config import TrainConfig

Bf16 = Literal["amx", "avx512_bf16", "none"]

_DEPTHS = (1, 2, 4, 8)  # 64 to 512 wide: where home users live, and the rate changes most
_SHAPE = (2048, 384, 1024)  # tokens, width, feed-forward: a small model's product
_STREAM_BYTES = 128_000_000  # larger than any cache of a small machine
_ROUNDS = 6
_TOGETHER = 0.9  # of the products of as many threads alone, when they work together
_ODD = 0.6
_LATE = 1.0  # a busy machine may take so much of the time again; one too slow for all widths keeps the first
_DECODE_SHARE = 0.15  # of the time, for answers of the engine


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
    threads: int = 1
    kernels: bool = True
    decode: Decode | None = None

    def to_json(self) -> dict[str, Any]:
        """A JSON object."""
        return asdict(self)

    @classmethod
    def from_json(cls, value: dict[str, Any]) -> "Machine":
        """Back from JSON."""
        return cls(
            **{
                **value,
                "rates": tuple(TrainRate(**rate) for rate in value["rates"]),
                "decode": Decode(**value["decode"]) if value.get("decode") else None,
            }
        )

    def train_flops(self, d_model: int) -> float:
        """FLOP/s of forward and backward at a width: between the measured widths by their logarithm, beyond them as at the nearest."""
        return _between(self.rates, d_model, lambda rate: rate.flops)

    def update_rate(self, d_model: int) -> float:
        """Units of optimizer work a second at a width (see ``work.update_work``)."""
        return _between(self.rates, d_model, lambda rate: rate.update)

    def cpu_flops(self, d_model: int) -> float:
        """FLOP of forward and backward in a second of one core at a width; 0 where no core computes."""
        return _between(self.rates, d_model, lambda rate: rate.cpu_flops) if self.device == "cpu" else 0.0

    def cpu_update(self, d_model: int) -> float:
        """Units of optimizer work in a second of one core at a width; 0 where no core computes."""
        return _between(self.rates, d_model, lambda rate: rate.cpu_update) if self.device == "cpu" else 0.0

    @property
    def slowdown(self) -> float:
        """How much longer a step takes at this moment than when the machine is left alone; 1 or more."""
        return float(np.median([rate.slowdown for rate in self.rates])) if self.rates else 1.0


@trainer.kept_memory()  # as in every run
def probe(seconds: float = 10.0, folder: Path | None = None, *, decode: bool = True) -> Machine:
    """Look at the machine and measure it, with a bar.

    Args:
        seconds: for the measurements, about; compiling kernels the first time comes on top.
        folder: whose disk is asked for free space; default here.
        decode: also measure answers.
    """
    begin = time.perf_counter()
    with progress("measuring", 100, "") as bar:

        def at(share: float, note: str) -> None:
            bar.note(note)
            bar.advance(100 * share - bar.done)

        at(0, "products")
        chosen = trainer.choose(TrainConfig.model_validate({"max_steps": 1}))
        fp32 = _products(torch.float32, chosen.device)
        bf16 = _products(torch.bfloat16, chosen.device) if _try_bf16(chosen) else 0.0
        at(0.05, "memory")
        bandwidth = _bandwidth(chosen.device)
        answers = None
        if decode:
            at(0.1, "answers")
            answers = decode_rate(_DECODE_SHARE * seconds, chosen.device)
        rates: list[TrainRate] = []
        for i, depth in enumerate(_DEPTHS):
            at(0.25 + 0.18 * i, f"training, {64 * depth} wide")
            # Wider models take longer: each gets an equal part of what is left.
            left = seconds - (time.perf_counter() - begin)
            if rates and left < -_LATE * seconds:
                break
            share = max(0.1 * seconds, left / (len(_DEPTHS) - i))
            rate = train_rate(depth, chosen, share, max(fp32, bf16))
            # Wider products are never much slower for their work. If they look so, something came between, and they are measured again.
            if rates and rate.flops < _ODD * rates[-1].flops:
                again = train_rate(depth, chosen, share, max(fp32, bf16))
                rate = max(rate, again, key=lambda one: one.flops)
            rates.append(rate)
        at(1, "")
    total, free = memory(chosen.device)
    name = cpu_name() if chosen.device == "cpu" else chosen.device
    return Machine(
        cpu=cpu_name(),
        cores=cores(),
        memory_bytes=total,
        memory_free_bytes=free,
        disk_free_bytes=shutil.disk_usage(_existing(folder or Path.cwd())).free,
        device=chosen.device,
        device_name=torch.cuda.get_device_name() if chosen.device == "cuda" else name,
        dtype=chosen.dtype,
        bf16=bf16_kind(),
        matmul_fp32=fp32,
        matmul_bf16=bf16,
        bandwidth=bandwidth,
        rates=tuple(rates),
        probe_s=time.perf_counter() - begin,
        threads=chosen.threads,
        kernels=chosen.compiled,
        decode=answers,
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


def _products(dtype: torch.dtype, device: str) -> float:
    """FLOP/s of plain products when the machine is left alone.

    On a busy one both threads of a product are seldom on their cores together. One thread's products by processor time, times the threads,
    do not mind; the better of that and of what was reached counts.
    """
    reached = trainer.matmul_flops([_SHAPE], dtype, device, repeats=3)
    if device != "cpu":
        return reached
    threads = torch.get_num_threads()
    a, b = torch.ones(*_SHAPE[:2], dtype=dtype), torch.ones(*_SHAPE[1:], dtype=dtype)
    out = torch.empty(_SHAPE[0], _SHAPE[2], dtype=dtype)
    torch.set_num_threads(1)
    try:
        taken = []
        for _ in range(_ROUNDS):
            start = time.process_time()
            torch.mm(a, b, out=out)
            taken.append(time.process_time() - start)
    finally:
        torch.set_num_threads(threads)
    return max(reached, _TOGETHER * threads * 2.0 * math.prod(_SHAPE) / max(min(taken), 1e-9))


def _bandwidth(device: str) -> float:
    """Bytes read and written a second by a large copy."""
    source = torch.ones(_STREAM_BYTES // 4, device=device)
    target = torch.empty_like(source)
    best = float("inf")
    for _ in range(_ROUNDS):
        start = time.perf_counter()
        target.copy_(source)
        trainer.synchronize(device)
        best = min(best, time.perf_counter() - start)
    return 2 * _STREAM_BYTES / best


def _between(rates: tuple[TrainRate, ...], d_model: int, value: Callable[[TrainRate], float]) -> float:
    if not all(value(rate) > 0 for rate in rates):
        return 0.0
    widths = [float(np.log(rate.d_model)) for rate in rates]
    return float(np.exp(np.interp(np.log(d_model), widths, [float(np.log(value(rate))) for rate in rates])))
