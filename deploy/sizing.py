"""The sizing table of docs/deploy.md, made by the planner. ``python deploy/sizing.py`` prints it, ``--write`` puts it into the page."""

import sys
from pathlib import Path

from gptwright.plan.serving import Load, sizing, sizing_table

PAGE = Path(__file__).parents[1] / "docs" / "deploy.md"
BEGIN, END = "<!-- sizing: made by deploy/sizing.py -->", "<!-- sizing: end -->"
LOAD = Load(requests_per_day=50_000)
ROWS = (
    ("smollm2-135m", "bfloat16", ("t4", "l4")),
    ("qwen3-0.6b", "bfloat16", ("t4", "l4", "rtx4090")),
    ("qwen3-4b", "bfloat16", ("l4", "rtx4090", "a100")),
    ("llama3.1-8b", "bfloat16", ("l4", "l40s", "h100")),
    ("llama3.1-8b", "q8_0", ("l4",)),
)


def table() -> str:
    """The table as Markdown."""
    return sizing_table([row for model, dtype, cards in ROWS for row in sizing(model, cards, LOAD, dtype=dtype)])


def written(page: str) -> str:
    """The page with the table as it is now."""
    head, _, rest = page.partition(BEGIN)
    _, _, tail = rest.partition(END)
    return f"{head}{BEGIN}\n\n{table()}\n\n{END}{tail}"


def main() -> None:
    """Print the table, or write it into the page."""
    if "--write" in sys.argv[1:]:
        PAGE.write_text(written(PAGE.read_text(encoding="utf-8")), encoding="utf-8", newline="\n")
    else:
        print(table())


if __name__ == "__main__":
    main()
