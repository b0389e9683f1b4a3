"""``gptwright new``: a folder with a commented configuration, ready to run."""

from importlib.resources import files
from pathlib import Path

from gptwright.core.config import json_schema
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write, write_json
from gptwright.project.settings import ProjectSettings, Settings

TEMPLATES = ("starter", "empty", "adapt")
# What adapt puts beside its configuration: how conversations look, and questions on its texts in other words than theirs.
EXAMPLES = {"data/example.jsonl": "adapt.example.jsonl", "questions.jsonl": "adapt.questions.jsonl"}


def create(directory: Path, template: str) -> Path:
    """Make the project folder.

    Args:
        directory: the folder; its name becomes the project's.
        template: starter (text that packages ship), empty (your own folder ``data/``) or adapt (fine-tune an open model).

    Raises:
        UserError: no such template, the folder already holds a project, or its name cannot be a project's.
    """
    if template not in TEMPLATES:
        raise UserError(f"no such template: {template}", fix=f"Choose one of: {', '.join(TEMPLATES)}")
    if directory.exists() and not directory.is_dir():
        raise UserError("is a file", where=str(directory), fix="Choose another name")
    if (directory / "gptwright.toml").exists():
        raise UserError("there is a project already", where=str(directory), fix="Choose another name")
    name = directory.resolve().name.lower().replace(" ", "-")
    try:
        ProjectSettings(name=name)
    except ValueError as error:
        raise UserError(f"{name!r} cannot be a project's name", fix="Use letters, digits, dots and dashes") from error
    text = (files("gptwright.project") / "templates" / f"{template}.toml").read_text(encoding="utf-8")
    with atomic_write(directory / "gptwright.toml", "w") as file:
        file.write(text.replace("NAME", name))
    if template != "starter":
        (directory / "data").mkdir(exist_ok=True)
    for place, name in EXAMPLES.items() if template == "adapt" else ():
        if not (directory / place).exists():
            with atomic_write(directory / place, "w") as file:
                file.write((files("gptwright.project") / "templates" / name).read_text(encoding="utf-8"))
    write_json(directory / ".gptwright" / "schema.json", json_schema(Settings))
    if not (directory / ".gitignore").exists():
        with atomic_write(directory / ".gitignore", "w") as file:
            file.write("work/\nstate/\n.gptwright/\n")
    return directory
