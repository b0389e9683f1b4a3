"""``gptwright doctor``: what this machine has, what it costs that something is missing, and how to mend it."""

import importlib.metadata
import importlib.util
import os
import platform
import shutil
import sqlite3
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

from gptwright.core.errors import UserError

# extra -> a module that shows whether it is there, and what it is good for
_EXTRAS = {
    "serve": ("fastapi", "the API and providers"),
    "studio": ("nicegui", "the pages"),
    "hf": ("transformers", "checks against transformers and peft"),
    "postgres": ("psycopg", "PostgreSQL as control store"),
}


@dataclass(frozen=True)
class Finding:
    """One thing looked at: verdict ok, note (works, with a loss) or bad."""

    what: str
    verdict: str
    found: str
    fix: str = ""


def examine() -> list[Finding]:
    """Look at everything. Takes a second, most of it the import of torch."""
    torch = _torch()
    with_torch = [_bf16(), _gpu(), _compiler()] if torch.verdict == "ok" else []
    return [_python(), torch, *with_torch, _memory(), _disk(), _database(), *_extras(), _browser()]


def _python() -> Finding:
    version = platform.python_version()
    good = sys.version_info >= (3, 11)
    return Finding("Python", "ok" if good else "bad", version, "" if good else "Install Python 3.11 or newer")


def _torch() -> Finding:
    try:
        import torch
    except (ImportError, OSError) as error:
        return Finding("torch", "bad", f"cannot be imported: {error}", "Run: pip install torch")
    return Finding("torch", "ok", f"{torch.__version__}, {torch.get_num_threads()} threads")


def _bf16() -> Finding:
    import torch

    def has(name: str) -> bool:
        check = getattr(torch.cpu, name, None)
        return bool(check is not None and check())

    if has("_is_amx_tile_supported"):
        return Finding("CPU", "ok", f"{_cpu_name()}: AMX, bf16 is fast")
    if has("_is_avx512_bf16_supported"):
        return Finding("CPU", "ok", f"{_cpu_name()}: AVX512-BF16, bf16 is fast")
    return Finding("CPU", "note", f"{_cpu_name()}: no bf16 arithmetic", "Training uses fp32, about three times slower")


def _cpu_name() -> str:
    info = Path("/proc/cpuinfo")
    if info.is_file():
        for line in info.read_text(errors="replace").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _compiler() -> Finding:
    from gptwright.model import native

    compiler = native.compiler()
    library, missing = native.load()
    if library is not None:
        return Finding("compiler", "ok", f"{compiler}, training's kernels are built")
    fix = "Everything runs, training at about half speed."
    return Finding("compiler", "note", missing, fix if compiler else f"{fix} Run: apt-get install g++")


def _memory() -> Finding:
    try:
        total = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    except (AttributeError, ValueError, OSError):
        return Finding("memory", "note", "unknown on this system")
    return Finding(
        "memory", "ok" if total >= 4 else "note", f"{total:.1f} GiB", "" if total >= 4 else "Choose small models"
    )


def _disk() -> Finding:
    free = shutil.disk_usage(Path.cwd()).free / 2**30
    return Finding(
        "disk", "ok" if free >= 2 else "bad", f"{free:.1f} GiB free here", "" if free >= 2 else "Free some space"
    )


def _database() -> Finding:
    """Makes a control store, which tries SQLite, SQLAlchemy and the migrations."""
    from gptwright.core.control import ControlStore

    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        try:
            ControlStore.open(Path(folder) / "control.sqlite").close()
        except UserError as error:
            return Finding("database", "bad", str(error), "Set TMPDIR to a folder on a local disk, or repair Python")
    found = f"SQLite {sqlite3.sqlite_version}"
    if importlib.util.find_spec("psycopg") is None:
        return Finding("database", "ok", f"{found}; no PostgreSQL driver")
    try:
        import psycopg
    except ImportError as error:  # the package without the C library that it calls
        return Finding(
            "database", "note", f"{found}; psycopg: {error}", 'For PostgreSQL: pip install "psycopg[binary]"'
        )
    return Finding("database", "ok", f"{found}; psycopg {psycopg.__version__}")


def _gpu() -> Finding:
    import torch

    if torch.cuda.is_available():
        return Finding("GPU", "ok", torch.cuda.get_device_name(0))
    if torch.backends.mps.is_available():
        return Finding("GPU", "note", "Apple MPS", 'Never tried; training takes it only with device = "mps"')
    return Finding("GPU", "note", "none", "Small models need none")


def _extras() -> list[Finding]:
    rows = []
    for extra, (module, purpose) in _EXTRAS.items():
        there = importlib.util.find_spec(module) is not None
        version = importlib.metadata.version(module) if there else ""
        fix = "" if there else f'For {purpose}: pip install "gptwright[{extra}]"'
        rows.append(Finding(f"extra {extra}", "ok" if there else "note", version or "not installed", fix))
    return rows


def _browser() -> Finding:
    found = next(
        (path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None
    )
    return Finding(
        "Chromium",
        "ok" if found else "note",
        found or "none",
        "" if found else "For browser tests: apt-get install chromium",
    )
