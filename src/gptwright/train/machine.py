"""What this machine does best, found by asking and by short measurements: device, dtype, compiler, allocator, matmul peak."""

import ctypes
import gc
import platform
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from gptwright.core.errors import UserError
from gptwright.model import native
from gptwright.model.config import ModelConfig
from gptwright.train import accelerate
from gptwright.train.config import TrainConfig

# On a busy machine a product's threads may all be off their cores each time it is measured. Once in five such a run would take fp32 by
# mistake, at a fifth of the speed, so only fp32 that wins again and again is believed.
_TRIES = 6
DTYPES = {"bfloat16": torch.bfloat16, "float32": torch.float32, "float64": torch.float64}


@dataclass(frozen=True)
class Machine:
    """Choices made once for a run and written to its config."""

    device: str
    dtype: str
    compiled: bool
    threads: int
    isa: str
    torch_version: str
    kernels: str = ""  # the library's key, or "eager"; empty in records from before it was kept
    processes: int = 1
    parallel: str = "none"  # or ddp, fsdp

    @property
    def torch_dtype(self) -> torch.dtype:
        return DTYPES[self.dtype]


def choose(config: TrainConfig) -> Machine:
    """Resolve every "auto" of a config on this machine.

    Raises:
        UserError: the device asked for is not there, or kernels were asked for and cannot be built.
    """
    if config.threads is not None:
        torch.set_num_threads(config.threads)
    device = config.device
    if device == "auto":
        device = "cuda" if torch.cuda.is_available() else "cpu"  # mps only by name: never run
    if (device == "cuda" and not torch.cuda.is_available()) or (
        device == "mps" and not torch.backends.mps.is_available()
    ):
        raise UserError(f"no {device} device here", where="device", fix='Set device = "auto"')
    dtype = _fastest_dtype(device) if config.dtype == "auto" else config.dtype
    if config.fp8:
        accelerate.check_fp8(device)
        dtype = "bfloat16" if config.dtype == "auto" else dtype
    kernels = "eager"
    if config.compile != "off":
        kernels, missing = _find_kernels(device, dtype)
        if kernels == "eager" and config.compile == "on":
            raise UserError(
                f"cannot use the compiled kernels: {missing}",
                where="compile",
                fix=f'{"Run: apt install g++" if device == "cpu" else "Install it"}, or set compile = "auto"',
            )
    return Machine(
        device, dtype, kernels != "eager", torch.get_num_threads(), instruction_set(), torch.__version__, kernels
    )


def instruction_set() -> str:
    """The class of machine for which bits are promised: architecture and vector instructions."""
    flags = []
    for name in ("_is_avx2_supported", "_is_avx512_supported", "_is_avx512_bf16_supported", "_is_amx_tile_supported"):
        probe: Callable[[], bool] | None = getattr(torch.cpu, name, None)
        if probe is not None and probe():
            flags.append(name.removeprefix("_is_").removesuffix("_supported"))
    return " ".join([platform.machine(), torch.backends.cpu.get_cpu_capability(), *flags])


def _find_kernels(device: str, dtype: str) -> tuple[str, str]:
    """What computes the blocks: our library on the CPU (its key), torch.compile on CUDA ("inductor"), or "eager" and why."""
    if device == "cuda":
        missing = accelerate.compiler_missing()
        return ("inductor", "") if missing is None else ("eager", missing)
    if device != "cpu":
        return "eager", f"they are for the CPU, not for {device}"
    if dtype == "float64":
        return "eager", "they do not do float64"
    library, missing = native.load()
    return ("eager", missing) if library is None else (library.key, "")


def _fastest_dtype(device: str) -> str:
    if device == "cuda":
        return "bfloat16" if torch.cuda.is_bf16_supported(including_emulation=False) else "float32"
    if device == "mps" or not has_bf16_units():
        return "float32"
    shape = (2048, 384, 1024)
    for _ in range(_TRIES):
        if matmul_flops([shape], torch.bfloat16) > 1.3 * matmul_flops([shape], torch.float32):
            return "bfloat16"
        time.sleep(0.02)  # the scheduler owes something to who has waited
    return "float32"


