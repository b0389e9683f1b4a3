"""What a run did: its curves, what it told of itself, and how two runs differ. In the terminal, and as a page with all curves."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, read_json
from gptwright.core.progress import short

if TYPE_CHECKING:
    from gptwright.project.project import Project

_WIDTH = 96
_LINES = {  # metric -> what a person calls it
    "grad_norm": "gradient norm",
    "update_ratio": "update / weights",
    "lr_matrix": "rate of matrices",
    "lr_embedding": "rate of embeddings",
    "lr_other": "rate of the rest",
    "tokens_per_s": "tokens a second",
    "peak_share": "share of peak",
    "rss_bytes": "memory, bytes",
    "cuda_peak_bytes": "GPU memory, bytes",
}


def show_run(project: "Project", run_id: str) -> tuple[dict[str, Any], str]:
    """Data and text about one run; a page with its curves is written into its folder."""
    from gptwright.train.metrics import read_metrics
    from gptwright.train.page import page
    from gptwright.train.plot import text_plot
    from gptwright.train.watch import explanations

    with project.ledger() as ledger:
        run = ledger.run(run_id)
        if run is None:
            raise UserError(f"no such run: {run_id}", fix="See: gptwright runs list")
        events = [event for event in ledger.events(run_id) if event.kind != "spike"]
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
    lines += [_line(key, value) for key, value in run.meta.items()]
    lines += [_line(f"{e.at} {e.kind}", _event(e.kind, e.data)) for e in events]
    told = [f"{one['what']}. {one['text']}. {one['fix']}." for one in explanations(folder)]
    rows = read_metrics(folder / "metrics.jsonl")
    if told:
        data["explanations"] = explanations(folder)
        lines += ["", *(textwrap.fill(text, _WIDTH, subsequent_indent="  ") for text in told)]
    if rows:
        data["metrics"] = rows
        losses = [(row["step"], row["loss"]) for row in rows if "loss" in row]
        lines += ["", text_plot(losses), *_held_out(rows), *_ways(rows)]
        with atomic_write(folder / "curves.html", "w") as file:
            file.write(page(f"{run.id}: {run.stage}", {run.id: rows}, told, _tables(folder)))
        data["page"] = str(folder / "curves.html")
        lines += ["", f"All curves: {_near(folder / 'curves.html')}"]
    return data, "\n".join(lines)


def _event(kind: str, data: Mapping[str, Any]) -> str:
    from gptwright.project import foresight

    if kind == foresight.MADE:
        return foresight.told(data)
    if kind == foresight.CHECKED:
        return "; ".join(foresight.lines(data))
    return ", ".join(f"{k} {_shown(v)}" for k, v in data.items())


def _held_out(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """Held-out bits per byte: the whole and each source, at the start, at best, at the end."""
    names = [name for name in dict.fromkeys(n for row in rows for n in row) if name.split("/")[0] == "heldout_bpb"]
    lines = []
    for name in names:
        values = [(row[name], row["step"]) for row in rows if name in row]
        best, step = min(values)
        what = name.partition("/")[2] or "all of it"
        lines.append(f"  {what[:28]:<28} {values[0][0]:.3f} -> {values[-1][0]:.3f}, best {best:.3f} after step {step}")
    return ["", "Held-out text, bits per byte:", *lines] if lines else []


def _ways(rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line a metric: its way, its last value, its range."""
    from gptwright.train.plot import sparkline

    lines = []
    for name, what in _LINES.items():
        values = [row[name] for row in rows if isinstance(row.get(name), int | float)]
        if values:
            low, high = short(min(values)), short(max(values))
            lines.append(f"  {what:<20} {sparkline(values):<24}  {short(values[-1])}  ({low} to {high})")
    return ["", *lines] if lines else []


def _tables(folder: Path) -> dict[str, list[list[Any]]]:
    tables = {}
    for name, heading in (("result.json", "Result"), ("config.json", "Settings")):
        if (folder / name).is_file():
            rows = [[key, value] for key, value in _flat(read_json(folder / name)) if key != "explanations"]
            tables[heading] = [["", ""], *rows]
    return tables


def _line(name: str, value: Any) -> str:
    return textwrap.fill(f"  {name}: {_shown(value)}", _WIDTH, subsequent_indent="    ")


def _shown(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _near(path: Path) -> str:
    """A path as short as it can be from here."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


def compare_runs(project: "Project", a: str, b: str) -> tuple[dict[str, Any], str]:
    """Curves of two runs over each other, settings that differ, and results side by side."""
    from gptwright.train.metrics import read_metrics
    from gptwright.train.page import page
    from gptwright.train.plot import text_overlay

    configs, results, metrics = [], [], {}
    for run_id in (a, b):
        folder = project.work / "runs" / run_id
        if not (folder / "config.json").is_file():
            raise UserError(f"no such training run: {run_id}", fix="See: gptwright runs list")
        configs.append(dict(_flat(read_json(folder / "config.json"))))
        found = read_json(folder / "result.json") if (folder / "result.json").is_file() else {}
        results.append({key: value for key, value in found.items() if key != "explanations"})
        metrics[run_id] = read_metrics(folder / "metrics.jsonl")
    keys = sorted(configs[0].keys() | configs[1].keys())
    different = {
        key: [configs[0].get(key), configs[1].get(key)] for key in keys if configs[0].get(key) != configs[1].get(key)
    }
    outcome = {key: [results[0].get(key), results[1].get(key)] for key in sorted(results[0].keys() | results[1].keys())}
    lines = []
    for name, label in (("loss", "loss"), ("heldout_bpb", "held-out bits per byte")):
        curves = {run: [(row["step"], row[name]) for row in rows if name in row] for run, rows in metrics.items()}
        if any(curves.values()):
            lines += [text_overlay(curves, label=label, height=10), ""]
    lines += _side_by_side(different) or ["the settings are equal"]
    lines += ["", *_side_by_side(outcome)]
    path = project.work / "reports" / f"compare-{a}-{b}.html"
    tables: dict[str, list[list[Any]]] = {
        "Settings that differ": [["", a, b], *([key, *both] for key, both in different.items())]
    }
    tables["Results"] = [["", a, b], *([key, *both] for key, both in outcome.items())]
    with atomic_write(path, "w") as file:
        file.write(page(f"{a} beside {b}", metrics, (), tables))
    lines += ["", f"All curves: {_near(path)}"]
    return {"settings": different, "results": results, "page": str(path)}, "\n".join(lines)


def _side_by_side(rows: dict[str, list[Any]]) -> list[str]:
    return [_line(key, f"{_shown(left)} | {_shown(right)}").removeprefix("  ") for key, (left, right) in rows.items()]


def _flat(data: dict[str, Any], prefix: str = "") -> list[tuple[str, Any]]:
    rows: list[tuple[str, Any]] = []
    for name, value in data.items():
        rows += _flat(value, f"{prefix}{name}.") if isinstance(value, dict) else [(prefix + name, value)]
    return rows
