"""Tables that take long to make and never change are kept in the user's cache folder. Losing them costs nothing but time."""

import sys
import unicodedata
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from gptwright.core.files import atomic_write, cache_dir
from gptwright.core.hashing import b2

Arrays = tuple[npt.NDArray[Any], ...]


def kept_arrays(module: str, make: Callable[[], Arrays], version: str = "") -> Arrays:
    """What ``make`` gives, from the cache when this module's text, Python's Unicode and numpy are what they were.

    Args:
        module: ``__name__`` of the module whose source decides the result.
        make: gives the arrays; called when there is no cache, or what is there cannot be read.
        version: of a library that the arrays come from.

    Returns:
        The arrays, read-only.
    """
    folder = cache_dir()
    path = None
    if folder is not None:
        source = Path(str(sys.modules[module].__file__)).read_text(encoding="utf-8")
        key = b2(f"{unicodedata.unidata_version} {np.__version__} {sys.version} {version} {source}").removeprefix(
            "b2:"
        )[:24]
        path = folder / "arrays" / f"{module}-{key}.npz"
    found = _read(path)
    if found is None:
        found = make()
        if path is not None:
            _keep(path, found)
    for array in found:
        array.flags.writeable = False
    return found


def _read(path: Path | None) -> Arrays | None:
    if path is None or not path.exists():
        return None
    try:
        with np.load(path, allow_pickle=False) as file:
            return tuple(file[str(number)] for number in range(len(file.files)))
    except (OSError, ValueError, KeyError, zipfile.BadZipFile):
        return None


def _keep(path: Path, arrays: Arrays) -> None:
    try:
        path.parent.mkdir(exist_ok=True)
        with atomic_write(path) as file:
            np.savez(file, allow_pickle=False, **{str(number): array for number, array in enumerate(arrays)})
    except OSError:
        return
