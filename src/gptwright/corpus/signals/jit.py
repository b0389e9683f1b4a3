"""How the kernels are compiled: parts only as parts of the kernel that is called, which alone is kept on disk.

A cached kernel is known by the text of every file it may have been made from, not by its own file alone, which is what numba looks at.
"""

# mypy: disable-error-code="no-untyped-def"

from collections.abc import Callable
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np
from numba import njit, types
from numba.core import cgutils
from numba.extending import intrinsic

# Python cannot call parts: the wrappers for that would take most of the compile time.
part: Callable[[Any], Any] = njit(nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy")
# A small part that is called for every character or word. Where it is a call of its own, each array that it is handed is counted by
# references twice, and that took a quarter of the time.
inlined: Callable[[Any], Any] = njit(
    nogil=True, no_cpython_wrapper=True, no_cfunc_wrapper=True, error_model="numpy", forceinline=True
)
kernel: Callable[[Any], Any] = njit(nogil=True, cache=True, no_cfunc_wrapper=True, error_model="numpy")


ZERO = np.int64(0)  # a literal would be a type of its own, and every function that it is handed to compiled once more


@cache
def version(file: str = __file__) -> int:
    """A number for the text of the package that a file belongs to, by default this one."""
    files = sorted(Path(file).parent.glob("*.py"))
    return int.from_bytes(blake2b(b"".join(path.read_bytes() for path in files), digest_size=7).digest(), "big")


@intrinsic
def pointer(typingctx, address):
    """An address as a pointer. Arrays made from pointers are not counted by references, whose atomic operations took half of the time."""
    del typingctx

    def build(context, builder, signature, args):
        del context, signature
        return builder.inttoptr(args[0], cgutils.voidptr_t)

    return types.voidptr(address), build
