"""Compiles kernels.cpp once per processor and compiler, and loads it with ctypes. No compiler: None, and PyTorch does the work."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwright.core.hashing import b2

_SOURCE = Path(__file__).with_name("kernels.cpp")
# No -ffast-math: a NaN must stay one for the guard. Reassociation is allowed, or no sum would be vectorised.
_FLAGS = "-O3 -std=c++17 -fPIC -shared -fvisibility=hidden -fno-math-errno -fno-trapping-math -fassociative-math -fno-signed-zeros"
_TIMEOUT_S = 120
_P, _I, _F = ctypes.c_void_p, ctypes.c_int64, ctypes.c_float
_SIGNATURES: dict[str, list[Any]] = {
    "norm_fwd": [_P] * 6 + [_I] * 2 + [_F],
    "norm_bwd": [_P] * 7 + [_I] * 2,
    "heads_fwd": [_P] * 7 + [_I] * 5 + [_F] * 2,
    "heads_bwd": [_P] * 10 + [_I] * 5 + [_F] * 2,
    "swap_heads": [_P] * 2 + [_I] * 5,
    "softmax_fwd": [_P] + [_I] * 4,
    "softmax_bwd": [_P] * 2 + [_I] * 4,
    "swiglu_fwd": [_P] * 2 + [_I] * 2,
    "swiglu_bwd": [_P] * 3 + [_I] * 2,
    "xent": [_P] * 3 + [_I] * 2 + [_F],
    "accumulate": [_P] * 2 + [_I],
}
_SUFFIX = {torch.float32: "f32", torch.bfloat16: "bf16"}


class Native:
    """The loaded library. ``call(name, dtype, *arguments)`` passes tensors by address; they must be contiguous and on the CPU."""

    def __init__(self, library: ctypes.CDLL) -> None:
        self._functions: dict[tuple[str, torch.dtype], Callable[..., None]] = {}
        for name, arguments in _SIGNATURES.items():
            for dtype, suffix in _SUFFIX.items():
                function = library[f"{name}_{suffix}"]
                function.argtypes, function.restype = arguments, None
                self._functions[name, dtype] = function

    def call(self, name: str, dtype: torch.dtype, *arguments: Tensor | float | int | None) -> None:
        """Run a kernel. Tensors are passed by address, None as a null pointer, numbers as they are."""
        values = [a.data_ptr() if isinstance(a, Tensor) else a for a in arguments]
        self._functions[name, dtype](*values)


@lru_cache(maxsize=1)
def native() -> Native | None:
    """The library for this processor, compiled now (about 2 s) or found in the cache; None where that cannot be done."""
    if sys.platform == "win32" or os.environ.get("GPTWRIGHT_NATIVE") == "0":
        return None
    compiler = shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")
    if compiler is None:
        return None
    try:
        return Native(ctypes.CDLL(str(_build(compiler))))
    except (OSError, subprocess.SubprocessError, AttributeError):
        return None


def _build(compiler: str) -> Path:
    version = subprocess.run(
        [compiler, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    ).stdout
    key = b2("\0".join([_SOURCE.read_text(encoding="utf-8"), _FLAGS, version, _processor()]))[3:35]
    folder = _cache()
    library = folder / f"kernels-{key}.so"
    if library.exists():
        return library
    folder.mkdir(parents=True, exist_ok=True)
    temporary = folder / f".tmp-{uuid.uuid4().hex[:8]}.so"
    attempts: tuple[list[str], ...] = (
        ["-march=native", "-mprefer-vector-width=512", "-fopenmp"],
        ["-march=native", "-fopenmp"],
        ["-fopenmp"],
        [],
    )
    try:
        for extra in attempts:
            command = [compiler, *_FLAGS.split(), *extra, str(_SOURCE), "-o", str(temporary)]
            done = subprocess.run(command, capture_output=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode == 0:
                os.replace(temporary, library)
                return library
        raise OSError("the compiler refuses kernels.cpp")
    finally:
        temporary.unlink(missing_ok=True)


def _cache() -> Path:
    given = os.environ.get("GPTWRIGHT_CACHE")
    if given:
        return Path(given)
    base = os.environ.get("XDG_CACHE_HOME")
    folder = Path(base) / "gptwright" if base else Path.home() / ".cache" / "gptwright"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        return folder
    except OSError:
        user = os.getuid() if hasattr(os, "getuid") else 0
        return Path(tempfile.gettempdir()) / f"gptwright-{user}"


def _processor() -> str:
    """Enough of the processor's identity that -march=native means the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    except OSError:
        found = [platform.processor()]
    return "\n".join([platform.machine(), *found])
