"""Fit the planner's law anew: ``python -m gptwright.plan.fit [runs.json ...] [--out law.json]``. Without files, on the runs that come with it."""

import argparse
import json
from collections.abc import Sequence
from datetime import date
from pathlib import Path

from gptwright.core.files import write_json
from gptwright.plan.law import Law, Run, fit, load_runs, residuals


def main(arguments: Sequence[str] | None = None) -> int:
    """Fit, print how each run differs, and write the constants when asked to."""
    parser = argparse.ArgumentParser(prog="python -m gptwright.plan.fit", description=__doc__)
    parser.add_argument("runs", type=Path, nargs="*", help="files of runs, as benchmarks/scaling_runs.py writes them")
    parser.add_argument("--out", type=Path, help="write the constants here")
    asked = parser.parse_args(arguments)
    rows = [row for path in asked.runs for row in load_runs(path)] if asked.runs else load_runs()
    corpora = sorted({str(row["corpus"]) for row in rows})
    if len(corpora) > 1:
        parser.error(f"one law is of one text, these are {len(corpora)}: {'; '.join(corpora)}")
    runs = [Run.of(row) for row in rows]
    try:
        law = fit(runs, corpus=corpora[0], day=date.today().isoformat())
    except ValueError as error:
        parser.error(str(error))
    print(table(law, [str(row.get("name", i)) for i, row in enumerate(rows)], runs))
    print(json.dumps(law.to_json(), indent=1))
    if asked.out:
        write_json(asked.out, law.to_json())
    return 0


def table(law: Law, names: Sequence[str], runs: Sequence[Run]) -> str:
    """A line a run: fact, law, difference."""
    lines = [f"{'run':<24} {'params':>10} {'tokens':>10} {'passes':>6} {'fact':>7} {'law':>7} {'off':>7}"]
    for name, run, off in zip(names, runs, residuals(law, runs), strict=True):
        said = law(run.params, run.tokens, run.unique)
        lines.append(
            f"{name:<24} {run.params:>10.4g} {run.tokens:>10.4g} {run.tokens / run.unique:>6.2f} {run.bits_per_byte:>7.4f} {said:>7.4f}"
            f" {100 * off:>6.2f}%"
        )
    lines.append(f"spread of a run left out: {100 * law.spread:.2f} %")
    return "\n".join(lines)


if __name__ == "__main__":
    raise SystemExit(main())
