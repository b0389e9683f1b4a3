"""The page of an adaptation: the table that is printed, and every question with the replies before and after. Plain HTML, nothing loaded."""

import html
from collections.abc import Mapping, Sequence
from typing import Any

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; color: #1c1c1c; background: #fff }
pre { overflow-x: auto; background: #f4f4f2; padding: 1rem; border-radius: 6px }
table { border-collapse: collapse; width: 100% } th, td { text-align: left; vertical-align: top; padding: .4rem .6rem; border-bottom: 1px solid #ddd }
td.right::before { content: "✓ "; color: #17703c; font-weight: 700 } td.wrong::before { content: "✗ "; color: #a3262a; font-weight: 700 }
@media (prefers-color-scheme: dark) { body { background: #161616; color: #e8e8e8 } pre { background: #222 } th, td { border-color: #3a3a3a }
  td.right::before { color: #5ecb8d } td.wrong::before { color: #ef8a8c } }
"""


def page(report: Mapping[str, Any], lines: Sequence[str]) -> str:
    """HTML of a report of ``adapting.adaptation``.

    Args:
        report: its data; all of it is escaped.
        lines: the table as it is printed.
    """
    e = html.escape
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' content='width=device-width'>",
        f"<title>Adaptation of {e(report['base'])}</title><style>{_STYLE}</style></head><body>",
        f"<h1>Before and after</h1><p>{e(report['model'])}, tuned from {e(report['base'])}. Both were measured on the same text and asked the "
        "same questions, none of which were trained on; the tests are paired.</p>",
        f"<pre>{e(chr(10).join(lines))}</pre>",
    ]
    for suite, rows in report["questions"].items():
        parts.append(
            f"<h2>{e(suite)}</h2><table><thead><tr><th>question<th>right<th>before<th>after</tr></thead><tbody>"
        )
        for row in rows:
            cells = "".join(
                f"<td class='{'right' if row[f'{when}_right'] else 'wrong'}'>{e(row[when])}"
                for when in ("before", "after")
            )
            parts.append(f"<tr><td>{e(row['question'])}<td>{e(' / '.join(row['answers']))}{cells}</tr>")
        parts.append("</tbody></table>")
    return "\n".join([*parts, "</body></html>", ""])
