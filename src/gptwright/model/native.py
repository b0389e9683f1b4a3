"""Compiles kernels.cpp once per processor and compiler, and loads it with ctypes. No compiler: None, and PyTorch does the work."""

import ctypes
import os
import platform
import shutil
import subprocess
import sys
import tempfile
import uuid
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from gptwright.core.files import cache_dir
from gptwright.core.hashing import b2
from gptwright.core.progress import say

_SOURCE = Path(__file__).with_name("kernels.cpp")
# No -ffast-math: a NaN must stay one for the guard. Reassociation is allowed, or no sum would be vectorised.
_FLAGS = "-O3 -std=c++17 -fPIC -shared -fvisibility=hidden -fno-math-errno -fno-trapping-math -fassociative-math -fno-signed-zeros"
# The first that the compiler takes. OpenMP is not needed: the workers, one a core, make their own calls.
_ATTEMPTS = (
    "-march=native -mprefer-vector-width=512 -fopenmp",
    "-march=native -fopenmp",
    "-march=native",
    "-fopenmp",
    "",
)
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
    """The loaded library. ``call(name, dtype, *arguments)`` passes tensors by address; they must be contiguous and on the CPU.

    Args:
        library: of kernels.cpp.
        key: names what it was built from, by and for.
    """

    def __init__(self, library: ctypes.CDLL, key: str) -> None:
        self.key = key
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


def native() -> Native | None:
    """The library for this processor, compiled now (about 2 s) or found in the cache; None where that cannot be done."""
    return load()[0]


def compiler() -> str | None:
    """The C++ compiler that is used, or None."""
    return shutil.which("g++") or shutil.which("clang++") or shutil.which("c++")


@lru_cache(maxsize=1)
def load() -> tuple[Native | None, str]:
    """The library, or None and why not; the first call says it on stderr too."""
    try:
        return _load(), ""
    except (OSError, subprocess.SubprocessError, AttributeError) as error:
        say(f"training's kernels are off, it runs at about half speed: {error}")
        return None, str(error)


def _load() -> Native:
    library, key = compiled([_SOURCE], _FLAGS, _ATTEMPTS)
    return Native(library, key)


def compiled(sources: Sequence[Path], flags: str, attempts: Sequence[str]) -> tuple[ctypes.CDLL, str]:
    """A library compiled for this very processor, or the one that was kept from the last time.

    Args:
        sources: the first is compiled, the others are included by it.
        flags: of every attempt.
        attempts: further flags; the first set that the compiler takes is used.

    Returns:
        The library, and a key of all that its code depends on.

    Raises:
        OSError, SubprocessError: it cannot be built here.
    """
    if sys.platform == "win32":
        raise OSError("they are not built on Windows")
    if os.environ.get("GPTWRIGHT_NATIVE") == "0":
        raise OSError("GPTWRIGHT_NATIVE=0 is set")
    command = compiler()
    if command is None:
        raise OSError("no C++ compiler (g++)")
    key = _key(command, sources, flags)
    with ExitStack() as stack:
        # Without a folder that nobody else can write to, one for this process: a loaded library does not need its file.
        folder = cache_dir() or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="gptwright-")))
        library = folder / f"{sources[0].stem}-{key}.so"
        if _private(library):
            try:
                return ctypes.CDLL(str(library)), key
            except OSError:
                library.unlink(missing_ok=True)  # damaged: built once more
        _build(command, sources[0], flags, attempts, library)
        return ctypes.CDLL(str(library)), key


def _key(command: str, sources: Sequence[Path], flags: str) -> str:
    """Names a library by all that its code depends on."""
    version = subprocess.run(
        [command, "--version"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=True
    ).stdout
    texts = [source.read_text(encoding="utf-8") for source in sources]
    return b2("\0".join([*texts, flags, version, _processor()]))[3:35]


def _build(command: str, source: Path, flags: str, attempts: Sequence[str], library: Path) -> None:
    temporary = library.with_name(f".tmp-{uuid.uuid4().hex[:8]}.so")
    try:
        for extra in attempts:
            call = [command, *flags.split(), *extra.split(), str(source), "-o", str(temporary)]
            done = subprocess.run(call, capture_output=True, timeout=_TIMEOUT_S, check=False)
            if done.returncode == 0:
                temporary.chmod(0o700)
                with open(temporary, "rb+") as file:
                    os.fsync(file.fileno())
                os.replace(temporary, library)
                return
        raise OSError(f"{command} refuses {source.name}")
    finally:
        temporary.unlink(missing_ok=True)


def _private(path: Path) -> bool:
    """Whether it is there, the user's own, and nobody else may write to it."""
    try:
        found = path.stat()
    except OSError:
        return False
    return not hasattr(os, "getuid") or (found.st_uid == os.getuid() and not found.st_mode & 0o022)


def _processor() -> str:
    """Enough of the processor's identity that -march=native means the same."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8", errors="replace").splitlines()
        found = [line for line in lines if line.startswith(("model name", "flags", "Features"))][:2]
    except OSError:
        found = [platform.processor()]
    return "\n".join([platform.machine(), *found])
