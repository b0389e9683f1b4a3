"""How far the planner's forecasts are from what runs then take and reach: time, memory, bits per byte, on runs that the law was not fitted on.

    python benchmarks/forecast_error.py PROJECT [--json] [--out test.json]

Before each run this machine is probed for ten seconds in a process of its own, as ``gptwright plan`` does, and the run is made in
another process (``scaling_runs.py``, the test set). Time is compared in seconds of processor time, forecast and fact: what else
runs on the machine makes a run longer, and hardly dearer. Wall time stands beside it. The aims: time within 20 %, memory within 15 %, bits
per byte within 3 %.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import asdict
from pathlib import Path
from typing import Any

from scaling_runs import SETS, Spec

AIMS = {"cpu_s": 0.20, "peak_bytes": 0.15, "bits_per_byte": 0.03}


def forecast(fact: dict[str, Any], machine: dict[str, Any]) -> dict[str, Any]:
    """What the planner says of a run, from its settings and a probe, in the words that the run is reported in."""
    from gptwright.model.presets import modern
    from gptwright.plan.constants import CONSTANTS
    from gptwright.plan.host import Here
    from gptwright.plan.law import Law, forecast
    from gptwright.plan.probe import Machine

    shape = modern(params=int(fact["asked"]), vocab_size=fact["vocab_size"], seq_len=fact["seq_len"])
    probed, c, batch = Machine.from_json(machine), CONSTANTS, int(fact["batch_tokens"])
    host, tokens = Here(probed), int(fact["steps"]) * batch
    each = host.token_cpu_seconds(shape, batch)
    work = tokens + c.evals * c.heldout_tokens / 3
    return {
        "bits_per_byte": forecast(Law.load(), fact["params"], tokens, fact["unique_tokens"]).value,
        "cpu_s": None if each is None else c.setup_cpu_s + work * each,
        "seconds": (c.setup_s + work * host.token_seconds(shape, batch)) * probed.slowdown,
        "peak_bytes": sum(host.memory(shape, batch).values()),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("project", type=Path)
    parser.add_argument("--json", action="store_true", help="print one JSON object instead of a table")
    parser.add_argument(
        "--out", type=Path, default=Path("forecast-error.json"), help="runs that are in it are not made again"
    )
    parser.add_argument("--probe", type=float, default=10.0, help="seconds")
    parser.add_argument("--part", default="1/1", help="every n-th run only, see scaling_runs.py")
    parser.add_argument("--only-probe", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.only_probe:
        from gptwright.plan.probe import probe

        print(json.dumps(probe(asked.probe, decode=False).to_json()))
        return
    rows = json.loads(asked.out.read_text(encoding="utf-8")) if asked.out.is_file() else []
    part, parts = (int(number) for number in asked.part.split("/"))
    for spec in [Spec(*row) for row in SETS["test"]][part - 1 :: parts]:
        if any(row["name"] == spec.name for row in rows):
            continue
        machine = _child([__file__, str(asked.project), "--probe", str(asked.probe), "--only-probe"])
        with tempfile.TemporaryDirectory() as scratch:
            script = str(Path(__file__).with_name("scaling_runs.py"))
            fact = _child([script, str(asked.project), "--scratch", scratch, "--one", json.dumps(asdict(spec))])
        rows.append({"name": spec.name, "probe": machine, "fact": fact})
        asked.out.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
    report([{**row, "forecast": forecast(row["fact"], row["probe"])} for row in rows], asked.json)


def line(row: dict[str, Any]) -> str:
    """A run for a person."""
    parts = [f"{row['name']:<16}"]
    for name in ("cpu_s", "seconds", "peak_bytes", "bits_per_byte"):
        said, was = row["forecast"][name], row["fact"][name]
        parts.append(f"{name} {was:.4g}, forecast {said:.4g} ({100 * (said / was - 1):+.1f} %)")
    return "  ".join(parts)


def report(rows: list[dict[str, Any]], as_json: bool) -> None:
    """All runs, and the largest and median error of each kind."""
    errors = {name: [abs(row["forecast"][name] / row["fact"][name] - 1) for row in rows] for name in AIMS}
    found = {
        name: {"largest": max(values), "median": statistics.median(values), "aim": AIMS[name]}
        for name, values in errors.items()
    }
    if as_json:
        print(json.dumps({"name": "forecast_error", "runs": rows, "errors": found}))
        return
    for row in rows:
        print(line(row))
    for name, error in found.items():
        print(
            f"{name}: largest error {100 * error['largest']:.1f} %, median {100 * error['median']:.1f} %, aim {100 * error['aim']:.0f} %"
        )


def _child(arguments: list[str]) -> dict[str, Any]:
    done = subprocess.run([sys.executable, *arguments], stdout=subprocess.PIPE, text=True, check=True)
    found: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return found


if __name__ == "__main__":
    main()
