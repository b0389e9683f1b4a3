"""What a run did: its curve, its decisions, and how two runs differ."""

from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import read_json

if TYPE_CHECKING:
    from gptwright.project.project import Project


def show_run(project: "Project", run_id: str) -> tuple[dict[str, Any], str]:
    """Data and text about one run."""
    from gptwright.train.metrics import read_metrics
    from gptwright.train.plot import text_plot

    with project.ledger() as ledger:
        run = ledger.run(run_id)
        if run is None:
            raise UserError(f"no such run: {run_id}", fix="See: gptwright runs list")
        events = ledger.events(run_id)
    folder = project.work / "runs" / run_id
    data: dict[str, Any] = {
        "id": run.id,
        "stage": run.stage,
        "state": run.state,
        "started_at": run.started_at,
        "meta": run.meta,
    }
    data["events"] = [{"kind": e.kind, "at": e.at, **e.data} for e in events]
    lines = [f"{run.id}  {run.stage}  {run.state}  started {run.started_at}"]
    lines += [f"  {key}: {_shown(value)}" for key, value in run.meta.items()]
    lines += [f"  {e.at} {e.kind}: " + ", ".join(f"{k} {_shown(v)}" for k, v in e.data.items()) for e in events]
    rows = read_metrics(folder / "metrics.jsonl") if (folder / "metrics.jsonl").is_file() else []
    if rows:
        data["metrics"] = rows
        lines += ["", text_plot([(row["step"], row["loss"]) for row in rows])]
        lines += [
            f"  step {row['step']}: held-out {row['heldout_bpb']:.3f} bits/byte" for row in rows if "heldout_bpb" in row
        ]
    return data, "\n".join(lines)


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def compare_runs(project: "Project", a: str, b: str) -> tuple[dict[str, Any], str]:
    """Settings that differ between two runs, and their results side by side."""
    configs, results = [], []
    for run_id in (a, b):
        folder = project.work / "runs" / run_id
        if not (folder / "config.json").is_file():
            raise UserError(f"no such training run: {run_id}", fix="See: gptwright runs list")
        configs.append(dict(_flat(read_json(folder / "config.json"))))
        results.append(read_json(folder / "result.json") if (folder / "result.json").is_file() else {})
    keys = sorted(configs[0].keys() | configs[1].keys())
    different = {
        key: [configs[0].get(key), configs[1].get(key)] for key in keys if configs[0].get(key) != configs[1].get(key)
    }
    outcome = {key: [results[0].get(key), results[1].get(key)] for key in sorted(results[0].keys() | results[1].keys())}
    lines = _side_by_side(different) or ["the settings are equal"]
    lines += ["", *_side_by_side(outcome)]
    return {"settings": different, "results": results}, "\n".join(lines)


def _side_by_side(rows: dict[str, list[Any]]) -> list[str]:
    return [f"{key}: {_shown(left)} | {_shown(right)}" for key, (left, right) in rows.items()]


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in data.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows
