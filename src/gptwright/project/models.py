"""Which model a name means: an id, an alias, ``newest``, a directory, a GGUF file or ``provider:name``."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from gptwright.core.errors import UserError
from gptwright.core.ledger import Artifact, Ledger
from gptwright.core.progress import say

if TYPE_CHECKING:
    from gptwright.project.project import Project
    from gptwright.tokens.tokenizer import Tokenizer


@dataclass(frozen=True)
class ModelRef:
    """A model on disk."""

    id: str
    path: Path
    hash: str
    artifact_id: int | None = None
    imported: bool = False


def locate(project: "Project | None", name: str | None) -> ModelRef:
    """Find a model.

    Args:
        project: where ids and aliases are looked up; None allows directories only.
        name: id, alias, directory; None means ``production``, else the newest model.

    Raises:
        UserError: nothing of that name; near names are listed.
    """
    if name is not None and (Path(name) / "config.json").is_file():
        return ModelRef(Path(name).resolve().name, Path(name).resolve(), "")
    if project is None:
        raise UserError(f"no such model: {name or 'production'}", fix="Give a model directory, or --project DIR")
    if name is None or name in alias_names(project):
        found = by_alias(project, name or "production")
        if found is not None and found.path.is_dir():
            return found
        if found is not None:
            where = str(found.path)
            if name is not None:
                raise UserError(f"the directory of {found.id} is gone", where=where, fix="Run: gptwright run")
            say(f"production ({found.id}) is gone from {where}; taking the newest model instead")
        elif name is not None:
            raise UserError(f"the alias {name} points to nothing", fix="Run: gptwright release promote MODEL")
    if project.has_ledger:
        with project.ledger() as ledger:
            artifact = ledger.find("model", name) if name else _newest(ledger)
        if artifact is not None:
            return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    if name is None:
        raise UserError("there is no model yet", where=str(project.root), fix="Run: gptwright run")
    known = [ref.id for ref in all_models(project)]
    raise UserError(f"no such model: {name}", fix=f"Known are: {', '.join(known) or 'none yet; run gptwright run'}")


def _newest(ledger: Ledger) -> Artifact | None:
    """The newest model made here; an imported one only when there is no other."""
    models = ledger.artifacts("model")
    own = [artifact for artifact in models if artifact.stage != "import"]
    return own[-1] if own else models[-1] if models else None


def alias_names(project: "Project") -> list[str]:
    """Aliases of the registry; none in a project that never released anything."""
    if not project.settings.serve.database_url and not (project.state / "control.sqlite").is_file():
        return []
    return sorted(project.registry.aliases())


def by_alias(project: "Project", alias: str) -> ModelRef | None:
    if alias not in alias_names(project):
        return None
    release = project.registry.current(alias)
    return ModelRef(release.model_id, project.root / release.path, release.model_hash) if release else None


def all_models(project: "Project") -> list[ModelRef]:
    """Every model of the project that is still on disk, newest last."""
    if not project.has_ledger:
        return []
    with project.ledger() as ledger:
        found = {
            a.name: ModelRef(a.name, project.root / a.path, a.hash, a.id, a.stage == "import")
            for a in ledger.artifacts("model")
        }
    return [ref for ref in found.values() if ref.path.is_dir()]


def locate_base(project: "Project", ledger: Ledger, inputs: Mapping[str, Artifact]) -> ModelRef:
    """What fine-tuning starts from."""
    base = project.settings.finetune.base
    if base == "pretrain":
        artifact = inputs["pretrain"]
        return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    place = base_place(project)
    if place is not None or base.startswith("package:"):
        from gptwright.project.exchange import import_into

        artifact = import_into(project, ledger, str(place or base), None)
        return ModelRef(artifact.name, project.root / artifact.path, artifact.hash, artifact.id)
    return locate(project, base)


def base_place(project: "Project") -> Path | None:
    """Where ``[finetune] base`` lies, when it is a path and no name; a relative one begins at the project's folder."""
    place = project.root / project.settings.finetune.base
    return place if place.suffix == ".gguf" or (place / "config.json").is_file() else None


def project_tokenizer(project: "Project") -> "Tokenizer":
    """The project's own tokenizer, or that of its newest model."""
    from gptwright.tokens.tokenizer import Tokenizer

    own = project.work / "tokenizer"
    return Tokenizer.load(own if (own / "tokenizer.json").is_file() else locate(project, None).path)
