"""``gptwright data add``: write a source into gptwright.toml, comments and all else left as they are."""

import re
from pathlib import Path
from typing import TYPE_CHECKING, Any

import tomlkit

from gptwright.core.config import load_config
from gptwright.core.errors import UserError
from gptwright.core.files import atomic_write
from gptwright.corpus.config import SourceConfig
from gptwright.corpus.sources.kinds import KINDS
from gptwright.project.settings import Settings

if TYPE_CHECKING:
    from gptwright.project.project import Project


def add_source(
    project: "Project", uri: str, name: str | None, license: str | None, attribution: str | None, personal: str
) -> dict[str, Any]:
    """Add a source.

    Args:
        project: the project.
        uri: folder, file, or any other kind of source: ``package:DIST[/glob]``, ``https://PAGE``, ``crawl:URL``, ...
        name: its name; None makes one of the uri.
        license: SPDX expression.
        attribution: whom to name.
        personal: yes, no or unknown.

    Raises:
        UserError: it is not there, the name is taken, or a value is not understood; the file stays as it was.
    """
    path = project.root / "gptwright.toml"
    uri = _placed(uri, project)
    name = name or _name_of(uri)
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


_LOCAL = ("warc", "wiki", "git")  # kinds whose uri may name a file or folder of this machine


def _placed(uri: str, project: "Project") -> str:
    """A uri whose paths hold from the project folder, wherever the command was given."""
    kind, mark, rest = uri.partition(":")
    if mark and len(kind) > 1 and kind in KINDS:
        place = re.split(r"[#@]", rest)[0] if kind == "git" else rest
        if kind in _LOCAL and (Path.cwd() / place).exists():
            return f"{kind}:{_relative(place, project)}{rest[len(place) :]}"
        return uri
    if re.match(r"[a-z]{2,}:", uri) and not (Path.cwd() / uri).exists():
        kinds = ", ".join(f"{kind}:" for kind in KINDS if kind)
        raise UserError(f"this kind of source is not known: {uri}", fix=f"Give a folder, a file, or one of {kinds}")
    if not (Path.cwd() / uri).exists():
        raise UserError("no such file or folder", where=uri)
    return _relative(uri, project)


def _relative(path: str, project: "Project") -> str:
    """Relative to the project where it can be, so that the folder may move as a whole."""
    resolved = (Path.cwd() / path).resolve()
    return (
        resolved.relative_to(project.root).as_posix() if resolved.is_relative_to(project.root) else resolved.as_posix()
    )


def _name_of(uri: str) -> str:
    """A name for a source that has none: the package, the host, or the last part of a path without its endings."""
    kind, mark, rest = uri.partition(":")
    if not mark or kind not in KINDS:
        last = Path(uri).name
    else:
        place = re.sub(r"^([a-z+]+:)?//", "", uri if kind in ("http", "https") else rest)
        place = re.split(r"[#?]", place)[0].rstrip("/")
        by_host = kind in ("package", "http", "https", "crawl", "sitemap", "feed")
        last = place.partition("/")[0] if by_host else place.rpartition("/")[2].partition("@")[0]
        if by_host:
            return re.sub(r"[^A-Za-z0-9]+", "-", last).strip("-").lower() or "texts"
    return re.sub(r"[^A-Za-z0-9]+", "-", last.lstrip(".").partition(".")[0]).strip("-").lower() or "texts"