def has_bf16_units() -> bool:
    """Whether this CPU multiplies bf16 in hardware (AMX or AVX512-BF16)."""
    probes = (getattr(torch.cpu, name, None) for name in ("_is_amx_tile_supported", "_is_avx512_bf16_supported"))
    return any(probe() for probe in probes if probe is not None)


def matmul_flops(
    shapes: list[tuple[int, int, int]], dtype: torch.dtype, device: str = "cpu", repeats: int = 8
) -> float:
    """Best rate of plain products (M, K) @ (K, N) over a list of shapes, outputs preallocated. FLOP/s, weighted by work."""
    seconds = work = 0.0
    for m, k, n in shapes:
        a = torch.ones(m, k, dtype=dtype, device=device)
        b = torch.ones(k, n, dtype=dtype, device=device)
        out = torch.empty(m, n, dtype=dtype, device=device)
        best = float("inf")
        for _ in range(repeats + 1):
            start = time.perf_counter()
            torch.mm(a, b, out=out)
            synchronize(device)
            best = min(best, time.perf_counter() - start)
        seconds += best
        work += 2.0 * m * k * n
    return work / seconds


def matmul_peak(config: ModelConfig, tokens: int, dtype: torch.dtype, device: str = "cpu") -> float:
    """The matmul rate at the model's own shapes: every product of a block and the head, forward and both backwards. FLOP/s."""
    shapes = [shape for rows, columns in matrices(config) for shape in _three(tokens, rows, columns)]
    head_rows = min(tokens, 1024)
    shapes += _three(head_rows, config.vocab_size, config.d_model)
    return matmul_flops(shapes, dtype, device)


def _three(tokens: int, rows: int, columns: int) -> list[tuple[int, int, int]]:
    return [(tokens, columns, rows), (tokens, rows, columns), (rows, tokens, columns)]


def matrices(config: ModelConfig) -> list[tuple[int, int]]:
    """(outputs, inputs) of the four matrices of a block."""
    q, kv = config.n_heads * config.d_head, config.n_kv_heads * config.d_head
    wide = config.d_ff * (1 if config.family == "gpt2" else 2)
    return [(q + 2 * kv, config.d_model), (config.d_model, q), (wide, config.d_model), (config.d_model, config.d_ff)]


def synchronize(device: str) -> None:
    """Wait for a device's queue, so that a clock means something."""
    if device == "cuda":
        torch.cuda.synchronize()
    elif device == "mps":
        torch.mps.synchronize()


@contextmanager
def kept_memory() -> Iterator[None]:
    """While it lasts glibc keeps freed memory instead of giving it back, so that each step does not fault its pages in again, and all
    threads have one arena: their own ones are unmapped whenever they are empty (25,000 faults a step, then 10). Afterwards what was kept
    goes back to the system, or whatever the process does next would hold a run's peak beside its own. Python does not look for garbage among
    what was there before, the modules of large libraries (1 % of a step at 256 wide). Also a decorator."""
    gc.freeze()
    _mallopt(_ARENA_MAX, 1)
    _mallopt(_MMAP_THRESHOLD, 1 << 30)
    _mallopt(_TRIM_THRESHOLD, 2**31 - 1)
    try:
        yield
    finally:
        # What glibc comes to by itself when large blocks come and go. The arena stays one: its number is fixed at first use.
        _mallopt(_MMAP_THRESHOLD, 1 << 25)
        _mallopt(_TRIM_THRESHOLD, 1 << 26)
        give_back_memory()
        gc.unfreeze()


def give_back_memory() -> None:
    """Return to the system what this process has freed and still holds (Linux with glibc; elsewhere only Python's own garbage)."""
    gc.collect()  # optimizer, workers and autograd refer to each other
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


# malloc.h: M_TRIM_THRESHOLD, M_MMAP_THRESHOLD, M_ARENA_MAX
_TRIM_THRESHOLD, _MMAP_THRESHOLD, _ARENA_MAX = -1, -3, -8


def _mallopt(option: int, value: int) -> None:
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(option, value)


def _glibc(name: str) -> Any:
    if not sys.platform.startswith("linux"):
        return None
    try:
        return getattr(ctypes.CDLL("libc.so.6"), name)
    except (OSError, AttributeError):
        return None
