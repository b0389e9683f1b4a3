"""``gptwright data add``: write a source into gptwright.toml, comments and all else left as they are."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from gptwright.core.config import load_config
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.corpus.config import SourceConfig
from gptwright.project.settings import Settings

if TYPE_CHECKING:
    from gptwright.project.project import Project


def add_source(
    project: "Project", uri: str, name: str | None, license: str | None, attribution: str | None, personal: str
) -> dict[str, Any]:
    """Add a source.

    Args:
        project: the project.
        uri: folder, file or ``package:DIST[/glob]``.
        name: its name; None makes one of the uri.
        license: SPDX expression.
        attribution: whom to name.
        personal: yes, no or unknown.

    Raises:
        UserError: it is not there, the name is taken, or a value is not understood; the file stays as it was.
    """
    path = project.root / "gptwright.toml"
    if not uri.startswith("package:"):
        if re.match(r"[a-z]+:", uri):
            raise UserError(
                f"this kind of source is not known: {uri}", fix="Give a folder, a file, or package:DIST[/glob]"
            )
        place = Path(uri) if Path(uri).is_absolute() else Path.cwd() / uri
        if not place.exists():
            raise UserError("no such file or folder", where=uri)
        # Relative to the project where it can be, so that the folder may move as a whole.
        resolved = place.resolve()
        uri = (
            resolved.relative_to(project.root).as_posix()
            if resolved.is_relative_to(project.root)
            else resolved.as_posix()
        )
    name = (
        name
        or re.sub(
            r"[^A-Za-z0-9]+",
            "-",
            Path(uri.removeprefix("package:").partition("/")[0] if uri.startswith("package:") else uri).stem,
        )
        .strip("-")
        .lower()
        or "texts"
    )
    document = tomlkit.parse(path.read_text(encoding="utf-8"))
    corpus: Any = document.setdefault("corpus", tomlkit.table())
    sources = corpus.setdefault("sources", tomlkit.table(is_super_table=True))
    if name in sources:
        raise UserError(f"there is a source named {name} already", where=str(path), fix="Choose another with --name")
    values = {"uri": uri, "license": license, "attribution": attribution, "contains_personal_data": personal}
    table = tomlkit.table()
    for key, value in values.items():
        if value is not None:
            table[key] = value
    sources[name] = table
    text = tomlkit.dumps(document)
    draft = path.with_name(".gptwright.toml.draft")
    try:
        draft.write_text(text, encoding="utf-8")
        settings, _ = load_config(Settings, draft)
    finally:
        draft.unlink(missing_ok=True)
    with atomic_write(path, "w") as file:
        file.write(text)
    source: SourceConfig = settings.corpus.sources[name]
    return {"name": name, **source.model_dump()}
