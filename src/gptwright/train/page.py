"""All curves of one or several runs as a page: one HTML file, no script, nothing loaded from elsewhere."""

from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

from gptwright.train.plot import Points, svg_plot

Rows = Sequence[Mapping[str, Any]]
_CHARTS = (  # title, names or beginnings of names
    ("Training loss, nats a target", ("loss",)),
    ("Held-out text, bits per byte", ("heldout_bpb", "heldout_bpb/")),
    ("Gradient, norm before clipping", ("grad_norm",)),
    ("Gradient by layer, norm", ("grad_norm/",)),
    ("Update by layer, share of the weights' size in one step", ("update_ratio/",)),
    ("Weights by layer, norm", ("weight_norm/",)),
    ("Rates", ("lr_matrix", "lr_embedding", "lr_other")),
    ("Speed, tokens a second", ("tokens_per_s",)),
    ("Speed, share of the matmul peak", ("peak_share",)),
    ("Memory, bytes", ("rss_bytes", "cuda_peak_bytes")),
)
_PLAIN = {"step", "tokens", "targets", "seconds", "lr_share", "update_ratio"}
_STYLE = """
:root{color-scheme:light dark}body{font:15px/1.5 system-ui,sans-serif;max-width:1100px;margin:2rem auto;padding:0 1rem}
h1{font-size:1.4rem}h2{font-size:1.05rem;margin:1.6rem 0 .4rem}.charts{display:grid;gap:1rem;
grid-template-columns:repeat(auto-fit,minmax(min(100%,480px),1fr))}svg{width:100%;height:auto;border:1px solid #8884;border-radius:6px}
table{border-collapse:collapse;width:100%}td,th{text-align:left;padding:.2rem .6rem;border-bottom:1px solid #8883;vertical-align:top;
overflow-wrap:anywhere}.told{border-left:4px solid #d1592f;padding:.3rem .8rem;margin:.6rem 0}
"""


def charts(runs: Mapping[str, Rows]) -> dict[str, dict[str, Points]]:
    """What is drawn: title -> name of a curve -> its points.

    Args:
        runs: name of a run -> its lines of metrics.jsonl. Of several runs, layers are left out.
    """
    names = list(dict.fromkeys(name for rows in runs.values() for row in rows for name in row))
    known = {name for name in names if any(_is_of(name, own) for _, own in _CHARTS)} | _PLAIN
    wanted = [*_CHARTS, *((name, (name,)) for name in names if name not in known)]
    found: dict[str, dict[str, Points]] = {}
    for title, own in wanted:
        curves: dict[str, Points] = {}
        for name in (name for name in names if _is_of(name, own)):
            if len(runs) > 1 and name.partition("/")[0] in ("grad_norm", "update_ratio", "weight_norm") and "/" in name:
                continue
            for run, rows in runs.items():
                points = [(row["step"], row[name]) for row in rows if isinstance(row.get(name), int | float)]
                if points:
                    shown = name.partition("/")[2] or name
                    curves[shown if len(runs) == 1 else run if len(own) == 1 else f"{run}: {shown}"] = points
        if curves:
            found[title] = curves
    return found


def page(
    title: str, runs: Mapping[str, Rows], told: Sequence[str] = (), tables: Mapping[str, Sequence[Sequence[Any]]] = {}
) -> str:
    """The page.

    Args:
        title: heads it.
        runs: name of a run -> its lines of metrics.jsonl.
        told: what runs told of themselves.
        tables: heading -> rows, the first of which names the columns.
    """
    parts = [f"<h1>{escape(title)}</h1>"]
    parts += [f'<p class="told">{escape(text)}</p>' for text in told]
    drawn = "".join(svg_plot(curves, heading, 560, 300) for heading, curves in charts(runs).items())
    parts.append(f'<div class="charts">{drawn}</div>' if drawn else "<p>Nothing was recorded yet.</p>")
    for heading, rows in tables.items():
        head = "".join(f"<th>{escape(str(cell))}</th>" for cell in rows[0])
        body = "".join(
            "<tr>" + "".join(f"<td>{escape(_text(cell))}</td>" for cell in row) + "</tr>" for row in rows[1:]
        )
        parts.append(f"<h2>{escape(heading)}</h2><table><tr>{head}</tr>{body}</table>")
    return (
        f'<!doctype html><html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        f'<meta name="viewport" content="width=device-width,initial-scale=1"><style>{_STYLE}</style></head>'
        f"<body>{''.join(parts)}</body></html>\n"
    )


def _is_of(name: str, own: Sequence[str]) -> bool:
    return any(name == one or (one.endswith("/") and name.startswith(one)) for one in own)


def _text(cell: Any) -> str:
    return f"{cell:.5g}" if isinstance(cell, float) else "" if cell is None else str(cell)
