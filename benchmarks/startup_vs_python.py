"""How long a person waits before anything happens: `import gptwright`, `--help`, and `status` on a project of 10,000 files.

The peer is the interpreter itself (`python -c pass`): what no Python program can undercut. The limits are our own.

    python benchmarks/startup_vs_python.py
    python benchmarks/startup_vs_python.py --json
"""

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

FILES = 10_000
LIMITS_S = {"import": 0.3, "help": 0.5, "status": 1.0}


def machine() -> str:
    """The processor and the interpreter."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8", errors="replace").splitlines() if info.is_file() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return f"{names[0] if names else platform.processor()}, {os.cpu_count()} CPUs, Python {platform.python_version()}"


def make_project(root: Path, files: int) -> None:
    """A project with that many text files whose corpus is built, so that `status` has everything to compare."""
    for number in range(files):
        folder = root / "data" / f"{number // 1000:03}"
        folder.mkdir(parents=True, exist_ok=True)
        (folder / f"{number:05}.txt").write_text(
            f"Note {number}. The number after it is {number + 1}.\n", encoding="utf-8"
        )
    (root / "gptwright.toml").write_text(
        '[corpus.sources.mine]\nuri = "data"\nlicense = "LicenseRef-own"\n', encoding="utf-8"
    )
    subprocess.run(
        [sys.executable, "-m", "gptwright", "data", "build", "--project", str(root), "--quiet"],
        check=True,
        capture_output=True,
    )


def seconds(command: list[str], repeats: int) -> float:
    """The median wall time of a command, after one run that fills the disk cache."""
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        subprocess.run(command, check=True, capture_output=True)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def measure(repeats: int, files: int) -> dict[str, float]:
    """Seconds of each, and of the bare interpreter."""
    python = sys.executable
    with tempfile.TemporaryDirectory() as scratch:
        root = Path(scratch) / "project"
        root.mkdir()
        make_project(root, files)
        commands = {
            "python": [python, "-c", "pass"],
            "import": [python, "-c", "import gptwright"],
            "help": [python, "-m", "gptwright", "--help"],
            "status": [python, "-m", "gptwright", "status", "--project", str(root)],
        }
        return {name: seconds(command, repeats) for name, command in commands.items()}


def main() -> int:
    """Measure and print. Exit code 1 when a limit is not kept."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true")
    parser.add_argument("--repeats", type=int, default=7)
    parser.add_argument("--files", type=int, default=FILES)
    options = parser.parse_args()
    found = measure(options.repeats, options.files)
    kept = {name: found[name] < limit for name, limit in LIMITS_S.items()}
    result: dict[str, Any] = {
        "name": "startup_vs_python",
        "ours": round(found["import"], 4),
        "peer": f"python {platform.python_version()} -c pass",
        "theirs": round(found["python"], 4),
        "unit": "s",
        "ratio": round(found["python"] / found["import"], 3),
        "machine": machine(),
        "files": options.files,
        "seconds": {name: round(value, 4) for name, value in found.items()},
        "limits": LIMITS_S,
        "kept": kept,
    }
    if options.json:
        print(json.dumps(result))
    else:
        print(f"{'command':<32}{'seconds':>9}{'limit':>7}   ({result['machine']}, median of {options.repeats})")
        print(f"{'python -c pass':<32}{found['python']:9.3f}")
        labels = {
            "import": "import gptwright",
            "help": "gptwright --help",
            "status": f"gptwright status, {options.files:,} files",
        }
        for name, label in labels.items():
            print(f"{label:<32}{found[name]:9.3f}{LIMITS_S[name]:7.1f}   {'kept' if kept[name] else 'NOT KEPT'}")
    return 0 if all(kept.values()) else 1


if __name__ == "__main__":
    sys.exit(main())
